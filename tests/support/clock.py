"""A clock that stands still until a test moves it."""

from __future__ import annotations

__all__ = ["FixedClock"]


class FixedClock:
    """Stands in for the module `time` wherever a clock is passed in.

    >>> clock = FixedClock(100)
    >>> clock.advance(1.5)
    >>> clock.time()
    101.5
    """

    def __init__(self, now: float = 1_000_000.0) -> None:
        self._now = now

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds
