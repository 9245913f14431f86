"""Plays a call that kills whoever runs it; see test_poison_and_strangers.py."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.harness import CallError, Fleet
from tests.support import Answer, CountingService, PrivateRedis, wait_until

__all__ = ["DEATHS", "SIBLINGS", "deadly_call"]

#: Workers that a call may kill.
DEATHS = 3
#: Calls that run beside the deadly one when it kills for the first time.
SIBLINGS = 3


def deadly_call(folder: Path) -> dict[str, Any]:
    """Whoever runs /deadly is killed with `kill -9`, as it would be by the system for want of memory."""
    with ExitStack() as stack:
        redis = PrivateRedis(folder)
        redis.start()
        stack.callback(redis.stop)
        service = stack.enter_context(CountingService())
        hold = threading.Event()
        stack.callback(hold.set)
        first = [Answer(hold=hold)] * (1 + SIBLINGS)
        service.script("/deadly", Answer(hold=hold))
        service.script("*", *first[1:], Answer())
        fleet = stack.enter_context(Fleet(folder, redis.url, {"mine": {"url": service.url, "timeout": 60}}))
        worker, _, caller = fleet.start(workers=1, supervisors=1, callers=1)
        paths = ["/deadly", *(f"/sibling/{n}" for n in range(SIBLINGS))]
        deadly, *_ = caller.ask("enqueue", service="mine", calls=[["POST", path] for path in paths])
        service.wait_for(1 + SIBLINGS)
        began = time.monotonic()
        for deaths in range(1, DEATHS + 1):
            service.wait_for(deaths, path="/deadly", timeout=20)
            successor = fleet.worker()
            fleet.wait_for_worker(successor)
            if deaths == 2:
                # The siblings run after the deadly one's first second: none may be in the hands of who dies.
                wait_until(lambda: all(service.count(path) == 2 for path in paths[1:]) and fleet.running("mine") == 1)
            worker.kill()
            worker = successor
        with pytest.raises(CallError) as caught:
            caller.ask("result", service="mine", id=deadly, within=20)
        took = time.monotonic() - began
        caller.ask("call", service="mine", method="GET", path="/alive")
        wait_until(lambda: fleet.drained("mine"))
        return {
            "took": took,
            "error": (caught.value.kind, str(caught.value)),
            "deadly": service.count("/deadly"),
            "siblings": {path for path in paths[1:] if service.count(path) == 2},
            "dead": [
                (letter.id == deadly, letter.reason) for letter in fleet.engine.queue.dead_letters("mine.background")
            ],
        }
