"""Row 22: a breaker that is asked by many. Stock: pybreaker holds its lock during the call (8 calls of 0.5 s took 4.01 s),
and half-open lets 8 and 64 calls through to a dead service.

Here nothing is held while a call runs, and a trial is taken by compare-and-swap: one in the whole fleet.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from seawall import ResilientServiceClient
from seawall.redis_link import RedisLink
from seawall.supervisor.breaker import Policy, State
from seawall.supervisor.redis_store import RedisStore
from seawall.supervisor.view import BreakerView
from tests.resilience.scene import calling
from tests.support import Answer, CountingService, wait_until
from tests.support.house import PATIENT

PROCESSES, THREADS = 8, 8
#: Seconds of an open breaker, and of a trial's lease, in which no turn of asking ends one and begins the next.
RECOVERY, TRIAL_LEASE = 0.2, 2.5


def test_calls_run_at_once(redis_url: str, service: CountingService) -> None:
    release = threading.Event()
    service.script("*", Answer(hold=release))
    with calling(redis_url), ThreadPoolExecutor(THREADS) as pool:
        client = ResilientServiceClient(service.url, "Busy", key="busy", concurrency=THREADS)
        calls = [pool.submit(client.get, f"/{number}") for number in range(THREADS)]
        wait_until(lambda: service.active == THREADS, message="calls wait for each other")
        release.set()
        assert {call.result(10).status_code for call in calls} == {200}


@pytest.fixture
def views(redis_url: str) -> Iterator[list[BreakerView]]:
    """One breaker as eight processes see it: a connection, a clock and a local record each."""
    links = [RedisLink(redis_url, answer_timeout=PATIENT) for _ in range(PROCESSES)]
    stores = [RedisStore(link, "r22") for link in links]
    policy = Policy(failure_threshold=1, recovery_timeout=RECOVERY, trial_lease=TRIAL_LEASE)
    views = [BreakerView("sick", "Sick", store, policy) for store in stores]
    for view in views:
        view.start()
    yield views
    for part in (*stores, *links):
        part.close()


def taken(views: list[BreakerView], pool: ThreadPoolExecutor, turn: int) -> list[str]:
    """The ids of those who get the trial, of 64 who ask for it at once."""
    names = [(view, f"{turn}-{place}-{thread}") for place, view in enumerate(views) for thread in range(THREADS)]
    granted = pool.map(lambda asked: asked[0].take_trial(asked[1]), names)
    return [name for (_, name), got in zip(names, granted, strict=True) if got]


def test_one_trial_at_a_time_in_the_whole_fleet(views: list[BreakerView]) -> None:
    """Whoever took the first one dies with it: its lease ends, and there is one more, not eight."""
    views[0].failed(time.time(), views[0].generation, "connection refused")
    wait_until(lambda: all(view.record.state is State.OPEN for view in views))
    grants: list[tuple[float, float, str]] = []
    with ThreadPoolExecutor(PROCESSES * THREADS) as pool:
        for turn in range(10_000):
            before = time.monotonic()
            got = taken(views, pool, turn)
            assert len(got) <= 1, got
            grants += [(before, time.monotonic(), id) for id in got]
            if len(grants) == 2:
                break
    (first_after, _, first), (_, second_before, second) = grants
    assert second_before - first_after >= TRIAL_LEASE - 0.1, "the trial's lease is waited for"
    views[1].trial_succeeded(second)
    views[0].trial_failed(first, "too late")
    wait_until(lambda: all(view.record.state is State.CLOSED for view in views))
