"""Alerts put together: what a round looks at, and how an alert reaches its receivers."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from seawall.actors.service import queue_names, service_of_queue
from seawall.alert_hook import ALERTS_KEY, EXPIRES_IN, PLACEHOLDER
from seawall.alerts import Listener, listeners
from seawall.client import ResilientServiceClient
from seawall.errors import BrokerUnavailable, ConfigurationError, QueueFull
from seawall.handles import Handle
from seawall.registry import Registry
from seawall.runtime import Runtime
from seawall.settings import Settings
from seawall.supervisor.alert_store import AlertStore, RedisAlertStore
from seawall.supervisor.alert_words import BY_HAND, Alert, as_json
from seawall.supervisor.alerting import Rules, Sight
from seawall.supervisor.alerts import Alerts
from seawall.supervisor.breaker import Record

__all__ = ["Delivery", "look", "make_alerts", "rules_of", "send"]

logger = logging.getLogger("seawall.alerts")

#: Of the fleet's counts, those of dead letters; the reason follows.
_DEAD = "dead."


def make_alerts(runtime: Runtime, registry: Registry, store: AlertStore | None = None) -> Alerts:
    """The rounds of a leading supervisor, and with a `store` of its own, those of memory mode.

    Raises ConfigurationError for a callable that cannot be imported.
    """
    link = runtime.engine.link
    if store is None:
        assert link is not None, "a supervisor has a broker"
        store = RedisAlertStore(link, runtime.settings.namespace)
    settings = runtime.settings
    deliver = Delivery(settings, listeners(settings))
    return Alerts(store, rules_of(settings), look=lambda: look(runtime, registry), deliver=deliver, keep=EXPIRES_IN)


def rules_of(settings: Settings) -> Rules:
    return Rules(
        on=frozenset(settings.alerts_on),
        queue_age=settings.alerts_queue_age,
        queue_depth=settings.alerts_queue_depth,
        dead=settings.alerts_dead,
        settle=settings.alerts_settle,
        silent=frozenset({ALERTS_KEY}),
    )


def look(runtime: Runtime, registry: Registry) -> dict[str, Sight]:
    """Every service as it stands, in a handful of round trips. Raises BrokerUnavailable."""
    queue = runtime.engine.queue
    records = runtime.engine.breakers.read_all()
    keys = set(records) | {service.key for service in registry.all()}
    order = sorted(keys | {key for name in queue.queues() if (key := service_of_queue(name))})
    counts = iter(queue.counts([name for key in order for name in queue_names(key)]))
    paused = iter(queue.paused(order))
    dead: dict[str, dict[str, int]] = {}
    for (key, what), times in queue.tally().items():
        if what.startswith(_DEAD):
            dead.setdefault(key, {})[what.removeprefix(_DEAD)] = times
    sights = {}
    for key in order:
        waited, background, held = next(counts), next(counts), next(paused)
        record, service = records.get(key, Record()), registry.find(key)
        sights[key] = Sight(
            name=service.name if service is not None else key,
            state=record.state.value,
            opened_at=record.opened_at,
            changed_at=record.changed_at,
            why=BY_HAND if record.forced else record.last_error,
            slow_start=record.slow_start,
            paused=held,
            waiting=waited.ready + background.ready,
            held=background.ready if record.state != "closed" else 0,
            oldest=max(waited.oldest, background.oldest),
            dead=dead.get(key, {}),
        )
    return sights


class Delivery:
    """One alert to the webhook's queue, the log and every listener. Queued once, whoever delivers it again."""

    def __init__(self, settings: Settings, listeners: Sequence[Listener] = ()) -> None:
        self._settings = settings
        self._listeners = listeners

    def __call__(self, alert: Alert) -> None:
        """Raises BrokerUnavailable when it could not be queued, and nobody has heard of it; and QueueFull when there was
        no room in the queue, and everybody else has."""
        full: QueueFull | None = None
        if self._settings.alerts_webhook is not None:
            full = self._queue(alert)
        if not alert.told:
            level = logging.WARNING if alert.is_trouble else logging.INFO
            logger.log(level, "%s", alert.summary, extra={"alert": alert.id, "service": alert.service})
            for listener in self._listeners:
                listener.tell(as_json(alert))
        if full is not None:
            raise full

    def _queue(self, alert: Alert) -> QueueFull | None:
        try:
            send(self._settings, alert)
        except QueueFull as error:
            return error
        except BrokerUnavailable:
            raise
        except Exception:
            logger.exception("alert %s goes to no webhook: its call cannot be made", alert.id)
        return None


def send(settings: Settings, alert: Alert, **options: Any) -> Handle:
    """Queue the call that brings the alert to the webhook; once, also when it is asked for again.

    Raises ConfigurationError without a webhook, QueueFull and BrokerUnavailable.
    """
    if settings.alerts_webhook is None:
        raise ConfigurationError("there is no webhook: set webhook under [alerts], or SEAWALL_ALERTS_WEBHOOK")
    client = ResilientServiceClient.named(ALERTS_KEY)
    return client.enqueue(
        "POST",
        PLACEHOLDER,
        data=json.dumps(as_json(alert), ensure_ascii=False).encode(),
        headers={"Content-Type": "application/json", "Idempotency-Key": alert.id},
        dedupe=alert.id,
        dedupe_window=EXPIRES_IN,
        **options,
    )
