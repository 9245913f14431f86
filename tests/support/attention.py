"""Signals that a test gives, without any being sent."""

from __future__ import annotations

import threading

__all__ = ["GivenSignals"]


class GivenSignals:
    """Stands in for seawall.signals.Signals in a loop that runs on another thread."""

    def __init__(self) -> None:
        self.stop_count = 0
        self._reload = False
        self._awake = threading.Event()

    @property
    def stop_requested(self) -> bool:
        return self.stop_count > 0

    @property
    def reload_requested(self) -> bool:
        asked, self._reload = self._reload, False
        return asked

    def wait(self, timeout: float) -> None:
        self._awake.wait(timeout)
        self._awake.clear()

    def stop(self) -> None:
        self.stop_count += 1
        self._awake.set()

    def reload(self) -> None:
        self._reload = True
        self._awake.set()
