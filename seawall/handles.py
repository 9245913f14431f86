"""The handle of a background call: where it is, what came of it, and a way to take it back."""

from __future__ import annotations

import math
import time
from typing import Any

from seawall import runtime as runtimes
from seawall.actors.engine import Engine
from seawall.actors.queue_store import Standing
from seawall.actors.record import Attempt
from seawall.actors.replies import Outcome, taken_back
from seawall.actors.service import Service
from seawall.errors import (
    BrokerUnavailable,
    CallCancelled,
    CallFailed,
    DeadlineExceeded,
    ResultExpired,
    ServiceUnavailable,
)

__all__ = ["CallStatus", "Handle"]

#: Seconds after which result() asks the queue again whether the call is over.
LOOK_AGAIN = 5.0


class CallStatus(str):
    """Where a call is, as a word; with `due_at` and `reason` where there are any. `over` says whether it has ended.

    queued, held (the breaker is open), due (it waits for its time, or for its next attempt), running; succeeded, failed,
    expired (both lie in the dead letters), cancelled, skipped; gone (it ended too long ago to be known).
    """

    __slots__ = ("due_at", "reason")

    due_at: float | None
    """Seconds since the epoch at which a call that is due may start."""
    reason: str
    """Why a call failed, expired, was cancelled or was skipped; empty for others."""

    def __new__(cls, word: str, *, due_at: float | None = None, reason: str = "") -> CallStatus:
        status = super().__new__(cls, word)
        status.due_at, status.reason = due_at, reason
        return status

    @property
    def over(self) -> bool:
        """Whether it ended, well or not."""
        return self not in ("queued", "held", "due", "running")


class Handle:
    """A call that was enqueued, with the manners of `concurrent.futures.Future`. Cheap to keep, cheap to drop."""

    __slots__ = ("_outcome", "_queue", "_service", "deduped", "id", "replaced")

    def __init__(self, id: str, service: Service, queue: str, *, replaced: str = "", deduped: bool = False) -> None:
        self.id = id
        self.replaced = replaced
        """The id of the waiting call that this one took the place of (`coalesce=`), or empty."""
        self.deduped = deduped
        """Whether it is the handle of an earlier call with the same key (`dedupe=`)."""
        self._service = service
        self._queue = queue
        self._outcome: Outcome | None = None

    @classmethod
    def skipped(cls, id: str, service: Service, queue: str) -> Handle:
        """The handle of a call that was dropped because the breaker was open (`on_open="skip"`)."""
        handle = cls(id, service, queue)
        text = f"[{service.name}] Circuit breaker OPEN - the call was skipped"
        handle._outcome = Outcome(error=ServiceUnavailable(text, service=service.name))
        return handle

    def __repr__(self) -> str:
        return f"<call {self.id} to {self._service.key}>"

    def status(self) -> CallStatus:
        """Where the call is: a string such as "held" or "failed", with `due_at` and `reason`. Raises BrokerUnavailable.

        >>> handle.status(), handle.status().reason  # doctest: +SKIP
        ('failed', 'rounds used up')
        """
        if self._outcome is not None and not isinstance(self._outcome.error, ResultExpired):
            return _ended(self._outcome)
        standing = self._standing()
        if standing.where in ("ready", "due"):
            return self._waits(standing)
        if standing.where == "done":
            return _ended(standing.outcome or Outcome())
        if standing.where == "dead":
            return _died(standing.reason)
        return CallStatus("running" if standing.where == "leased" else "gone")

    def _waits(self, standing: Standing) -> CallStatus:
        house = runtimes.current()
        if standing.due_in:
            return CallStatus("due", due_at=house.engine.breakers.now() + standing.due_in)
        return CallStatus("queued" if house.views.of(self._service).admit().passes else "held")

    def attempts(self) -> tuple[Attempt, ...]:
        """The failed attempts of a call that waits, runs or lies in the dead letters; nothing is kept of one that is over.

        Each has `at` (server time), `outcome` (what came of it) and `took`, in seconds.
        """
        return self._standing().progress.history

    def done(self) -> bool:
        """Whether the call is over, well or not."""
        return self.status().over

    def cancel(self) -> bool:
        """Take the call back. False when it runs or is over already."""
        if self._outcome is not None:
            return False
        answer = runtimes.current().engine.queue.cancel(self._queue, [self.id])[0]
        if answer.state == "cancelled":
            self._outcome = Outcome(error=taken_back(self._service.name, answer.deaths))
        return answer.state == "cancelled"

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the response, for at most `timeout` seconds. Raises what the call raised, or

        - DeadlineExceeded (a TimeoutError): not over yet
        - ResultExpired: over, but its result is gone or was not kept (`keep_result=`)
        - CallFailed, CallCancelled, BrokerUnavailable
        """
        if self._outcome is None:
            self._outcome = self._wait(timeout)
        if self._outcome.error is not None:
            raise self._outcome.error
        return self._outcome.response

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What `result` would raise about the call itself, or None."""
        if self._outcome is None:
            self._outcome = self._wait(timeout)
        return self._outcome.error

    def _wait(self, timeout: float | None) -> Outcome:
        engine = runtimes.current().engine
        ends = math.inf if timeout is None else time.monotonic() + timeout
        with runtimes.current().results.waiter(engine.mailbox, self.id, self._service.name) as waiter:
            outcome = engine.queue.watch(self._queue, self.id, engine.mailbox)
            while outcome is None and (left := ends - time.monotonic()) > 0:
                outcome = waiter.wait(min(left, LOOK_AGAIN)) or self._look_again(engine)
        if outcome is None:
            text = f"[{self._service.name}] call {self.id} is not over after {timeout} s"
            raise DeadlineExceeded(text, service=self._service.name)
        return outcome

    def _look_again(self, engine: Engine) -> Outcome | None:
        """A reply is lost when a connection breaks just as it arrives, so once in a while the queue itself is asked."""
        try:
            return engine.queue.watch(self._queue, self.id, engine.mailbox)
        except BrokerUnavailable:
            return None

    def _standing(self) -> Standing:
        return runtimes.current().engine.queue.standing(self._queue, self.id)


def _died(reason: str) -> CallStatus:
    return CallStatus("expired" if reason == "expired" else "failed", reason=reason)


def _ended(outcome: Outcome) -> CallStatus:
    """How a background call ended: one that failed for good is a dead letter, unless it was taken back or dropped."""
    match outcome.error:
        case None:
            return CallStatus("succeeded")
        case CallCancelled():
            return CallStatus("cancelled", reason=str(outcome.error))
        case ServiceUnavailable():
            return CallStatus("skipped", reason=str(outcome.error))
        case CallFailed() as error:
            return _died(error.reason)
    return CallStatus("failed", reason=str(outcome.error))
