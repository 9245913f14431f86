"""The callers of this process that wait for an answer, by service."""

from __future__ import annotations

import threading

from seawall.actors.replies import LocalWaiter, Outcome

__all__ = ["Waiting"]


class Waiting:
    """Who waits for what, so that an opened breaker can answer all of a service's callers at once."""

    def __init__(self) -> None:
        self._waiters: dict[str, dict[str, LocalWaiter]] = {}
        self._lock = threading.Lock()

    def add(self, key: str, id: str, waiter: LocalWaiter) -> None:
        with self._lock:
            self._waiters.setdefault(key, {})[id] = waiter

    def remove(self, key: str, id: str) -> None:
        with self._lock:
            self._waiters.get(key, {}).pop(id, None)

    def of(self, key: str) -> list[str]:
        with self._lock:
            return list(self._waiters.get(key, ()))

    def answer(self, id: str, outcome: Outcome) -> None:
        with self._lock:
            waiter = next((found[id] for found in self._waiters.values() if id in found), None)
        if waiter is not None:
            waiter.answer(outcome)
