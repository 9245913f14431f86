"""An alert: what it says to programs, and the one sentence that it says to people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

__all__ = ["BY_HAND", "VERSION", "Alert", "DeadLetters", "Outage", "Queue", "as_json", "length", "summary_of"]

#: The reason of an outage that somebody has made.
BY_HAND = "by hand"
#: Of the JSON form; raised only for a change that a reader of the one before would get wrong.
VERSION = 1


class Outage(msgspec.Struct, frozen=True, omit_defaults=True):
    """From the moment when a breaker opened to the one when it closed for good; times are seconds since the epoch.

    `ended` is 0 while it lasts. `held` is the most calls that were seen waiting for its end. `settle`: see `alerting`.
    """

    began: float
    why: str = ""
    ended: float = 0.0
    held: int = 0
    settle: float = 0.0


class Queue(msgspec.Struct, frozen=True):
    """Calls that could start, the age in seconds of the oldest one, and the limit that was reached."""

    waiting: int
    oldest_age: float
    limit: float


class DeadLetters(msgspec.Struct, frozen=True):
    """New dead letters since the last alert about them, in all and by reason."""

    count: int
    reasons: dict[str, int]


class Alert(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One alert; exactly one of `outage`, `queue` and `dead` is there, and none of them in a test's."""

    id: str
    kind: str
    service: str
    service_name: str
    at: float
    summary: str = ""
    outage: Outage | None = None
    queue: Queue | None = None
    dead: DeadLetters | None = None
    told: bool = False
    """Log and functions have had it; it only waits for room in the webhook's queue."""

    @property
    def is_trouble(self) -> bool:
        """It tells that something is wrong, and not that it is over."""
        return self.kind not in ("close", "test")


def as_json(alert: Alert) -> dict[str, Any]:
    """The form of the webhook's body and of what callables get, documented in docs/alerts.md."""
    outage = alert.outage
    return {
        "version": VERSION,
        "id": alert.id,
        "kind": alert.kind,
        "service": alert.service,
        "service_name": alert.service_name,
        "at": _utc(alert.at),
        "summary": alert.summary,
        "outage": outage
        and {
            "began": _utc(outage.began),
            "ended": _utc(outage.ended) if outage.ended else None,
            "seconds": round(max(0.0, (outage.ended or alert.at) - outage.began), 3),
            "held": outage.held,
            "why": outage.why,
        },
        "queue": alert.queue and msgspec.structs.asdict(alert.queue),
        "dead": alert.dead and msgspec.structs.asdict(alert.dead),
    }


def summary_of(alert: Alert) -> str:
    """One sentence for people."""
    outage, queue, dead = alert.outage, alert.queue, alert.dead
    name = alert.service_name
    if outage is not None and outage.ended:
        held = f", {_calls(outage.held)} waited for it" if outage.held else ""
        return f"{name} is back after {length(outage.ended - outage.began)}{held}"
    if outage is not None and outage.why == BY_HAND:
        return f"{name} gets no calls: its circuit breaker was opened by hand"
    if outage is not None:
        return f"{name} is down: its circuit breaker opened" + (f" ({outage.why})" if outage.why else "")
    if queue is not None and alert.kind == "queue_age":
        return f"{name} falls behind: its oldest call has waited for {length(queue.oldest_age)}, {queue.waiting:,} wait"
    if queue is not None:
        return f"{name} falls behind: {_calls(queue.waiting)} wait, the limit is {queue.limit:,.0f}"
    if dead is not None:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(dead.reasons.items()))
        plural = "" if dead.count == 1 else "s"
        return f"{name} has {dead.count:,} new dead letter{plural} ({reasons})"
    return "This is a test alert: somebody has run `seawall alerts test`"


def length(seconds: float) -> str:
    """A duration for people.

    >>> length(42.25), length(754), length(7560)
    ('42.2 s', '12 min 34 s', '2 h 6 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def _calls(count: int) -> str:
    return f"{count:,} call{'' if count == 1 else 's'}"


def _utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
