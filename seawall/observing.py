"""What the fleet remembers of itself, for the page and the commands: charts, transitions, outages, who did what by hand.

All of it lies in the broker, so that every web process shows the same. Everything here raises BrokerUnavailable. In
memory mode there is nothing to read.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from redis.exceptions import ResponseError

from seawall.actors.service import queue_names
from seawall.errors import BrokerUnavailable
from seawall.history import SAMPLE_SECONDS, SAMPLES, window
from seawall.redis_link import Argument
from seawall.runtime import Runtime
from seawall.supervisor.breaker import Record, State

__all__ = [
    "note_action",
    "outages_of",
    "pause",
    "read_actions",
    "read_history",
    "read_outages",
    "read_transitions",
    "resume",
]

#: Actions that are remembered, and characters of each part of one.
AUDIT_LENGTH, AUDIT_CHARACTERS = 1000, 200
#: Transitions that outages are read from.
OUTAGE_TRANSITIONS = 1000


def read_history(runtime: Runtime) -> dict[str, dict[str, Any]]:
    """An hour by service's key: `step` in seconds, and three lists of equal length: `at` (the end of each interval, in
    seconds since the epoch), `calls` that ended in it, and `failed` ones. An interval may be longer: nobody led then.
    """
    if runtime.engine.link is None:
        return {}
    samples = window(runtime.engine.link, runtime.settings.namespace, SAMPLES * SAMPLE_SECONDS)
    found: dict[str, dict[str, Any]] = {
        key: {"step": SAMPLE_SECONDS, "at": [], "calls": [], "failed": []}
        for key in sorted({key for sample in samples for key in sample.services})
    }
    for before, sample in itertools.pairwise(samples):
        for key, series in found.items():
            part = sample.of(key) - before.of(key)
            series["at"].append(sample.at)
            series["calls"].append(part.calls)
            series["failed"].append(part.failed)
    return found


def read_transitions(runtime: Runtime, count: int = 200) -> list[dict[str, Any]]:
    """Changes of breakers' states, newest first: `id`, `at`, `service` (key), `from`, `to`, `began` (of the outage), `why`,
    `forced` (by hand). Times are seconds since the epoch."""
    return [
        {
            "id": id,
            "at": _at(id),
            "service": entry.get("service", ""),
            "from": entry.get("from", ""),
            "to": entry.get("to", ""),
            "began": int(entry.get("began") or 0) / 1000,
            "why": entry.get("why", ""),
            "forced": entry.get("forced") == "1",
        }
        for id, entry in _newest(runtime, "transitions", count)
    ]


def read_outages(
    runtime: Runtime, count: int = 50, *, records: Mapping[str, Record] | None = None
) -> list[dict[str, Any]]:
    """Outages, newest first: `service` (key), `began`, `ended` (None: it goes on), `seconds`, `why`.

    `records` are the breakers' own, read anew unless given: an older release notes no end.
    """
    records = runtime.engine.breakers.read_all() if records is None else records
    transitions = read_transitions(runtime, OUTAGE_TRANSITIONS)
    return outages_of(transitions, records, runtime.engine.breakers.now())[:count]


def outages_of(
    transitions: Sequence[dict[str, Any]], records: Mapping[str, Record], now: float
) -> list[dict[str, Any]]:
    """The outages in these transitions, newest first. Half-open again and again is one outage until it is closed."""
    found: dict[tuple[str, float], dict[str, Any]] = {}
    for one in reversed(transitions):
        outage = found.setdefault(
            (one["service"], one["began"]),
            {"service": one["service"], "began": one["began"], "ended": None, "seconds": 0.0, "why": one["why"]},
        )
        outage["ended"] = one["at"] if one["to"] == "closed" else None
    for outage in found.values():
        record = records.get(outage["service"])
        if outage["ended"] is None and record is not None and record.state is State.CLOSED:
            outage["ended"] = max(outage["began"], record.changed_at)
        outage["seconds"] = max(0.0, (outage["ended"] or now) - outage["began"])
    return sorted(found.values(), key=lambda outage: -outage["began"])


def note_action(runtime: Runtime, who: str, what: str, service: str = "", detail: str = "") -> None:
    """Remember what somebody did by hand. In memory mode nobody else could read it."""
    parts = {"who": who, "what": what, "service": service, "detail": detail}
    fields = [part for name, value in parts.items() for part in (name, value[:AUDIT_CHARACTERS])]
    if runtime.engine.link is not None:
        _ask(runtime, "XADD", _key(runtime, "audit"), "MAXLEN", "~", AUDIT_LENGTH, "*", *fields)


def read_actions(runtime: Runtime, count: int = 100) -> list[dict[str, Any]]:
    """What was done by hand, newest first: `at`, `who`, `what`, `service`, `detail`."""
    names = ("who", "what", "service", "detail")
    return [
        {"at": _at(id), **{name: entry.get(name, "") for name in names}}
        for id, entry in _newest(runtime, "audit", count)
    ]


def pause(runtime: Runtime, key: str) -> None:
    """Hold this service's background calls until somebody resumes. No attempt is used up, waited-for calls go on."""
    runtime.engine.queue.pause(queue_names(key)[1], key)


def resume(runtime: Runtime, key: str) -> None:
    """Let its background calls go on."""
    runtime.engine.queue.resume(queue_names(key)[1], key)


def _newest(runtime: Runtime, name: str, count: int) -> list[tuple[str, dict[str, str]]]:
    """A stream's entries by id, newest first."""
    if runtime.engine.link is None:
        return []
    rows = _ask(runtime, "XREVRANGE", _key(runtime, name), "+", "-", "COUNT", count)
    return [(id.decode(), _text(fields)) for id, fields in rows]


def _text(fields: Sequence[bytes]) -> dict[str, str]:
    words = [field.decode("utf-8", "replace") for field in fields]
    return dict(zip(words[::2], words[1::2], strict=True))


def _key(runtime: Runtime, name: str) -> str:
    return f"{runtime.settings.namespace}:{name}"


def _at(id: str) -> float:
    return int(id.partition("-")[0]) / 1000


def _ask(runtime: Runtime, *command: Argument) -> Any:
    assert runtime.engine.link is not None
    try:
        return runtime.engine.link.command(*command)
    except ResponseError as error:
        raise BrokerUnavailable(f"the broker refused a command: {error}") from error
