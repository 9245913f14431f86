"""A supervisor put together: what it watches, and what it needs of the other rooms, handed to it as callables."""

from __future__ import annotations

import os
import socket
import uuid
from typing import Any

from seawall.actors.redact import path_only
from seawall.actors.service import queue_names
from seawall.alerting import make_alerts
from seawall.errors import ConfigurationError
from seawall.history import SAMPLE_SECONDS, keep_sample
from seawall.probe import Prober
from seawall.registry import Registry
from seawall.runtime import Runtime
from seawall.schedules import registry as schedules
from seawall.scheduling import declare_schedules, queue_tick
from seawall.supervisor.leader import Leader
from seawall.supervisor.recovery import Recovery
from seawall.supervisor.scheduler import make_scheduler
from seawall.supervisor.schedules import Schedules
from seawall.supervisor.service import Supervisor
from seawall.supervisor.trials import Trials
from seawall.supervisor.view import BreakerView

__all__ = ["KnownViews", "make_supervisor"]


class KnownViews:
    """A view for every breaker: with the declaration's policy where the service is declared, else with the record's."""

    def __init__(self, runtime: Runtime, registry: Registry) -> None:
        self._runtime = runtime
        self._registry = registry
        self._others: dict[str, BreakerView] = {}

    def of(self, key: str) -> BreakerView:
        service = self._registry.find(key)
        if service is not None:
            return self._runtime.views.of(service)
        if key not in self._others:
            view = BreakerView(key, key, self._runtime.engine.breakers, count=self._runtime.engine.tally.add)
            view.start()
            self._others[key] = view
        return self._others[key]


def make_supervisor(runtime: Runtime, registry: Registry) -> Supervisor:
    """Not started yet; with it the file's schedules are declared.

    Raises ConfigurationError for these, for a callable of alerts that cannot be imported, and for memory mode, which
    has its trials in the calling process.
    """
    engine, namespace = runtime.engine, runtime.settings.namespace
    if engine.link is None:
        raise ConfigurationError("a supervisor needs a broker that it shares with others: set SEAWALL_BROKER_URL")
    scheduler = make_scheduler()
    leader = Leader(engine.link, namespace, f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}")
    prober = Prober(registry.find, runtime.token)
    trials = Trials(
        engine.breakers,
        scheduler,
        target=KnownViews(runtime, registry).of,
        health=prober.ask,
        has_health=prober.can_ask,
        oldest=lambda key: engine.queue.oldest(queue_names(key)[1], key),
        leads=lambda: leader.leads,
    )
    declare_schedules(runtime.settings, registry)
    duty = Schedules(
        scheduler,
        declared=schedules.ticks,
        now=engine.breakers.now,
        last=engine.queue.ticks,
        enqueue=lambda name, tick: queue_tick(runtime, name, tick),
        leads=lambda: leader.leads,
    )
    recovery = Recovery(engine.queue.queues, engine.queue.sweep)

    def sample() -> None:
        assert engine.link is not None
        keep_sample(engine.link, namespace, engine.queue.tally())

    about = {"host": socket.gethostname(), "pid": os.getpid()}
    return Supervisor(
        leader,
        trials,
        recovery,
        engine.breakers,
        scheduler,
        schedules=duty,
        alerts=make_alerts(runtime, registry),
        sample=sample,
        sample_every=SAMPLE_SECONDS,
        plan=lambda: _plan(engine.breakers.now()),
        about=about,
    )


def _plan(now: float) -> list[dict[str, Any]]:
    """The schedules for people: what each one calls, when, and when next (seconds since the epoch; None: never)."""
    return [
        {
            "name": schedule.name,
            "service": schedule.service.key,
            "call": f"{schedule.method} {path_only(schedule.path)}",
            "when": str(schedule.ticks),
            "next_at": schedule.ticks.after(now),
        }
        for schedule in schedules.all()
    ]
