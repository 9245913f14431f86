"""Row 4: waiting for a result. Stock: 5 s and more break at redis-py's socket timeout, milliseconds are cut to seconds, and
300 waiters use the connections up.

Here a wait ends when it should, all waiters of a process share one connection, and none notices that Redis was killed.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from seawall import DeadlineExceeded, ResilientServiceClient
from seawall import runtime as runtimes
from seawall.actors.service import queue_names
from tests.resilience.scene import calling, pass_time
from tests.support import Answer, CountingService, PrivateRedis, wait_until
from tests.support.house import caller

#: Seconds that callers wait: below a second, below a poll of any kind, and beyond redis-py's socket timeout of 5 s.
WAITS = (0.05, 0.3, 1.0, 2.0, 5.5)
#: Seconds by which a wait may be late.
PUNCTUAL = 0.1
#: Callers of each wait, and seconds between their starts: a machine that stands still for two seconds delays one or another
#: of them and not all, as a wait that is cut or looked for does.
EACH, APART = 5, 0.5
WAITERS = 300
#: Connections of a caller's process and of a worker's together, however many wait.
CONNECTIONS = 10


def test_a_wait_ends_in_its_time(redis_url: str, service: CountingService) -> None:
    with caller(redis_url) as runtime:
        client = ResilientServiceClient(service.url, "Nobody Answers", key="silent")

        def verb(seconds: float) -> object:
            return client.get("/waited", deadline=seconds)

        def handle(seconds: float) -> object:
            return client.enqueue("POST", "/background").result(timeout=seconds)

        def lateness(wait: Callable[[float], object], seconds: float) -> float:
            started = time.monotonic()
            with pytest.raises(DeadlineExceeded) as caught:
                wait(seconds)
            assert isinstance(caught.value, TimeoutError)
            return time.monotonic() - started - seconds

        with ThreadPoolExecutor(2 * EACH * len(WAITS)) as pool:
            late: dict[tuple[float, str], list[Future[float]]] = defaultdict(list)
            began = time.monotonic()
            for turn in range(EACH):
                pass_time(began + turn * APART)
                runtime.engine.queue.beat("w", b"{}", queue_names("silent"), [])  # a worker lives, and takes nothing
                for seconds in WAITS:
                    for wait in (verb, handle):
                        late[seconds, wait.__name__].append(pool.submit(lateness, wait, seconds))
            found = {what: min(one.result(30) for one in those) for what, those in late.items()}
    assert min(found.values()) > -0.01, "none ends early"
    assert {what: least for what, least in found.items() if least > PUNCTUAL} == {}


def test_three_hundred_waiters_outlive_a_kill_of_redis(own_redis: PrivateRedis, service: CountingService) -> None:
    release = threading.Event()
    service.script("*", Answer(hold=release))
    with calling(own_redis.url, supervised=False), ThreadPoolExecutor(WAITERS) as pool:
        client = ResilientServiceClient(service.url, "Slow", key="slow")
        calls = [pool.submit(client.get, f"/{number}", deadline=40) for number in range(WAITERS)]
        service.wait_for(client.service.concurrency)
        wait_until(lambda: queued("slow") == WAITERS, 20)
        with own_redis.client() as inside:
            assert inside.info("clients")["connected_clients"] - 1 <= CONNECTIONS
        own_redis.kill()
        own_redis.restart()
        release.set()
        assert {call.result(40).status_code for call in calls} == {200}
    assert len({request.path for request in service.requests}) == service.count() == WAITERS


def queued(key: str) -> int:
    """Waited-for calls that wait or run."""
    counts = runtimes.current().engine.queue.counts([queue_names(key)[0]])[0]
    return counts.ready + counts.leased
