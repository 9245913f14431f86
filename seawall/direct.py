"""A call made in the caller's own process, because the broker is away: the same transport, breaker and retries."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import requests

from seawall.actors.call_actor import CallActor
from seawall.actors.delivered import Delivered, LocalCall, decode_delivery
from seawall.actors.meter import Meter
from seawall.actors.queue_store import Delivery, Done, Later
from seawall.actors.record import Call, Progress
from seawall.actors.redact import path_only
from seawall.actors.replies import Outcome
from seawall.actors.service import Service, queue_names
from seawall.actors.tally import Tally
from seawall.actors.token import TokenSource
from seawall.actors.transport import Transport
from seawall.errors import BrokerUnavailable, DeadlineExceeded, ServiceUnavailable, TokenUnavailable
from seawall.patience import within
from seawall.supervisor.breaker import Record
from seawall.supervisor.view import BreakerView, NullView

__all__ = ["ran_here", "run_directly"]

#: Seconds for which one warning about direct calls is enough.
WARN_EVERY = 60.0

#: What a call tells its breaker.
_REPORTS = frozenset({"succeeded", "failed", "stumbled", "trial_succeeded", "trial_failed", "trial_inconclusive"})

_lock = threading.Lock()
_transports: dict[str, Transport] = {}
_warned_at: float | None = None


def run_directly(
    view: BreakerView,
    service: Service,
    token: TokenSource,
    call: Call,
    original: dict[str, Any],
    reason: BrokerUnavailable,
    ends: float,
    tally: Tally,
) -> Outcome:
    """The call's outcome, attempt by attempt in this thread; nothing goes on after `ends`, a monotonic time.

    Its attempts and its end are added to the fleet's counts by `tally`. Raises ServiceUnavailable when no token is at hand, and DeadlineExceeded.
    """
    _warn(service, reason)
    if time.monotonic() >= ends:
        fate = "it may have been carried out" if reason.written else "it was not sent and never will be"
        text = f"[{service.name}] {call.method} {path_only(call.target)} got no answer before its deadline; {fate}"
        raise DeadlineExceeded(text, service=service.name)
    try:
        if service.internal_token:
            token.header_value()
    except TokenUnavailable as error:
        text = f"[{service.name}] the broker is away, and without its token the call is not made here"
        raise ServiceUnavailable(text, service=service.name) from error
    sender = _Sender(_transport(service, token), ends)
    meter = Meter(service.key)
    actor = CallActor(service, sender.send, _reporting(view, ends), meter=meter)
    progress = Progress()
    while True:
        delivered = _deliver(call, original, progress)
        actor(delivered)
        settlement = delivered.settlement
        tally.add_all(meter.drain())
        if isinstance(settlement, Done) and settlement.outcome is not None:
            if settlement.ended is not None:
                tally.add(*settlement.ended)
            return settlement.outcome
        if not isinstance(settlement, Later):
            return Outcome(
                error=ServiceUnavailable(f"[{service.name}] the call was refused here", service=service.name)
            )
        progress = settlement.progress
        if time.monotonic() + settlement.delay >= ends:
            raise sender.deadline_exceeded(call, f"{progress.attempt} attempt(s) had failed, no further one was made")
        time.sleep(settlement.delay)


class _Reporter:
    """A view of the breaker for a caller with little time. The store may be silent: what it is told goes on behind the
    caller's back once that one's time is over, and until then changes the record as ever."""

    def __init__(self, view: BreakerView, ends: float) -> None:
        self._view = view
        self._ends = ends

    def __getattr__(self, name: str) -> Any:
        known = getattr(self._view, name)
        return self._hurried(known) if name in _REPORTS else known

    def _hurried(self, report: Callable[..., Record]) -> Callable[..., Record]:
        return lambda *args: within(self._ends - time.monotonic(), lambda: report(*args), self._view.record)


def _reporting(view: BreakerView, ends: float) -> Any:
    """As it is where nobody is waited for."""
    return view if isinstance(view, NullView) else _Reporter(view, ends)


class _Sender:
    """Sends what is left of a call's time: its caller waits for no attempt beyond the deadline."""

    def __init__(self, transport: Transport, ends: float) -> None:
        self._transport = transport
        self._ends = ends

    def send(self, call: Call, *, original: dict[str, Any] | None = None) -> Any:
        left = max(0.001, self._ends - time.monotonic())
        shorter = msgspec.structs.replace(
            call, timeout=min(call.timeout, left), connect_timeout=min(call.connect_timeout, left)
        )
        try:
            return self._transport.send(shorter, original=original)
        except requests.Timeout as error:
            if left > call.timeout:
                raise
            raise self.deadline_exceeded(call, "it was running and may have been carried out") from error

    def deadline_exceeded(self, call: Call, fate: str) -> DeadlineExceeded:
        name = self._transport.service.name
        text = f"[{name}] {call.method} {path_only(call.target)} got no answer before its deadline; {fate}"
        return DeadlineExceeded(text, service=name)


def _deliver(call: Call, original: dict[str, Any], progress: Progress) -> Delivered:
    queue = queue_names(call.service)[0]
    delivery = Delivery(queue, call.id, 1, 0, LocalCall(call, original), progress, trial=False, fetched_at=0.0)
    return decode_delivery(delivery, lambda _: True)


def _transport(service: Service, token: TokenSource) -> Transport:
    with _lock:
        known = _transports.get(service.key)
        if known is None or known.service != service:
            known = _transports[service.key] = Transport(service, token)
        return known


def _warn(service: Service, reason: BrokerUnavailable) -> None:
    global _warned_at
    with _lock:
        now = time.monotonic()
        due = _warned_at is None or now - _warned_at > WARN_EVERY
        if due:
            _warned_at = now
    if due:
        text = "[%s] the broker is away (%s); calls run in this process until it is back"
        logging.getLogger(service.logger_name).warning(text, service.name, reason)


def ran_here() -> bool:
    """Whether this process has made a call itself; for a command that logs nothing and has to say it."""
    return _warned_at is not None


def _after_fork() -> None:
    """In a child: whoever held the lock is not there."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
