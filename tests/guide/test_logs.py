"""The guide: comprehensive logging; its five excerpts, line by line."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from seawall import ResilientServiceClient, ServiceUnavailable
from tests.guide.conftest import MakeClient
from tests.support import Answer, CountingService, wait_until

Lines = Callable[[], list[str]]

ROOT = Path(__file__).resolve().parents[2]


def fail(client: ResilientServiceClient, path: str = "/update") -> None:
    with pytest.raises(requests.HTTPError):
        client.post(path, json={})


class WhenLogged(logging.Handler):
    """Does something the moment a line is logged, on the thread that logs it."""

    def __init__(self, text: str, act: Callable[[], object]) -> None:
        super().__init__()
        self._text = text
        self._act = act

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage():
            self._act()

    def __enter__(self) -> None:
        logging.getLogger("seawall").addHandler(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("seawall").removeHandler(self)


def test_a_healthy_service(make_client: MakeClient, lines: Lines) -> None:
    make_client().get("/query")
    assert lines() == [
        "[Service Name] GET /query (attempt 1/3)",
        "[Service Name] ✓ GET /query succeeded",
    ]


def test_a_transient_failure_with_recovery(make_client: MakeClient, service: CountingService, lines: Lines) -> None:
    client = make_client()
    service.stop()
    with WhenLogged("Retrying", service.start):
        client.post("/add", json={})
    assert lines() == [
        "[Service Name] POST /add (attempt 1/3)",
        "[Service Name] Connection failed on attempt 1/3: Connection refused",
        "[Service Name] Retrying in 1s...",
        "[Service Name] POST /add (attempt 2/3)",
        "[Service Name] ✓ POST /add succeeded",
    ]


def test_the_breaker_opening(make_client: MakeClient, service: CountingService, lines: Lines) -> None:
    service.script("*", Answer(500))
    client = make_client()
    for _ in range(4):
        fail(client)
    before = len(lines())
    fail(client)
    assert lines()[before:] == [
        "[Service Name] POST /update (attempt 1/3)",
        "[Service Name] Server error 500 on attempt 1/3",
        "[Service Name] Retrying in 1s...",
        "[Service Name] POST /update (attempt 2/3)",
        "[Service Name] Server error 500 on attempt 2/3",
        "[Service Name] Retrying in 2s...",
        "[Service Name] POST /update (attempt 3/3)",
        "[Service Name] Server error 500 on attempt 3/3",
        "[Service Name] ✗ All 3 retry attempts failed",
        "[Service Name] Circuit breaker OPEN (threshold reached: 5/5)",
    ]


def test_the_breaker_rejecting_requests(make_client: MakeClient, service: CountingService, lines: Lines) -> None:
    service.script("*", Answer(500))
    client = make_client(failure_threshold=1, max_retries=1)
    fail(client)
    before = len(lines())
    for _ in range(2):
        with pytest.raises(ServiceUnavailable):
            client.get("/query")
    assert lines()[before:] == ["[Service Name] Circuit breaker OPEN - rejecting request"] * 2


def test_a_successful_recovery(make_client: MakeClient, service: CountingService, lines: Lines) -> None:
    service.script("/update", Answer(500))
    client = make_client(failure_threshold=1, recovery_timeout=0.2)
    fail(client)
    before = len(lines())
    wait_until(lambda: client.state.value == "half_open", 5)
    client.get("/health")
    assert lines()[before:] == [
        "[Service Name] Circuit breaker entering HALF_OPEN state",
        "[Service Name] GET /health (attempt 1/3)",
        "[Service Name] ✓ GET /health succeeded",
        "[Service Name] Circuit breaker CLOSED (service recovered)",
    ]


def test_a_recovery_found_by_the_health_path_reads_the_same(
    make_client: MakeClient, service: CountingService, lines: Lines
) -> None:
    service.script("/update", Answer(500))
    client = make_client(failure_threshold=1, recovery_timeout=0.2, health_path="/health")
    fail(client)
    before = len(lines())
    wait_until(lambda: client.state.value == "closed", 5)
    wait_until(lambda: len(lines()) >= before + 4)
    assert lines()[before:] == [
        "[Service Name] Circuit breaker entering HALF_OPEN state",
        "[Service Name] GET /health (attempt 1/3)",
        "[Service Name] ✓ GET /health succeeded",
        "[Service Name] Circuit breaker CLOSED (service recovered)",
    ]


def test_every_service_has_a_logger_and_each_line_its_level(
    make_client: MakeClient, service: CountingService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "seawall")
    service.script("*", Answer(500))
    client = make_client(failure_threshold=1, max_retries=2)
    fail(client)
    with pytest.raises(ServiceUnavailable):
        client.get("/query")
    said = [(r.name, r.levelname, r.getMessage()) for r in caplog.records if r.name == "seawall.service-name"]
    assert said == [
        ("seawall.service-name", level, f"[Service Name] {text}")
        for level, text in (
            ("INFO", "POST /update (attempt 1/2)"),
            ("WARNING", "Server error 500 on attempt 1/2"),
            ("INFO", "Retrying in 1s..."),
            ("INFO", "POST /update (attempt 2/2)"),
            ("WARNING", "Server error 500 on attempt 2/2"),
            ("ERROR", "✗ All 2 retry attempts failed"),
            ("WARNING", "Circuit breaker OPEN (threshold reached: 1/1)"),
            ("WARNING", "Circuit breaker OPEN - rejecting request"),
        )
    ]


def test_paths_are_logged_without_their_query(make_client: MakeClient, service: CountingService, lines: Lines) -> None:
    service.script("*", Answer(500), Answer(200))
    make_client().get("/query?email=ada@example.org", params={"ssn": "078-05-1120"})
    assert service.requests[0].query == "email=ada@example.org&ssn=078-05-1120"
    assert len(lines()) == 5
    assert not [line for line in lines() if "ada" in line or "078" in line or "?" in line]


def test_a_host_that_sets_up_no_logging_hears_only_that_calls_are_not_durable() -> None:
    """A library never configures logging, and its lines end in a NullHandler. Calls that may be lost are told all the same."""
    code = """if True:
        import logging, seawall
        client = seawall.ResilientServiceClient("http://127.0.0.1:1", max_retries=1, failure_threshold=1)
        for attempt in range(2):
            try:
                client.get("/ready")
            except Exception as error:
                print(type(error).__name__)
        assert logging.getLogger().handlers == []
        assert [type(h).__name__ for h in logging.getLogger("seawall").handlers] == ["NullHandler"]
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == ["ConnectionError", "ServiceUnavailable"]
    [line] = done.stderr.splitlines()
    assert line.startswith("seawall: SEAWALL_BROKER_URL names no server: calls are kept in this process's memory")
