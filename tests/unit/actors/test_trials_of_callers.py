"""A waited-for call that its caller made the breaker's trial, as the worker sees it."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from seawall import ServiceUnavailable
from seawall.actors.call_actor import CallActor
from seawall.actors.delivered import Delivered, LocalCall, decode_delivery
from seawall.actors.queue_store import Delivery, Done, Later, Settlement
from seawall.actors.record import Call, Progress
from seawall.actors.replies import Outcome
from seawall.actors.service import Service
from seawall.supervisor.breaker import CallFailed, Policy, Record, State
from seawall.supervisor.memory_store import MemoryStore
from seawall.supervisor.view import BreakerView
from tests.support.clock import FixedClock

SERVICE = Service(key="chroma", name="Chroma Server", base_url="http://chroma:6003")


class Sender:
    """Answers with these statuses in turn."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses)
        self.sent = 0

    def __call__(self, call: Call, *, original: dict[str, Any] | None = None) -> requests.Response:
        self.sent += 1
        response = requests.Response()
        response.status_code = self._statuses.pop(0)
        return response


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def store(clock: FixedClock) -> MemoryStore:
    return MemoryStore(clock)


def view_of(store: MemoryStore) -> BreakerView:
    view = BreakerView("chroma", "Chroma Server", store, Policy(1, 60.0, 15.0))
    view.start()
    return view


@pytest.fixture
def tried(store: MemoryStore, clock: FixedClock) -> BreakerView:
    """The caller's view, whose breaker opened a minute ago: call c-1 has just become the trial."""
    view = view_of(store)
    view.apply(CallFailed(started=clock.time(), generation=0, error="refused"))
    clock.advance(60)
    assert view.take_trial("c-1")
    return view


def settled(view: BreakerView, clock: FixedClock, sender: Sender) -> Settlement:
    call = Call(id="c-1", service="chroma", origin=SERVICE.origin, method="GET", target="/x", waited=True, trial=True)
    delivery = Delivery("chroma.waited", "c-1", 1, 0, LocalCall(call, {}), Progress(), False, clock.time())
    delivered: Delivered = decode_delivery(delivery, lambda _: True)
    CallActor(SERVICE, sender, view, now=clock.time)(delivered)
    assert delivered.settlement is not None
    return delivered.settlement


def run(view: BreakerView, clock: FixedClock, sender: Sender) -> Outcome:
    settlement = settled(view, clock, sender)
    assert isinstance(settlement, Done)
    assert settlement.outcome is not None
    return settlement.outcome


def test_it_passes_the_half_open_breaker(tried: BreakerView, clock: FixedClock) -> None:
    assert run(tried, clock, Sender(200)).response.status_code == 200
    assert tried.state is State.CLOSED


def test_it_is_a_single_attempt(tried: BreakerView, clock: FixedClock) -> None:
    sender = Sender(500, 200)
    assert isinstance(run(tried, clock, sender).error, requests.HTTPError)
    assert (sender.sent, tried.state) == (1, State.OPEN)


def test_a_worker_that_has_not_heard_of_it_yet_asks(store: MemoryStore, tried: BreakerView, clock: FixedClock) -> None:
    """The announcement may come later than the call."""
    worker = BreakerView("chroma", "Chroma Server", store)
    worker.observe(Record(version=1, generation=1, state=State.OPEN))
    assert run(worker, clock, Sender(200)).response.status_code == 200


def test_beyond_its_lease_it_is_a_trial_no_more(tried: BreakerView, clock: FixedClock) -> None:
    """It waited in the queue for too long: somebody else may have the next trial."""
    clock.advance(16)
    sender = Sender(200)
    assert isinstance(run(tried, clock, sender).error, ServiceUnavailable)
    assert sender.sent == 0


def test_after_the_breaker_has_closed_it_is_a_call_like_any_other(tried: BreakerView, clock: FixedClock) -> None:
    tried.trial_succeeded("c-1")
    assert isinstance(settled(tried, clock, Sender(500)), Later), "with its retries"
