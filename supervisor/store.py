"""What a breaker store is: a versioned record per service, compared and swapped on one clock, and announced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from seawall.supervisor.breaker import Record

__all__ = ["CLOCK_TOLERANCE", "Announced", "BreakerStore", "Clock", "Reconnected", "Swap"]

#: Seconds by which the clock a transition was computed with may differ from the server's at the moment of the swap.
CLOCK_TOLERANCE = 0.1

#: Called with a service's key and its new record, on a thread of the store's choosing; it must not block for long.
Announced = Callable[[str, Record], None]
#: Called when announcements flow (again), and when the server answers again after a command failed: read what you need.
Reconnected = Callable[[], None]


class Clock(Protocol):
    """Something that tells the time in seconds, such as the module `time`."""

    def time(self) -> float:
        """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Swap:
    """What came of a swap: `current` is the stored record after it (never stored: version 0), `now` the server's time."""

    ok: bool
    current: Record
    now: float


class BreakerStore(Protocol):
    """Where a fleet's breakers live. Safe for threads; after a fork build a new one.

    `read`, `read_all` and `swap` raise seawall.errors.BrokerUnavailable; its `written` says whether a swap may have
    been carried out. The others never raise and never wait for the server.
    """

    def read(self, key: str) -> tuple[Record | None, float]:
        """The record, or None when there is none yet, and the server's time."""

    def read_all(self) -> dict[str, Record]:
        """Every stored record by its service's key."""

    def swap(self, key: str, expected_version: int, record: Record, assumed_now: float) -> Swap:
        """Store the record as version `expected_version + 1`, and announce it, if the stored version is the expected one.

        `assumed_now` is the time that the record was computed with: it must be the server's within CLOCK_TOLERANCE,
        so that a command which was held up on its way changes nothing. A refusal answers what a new try needs.
        """

    def now(self) -> float:
        """The server's clock as far as it is known here, without asking it."""

    def confirmed_at(self) -> float:
        """Server time up to which every announcement is known to have arrived; 0 when none could."""

    def subscribe(self, announced: Announced, reconnected: Reconnected | None = None) -> None:
        """Call back for every stored change from now on, this process's own included."""

    def close(self) -> None:
        """Stop announcing. Safe to call twice."""
