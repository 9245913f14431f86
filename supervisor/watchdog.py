"""Notices that ticks no longer come: a scheduler whose thread died or hangs says nothing by itself."""

from __future__ import annotations

import threading

__all__ = ["Watchdog"]

#: Seconds without a tick, of one that is due every second. With the looks in between, an end is noticed within 5 s.
SILENT_AFTER = 3.5
#: Seconds that one tick may take. The link's own timeouts are far shorter; looking up a broker's name may take long.
STUCK_AFTER = 45.0
#: Seconds counted for one look at the most. A longer gap means that the whole process was paused, and nobody is to blame.
LONGEST_LOOK = 1.0


class Watchdog:
    """`began` and `ended` around every tick, on any thread; `look(now)` regularly, on one thread, by a monotonic clock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changes = 0
        self._running = 0
        self._seen = 0
        self._quiet_for = 0.0
        self._looked_at: float | None = None

    def began(self) -> None:
        with self._lock:
            self._changes += 1
            self._running += 1

    def ended(self) -> None:
        with self._lock:
            self._changes += 1
            self._running -= 1

    def look(self, now: float) -> str:
        """What is wrong, in words; empty while all is well."""
        passed = 0.0 if self._looked_at is None else now - self._looked_at
        self._looked_at = now
        with self._lock:
            changed, self._seen = self._changes != self._seen, self._changes
            limit = STUCK_AFTER if self._running else SILENT_AFTER
        self._quiet_for = 0.0 if changed else self._quiet_for + min(passed, LONGEST_LOOK)
        if self._quiet_for < limit:
            return ""
        return f"{'a tick has not ended' if limit == STUCK_AFTER else 'no tick has begun'} for {self._quiet_for:.1f} s"
