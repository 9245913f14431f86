"""Memory mode: the same actors, breaker and trials inside the importing process, with no server and nothing durable."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from seawall.actors.engine import Engine
from seawall.actors.memory_queue import MemoryQueue
from seawall.actors.record import Call
from seawall.actors.service import Service, queue_names
from seawall.actors.token import TokenSource
from seawall.actors.views import Views
from seawall.probe import Prober
from seawall.registry import Registry
from seawall.supervisor.breaker import Record, State
from seawall.supervisor.scheduler import make_scheduler
from seawall.supervisor.trials import Trials
from seawall.supervisor.view import BreakerView
from seawall.telling import tell
from seawall.workers.worker import CallWorker

__all__ = ["LocalHouse"]

logger = logging.getLogger("seawall")


class LocalHouse:
    """Workers and trials in this process. Started at the first call, stopped at exit."""

    def __init__(
        self,
        engine: Engine,
        views: Views,
        token: TokenSource,
        registry: Registry,
        *,
        backoff: float = 1.0,
        observe: Callable[[Call], None] | None = None,
    ) -> None:
        self._engine = engine
        self._views = views
        self._registry = registry
        self.worker = CallWorker(engine, views, token, session_mode=True, backoff=backoff, observe=observe)
        self._prober = Prober(registry.find, token, session_mode=True)
        self._scheduler: Any = None
        self._trials: Trials | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        self._registry.on_declare(self._declared)
        self.worker.serve(self._registry.all())
        self.worker.start()
        self._views.on_change(self._breaker_changed)

    def _declared(self, service: Service) -> None:
        self.worker.serve([service])

    def _breaker_changed(self, key: str, old: Record, new: Record) -> None:
        if new.state is not State.CLOSED and self._trials is None:
            self._start_trials()
        elif self._trials is not None:
            self._trials.announced(key, new)

    def _start_trials(self) -> None:
        """Timers are only needed once a breaker has opened."""
        with self._lock:
            if self._trials is not None:
                return
            self._scheduler = make_scheduler()
            self._scheduler.start()
            self._trials = Trials(
                self._engine.breakers,
                self._scheduler,
                target=self._view,
                health=self._prober.ask,
                has_health=self._prober.can_ask,
                oldest=lambda key: self._engine.queue.oldest(queue_names(key)[1], key),
            )
        self._trials.start()

    def _view(self, key: str) -> BreakerView | None:
        service = self._registry.find(key)
        return None if service is None else self._views.of(service)

    def time_has_passed(self) -> None:
        """The clock was moved by hand: do what is due now."""
        if self._trials is not None:
            self._trials.fire_due()
        self._engine.queue.poke()

    def stop(self, drain: float) -> None:
        """Go on for up to `drain` seconds, as long as anything can still run, then log what is lost."""
        ends = time.monotonic() + drain
        while (left := ends - time.monotonic()) > 0 and any(self._works(s, left) for s in self._registry.all()):
            time.sleep(0.02)
        self.worker.stop(max(0.0, min(1.0, ends - time.monotonic())) if drain else 0.0)
        if drain:
            self._log_losses()
        self._registry.forget_listener(self._declared)
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)

    def _works(self, service: Service, seconds: float) -> bool:
        """Whether a call of this service runs, or can start within these seconds."""
        waited, background = self._engine.queue.counts(queue_names(service.key))
        if waited.leased or background.leased or waited.ready:
            return True
        record = self._views.of(service).record
        if record.state is not State.CLOSED and (
            record.forced or record.next_trial_at > self._engine.breakers.now() + seconds
        ):
            return False
        queue = self._engine.queue
        assert isinstance(queue, MemoryQueue)
        return bool(background.ready) or any(queue.next_due_in(name) < seconds for name in queue_names(service.key))

    def _log_losses(self) -> None:
        for service in self._registry.all():
            counts = self._engine.queue.counts(queue_names(service.key))
            lost = sum(count.ready + count.due + count.leased for count in counts)
            if lost:
                text = "[%s] %d call(s) were still waiting when the process ended; they are lost"
                tell(logging.getLogger(service.logger_name), logging.ERROR, text, service.name, lost)
