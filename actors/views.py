"""The breakers of one process, by service: made when first asked for, fed by the store's announcements."""

from __future__ import annotations

import threading
from collections.abc import Callable

from seawall.actors.service import Service
from seawall.supervisor.breaker import Policy, Record
from seawall.supervisor.store import BreakerStore
from seawall.supervisor.view import BreakerView, NullView

__all__ = ["Views", "policy_of"]

#: Seconds that a trial may take beyond its attempt's timeout: to be fetched, sent, and answered.
TRIAL_MARGIN = 5.0

Listener = Callable[[str, Record, Record], None]


def policy_of(service: Service) -> Policy:
    return Policy(
        failure_threshold=service.failure_threshold,
        recovery_timeout=service.recovery_timeout,
        trial_lease=service.timeout[1] + TRIAL_MARGIN,
        slow_start=service.slow_start,
    )


class Views:
    """One view per service. `on_change` listeners hear (key, old record, new record) of every one of them.

    `count(key, what)` adds to the fleet's counts what became of a trial.
    """

    def __init__(
        self, store: BreakerStore, *, grace: float, count: Callable[[str, str], None] = lambda key, what: None
    ) -> None:
        self.store = store
        self._grace = grace
        self._count = count
        self._views: dict[str, BreakerView] = {}
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []

    def of(self, service: Service) -> BreakerView:
        """The service's view, made when first asked for: that asks the store, which may take until its link gives up."""
        view = self._views.get(service.key)
        if view is not None:
            return view
        with self._lock:
            if service.key not in self._views:
                self._views[service.key] = self._make(service)
            return self._views[service.key]

    def _make(self, service: Service) -> BreakerView:
        if not service.breaker:
            return NullView(service.key, service.name)
        view = BreakerView(service.key, service.name, self.store, policy_of(service), self._grace, self._count)
        view.on_change(lambda old, new: self._changed(service.key, old, new))
        view.start()
        return view

    def within(self, seconds: float, service: Service) -> BreakerView:
        """The service's view; when making it takes longer than that, one that knows nothing of the store yet."""
        if service.key not in self._views:
            maker = threading.Thread(target=self.of, args=(service,), name="seawall-view", daemon=True)
            maker.start()
            maker.join(seconds)
        return self._views.get(service.key) or BreakerView(service.key, service.name, self.store, policy_of(service))

    def redeclare(self, service: Service) -> None:
        """A service was declared again: its view has the new policy."""
        view = self._views.get(service.key)
        if view is None:
            return
        if service.breaker is isinstance(view, NullView):
            self._views.pop(service.key, None)
        else:
            view.change_policy(policy_of(service))

    def all(self) -> dict[str, BreakerView]:
        return dict(self._views)

    def on_change(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def _changed(self, key: str, old: Record, new: Record) -> None:
        for listener in list(self._listeners):
            listener(key, old, new)
