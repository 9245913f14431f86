"""A whole house to look at through the page: a broker, services that can fall ill, a worker, a supervisor, the web process."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import requests

from seawall import ResilientServiceClient
from seawall.actors.meter import BUCKETS
from seawall.errors import SeawallError
from tests.acceptance.shell import plain_environ
from tests.support import Answer, CountingService, PrivateRedis, wait_until
from tests.support.house import caller
from tests.support.ports import free_port

__all__ = ["SERVICES", "House"]

#: Names by key. Billing has a health path, which its trials ask.
SERVICES = {"billing": "Billing", "search": "Search", "mail": "Mail", "git": "Git Server"}
#: Options by key: Billing falls ill at once, Git has dead letters at once and a breaker that minds nothing.
OPTIONS: dict[str, dict[str, Any]] = {
    "billing": {"failure_threshold": 3, "recovery_timeout": 1.5, "health_path": "/health", "max_retries": 1},
    "search": {"failure_threshold": 5, "recovery_timeout": 30.0, "max_retries": 1},
    "mail": {"max_in_flight": 4},
    "git": {"failure_threshold": 10_000, "max_retries": 1, "retry_budget": 1.0},
}
_MODULE = """
import json, os
from seawall import ResilientServiceClient
made = {key: ResilientServiceClient(**options) for key, options in json.loads(os.environ["HOUSE"]).items()}
made["mail"].schedule("digest", "POST", "/digest", cron="0 3 * * *")
made["git"].schedule("prune", "POST", "/prune", every=900)
"""


class House:
    """A context manager; `folder` is its own. The services run in this process, so that a test can script them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.broker = PrivateRedis(folder / "broker")
        self.services = {key: CountingService() for key in SERVICES}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = contextlib.ExitStack()
        self._busy = threading.Event()
        self.port = free_port()
        self.clients: dict[str, ResilientServiceClient] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> House:
        (self._folder / "broker").mkdir(exist_ok=True)
        (self._folder / "house_services.py").write_text(_MODULE)
        self.broker.start()
        self._stack.callback(self.broker.stop)
        for service in self.services.values():
            self._stack.enter_context(service)
        self._stack.enter_context(caller(self.broker.url))
        self.clients = {key: ResilientServiceClient(**options) for key, options in self._options().items()}
        self._stack.callback(self._stop_all)
        for role in ("supervisor", "worker", "web"):
            self.start(role)
        self.wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self._busy.set()
        self._stack.close()

    def _options(self) -> dict[str, dict[str, Any]]:
        base = {
            key: {"base_url": self.services[key].url, "service_name": SERVICES[key], "key": key} for key in SERVICES
        }
        return {key: base[key] | OPTIONS[key] for key in SERVICES}

    def start(self, role: str, name: str = "", *options: str, **environ: str) -> None:
        """A process of the house; `name` where there are several of one role."""
        extra = ("--port", str(self.port)) if role == "web" and not name else ()
        self._processes[name or role] = subprocess.Popen(
            [sys.executable, "-P", "-m", "seawall", role, *extra, *options, "house_services"],
            cwd=self._folder,
            env=plain_environ(
                SEAWALL_BROKER_URL=self.broker.url, HOUSE=msgspec.json.encode(self._options()).decode(), **environ
            ),
            stderr=subprocess.DEVNULL,
        )

    def wait_ready(self) -> None:
        wait_until(self._is_ready, 60, message="the house is not ready")

    def wait_web(self, url: str = "") -> None:
        wait_until(lambda: _answers((url or self.url) + "/healthz"), 30, message="the web process does not answer")

    def _is_ready(self) -> bool:
        return _answers(self.url + "/readyz")

    def send(self, name: str, number: int) -> None:
        self._processes[name].send_signal(number)

    def end(self, name: str, number: int = signal.SIGKILL) -> None:
        self.send(name, number)
        self._processes[name].wait(20)

    def _stop_all(self) -> None:
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
        for process in self._processes.values():
            process.wait(10)

    def status(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] = requests.get(f"{self.url}/v1/api/status", timeout=10).json()["services"][key]
        return found

    def heal(self, *, forget: bool = False) -> None:
        """Every service well, every breaker in its first state, no dead letter, nothing paused. `forget` what was counted, too."""
        for key, service in self.services.items():
            service.start()
            service.script("*", Answer())
            service.script("/health", Answer())
            for verb in ("reset", "resume"):
                self.post(f"services/{key}/{verb}")
        self.post("dead/purge", service="", reason="")
        if forget:
            with self.broker.client() as client:
                client.delete("seawall:counts", "seawall:history", "seawall:transitions")

    def post(self, path: str, **body: Any) -> requests.Response:
        return requests.post(f"{self.url}/v1/api/{path}", json=body, timeout=10)

    def fall_ill(self, key: str, last_words: int = 503) -> None:
        """Until its breaker is open."""
        self.services[key].script("*", Answer(last_words))
        for _ in range(OPTIONS[key]["failure_threshold"]):
            with contextlib.suppress(requests.RequestException):
                self.clients[key].get("/ready")

    def bury(self, key: str, number: int) -> None:
        """So many dead letters of a service that answers 500 meanwhile."""
        self.services[key].script("*", Answer(500))
        self.clients[key].enqueue_many(
            ("POST", f"/snapshot/{index}", {"json": {"n": index}, "rounds": 1}) for index in range(number)
        )
        wait_until(lambda: self.status(key)["dead"] >= number, 30)
        self.services[key].script("*", Answer())

    @contextlib.contextmanager
    def traffic(self, pause: float = 0.05) -> Iterator[None]:
        """Somebody calls every service again and again."""
        done = threading.Event()
        threads = [threading.Thread(target=self._call, args=(key, pause, done)) for key in SERVICES]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            done.set()
            for thread in threads:
                thread.join()

    def _call(self, key: str, pause: float, done: threading.Event) -> None:
        client, number = self.clients[key], 0
        while not done.wait(pause * (1 + len(key) / 5)):
            number += 1
            with contextlib.suppress(SeawallError, requests.RequestException):
                client.enqueue("POST", f"/later/{number}") if number % 3 == 0 else client.get(f"/items/{number}")

    def seed_hour(self) -> None:
        """An hour that was: samples, and one outage that ended, in the form in which the house itself writes them."""
        now, rows = time.time(), []
        calls = dict.fromkeys(SERVICES, 0)
        failed = dict.fromkeys(SERVICES, 0)
        with self.broker.client() as client:
            for index in range(359, -1, -1):
                at = now - index * 10 - 1
                packed = {}
                for place, key in enumerate(SERVICES):
                    busy = 40 + 25 * place + int(30 * abs(((index + place * 40) % 90) - 45) / 45)
                    bad = busy // 3 if key == "search" and 180 <= index < 192 else 0
                    calls[key] += busy
                    failed[key] += bad
                    packed[key] = (calls[key], failed[key], (0,) * (len(BUCKETS) + 1))
                rows.append((f"{int(at * 1000)}-0", {"s": msgspec.msgpack.encode(packed)}))
            client.delete("seawall:history")
            for id, fields in rows:
                client.xadd("seawall:history", fields, id=id)  # type: ignore[arg-type]
            for key, total in calls.items():
                client.hset("seawall:counts", f"{key} calls.waited.succeeded", total - failed[key])
                client.hset("seawall:counts", f"{key} calls.waited.failed", failed[key])
            began = int((now - 1890) * 1000)
            for ago, old, new in ((1890, "closed", "open"), (1812, "open", "half_open"), (1810, "half_open", "closed")):
                entry = {
                    "service": "search",
                    "from": old,
                    "to": new,
                    "began": began,
                    "why": "Server error 502",
                    "forced": "",
                }
                client.xadd("seawall:transitions", entry, id=f"{int((now - ago) * 1000)}-0")  # type: ignore[arg-type]
            client.hset("seawall:counts", mapping={"search outages": 1, "search outage.ms": 80_000})


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False
