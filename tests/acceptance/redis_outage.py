"""Plays an outage of the broker with calls running, delayed and failing; see test_redis_outage.py."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tests.acceptance.harness import START_SECONDS, Caller, CallError, Fleet
from tests.support import Answer, CountingService, PrivateRedis, Request, wait_until

__all__ = ["Found", "outage_of"]

#: Seconds after which work resumes no more.
NEVER = 20.0
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
        arrived = [f"{key}{r.path}" for key, service in services.items() for r in service.matching(method="POST")]
        return Counter(path for path in arrived if not path.endswith("/refused"))  # their callers were told: perhaps


How = Literal["stopped", "killed", "frozen"]


def outage_of(outage: float, how: How, folder: Path) -> Found:
    """`frozen` keeps connections and says nothing; what was sent meanwhile is carried out afterwards."""
    with ExitStack() as stack:
        redis = PrivateRedis(folder, durable=True)
        redis.start()
        stack.callback(redis.stop)
        scene = Scene(stack)
        fleet = stack.enter_context(Fleet(folder, redis.url, scene.declared()))
        caller = fleet.caller(patient=False)
        fleet.start(workers=2, supervisors=1)
        caller.ask("ready", timeout=START_SECONDS)
        waiting = caller.start("call", service="running", method="GET", path="/during/waited", deadline=120)
        expected = scene.begin(caller, outage)

        began = time.monotonic()
        {"stopped": redis.stop, "killed": redis.kill, "frozen": redis.freeze}[how]()
        refused = seconds_until_refused(caller)
        directly = caller.ask("call", service="delayed", method="GET", path="/directly")["status"]
        scene.during.set()
        wait_until(lambda: time.monotonic() >= began + outage, 2 * outage)
        seen = scene.delayed.count(method="POST")
        {"stopped": redis.restart, "killed": redis.restart, "frozen": redis.thaw}[how]()
        back = time.monotonic()
        wait_until(lambda: scene.delayed.count(method="POST") > seen, NEVER)
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
    took = time.monotonic() - started
    caller.ask("fire", service="delayed", method="POST", path="/refused")  # raises nothing
    return took
