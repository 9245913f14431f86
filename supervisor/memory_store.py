"""The breaker store of a single process: the Redis store's twin, without a server."""

from __future__ import annotations

import threading
import time

import msgspec

from seawall.supervisor.breaker import Record
from seawall.supervisor.store import CLOCK_TOLERANCE, Announced, Clock, Reconnected, Swap

__all__ = ["MemoryStore"]


class MemoryStore:
    """Records in a dictionary. `clock` is the server's clock: pass one that a test can move."""

    def __init__(self, clock: Clock = time) -> None:
        self._clock = clock
        self._records: dict[str, Record] = {}
        self._subscribers: list[Announced] = []
        self._lock = threading.Lock()

    def read(self, key: str) -> tuple[Record | None, float]:
        return self._records.get(key), self._clock.time()

    def read_all(self) -> dict[str, Record]:
        with self._lock:
            return dict(self._records)

    def swap(self, key: str, expected_version: int, record: Record, assumed_now: float) -> Swap:
        with self._lock:
            now = self._clock.time()
            current = self._records.get(key) or Record()
            if current.version != expected_version or abs(now - assumed_now) > CLOCK_TOLERANCE:
                return Swap(False, current, now)
            stored = msgspec.structs.replace(record, version=expected_version + 1)
            self._records[key] = stored
            subscribers = tuple(self._subscribers)
        for announced in subscribers:
            announced(key, stored)
        return Swap(True, stored, now)

    def now(self) -> float:
        return self._clock.time()

    def confirmed_at(self) -> float:
        return self._clock.time()

    def subscribe(self, announced: Announced, reconnected: Reconnected | None = None) -> None:
        """As every store's; `reconnected` is never called, because nothing is ever missed."""
        with self._lock:
            self._subscribers.append(announced)

    def close(self) -> None:
        with self._lock:
            self._subscribers.clear()
