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
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import requests
from click import echo

from examples.caudex.books import Books
from examples.caudex.fleet import Fleet
from examples.caudex.load import Load
from examples.caudex.processes import ProcessDied, ServiceProcess
from examples.caudex.timeline import VICTIMS, Answers, Timeline, Watcher

__all__ = ["play"]

#: Seconds of load before the outage, and after everything is back; at most half of the outage itself.
CALM_SECONDS = 3.0
#: The breakers' recovery timeout, short so that a demo takes half a minute.
RECOVERY_SECONDS = 2.0
#: Seconds in which the fleet must come up, breakers open or close, and everything must be delivered.
PATIENCE = 60.0
#: Seconds between two looks at the fleet, and between two lines about it during the outage.
LOOK_SECONDS, REPORT_SECONDS = 0.05, 2.5

CALM, FAILING, OPEN, AFTER = PHASES = ("before", "outage begins", "breakers open", "after")


class GaveUp(Exception):
    """Something that must happen did not, in all that time."""


def play(outage: float, *, quiet: bool = False) -> int:
    """Play it, with the services away for `outage` seconds once the breakers are open. 0 when nothing was lost, else 1."""
    timeline = Timeline(quiet)
    os.environ["CAUDEX_RECOVERY_SECONDS"] = str(RECOVERY_SECONDS)
    with _terminated(), tempfile.TemporaryDirectory(prefix="seawall-demo-") as folder:
        data = Path(folder)
        try:
            return _play(timeline, data, outage)
        except (GaveUp, ProcessDied, requests.RequestException) as error:
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
    calm = min(CALM_SECONDS, outage / 2)
    load.phase = CALM
    load.start()
    timeline.say("three users chat and search, a job indexes documents and takes snapshots")
    time.sleep(calm)
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
    time.sleep(calm)
    load.stop()
    timeline.say("the users go home; what still waits is delivered")
    _wait_for("the queues to empty", watcher.is_delivered)
    timeline.say("every queue is empty")


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
