"""Background calls into their queue, many in one round trip."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from seawall.actors.queue_store import Accepted, Put
from seawall.actors.reasons import retry_rules
from seawall.actors.record import Call
from seawall.actors.service import Service, queue_names
from seawall.calling import payload_of
from seawall.errors import BrokerUnavailable, QueueFull
from seawall.handles import Handle
from seawall.runtime import Runtime

__all__ = ["BackgroundOptions", "Prepared", "enqueue_all", "is_skipped", "put_of"]


#: Seconds for which a dedupe key stands, as in the FIFO queues of Amazon SQS.
DEFAULT_DEDUPE_WINDOW = 300.0


class BackgroundOptions(msgspec.Struct, frozen=True):
    """How a background call is queued. Durations are seconds, `not_before` is seconds since the epoch."""

    delay: float = 0.0
    not_before: float = 0.0
    expires_in: float | None = None
    coalesce: str = ""
    dedupe: str = ""
    dedupe_window: float = DEFAULT_DEDUPE_WINDOW
    on_open: Literal["hold", "skip"] = "hold"
    keep_result: float = 0.0
    rounds: int = 0
    retry_on: tuple[int | str, ...] = ()
    tick: tuple[str, float] | None = None
    """The tick of a schedule that this call is for."""

    @classmethod
    def pop_from(cls, keywords: dict[str, Any], *, keep_result: float | None = None) -> BackgroundOptions:
        """Take these options out of a call's keywords; the others are left for the request.

        Without a `keep_result` of its own the call has none. Raises ValueError or TypeError for an option that makes no sense.
        """
        names = [name for name in cls.__struct_fields__ if name not in ("keep_result", "tick")]
        names += ["keep_result"] if keep_result is not None else []
        given = {name: keywords.pop(name) for name in names if name in keywords}
        if "not_before" in given:
            given["not_before"] = _moment(given["not_before"])
        if "retry_on" in given:
            given["retry_on"] = retry_rules(given["retry_on"])
        how = cls(**{"keep_result": keep_result or 0.0, **given})
        how._check()
        return how

    def _check(self) -> None:
        for name in ("delay", "keep_result", "rounds", "dedupe_window", "expires_in"):
            value = getattr(self, name)
            if value is None and name == "expires_in":
                continue
            if isinstance(value, bool) or not isinstance(value, int if name == "rounds" else (int, float)):
                raise TypeError(f"{name} must be a number, not {value!r}")
            if value < 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        if self.on_open not in ("hold", "skip"):
            raise ValueError(f"on_open must be 'hold' or 'skip', not {self.on_open!r}")
        for name in ("coalesce", "dedupe"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} must be a string, not {type(getattr(self, name)).__name__}")
        for name in ("dedupe_window", "expires_in"):
            if getattr(self, name) == 0:
                raise ValueError(f"{name} must be a positive number of seconds, not 0")

    def lifetime(self, service: Service) -> float:
        """Seconds after which the call is given up. Raises ValueError when it could not start before."""
        expires_in = service.expires_in if self.expires_in is None else self.expires_in
        start = max(self.delay, self.not_before - time.time() if self.not_before else 0.0)
        if expires_in <= start:
            raise ValueError(f"the call would expire (expires_in={expires_in:g} s) before it may start, in {start:g} s")
        return expires_in


def _moment(when: object) -> float:
    """A `not_before=` as seconds since the epoch. A time of day means nothing without its time zone."""
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise ValueError("not_before needs a time zone, such as datetime.now(UTC)")
        return when.timestamp()
    if isinstance(when, bool) or not isinstance(when, (int, float)) or not math.isfinite(when):
        raise TypeError(f"not_before must be a datetime or seconds since the epoch, not {when!r}")
    return float(when)


Prepared = tuple[Call, dict[str, Any], BackgroundOptions]


def enqueue_all(runtime: Runtime, service: Service, calls: Sequence[Prepared | Exception]) -> list[Handle | Exception]:
    """A handle or an exception for each call, in order. Raises nothing."""
    runtime.ready()
    answers: list[Handle | Exception | None] = [call if isinstance(call, Exception) else None for call in calls]
    puts: list[Put] = []
    places: list[int] = []
    for place, call in enumerate(calls):
        if isinstance(call, Exception):
            continue
        if is_skipped(runtime, service, call):
            answers[place] = Handle.skipped(call[0].id, service, queue_names(service.key)[1])
            continue
        puts.append(put_of(runtime, service, call))
        places.append(place)
    for place, answer in zip(places, _accept(runtime, service, puts), strict=True):
        answers[place] = answer
    return [answer for answer in answers if answer is not None]


def is_skipped(runtime: Runtime, service: Service, call: Prepared) -> bool:
    """A call that is to be dropped while the breaker is open, as in the guide's best-effort pattern."""
    if call[2].on_open != "skip" or runtime.views.of(service).admit().passes:
        return False
    logging.getLogger(service.logger_name).warning("[%s] Circuit breaker OPEN - skipping background call", service.name)
    runtime.engine.tally.add(service.key, "skipped")
    return True


def put_of(runtime: Runtime, service: Service, call: Prepared) -> Put:
    record, original, how = call
    return Put(
        queue_names(service.key)[1],
        record.id,
        payload_of(runtime, record, original),
        delay=how.delay,
        not_before=how.not_before,
        expires_in=how.lifetime(service),
        coalesce=how.coalesce,
        dedupe=how.dedupe,
        dedupe_window=how.dedupe_window,
        tick=how.tick,
        cap=service.queue_cap,
        cap_bytes=service.queue_cap_bytes,
    )


def _accept(runtime: Runtime, service: Service, puts: Sequence[Put]) -> list[Handle | Exception]:
    if not puts:
        return []
    try:
        answers = runtime.engine.queue.put(puts)
    except BrokerUnavailable as error:
        return [_gone(service, error)] * len(puts)
    return [_handle(service, put, answer) for put, answer in zip(puts, answers, strict=True)]


def _gone(service: Service, error: BrokerUnavailable) -> BrokerUnavailable:
    maybe = "it may have been queued all the same" if error.written else "nothing was queued"
    gone = BrokerUnavailable(
        f"[{service.name}] {str(error).rstrip('.')}; {maybe}", service=service.name, written=error.written
    )
    gone.__cause__ = error
    return gone


def _handle(service: Service, put: Put, answer: Accepted | Exception) -> Handle | Exception:
    if isinstance(answer, BrokerUnavailable) and not isinstance(answer, QueueFull):
        return _gone(service, answer)
    if isinstance(answer, Exception):
        return answer
    if not answer.accepted:
        cap = f"{service.queue_cap_bytes} bytes" if answer.full == "bytes" else f"{service.queue_cap} calls"
        text = f"[{service.name}] the background queue has reached its cap of {cap}; the call was not queued"
        return QueueFull(text, service=service.name)
    if answer.first is not None:
        return Handle(answer.first, service, put.queue, deduped=True)
    return Handle(put.id, service, put.queue, replaced=answer.replaced)
