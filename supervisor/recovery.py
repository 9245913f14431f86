"""Rounds over all queues: calls of dead workers go back, calls that are past their time end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from redis.exceptions import ResponseError

from seawall.errors import BrokerUnavailable
from seawall.outage import Outage

__all__ = ["Recovery"]

logger = logging.getLogger("seawall.supervisor")

#: One sweep treats a limited number of calls, to stay short. This many of them in a row, then the next queue's turn.
SWEEPS_IN_A_ROW = 20


class Recovery:
    """`queues()` names the queues, `sweep(queue)` treats one and answers how many calls it returned to the queue,
    buried as poison, and let expire. Both may raise BrokerUnavailable.

    A round may run anywhere, also twice at once: the sweep is atomic, and decides on the server's clock.
    """

    def __init__(self, queues: Callable[[], Sequence[str]], sweep: Callable[[str], tuple[int, int, int]]) -> None:
        self._queues = queues
        self._sweep = sweep
        self._outage = Outage(logger, "the broker (recovery)")

    def round(self) -> None:
        """Sweep every queue once. Never raises for a broker that is away: the next round does what this one could not."""
        try:
            for queue in self._queues():
                self._clear(queue)
            self._outage.over()
        except (BrokerUnavailable, ResponseError) as error:
            self._outage.begins(error)

    def _clear(self, queue: str) -> None:
        returned = poisoned = expired = 0
        try:
            for _ in range(SWEEPS_IN_A_ROW):
                found = self._sweep(queue)
                if not any(found):
                    break
                returned, poisoned, expired = returned + found[0], poisoned + found[1], expired + found[2]
        finally:
            _log(queue, returned, poisoned, expired)


def _log(queue: str, returned: int, poisoned: int, expired: int) -> None:
    told = (
        (returned, "went back because their worker died"),
        (poisoned, "moved to the dead letters as poison"),
        (expired, "expired before they could start"),
    )
    parts = [f"{count} {what}" for count, what in told if count]
    if parts:
        logger.warning("calls of %s: %s", queue, ", ".join(parts))
