"""Alerts in memory mode: what a leading supervisor does, by a thread of this process, once somebody wants to hear of it."""

from __future__ import annotations

import logging
import threading

from seawall.actors.patched import is_mocked
from seawall.alerting import make_alerts
from seawall.alerts import is_wanted
from seawall.errors import ConfigurationError
from seawall.registry import Registry
from seawall.runtime import Runtime
from seawall.supervisor.alert_store import MemoryAlertStore
from seawall.supervisor.alert_words import BY_HAND
from seawall.supervisor.breaker import Record

__all__ = ["LocalAlerts"]

logger = logging.getLogger("seawall.alerts")

#: Seconds between two rounds.
ROUND_SECONDS = 1.0


class LocalAlerts:
    """Nothing of it outlives the process. It begins when there is a webhook or a function, at the latest with a breaker's
    next change. It ends for good where a breaker changes while `requests.request` is a mock: a test's outages are no
    news, and a test that counts its mock's calls is to find its own.
    """

    def __init__(self, runtime: Runtime, registry: Registry) -> None:
        self._runtime = runtime
        self._registry = registry
        self._store: MemoryAlertStore | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        runtime.views.on_change(self._changed)
        self._start()

    def stop(self) -> None:
        """Safe twice."""
        self._stopping.set()

    def _changed(self, key: str, old: Record, new: Record) -> None:
        if is_mocked():
            self.stop()
        if old.state is new.state or self._stopping.is_set():
            return
        self._start()
        if self._store is not None:
            why = BY_HAND if new.forced else new.last_error
            self._store.changed(key, new.state.value, new.opened_at or old.opened_at, why)

    def _start(self) -> None:
        """Once somebody wants to hear of it: what happened before is no news."""
        with self._lock:
            if self._store is not None or not is_wanted(self._runtime.settings):
                return
            self._store = MemoryAlertStore(self._runtime.engine.breakers.now)
            self._thread = threading.Thread(
                target=self._go_round, args=(self._store,), name="seawall-alerts", daemon=True
            )
            self._thread.start()

    def _go_round(self, store: MemoryAlertStore) -> None:
        try:  # here, and not where it is started: that may be in the middle of the module's import
            alerts = make_alerts(self._runtime, self._registry, store)
        except ConfigurationError as error:
            logger.error("nobody is told of outages: %s", error)
            self.stop()
            return
        while not self._stopping.is_set():
            alerts.round()
            self._stopping.wait(ROUND_SECONDS)
