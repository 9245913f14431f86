"""An outage, played on the real thing: `seawall demo`.

Four services and the backend run, under `seawall up` with two workers. Users chat and search all the time, and a
background job indexes documents and takes snapshots. Git and Chroma are killed, stay away for a while, and come back.
At the end the services' own books are compared with what was accepted: whatever is missing was lost.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import requests

from examples.caudex.fleet import DEMO_PROJECT, DEMO_USER, Fleet

__all__ = ["play"]

#: Seconds of load before the outage, and after everything is back.
CALM_SECONDS = 3.0
#: The breakers' recovery timeout, short so that a demo takes half a minute.
RECOVERY_SECONDS = 2.0
#: Seconds in which the fleet must come up, and in which everything must be delivered after the return.
START_SECONDS, DELIVERY_SECONDS = 30.0, 60.0
#: Projects that the background job snapshots, one after the other.
PROJECTS = ("handbook", "novel", "thesis")
#: Seconds between two users' requests, and between two background jobs.
USER_PAUSE, JOB_PAUSE = 0.05, 0.05


class Timeline:
    """What happened when, printed as it happens."""

    def __init__(self, quiet: bool) -> None:
        self._started = time.monotonic()
        self._quiet = quiet

    def say(self, text: str) -> None:
        if not self._quiet:
            print(f"{time.monotonic() - self._started:6.1f} s  {text}", flush=True)


class Load:
    """Users at the backend, and a background job beside them, each counted."""

    def __init__(self, backend: str) -> None:
        from examples.caudex import services

        self._backend = backend
        self._services = services
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=part, daemon=True) for part in (self._chat, self._search, self._work)]
        self.users: Counter[str] = Counter()
        self.accepted: dict[str, list[str]] = {"chroma": [], "git": []}
        self.replaced: set[str] = set()
        self.refused: Counter[str] = Counter()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30.0)

    def _chat(self) -> None:
        fields = {"project_id": DEMO_PROJECT, "user_id": DEMO_USER, "query": "When does the breaker close again?"}
        self._use("chat", fields)

    def _search(self) -> None:
        self._use("search", {"project_id": DEMO_PROJECT, "query": "How is a caudex watered?"})

    def _use(self, route: str, fields: dict[str, str]) -> None:
        with requests.Session() as session:
            session.trust_env = False
            while not self._stop.wait(USER_PAUSE):
                try:
                    answer = session.post(f"{self._backend}/v1/api/{route}", json=fields, timeout=60)
                except requests.RequestException:
                    self.users[f"{route}: no answer"] += 1
                    continue
                source = answer.json().get("source", "") if answer.ok else str(answer.status_code)
                self.users[f"{route}: {'from ' + source if answer.ok and source else source or 'answered'}"] += 1

    def _work(self) -> None:
        number = 0
        while not self._stop.wait(JOB_PAUSE):
            number += 1
            document = {"collection_name": "project_demo", "ids": [f"d{number}"], "documents": [f"document {number}"]}
            self._enqueue("chroma", "/add", document, coalesce="")
            project = PROJECTS[number % len(PROJECTS)]
            self._enqueue(
                "git", f"/snapshot/{project}", {"message": f"snapshot {number}"}, coalesce=f"snapshot:{project}"
            )

    def _enqueue(self, key: str, path: str, fields: Mapping[str, object], *, coalesce: str) -> None:
        client = getattr(self._services, key)
        try:
            handle = client.enqueue("POST", path, json=fields, coalesce=coalesce)
            self.accepted[key].append(handle.id)
            self.replaced.add(handle.replaced)
        except requests.RequestException as error:
            self.refused[f"{key}: {type(error).__name__}"] += 1


def play(outage: float, *, quiet: bool = False) -> int:
    """Play it. 0 when everything that was accepted arrived, 1 otherwise."""
    timeline = Timeline(quiet)
    os.environ["CAUDEX_RECOVERY_SECONDS"] = str(RECOVERY_SECONDS)
    with contextlib.ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seawall-demo-")))
        os.environ["SEAWALL_BROKER_URL"] = _broker_url(data)
        fleet = Fleet(data / "caudex", backend=False)
        stack.enter_context(fleet)
        os.environ.update(fleet.addresses())
        stack.enter_context(_seawall_up(data))
        backend = stack.enter_context(_backend(data, fleet))
        _wait_for("the fleet", _fleet_is_up, START_SECONDS)
        fleet.seed()
        timeline.say("four services, the backend, a supervisor and two workers run; users come in")
        return _act(timeline, fleet, Load(backend), outage)


def _act(timeline: Timeline, fleet: Fleet, load: Load, outage: float) -> int:
    watcher = Watcher(timeline)
    load.start()
    watcher.start()
    time.sleep(CALM_SECONDS)
    timeline.say("git and chroma are killed")
    for name in ("git", "chroma"):
        fleet.services[name].kill()
    time.sleep(outage)
    timeline.say("git and chroma are started again")
    for name in ("git", "chroma"):
        fleet.services[name].start()
    _wait_for("closed breakers", watcher.all_closed, DELIVERY_SECONDS)
    time.sleep(CALM_SECONDS)
    load.stop()
    timeline.say("the users go home; what still waits is delivered")
    _wait_for("empty queues", watcher.all_delivered, DELIVERY_SECONDS)
    watcher.stop()
    return _settle_up(fleet, load)


class Watcher:
    """Reports every breaker's changes, as the fleet's status shows them."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._states: dict[str, str] = {}
        self._most_held: Counter[str] = Counter()
        self._waiting = -1
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5.0)

    def all_closed(self) -> bool:
        return bool(self._states) and all(state == "closed" for state in self._states.values())

    def all_delivered(self) -> bool:
        return self._waiting == 0

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            with contextlib.suppress(requests.RequestException):
                self._look()

    def _look(self) -> None:
        lines = _status()
        self._waiting = sum(
            line["queued"] + line["held"] + line["due_later"] + line["running"] for line in lines.values()
        )
        for key, line in lines.items():
            before, state = self._states.get(key, "closed"), line["state"]
            self._most_held[key] = max(self._most_held[key], line["held"] + line["due_later"])
            if state != before:
                self._timeline.say(self._words(key, before, state))
            self._states[key] = state

    def _words(self, key: str, before: str, state: str) -> str:
        if state == "closed":
            held, self._most_held[key] = self._most_held[key], 0
            return f"{key}: breaker CLOSED, {held} call(s) were held and go out now"
        return f"{key}: breaker {before.upper()} -> {state.upper()}"


def _settle_up(fleet: Fleet, load: Load) -> int:
    """Compare what was accepted with the services' own books, and print it."""
    lost = 0
    print("\nwhat users saw")
    for what, count in sorted(load.users.items()):
        print(f"  {count:6d}  {what}")
    print("\nbackground calls        accepted  replaced  delivered  more than once  lost")
    for key, ids in load.accepted.items():
        books = fleet.services[key].ask("GET", "/admin/requests").json()["keys"]
        replaced = [id for id in ids if id in load.replaced]
        delivered = [id for id in ids if books.get(id, [0, 0])[1] > 0]
        again = sum(books[id][1] > 1 for id in delivered)
        missing = len(ids) - len(replaced) - len(delivered)
        lost += missing
        print(f"  {key:<20}  {len(ids):8d}  {len(replaced):8d}  {len(delivered):9d}  {again:14d}  {missing:4d}")
    for what, count in load.refused.items():
        print(f"  not accepted, and said so: {count} ({what})")
    print("\nnothing was lost" if lost == 0 else f"\n{lost} call(s) were LOST")
    return 0 if lost == 0 else 1


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
    """`seawall up` with the clients' module, its messages in a file."""
    command = [sys.executable, "-m", "seawall", "up", "examples.caudex.services", "--workers", "2", "--no-web"]
    environ = {**os.environ, "SEAWALL_DATA_DIR": str(data)}
    environ.pop("SEAWALL_BROKER_URL", None)
    with (data / "up.log").open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, env=environ, start_new_session=True)
        try:
            yield
        finally:
            child.terminate()
            child.wait(40.0)


@contextlib.contextmanager
def _backend(data: Path, fleet: Fleet) -> Iterator[str]:
    from examples.caudex.processes import ServiceProcess

    environ = {**fleet.addresses(), "SEAWALL_BROKER_URL": os.environ["SEAWALL_BROKER_URL"]}
    with ServiceProcess("backend", data=data / "caudex", module="examples.caudex.backend", environ=environ) as backend:
        fleet.backend = backend
        try:
            yield backend.url
        finally:
            fleet.backend = None


def _wait_for(what: str, condition: Callable[[], bool], seconds: float) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise SystemExit(f"gave up waiting for {what} after {seconds:g} s")
        time.sleep(0.05)
