"""The files in which clients and services note what happened, a JSON array a line, while they may be killed at any moment.

A line is one write to a file opened for appending: once written it survives the process, though not a power cut, which
is no part of the game.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Asked", "Ledger", "Visit", "read_asked", "read_visits"]


class Ledger:
    """A file that grows by lines. Safe for threads."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._lock = threading.Lock()

    def write(self, *values: Any) -> None:
        line = json.dumps(values, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            os.write(self._file, line)


@dataclass
class Asked:
    """One call as its client knows it. Times are monotonic, which on one machine is one clock for all processes."""

    who: str
    """The process: `client-1.2` is the third one with the name `client-1`."""
    number: str
    kind: str
    service: str
    started: float
    deadline: float
    """Seconds, of a waited-for call; 0 for one that nobody waits for."""
    ended: float = 0.0
    end: str = ""
    """`right`, `wrong ...`, `accepted`, or the error's name; empty when no end was noted."""
    detail: str = ""
    id: str = ""

    @property
    def waited(self) -> bool:
        return self.deadline > 0

    @property
    def accepted(self) -> bool:
        return self.end == "accepted"


@dataclass(frozen=True)
class Visit:
    """One request as a service noted it, right before its answer. `active` counts the requests in its hands, this one included."""

    service: str
    arrived: float
    method: str
    path: str
    key: str
    body: str
    active: int
    status: int
    """What it was answered with; 0 where there was no answer."""


def read_asked(folder: Path) -> list[Asked]:
    """What every client process has noted in `<who>.asked`."""
    found: dict[str, Asked] = {}
    for path in sorted(folder.glob("*.asked")):
        for what, number, *rest in _lines(path):
            if what == "start":
                kind, service, started, deadline = rest
                found[number] = Asked(path.stem, number, kind, service, started, deadline)
            else:
                one = found[number]
                one.ended, one.end, one.detail, one.id = rest
    return list(found.values())


def read_visits(folder: Path) -> list[Visit]:
    """What every service has noted in `<service>.visits`."""
    return [Visit(path.stem, *line) for path in sorted(folder.glob("*.visits")) for line in _lines(path)]


def _lines(path: Path) -> Iterator[list[Any]]:
    for line in path.read_text().splitlines():
        yield json.loads(line)
