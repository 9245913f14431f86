"""What a service's numbers mean, and what is wrong with the fleet: in words, the worst first. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Headline",
    "Judged",
    "count",
    "first_up",
    "headline",
    "is_worrying",
    "judge",
    "latency",
    "length",
    "rate",
    "share",
]

#: Part of the last minute's calls that failed, from which a service with a closed breaker is worth a look, and how many
#: of them there must be: one failed call of two is no news.
WORRYING_SHARE, WORRYING_FAILURES = 0.05, 3
#: Seconds after an outage in which the failed calls of the last minute are those of the outage: a minute and a sample.
JUST_BACK = 70.0
#: Seconds that a call may wait for a worker before that is worth a look.
WORRYING_AGE = 60.0
#: What a missing worker means for who calls.
NO_WORKER = "Whoever waits for an answer gets NoWorker, background calls wait."
#: The webhook of alerts, which is no service of the application.
ALERTS_KEY = "seawall-alerts"

#: A space at which no line breaks.
UNBROKEN = "\u00a0"
#: The worst first.
LEVELS = ("down", "trial", "warn", "paused", "ok")

Service = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Judged:
    """`level` is one of LEVELS, `word` what the lamp says, `meaning` a clause, `says` a sentence for the headline."""

    level: str
    word: str
    meaning: str
    says: str = ""
    title: str = ""

    @property
    def rank(self) -> int:
        return LEVELS.index(self.level)


@dataclass(frozen=True, slots=True)
class Headline:
    """`title` changes only when something happens; `text` may count seconds. `more` has a sentence per further trouble."""

    level: str
    title: str
    text: str = ""
    more: tuple[str, ...] = ()


def judge(service: Service) -> Judged:
    name, state = service["service"], service["state"]
    if state == "open":
        return _open(name, service)
    if state == "half_open":
        text = f"one call is the trial{_why(service).replace(': ', '. ', 1)}"
        says = f"A single call finds out whether it is back. {_waiting(service)}{_last_error(service)}"
        return Judged("trial", "Half-open", text, says, f"{name} is being tried")
    if service["queued"] and not service["workers"]:
        text = f"{count(service['queued'], 'call')} wait, and no worker serves them"
        return Judged("down", "No worker", text, f"{first_up(text)}.", f"{name} has no worker")
    if not service["workers"]:
        text = "no worker serves it" + (", and it is paused by hand" if service.get("paused") else "")
        says = f"{first_up(text)}. {NO_WORKER} Start `seawall worker` with its module."
        return Judged("warn", "No worker", text, says, f"{name} has no worker")
    if service.get("paused"):
        text = f"by hand; {_waiting(service)[:-1].lower()}"
        return Judged("paused", "Paused", text, f"{_waiting(service)}", f"{name} is paused by hand")
    return _closed(name, service)


def _open(name: str, service: Service) -> Judged:
    since = max(0.0, service["as_of"] - (service["opened_at"] or service["as_of"]))
    if service["forced"]:
        text = f"held open by hand for {length(since)}"
        says = f"Its breaker is held open by hand, for {length(since)}. {_waiting(service)}"
        return Judged("down", "Open", text, says, f"{name} is shut off by hand")
    trial = f"next trial in {length(service['retry_after'])}" if service["retry_after"] >= 0.5 else "a trial is due"
    text = f"for {length(since)}, {trial}{_why(service).replace(': ', '. ', 1)}"
    says = f"Its breaker has been open for {length(since)}. {_waiting(service)[:-1]}, {trial}.{_last_error(service)}"
    return Judged("down", "Open", text, says, f"{name} is down")


def _closed(name: str, service: Service) -> Judged:
    failures, failing = service["consecutive_failures"], service.get("error_share") or 0.0
    if failures:
        text = f"{failures:,} of {service['failure_threshold']:,} failures in a row{_why(service)}"
        if failures * 2 >= service["failure_threshold"]:
            return Judged("warn", "Closed", text, f"{first_up(text)}.", f"{name} is failing")
        return Judged("ok", "Closed", text)
    if is_worrying(service):
        text = f"{share(failing)} of the last minute's calls failed{_why(service)}"
        return Judged("warn", "Closed", text, f"{first_up(text)}.", f"{name} is failing")
    if service["queued"] and service["oldest_waiting"] >= WORRYING_AGE:
        text = (
            f"behind: the oldest of {count(service['queued'], 'call')} has waited {length(service['oldest_waiting'])}"
        )
        return Judged("warn", "Closed", text, f"{first_up(text)}.", f"{name} is behind")
    if failing >= WORRYING_SHARE and (back := _back_for(service)) < JUST_BACK:
        text = f"back for {length(back)}, after an outage of {length(service['last_outage']['seconds'])}"
        return Judged("ok", "Closed", text)
    if failing >= WORRYING_SHARE:
        calls = max(1, round(60 * (service.get("rate") or 0.0)))
        return Judged("ok", "Closed", f"{max(1, _failed(service))} of {count(calls, 'call')} failed in the last minute")
    return Judged("ok", "Closed", "healthy")


def is_worrying(service: Service) -> bool:
    """Whether so many of the last minute's calls failed that it is worth a look. Those of an outage that is over are not."""
    failing = (service.get("error_share") or 0.0) >= WORRYING_SHARE and _failed(service) >= WORRYING_FAILURES
    return failing and _back_for(service) >= JUST_BACK


def _back_for(service: Service) -> float:
    """Seconds since the last outage ended; infinitely many where there was none."""
    ended = (service.get("last_outage") or {}).get("ended")
    return math.inf if ended is None else max(0.0, float(service["as_of"]) - ended)


def _failed(service: Service) -> int:
    return round((service.get("error_share") or 0.0) * 60 * (service.get("rate") or 0.0))


def headline(fleet: Mapping[str, Any]) -> Headline:
    """The one thing to read at night.

    >>> headline({"services": {}, "workers": [{}], "supervisors": [{}], "leader": "a"}).title
    'No service is known yet'
    """
    judged = [judge(service) for service in fleet["services"].values()]
    sick = sorted((one for one in judged if one.level != "ok"), key=lambda one: one.rank)
    if not fleet["workers"]:  # said once, for all of them
        sick = [one for one in sick if (one.level, one.word) != ("warn", "No worker")]
    lacks = _lacking(fleet)
    troubles = [*[one for one in lacks if one.level == "down"], *sick, *[one for one in lacks if one.level != "down"]]
    if not troubles:
        return _healthy(fleet)
    first, rest = troubles[0], troubles[1:]
    down = [one for one in sick if one.level == "down"]
    if first in down and len(down) > 1:
        title = f"{len(down)} of {len(judged)} services are down"
        return Headline("down", title, more=tuple(f"{one.title}: {_first_down(one.says)}" for one in troubles))
    more = tuple(f"{one.title}: {_first_down(one.says)}" for one in rest)
    return Headline(first.level, first.title, first.says, more)


def _lacking(fleet: Mapping[str, Any]) -> list[Judged]:
    found = []
    if fleet["services"] and not fleet["workers"]:
        says = f"{NO_WORKER} Start `seawall worker`."
        found.append(Judged("down", "", "", says, "No worker runs"))
    if not fleet["leader"]:
        says = "Schedules do not run, and trials wait for callers. Start `seawall supervisor`."
        found.append(Judged("warn", "", "", says, "No supervisor leads"))
    return found


def _healthy(fleet: Mapping[str, Any]) -> Headline:
    services = [service for key, service in fleet["services"].items() if key != ALERTS_KEY]
    if not services:
        return Headline("ok", "No service is known yet", "A service appears when a worker serves it.")
    title = f"All {len(services)} services are healthy" if len(services) > 1 else "The only service is healthy"
    waiting = sum(service["queued"] + service["due_later"] for service in services)
    dead = sum(service["dead"] for service in services)
    total = sum(service.get("rate") or 0.0 for service in services)
    parts = [f"{rate(total)} calls a second", f"{count(waiting, 'call')} waiting" if waiting else "nothing waits"]
    return Headline("ok", title, ", ".join([*parts, *([count(dead, "dead letter")] if dead else [])]) + ".")


def _waiting(service: Service) -> str:
    waiting = service["held"] + service["queued"] + service["due_later"]
    return f"{count(waiting, 'call')} wait{'s' if waiting == 1 else ''}." if waiting else "No call waits."


def _why(service: Service) -> str:
    return f": {service['last_error']}" if service["last_error"] else ""


def _last_error(service: Service) -> str:
    return f" Last error: {service['last_error']}." if service["last_error"] else ""


def first_up(text: str) -> str:
    return text[:1].upper() + text[1:]


def _first_down(text: str) -> str:
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def count(number: int, thing: str) -> str:
    """
    >>> count(1, "call"), count(1204, "call")
    ('1 call', '1,204 calls')
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def length(seconds: float) -> str:
    """A length of time for people; a line does not break between a number and its unit.

    >>> [length(seconds).replace(UNBROKEN, " ") for seconds in (0.2, 42.4, 200, 5400, 200_000)]
    ['0 s', '42 s', '3 min 20 s', '90 min', '56 h']
    """
    whole = round(max(0.0, seconds))
    if whole < 100:
        return f"{whole}{UNBROKEN}s"
    if whole < 600:
        rest = f" {whole % 60}{UNBROKEN}s" if whole % 60 else ""
        return f"{whole // 60}{UNBROKEN}min{rest}"
    return f"{whole / 60:.0f}{UNBROKEN}min" if whole < 100 * 60 else f"{whole / 3600:.0f}{UNBROKEN}h"


def latency(seconds: float) -> str:
    """
    >>> [latency(seconds) for seconds in (0.0004, 0.0123, 0.95, 2.5)]
    ['< 1 ms', '12 ms', '950 ms', '2.5 s']
    """
    if seconds < 0.001:
        return "< 1 ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


def rate(number: float) -> str:
    """
    >>> [rate(number) for number in (0.0, 0.04, 3.14, 1234.5)]
    ['0', '0.04', '3.1', '1,234']
    """
    if number == 0:
        return "0"
    return f"{number:.2f}" if number < 0.1 else f"{number:.1f}" if number < 100 else f"{number:,.0f}"


def share(part: float) -> str:
    """
    >>> [share(part) for part in (0.0, 0.004, 0.25)]
    ['0 %', '0.4 %', '25 %']
    """
    return f"{part:.0%}".replace("%", " %") if part == 0 or part >= 0.0995 else f"{part * 100:.1f} %"
