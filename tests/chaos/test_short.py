"""A short chaos run, always the same one, with everything that a long one has; docs/chaos.md tells of the long ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.chaos.plan import make_plan

SEED, SECONDS = 315, 12
#: Seconds for all of it: starting, playing, settling, ending.
PATIENCE = 240.0
ROOT = Path(__file__).parents[2]


def test_a_short_run_breaks_no_promise(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [
        sys.executable,
        "-m",
        "tests.chaos",
        "--seconds",
        str(SECONDS),
        "--seed",
        str(SEED),
        "--report",
        str(report),
    ]
    played = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert played.returncode == 0, played.stdout[-5000:] + played.stderr[-5000:]
    figures = json.loads(report.read_text())["figures"]
    assert figures["waited-for calls"]["right"] > 0
    assert figures["background calls"]["accepted"] > 0


def test_a_seed_is_a_plan() -> None:
    assert make_plan(3, 60).events == make_plan(3, 60).events
    assert make_plan(3, 60).events != make_plan(4, 60).events


def test_everything_happens_in_ten_minutes() -> None:
    events = make_plan(SEED, 600).events
    happened = {f"redis {event.action}" if event.targets == ("redis",) else event.action for event in events}
    assert happened == {
        *("kill", "terminate", "stop", "skew", "mode", "cut", "silence", "lose", "swallow", "delay"),
        *("redis kill", "redis terminate", "redis stop", "redis fill"),
    }
