"""Load for the demo: users at the backend and a background job beside them, everything counted."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

import requests

from examples.caudex.fleet import DEMO_PROJECT, DEMO_USER

__all__ = ["FALLBACK", "Load"]

#: Seconds between two requests of one user, and between two background jobs.
USER_PAUSE, JOB_PAUSE = 0.05, 0.05
#: Every so many jobs also take a snapshot, of one project after the other: each project every 4 s. A newer snapshot takes
#: the place of one that waits, so a faster pace would show none that is tried to the end.
SNAPSHOT_EVERY = 8
PROJECTS = tuple(f"novel-{number}" for number in range(10))
#: Seconds that a user waits for an answer, and that threads get to end.
PATIENCE, END_SECONDS = 60.0, 70.0
#: What the backend calls a search that it made itself.
FALLBACK = "fallback"

_CHAT = {"project_id": DEMO_PROJECT, "user_id": DEMO_USER, "query": "When does the breaker close again?"}
_SEARCH = {"project_id": DEMO_PROJECT, "query": "How is a caudex watered?"}


class Load:
    """What users saw is in `seen` and `slowest`, by the `phase` in which they asked; what was queued is in `accepted`.

    `told` is called with each source of an answer ("chroma", "fallback") and the seconds it took.
    """

    def __init__(self, backend: str, told: Callable[[str, float], None]) -> None:
        self._backend, self._told = backend, told
        self._stop = threading.Event()
        users = [("chat", _CHAT), ("search", _SEARCH), ("search", _SEARCH)]
        self._threads = [threading.Thread(target=self._ask, args=user, daemon=True) for user in users]
        self._threads.append(threading.Thread(target=self._work, daemon=True))
        self.phase = ""
        self.seen: dict[str, Counter[str]] = defaultdict(Counter)
        self.slowest: dict[str, float] = defaultdict(float)
        self.accepted: dict[str, list[str]] = {"chroma": [], "git": []}
        self.replaced: set[str] = set()
        self.refused: Counter[str] = Counter()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns when every user has the last answer."""
        self._stop.set()
        for thread in self._threads:
            thread.join(END_SECONDS)

    def _ask(self, route: str, fields: Mapping[str, str]) -> None:
        with requests.Session() as session:
            session.trust_env = False
            while not self._stop.wait(USER_PAUSE):
                phase, began = self.phase, time.monotonic()
                result = self._answer(session, route, fields)
                took = time.monotonic() - began
                self.seen[phase].update((route, result, f"{route}: {result}"))
                self.slowest[phase] = max(self.slowest[phase], took)
                self._told(result, took)

    def _answer(self, session: requests.Session, route: str, fields: Mapping[str, str]) -> str:
        """Where the answer came from, or why there was none."""
        try:
            answer = session.post(f"{self._backend}/v1/api/{route}", json=fields, timeout=PATIENCE)
        except requests.RequestException:
            return "no answer"
        return str(answer.json()["source"]) if answer.ok else f"error {answer.status_code}"

    def _work(self) -> None:
        number = 0
        while not self._stop.wait(JOB_PAUSE):
            number += 1
            document = {"collection_name": "project_demo", "ids": [f"d{number}"], "documents": [f"document {number}"]}
            self._enqueue("chroma", "/add", document)
            if number % SNAPSHOT_EVERY == 0:
                project = PROJECTS[number // SNAPSHOT_EVERY % len(PROJECTS)]
                message = {"message": f"Auto-save {number}"}
                self._enqueue("git", f"/snapshot/{project}", message, coalesce=f"snapshot:{project}")

    def _enqueue(self, key: str, path: str, fields: Mapping[str, object], *, coalesce: str = "") -> None:
        from examples.caudex import services  # only now: it takes the addresses from the environment

        client = getattr(services, key)
        try:
            handle = client.enqueue("POST", path, json=fields, coalesce=coalesce, keep_result=0)
        except requests.RequestException as error:
            self.refused[f"{key}: {type(error).__name__}"] += 1
            return
        self.accepted[key].append(handle.id)
        if handle.replaced:
            self.replaced.add(handle.replaced)
