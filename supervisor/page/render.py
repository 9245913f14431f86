"""Templates, and the parts of the page that change: each a piece of HTML of its own, made once for all who look."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from seawall.supervisor.page import words
from seawall.supervisor.page.replays import Replay
from seawall.supervisor.page.rows import letter_buttons, rows
from seawall.supervisor.page.scene import Scene
from seawall.supervisor.page.words import Headline, headline

__all__ = ["Shown", "render_away", "render_parts", "render_template"]

#: Seconds for which the end of a replay is shown.
NEWS_SECONDS = 600.0

_templates = Environment(
    loader=PackageLoader("seawall.supervisor", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class Shown:
    """The page's parts by the id of their element, services in their order, and whether they are up to date."""

    parts: Mapping[str, str]
    order: Sequence[str] = ()


def clock(seconds: float, form: str = "clock") -> Markup:
    """A point in time, for machines and, until a browser writes it in its own zone, in UTC."""
    moment = time.gmtime(seconds)
    return Markup('<time datetime="{}" data-form="{}">{}</time>').format(
        time.strftime("%Y-%m-%dT%H:%M:%SZ", moment),
        form,
        time.strftime("%H:%M:%S UTC" if form == "clock" else "%d %b %H:%M:%S UTC", moment),
    )


def code(text: str) -> Markup:
    """What stands between backticks, as code.

    >>> code("Start `seawall worker`, <now>.")
    Markup('Start <code>seawall worker</code>, &lt;now&gt;.')
    """
    parts = enumerate(re.split(r"`([^`]+)`", text))
    return Markup("").join(Markup("<code>{}</code>").format(part) if at % 2 else escape(part) for at, part in parts)


_templates.globals.update(clock=clock, letter_buttons=letter_buttons)
_templates.filters.update(
    code=code, length_of=words.length, count=words.count, rate=words.rate, share=words.share, latency=words.latency
)


def render_template(name: str, /, **values: Any) -> str:
    return _templates.get_template(name).render(values)


def render_parts(scene: Scene, replay: Replay | None, *, away: bool = False) -> Shown:
    """Everything that changes. Each part's key is its element's id. `away`: it is what was last known."""
    found = rows(scene)
    parts = {f"service-{row.key}": render_template("service.html", row=row) for row in found}
    dead = {row.key: service["dead"] for row in found if (service := scene.fleet["services"][row.key])["dead"]}
    parts |= {
        "headline": _headline(headline(scene.fleet), scene.at),
        "replay": render_template("replay.html", replay=_recent(replay, scene.at)),
        "dead": render_template("dead.html", dead=dead, names={row.key: row.name for row in found}, away=away),
        "fleet": render_template("fleet.html", fleet=scene.fleet),
        "schedules": render_template("schedules.html", schedules=scene.fleet.get("schedules", ()), now=scene.at),
        "audit": render_template("audit.html", actions=scene.actions),
    }
    return Shown(parts, [f"service-{row.key}" for row in found])


def render_away(before: Shown | None, why: str, since: float) -> Shown:
    """What was last known, under a headline that says so. `since` is when it was read, by the broker's clock; 0: never."""
    title = "No contact with the broker"
    text = f"{words.first_up(why)}. What you see is from before; calls and workers go on as far as they can."
    lost = _headline(Headline("unknown", title, text), since, away=True)
    parts = dict(before.parts) if before else dict.fromkeys(("replay", "dead", "fleet", "schedules", "audit"), "")
    return Shown(parts | {"headline": lost}, before.order if before else ())


def _recent(replay: Replay | None, now: float) -> Replay | None:
    """One that ended long ago is nobody's news."""
    return replay if replay is not None and (not replay.ended or now - replay.ended < NEWS_SECONDS) else None


def _headline(found: Headline, at: float, *, away: bool = False) -> str:
    return render_template("headline.html", headline=found, at=at, away=away)
