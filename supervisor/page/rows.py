"""A service as the page shows it: words, figures, charts and buttons, ready for the template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from seawall.supervisor.page.charts import meter, sparkline, strip, timeline
from seawall.supervisor.page.scene import Scene
from seawall.supervisor.page.words import UNBROKEN, Judged, count, is_worrying, judge, latency, length, rate, share

__all__ = ["Button", "Figure", "Row", "letter_buttons", "rows"]

#: Stands where no number is known.
UNKNOWN = "\u2013"
NO_CHART = Markup("")
#: Entries of a service's own history that are shown.
RECENT = 8


@dataclass(frozen=True, slots=True)
class Button:
    """Asks `question`, says what it will do, and POSTs `body` to `url`."""

    label: str
    about: str
    question: str
    text: str
    url: str
    body: str = "{}"
    danger: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """One number with its name; `note` stands small beside it, `chart` below."""

    name: str
    value: str
    note: str = ""
    chart: Markup = NO_CHART
    alarming: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    key: str
    name: str
    judged: Judged
    figures: list[Figure]
    strip: Markup
    recovery: str
    transitions: list[Mapping[str, Any]]
    outages: list[Mapping[str, Any]]
    buttons: list[Button]


def rows(scene: Scene) -> list[Row]:
    """The sick ones first, then by name."""
    services = scene.fleet["services"].items()
    made = [_row(scene, key, service) for key, service in services]
    return sorted(made, key=lambda row: (row.judged.rank, row.name.lower(), row.key))


def _row(scene: Scene, key: str, service: Mapping[str, Any]) -> Row:
    transitions, outages = scene.transitions_of(key), scene.outages_of(key)
    return Row(
        key=key,
        name=service["service"],
        judged=judge(service),
        figures=[*_traffic(scene, key, service), _latency(service), _waiting(service), _in_flight(service)],
        strip=strip(transitions, service["state"], scene.at),
        recovery=_recovery(service, len(outages)),
        transitions=transitions[:RECENT],
        outages=outages[:RECENT],
        buttons=_buttons(key, service),
    )


def _traffic(scene: Scene, key: str, service: Mapping[str, Any]) -> list[Figure]:
    noted = scene.history.get(key) or {"step": 10, "at": [], "calls": [], "failed": []}
    step, calls, failed = noted["step"], noted["calls"], noted["failed"]
    spans = [step, *(max(step, end - start) for start, end in pairwise(noted["at"]))]  # longer where nobody led
    speeds = timeline(noted["at"], [number / span for number, span in zip(calls, spans, strict=False)], scene.at)
    all_calls, all_failed = timeline(noted["at"], calls, scene.at), timeline(noted["at"], failed, scene.at)
    shares = [bad / some if some else 0.0 for bad, some in zip(all_failed, all_calls, strict=True)]
    now, failing = service.get("rate"), service.get("error_share")
    speed_label = f"Calls a second in the last hour, at most {rate(max(speeds))}"
    share_label = f"Share of failed calls in the last hour, at most {share(max(shares))}"
    return [
        Figure("calls/s", rate(now) if now is not None else UNKNOWN, chart=sparkline(speeds, "calls", speed_label)),
        Figure(
            "errors",
            share(failing) if failing is not None else UNKNOWN,
            chart=sparkline(shares, "errors", share_label, top=0.25),
            alarming=is_worrying(service),
        ),
    ]


def _latency(service: Mapping[str, Any]) -> Figure:
    found = service.get("latency")
    if not found:
        return Figure("p50 / p95 / p99", UNKNOWN)
    return Figure("p50 / p95 / p99", latency(found["p50"]), f"{latency(found['p95'])} / {latency(found['p99'])}")


def _waiting(service: Mapping[str, Any]) -> Figure:
    parts = [
        f"{service[name]:,} {word}"
        for name, word in (("queued", "queued"), ("held", "held"), ("due_later", "due later"))
        if service[name]
    ]
    total = service["queued"] + service["held"] + service["due_later"]
    if service["queued"] + service["held"] and service["oldest_waiting"]:
        parts.append(f"oldest {length(service['oldest_waiting'])}")
    return Figure("waiting", f"{total:,}", ", ".join(parts), alarming=bool(service["held"]))


def _in_flight(service: Mapping[str, Any]) -> Figure:
    running, bound = service["running"], service.get("slots") or 0
    label = f"{running} of {bound} calls in flight"
    chart = meter(running, bound, label) if bound else NO_CHART
    return Figure("in flight", f"{running:,}", f"of {bound:,}" if bound else "no worker", chart)


def _recovery(service: Mapping[str, Any], outages: int) -> str:
    last, mttr = service.get("last_outage"), service.get("mttr")
    parts = []
    if last and last["ended"] is not None:
        parts.append(f"last outage {length(last['seconds'])}")
    if mttr is not None:
        parts.append(f"MTTR {length(mttr)}")
    parts = [part.replace(" ", UNBROKEN) for part in parts]  # a line breaks between them only
    return ", ".join(parts) if parts else ("" if outages else "no outage on record")


def _buttons(key: str, service: Mapping[str, Any]) -> list[Button]:
    name, held = service["service"], service["held"]
    delivered = f"{count(held, 'held call')} will be delivered" if held else "nothing is held back"
    found = []
    if service["state"] != "closed" or service["forced"]:
        text = (
            f"Calls go out again at once, and {delivered}. If {name} is still down, the breaker opens again by itself."
        )
        found.append(_button(key, name, "close", "Close the breaker", text))
    if service["state"] != "open" or not service["forced"]:
        text = (
            f"Callers of {name} are refused at once and its background calls wait, as if it were down. "
            "No trial is made: it stays open until somebody closes it."
        )
        label = "Open" if service["state"] == "closed" else "Hold open"
        found.append(_button(key, name, "open", f"{label} the breaker", text, label=label, danger=True))
    text = f"It is put back into its first state: closed, and no failure counted; {delivered}."
    found.append(_button(key, name, "reset", "Reset the breaker", text))
    if service.get("paused"):
        text = f"The background calls of {name} that wait are delivered, as far as its breaker lets them."
        found.append(_button(key, name, "resume", "Resume the background calls", text))
    else:
        text = (
            f"Background calls of {name} are accepted and kept, and none is started until somebody resumes. "
            "No attempt is used up. Calls that somebody waits for go on."
        )
        found.append(_button(key, name, "pause", "Pause the background calls", text))
    return found


def _button(key: str, name: str, verb: str, doing: str, text: str, *, label: str = "", danger: bool = False) -> Button:
    about = f"{doing} of {name}"
    return Button(label or verb.capitalize(), about, f"{about}?", text, f"/v1/api/services/{key}/{verb}", danger=danger)


def letter_buttons(service: str, reason: str, id: str = "", number: str = "") -> list[Button]:
    """Replay and purge, of one letter or of all that the filter lets through; `number` says how many, where known."""
    which = {"ids": [id]} if id else {"service": service, "reason": reason}
    of = f" of {service}" if service else ""
    why = f" with reason “{reason}”" if reason else ""
    what = "this dead letter" if id else f"all {number + ' ' if number else ''}dead letters{of}{why}"
    text = "queued again under the same id and Idempotency-Key, with a first attempt and a new time to expire"
    again = f"It is {text}." if id else f"They are {text}, 100 a second. A bar shows how far it is; it can be stopped."
    all_ = "" if id else " all"
    body = json.dumps(which)
    return [
        Button(f"Replay{all_}", f"Replay {what}", f"Replay {what}?", again, "/v1/api/dead/replay", body),
        Button(
            f"Purge{all_}",
            f"Purge {what}",
            f"Purge {what}?",
            ("It is" if id else "They are") + " forgotten for good. Nothing brings that back.",
            "/v1/api/dead/purge",
            body,
            danger=True,
        ),
    ]
