"""When a schedule is due: a crontab expression in a time zone, or every so many seconds. Pure; a leaf module.

Tick times are seconds since the epoch, and the same in every process, whenever it looks: an interval counts from the
epoch, not from a start.

When clocks change, a crontab expression does as Debian's cron does (that is cronsim's work):

- A job with fixed hours and minutes (neither field begins with `*`) runs once a day that it names: one whose time is
  skipped in spring runs right after the gap, one whose time comes twice in autumn runs the first time.
- Any other one (`0 * * * *`, `*/15 2 * * *`) goes by what a clock on the wall shows: each real hour has its ticks, hours
  that are skipped have none, and hours that come twice have theirs twice.

zoneinfo and cronsim are imported when the first schedule is declared: zoneinfo reads the environment as it is imported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Protocol

from seawall.kinds import Kind, nearest, text

__all__ = ["LEAST_EVERY", "Cron", "Every", "Ticks", "cron_kind", "every_kind", "zone_kind"]

#: Seconds between two ticks of an interval, at the least: each one costs the leader two round trips.
LEAST_EVERY = 0.1
#: Decimals of a tick's time: the store keeps milliseconds.
_DECIMALS = 3


class Ticks(Protocol):
    """The ticks of one schedule. Equal ones tick alike; `str` says how, for people."""

    def after(self, moment: float) -> float | None:
        """The first tick later than this moment; None when none comes within 50 years."""

    def latest(self, now: float, *, after: float) -> float | None:
        """The last tick that is not later than `now`, if it is later than `after`: what stands for all missed ones."""


@dataclass(frozen=True, slots=True)
class Every:
    """Multiples of `seconds`, counted from the epoch."""

    seconds: float

    def after(self, moment: float) -> float:
        number = math.floor(moment / self.seconds)
        while (tick := self._tick(number)) <= moment:
            number += 1
        return tick

    def latest(self, now: float, *, after: float) -> float | None:
        number = math.floor(now / self.seconds) + 1
        while (tick := self._tick(number)) > now:
            number -= 1
        return tick if tick > after else None

    def _tick(self, number: int) -> float:
        return round(number * self.seconds, _DECIMALS)

    def __str__(self) -> str:
        return f"every {self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class Cron:
    """A crontab expression of five fields, in the time zone of this name. Raises ValueError for what is neither."""

    expression: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        cron_kind().check(self.expression)
        zone_kind().check(self.timezone)

    def after(self, moment: float) -> float | None:
        return _after(self.expression, _zone(self.timezone), moment)

    def latest(self, now: float, *, after: float) -> float | None:
        """Found by halving: the ticks of a year of minutes are half a million, and forty looks are enough."""
        found = self.after(after)
        if found is None or found > now:
            return None
        unseen = now
        while unseen - found > 1:
            middle = (found + unseen) / 2
            later = self.after(middle)
            if later is not None and later <= now:
                found = later
            else:
                unseen = middle
        return found

    def __str__(self) -> str:
        return f"cron {self.expression!r} in {self.timezone}"


def _after(expression: str, zone: tzinfo, moment: float) -> float | None:
    from cronsim import CronSim

    for found in CronSim(expression, datetime.fromtimestamp(moment, zone)):
        tick = found.timestamp()
        if tick > moment:  # in an hour that comes for the second time, cronsim answers with the first one's ticks
            return tick
    return None


def _zone(name: str) -> tzinfo:
    """UTC needs no time zone data."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo

    return ZoneInfo(name)


def cron_kind() -> Kind:
    """Five fields: minute, hour, day of the month, month, day of the week."""
    says = "five fields of crontab, such as '30 3 * * *'"
    plain = text(says)

    def check(value: object) -> str:
        from cronsim import CronSimError

        expression = " ".join(plain.check(value).split())
        if expression.count(" ") != 4:
            raise ValueError(f"must be {says}, not {value!r}")
        try:
            comes = _after(expression, UTC, 0.0)
        except (CronSimError, ValueError) as error:
            raise ValueError(f"must be {says}, not {value!r}: {str(error).lower()}") from None
        if comes is None:
            raise ValueError(f"names a time that never comes: {value!r}")
        return expression

    return Kind(says, check, plain.read)


def every_kind() -> Kind:
    """Seconds, not too few."""
    says = f"seconds, {LEAST_EVERY:g} or more"

    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"must be a number of {says}, not {value!r}")
        if not math.isfinite(value) or value < LEAST_EVERY:
            raise ValueError(f"must be a number of {says}, not {value}")
        return float(value)

    return Kind(says, check, lambda given: given)


def zone_kind() -> Kind:
    """The name of a time zone that this machine knows."""
    says = "a time zone, such as Europe/Berlin"
    plain = text(says)

    def check(value: object) -> str:
        name = str(plain.check(value))
        try:
            _zone(name)
        except (KeyError, ValueError, OSError):
            from zoneinfo import available_timezones

            known = available_timezones()
            hint = nearest(name, known) if known else "; this machine knows none: pip install tzdata"
            raise ValueError(f"must be {says}, not {value!r}{hint}") from None
        return name

    return Kind(says, check, plain.read)
