"""What lets background calls start, in memory: a breaker's state, its slow start, and a Retry-After that holds them all."""

from __future__ import annotations

import math
from collections.abc import Callable

from seawall.supervisor.breaker import Record, State, is_recovering

__all__ = ["MemoryGates", "slow_start"]


def slow_start(normal: int, since: float, length: float) -> tuple[int, float]:
    """Calls that may be in flight `since` seconds after the breaker has closed, and seconds until there may be more.

    From 1, doubled again and again, up to `normal` after `length` seconds; as `turn.lua` has it.

    >>> [slow_start(8, since, 9.0)[0] for since in (0, 2.9, 3, 6, 8.9)]
    [1, 1, 2, 4, 4]
    """
    if normal < 2:
        return 1, length - since
    doublings = math.log2(normal)
    done = math.floor(doublings * since / length)
    return 2**done, min(length, length * (done + 1) / doublings) - since


class MemoryGates:
    """`record_of` answers a breaker's record. A gate is a breaker's key, after a "-" where the breaker itself does not count.

    Not safe for threads by itself: its queue's lock guards it.
    """

    def __init__(self, record_of: Callable[[str], Record | None]) -> None:
        self._record_of = record_of
        self._holds: dict[str, float] = {}
        self._tickets: dict[str, tuple[str, int]] = {}

    def hold(self, gate: str, until: float) -> None:
        self._holds[gate] = max(until, self._holds.get(gate, 0.0))

    def pause(self, gate: str) -> None:
        self._holds[gate] = math.inf

    def resume(self, gate: str) -> None:
        self._holds.pop(gate, None)

    def is_paused(self, gate: str) -> bool:
        return self._holds.get(gate) == math.inf

    def held_until(self, gate: str) -> float:
        return self._holds.get(gate.removeprefix("-"), 0.0)

    def is_closed(self, gate: str) -> bool:
        return self._record(gate).state is State.CLOSED

    def trial(self, gate: str) -> str:
        """The id of the call that is the breaker's trial; empty for one that was handed out already."""
        record = self._record(gate)
        return "" if self._tickets.get(gate) == (record.trial, record.version) else record.trial

    def trial_is_handed_out(self, gate: str) -> None:
        """Once for each time that a trial is taken: should the worker die, the trial has failed."""
        record = self._record(gate)
        self._tickets[gate] = (record.trial, record.version)

    def slow_start(self, gate: str, now: float, normal: int) -> tuple[int, float] | None:
        """As the function; None when the breaker has not closed a moment ago."""
        record = self._record(gate)
        if not is_recovering(record, now):
            return None
        return slow_start(normal, max(0.0, now - record.recovered_at), record.slow_start)

    def _record(self, gate: str) -> Record:
        if not gate or gate.startswith("-"):
            return Record()
        return self._record_of(gate) or Record()
