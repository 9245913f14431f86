"""The part of a process that runs calls: a Dramatiq worker with an actor per service, its heartbeat, and its drain.

The same object serves a worker process and memory mode. States: made, started, quiet, stopped; stop is safe twice and
before start. What happens when a neighbour dies: the store away -> the hub tries again, what was finished is settled
later; the supervisor away -> this worker offers held calls as trials itself, after the supervisor's second of grace.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import dramatiq
from redis.exceptions import ResponseError

from seawall.actors.broker import SeawallBroker
from seawall.actors.call_actor import CallActor, Send
from seawall.actors.engine import Engine
from seawall.actors.lanes import service_lane
from seawall.actors.meter import Meter
from seawall.actors.record import Call
from seawall.actors.retry_budget import RetryBudget
from seawall.actors.service import Service, queue_names
from seawall.actors.token import TokenSource
from seawall.actors.transport import Transport
from seawall.actors.views import Views
from seawall.errors import BrokerUnavailable, ConfigurationError
from seawall.outage import Outage
from seawall.supervisor.breaker import Record, State
from seawall.workers.threads import HubWorker

__all__ = ["CallWorker"]

logger = logging.getLogger("seawall.worker")

#: Seconds between two heartbeats: several of them fit into a lease, so one lost beat loses no call.
BEAT_SECONDS = 1.0
#: The fewest heartbeats that fit into a lease. With a gap of more than half a lease between two, the queue takes itself for
#: back from an outage each time, and a dead worker's calls never come back.
BEATS_IN_LEASE = 3
#: Seconds for which a connection to the broker that was just used is not looked at before it is used again.
TRUSTED_FOR = 0.5
#: Seconds between two looks for a call to try a service with, once that is due.
OFFER_SECONDS = 0.25


class CallWorker:
    """Runs the calls of the services it is given. `session_mode` is memory mode's transport, for test libraries."""

    def __init__(
        self,
        engine: Engine,
        views: Views,
        token: TokenSource,
        *,
        session_mode: bool = False,
        backoff: float = 1.0,
        observe: Callable[[Call], None] | None = None,
    ) -> None:
        """`backoff` scales the waits between attempts, `observe` sees every attempt before it is sent; for tests.

        Raises ConfigurationError when the engine's leases are too short for the heartbeat that renews them.
        """
        if engine.lease < BEATS_IN_LEASE * BEAT_SECONDS:
            raise ConfigurationError(
                f"a lease of {engine.lease:g} s is too short for a heartbeat each {BEAT_SECONDS:g} s: "
                f"calls of dead workers would never come back; make it {BEATS_IN_LEASE * BEAT_SECONDS:g} s or longer"
            )
        self.id = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"
        self.broker = SeawallBroker(engine.queue)
        if engine.link is not None and not session_mode:
            engine.link.trusted_for = TRUSTED_FOR
        self._engine = engine
        self._views = views
        self._token = token
        self._session_mode = session_mode
        self._backoff = backoff
        self._observe = observe
        self._services: dict[str, Service] = {}
        self._transports: dict[str, Transport] = {}
        self._budgets: dict[str, RetryBudget] = {}
        self._meters: dict[str, Meter] = {}
        self._worker: HubWorker | None = None
        self._stopping = threading.Event()
        self._pulse: threading.Thread | None = None
        self._outage = Outage(logger, "the broker (heartbeat)")
        self._beating = threading.Lock()
        """Held for each heartbeat, and for the goodbye: none that was under way comes after it."""
        self._lock = threading.RLock()
        self._started_at = time.time()

    def serve(self, services: Iterable[Service]) -> None:
        """Serve these services too, now or once started. A service declared again replaces its older self."""
        with self._lock:
            for service in services:
                self._serve(service)
            started = self._worker is not None
        if started:
            self._beat()  # a caller looks at heartbeats to see who serves its queue

    def _serve(self, service: Service) -> None:
        known = self._services.get(service.key)
        if known == service:
            return
        self._services[service.key] = service
        transport = Transport(service, self._token, session_mode=self._session_mode)
        self._transports[service.key] = transport
        send = transport.send if self._observe is None else self._observed(transport.send, self._observe)
        now = self._engine.breakers.now
        actor = CallActor(
            service,
            send,
            self._views.of(service),
            backoff=self._backoff,
            now=now,
            hold=lambda seconds: self._hold(service.key, seconds),
            count=lambda what: self._engine.tally.add(service.key, what),
            budget=self._budget_of(service, known),
            meter=self._meter_of(service.key),
        )
        if known is not None:
            for queue in queue_names(service.key):
                self.broker.actors[queue].fn = actor
            self.broker.hub.rebound(service.key, service.max_in_flight)
            return
        lane = service_lane(service.key, service.concurrency, gated=service.breaker, bound=service.max_in_flight)
        self.broker.add_lane(lane)
        for queue in queue_names(service.key):
            declare = dramatiq.actor(actor_name=queue, queue_name=queue, broker=self.broker)
            declare(actor)
        if self._worker is not None:
            for _ in range(service.concurrency):
                self._worker._add_worker()

    def _hold(self, key: str, seconds: float) -> None:
        try:
            self._engine.queue.hold(key, seconds)
        except (BrokerUnavailable, ResponseError) as error:  # the call itself waits all the same
            logger.debug("the queue of %s is not held: %s", key, error)

    def _budget_of(self, service: Service, known: Service | None) -> RetryBudget | None:
        """One that was declared again goes on with its budget. Memory mode has none: its callers are few, and wait here."""
        if self._session_mode:
            return None
        if known is None or known.retry_budget != service.retry_budget:
            self._budgets[service.key] = RetryBudget(service.retry_budget)
        return self._budgets[service.key]

    def _meter_of(self, key: str) -> Meter | None:
        if not self._engine.metered:
            return None
        if key not in self._meters:
            self._meters[key] = Meter(key)
            self._engine.tally.gather(self._meters[key].drain)
        return self._meters[key]

    @staticmethod
    def _observed(send: Send, observe: Callable[[Call], None]) -> Send:
        def observed(call: Call, *, original: dict[str, Any] | None = None) -> Any:
            observe(call)
            return send(call, original=original)

        return observed

    def start(self) -> None:
        with self._lock:
            if self._worker is not None:
                return
            self._views.on_change(self._breaker_changed)
            threads = max(1, sum(service.concurrency for service in self._services.values()))
            self._worker = HubWorker(self.broker, worker_threads=threads)
            self._beat()
            self._pulse = threading.Thread(target=self._beat_for_ever, name="seawall-pulse", daemon=True)
            self._pulse.start()
            self._worker.start()

    def stop(self, timeout: float) -> None:
        """Quiet, then wait up to `timeout` seconds for what runs, then give back what does not end. Safe twice."""
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is None:
            self._stopping.set()
            return
        ends = time.monotonic() + timeout
        self._say_goodbye()
        worker.broker.emit_before("worker_shutdown", worker)
        while self.broker.hub.busy() and time.monotonic() < ends:
            time.sleep(0.01)
        left = self.broker.hub.busy()
        if left:
            logger.warning("%d running call(s) did not end in time; they go back to their queues", left)
        self.broker.hub.give_up()
        self._stopping.set()
        worker.let_go()
        for transport in self._transports.values():
            transport.close()

    def busy(self) -> int:
        """Calls that are running, or fetched and about to run."""
        return self.broker.hub.busy()

    def _breaker_changed(self, key: str, old: Record, new: Record) -> None:
        if key in self._services and (new.state is not State.OPEN or old.state is not State.OPEN):
            self.broker.hub.poke()

    def _beat_for_ever(self) -> None:
        beat_at = time.monotonic() + BEAT_SECONDS
        while not self._stopping.wait(min(beat_at - time.monotonic(), self._until_next_offer())):
            try:
                if time.monotonic() >= beat_at:
                    beat_at = time.monotonic() + BEAT_SECONDS
                    self._beat()
                self._offer_trials()
            except Exception:
                logger.exception("the heartbeat met an error that it did not expect; it goes on")

    def _beat(self) -> None:
        """Renew the leases of what runs here, and tell what is served: a worker that has said goodbye serves nothing."""
        with self._beating:
            leaving = self._is_leaving()
            report, queues = (b"", []) if leaving else (self._report(), self.broker.hub.queues())
            try:
                lost = self._engine.queue.beat(self.id, report, queues, self.broker.hub.held())
                self.broker.hub.lose(lost)
                self._outage.over()
            except (BrokerUnavailable, ResponseError) as error:
                self._outage.begins(error)

    def _is_leaving(self) -> bool:
        return self._worker is None and self._pulse is not None

    def _say_goodbye(self) -> None:
        with self._beating:
            try:
                self._engine.queue.leave(self.id, self.broker.hub.queues())
            except (BrokerUnavailable, ResponseError) as error:
                logger.debug("left without a goodbye: %s", error)

    def _report(self) -> bytes:
        return json.dumps(
            {
                "id": self.id,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "services": {key: self._about(service) for key, service in self._services.items()},
                "slots": sum(service.concurrency for service in self._services.values()),
                "busy": self.broker.hub.busy(),
                "metered": self._engine.metered,
                "started_at": self._started_at,
            }
        ).encode()

    def _about(self, service: Service) -> dict[str, Any]:
        """What status shows of a service that its own process has not declared, and the retries that are left here."""
        budget = self._budgets.get(service.key)
        return {
            "name": service.name,
            "origin": service.origin,
            "failure_threshold": service.failure_threshold,
            "recovery_timeout": service.recovery_timeout,
            "concurrency": service.concurrency,
            "max_in_flight": service.max_in_flight,
            "retries_left": None if budget is None else budget.left,
        }

    def _until_next_offer(self) -> float:
        """Seconds until a trial may be offered here, so that it is not late by a heartbeat."""
        now, soonest = self._engine.breakers.now(), BEAT_SECONDS
        for service in list(self._services.values()):
            record = self._views.of(service).record
            if record.state is not State.CLOSED and not record.forced:
                due = max(record.next_trial_at, record.trial_until) + self._engine.grace - now
                soonest = min(soonest, due if due > 0 else OFFER_SECONDS)
        return soonest

    def _offer_trials(self) -> None:
        """Without a supervisor, let the oldest held call of an open breaker be its trial."""
        for key, service in list(self._services.items()):
            view = self._views.of(service)
            if view.record.state is State.CLOSED or not view.admit().may_take_trial:
                continue
            try:
                held = self._engine.queue.oldest(queue_names(key)[1], key).id
                if held and view.take_trial(held):
                    self.broker.hub.poke()
            except (BrokerUnavailable, ResponseError) as error:
                logger.debug("no trial offered for %s: %s", key, error)
