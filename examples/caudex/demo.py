"""An outage, played on the real thing: `seawall demo`.

Four services and the backend run, with a private Valkey, a supervisor and two workers under `seawall up`. Users chat and
search all the time, a background job indexes documents and takes snapshots. Git and Chroma are killed, stay away for a
while, and come back. At the end everything that was accepted is looked up in the services' own books.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import requests
from click import echo, style

from examples.caudex.books import Books
from examples.caudex.fleet import Fleet
from examples.caudex.load import FALLBACK, Load
from examples.caudex.processes import ServiceProcess

__all__ = ["play"]

#: Seconds of load before the outage, and after everything is back.
CALM_SECONDS = 3.0
#: The breakers' recovery timeout, short so that a demo takes half a minute.
RECOVERY_SECONDS = 2.0
#: Seconds in which the fleet must come up, breakers open or close, and everything must be delivered.
PATIENCE = 60.0
#: Seconds between two looks at the fleet, and between two lines about it during the outage.
LOOK_SECONDS, REPORT_SECONDS = 0.05, 2.5

VICTIMS = ("git", "chroma")
CALM, FAILING, OPEN, AFTER = PHASES = ("before", "outage begins", "breakers open", "after")


class GaveUp(Exception):
    """Something that must happen did not, in all that time."""


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
        waiting = [f"{_waiting(self._lines[key])} for {key}" for key in VICTIMS]
        return f"background calls wait, nothing is lost: {', '.join(waiting)}"

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


def play(outage: float, *, quiet: bool = False) -> int:
    """Play it, with the services away for `outage` seconds once the breakers are open. 0 when nothing was lost, else 1."""
    timeline = Timeline(quiet)
    os.environ["CAUDEX_RECOVERY_SECONDS"] = str(RECOVERY_SECONDS)
    with _terminated(), tempfile.TemporaryDirectory(prefix="seawall-demo-") as folder:
        data = Path(folder)
        try:
            return _play(timeline, data, outage)
        except GaveUp as error:
            echo(f"gave up: {error}\n{_last_words(data / 'up.log')}", err=True)
            return 1


def _play(timeline: Timeline, data: Path, outage: float) -> int:
    with contextlib.ExitStack() as stack:
        timeline.say("starting a private Valkey, a supervisor, two workers, four services and the backend")
        os.environ["SEAWALL_BROKER_URL"] = _broker_url(data)
        fleet = stack.enter_context(Fleet(data / "caudex", backend=False))
        os.environ.update(fleet.addresses())
        stack.enter_context(_seawall_up(data))
        backend = stack.enter_context(_backend(data, fleet))
        _wait_for("the fleet to come up", _fleet_is_up)
        fleet.seed()
        books, answers = Books(fleet), Answers(timeline)
        load = Load(backend, answers)
        with Watcher(timeline) as watcher:
            _act(timeline, fleet, load, watcher, answers, outage)
        return 0 if books.settle(load, PHASES) else 1


def _act(timeline: Timeline, fleet: Fleet, load: Load, watcher: Watcher, answers: Answers, outage: float) -> None:
    load.phase = CALM
    load.start()
    timeline.say("three users chat and search, a job indexes documents and takes snapshots")
    time.sleep(CALM_SECONDS)
    load.phase = FAILING
    timeline.say("git and chroma are killed (SIGKILL)", "red")
    for name in VICTIMS:
        fleet.services[name].kill()
    _wait_for("the breakers to open", watcher.is_open)
    load.phase, answers.breakers_open = OPEN, True
    ends = time.monotonic() + outage
    while (left := ends - time.monotonic()) > 0:
        time.sleep(min(left, REPORT_SECONDS))
        timeline.say(watcher.report())
    timeline.say("git and chroma are started again", "green")
    for name in VICTIMS:
        fleet.services[name].start()
    _wait_for("the breakers to close", watcher.is_closed)
    load.phase = AFTER
    time.sleep(CALM_SECONDS)
    load.stop()
    timeline.say("the users go home; what still waits is delivered")
    _wait_for("the queues to empty", watcher.is_delivered)
    timeline.say("every queue is empty")


def _waiting(line: dict[str, Any]) -> int:
    """Calls that are not over yet."""
    return sum(line[name] for name in ("queued", "held", "due_later", "running"))


def _status() -> dict[str, dict[str, Any]]:  # numbers and words by name, as in `seawall status --json`
    from seawall.fleet import read_fleet
    from seawall.runtime import current, registry

    return {line.key: line.as_json() for line in read_fleet(current(), registry).services}


def _fleet_is_up() -> bool:
    from seawall.fleet import read_fleet
    from seawall.runtime import current, registry

    with contextlib.suppress(requests.RequestException):
        fleet = read_fleet(current(), registry)
        return len(fleet.workers) >= 2 and bool(fleet.leader)
    return False


def _broker_url(data: Path) -> str:
    """Where the embedded server of `seawall up` will listen."""
    from seawall.embedded import EmbeddedServer

    return EmbeddedServer(data).url


@contextlib.contextmanager
def _seawall_up(data: Path) -> Iterator[None]:
    """`seawall up` with the clients' module, its messages in a file. It also ends when this process is killed."""
    command = [sys.executable, "-m", "seawall", "up", "examples.caudex.services", "--workers", "2", "--no-web"]
    environ = {name: value for name, value in os.environ.items() if name != "SEAWALL_BROKER_URL"}
    with (data / "up.log").open("wb") as log:
        child = subprocess.Popen(
            [*command, "--data-dir", str(data), "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environ,
            start_new_session=True,
        )
        try:
            yield
        finally:
            child.terminate()
            child.wait()


@contextlib.contextmanager
def _backend(data: Path, fleet: Fleet) -> Iterator[str]:
    with ServiceProcess("backend", data=data / "caudex", module="examples.caudex.backend") as backend:
        fleet.backend = backend
        try:
            yield backend.url
        finally:
            fleet.backend = None


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM ends the play as ctrl-C does: everything that it started is stopped."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _last_words(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""


def _wait_for(what: str, condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > ends:
            raise GaveUp(f"waited {PATIENCE:g} s for {what}")
        time.sleep(LOOK_SECONDS)
