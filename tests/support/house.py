"""A worker and a supervisor's timers inside the test's own process, over a real server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from apscheduler.schedulers.background import BackgroundScheduler

from seawall import runtime as runtimes
from seawall.actors.engine import engine_from_url
from seawall.actors.service import Service, queue_names
from seawall.actors.token import TokenSource
from seawall.actors.views import Views
from seawall.probe import Prober
from seawall.settings import load_settings
from seawall.supervisor.breaker import Record
from seawall.supervisor.trials import Trials
from seawall.supervisor.view import BreakerView
from seawall.workers.worker import CallWorker

__all__ = ["PATIENT", "RemoteHouse", "caller", "no_services"]

#: Seconds that these wait for the broker's answer: a machine that stands still for a second is no outage. Where the broker's
#: absence is the subject, a test asks for the product's own `ANSWER_TIMEOUT`.
PATIENT = 10.0


@contextmanager
def no_services() -> Iterator[None]:
    """Services that a test declares are its own."""
    declared = runtimes.registry.all()
    runtimes.registry.restore([])
    try:
        yield
    finally:
        runtimes.registry.restore(declared)


@contextmanager
def caller(url: str, *, answer_timeout: float = PATIENT, **settings: Any) -> Iterator[runtimes.Runtime]:
    """This process's runtime as a client of the broker at `url`."""
    loaded = load_settings({"broker_url": url, **settings})
    runtime = runtimes.Runtime(loaded, engine=engine_from_url(url, loaded.namespace, answer_timeout=answer_timeout))
    before = runtimes.replace(runtime)
    try:
        with no_services():
            yield runtime
    finally:
        runtimes.replace(before)
        runtime.close()


class RemoteHouse:
    """What other processes would be: a worker, and with `supervised` the timers of a supervisor. A context manager.

    It shares nothing with the caller but the server and the declared services. `backoff` scales the waits between
    attempts, which are logged as they would be.
    """

    def __init__(
        self,
        url: str,
        *,
        token: TokenSource | None = None,
        backoff: float = 0.0,
        supervised: bool = True,
        metered: bool = True,
        answer_timeout: float = PATIENT,
    ) -> None:
        self._engine = engine_from_url(url, answer_timeout=answer_timeout)
        self._engine.metered = metered
        self._views = Views(self._engine.breakers, grace=self._engine.grace)
        self._token = token or TokenSource()
        self.worker = CallWorker(self._engine, self._views, self._token, backoff=backoff)
        self._scheduler = BackgroundScheduler(timezone="UTC") if supervised else None

    def __enter__(self) -> RemoteHouse:
        self.worker.serve(runtimes.registry.all())
        runtimes.registry.on_declare(self._declared)
        self.worker.start()
        if self._scheduler is not None:
            self._scheduler.start()
            self._watch(self._scheduler)
        return self

    def __exit__(self, *_: object) -> None:
        runtimes.registry.forget_listener(self._declared)
        self.worker.stop(0.5)
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)
        self._engine.close()

    def _declared(self, service: Service) -> None:
        self._views.redeclare(service)
        self.worker.serve([service])

    def _watch(self, scheduler: BackgroundScheduler) -> None:
        prober = Prober(runtimes.registry.find, self._token)
        trials = Trials(
            self._engine.breakers,
            scheduler,
            target=self._view,
            health=prober.ask,
            has_health=prober.can_ask,
            oldest=lambda key: self._engine.queue.oldest(queue_names(key)[1], key),
        )

        def changed(key: str, old: Record, new: Record) -> None:
            trials.announced(key, new)

        self._views.on_change(changed)
        trials.start()

    def _view(self, key: str) -> BreakerView | None:
        service = runtimes.registry.find(key)
        return None if service is None else self._views.of(service)
