"""Background calls in rounds, on a clock that the test moves: an outage costs time, never a call."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from seawall import CallFailed, ResilientServiceClient
from seawall.testing import Harness
from tests.support import Answer, CountingService
from tests.support.service import Request


@pytest.fixture
def client(service: CountingService, seawall: Harness) -> ResilientServiceClient:
    return ResilientServiceClient(service.url, service_name="Git", key="git", recovery_timeout=60, failure_threshold=5)


def noting(answered: set[str]) -> Callable[[Request], Answer]:
    """A script that answers 200, and notes the paths."""

    def answer(request: Request) -> Answer:
        answered.add(request.path)
        return Answer(200)

    return answer


def test_one_call_a_minute_through_four_minutes_of_outage_never_opens_the_breaker(
    client: ResilientServiceClient, service: CountingService, seawall: Harness
) -> None:
    """Four calls failed, round after round. Five failed calls in a row open a breaker, not one call failing five times."""
    service.script("*", Answer(500))
    states = []
    for minute in range(4):
        client.fire("POST", f"/snapshot/{minute}")
        seawall.drain()
        for _ in range(6):
            seawall.advance(10)
            seawall.drain()
            states.append(client.state.value)
    answered: set[str] = set()
    service.script("*", noting(answered))
    for _ in range(60):
        seawall.advance(10)
        seawall.drain()
        states.append(client.state.value)
    assert set(states) == {"closed"}
    assert answered == {f"/snapshot/{minute}" for minute in range(4)}


def test_a_failed_round_waits_for_the_recovery_timeout_doubling_up_to_five_minutes(
    client: ResilientServiceClient, service: CountingService, seawall: Harness
) -> None:
    service.script("*", Answer(500))
    client.fire("POST", "/job")
    seawall.drain()
    for rounds, wait in enumerate((60, 120, 240, 300, 300), 1):
        assert len(service.requests) == 3 * rounds
        seawall.advance(wait - 20)
        seawall.drain()
        assert len(service.requests) == 3 * rounds, f"round {rounds + 1} came before its {wait} s were over"
        seawall.advance(21)
        seawall.drain()
    assert len(service.requests) == 18


def test_a_call_that_expires_becomes_a_dead_letter_and_is_never_sent_late(
    client: ResilientServiceClient, service: CountingService, seawall: Harness
) -> None:
    seawall.open("git")
    handle = client.enqueue("POST", "/job", expires_in=100)
    seawall.advance(101)
    seawall.close("git")
    seawall.drain()
    assert handle.status() == "expired"
    with pytest.raises(CallFailed, match="expired"):
        handle.result(timeout=5)
    assert service.requests == []


def test_rounds_used_up_makes_a_dead_letter_with_that_reason(
    client: ResilientServiceClient, service: CountingService, seawall: Harness
) -> None:
    service.script("*", Answer(500))
    handle = client.enqueue("POST", "/job", rounds=1)
    with pytest.raises(CallFailed) as caught:
        handle.result(timeout=5)
    assert caught.value.reason == "rounds used up"
    assert len(service.requests) == 3


def test_a_held_call_is_the_trial_when_the_timer_ends(
    client: ResilientServiceClient, service: CountingService, seawall: Harness
) -> None:
    service.script("*", Answer(500))
    for number in range(5):
        client.fire("POST", f"/job/{number}")
    seawall.drain()
    assert client.state.value == "open"
    before = len(service.requests)
    seawall.advance(61)
    seawall.drain()
    assert len(service.requests) == before + 1, "a trial is a single attempt"
    assert client.state.value == "open"
    answered: set[str] = set()
    service.script("*", noting(answered))
    seawall.advance(61)
    seawall.drain()
    assert client.state.value == "closed"
    seawall.advance(300)
    seawall.drain()
    assert answered == {f"/job/{number}" for number in range(5)}
