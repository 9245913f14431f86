"""The handle of a background call: where it is, what came of it, and a way to take it back."""

from __future__ import annotations

import math
import time
from typing import Any

from seawall import runtime as runtimes
from seawall.actors.engine import Engine
from seawall.actors.queue_store import Standing
from seawall.actors.record import Attempt
from seawall.actors.replies import Outcome
from seawall.actors.service import Service
from seawall.errors import BrokerUnavailable, CallCancelled, DeadlineExceeded, ResultExpired, ServiceUnavailable

__all__ = ["Handle"]

#: Seconds after which result() asks the queue again whether the call is over.
LOOK_AGAIN = 5.0


class Handle:
    """A call that was enqueued, with the manners of `concurrent.futures.Future`. Cheap to keep, cheap to drop."""

    __slots__ = ("_outcome", "_queue", "_service", "id", "replaced")

    def __init__(self, id: str, service: Service, queue: str, *, replaced: str = "") -> None:
        self.id = id
        self.replaced = replaced
        """The id of the waiting call that this one took the place of (`coalesce=`), or empty."""
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

    def status(self) -> str:
        """queued, held, due, running, succeeded, skipped, dead, cancelled or gone.

        `held` waits for the breaker, `due` for its time or its next attempt. `dead` lies in the dead letters. `gone` ended
        too long ago to be known.
        Raises BrokerUnavailable.
        """
        if self._outcome is not None and not isinstance(self._outcome.error, ResultExpired):
            return _ended(self._outcome)
        standing = self._standing()
        if standing.where in ("ready", "due"):
            closed = runtimes.current().views.of(self._service).admit().passes
            return "due" if standing.where == "due" else "queued" if closed else "held"
        if standing.where == "done":
            return _ended(standing.outcome or Outcome())
        return {"leased": "running", "dead": "dead"}.get(standing.where, "gone")

    def attempts(self) -> tuple[Attempt, ...]:
        """The failed attempts of a call that waits, runs or lies in the dead letters; nothing is kept of one that is over.

        Each has `at` (server time), `outcome` (what came of it) and `took`, in seconds.
        """
        return self._standing().progress.history

    def done(self) -> bool:
        """Whether the call is over, well or not."""
        return self.status() not in ("queued", "held", "due", "running")

    def cancel(self) -> bool:
        """Take the call back. False when it runs or is over already."""
        if self._outcome is not None:
            return False
        answer = runtimes.current().engine.queue.cancel(self._queue, [self.id])[0]
        if answer.state == "cancelled":
            text = f"[{self._service.name}] the call was cancelled before it started"
            self._outcome = Outcome(error=CallCancelled(text, service=self._service.name))
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


def _ended(outcome: Outcome) -> str:
    """How a background call ended: one that failed for good is a dead letter, unless it was taken back or dropped."""
    match outcome.error:
        case None:
            return "succeeded"
        case CallCancelled():
            return "cancelled"
        case ServiceUnavailable():
            return "skipped"
    return "dead"
