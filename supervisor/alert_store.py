"""Where the state of alerts lies, so that a new leader goes on where the last one stopped."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import msgspec

from seawall.errors import BrokerUnavailable
from seawall.redis_link import Argument, RedisLink, load_script
from seawall.supervisor.alert_words import BY_HAND
from seawall.supervisor.alerting import State, Transition

__all__ = ["AlertStore", "MemoryAlertStore", "RedisAlertStore", "Stored"]

_SCRIPT = load_script("seawall.supervisor", "alerts")
_decoder = msgspec.json.Decoder(State)

#: Transitions that one round handles; as many as the stream keeps, and memory mode.
BATCH = 1000


class Stored(NamedTuple):
    """The state, the version that a later save names, and the store's time in seconds."""

    state: State
    version: int
    now: float


class AlertStore(Protocol):
    """Every verb raises BrokerUnavailable when the store cannot be reached."""

    def load(self) -> Stored:
        """Before the first save: version 0, and a state that begins after the newest transition."""
        ...

    def save(self, version: int, state: State) -> bool:
        """Store the state as `version + 1`; False when somebody else has stored one since that version was loaded."""
        ...

    def transitions(self, after: str) -> list[Transition]:
        """What came after the transition of that id, oldest first."""
        ...


class RedisAlertStore:
    """The state beside the stream of transitions; `lua/alerts.lua` documents the keys."""

    def __init__(self, link: RedisLink, namespace: str) -> None:
        self._link = link
        self._namespace = namespace

    def load(self) -> Stored:
        now, version, encoded, newest = self._run("load")
        state = State(after=newest.decode())
        if encoded:
            state = _decoded(encoded) or state
        return Stored(state, int(version), float(now))

    def save(self, version: int, state: State) -> bool:
        return bool(self._run("save", version, msgspec.json.encode(state)))

    def transitions(self, after: str) -> list[Transition]:
        stream = f"{self._namespace}:transitions"
        answer = self._link.command("XREAD", "COUNT", BATCH, "STREAMS", stream, after)
        return [_transition(id, fields) for _, entries in answer or () for id, fields in entries]

    def _run(self, command: str, *args: Argument) -> Any:
        return self._link.run(_SCRIPT, command, self._namespace, *args)


class MemoryAlertStore:
    """Memory mode's, and its tests'. `changed` takes what a breaker's view tells."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """It begins now: no transition of before is told of."""
        self._clock = clock
        self._lock = threading.Lock()
        self._state: State | None = None
        self._version = 0
        self._news: deque[Transition] = deque(maxlen=BATCH)
        self._count = 0
        self.away = False
        """For tests: the store cannot be reached."""

    def changed(self, service: str, to: str, began: float, why: str) -> None:
        with self._lock:
            self._count += 1
            id = f"{self._count:012d}"
            self._news.append(Transition(id=id, at=self._clock(), service=service, to=to, began=began, why=why))

    def load(self) -> Stored:
        with self._lock:
            self._reach()
            return Stored(self._state or State(looked=True), self._version, self._clock())

    def save(self, version: int, state: State) -> bool:
        with self._lock:
            self._reach()
            if version != self._version:
                return False
            self._state, self._version = state, version + 1
            return True

    def transitions(self, after: str) -> list[Transition]:
        with self._lock:
            self._reach()
            return [news for news in self._news if news.id > after]

    def _reach(self) -> None:
        if self.away:
            raise BrokerUnavailable("the store is away")


def _decoded(encoded: bytes) -> State | None:
    """The state; None for one that cannot be read, which is begun anew."""
    try:
        return _decoder.decode(encoded)
    except msgspec.MsgspecError:
        return None


def _transition(id: bytes, fields: list[bytes]) -> Transition:
    found = {name.decode(): value.decode("utf-8", "replace") for name, value in zip(*[iter(fields)] * 2, strict=True)}
    text = id.decode()
    why = found.get("why", "")
    if found.get("forced") == "1":
        why = BY_HAND
    return Transition(
        id=text,
        at=int(text.partition("-")[0]) / 1000,
        service=found.get("service", ""),
        to=found.get("to", ""),
        began=float(found.get("began") or 0) / 1000,
        why=why,
    )
