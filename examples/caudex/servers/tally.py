"""Counting requests by their Idempotency-Key, so that a demo can prove what arrived and how often."""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path

__all__ = ["Tally"]


class Tally:
    """Requests by key: how many came, and how many were answered with success.

    Kept in a file of one line per request, written in one piece, so that the counts outlive a killed server.
    """

    def __init__(self, path: Path) -> None:
        self._received: Counter[str] = Counter()
        self._delivered: Counter[str] = Counter()
        self._lock = threading.Lock()
        if path.exists():
            self._read(path)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def add(self, key: str, status: int) -> None:
        with self._lock:
            self._count(key, status)
            os.write(self._file, f"{status} {key}\n".encode())

    def report(self) -> dict[str, object]:
        """Totals, and for each key `[received, delivered]`."""
        with self._lock:
            keys = {key: [count, self._delivered[key]] for key, count in self._received.items()}
        received, delivered = (sum(pair[place] for pair in keys.values()) for place in (0, 1))
        return {"received": received, "delivered": delivered, "keys": keys}

    def _count(self, key: str, status: int) -> None:
        self._received[key] += 1
        self._delivered[key] += 200 <= status < 300

    def _read(self, path: Path) -> None:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            status, _, key = line.partition(" ")
            if status.isdecimal() and key:
                self._count(key, int(status))
