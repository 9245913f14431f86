"""The places of a call in the memory queue: ready, due, or leased; and the queue that keeps them in order."""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from seawall.actors.queue_store import DeadLetter
from seawall.actors.record import Progress
from seawall.actors.service import WAITED

__all__ = ["Entry", "EntryQueue"]


@dataclass(slots=True, eq=False)
class Entry:
    """One call and where it is: exactly one of ready, due and leased."""

    id: str
    payload: Any
    due: float | None = None
    lease: float | None = None
    since: float = 0.0
    """Since when it has been ready."""
    expires: float | None = None
    token: int = 0
    deaths: int = 0
    coalesce: str = ""
    size: int = 0
    """Bytes that count for the queue's cap."""
    progress: Progress = field(default_factory=Progress)

    @property
    def tried(self) -> bool:
        return bool(self.progress.history)


@dataclass(slots=True, eq=False)
class EntryQueue:
    """The calls of one queue; `ready` in their order, `timers` with entries that may have moved on since."""

    name: str
    entries: dict[str, Entry] = field(default_factory=dict)
    bytes: int = 0
    ready: OrderedDict[str, Entry] = field(default_factory=OrderedDict)
    leased: dict[str, Entry] = field(default_factory=dict)
    timers: list[tuple[float, int, Entry]] = field(default_factory=list)
    dead: dict[str, DeadLetter] = field(default_factory=dict)
    coalesced: dict[str, str] = field(default_factory=dict)
    serving: dict[str, float] = field(default_factory=dict)

    @property
    def waited(self) -> bool:
        return self.name.endswith("." + WAITED)

    def add(self, entry: Entry) -> None:
        self.entries[entry.id] = entry
        self.bytes += entry.size

    def make_ready(self, entry: Entry, now: float, *, first: bool = False) -> None:
        """Behind what has been ready or due before, or in front of everything."""
        self.leave_place(entry)
        self.promote(now)
        entry.since = min(now, next(iter(self.ready.values())).since) if first and self.ready else now
        self.ready[entry.id] = entry
        if first:
            self.ready.move_to_end(entry.id, last=False)

    def make_due(self, entry: Entry, due: float) -> None:
        self.leave_place(entry)
        entry.due = due
        heapq.heappush(self.timers, (due, next(_ties), entry))

    def make_leased(self, entry: Entry, until: float) -> None:
        self.leave_place(entry)
        entry.lease = until
        self.leased[entry.id] = entry

    def leave_place(self, entry: Entry) -> None:
        entry.due = entry.lease = None
        self.ready.pop(entry.id, None)
        self.leased.pop(entry.id, None)

    def next_timer(self) -> tuple[float, Entry] | None:
        while self.timers:
            due, _, entry = self.timers[0]
            if entry.due == due:
                return due, entry
            heapq.heappop(self.timers)
        return None

    def promote(self, now: float) -> None:
        while (head := self.next_timer()) is not None and head[0] <= now:
            due, entry = head
            self.leave_place(entry)
            entry.since = due
            self.ready[entry.id] = entry

    def is_superseded(self, entry: Entry) -> bool:
        """A newer call with its coalesce key has come since it was fetched."""
        return bool(entry.coalesce) and self.coalesced.get(entry.coalesce) != entry.id

    def forget(self, entry: Entry) -> None:
        self.leave_place(entry)
        if self.entries.pop(entry.id, None) is not None:
            self.bytes -= entry.size
        if entry.coalesce and self.coalesced.get(entry.coalesce) == entry.id:
            del self.coalesced[entry.coalesce]


_ties = itertools.count()
