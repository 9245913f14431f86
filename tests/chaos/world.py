"""Everything that a chaos run drives: a durable Redis, a proxy before it for each process, services, and a fleet."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import sys
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psutil
from redis.exceptions import RedisError

from seawall.actors.engine import engine_from_url
from tests.acceptance.programs import Program
from tests.chaos.members import Member
from tests.chaos.plan import CLIENTS, FLEET, SERVICES, SUPERVISORS, WORKERS
from tests.support import PrivateRedis, wait_until
from tests.support.proxy import Proxy

__all__ = ["NAMESPACE", "World", "left_running"]

NAMESPACE = "chaos"
ROOT = Path(__file__).parents[2]
#: What every service is declared with: short times, so that a run of a minute sees many rounds and trials.
OPTIONS: dict[str, Any] = {
    "timeout": 2.0,
    "max_retries": 2,
    "backoff": 0.2,
    "failure_threshold": 3,
    "recovery_timeout": 1.0,
    "slow_start": 2.0,
    "concurrency": 4,
    "expires_in": 3600.0,
}
#: Where they differ: a health path, a bound across workers, a longer time in peace.
DIFFERENT: dict[str, dict[str, Any]] = {
    "billing": {"health_path": "/health"},
    "files": {"max_in_flight": 5},
    "search": {"recovery_timeout": 2.0},
    "vector": {},
}
#: Seconds within which everything must have started.
START_SECONDS = 60.0
#: Seconds that a worker has between SIGTERM and its exit, and what the exit may take beyond that.
SHUTDOWN_TIMEOUT, SHUTDOWN_MARGIN = 5.0, 15.0
#: Ports that the kernel gives to no outgoing connection, so that a dead service's port stays free.
PORTS = range(21000, 32000)


class World:
    """Build it, `start` it; close it in any case. All of it lives in `folder`."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self._seed = seed
        self.redis = PrivateRedis(folder, durable=True)
        path = unquote(urlsplit(self.redis.url).path)
        self.proxies = {name: Proxy(path) for name in FLEET}
        self.ports = dict(zip(SERVICES, _free_ports(len(SERVICES)), strict=True))
        names = (*SERVICES, *SUPERVISORS, *WORKERS, *CLIENTS)
        self.members = {name: Member(name, folder, partial(self._launch, name)) for name in names}
        self.engine = engine_from_url(self.redis.url, NAMESPACE)
        self._kept = {name: value for name, value in os.environ.items() if not name.startswith("SEAWALL_")}
        (folder / "chaos_services.py").write_text(self._declarations())
        for name in WORKERS:
            self.set_clock(name, 0.0)

    def start(self) -> None:
        """Everything, in an order in which nothing has to wait long; returns once all of it is at work."""
        self.redis.start()
        for member in self.members.values():
            member.start()
        wait_until(self._serves, START_SECONDS, message=f"the fleet does not start; its logs are in {self.folder}")

    def _serves(self) -> bool:
        listening = {port for port in self.ports.values() if _listens(port)}
        return len(listening) == len(self.ports) and len(self.engine.queue.workers()) >= len(WORKERS)

    def close(self) -> None:
        """End whatever still runs, by force."""
        for member in self.members.values():
            member.kill()
        for proxy in self.proxies.values():
            proxy.close()
        self.engine.close()
        self.redis.stop()

    def _launch(self, name: str, who: str, log: Path) -> Program:
        return Program(self._argv(name, who), folder=self.folder, log=log, environ=self._environ(name))

    def _argv(self, name: str, who: str) -> list[str]:
        role = name.partition("-")[0]
        if name in SERVICES:
            return [sys.executable, "-m", "tests.chaos.services", name, str(self.ports[name]), str(self.folder)]
        if role == "client":
            return [sys.executable, "-m", "tests.chaos.client", who, str(self._seed), str(self.folder)]
        return [sys.executable, "-m", "seawall", role, "chaos_services", "--parent", str(os.getpid()), "--name", who]

    def _environ(self, name: str) -> dict[str, str]:
        path = [str(ROOT), *filter(None, [self._kept.get("PYTHONPATH")])]
        environ = {**self._kept, "PYTHONPATH": os.pathsep.join(path)}
        if name in SERVICES:
            return environ
        environ |= {
            "SEAWALL_BROKER_URL": f"redis://127.0.0.1:{self.proxies[name].port}/0",
            "SEAWALL_NAMESPACE": NAMESPACE,
            "SEAWALL_LOG_LEVEL": "warning",
            "SEAWALL_SHUTDOWN_TIMEOUT": str(SHUTDOWN_TIMEOUT),
        }
        if name in WORKERS:
            path.insert(0, str(Path(__file__).parent / "clock"))
            environ |= {"PYTHONPATH": os.pathsep.join(path), "CHAOS_CLOCK": str(self._clock(name))}
        return environ

    def set_clock(self, name: str, seconds: float) -> None:
        """Let a worker's wall clock be off by so much, at once."""
        path = self._clock(name)
        with open(path, "r+b" if path.exists() else "w+b") as file:
            file.write(struct.pack("d", seconds))

    def set_mode(self, service: str, mode: str) -> None:
        """How a service answers, at once; see services.py."""
        fresh = self.folder / f"{service}.mode.new"
        fresh.write_text(mode)
        fresh.rename(self.folder / f"{service}.mode")

    def fill_redis(self, *, full: bool) -> None:
        """Let the server have no byte of memory left, or as much as it likes."""
        with contextlib.suppress(RedisError, OSError), self.redis.client() as client:
            client.config_set("maxmemory", "1mb" if full else "0")

    def options(self, service: str) -> dict[str, Any]:
        return OPTIONS | DIFFERENT[service]

    def _clock(self, name: str) -> Path:
        return self.folder / f"{name}.clock"

    def _declarations(self) -> str:
        lines = ["from seawall import ResilientServiceClient", ""]
        for name, port in self.ports.items():
            options = "".join(f", {option}={value!r}" for option, value in self.options(name).items())
            lines.append(f"ResilientServiceClient('http://127.0.0.1:{port}', {name!r}, key={name!r}{options})")
        return "\n".join([*lines, ""])


def left_running() -> list[str]:
    """Processes that this one has started and that have not ended."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(f"{process.pid} {' '.join(process.cmdline())[:100]}")
    return found


def _free_ports(count: int) -> list[int]:
    free = []
    for port in random.sample(PORTS, len(PORTS)):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            free.append(port)
        if len(free) == count:
            return free
    raise OSError("no free ports")


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.5):
        return True
    return False
