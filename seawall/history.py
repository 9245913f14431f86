"""An hour of the fleet's counts: the leading supervisor keeps a sample each ten seconds, whoever shows rates reads them.

A sample holds totals since the namespace began, so what happened between two of them is their difference, and one that
is missing, because nobody led, makes a gap and no mistake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from seawall.actors.meter import BUCKETS
from seawall.redis_link import RedisLink

__all__ = ["SAMPLE_SECONDS", "Sample", "Totals", "keep_sample", "percentile", "since", "totals_of", "window"]

#: Seconds between two samples, and how many are kept.
SAMPLE_SECONDS = 10
SAMPLES = 360
#: Ends of calls that are the service's failure, for the share of errors.
_FAILED = frozenset({"failed", "dead", "expired", "unknown"})
#: Ends that say nothing about the service.
_NEUTRAL = frozenset({"cancelled", "refused"})


@dataclass(frozen=True, slots=True)
class Totals:
    """One service's calls that ended, those of them that failed, and its attempts by bucket of their duration."""

    calls: int = 0
    failed: int = 0
    took: tuple[int, ...] = (0,) * (len(BUCKETS) + 1)

    def __sub__(self, before: Totals) -> Totals:
        """What came between. Counts only grow; where they did not, somebody has emptied the store."""
        took = tuple(max(0, now - then) for now, then in zip(self.took, before.took, strict=True))
        return Totals(max(0, self.calls - before.calls), max(0, self.failed - before.failed), took)


@dataclass(frozen=True, slots=True)
class Sample:
    """The totals of every service at a time, in seconds since the epoch."""

    at: float
    services: Mapping[str, Totals] = field(default_factory=dict)

    def of(self, key: str) -> Totals:
        return self.services.get(key, Totals())


def totals_of(tally: Mapping[tuple[str, str], int]) -> dict[str, Totals]:
    """The totals in the fleet's counts."""
    calls: dict[str, int] = {}
    failed: dict[str, int] = {}
    took: dict[str, list[int]] = {}
    for (key, what), times in tally.items():
        if what.startswith("calls.") and (outcome := what.rpartition(".")[2]) not in _NEUTRAL:
            calls[key] = calls.get(key, 0) + times
            failed[key] = failed.get(key, 0) + (times if outcome in _FAILED else 0)
        elif what.startswith("took.") and what != "took.us" and (bucket := int(what[5:])) <= len(BUCKETS):
            took.setdefault(key, [0] * (len(BUCKETS) + 1))[bucket] = times
    nothing = Totals().took
    return {key: Totals(calls.get(key, 0), failed.get(key, 0), tuple(took.get(key, nothing))) for key in calls | took}


def keep_sample(link: RedisLink, namespace: str, tally: Mapping[tuple[str, str], int]) -> None:
    """Raises BrokerUnavailable."""
    packed = {key: (one.calls, one.failed, one.took) for key, one in totals_of(tally).items()}
    link.command("XADD", f"{namespace}:history", "MAXLEN", "~", SAMPLES, "*", "s", msgspec.msgpack.encode(packed))


def window(link: RedisLink, namespace: str, seconds: float) -> list[Sample]:
    """The samples of the last so many seconds, oldest first, and the one before them. Raises BrokerUnavailable."""
    count = min(SAMPLES, int(seconds / SAMPLE_SECONDS) + 2)
    rows = link.command("XREVRANGE", f"{namespace}:history", "+", "-", "COUNT", count)
    return [sample for row in reversed(rows) if (sample := _sample(*row)) is not None]


def _sample(id: bytes, fields: Sequence[bytes]) -> Sample | None:
    """None for one that another release wrote in another form."""
    try:
        packed: dict[str, Any] = msgspec.msgpack.decode(fields[fields.index(b"s") + 1])
        services = {
            key: Totals(calls, failed, tuple(took))
            for key, (calls, failed, took) in packed.items()
            if len(took) == len(BUCKETS) + 1
        }
    except (msgspec.MsgspecError, ValueError, TypeError):
        return None
    return Sample(int(id.partition(b"-")[0]) / 1000, services)


def since(samples: Sequence[Sample], now: float, seconds: float) -> Sample | None:
    """The sample to count from for the last so many seconds; a younger one where there is no older. None without any, or
    where nobody led for so long that the one before is of another time."""
    older = [sample for sample in samples if sample.at <= now - seconds]
    if older:
        return older[-1] if older[-1].at >= now - 2 * seconds else None
    return samples[0] if samples else None


def percentile(took: Sequence[int], share: float) -> float | None:
    """Seconds within which this share of the attempts ended, as between the bounds of its bucket; None without attempts.

    As Prometheus' histogram_quantile: the attempts of a bucket are taken as evenly spread in it.

    >>> percentile((0, 0, 100, *[0] * 13), 0.5)
    0.0035
    """
    total = sum(took)
    if not total:
        return None
    rank, seen = share * total, 0
    for bucket, number in enumerate(took):
        if number and seen + number >= rank:
            if bucket == len(BUCKETS):
                return BUCKETS[-1]
            below = BUCKETS[bucket - 1] if bucket else 0.0
            return round(below + (BUCKETS[bucket] - below) * (rank - seen) / number, 6)
        seen += number
    return BUCKETS[-1]
