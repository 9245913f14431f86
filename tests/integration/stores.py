"""Both queue stores behind one handle, so that a test may be written once and run over each."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
import requests

from seawall.actors.memory_mailbox import MemoryMailbox
from seawall.actors.memory_queue import MemoryQueue
from seawall.actors.queue_store import Accepted, Delivery, Group, Put, QueueStore, Want
from seawall.actors.redis_mailbox import RedisMailbox
from seawall.actors.redis_queue import RedisQueue
from seawall.actors.replies import Mailbox
from seawall.redis_link import RedisLink
from seawall.supervisor.breaker import Record, State
from seawall.supervisor.memory_store import MemoryStore
from seawall.supervisor.redis_store import RedisStore
from seawall.supervisor.store import BreakerStore
from tests.support import wait_until
from tests.support.house import PATIENT

__all__ = ["MemoryStores", "RedisStores", "Stores", "accept", "answer", "fetch", "ids", "one", "set_record"]

T = TypeVar("T")


class Stores:
    """The queue and the breakers of one process; `another` is what a second process would hold."""

    queue: QueueStore
    breakers: BreakerStore

    def __init__(self) -> None:
        self._parts: list[Any] = []

    def another(self) -> QueueStore:
        raise NotImplementedError

    def mailbox(self) -> Mailbox:
        raise NotImplementedError

    def set_breaker(self, key: str, state: State, trial: str = "") -> None:
        set_record(self.breakers, key, lambda known, now: msgspec.structs.replace(known, state=state, trial=trial))

    def opened(self, part: T) -> T:
        """Have it closed with everything else, the latest first."""
        self._parts.append(part)
        return part

    def close(self) -> None:
        for part in reversed(self._parts):
            part.close()


class MemoryStores(Stores):
    def __init__(self, *, lease: float) -> None:
        super().__init__()
        self.breakers = MemoryStore()
        self.queue = self.opened(MemoryQueue(record_of=lambda key: self.breakers.read(key)[0], lease=lease))

    def another(self) -> QueueStore:
        return self.queue

    def mailbox(self) -> Mailbox:
        box = self.opened(MemoryMailbox(uuid.uuid4().hex))
        self.queue.register(box)
        return box


class RedisStores(Stores):
    def __init__(self, url: str, *, lease: float, namespace: str = "test", patience: float = PATIENT) -> None:
        """`patience` is how many seconds a link waits for an answer."""
        super().__init__()
        self._url, self._lease, self._namespace, self._patience = url, lease, namespace, patience
        self.link = self.opened(RedisLink(url, answer_timeout=patience))
        self.breakers = self.opened(RedisStore(self.link, namespace))
        self.queue = self.another()

    def another(self) -> QueueStore:
        link = self.opened(RedisLink(self._url, answer_timeout=self._patience))
        return self.opened(RedisQueue(link, self._namespace, lease=self._lease))

    def mailbox(self) -> Mailbox:
        return self.opened(RedisMailbox(self.link, self._namespace))


def set_record(breakers: BreakerStore, key: str, make: Callable[[Record, float], Record]) -> None:
    """Store what is made of the stored record and the store's time."""

    def one_try() -> bool:
        """Refused where this process stood still between the two for longer than clocks may differ."""
        known, now = breakers.read(key)
        record = known or Record()
        return breakers.swap(key, record.version, make(record, now), now).ok

    wait_until(one_try)


def accept(store: QueueStore, queue: str, id: str, **more: Any) -> Accepted:
    """Put one call that is accepted or refused without an error."""
    accepted = store.put([Put(queue, id, b"payload of " + id.encode(), **more)])[0]
    assert isinstance(accepted, Accepted)
    return accepted


def fetch(store: QueueStore, *queues: str, free: int = 8, gate: str = "", limit: int = 8) -> list[Delivery]:
    """One fetch of queues that share `free` slots; a gate holds for the background ones."""
    wants = tuple(Want(name, gate if name.endswith("background") else "", limit) for name in queues)
    return list(store.fetch([Group(free, wants)]).deliveries)


def one(store: QueueStore, queue: str, **more: Any) -> Delivery:
    """The only call that can be fetched now."""
    found = fetch(store, queue, **more)
    assert len(found) == 1, f"{len(found)} deliveries instead of one"
    return found[0]


def ids(found: Sequence[Delivery]) -> list[str]:
    return [delivery.id for delivery in found]


def answer(status: int = 200, body: bytes = b"done") -> requests.Response:
    """A response as the transport hands it over."""
    response = requests.Response()
    response.status_code = status
    response._content = body
    response.headers["Content-Type"] = "text/plain; charset=utf-8"
    return response


def server_time(link: RedisLink) -> Callable[[], float]:
    """The server's clock, to wait for a moment on it."""

    def now() -> float:
        seconds, micros = link.command("TIME")
        return int(seconds) + int(micros) / 1e6

    return now


def fake_time(monkeypatch: Any, off: float) -> None:
    """Let this process's wall clock be wrong by `off` seconds."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + off)
