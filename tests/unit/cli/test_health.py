"""`seawall health` beside real processes' parts on a real server."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seawall import ResilientServiceClient
from seawall import runtime as runtimes
from seawall.exits import Exit
from seawall.supervising import make_supervisor
from tests.acceptance.shell import plain_environ, run
from tests.support import CountingService, wait_until
from tests.support.house import RemoteHouse, caller
from tests.unit.cli.conftest import Run

SERVICES = """
from seawall import ResilientServiceClient
client = ResilientServiceClient("http://127.0.0.1:9", key="{key}")
"""


class Probe:
    """The command against one broker."""

    def __init__(self, run: Run, url: str) -> None:
        self._run, self._url = run, url

    def __call__(self, role: str, *words: str) -> tuple[int, dict[str, Any]]:
        ran = self._run("health", "--role", role, *words, "--broker-url", self._url)
        return ran.code, json.loads(ran.out)


@pytest.fixture
def probe(seawall_command: Run, redis_url: str) -> Probe:
    return Probe(seawall_command, redis_url)


@pytest.fixture
def worker(redis_url: str, folder: Path) -> Iterator[RemoteHouse]:
    for key in ("git", "shop"):
        (folder / f"{key}_services.py").write_text(SERVICES.format(key=key))
    with caller(redis_url):
        ResilientServiceClient("http://127.0.0.1:9", key="git")
        with RemoteHouse(redis_url) as house:
            yield house


class TestWorker:
    def test_one_of_this_host_with_a_heartbeat_is_well(self, worker: RemoteHouse, probe: Probe) -> None:
        code, told = probe("worker")
        assert (code, told["status"]) == (Exit.OK, "pass")
        assert told["checks"]["worker"]["componentId"] == [worker.worker.id]

    def test_it_serves_what_is_declared(self, worker: RemoteHouse, redis_url: str, folder: Path) -> None:
        """Asked by a process of its own: this one's worker serves whatever is declared here."""

        def probe(*modules: str) -> tuple[int, dict[str, Any]]:
            words = ("health", "--role", "worker", *modules, "--broker-url", redis_url)
            ran = run(*words, folder=folder, environ=plain_environ())
            return ran.code, json.loads(ran.out)

        assert probe("git_services")[0] == Exit.OK
        code, told = probe("git_services", "shop_services")
        assert (code, told["status"]) == (Exit.FAILED, "fail")
        assert told["checks"]["services"]["output"] == "not served: shop"

    def test_without_a_module_the_webhook_of_alerts_is_not_asked_for(
        self, worker: RemoteHouse, redis_url: str, folder: Path
    ) -> None:
        words = ("health", "--role", "worker", "--broker-url", redis_url)
        environ = plain_environ() | {"SEAWALL_ALERTS_WEBHOOK": "http://127.0.0.1:9/hook"}
        assert run(*words, folder=folder, environ=environ).code == Exit.OK

    def test_another_process_is_not_the_one_that_is_meant(self, worker: RemoteHouse, probe: Probe) -> None:
        assert probe("worker", "--id", worker.worker.id)[0] == Exit.OK
        assert probe("worker", "--id", "somebody:1:abc")[0] == Exit.FAILED
        assert probe("worker", "--pid", "1")[0] == Exit.FAILED

    def test_without_any_it_fails(self, probe: Probe) -> None:
        code, told = probe("worker")
        assert (code, told["status"]) == (Exit.FAILED, "fail")


class TestSupervisor:
    def test_one_of_this_host_that_reports_is_well(self, redis_url: str, probe: Probe) -> None:
        with caller(redis_url) as runtime:
            supervisor = make_supervisor(runtime, runtimes.registry)
            supervisor.start()
            try:
                wait_until(lambda: probe("supervisor")[1]["checks"]["leader"]["status"] == "pass")
                code, told = probe("supervisor")
                assert (code, told["status"]) == (Exit.OK, "pass")
            finally:
                supervisor.stop(1.0)

    def test_without_any_it_fails(self, probe: Probe) -> None:
        code, told = probe("supervisor")
        assert (code, told["checks"]["leader"]["status"]) == (Exit.FAILED, "warn")


class TestWeb:
    def test_one_that_answers_is_well(self, seawall_command: Run, service: CountingService) -> None:
        ran = seawall_command("health", "--role", "web", "--port", str(service.port))
        assert (ran.code, json.loads(ran.out)["status"]) == (Exit.OK, "pass")
        assert [request.path for request in service.requests] == ["/healthz"]

    def test_one_that_does_not_is_not(self, seawall_command: Run) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            ran = seawall_command("health", "--role", "web", "--port", str(taken.getsockname()[1]))
        assert (ran.code, json.loads(ran.out)["status"]) == (Exit.FAILED, "fail")


def test_a_broker_that_is_away_has_a_code_of_its_own(seawall_command: Run) -> None:
    ran = seawall_command("health", "--role", "worker", "--broker-url", "redis://user:k-12345@127.0.0.1:1/0")
    assert ran.code == Exit.UNAVAILABLE
    assert json.loads(ran.out)["checks"]["broker"]["status"] == "fail"
    assert "k-12345" not in ran.out + ran.err


def test_a_silent_broker_is_given_up_within_a_second(seawall_command: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        started = time.monotonic()
        ran = seawall_command("health", "--role", "worker", "--broker-url", url)
        assert ran.code == Exit.UNAVAILABLE
        assert time.monotonic() - started < 1.5
