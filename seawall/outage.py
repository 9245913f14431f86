"""An outage is logged once when it begins, and once when it is over, with its length."""

from __future__ import annotations

import logging
import math
import threading
import time

__all__ = ["Outage"]


class Outage:
    """One per neighbour that may go away. Safe for threads."""

    def __init__(self, logger: logging.Logger, what: str) -> None:
        self._logger = logger
        self._what = what
        self._since: float | None = None
        self._over_at = -math.inf
        self._lock = threading.Lock()

    def begins(self, error: BaseException, asked_at: float = math.inf) -> None:
        """`asked_at` is the monotonic time of the attempt that failed, where several threads make them: one made before the
        last outage was over tells of that one."""
        with self._lock:
            if self._since is not None or asked_at < self._over_at:
                return
            self._since = time.monotonic()
        self._logger.warning("%s is away, trying again until it is back: %s", self._what, error)

    def over(self) -> None:
        if self._since is None:
            return
        with self._lock:
            since, self._since, self._over_at = self._since, None, time.monotonic()
        if since is not None:
            self._logger.warning("%s is back after %.1f s", self._what, time.monotonic() - since)
