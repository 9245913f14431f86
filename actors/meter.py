"""What a worker counts of every attempt.

How a call ended travels with its settlement and is added in the same step: so it is counted once in the fleet, whatever is
said again, and whoever ends what a killed worker had not settled. Attempts and their times are added once a second by
each process: a killed one takes its last second's along.
"""

from __future__ import annotations

import threading
from bisect import bisect_left

from seawall.actors.delivered import Delivered
from seawall.actors.queue_store import Done, Later, Settlement
from seawall.actors.replies import Outcome
from seawall.errors import DeadlineExceeded, OutcomeUnknown, ServiceUnavailable

__all__ = ["BUCKETS", "OUTCOMES", "Meter"]

#: Upper bounds of the histograms' buckets in seconds; one more takes what is longer. Kept narrow where calls usually are.
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0)
#: How a call can end. `dead`, `cancelled` and most of `expired` are counted by the scripts that decide them.
OUTCOMES = ("succeeded", "answered_4xx", "failed", "refused", "expired", "cancelled", "unknown", "dead")


_WIDTH = len(BUCKETS) + 1


class Meter:
    """Counts one service's attempts, until they are drained. Safe for threads.

    >>> meter = Meter("chroma")
    >>> meter.attempt(took=0.004, waited=None)
    >>> meter.drain()
    {('chroma', 'took.2'): 1, ('chroma', 'took.us'): 4000}
    """

    def __init__(self, service: str) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._clear()
        self._ended = {
            waited: {outcome: (service, f"calls.{kind}.{outcome}") for outcome in OUTCOMES}
            for waited, kind in ((True, "waited"), (False, "background"))
        }

    def _clear(self) -> None:
        self._took, self._took_s = [0] * _WIDTH, 0.0
        self._wait, self._wait_s = [0] * _WIDTH, 0.0
        self._retries = 0

    def attempt(self, took: float, waited: float | None, retried: bool = False) -> None:
        """An attempt took so many seconds, after its call had waited for a slot for so many (None: unknown)."""
        with self._lock:
            self._took[bisect_left(BUCKETS, took)] += 1
            self._took_s += took
            self._retries += retried
            if waited is not None:
                self._wait[bisect_left(BUCKETS, waited)] += 1
                self._wait_s += waited

    def drain(self) -> dict[tuple[str, str], int]:
        """What was counted since the last time, by service and what is counted."""
        with self._lock:
            found = {f"took.{bucket}": times for bucket, times in enumerate(self._took)}
            found |= {f"wait.{bucket}": times for bucket, times in enumerate(self._wait)}
            found |= {"took.us": int(self._took_s * 1e6), "wait.us": int(self._wait_s * 1e6), "retries": self._retries}
            self._clear()
        return {(self._service, what): times for what, times in found.items() if times}

    def counted(self, settlement: Settlement, delivered: Delivered, waited: bool) -> Settlement:
        """Count the attempt that was made, if one was; the settlement with the end of the call in it, if it has ended."""
        if delivered.ran is not None:
            started, took = delivered.ran
            since = delivered.delivery.ready_at
            retried = isinstance(settlement, Later) and settlement.progress.attempt > 0
            self.attempt(max(0.0, took), max(0.0, started - since) if since else None, retried)
        if not isinstance(settlement, Done):
            return settlement
        ended = self._ended[waited][_outcome(settlement.outcome)]
        return Done(settlement.outcome, settlement.mailbox, settlement.keep, ended)


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
