"""The broker stopped with calls running, delayed and failing: nothing lost, nothing twice, work again within 2 s.

OUTAGE_SECONDS=30 makes the longest outage as long as that.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.acceptance.harness import Caller, CallError, Fleet, Stage, playing, say
from tests.support import Answer, CountingService, PrivateRedis, Request, wait_until

#: Seconds within which work resumes, and within which an enqueue must have its typed error: the promises.
RESUMED, REFUSED = 2.0, 2.0
#: The outages, in seconds; the last one ends the server with SIGKILL.
OUTAGES = (1.0, 5.0, float(os.environ.get("OUTAGE_SECONDS", "12")))
#: Calls of each sort.
EACH = 5


@dataclass
class Found:
    """What one outage showed; durations in seconds."""

    lasted: float
    resumed: float
    refused: float
    starts: Counter[str]
    expected: dict[str, int]
    waited: int
    directly: int


class Scene:
    """One service for each sort of call: running through the outage, failing in it, delayed into it and beyond."""

    def __init__(self, stack: ExitStack) -> None:
        self.running, self.failing, self.delayed = (stack.enter_context(CountingService()) for _ in range(3))
        self.during, self.after = threading.Event(), threading.Event()
        stack.callback(self.after.set)
        stack.callback(self.during.set)
        self.running.script("*", self._run)
        self.failing.script("*", self._fail)

    def _run(self, request: Request) -> Answer:
        """Half of them end during the outage, the others after it."""
        return Answer(hold=self.after if request.path.startswith("/after/") else self.during)

    def _fail(self, request: Request) -> Answer:
        """The first attempt of each fails: at once, or during the outage."""
        if self.failing.count(request.path) > 1:
            return Answer()
        return Answer(503, hold=self.during if request.path.startswith("/during/") else None)

    def declared(self) -> dict[str, dict[str, object]]:
        common: dict[str, object] = {"timeout": 120, "failure_threshold": 1000, "concurrency": 4 * EACH}
        return {
            key: {"url": service.url, **common}
            for key, service in (("running", self.running), ("failing", self.failing), ("delayed", self.delayed))
        }

    def begin(self, caller: Caller, outage: float) -> dict[str, int]:
        """Queue everything and wait until it runs or waits; how often each path must have arrived in the end."""
        sorts = {
            "running": [("/during/", 1, {}), ("/after/", 1, {})],
            "failing": [("/during/", 2, {}), ("/before/", 2, {})],
            "delayed": [("/during/", 1, {"delay": max(0.8, outage / 2)}), ("/after/", 1, {"delay": outage + 1.5})],
        }
        expected = {}
        for key, calls in sorts.items():
            paths = [(f"{path}{n}", times, keywords) for path, times, keywords in calls for n in range(EACH)]
            caller.ask("enqueue", service=key, calls=[["POST", path, keywords] for path, _, keywords in paths])
            expected |= {f"{key}{path}": times for path, times, _ in paths}
        self.running.wait_for(2 * EACH + 1)  # and the caller that waits
        self.failing.wait_for(2 * EACH)
        return expected

    def starts(self) -> Counter[str]:
        services = {"running": self.running, "failing": self.failing, "delayed": self.delayed}
        return Counter(f"{key}{r.path}" for key, service in services.items() for r in service.matching(method="POST"))


def stop_redis_for(outage: float, folder: Path) -> Found:
    with ExitStack() as stack:
        redis = PrivateRedis(folder, durable=True)
        redis.start()
        stack.callback(redis.stop)
        scene = Scene(stack)
        fleet = stack.enter_context(Fleet(folder, redis.url, scene.declared()))
        *_, caller = fleet.start(workers=2, supervisors=1, callers=1)
        waiting = caller.start("call", service="running", method="GET", path="/during/waited", deadline=120)
        expected = scene.begin(caller, outage)

        began = time.monotonic()
        redis.kill() if outage > 5 else redis.stop()
        refused = seconds_until_refused(caller)
        directly = caller.ask("call", service="delayed", method="GET", path="/directly")["status"]
        scene.during.set()
        wait_until(lambda: time.monotonic() >= began + outage, 2 * outage)
        seen = scene.delayed.count(method="POST")
        redis.restart()
        back = time.monotonic()
        wait_until(lambda: scene.delayed.count(method="POST") > seen, 10 * RESUMED)
        resumed = scene.delayed.matching(method="POST")[seen].at - back
        scene.after.set()
        waited = waiting.result(30)["status"]
        caller.ask("enqueue", service="delayed", calls=[["POST", "/afterwards"]])
        wait_until(lambda: all(fleet.drained(key) for key in ("running", "failing", "delayed")), 30)
        expected["delayed/afterwards"] = 1
        return Found(back - began, resumed, refused, scene.starts(), expected, waited, directly)


def seconds_until_refused(caller: Caller) -> float:
    """How long an enqueue took to raise its typed error."""
    started = time.monotonic()
    with pytest.raises(CallError) as caught:
        caller.ask("enqueue", service="delayed", calls=[["POST", "/refused"]])
    assert caught.value.kind == "BrokerUnavailable"
    caller.ask("fire", service="delayed", method="POST", path="/refused")  # raises nothing
    return time.monotonic() - started


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    scenarios = {f"outage{number}": partial(stop_redis_for, outage) for number, outage in enumerate(OUTAGES)}
    with playing(tmp_path_factory.mktemp("redis"), **scenarios) as stage:
        yield stage


@pytest.mark.parametrize("number", range(len(OUTAGES)))
def test_nothing_is_lost_nothing_starts_twice_and_work_resumes_within_two_seconds(stage: Stage, number: int) -> None:
    found: Found = stage.result(f"outage{number}")
    lost = set(found.expected) - set(found.starts)
    twice = {path: times for path, times in found.starts.items() if times > found.expected.get(path, 0)}
    say(
        f"redis away for {found.lasted:.1f} s: {len(found.expected)} calls, {len(lost)} lost, {len(twice)} repeated, "
        f"resumed after {found.resumed:.2f} s, two enqueues refused within {found.refused:.2f} s"
    )
    assert lost == set()
    assert twice == {}
    assert found.starts == found.expected
    assert found.resumed < RESUMED
    assert found.refused < REFUSED
    assert (found.waited, found.directly) == (200, 200)
