"""Replies handed from thread to thread inside one process."""

from __future__ import annotations

from typing import Any

from seawall.actors.replies import LocalWaiter, Outcome, Waiters

__all__ = ["MemoryMailbox"]


class MemoryMailbox:
    """Replies handed from thread to thread: the very objects."""

    def __init__(self, address: str = "local") -> None:
        self._address = address
        self._waiters = Waiters()

    @property
    def address(self) -> str:
        return self._address

    @property
    def mark(self) -> str:
        return ""

    def expect(self, id: str, *, service: str = "", request: Any = None) -> LocalWaiter:
        return self._waiters.add(id, lambda: LocalWaiter(service, request))

    def forget(self, id: str) -> None:
        self._waiters.leave(id)

    def waiting(self) -> int:
        return len(self._waiters)

    def deliver(self, id: str, outcome: Outcome) -> None:
        waiter = self._waiters.take(id)
        if waiter is not None:
            waiter.answer(outcome)

    def close(self) -> None:
        self._waiters.clear()
