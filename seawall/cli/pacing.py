"""Spacing calls evenly in time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

__all__ = ["Pace"]

#: Seconds by which a turn may be late and the next ones still keep to the plan: a sleep ends about a millisecond late.
#: Whoever is later has stalled, and what was missed is not made up for.
SLACK = 0.005


class Pace:
    """Turns at `rate` a second, evenly spaced; a rate of 0 is as fast as possible. Not for several threads.

    Turns are planned from one another and not from when they were taken, so small delays do not add up. After a stall
    the plan begins anew: no turns come in a burst. `clock` gives monotonic seconds; `sleep` takes seconds, and may end
    early where something wakes it: then the turn is early too, and the plan stays.

    >>> now = 0.0
    >>> def sleep(seconds):
    ...     global now
    ...     now += seconds
    >>> pace = Pace(4, clock=lambda: now, sleep=sleep)
    >>> for _ in range(3):
    ...     pace.wait()
    >>> now
    0.5
    """

    def __init__(
        self,
        rate: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._between = 1 / rate if rate > 0 else 0.0
        self._clock = clock
        self._sleep = sleep
        self._due = -math.inf

    def wait(self) -> None:
        """Sleep until the next turn; the first one is now."""
        now = self._clock()
        if now < self._due:
            self._sleep(self._due - now)
        self._due = max(self._due, now - SLACK if self._due > -math.inf else now) + self._between
