"""Those who wait for results, and what waiting leaves behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import requests

from seawall import DeadlineExceeded
from seawall.actors.service import queue_names
from tests.acceptance.harness import Fleet
from tests.measures.figures import Figure, at_most, exactly, measure
from tests.measures.stand import Stand
from tests.resilience import test_r04_waiting_callers as waiting
from tests.resilience import test_r11_nothing_left_behind as leavings
from tests.support import Answer, wait_until

#: Seconds that were asked for, and what the stock stack made of them.
ASKED = {10.0: "5.0 or 58.8 s", 0.999: "0 s", 1.9: "1.1 s"}
#: Seconds in which a caller learns that no worker is there, and what a busy machine may add.
NO_WORKER = 2.0


@measure("X1")
def waits(stand: Stand) -> Iterator[Figure]:
    service, release = stand.service(), threading.Event()
    stand.at_end(release.set)
    service.script("*", Answer(hold=release))
    server = stand.server()
    fleet = stand.fleet(server.url, {"slow": {"url": service.url, "timeout": 60}})
    client = stand.client(fleet, "slow")

    def wait(seconds: float) -> float:
        handle = client.enqueue("POST", "/background", expires_in=30)
        started = time.monotonic()
        try:
            handle.result(timeout=seconds)
        except DeadlineExceeded:
            return time.monotonic() - started
        raise AssertionError("somebody answered")

    def ask() -> float:
        started = time.monotonic()
        try:
            client.get("/waited", deadline=30)
        except requests.Timeout:
            return time.monotonic() - started
        raise AssertionError("somebody answered")

    with ThreadPoolExecutor(len(ASKED) + 1) as pool:
        told = pool.submit(ask)
        took = dict(zip(ASKED, pool.map(wait, ASKED), strict=True))
    for seconds, stock in ASKED.items():
        what, late = f"no worker, result(timeout={seconds:g}): late by", 1000 * abs(took[seconds] - seconds)
        yield at_most(what, late, 1000 * waiting.PUNCTUAL, unit="ms", stock=f"after {stock}")
    yield at_most("no worker, get(): told so after", told.result(), NO_WORKER + 0.1, stock="-")

    fleet.start(workers=1)
    with ThreadPoolExecutor(waiting.WAITERS) as pool:
        calls = [pool.submit(client.get, f"/{number}", deadline=60) for number in range(waiting.WAITERS)]
        wait_until(lambda: _held(fleet) == waiting.WAITERS, 30)
        with server.client() as inside:
            connections = inside.info("clients")["connected_clients"] - 1
        release.set()
        answered = sum(call.result(60).status_code == 200 for call in calls)
    yield exactly("300 waiters: answered", answered, waiting.WAITERS, stock="100, 200 errors")
    yield at_most("connections, with the worker's", connections, waiting.CONNECTIONS, unit="", stock="300")


def _held(fleet: Fleet) -> int:
    """Waited-for calls that wait or run."""
    counts = fleet.engine.queue.counts([queue_names("slow")[0]])[0]
    return counts.ready + counts.leased


@measure("X20")
def leftovers(stand: Stand) -> Iterator[Figure]:
    """A thousand calls that nobody waits for."""
    service, server = stand.service(), stand.server()
    fleet = stand.fleet(server.url, {"fired": {"url": service.url}})
    fleet.start(workers=1, supervisors=1)
    client = stand.client(fleet, "fired")
    with server.client() as inside:
        client.fire("POST", "/first")
        service.wait_for(1)
        wait_until(lambda: fleet.drained("fired"))
        before = leavings.keys(inside)
        for number in range(leavings.CALLS):
            client.fire("POST", f"/{number}", data=b"x" * 1000)
        service.wait_for(1 + leavings.CALLS, timeout=60)
        wait_until(lambda: fleet.drained("fired"))
        left = _settles(lambda: len(leavings.keys(inside) - before))
    yield exactly("1,000 calls that nobody asks for: keys left", left, 0, stock="1,000")


def _settles(count: Callable[[], int]) -> int:
    """The number once it is 0, or after 5 s: a report of a process comes and goes."""
    try:
        wait_until(lambda: count() == 0)
    except AssertionError:
        return count()
    return 0
