"""What a process counts for the fleet: gathered here, added to the store's counts once a second, in one round trip."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping

from redis.exceptions import ResponseError

from seawall.actors.queue_store import QueueStore
from seawall.errors import BrokerUnavailable

__all__ = ["Tally"]

logger = logging.getLogger("seawall.tally")

#: Seconds between two additions.
FLUSH_SECONDS = 1.0


class Tally:
    """Counts by service and name. A thread of its own adds them while there are any; while the store is away, they wait."""

    def __init__(self, store: QueueStore) -> None:
        self._store = store
        self._counts: Counter[tuple[str, str]] = Counter()
        self._sources: list[Callable[[], Mapping[tuple[str, str], int]]] = []
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._flusher: threading.Thread | None = None
        self._closed = threading.Event()

    def add(self, service: str, what: str, times: int = 1) -> None:
        self.add_all({(service, what): times})

    def add_all(self, counts: Mapping[tuple[str, str], int]) -> None:
        """What was counted, by service and what is counted."""
        with self._lock:
            self._counts.update(counts)
            self._have_flusher()

    def gather(self, drain: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """Ask this before each addition for what it has counted since, by service and what is counted."""
        with self._lock:
            self._sources.append(drain)
            self._have_flusher()

    def _have_flusher(self) -> None:
        """Under the lock."""
        if self._flusher is None and not self._closed.is_set():
            self._flusher = threading.Thread(target=self._flush_for_ever, name="seawall-tally", daemon=True)
            self._flusher.start()

    def flush(self) -> None:
        """Add what was counted to the store's counts, after who adds just now; what cannot be added is kept."""
        with self._flushing:
            self._add_to_store()

    def close(self) -> None:
        """Add what is left, once an addition under way is over. Safe twice."""
        self._closed.set()
        self.flush()

    def _add_to_store(self) -> None:
        with self._lock:
            counts, self._counts = self._counts, Counter()
            for drain in self._sources:
                counts.update(drain())
        if not counts:
            return
        try:
            self._store.count(counts)
        except (BrokerUnavailable, ResponseError) as error:
            logger.debug("counts wait for the broker: %s", error)
            if not (isinstance(error, BrokerUnavailable) and error.written):  # else they may have been added
                with self._lock:
                    self._counts.update(counts)

    def _flush_for_ever(self) -> None:
        while not self._closed.wait(FLUSH_SECONDS):
            self.flush()
