"""The server's clock, known without asking."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["ServerClock"]


class ServerClock:
    """An estimate of a server's clock from the times that it told us.

    An answer that says `t`, asked for at `sent` and here at `received`, was given in between; so the server's clock
    is ahead of our monotonic one by `t - received` to `t - sent`. Answers narrow these bounds; one that contradicts
    them (drift, a stepped clock, a host that slept) replaces them. Until the first answer it is our own wall clock.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self.monotonic = monotonic
        guess = wall() - monotonic()
        self._ahead = (guess, guess)
        self._guessed = True

    def now(self) -> float:
        """Seconds on the server's clock."""
        low, high = self._ahead
        return self.monotonic() + (low + high) / 2

    @property
    def uncertainty(self) -> float:
        """Seconds between the earliest and the latest that `now` might be."""
        low, high = self._ahead
        return high - low

    def heard(self, server_time: float, sent: float, received: float) -> None:
        """Learn from an answer; `sent` and `received` are monotonic times."""
        low, high = server_time - received, server_time - sent
        known_low, known_high = self._ahead
        if not self._guessed and low <= known_high and known_low <= high:
            low, high = max(low, known_low), min(high, known_high)
        self._guessed = False
        self._ahead = (low, high)
