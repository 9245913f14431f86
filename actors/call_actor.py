"""A service's actor: makes one attempt of one call, and decides what becomes of it.

One attempt per delivery: a failed one goes back to the broker with a delay, so that no thread sleeps. Nothing is locked
while a request runs. The breaker learns of calls (the last attempt of one, or of a round), not of attempts.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Any, Protocol

import requests

from seawall.actors.backoff import parse_retry_after, retry_delay, round_delay
from seawall.actors.delivered import Delivered
from seawall.actors.queue_store import Bury, Done, Later, Release, Settlement
from seawall.actors.reasons import Verdict, judge_error, judge_status, plain_words
from seawall.actors.record import Attempt, Call, Progress
from seawall.actors.redact import path_only
from seawall.actors.replies import Outcome
from seawall.actors.service import RETRY_AFTER_CAP, Service
from seawall.actors.failures import may_have_been_sent
from seawall.actors.transport import OriginMismatch
from seawall.errors import CallFailed, OutcomeUnknown, ServiceUnavailable
from seawall.supervisor.breaker import State
from seawall.supervisor.view import BreakerView

__all__ = ["CallActor", "Send", "refusal"]


class Send(Protocol):
    def __call__(self, call: Call, *, original: dict[str, Any] | None = None) -> Any: ...


class CallActor:
    """Serves both queues of one service in one process. Called by Dramatiq's worker threads with a delivered call."""

    def __init__(
        self,
        service: Service,
        send: Send,
        view: BreakerView,
        *,
        backoff: float = 1.0,
        uniform: Callable[[], float] = random.random,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`now` is the breaker's clock (the server's, in seconds); `uniform` gives jitter in [0, 1).

        `backoff` scales the waits between attempts; tests set it to 0.
        """
        self.service = service
        self._send = send
        self._view = view
        self._backoff = backoff
        self._uniform = uniform
        self._now = now
        self._log = logging.getLogger(service.logger_name)

    def __call__(self, delivered: Delivered) -> None:
        call = delivered.call
        assert call is not None
        try:
            delivered.settlement = self._refuse(delivered, call) or self._attempt(delivered, call)
        except Exception as error:
            self._log.exception("[%s] call %s met an error that nobody expected", self.service.name, call.id)
            delivered.settlement = self._after_bug(delivered, call, error)
        if isinstance(delivered.settlement, Bury):
            delivered.reason = delivered.settlement.reason
            delivered.fail()

    def _refuse(self, delivered: Delivered, call: Call) -> Settlement | None:
        """What becomes of a call that must not be sent now; None for one that may."""
        if call.service != self.service.key or call.origin != self.service.origin:
            return self._reject(call)
        if delivered.delivery.trial or call.trial or self._view.record.state is State.CLOSED:
            return None
        if not call.waited:
            return self._hold(call)
        progress = delivered.delivery.progress
        error = refusal(self.service.name, self._view.admit().retry_after, progress)
        return self._done(call, Outcome(error=error, attempts=progress.attempt))

    def _reject(self, call: Call) -> Settlement:
        text = (
            f"[{self.service.name}] the call is for {call.service} at {call.origin}, "
            f"this worker serves {self.service.key} at {self.service.origin}; it lies in the dead letters"
        )
        self._log.error("%s", text)
        error = CallFailed(text, service=self.service.name, reason="rejected")
        return Bury("rejected", Outcome(error=error), call.reply_to)

    def _hold(self, call: Call) -> Settlement:
        if call.on_open == "skip":
            self._log.warning("[%s] Circuit breaker OPEN - skipping background call", self.service.name)
            return self._done(call, Outcome(error=refusal(self.service.name, self._view.admit().retry_after)))
        return Release()

    def _attempt(self, delivered: Delivered, call: Call) -> Settlement:
        progress = delivered.delivery.progress
        number, what = progress.attempt + 1, f"{call.method} {path_only(call.target)}"
        started, generation = self._now(), self._view.generation
        self._log.info("[%s] %s (attempt %d/%d)", self.service.name, what, number, call.max_attempts)
        response, error = None, None
        try:
            response = self._send(call, original=delivered.original)
        except OriginMismatch:
            return self._reject(call)
        except Exception as caught:
            error = caught
        verdict = self._judge(response, error)
        attempt = Attempt(started, verdict.text or "ok", round(self._now() - started, 4))
        if verdict.ok:
            return self._succeeded(delivered, call, response, what, number, started, generation)
        self._log_failure(verdict, error, number, call.max_attempts)
        return self._failed(delivered, call, verdict, response, error, attempt, generation)

    def _judge(self, response: Any, error: Exception | None) -> Verdict:
        if error is None:
            headers = getattr(response, "headers", None) or {}
            return judge_status(
                getattr(response, "status_code", None), parse_retry_after(headers.get("Retry-After"), cap=RETRY_AFTER_CAP)
            )
        verdict = judge_error(error)
        if verdict is None:
            raise error
        return verdict

    def _log_failure(self, verdict: Verdict, error: Exception | None, number: int, most: int) -> None:
        detail = f": {plain_words(error)}" if error is not None else ""
        self._log.warning("[%s] %s on attempt %d/%d%s", self.service.name, verdict.text, number, most, detail)

    def _succeeded(
        self, delivered: Delivered, call: Call, response: Any, what: str, number: int, started: float, generation: int
    ) -> Settlement:
        status = getattr(response, "status_code", None)
        if isinstance(status, int) and status >= 400:
            level = logging.INFO if call.waited else logging.WARNING
            self._log.log(level, "[%s] %s answered %d", self.service.name, what, status)
        else:
            self._log.info("[%s] ✓ %s succeeded", self.service.name, what)
        if self._is_trial(delivered, call):
            self._view.trial_succeeded(call.id)
        else:
            self._view.succeeded(started, generation)
        return self._done(call, Outcome(response=response, attempts=number))

    def _failed(
        self,
        delivered: Delivered,
        call: Call,
        verdict: Verdict,
        response: Any,
        error: Exception | None,
        attempt: Attempt,
        generation: int,
    ) -> Settlement:
        progress = delivered.delivery.progress
        number, trial = progress.attempt + 1, self._is_trial(delivered, call)
        sent = not call.resend and (error is None or may_have_been_sent(error))
        if verdict.retry and not trial and not sent and number < call.max_attempts:
            delay = retry_delay(number, base=self.service.backoff, jitter=self.service.jitter, uniform=self._uniform)
            shown = self.service.backoff * 2 ** (number - 1)
            if verdict.retry_after is not None and verdict.retry_after > delay:
                delay = shown = verdict.retry_after
            self._log.info("[%s] Retrying in %gs...", self.service.name, shown)
            return Later(delay * self._backoff, progress.failed_attempt(attempt))
        self._log.error("[%s] ✗ All %d retry attempts failed", self.service.name, number)
        self._count(call, verdict, error, attempt, trial, generation)
        if call.waited and error is None and not verdict.failure:
            return self._done(call, Outcome(response=response, attempts=number))
        if call.waited:
            return self._done(call, Outcome(error=self._last_error(call, response, error, sent), attempts=number))
        return self._next_round(delivered, call, verdict, response, error, attempt, trial, sent)

    def _count(
        self, call: Call, verdict: Verdict, error: Exception | None, attempt: Attempt, trial: bool, generation: int
    ) -> None:
        """Tell the breaker: a failed call, a failed trial, or a trial that showed nothing."""
        words = f"{verdict.text}: {plain_words(error)}" if error is not None else verdict.text
        if trial and verdict.failure:
            self._view.trial_failed(call.id, words)
        elif trial:
            self._view.trial_inconclusive(call.id)
        elif verdict.failure:
            self._view.failed(attempt.at, generation, words)

    def _last_error(self, call: Call, response: Any, error: Exception | None, sent: bool) -> Exception:
        """What the caller gets: the attempt's own exception, or requests' HTTPError for a 5xx, a 408 or a 429 answer."""
        if error is None:
            return http_error(response, call)
        if sent and may_have_been_sent(error):
            unknown = OutcomeUnknown(
                f"[{self.service.name}] {call.method} {path_only(call.target)} may have been carried out: {plain_words(error)}",
                service=self.service.name,
            )
            unknown.__cause__ = error
            return unknown
        return error

    def _next_round(
        self,
        delivered: Delivered,
        call: Call,
        verdict: Verdict,
        response: Any,
        error: Exception | None,
        attempt: Attempt,
        trial: bool,
        sent: bool,
    ) -> Settlement:
        progress = delivered.delivery.progress
        if sent:
            return Bury("outcome unknown", self._outcome(call, self._last_error(call, response, error, sent)), call.reply_to)
        if trial:
            tried = Progress(attempt=progress.attempt, round=progress.round, history=progress.failed_attempt(attempt).history)
            return Release(first=False, progress=tried)
        failed = progress.failed_round(attempt)
        if call.rounds and failed.round >= call.rounds:
            text = f"[{self.service.name}] the call failed in {failed.round} round(s): {attempt.outcome}"
            outcome = self._outcome(call, CallFailed(text, service=self.service.name, reason="rounds used up"))
            return Bury("rounds used up", outcome, call.reply_to)
        delay = max(round_delay(failed.round, self.service.recovery_timeout), verdict.retry_after or 0.0)
        self._log.info("[%s] background call %s waits %gs for its next round", self.service.name, call.id, delay)
        return Later(delay, failed)

    def _after_bug(self, delivered: Delivered, call: Call, error: Exception) -> Settlement:
        if call.waited:
            return self._done(call, Outcome(error=error))
        attempt = Attempt(self._now(), f"bug: {type(error).__name__}", 0.0)
        progress = delivered.delivery.progress.failed_round(attempt)
        return Later(round_delay(progress.round, self.service.recovery_timeout), progress)

    def _is_trial(self, delivered: Delivered, call: Call) -> bool:
        return delivered.delivery.trial or call.trial

    def _done(self, call: Call, outcome: Outcome) -> Done:
        outcome.breaker = self._view.record
        return Done(outcome, call.reply_to, call.keep_result)

    def _outcome(self, call: Call, error: Exception) -> Outcome:
        return Outcome(error=error, breaker=self._view.record)


def refusal(service: str, retry_after: float, progress: Progress | None = None) -> ServiceUnavailable:
    """The error of a call that an open breaker refuses; its cause is the attempt that the call had made before, if any."""
    error = ServiceUnavailable(
        f"[{service}] Circuit breaker OPEN - rejecting request (next trial in {retry_after:.0f} s)",
        service=service,
        retry_after=retry_after,
    )
    if progress is not None and progress.history:
        error.__cause__ = requests.RequestException(f"[{service}] {progress.history[-1].outcome}")
    return error


def http_error(response: Any, call: Call) -> Exception:
    """requests' own HTTPError, with the response in it."""
    kind = "Server" if response.status_code >= 500 else "Client"
    reason = getattr(response, "reason", "")
    return requests.HTTPError(
        f"{response.status_code} {kind} Error: {reason} for {call.method} {path_only(call.target)}", response=response
    )
