"""A waited-for call's journey as its caller sees it: admitted, queued, waited for, answered, or run here.

When the broker is away and nothing was written to it, the call runs in the caller's own process. When it is not known
whether something was written, only an idempotent method does; the others raise OutcomeUnknown.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from typing import Any

import requests
from redis.exceptions import ResponseError
from requests.structures import CaseInsensitiveDict

from seawall.actors.backoff import retry_delay
from seawall.actors.call_actor import refusal
from seawall.actors.delivered import LocalCall
from seawall.actors.queue_store import Accepted, Cancelled, Put, QueueStore
from seawall.actors.record import Call, encode
from seawall.actors.redact import path_only
from seawall.actors.replies import LocalWaiter, Outcome
from seawall.actors.service import Service, queue_names
from seawall.actors.transport import IDEMPOTENT
from seawall.direct import run_directly
from seawall.errors import BrokerUnavailable, DeadlineExceeded, NoWorker, OutcomeUnknown, QueueFull
from seawall.patience import within
from seawall.runtime import Runtime
from seawall.supervisor.view import BreakerView

__all__ = ["abandon_trial", "admit", "call_and_wait", "default_deadline", "payload_of"]

#: Seconds that a call may wait in its queue, beside its attempts and backoffs, before its caller gives up.
QUEUE_ALLOWANCE = 10.0
#: Seconds after which a caller asks whether any worker serves the queue; the promise is an answer within 2 s.
WORKER_CHECK = 1.5
#: Seconds beyond its deadline for which a caller waits to hear whether its call could be taken back. A broker that does not
#: answer takes seconds to be given up, and a caller is promised its answer within one.
LAST_WORD = 0.5


def default_deadline(service: Service, attempts: int, timeout: float) -> float:
    """Seconds for all attempts, the backoffs between them, and the queue."""
    backoffs = sum(
        retry_delay(number, base=service.backoff, jitter=service.jitter, uniform=lambda: 1.0)
        for number in range(1, attempts)
    )
    return attempts * timeout + backoffs + QUEUE_ALLOWANCE


def _view(runtime: Runtime, service: Service, ends: float) -> BreakerView:
    """The service's view; one that knows nothing yet, when a silent broker keeps this process from making it in time."""
    if runtime.memory or math.isinf(ends):
        return runtime.views.of(service)
    return runtime.views.within(max(0.0, ends - time.monotonic()), service)


def _take_trial(view: BreakerView, id: str, ends: float) -> bool:
    """Whether the trial is this call's. A broker that is silent may take longer than the caller has time: then it is not."""
    if math.isinf(ends):
        return view.take_trial(id)
    claim = threading.Lock()  # the first one to take it decides: the trial comes in time, or its caller is gone

    def take() -> None:
        if view.take_trial(id) and not claim.acquire(blocking=False):
            view.trial_inconclusive(id)

    try:
        within(ends - time.monotonic(), take, None)
    finally:
        came_in_time = not claim.acquire(blocking=False)
    return came_in_time


def payload_of(runtime: Runtime, call: Call, original: dict[str, Any]) -> Any:
    return LocalCall(call, original) if runtime.memory else encode(call)


def admit(runtime: Runtime, service: Service, id: str, ends: float = math.inf) -> bool:
    """Whether this call is the breaker's trial. Raises ServiceUnavailable when the breaker refuses it.

    By `ends`, a monotonic time, its caller wants an answer.
    """
    view = _view(runtime, service, ends)
    admission = view.admit()
    if admission.passes:
        return False
    if admission.may_take_trial and _take_trial(view, id, math.inf if runtime.memory else ends):
        return True
    runtime.engine.tally.add(service.key, "refused")
    view.logger.warning("[%s] Circuit breaker OPEN - rejecting request", service.name)
    raise refusal(view, admission=admission)


def abandon_trial(runtime: Runtime, service: Service, id: str) -> None:
    """Called while a call ends for its caller, by an error or an interrupt. If it holds the breaker's trial, and neither runs
    nor ever will, the slot goes back: the next trial then waits for its time, and not for a lease.

    The broker is asked elsewhere; only a caller that is interrupted waits for that a little, for its process may be about to end.
    """
    view = runtime.views.all().get(service.key)
    if view is None or view.record.trial != id:
        return
    error = sys.exception()
    was_refused = isinstance(error, BrokerUnavailable) and not error.written
    patience = 0.0 if isinstance(error, Exception) else LAST_WORD
    with contextlib.suppress(RuntimeError):  # no thread can be started: then it is the lease that ends
        within(patience, lambda: view.trial_inconclusive(id) if was_refused else _cancel(runtime, service, id), None)


def call_and_wait(
    runtime: Runtime, service: Service, call: Call, original: dict[str, Any], deadline: float, ends: float
) -> Any:
    """The response. Raises what the last attempt raised, or the error of errors.py that says why there is none."""
    runtime.ready()
    waiter = runtime.engine.mailbox.expect(call.id, service=service.name, request=_request_of(call))
    runtime.waiting.add(call, waiter)
    try:
        outcome = _queue_and_wait(runtime, service, call, original, deadline, ends, waiter)
    finally:
        runtime.waiting.remove(call)
        runtime.engine.mailbox.forget(call.id)
    if outcome.breaker is not None:
        runtime.views.of(service).observe(outcome.breaker)
    try:
        if outcome.error is not None:
            raise outcome.error
        return outcome.response
    finally:
        del outcome, waiter  # its traceback holds this frame: without a cycle it goes when its catcher lets go of it


def _request_of(call: Call) -> requests.PreparedRequest:
    """What `response.request` shows: the call as its caller knows it, without the token."""
    request = requests.PreparedRequest()
    request.method, request.url, request.body = call.method, call.origin + call.target, call.body
    request.headers = CaseInsensitiveDict(call.headers)
    return request


def _queue_and_wait(
    runtime: Runtime,
    service: Service,
    call: Call,
    original: dict[str, Any],
    deadline: float,
    ends: float,
    waiter: LocalWaiter,
) -> Outcome:
    if time.monotonic() >= ends:
        raise _too_late(service, call, deadline, "it was not sent and never will be")
    mailbox = runtime.engine.mailbox
    put = Put(
        queue_names(service.key)[0],
        call.id,
        payload_of(runtime, call, original),
        expires_in=deadline,
        hand=not service.max_in_flight,
        mailbox=mailbox.address,
        mark=mailbox.mark,
    )
    try:
        accepted = _put(runtime.engine.queue, put, ends)
        if isinstance(accepted, Exception):
            raise accepted
    except QueueFull:
        raise
    except BrokerUnavailable as error:
        return _without_broker(runtime, service, call, original, error, ends)
    outcome = None if accepted is None else _wait_for_worker(runtime, service, call, accepted, waiter, ends)
    if outcome is None:
        outcome = waiter.wait(ends - time.monotonic())
    return outcome or _give_up(runtime, service, call, deadline, ends, waiter)


def _put(queue: QueueStore, put: Put, ends: float) -> Accepted | Exception | None:
    """None: the time is over, and the call is still on its way to the queue. To connect can take longer than a caller has."""
    if queue.at_hand:
        return queue.put([put])[0]

    def ask() -> Accepted | Exception:
        try:
            return queue.put([put])[0]
        except Exception as error:
            return error

    return within(ends - time.monotonic(), ask, None)


def _wait_for_worker(
    runtime: Runtime, service: Service, call: Call, accepted: Accepted, waiter: LocalWaiter, ends: float
) -> Outcome | None:
    """With no worker at hand when the call was queued, look again soon instead of waiting for the whole deadline."""
    if accepted.workers > 0:
        return None
    outcome = waiter.wait(min(WORKER_CHECK, ends - time.monotonic()))
    if outcome is not None:
        return outcome
    queue = queue_names(service.key)[0]

    def take_back_unless_served() -> Cancelled:
        try:
            served = runtime.engine.queue.workers_serving(queue) > 0
        except (BrokerUnavailable, ResponseError):
            return Cancelled("unknown")
        return Cancelled("running") if served else _cancel(runtime, service, call.id, "expired")

    answer = within(ends - time.monotonic(), take_back_unless_served, Cancelled("unknown"))
    if answer.state != "cancelled":
        return None
    fate = _fate(answer) if answer.progress.attempt or answer.deaths else "nothing was sent"
    raise NoWorker(
        f"[{service.name}] no running worker serves queue {queue!r}; {fate}. "
        "Start one with `seawall worker MODULE`, where MODULE declares the service",
        service=service.name,
    )


def _give_up(
    runtime: Runtime, service: Service, call: Call, deadline: float, ends: float, waiter: LocalWaiter
) -> Outcome:
    patience = ends + LAST_WORD - time.monotonic()  # less, where the queue has taken more than its time
    answer = within(patience, lambda: _cancel(runtime, service, call.id, "expired"), Cancelled("unknown"))
    outcome = waiter.wait(0.0)
    if outcome is not None:  # it came at the last moment
        return outcome
    raise _too_late(service, call, deadline, _fate(answer))


def _too_late(service: Service, call: Call, deadline: float, fate: str) -> DeadlineExceeded:
    text = f"[{service.name}] {call.method} {path_only(call.target)} got no answer within {deadline:g} s; {fate}"
    return DeadlineExceeded(text, service=service.name)


def _fate(answer: Cancelled) -> str:
    """What is known of a call whose caller gives up."""
    if answer.state == "running":
        return "it is running and may still be carried out"
    if answer.state == "unknown":
        return "it may have been carried out"
    if answer.deaths:
        return "it may have been carried out, because a worker died with it; it will not be sent again"
    tried = answer.progress.attempt
    return (
        f"{tried} attempt(s) had failed, no further one will be made" if tried else "it was not sent and never will be"
    )


def _cancel(runtime: Runtime, service: Service, id: str, outcome: str = "cancelled") -> Cancelled:
    """Take the call back. Had it taken the breaker's trial, that goes back too, and not only when its lease ends."""
    try:
        answer = runtime.engine.queue.cancel(queue_names(service.key)[0], [id], outcome)[0]
    except (BrokerUnavailable, ResponseError):
        return Cancelled("unknown")
    view = runtime.views.of(service)
    if answer.state != "running" and view.record.trial == id:  # one that ended has told the breaker before it went
        view.trial_inconclusive(id)
    return answer


def _without_broker(
    runtime: Runtime, service: Service, call: Call, original: dict[str, Any], error: BrokerUnavailable, ends: float
) -> Outcome:
    if service.when_broker_down == "raise":
        raise BrokerUnavailable(f"[{service.name}] {error}", service=service.name, written=error.written) from error
    if error.written and call.method not in IDEMPOTENT:
        raise OutcomeUnknown(
            f"[{service.name}] the broker was lost while {call.method} {path_only(call.target)} was queued; "
            "it may or may not be carried out",
            service=service.name,
        ) from error
    view = _view(runtime, service, ends)
    return run_directly(view, service, runtime.token, call, original, error, ends, runtime.engine.tally)
