"""`seawall health` beside real processes' parts on a real server."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seawall import ResilientServiceClient
from seawall import runtime as runtimes
from seawall.cli import health as command
from seawall.exits import Exit
from seawall.supervising import make_supervisor
from tests.acceptance.shell import Ran, plain_environ, run
from tests.support import CountingService, wait_until
from tests.support.house import PATIENT, RemoteHouse, caller
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
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for a second is no finding."""
    monkeypatch.setattr(command, "PATIENCE", PATIENT)


@pytest.fixture
def probe(seawall_command: Run, redis_url: str, patient: None) -> Probe:
    return Probe(seawall_command, redis_url)


@pytest.fixture
def worker(redis_url: str, folder: Path) -> Iterator[RemoteHouse]:
    for key in ("git", "shop"):
        (folder / f"{key}_services.py").write_text(SERVICES.format(key=key))
    with caller(redis_url):
        ResilientServiceClient("http://127.0.0.1:9", key="git")
        with RemoteHouse(redis_url) as house:
            yield house


def run_probe(*words: str, folder: Path, environ: dict[str, str]) -> Ran:
    """In a process of its own; again while the broker cannot be asked within its patience, which is no fault of the worker."""

    def asked() -> Ran | None:
        ran = run("health", *words, folder=folder, environ=environ)
        return None if ran.code == Exit.UNAVAILABLE else ran

    found = wait_until(asked)
    assert found is not None
    return found


class TestWorker:
    def test_one_of_this_host_with_a_heartbeat_is_well(self, worker: RemoteHouse, probe: Probe) -> None:
        code, told = probe("worker")
        assert (code, told["status"]) == (Exit.OK, "pass")
        assert told["checks"]["worker"]["componentId"] == [worker.worker.id]

    def test_it_serves_what_is_declared(self, worker: RemoteHouse, redis_url: str, folder: Path) -> None:
        """Asked by a process of its own: this one's worker serves whatever is declared here."""

        def probe(*modules: str) -> tuple[int, dict[str, Any]]:
            words = ("--role", "worker", *modules, "--broker-url", redis_url)
            ran = run_probe(*words, folder=folder, environ=plain_environ())
            return ran.code, json.loads(ran.out)

        assert probe("git_services")[0] == Exit.OK
        code, told = probe("git_services", "shop_services")
        assert (code, told["status"]) == (Exit.FAILED, "fail")
        assert told["checks"]["services"]["output"] == "not served: shop"

    def test_without_a_module_the_webhook_of_alerts_is_not_asked_for(
        self, worker: RemoteHouse, redis_url: str, folder: Path
    ) -> None:
        words = ("--role", "worker", "--broker-url", redis_url)
        environ = plain_environ() | {"SEAWALL_ALERTS_WEBHOOK": "http://127.0.0.1:9/hook"}
        assert run_probe(*words, folder=folder, environ=environ).code == Exit.OK

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
                code, told = wait_until(lambda: (found := probe("supervisor"))[1]["status"] == "pass" and found)
                assert (code, told["checks"]["leader"]["status"]) == (Exit.OK, "pass")
            finally:
                supervisor.stop(1.0)

    def test_without_any_it_fails(self, probe: Probe) -> None:
        code, told = probe("supervisor")
        assert (code, told["checks"]["leader"]["status"]) == (Exit.FAILED, "warn")


@pytest.mark.usefixtures("patient")
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


def test_a_silent_broker_is_given_up_within_a_second(seawall_command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is silent for much longer, so that nobody's second need be measured."""
    answers = threading.Event()
    monkeypatch.setattr(command, "read_fleet", lambda *_: answers.wait(30))
    started = time.monotonic()
    ran = seawall_command("health", "--role", "worker", "--broker-url", "redis://127.0.0.1:1/0")
    took = time.monotonic() - started
    answers.set()
    assert ran.code == Exit.UNAVAILABLE
    assert "does not answer within 0.8 s" in ran.out
    assert took < 10
