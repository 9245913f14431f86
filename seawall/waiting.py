"""Who waits in this process: callers for their answers, and holders of handles for results."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from seawall.actors.record import Call
from seawall.actors.replies import LocalWaiter, Mailbox, Outcome

__all__ = ["Results", "Waiting"]


class Waiting:
    """Who waits for what, so that an opened breaker can answer all of a service's callers at once."""

    def __init__(self) -> None:
        self._waiters: dict[str, dict[str, tuple[Call, LocalWaiter]]] = {}
        self._lock = threading.Lock()

    def add(self, call: Call, waiter: LocalWaiter) -> None:
        with self._lock:
            self._waiters.setdefault(call.service, {})[call.id] = call, waiter

    def remove(self, call: Call) -> None:
        with self._lock:
            self._waiters.get(call.service, {}).pop(call.id, None)

    def of(self, key: str) -> list[Call]:
        """The calls of a service that are waited for."""
        with self._lock:
            return [call for call, _ in self._waiters.get(key, {}).values()]

    def answer(self, call: Call, outcome: Outcome) -> None:
        with self._lock:
            found = self._waiters.get(call.service, {}).get(call.id)
        if found is not None:
            found[1].answer(outcome)


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
