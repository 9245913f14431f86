"""What happens in the demo, told as it happens."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from typing import Any

import requests
from click import echo, style

from examples.caudex.load import FALLBACK

__all__ = ["VICTIMS", "Answers", "Timeline", "Watcher"]

#: The services that go down.
VICTIMS = ("git", "chroma")
#: Seconds between two looks at the fleet.
LOOK_SECONDS = 0.05


class Timeline:
    """What happened when, printed as it happens."""

    def __init__(self, quiet: bool) -> None:
        self._started = time.monotonic()
        self._quiet = quiet

    def say(self, text: str, color: str | None = None) -> None:
        if not self._quiet:
            moment = style(f"{time.monotonic() - self._started:6.1f} s", dim=True)
            echo(f"{moment}  {style(text, fg=color, bold=color is not None)}")


class Watcher:
    """Follows the fleet as `seawall status` shows it, and tells of every breaker that opens or closes."""

    def __init__(self, timeline: Timeline) -> None:
        self._say = timeline.say
        self._lines: dict[str, dict[str, Any]] = {}
        self._held: Counter[str] = Counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5.0)

    def is_open(self) -> bool:
        """Whether every victim's breaker has opened."""
        return all(self._lines.get(key, {}).get("state", "closed") != "closed" for key in VICTIMS)

    def is_closed(self) -> bool:
        return bool(self._lines) and all(line["state"] == "closed" for line in self._lines.values())

    def is_delivered(self) -> bool:
        return bool(self._lines) and not any(_waiting(line) for line in self._lines.values())

    def report(self) -> str:
        """How many background calls wait now."""
        waiting = [f"{_waiting(self._lines[key])} for {key}" for key in VICTIMS]
        return f"background calls wait in the queue: {', '.join(waiting)}"

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            with contextlib.suppress(requests.RequestException):
                self._look(_status())

    def _look(self, lines: dict[str, dict[str, Any]]) -> None:
        for key, line in lines.items():
            was_open = self._lines.get(key, {}).get("state", "closed") != "closed"
            self._held[key] = max(self._held[key], _waiting(line)) if was_open else 0
            if not was_open and line["state"] != "closed":
                self._say(f"{key}: breaker OPEN after {line['failure_threshold']} failed calls in a row", "red")
            elif was_open and line["state"] == "closed":
                self._say(f"{key}: a trial succeeded, breaker CLOSED; {self._held[key]} held calls go out", "green")
        self._lines = lines


class Answers:
    """Tells of the first answers of each kind."""

    def __init__(self, timeline: Timeline) -> None:
        self._say = timeline.say
        self._told: set[str] = set()
        self.breakers_open = False

    def __call__(self, source: str, took: float) -> None:
        if source == FALLBACK and not self.breakers_open:
            self._once("retried", f"a search was retried for {took:.1f} s, then answered from the backend's own copy")
        elif source == FALLBACK:
            self._once("refused", f"a search is refused at once: answered from the copy within {took * 1000:.0f} ms")
        elif self.breakers_open and source == "chroma":
            self._once("back", "a search is answered by chroma again")

    def _once(self, kind: str, text: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._say(text)


def _waiting(line: dict[str, Any]) -> int:
    """Calls that are not over yet."""
    return sum(line[name] for name in ("queued", "held", "due_later", "running"))


def _status() -> dict[str, dict[str, Any]]:  # numbers and words by name, as in `seawall status --json`
    from seawall.fleet import read_fleet
    from seawall.runtime import current, registry

    return {line.key: line.as_json() for line in read_fleet(current(), registry).services}
