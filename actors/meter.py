"""What a worker counts of every attempt. The counts travel with the settlement and are added in the same step.

So a call that has ended is counted once in the fleet: a settlement that is said again adds nothing, and what a killed
worker had not settled yet is counted by whoever ends it.
"""

from __future__ import annotations

from bisect import bisect_left

import msgspec

from seawall.actors.delivered import Delivered
from seawall.actors.queue_store import Bury, Done, Later, Release, Settlement
from seawall.actors.replies import Outcome
from seawall.errors import DeadlineExceeded, OutcomeUnknown, ServiceUnavailable

__all__ = ["BUCKETS", "OUTCOMES", "Meter"]

#: Upper bounds of the histograms' buckets in seconds; one more takes what is longer. Kept narrow where calls usually are.
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0)
#: How a call can end. `dead`, `cancelled` and most of `expired` are counted by the scripts that decide them.
OUTCOMES = ("succeeded", "answered_4xx", "failed", "refused", "expired", "cancelled", "unknown", "dead")


class Meter:
    """Counts one service's attempts. Without state: safe for threads.

    >>> Meter("chroma").took[bisect_left(BUCKETS, 0.004)]
    'chroma took.2'
    """

    def __init__(self, service: str) -> None:
        self.took = [f"{service} took.{bucket}" for bucket in range(len(BUCKETS) + 1)]
        self._wait = [f"{service} wait.{bucket}" for bucket in range(len(BUCKETS) + 1)]
        self._took_us, self._wait_us = f"{service} took.us", f"{service} wait.us"
        self._retries = f"{service} retries"
        self._ended = {
            waited: {outcome: f"{service} calls.{kind}.{outcome}" for outcome in OUTCOMES}
            for waited, kind in ((True, "waited"), (False, "background"))
        }

    def counted(self, settlement: Settlement, delivered: Delivered, waited: bool) -> Settlement:
        """The settlement with what it adds to the fleet's counts."""
        counts: tuple[str | int, ...] = ()
        if delivered.ran is not None:
            started, took = delivered.ran
            since = delivered.delivery.ready_at
            counts = (self.took[bisect_left(BUCKETS, took)], 1, self._took_us, max(0, int(took * 1e6)))
            if since:
                wait = max(0.0, started - since)
                counts += (self._wait[bisect_left(BUCKETS, wait)], 1, self._wait_us, int(wait * 1e6))
        if isinstance(settlement, Done):
            counts += (self._ended[waited][_outcome(settlement.outcome)], 1)
        elif isinstance(settlement, Later) and settlement.progress.attempt:
            counts += (self._retries, 1)
        return _with(settlement, counts) if counts else settlement


def _with(settlement: Settlement, counts: tuple[str | int, ...]) -> Settlement:
    match settlement:
        case Done():
            return Done(settlement.outcome, settlement.mailbox, settlement.keep, counts)
        case Later() | Release() | Bury():
            return msgspec.structs.replace(settlement, counts=counts)


def _outcome(outcome: Outcome | None) -> str:
    if outcome is None or outcome.error is None:
        status = getattr(outcome.response if outcome is not None else None, "status_code", 0)
        return "answered_4xx" if isinstance(status, int) and status >= 400 else "succeeded"
    match outcome.error:
        case ServiceUnavailable():
            return "refused"
        case DeadlineExceeded():
            return "expired"
        case OutcomeUnknown():
            return "unknown"
    return "failed"
