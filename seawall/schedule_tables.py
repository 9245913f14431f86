"""The `[[schedules]]` tables of `seawall.toml`: their keys, and reading them. A leaf module.

    [[schedules]]
    name = "nightly-reindex"
    service = "chroma"
    method = "POST"
    path = "/reindex"
    cron = "30 3 * * *"
    timezone = "Europe/Berlin"
    json = { full = true }

What code declares is held to the same rules, by `checked_ticks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from seawall.errors import ConfigurationError
from seawall.kinds import Kind, Problem, choice, nearest, seconds, text, whole
from seawall.ticks import Cron, Every, Ticks, cron_kind, every_kind, zone_kind

__all__ = ["SCHEDULE_KEYS", "ScheduleKey", "ScheduleTable", "checked_ticks", "read_schedules"]

_UTC = "UTC"
#: Options of a background call that mean nothing for one that comes again and again, and what to do instead.
_SENSELESS = {
    "files": "they are read when a call is made; send their bytes as data=",
    "delay": "move the ticks",
    "not_before": "move the ticks",
    "dedupe": "each tick is queued once as it is; coalesce= replaces a call that still waits",
}


@dataclass(frozen=True, slots=True)
class ScheduleKey:
    """What one key of a table may hold, what it means, and its default."""

    kind: Kind
    help: str
    default: Any = None
    required: bool = False


@dataclass(frozen=True, slots=True)
class ScheduleTable:
    """One table, its values checked for themselves only; `source` is the file it came from."""

    name: str
    values: Mapping[str, Any]
    source: str

    @property
    def where(self) -> str:
        """The table as problems name it."""
        return f"{self.source}: schedules.{self.name}"

    @property
    def ticks(self) -> Ticks:
        """How it ticks; of a table with which nothing is wrong."""
        return _ticks(self.values)


def _anything() -> Kind:
    return Kind("any value", lambda value: value, lambda given: given)


def _headers() -> Kind:
    says = "a table of texts"

    def check(value: object) -> dict[str, str]:
        if not isinstance(value, dict) or not all(isinstance(part, str) for part in value.values()):
            raise ValueError(f"must be {says}, such as {{ Accept = 'text/plain' }}, not {value!r}")
        return dict(value)

    return Kind(says, check, lambda given: given)


#: Every key of a table, in the order of the documentation.
SCHEDULE_KEYS: Mapping[str, ScheduleKey] = MappingProxyType(
    {
        "name": ScheduleKey(
            text("a name", pattern=r"[A-Za-z0-9_.:-]{1,63}", like="at most 63 letters, digits, `_`, `.`, `:` and `-`"),
            "The schedule's identity in the whole fleet; required.",
            required=True,
        ),
        "service": ScheduleKey(
            text("a service's key"),
            "The service that is called, declared in the file or in code; required.",
            None,
            True,
        ),
        "method": ScheduleKey(text("a method"), "Such as `POST`; required.", required=True),
        "path": ScheduleKey(
            text("a path"), "Relative to the service's URL; may hold a query; required.", required=True
        ),
        "cron": ScheduleKey(cron_kind(), "Minute, hour, day of the month, month, day of the week. This or `every`."),
        "every": ScheduleKey(every_kind(), "An interval; ticks are its multiples, counted from the epoch."),
        "timezone": ScheduleKey(zone_kind(), "The time zone of `cron`.", _UTC),
        "json": ScheduleKey(_anything(), "The body, as JSON. This or `body`."),
        "body": ScheduleKey(text("text"), "The body as it is."),
        "headers": ScheduleKey(_headers(), "Headers of the request."),
        "expires_in": ScheduleKey(seconds(), "Seconds that the call may wait; by default the service's `expires_in`."),
        "coalesce": ScheduleKey(text("text"), "A call that waits under the same key is replaced by this one."),
        "on_open": ScheduleKey(
            choice("hold", "skip"),
            "While the breaker is open: `hold` keeps the call, `skip` leaves the tick out.",
            "hold",
        ),
        "rounds": ScheduleKey(whole(0), "Rounds of attempts before the call is given up; 0: until it expires.", 0),
    }
)
_REQUIRED = tuple(key for key, known in SCHEDULE_KEYS.items() if known.required)


def checked_ticks(name: str, cron: str | None, every: float | None, timezone: str, options: Mapping[str, Any]) -> Ticks:
    """How a schedule ticks that code declares. It is held to what holds for one of the file, its call's options too.

    Raises ConfigurationError, and TypeError for an option that a schedule cannot have.
    """
    for option, instead in _SENSELESS.items():
        if options.get(option):
            raise TypeError(f"schedule {name!r}: {option}= cannot be scheduled: {instead}")
    given: dict[str, Any] = {key: options.get(key) or None for key in ("expires_in", "coalesce", "on_open", "rounds")}
    given |= {"name": name, "cron": cron, "every": every, "timezone": None if timezone == _UTC else timezone}
    values = {key: _checked(name, key, value) for key, value in given.items() if value is not None}
    if problem := _contradiction(values):
        raise ConfigurationError(f"schedule {name!r} {problem}")
    return _ticks(values)


def _ticks(values: Mapping[str, Any]) -> Ticks:
    return Every(values["every"]) if "every" in values else Cron(values["cron"], values.get("timezone", _UTC))


def _checked(name: str, key: str, value: object) -> Any:
    try:
        return SCHEDULE_KEYS[key].kind.check(value)
    except ValueError as error:
        raise ConfigurationError(f"schedule {name!r}: {key} {error}") from None


def read_schedules(value: object, source: str) -> tuple[tuple[ScheduleTable, ...], list[Problem]]:
    """The tables under `schedules` that can be used, and everything that is wrong with the others."""
    if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
        return (), [Problem("error", f"{source}: schedules", "must be tables, each under [[schedules]]")]
    tables: list[ScheduleTable] = []
    found: list[Problem] = []
    for number, given in enumerate(value, 1):
        table, wrong = _read_table(given, number, source)
        if not wrong and table.name in (known.name for known in tables):
            wrong = [Problem("error", table.where, "is there twice; a schedule's name is its identity")]
        if not wrong:
            tables.append(table)
        found += wrong
    return tuple(tables), found


def _read_table(given: Mapping[str, object], number: int, source: str) -> tuple[ScheduleTable, list[Problem]]:
    name = given.get("name")
    table = ScheduleTable(name if isinstance(name, str) and name else f"#{number}", given, source)
    values: dict[str, Any] = {}
    found: list[Problem] = []
    for key, raw in given.items():
        known = SCHEDULE_KEYS.get(key)
        try:
            if known is None:
                raise ValueError(f"is not a key of a schedule{nearest(key, SCHEDULE_KEYS)}")
            values[key] = known.kind.check(raw)
        except ValueError as error:
            found.append(Problem("error", f"{table.where}.{key}", str(error)))
    found += [Problem("error", table.where, text) for text in _missing(given)]
    return ScheduleTable(table.name, MappingProxyType(values), source), found


def _missing(given: Iterable[str]) -> list[str]:
    given = set(given)
    found = [f"has no {key}" for key in _REQUIRED if key not in given]
    problem = _contradiction(given)
    return [*found, problem] if problem else found


def _contradiction(given: Iterable[str]) -> str:
    """What is wrong with which keys there are, taken together."""
    given = set(given)
    if {"cron", "every"} <= given:
        return "has both cron and every; give one of the two"
    if not given & {"cron", "every"}:
        return "has neither cron nor every; give one of the two"
    if {"every", "timezone"} <= given:
        return "has a timezone, which means nothing to every; ticks count from the epoch"
    return "has both json and body; give one of the two" if {"json", "body"} <= given else ""
