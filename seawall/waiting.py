"""Who waits in this process: callers for their answers, and holders of handles for results."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from seawall.actors.replies import LocalWaiter, Mailbox, Outcome

__all__ = ["Results", "Waiting"]


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


class Results:
    """The threads that wait for results of background calls: a mailbox knows one waiter for a call, so they share it."""

    def __init__(self) -> None:
        self._shared: dict[str, tuple[LocalWaiter, int]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def waiter(self, mailbox: Mailbox, id: str, service: str) -> Iterator[LocalWaiter]:
        with self._lock:
            waiter, users = self._shared.get(id) or (mailbox.expect(id, service=service), 0)
            self._shared[id] = waiter, users + 1
        try:
            yield waiter
        finally:
            self._leave(mailbox, id)

    def _leave(self, mailbox: Mailbox, id: str) -> None:
        with self._lock:
            waiter, users = self._shared.pop(id)
            if users > 1:
                self._shared[id] = waiter, users - 1
            else:
                mailbox.forget(id)
