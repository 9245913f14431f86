"""What a process has of Seawall: its settings, its stores, its views, and in memory mode its workers.

Made at first use, once per process. A child of a fork makes its own: sockets and threads do not survive a fork.
"""

from __future__ import annotations

import atexit
import dataclasses
import logging
import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import requests
from redis.exceptions import ResponseError

from seawall.actors.call_actor import refused_in_queue
from seawall.actors.engine import MEMORY_URL, Engine, engine_from_url
from seawall.actors.patched import is_mocked
from seawall.actors.record import Call
from seawall.actors.replies import Outcome
from seawall.actors.service import queue_names
from seawall.actors.token import TokenSource
from seawall.actors.views import Views
from seawall.alert_hook import alert_service
from seawall.declared import declared_services
from seawall.errors import BrokerUnavailable, ConfigurationError
from seawall.registry import Registry
from seawall.settings import Settings, load_settings
from seawall.supervisor.breaker import Record, State
from seawall.telling import tell
from seawall.waiting import Results, Waiting

if TYPE_CHECKING:
    from seawall.memory import LocalHouse
    from seawall.memory_alerts import LocalAlerts

__all__ = ["Runtime", "current", "registry", "replace"]

logger = logging.getLogger("seawall")

#: Declared services outlive a runtime: a child of a fork, or a test, goes on with the same ones.
registry = Registry()

_lock = threading.RLock()
_current: Runtime | None = None
_mocked: tuple[object, Runtime] | None = None
_REQUEST = requests.api.request
#: In a child, what belongs to its parent: kept, so that nothing of it is finalised here.
_parents: object = None


class Runtime:
    """One process's house. Raises ConfigurationError when the settings cannot be used."""

    def __init__(
        self,
        settings: Settings,
        *,
        engine: Engine | None = None,
        why_memory: str = "SEAWALL_BROKER_URL names no server",
        alerts: bool = True,
    ) -> None:
        """Without `alerts` memory mode tells nobody of outages, as in a test, whose outages are no news."""
        memory = settings.memory_mode
        if memory and settings.require_broker:
            raise ConfigurationError(
                "SEAWALL_REQUIRE_BROKER is set, but SEAWALL_BROKER_URL is not: calls would be lost with this process"
            )
        self.settings = settings
        self.engine = engine or engine_from_url(settings.broker_url, settings.namespace)
        self.engine.metered = settings.metrics
        self.views = Views(self.engine.breakers, grace=self.engine.grace, count=self.engine.tally.add)
        self.token = TokenSource(settings.internal_token_header, settings.internal_token, settings.internal_token_file)
        self.waiting = Waiting()
        self.results = Results()
        self.house: LocalHouse | None = None
        self._tells_alerts = alerts
        self._alerts: LocalAlerts | None = None
        self.unqueued: dict[str, int] = {}
        """Calls that `fire` could not queue, by service."""
        self.memory = memory
        self._why_memory = why_memory
        self._lock = threading.Lock()
        self.views.on_change(self._breaker_changed)
        registry.on_declare(self.views.redeclare)
        hook = alert_service(settings)
        for service in (*declared_services(settings.services), *((hook,) if hook is not None else ())):
            if registry.find(service.key) is None:
                registry.declare(service)

    def ready(self) -> None:
        """In memory mode, have the workers running; otherwise nothing to do."""
        if self.memory and self.house is None:
            with self._lock:
                if self.house is None:
                    from seawall.memory import LocalHouse
                    from seawall.memory_alerts import LocalAlerts

                    house = self._make_house(LocalHouse)
                    house.start()
                    self.house = house
                    self._alerts = LocalAlerts(self, registry) if self._tells_alerts else None

    def _make_house(self, kind: type[LocalHouse]) -> LocalHouse:
        """Memory mode's workers; a test harness makes them in its own way."""
        tell(
            logger,
            logging.WARNING,
            "%s: calls are kept in this process's memory and end with it. `seawall up` runs a durable queue",
            self._why_memory,
        )
        if count := len(self.settings.schedules):
            text = "%d schedule(s) of seawall.toml do not run, because supervisors run them: set SEAWALL_BROKER_URL"
            logger.warning(text, count)
        return kind(self.engine, self.views, self.token, registry)

    def _breaker_changed(self, key: str, old: Record, new: Record) -> None:
        """An opened breaker answers the waiting callers of this process at once."""
        if new.state is State.OPEN and old.state is State.CLOSED and (calls := self.waiting.of(key)):
            threading.Thread(target=self._refuse, args=(key, calls), name="seawall-refusals", daemon=True).start()

    def _refuse(self, key: str, calls: Sequence[Call]) -> None:
        service = registry.find(key)
        if service is None:
            return
        view = self.views.of(service)
        try:
            answers = self.engine.queue.cancel(queue_names(key)[0], [call.id for call in calls], "refused")
        except (BrokerUnavailable, ResponseError) as error:
            logger.debug("[%s] waiting calls not taken back: %s", service.name, error)
            return
        for call, answer in zip(calls, answers, strict=True):
            if answer.state == "cancelled":
                taken = refused_in_queue(view, call, answer.progress, answer.deaths)
                self.waiting.answer(call, Outcome(error=taken, attempts=answer.progress.attempt, breaker=view.record))

    def count_unqueued(self, key: str) -> int:
        """Note a call that was fired and could not be queued; how many of this service there are."""
        self.engine.tally.add(key, "unqueued")
        with self._lock:
            self.unqueued[key] = self.unqueued.get(key, 0) + 1
            return self.unqueued[key]

    def close(self, drain: float = 0.0) -> None:
        """Stop the workers of memory mode, after up to `drain` seconds of going on; close every connection."""
        house, self.house = self.house, None
        if self._alerts is not None:
            self._alerts.stop()
        if house is not None:
            house.stop(drain)
        registry.forget_listener(self.views.redeclare)
        self.engine.close()


def current() -> Runtime:
    """This process's runtime; made from the environment and `seawall.toml` when there is none."""
    runtime = _current or _first()
    if requests.request is _REQUEST or runtime.memory or not is_mocked():
        return runtime
    return _under_test(runtime)


def _first() -> Runtime:
    global _current
    with _lock:
        if _current is None:
            _current = Runtime(load_settings())
        return _current


def _under_test(runtime: Runtime) -> Runtime:
    """A test has put a mock in the place of `requests.request`: its calls stay here, where the mock is, and never
    reach a queue whose workers would send them. Each mock has fresh breakers."""
    global _mocked
    with _lock:
        before = _mocked
        if before is not None and before[0] is requests.request:
            return before[1]
        settings = dataclasses.replace(runtime.settings, broker_url=MEMORY_URL, require_broker=False)
        _mocked = (requests.request, Runtime(settings, why_memory="requests.request is a mock", alerts=False))
        made = _mocked[1]
    if before is not None:
        before[1].close()
    return made


def replace(runtime: Runtime | None) -> Runtime | None:
    """Use this runtime from now on; answers the one before, which the caller closes."""
    global _current
    with _lock:
        before, _current = _current, runtime
        return before


def _after_fork() -> None:
    """In a child: forget the parent's connections and threads; the first use makes new ones."""
    global _current, _lock, _mocked, _parents
    _lock = threading.RLock()
    _parents = (_current, _mocked, _parents)
    _current = _mocked = None
    registry.after_fork()


def _at_exit() -> None:
    runtime = replace(None)
    if runtime is not None:
        runtime.close(runtime.settings.exit_drain)


# A library says nothing unless its host wants to hear it.
logger.addHandler(logging.NullHandler())
os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
