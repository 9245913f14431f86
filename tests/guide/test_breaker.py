"""The guide: the circuit breaker's three states."""

from __future__ import annotations

import threading
import time

import pytest
import requests

from seawall import ResilientServiceClient, ServiceUnavailable
from seawall import runtime as runtimes
from tests.guide.conftest import MakeClient
from tests.support import Answer, CountingService, wait_until

#: Seconds that a breaker of these tests stays open.
RECOVERY = 0.2


def fail(client: ResilientServiceClient, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(requests.HTTPError):
            client.post("/query", json={})


def opened(make_client: MakeClient, service: CountingService, **settings: float) -> ResilientServiceClient:
    """A client whose breaker has just opened."""
    service.script("*", Answer(500))
    client = make_client(failure_threshold=1, **settings)
    fail(client)
    assert client.state.value == "open"
    service.clear()
    return client


def half_opened(make_client: MakeClient, service: CountingService, **settings: float) -> ResilientServiceClient:
    client = opened(make_client, service, recovery_timeout=RECOVERY, **settings)
    wait_until(lambda: client.state.value == "half_open", 5)
    return client


def test_closed_requests_pass_through(make_client: MakeClient, service: CountingService) -> None:
    client = make_client()
    assert client.get("/ready").status_code == 200
    assert (client.state.value, service.count("/ready")) == ("closed", 1)


def test_opens_after_five_failed_calls_with_all_their_retries(
    make_client: MakeClient, service: CountingService
) -> None:
    service.script("*", Answer(500))
    client = make_client()
    fail(client, 4)
    assert client.state.value == "closed"
    fail(client)
    assert client.state.value == "open"
    assert service.count() == 5 * 3


def test_the_threshold_is_configurable(make_client: MakeClient, service: CountingService) -> None:
    service.script("*", Answer(500))
    client = make_client(failure_threshold=2, max_retries=1)
    fail(client)
    assert client.state.value == "closed"
    fail(client)
    assert client.state.value == "open"


def test_only_consecutive_failures_count(make_client: MakeClient, service: CountingService) -> None:
    service.script("*", Answer(500), Answer(500), Answer(200), Answer(500), Answer(500), Answer(200))
    client = make_client(failure_threshold=3, max_retries=1)
    fail(client, 2)
    client.get("/query")
    fail(client, 2)
    assert client.state.value == "closed"
    assert client.get_status()["consecutive_failures"] == 2


def test_a_retried_success_is_no_failure(make_client: MakeClient, service: CountingService) -> None:
    service.script("*", *[Answer(500), Answer(200)] * 3)
    client = make_client(failure_threshold=1)
    for _ in range(3):
        client.get("/query")
    assert client.get_status()["consecutive_failures"] == 0


def test_open_fails_immediately_with_no_retries_and_no_request(
    make_client: MakeClient, service: CountingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = opened(make_client, service)
    monkeypatch.delattr(type(runtimes.current().engine.queue), "put")  # the process knows it without asking anybody
    started = time.perf_counter()
    with pytest.raises(ServiceUnavailable) as caught:
        client.post("/query", json={})
    assert time.perf_counter() - started < 0.5
    assert service.count() == 0
    assert caught.value.service == "Service Name"
    assert 55 < caught.value.retry_after <= 60


def test_open_moves_to_half_open_after_the_recovery_timeout(make_client: MakeClient, service: CountingService) -> None:
    started = time.monotonic()
    half_opened(make_client, service)
    assert time.monotonic() - started >= RECOVERY
    assert service.count() == 0, "nothing but the timer has moved it"


def test_recovery_timeout_is_sixty_seconds_by_default(make_client: MakeClient) -> None:
    assert make_client().get_status()["recovery_timeout"] == 60


def test_half_open_makes_a_single_attempt_without_retries(make_client: MakeClient, service: CountingService) -> None:
    client = half_opened(make_client, service)
    fail(client)
    assert service.count() == 1


def test_success_in_half_open_closes(make_client: MakeClient, service: CountingService) -> None:
    client = half_opened(make_client, service)
    service.script("*", Answer(200))
    assert client.get("/query").status_code == 200
    assert client.state.value == "closed"
    assert client.get_status()["consecutive_failures"] == 0


def test_after_closing_retries_are_made_again(make_client: MakeClient, service: CountingService) -> None:
    client = half_opened(make_client, service)
    service.script("*", Answer(200), Answer(500), Answer(200))
    client.get("/query")
    assert client.get("/query").status_code == 200
    assert service.count() == 3


def test_failure_in_half_open_opens_again_and_resets_the_timer(
    make_client: MakeClient, service: CountingService
) -> None:
    client = half_opened(make_client, service)
    fail(client)
    assert client.state.value == "open"
    assert RECOVERY / 2 < client.get_status()["retry_after"] <= RECOVERY
    with pytest.raises(ServiceUnavailable):
        client.get("/query")
    wait_until(lambda: client.state.value == "half_open", 5)
    assert service.count() == 1


def test_half_open_lets_one_request_through_at_a_time(make_client: MakeClient, service: CountingService) -> None:
    client = half_opened(make_client, service)
    release = threading.Event()
    service.script("*", Answer(200, hold=release))
    trial = threading.Thread(target=client.get, args=("/query",))
    trial.start()
    service.wait_for(1)
    with pytest.raises(ServiceUnavailable):
        client.get("/query")
    release.set()
    trial.join(5)
    assert service.count() == 1
    assert client.state.value == "closed"


def test_recovers_by_itself_when_the_service_comes_back(make_client: MakeClient, service: CountingService) -> None:
    client = make_client(failure_threshold=1, recovery_timeout=RECOVERY, max_retries=1)
    service.stop()
    with pytest.raises(requests.ConnectionError):
        client.get("/query")
    service.start()
    with pytest.raises(ServiceUnavailable):
        client.get("/query")
    wait_until(lambda: client.state.value == "half_open", 5)
    assert client.get("/query").status_code == 200


def test_a_timeout_is_a_failure_too(make_client: MakeClient, service: CountingService) -> None:
    service.script("*", Answer(delay=5))
    client = make_client(failure_threshold=1, max_retries=1, timeout=0.1)
    with pytest.raises(requests.Timeout):
        client.get("/query")
    assert client.state.value == "open"
