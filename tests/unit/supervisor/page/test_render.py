"""The page's parts as HTML."""

from __future__ import annotations

import re
from typing import Any

from seawall.supervisor.page.desk import Progress, Wanted
from seawall.supervisor.page.render import NEWS_SECONDS, render_parts, render_template
from seawall.supervisor.page.replays import Replay
from seawall.supervisor.page.scene import Scene
from tests.unit.supervisor.page.test_words import WELL, fleet

NOW = 1000.0
EVIL = '"><script>alert(1)</script>'
ACTION = {"at": NOW, "who": EVIL, "what": EVIL, "service": EVIL, "detail": EVIL}
STEP = {"at": NOW, "service": "s0", "from": "closed", "to": EVIL, "began": NOW, "why": EVIL, "forced": False}
OUTAGE = {"service": "s0", "began": NOW, "ended": None, "seconds": 1.0, "why": EVIL}


def scene(**service: Any) -> Scene:
    found = fleet(WELL | {"running": 0} | service)
    found["workers"] = [{"host": EVIL, "pid": 1, "busy": 0, "slots": 8, "services": {}, "started_at": 0.0}]
    found["supervisors"] = []
    return Scene(NOW, found, transitions=[STEP], outages=[OUTAGE], actions=[ACTION])


def test_nothing_that_is_told_becomes_a_part_of_the_page() -> None:
    replay = Replay(Wanted(EVIL, EVIL), EVIL, NOW, trouble=EVIL, ended=NOW)
    shown = render_parts(scene(service=EVIL, last_error=EVIL, consecutive_failures=4, dead=1), replay)
    letter = {
        "id": EVIL,
        "service": EVIL,
        "reason": EVIL,
        "died_at": NOW,
        "last_error": EVIL,
        "method": EVIL,
        "path": EVIL,
    }
    letter |= {"attempts": [], "request": {"origin": EVIL, "headers": {EVIL: EVIL}, "body_bytes": 1}}
    values = {"letters": [letter], "more": False, "trouble": "", "wanted": Wanted(EVIL, EVIL)}
    for part in (
        *shown.parts.values(),
        render_template("letters.html", **values),
        render_template("login.html", problem=EVIL, name=EVIL),
    ):
        assert "<script>alert" not in part
    assert "&lt;script&gt;" in shown.parts["service-s0"]


def test_no_part_has_what_the_content_policy_forbids() -> None:
    for part in render_parts(scene(), None).parts.values():
        assert not re.search(r"\son\w+=|\sstyle=|javascript:", part)


def test_the_end_of_a_replay_is_news_for_a_while() -> None:
    def seen(ended: float) -> bool:
        replay = Replay(Wanted(), "Ada", NOW - 5000, Progress(total=2, queued=2), ended=ended)
        return "2 of 2 queued again" in render_parts(scene(), replay).parts["replay"]

    assert seen(ended=0.0)
    assert seen(ended=NOW - 1)
    assert not seen(ended=NOW - NEWS_SECONDS - 1)
