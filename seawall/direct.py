"""A call made in the caller's own process, because the broker is away: the same transport, breaker and retries."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from seawall.actors.call_actor import CallActor
from seawall.actors.delivered import Delivered, LocalCall, decode_delivery
from seawall.actors.queue_store import Delivery, Done, Later
from seawall.actors.record import Call, Progress
from seawall.actors.replies import Outcome
from seawall.actors.service import Service, queue_names
from seawall.actors.token import TokenSource
from seawall.actors.transport import Transport
from seawall.errors import BrokerUnavailable, ServiceUnavailable, TokenUnavailable
from seawall.supervisor.view import BreakerView

__all__ = ["run_directly"]

#: Seconds for which one warning about direct calls is enough.
WARN_EVERY = 60.0

_lock = threading.Lock()
_transports: dict[str, Transport] = {}
_warned_at = 0.0


def run_directly(
    view: BreakerView,
    service: Service,
    token: TokenSource,
    call: Call,
    original: dict[str, Any],
    reason: BrokerUnavailable,
) -> Outcome:
    """The call's outcome, attempt by attempt in this thread. Raises ServiceUnavailable when no token is at hand."""
    _warn(service, reason)
    try:
        token.header_value()
    except TokenUnavailable as error:
        text = f"[{service.name}] the broker is away, and without its token the call is not made here"
        raise ServiceUnavailable(text, service=service.name) from error
    actor = CallActor(service, _transport(service, token).send, view)
    progress = Progress()
    while True:
        delivered = _deliver(call, original, progress)
        actor(delivered)
        settlement = delivered.settlement
        if isinstance(settlement, Done) and settlement.outcome is not None:
            return settlement.outcome
        if not isinstance(settlement, Later):
            return Outcome(
                error=ServiceUnavailable(f"[{service.name}] the call was refused here", service=service.name)
            )
        progress = settlement.progress
        time.sleep(settlement.delay)


def _deliver(call: Call, original: dict[str, Any], progress: Progress) -> Delivered:
    queue = queue_names(call.service)[0]
    delivery = Delivery(queue, call.id, 1, 0, LocalCall(call, original), progress, trial=False, fetched_at=0.0)
    return decode_delivery(delivery, lambda _: True)


def _transport(service: Service, token: TokenSource) -> Transport:
    with _lock:
        if service.key not in _transports:
            _transports[service.key] = Transport(service, token)
        return _transports[service.key]


def _warn(service: Service, reason: BrokerUnavailable) -> None:
    global _warned_at
    with _lock:
        now = time.monotonic()
        due, _warned_at = now - _warned_at > WARN_EVERY or _warned_at == 0.0, now
    if due:
        logging.getLogger(service.logger_name).warning(
            "[%s] the broker is away (%s); calls run in this process until it is back", service.name, reason
        )
