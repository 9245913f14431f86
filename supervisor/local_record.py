"""A process's own copy of one breaker's record, and who is told when it changes."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from seawall.supervisor.breaker import Record

__all__ = ["Changed", "LocalRecord", "telling_later"]

#: Called with the record before and after a change; the newest one is always the view's `record`.
Changed = Callable[[Record, Record], None]

logger = logging.getLogger(__name__)


class _Postponed(threading.local):
    """Records with something to tell, put off by this thread until it holds no writer's lock."""

    depth = 0

    def __init__(self) -> None:
        self.records: list[LocalRecord] = []


_postponed = _Postponed()


@contextmanager
def telling_later() -> Iterator[None]:
    """Put off every `tell` of this thread to the end of the outermost block, wherever its announcements lead.

    Enter it before taking a writer's lock: the in-memory store announces within a swap, and a listener that came back
    with an event of its own would wait for a lock that its own thread holds.
    """
    _postponed.depth += 1
    try:
        yield
    finally:
        _postponed.depth -= 1
        while not _postponed.depth and _postponed.records:
            _postponed.records.pop(0).tell()


class LocalRecord:
    """The record that admission reads (`record`) and the last one the store was known to hold (`confirmed`).

    They are the same object, except while the store is away and the process goes on alone. Reading takes no lock;
    listeners are called by `tell`, outside every lock, because they may come back with further events.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.confirmed = record
        self._lock = threading.Lock()
        self._changes: deque[tuple[Record, Record]] = deque()
        self._listeners: tuple[Changed, ...] = ()

    def on_change(self, changed: Changed) -> None:
        with self._lock:
            self._listeners = (*self._listeners, changed)

    def observe(self, record: Record) -> bool:
        """Hearsay (an announcement, a reply): taken over only if it is newer than what is known."""
        if record.version <= self.confirmed.version:
            return False
        with self._lock:
            if record.version <= self.confirmed.version:
                return False
            self._take(record, record)
            return True

    def settle(self, known: Record, answer: Record) -> None:
        """The store's own answer to a question that was asked when `known` was the confirmed record.

        An answer older than `known` means that the store has lost data; the store is still the one that counts.
        """
        with self._lock:
            if answer.version > self.confirmed.version or self.confirmed is known:
                self._take(answer, answer)

    def go_alone(self, record: Record) -> None:
        """The store is away: go on with this record, which the store does not know."""
        with self._lock:
            self._take(record, self.confirmed)

    def tell(self) -> None:
        """Call the listeners for every change since the last time. Those that raise are logged."""
        if _postponed.depth:
            _postponed.records.append(self)
            return
        while self._changes:
            try:
                old, new = self._changes.popleft()
            except IndexError:
                return
            for changed in self._listeners:
                try:
                    changed(old, new)
                except Exception:
                    logger.exception("A listener of a breaker failed")

    def _take(self, record: Record, confirmed: Record) -> None:
        if record != self.record:
            self._changes.append((self.record, record))
        self.record, self.confirmed = record, confirmed
