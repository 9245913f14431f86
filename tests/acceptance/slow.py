"""Calls in a worker's hands when something happens to it."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tests.acceptance.harness import Fleet, Program
from tests.support import Answer, CountingService

__all__ = ["Slow"]

#: Seconds within which a worker has taken what it may take.
PATIENCE = 15.0


class Slow:
    """A service `slow` whose first `running` calls run until `release`, and a fleet whose workers have a slot for each.

    Everything is gone when the stack is left.
    """

    def __init__(self, stack: ExitStack, folder: Path, url: str, *, running: int) -> None:
        self.running = running
        self.service = stack.enter_context(CountingService())
        self.release = threading.Event()
        stack.callback(self.release.set)
        self.service.script("*", *[Answer(hold=self.release)] * running, Answer())
        declared = {"slow": {"url": self.service.url, "concurrency": running + 1, "timeout": 60}}
        self.fleet = stack.enter_context(Fleet(folder, url, declared))

    def fill(self, worker: Program, *, backlog: int = 0) -> None:
        """Have this one worker run `running` calls, with a backlog behind them."""
        self.fleet.wait_for_worker(worker)
        self.fleet.enqueue("slow", [f"/{number}" for number in range(self.running + backlog)])
        self.service.wait_for(self.running, timeout=PATIENCE)

    def starts(self) -> Counter[str]:
        """How often each call was started."""
        return Counter(request.path for request in self.service.requests)
