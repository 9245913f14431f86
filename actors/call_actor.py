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

import msgspec
import requests

from seawall.actors.backoff import parse_retry_after, retry_delay, round_delay
from seawall.actors.delivered import Delivered
from seawall.actors.failures import may_have_been_sent
from seawall.actors.meter import Meter
from seawall.actors.queue_store import Bury, Done, Later, Release, Settlement
from seawall.actors.reasons import Verdict, judge_error, judge_status, plain_words, ruled
from seawall.actors.record import Attempt, Call, Progress
from seawall.actors.redact import path_only
from seawall.actors.replies import Outcome
from seawall.actors.retry_budget import RetryBudget
from seawall.actors.service import RETRY_AFTER_CAP, Service
from seawall.actors.tracing import attempting, traced
from seawall.actors.transport import OriginMismatch
from seawall.errors import CallFailed, DeadlineExceeded, OutcomeUnknown, SeawallError, ServiceUnavailable
from seawall.supervisor.breaker import State, trial_is_live
from seawall.supervisor.view import Admission, BreakerView

__all__ = ["CallActor", "Send", "refusal", "refused_in_queue"]

#: Statuses by which a service says that it has too much to do: its Retry-After holds for all of its background calls.
BUSY_STATUSES = frozenset({429, 503})


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
        hold: Callable[[float], None] = lambda seconds: None,
        count: Callable[[str], None] = lambda what: None,
        budget: RetryBudget | None = None,
        meter: Meter | None = None,
    ) -> None:
        """`now` is the breaker's clock (the server's, in seconds); `uniform` gives jitter in [0, 1).

        `backoff` scales the waits between attempts; tests set it to 0. `hold(seconds)` keeps the service's background calls
        back everywhere, `count(what)` adds to the fleet's counts; without a `budget` nothing limits retries, without a `meter`
        attempts and ends are not counted.
        """
        self.service = service
        self._send = traced(send)
        self._view = view
        self._backoff = backoff
        self._uniform = uniform
        self._now = now
        self._hold_queue = hold
        self._count_one = count
        self._budget = budget
        self._meter = meter
        self._log = logging.getLogger(service.logger_name)

    def __call__(self, delivered: Delivered) -> None:
        call = delivered.call
        assert call is not None
        try:
            delivered.settlement = self._refuse(delivered, call) or self._traced(delivered, call)
        except Exception as error:
            self._log.exception("[%s] call %s met an error that nobody expected", self.service.name, call.id)
            delivered.settlement = self._after_bug(delivered, call, error)
        if self._meter is not None:
            delivered.settlement = self._meter.counted(delivered.settlement, delivered, call.waited)
        if isinstance(delivered.settlement, Bury):
            delivered.reason = delivered.settlement.reason
            if not call.waited:
                text = "[%s] call %s (%s %s) becomes a dead letter: %s"
                about = (self.service.name, call.id, call.method, path_only(call.target), delivered.reason)
                self._log.error(text, *about, extra={"service": call.service, "call": call.id})
            delivered.fail()

    def _refuse(self, delivered: Delivered, call: Call) -> Settlement | None:
        """What becomes of a call that must not be sent now; None for one that may."""
        if call.service != self.service.key or call.origin != self.service.origin:
            return self._reject(call)
        if 0 < delivered.delivery.start_by < self._now():
            return self._too_late(call)
        if delivered.delivery.deaths and not call.resend:
            return self._unknown(call)
        if self._view.record.state is State.CLOSED or self._is_trial(delivered, call):
            return None
        if not call.waited:
            return self._hold(call)
        progress = delivered.delivery.progress
        error = refused_in_queue(self._view, call, progress, delivered.delivery.deaths)
        return self._done(call, Outcome(error=error, attempts=progress.attempt))

    def _too_late(self, call: Call) -> Settlement:
        """This process stood still between the fetch and now."""
        text = f"[{self.service.name}] {call.method} {path_only(call.target)} was not sent: its time was over"
        if call.waited:
            return self._done(call, Outcome(error=DeadlineExceeded(text, service=self.service.name)))
        outcome = self._outcome(CallFailed(text, service=self.service.name, reason="expired"))
        return Bury("expired", outcome, call.reply_to)

    def _is_trial(self, delivered: Delivered, call: Call) -> bool:
        """Whether this delivery is the breaker's trial.

        A caller's trial that waited beyond its lease is one no more, nor is one whose worker died: it was made.
        """
        if delivered.delivery.trial or not call.trial or delivered.delivery.deaths:
            return delivered.delivery.trial
        if not self._holds_trial(call):
            self._view.refresh()  # its caller took it a moment ago: this process may not have heard of it yet
        return self._holds_trial(call)

    def _holds_trial(self, call: Call) -> bool:
        record = self._view.record
        return record.trial == call.id and trial_is_live(record, self._now())

    def _unknown(self, call: Call) -> Settlement:
        """A worker died with this call, and its service would not tell a repetition: it is never sent again."""
        outcome = self._outcome(_died_with(self.service.name, call))
        return Done(outcome, call.reply_to) if call.waited else Bury("outcome unknown", outcome, call.reply_to)

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
            self._count_one("skipped")
            return self._done(call, Outcome(error=refusal(self._view)))
        return Release()

    def _traced(self, delivered: Delivered, call: Call) -> Settlement:
        with attempting(delivered.delivery, call):
            return self._attempt(delivered, call)

    def _attempt(self, delivered: Delivered, call: Call) -> Settlement:
        one = _Try(delivered, call, self._now(), self._view.generation)
        one.trial = delivered.delivery.trial or (call.trial and self._holds_trial(call))
        self._log.info(
            "[%s] %s (attempt %d/%d)", self.service.name, one.what, one.number, call.max_attempts, extra=one.about
        )
        if self._budget is not None and one.is_first:
            self._budget.call()
        try:
            one.response = self._send(call, original=delivered.original)
        except OriginMismatch:
            return self._reject(call)
        except Exception as error:
            one.error = error
        one.verdict = ruled(_judge(one.response, one.error), call.retry_on, one.status, one.error)
        one.took = self._now() - one.started
        delivered.ran = (one.started, one.took)
        try:
            return self._succeeded(one) if one.verdict.ok else self._failed(one)
        finally:
            one.error = None  # its traceback has this frame: with all it read, it would lie about until a collection

    def _succeeded(self, one: _Try) -> Settlement:
        if one.status >= 400:
            level = logging.INFO if one.call.waited else logging.WARNING
            self._log.log(level, "[%s] %s answered %d", self.service.name, one.what, one.status, extra=one.about)
        else:
            self._log.info("[%s] ✓ %s succeeded", self.service.name, one.what, extra=one.about)
        if one.trial:
            self._view.trial_succeeded(one.call.id)
        else:
            self._view.succeeded(one.started, one.generation)
        return self._done(one.call, Outcome(response=one.response, attempts=one.number))

    def _failed(self, one: _Try) -> Settlement:
        detail = f": {plain_words(one.error)}" if one.error is not None else ""
        self._log.warning(
            "[%s] %s on attempt %d/%d%s",
            self.service.name,
            one.verdict.text,
            one.number,
            one.call.max_attempts,
            detail,
            extra=one.about,
        )
        self._give_peace(one)
        may_repeat = one.verdict.retry and not one.trial and not one.must_not_repeat
        self._stumble(one)
        if may_repeat and one.number < one.call.max_attempts and self._may_spend(one):
            return self._again(one)
        self._log.error("[%s] ✗ All %d retry attempts failed", self.service.name, one.number, extra=one.about)
        self._count(one)
        if not one.call.waited:
            return self._next_round(one)
        if one.error is None and not one.verdict.failure:
            return self._done(one.call, Outcome(response=one.response, attempts=one.number))
        return self._done(one.call, Outcome(error=self._last_error(one), attempts=one.number))

    def _give_peace(self, one: _Try) -> None:
        """A service that is too busy may ask for a pause: none of its background calls disturbs it before."""
        asked = one.verdict.retry_after
        if asked and one.status in BUSY_STATUSES:
            self._log.warning("[%s] asked for %gs of peace; its background calls wait", self.service.name, asked)
            self._hold_queue(asked)

    def _stumble(self, one: _Try) -> None:
        """In a slow start the breaker hears of attempts too: of calls that had not failed before it, maybe by themselves."""
        known_bad = one.progress.history and one.progress.history[0].at < self._view.record.recovered_at
        if one.verdict.failure and not one.trial and one.is_fresh and not known_bad:
            self._view.stumbled(one.started, one.generation, one.words)

    def _may_spend(self, one: _Try) -> bool:
        """Whether the retry is within the budget of this process; beyond it, the call ends or waits for its next round."""
        budget = self._budget
        if budget is None or budget.spend():
            return True
        text = "[%s] Retry budget used up (%d retries of %d calls in the last minute) - not retrying %s"
        self._log.warning(text, self.service.name, budget.retries, budget.calls, one.what, extra=one.about)
        self._count_one("retries_denied")
        one.denied = True
        return False

    def _again(self, one: _Try) -> Settlement:
        """The next attempt of this call, or of this round, after the backoff or what the service asks for."""
        service = self.service
        delay = retry_delay(one.number, base=service.backoff, jitter=service.jitter, uniform=self._uniform)
        shown = retry_delay(one.number, base=service.backoff, jitter=0.0, uniform=self._uniform)
        asked = one.verdict.retry_after
        if asked is not None and asked > delay:
            delay = shown = asked
        self._log.info("[%s] Retrying in %gs...", service.name, shown, extra=one.about)
        return Later(delay * self._backoff, one.progress.failed_attempt(one.remembered))

    def _count(self, one: _Try) -> None:
        """Tell the breaker: a failed call, a failed trial, or a trial that showed nothing."""
        if one.trial and one.verdict.failure:
            self._view.trial_failed(one.call.id, one.words)
        elif one.trial:
            self._view.trial_inconclusive(one.call.id)
        elif one.verdict.failure and (one.call.waited or one.is_fresh):
            self._view.failed(one.started, one.generation, one.words, one.call.id)

    def _last_error(self, one: _Try) -> Exception:
        """What the caller gets: the attempt's own exception, or requests' HTTPError for an answer."""
        if one.error is None:
            return http_error(one.response, one.call)
        if not one.must_not_repeat:
            return one.error
        text = f"[{self.service.name}] {one.what} may have been carried out: {plain_words(one.error)}"
        unknown = OutcomeUnknown(text, service=self.service.name)
        unknown.__cause__ = one.error
        return unknown

    def _next_round(self, one: _Try) -> Settlement:
        """A background call whose round is over waits for the next one, unless it must not or may not have one."""
        call, service = one.call, self.service
        failed = one.progress.failed_round(one.remembered)
        if one.must_not_repeat:
            return Bury("outcome unknown", self._outcome(self._last_error(one)), call.reply_to, failed)
        if one.trial:
            tried = one.progress.failed_attempt(one.remembered).history
            progress = msgspec.structs.replace(one.progress, history=tried)
            return Release(first=False, progress=progress)
        if call.rounds and failed.round >= call.rounds:
            text = f"[{service.name}] the call failed in {failed.round} round{'' if failed.round == 1 else 's'}: {one.words}"
            failure = CallFailed(text, service=service.name, reason="rounds used up")
            return Bury("rounds used up", self._outcome(failure), call.reply_to, failed)
        delay = max(round_delay(failed.round, service.recovery_timeout), one.verdict.retry_after or 0.0)
        self._log.info(
            "[%s] background call %s waits %gs for its next round", service.name, call.id, delay, extra=one.about
        )
        return Later(delay, failed)

    def _after_bug(self, delivered: Delivered, call: Call, error: Exception) -> Settlement:
        if call.waited:
            return self._done(call, Outcome(error=error))
        attempt = Attempt(self._now(), f"bug: {type(error).__name__}", 0.0)
        progress = delivered.delivery.progress.failed_round(attempt)
        return Later(round_delay(progress.round, self.service.recovery_timeout), progress)

    def _done(self, call: Call, outcome: Outcome) -> Done:
        outcome.breaker = self._view.record
        return Done(outcome, call.reply_to, call.keep_result)

    def _outcome(self, error: Exception) -> Outcome:
        return Outcome(error=error, breaker=self._view.record)


class _Try:
    """One attempt: what it was given, and what came of it."""

    __slots__ = (
        "about",
        "call",
        "denied",
        "error",
        "generation",
        "number",
        "progress",
        "response",
        "started",
        "took",
        "trial",
        "verdict",
        "what",
    )

    def __init__(self, delivered: Delivered, call: Call, started: float, generation: int) -> None:
        self.call = call
        self.progress = delivered.delivery.progress
        self.number = self.progress.attempt + 1
        self.about = {"service": call.service, "call": call.id, "attempt": self.number}
        self.what = f"{call.method} {path_only(call.target)}"
        self.trial = False
        self.started = started
        self.generation = generation
        self.response: Any = None
        self.error: Exception | None = None
        self.verdict = Verdict("", failure=False, retry=False)
        self.took = 0.0
        self.denied = False
        """There was no retry left in the budget for it."""

    @property
    def status(self) -> int:
        """Of the answer; 0 where there is none, or it is a test's mock."""
        status = getattr(self.response, "status_code", None)
        return status if isinstance(status, int) else 0

    @property
    def is_first(self) -> bool:
        return not self.progress.history

    @property
    def is_fresh(self) -> bool:
        """A background call in its first round: one that has failed a whole round may do so for a reason of its own."""
        return not self.call.waited and not self.progress.round

    @property
    def must_not_repeat(self) -> bool:
        """It may have left the socket, and its service cannot tell a repetition."""
        return not self.call.resend and (self.error is None or may_have_been_sent(self.error))

    @property
    def words(self) -> str:
        words = f"{self.verdict.text}: {plain_words(self.error)}" if self.error is not None else self.verdict.text
        return f"{words} (not retried: retry budget used up)" if self.denied else words

    @property
    def remembered(self) -> Attempt:
        text = f"{self.verdict.text} (retry budget used up)" if self.denied else self.verdict.text
        return Attempt(self.started, text, round(self.took, 4))


def _judge(response: Any, error: Exception | None) -> Verdict:
    """What an attempt's end means. Raises the error when it is one that no attempt should meet."""
    if error is None:
        status = getattr(response, "status_code", None)
        return judge_status(status, _retry_after(response) if isinstance(status, int) and status >= 400 else None)
    verdict = judge_error(error)
    if verdict is None:
        raise error
    return verdict


def _retry_after(response: Any) -> float | None:
    headers = getattr(response, "headers", None) or {}
    return parse_retry_after(headers.get("Retry-After"), cap=RETRY_AFTER_CAP)


def refusal(
    view: BreakerView, progress: Progress | None = None, admission: Admission | None = None
) -> ServiceUnavailable:
    """The error of a call that an open breaker refuses; its cause is the attempt that the call had made before, if any."""
    retry_after = (admission or view.admit()).retry_after
    why = "held open by hand" if view.record.forced else f"next trial in {retry_after:.0f} s"
    error = ServiceUnavailable(
        f"[{view.name}] Circuit breaker OPEN - rejecting request ({why})", service=view.name, retry_after=retry_after
    )
    if progress is not None and progress.history:
        error.__cause__ = requests.RequestException(f"[{view.name}] {progress.history[-1].outcome}")
    return error


def refused_in_queue(view: BreakerView, call: Call, progress: Progress, deaths: int) -> SeawallError:
    """The error of a waiting call that an opened breaker takes back, after so many workers had died with it.

    One of them may have sent it. That is the answer where a repetition would do harm, else the refusal's cause.
    """
    if not deaths:
        return refusal(view, progress)
    unknown = _died_with(view.name, call)
    if not call.resend:
        return unknown
    error = refusal(view, progress)
    error.__cause__ = unknown
    return error


def _died_with(service: str, call: Call) -> OutcomeUnknown:
    text = f"[{service}] {call.method} {path_only(call.target)} may have been carried out: its worker died"
    return OutcomeUnknown(text, service=service)


def http_error(response: Any, call: Call) -> Exception:
    """requests' own HTTPError, with the response in it."""
    kind = "Server" if response.status_code >= 500 else "Client"
    reason = getattr(response, "reason", "")
    return requests.HTTPError(
        f"{response.status_code} {kind} Error: {reason} for {call.method} {path_only(call.target)}", response=response
    )
