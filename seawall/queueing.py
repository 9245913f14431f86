"""Background calls into their queue, many in one round trip."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from seawall.actors.queue_store import Accepted, Put
from seawall.actors.record import Call
from seawall.actors.service import Service, queue_names
from seawall.calling import payload_of
from seawall.errors import BrokerUnavailable, QueueFull
from seawall.handles import Handle
from seawall.runtime import Runtime

__all__ = ["BackgroundOptions", "enqueue_all"]


class BackgroundOptions(msgspec.Struct, frozen=True):
    """How a background call is queued; durations are seconds."""

    delay: float = 0.0
    expires_in: float | None = None
    coalesce: str = ""
    on_open: Literal["hold", "skip"] = "hold"
    keep_result: float = 0.0
    rounds: int = 0

    @classmethod
    def pop_from(cls, keywords: dict[str, Any], *, keep_result: float) -> BackgroundOptions:
        """Take these options out of a call's keywords; the others are left for the request."""
        names = ("delay", "expires_in", "coalesce", "on_open", "keep_result", "rounds")
        given = {name: keywords.pop(name) for name in names if name in keywords}
        return cls(**{"keep_result": keep_result, **given})

    def check(self) -> None:
        """Raises ValueError or TypeError for an option that makes no sense."""
        if self.delay < 0:
            raise ValueError(f"delay must not be negative, got {self.delay} s")
        if self.expires_in is not None and self.expires_in <= self.delay:
            raise ValueError(f"expires_in ({self.expires_in} s) must be longer than delay ({self.delay} s)")
        if self.on_open not in ("hold", "skip"):
            raise ValueError(f"on_open must be 'hold' or 'skip', not {self.on_open!r}")
        if self.keep_result < 0 or self.rounds < 0:
            raise ValueError("keep_result and rounds must not be negative")
        if not isinstance(self.coalesce, str):
            raise TypeError(f"coalesce must be a string, not {type(self.coalesce).__name__}")


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
        if _skipped(runtime, service, call):
            answers[place] = Handle.skipped(call[0].id, service, queue_names(service.key)[1])
            continue
        puts.append(_put(runtime, service, call))
        places.append(place)
    for place, answer in zip(places, _accept(runtime, service, puts), strict=True):
        answers[place] = answer
    return [answer for answer in answers if answer is not None]


def _skipped(runtime: Runtime, service: Service, call: Prepared) -> bool:
    """A call that is to be dropped while the breaker is open, as in the guide's best-effort pattern."""
    if call[2].on_open != "skip" or runtime.views.of(service).admit().passes:
        return False
    logging.getLogger(service.logger_name).warning("[%s] Circuit breaker OPEN - skipping background call", service.name)
    return True


def _put(runtime: Runtime, service: Service, call: Prepared) -> Put:
    record, original, how = call
    return Put(
        queue_names(service.key)[1],
        record.id,
        payload_of(runtime, record, original),
        delay=how.delay,
        expires_in=service.expires_in if how.expires_in is None else how.expires_in,
        coalesce=how.coalesce,
        cap=service.queue_cap,
    )


def _accept(runtime: Runtime, service: Service, puts: Sequence[Put]) -> list[Handle | Exception]:
    if not puts:
        return []
    try:
        answers = runtime.engine.queue.put(puts)
    except BrokerUnavailable as error:
        maybe = "it may have been queued all the same" if error.written else "nothing was queued"
        gone = BrokerUnavailable(f"[{service.name}] {error}; {maybe}", service=service.name, written=error.written)
        gone.__cause__ = error
        return [gone] * len(puts)
    return [_handle(service, put, answer) for put, answer in zip(puts, answers, strict=True)]


def _handle(service: Service, put: Put, answer: Accepted | Exception) -> Handle | Exception:
    if isinstance(answer, Exception):
        return answer
    if not answer.accepted:
        return QueueFull(
            f"[{service.name}] the background queue holds {service.queue_cap} calls, its cap; the call was not queued",
            service=service.name,
        )
    return Handle(put.id, service, put.queue, replaced=answer.replaced)
