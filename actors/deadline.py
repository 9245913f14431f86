"""A limit on an attempt's whole time, enforced at its socket.

A socket's own timeout starts anew with every byte that drips in. Here one thread per process waits for the next
deadline and then shuts the socket down from outside, so that whoever reads or writes it wakes at once: while
headers arrive, in the body, in silence and inside TLS alike.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

__all__ = ["Deadline", "until"]

#: Seconds that the watcher sleeps at most; it is woken when an earlier deadline comes in.
_LONGEST_SLEEP = 3600.0
#: Entries below which the watcher does not look for finished ones.
_SMALLEST_HEAP = 64


class Deadline:
    """A moment on the monotonic clock, and the socket that must not outlive it. Used by one thread, as a context.

    `guard` may be called again with another socket; the earlier one is let go.
    """

    __slots__ = ("_done", "_fired", "_hold", "_lock", "_sock", "_watched", "monotonic_end")

    def __init__(self, monotonic_end: float) -> None:
        self.monotonic_end = monotonic_end
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._hold: socket.SocketIO | None = None
        self._fired = False
        self._done = False
        self._watched = False

    def __enter__(self) -> Deadline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done = True
        self.release()

    @property
    def remaining(self) -> float:
        """Seconds left; 0 when the time is over."""
        return max(0.0, self.monotonic_end - time.monotonic())

    @property
    def passed(self) -> bool:
        return self._fired or time.monotonic() >= self.monotonic_end

    @property
    def done(self) -> bool:
        """Left by its owner: nothing is to be shut down any more."""
        return self._done

    def guard(self, sock: socket.socket) -> None:
        """Shut this socket down when the time is over; at once if it is over already.

        The socket's descriptor stays open until it is released, even if the socket is closed: otherwise its number
        could belong to somebody else when the time is over.
        """
        hold = sock.makefile("rb", buffering=0)
        if not self._watched:
            self._watched = True
            _watcher.add(self)
        with self._lock:
            earlier, self._hold, self._sock = self._hold, hold, sock
            if self._fired:
                _shut_down(sock)
        if earlier is not None:
            earlier.close()

    def release(self) -> None:
        """Let the socket go. When this returns, it is shut down already or never will be."""
        with self._lock:
            earlier, self._hold, self._sock = self._hold, None, None
        if earlier is not None:
            earlier.close()

    def expire(self) -> None:
        """Called by the watcher: the time is over."""
        with self._lock:
            if self._done:
                return
            self._fired = True
            if self._sock is not None:
                _shut_down(self._sock)


def until(seconds: float) -> Deadline:
    """A deadline so many seconds from now: `with until(10) as limit: limit.guard(sock); ...`.

    Guarding a socket raises OSError (ENOMEM) when the process cannot start the watching thread.
    """
    return Deadline(time.monotonic() + seconds)


def _shut_down(sock: socket.socket) -> None:
    # The plain socket's method on purpose: that of an SSLSocket drops the TLS layer first, and its owner, still
    # writing, would go on in plain text.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _Watcher:
    """The thread that waits for the next deadline. It starts with the first one."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._heap: list[tuple[float, int, Deadline]] = []
        self._order = itertools.count()
        self._room = _SMALLEST_HEAP
        self._wakes_at = float("inf")
        self._thread: threading.Thread | None = None

    def add(self, deadline: Deadline) -> None:
        with self._changed:
            if self._thread is None:
                self._thread = _started(self._run)
            if len(self._heap) >= self._room:
                self._drop_finished()
            heapq.heappush(self._heap, (deadline.monotonic_end, next(self._order), deadline))
            if deadline.monotonic_end < self._wakes_at:
                self._changed.notify()

    def _drop_finished(self) -> None:
        """Forget what its owner has left; paid for by the additions since the last time."""
        self._heap = [entry for entry in self._heap if not entry[2].done]
        heapq.heapify(self._heap)
        self._room = max(_SMALLEST_HEAP, 2 * len(self._heap))

    def _run(self) -> None:
        while True:
            with self._changed:
                expired = self._wait_for_expired()
            for deadline in expired:
                deadline.expire()

    def _wait_for_expired(self) -> list[Deadline]:
        while True:
            while self._heap and self._heap[0][2].done:
                heapq.heappop(self._heap)
            now = time.monotonic()
            expired = []
            while self._heap and self._heap[0][0] <= now:
                expired.append(heapq.heappop(self._heap)[2])
            if expired:
                return expired
            self._wakes_at = self._heap[0][0] if self._heap else float("inf")
            self._changed.wait(min(self._wakes_at - now, _LONGEST_SLEEP))


def _started(run: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=run, name="seawall-deadlines", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(errno.ENOMEM, f"no thread can be started: {error}") from error
    return thread


_watcher = _Watcher()


def _renew_in_child() -> None:
    """Threads do not survive a fork, and the lock may have been held by one of them."""
    global _watcher
    _watcher = _Watcher()


os.register_at_fork(after_in_child=_renew_in_child)
