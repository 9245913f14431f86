"""How many retries a worker process makes of a service's calls: a share of the calls, so that retries never double a load.

The idea is Finagle's and linkerd's (a share of requests besides a floor each second); here over a sliding minute.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable

__all__ = ["RetryBudget"]

#: Seconds that the budget looks back.
WINDOW = 60.0
#: Retries in a window that are made in any case.
FLOOR = 10


class RetryBudget:
    """At most `share` retries for each call that began in the last minute, or ten. Safe for threads.

    >>> budget = RetryBudget(0.2, clock=lambda: 0.0)
    >>> [budget.spend() for _ in range(12)].count(True)
    10
    """

    def __init__(self, share: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._calls: deque[float] = deque()
        self._retries: deque[float] = deque()
        self._lock = threading.Lock()

    @property
    def retries(self) -> int:
        """Retries of the last minute."""
        return len(self._retries)

    @property
    def calls(self) -> int:
        """Calls of the last minute."""
        return len(self._calls)

    @property
    def left(self) -> int:
        """Retries that may be made now."""
        with self._lock:
            self._now()
            return max(0, math.ceil(max(FLOOR, self._share * len(self._calls))) - len(self._retries))

    def call(self) -> None:
        """A call makes its first attempt."""
        with self._lock:
            self._calls.append(self._now())

    def spend(self) -> bool:
        """Whether another retry may be made; it counts if so."""
        with self._lock:
            now = self._now()
            if len(self._retries) >= max(FLOOR, self._share * len(self._calls)):
                return False
            self._retries.append(now)
            return True

    def _now(self) -> float:
        now = self._clock()
        for times in (self._calls, self._retries):
            while times and times[0] <= now - WINDOW:
                times.popleft()
        return now
