"""Where idle threads wait until they are called."""

from __future__ import annotations

import threading

__all__ = ["Seat", "Seats"]


class Seat:
    """One idle thread's place; `queue` is what it takes, empty for anything."""

    __slots__ = ("_called", "queue")

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self._called = threading.Lock()
        self._called.acquire()

    def wait(self, timeout: float) -> bool:
        """Whether it was called within `timeout` seconds."""
        return self._called.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))

    def call(self) -> None:
        self._called.release()


class Seats:
    """Not safe for threads: whoever owns it has a lock. Who sat down last is called first: its memory is still warm."""

    def __init__(self) -> None:
        self._taken: list[Seat] = []

    def sit_down(self, queue: str) -> Seat:
        seat = Seat(queue)
        self._taken.append(seat)
        return seat

    def stand_up(self, seat: Seat) -> None:
        """Its thread waits no longer, called or not."""
        if seat in self._taken:
            self._taken.remove(seat)

    def call(self, queue: str) -> bool:
        """Somebody who takes calls of this queue. False when nobody is there."""
        for place in range(len(self._taken) - 1, -1, -1):
            if self._taken[place].queue in ("", queue):
                self._taken.pop(place).call()
                return True
        return False

    def call_anybody(self) -> None:
        if self._taken:
            self._taken.pop().call()

    def call_everybody(self) -> None:
        while self._taken:
            self._taken.pop().call()
