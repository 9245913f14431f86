"""A process's view of one service's breaker: admits calls without asking anyone, and brings their results to the store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from seawall.supervisor.breaker import (
    AttemptFailed,
    CallFailed,
    CallSucceeded,
    Event,
    Policy,
    PolicyChanged,
    Record,
    State,
    TrialFailed,
    TrialInconclusive,
    TrialSucceeded,
    TrialTaken,
    effective_state,
    is_recovering,
    transition,
    trial_is_due,
)
from seawall.supervisor.breaker_log import log_steps
from seawall.supervisor.folding import FoldedWriter, Step
from seawall.supervisor.local_record import Changed, LocalRecord, telling_later
from seawall.supervisor.memory_store import MemoryStore
from seawall.supervisor.store import BreakerStore

__all__ = ["MAY_TAKE_TRIAL", "PASS", "Admission", "BreakerView", "NullView", "describe"]

#: Seconds after the timer's end that a supervisor has to start the trial; then any caller may.
DEFAULT_GRACE = 1.0

#: What is counted of a trial, by the event that ended it.
_TRIALS: dict[type, str] = {
    TrialSucceeded: "trials.succeeded",
    TrialFailed: "trials.failed",
    TrialInconclusive: "trials.inconclusive",
}


class Admission(msgspec.Struct, frozen=True):
    """What a breaker says to a call: it passes, it may go as the trial if `take_trial` grants that, or it is refused."""

    passes: bool = False
    may_take_trial: bool = False
    retry_after: float = 0.0
    """Seconds until a trial may start; for a refusal."""


PASS = Admission(passes=True)
MAY_TAKE_TRIAL = Admission(may_take_trial=True)


class BreakerView:
    """One service's breaker as one process sees it. Safe for threads.

    `policy` is the service's own, written into the record with the next event; None leaves the record's. `count(key, what)`
    hears what became of a trial. `start` must
    be called once before the view knows anything; until then, and while the store is away, it goes by its local record.
    Its methods never raise, `by_hand` apart.

    A call reads `admit()` and `generation` before it starts, and reports with both times on the store's clock:

    >>> view = BreakerView("chroma", "Chroma", MemoryStore())
    >>> view.admit().passes, view.generation
    (True, 0)
    >>> view.failed(started=1.0, generation=0, error="connection refused").failures
    1
    """

    def __init__(
        self,
        key: str,
        name: str,
        store: BreakerStore,
        policy: Policy | None = None,
        grace_s: float = DEFAULT_GRACE,
        count: Callable[[str, str], None] = lambda key, what: None,
    ) -> None:
        self.key = key
        self.name = name
        self._store = store
        self._grace_s = grace_s
        self._count = count
        self._policy = _as_event(policy)
        first = Record()
        self._local = LocalRecord(first if self._policy is None else transition(first, self._policy, 0.0))
        self._writer = FoldedWriter(key, store, self._local, self._policy)
        self.logger = logging.getLogger(f"seawall.{key}")
        self._as_of = 0.0
        self._started = False

    def start(self) -> None:
        """Follow the store's announcements and read the record. Safe to call twice."""
        if self._started:
            return
        self._started = True
        self._store.subscribe(self._announced, self.refresh)
        self.refresh()
        if self._policy is not None and self._local.confirmed.state is not State.CLOSED:
            self.apply(self._policy)

    def change_policy(self, policy: Policy) -> None:
        """The service was declared again. An open breaker is told at once, a closed one with its next event."""
        self._policy = self._writer.policy = _as_event(policy)
        if self._policy is not None and self._local.confirmed.state is not State.CLOSED:
            self.apply(self._policy)

    def refresh(self) -> None:
        """Read the record anew; results that the store missed while it was away are brought to it."""
        with telling_later():
            self._finish(self._writer.refresh())

    @property
    def record(self) -> Record:
        """The newest record known here."""
        return self._local.record

    @property
    def generation(self) -> int:
        """What a call remembers when it starts, and reports with its result."""
        return self._local.record.generation

    @property
    def state(self) -> State:
        """The state as callers meet it."""
        return effective_state(self._local.record, self._store.now())

    @property
    def away(self) -> bool:
        """The store cannot be reached, and this process goes on alone."""
        return self._writer.away_since is not None

    def admit(self) -> Admission:
        """Whether a call may go now. No I/O and no lock; a closed breaker costs a few attribute reads."""
        record = self._local.record
        if record.state is State.CLOSED:
            return PASS
        return self._admit_to(record, self._store.now())

    def take_trial(self, id: str) -> bool:
        """Whether this id, and nobody else in the fleet, makes the trial now."""
        record = self.apply(TrialTaken(id))
        return record.state is State.HALF_OPEN and record.trial == id

    def failed(self, started: float, generation: int, error: str, call: str = "") -> Record:
        """A call, or a round of one, failed for good. The record after it, once the store has it (unless it is away).

        `call` is its id: with it, a call that fails in round after round counts once in a streak.
        """
        return self.apply(CallFailed(started, generation, error, call))

    def succeeded(self, started: float, generation: int) -> Record:
        """An attempt that started at `started` succeeded. Asks nobody unless there is a streak that it may end."""
        record = self._local.record
        return self.apply(CallSucceeded(started, generation)) if record.failures or record.stumbles else record

    def stumbled(self, started: float, generation: int, error: str) -> Record:
        """An attempt of a background call failed. Asks nobody unless the service has recovered a moment ago."""
        record = self._local.record
        if not is_recovering(record, self._store.now()):
            return record
        return self.apply(AttemptFailed(started, generation, error))

    def trial_succeeded(self, id: str) -> Record:
        return self.apply(TrialSucceeded(id))

    def trial_failed(self, id: str, error: str) -> Record:
        return self.apply(TrialFailed(id, error))

    def trial_inconclusive(self, id: str) -> Record:
        """The trial said nothing about the service: the slot is given back, the timer starts again."""
        return self.apply(TrialInconclusive(id))

    def apply(self, event: Event) -> Record:
        """Bring any event to the store; the record after it. Events of many threads share a swap."""
        record = self._local.record
        if _is_late(record, event):
            return record
        with telling_later():
            record, steps = self._writer.apply(event)
            self._finish(steps)
        return record

    def by_hand(self, event: Event) -> Record:
        """Bring ForceOpen, ForceClose or Reset to the store. Raises BrokerUnavailable when it cannot be reached."""
        with telling_later():
            self._finish(self._writer.insist(event))
        return self._local.record

    def observe(self, record: Record) -> None:
        """Take over a record from a reply or an announcement, if it is newer than what is known."""
        old = self._local.record
        if self._local.observe(record):
            self._as_of = self._store.now()
            if record.state is not old.state:
                self.logger.debug("[%s] Circuit breaker is %s elsewhere", self.name, record.state.name)
            self._local.tell()

    def on_change(self, changed: Changed) -> None:
        """Call back after every change of the record, on the thread that learnt of it, with the old one and the new."""
        self._local.on_change(changed)

    def status(self) -> dict[str, Any]:
        """The breaker for people and machines; times are seconds since the epoch. Never raises, never waits.

        `as_of` is when the store last confirmed it (0: never), `opened_at` is None while closed.
        """
        record = self._local.record
        return describe(
            record,
            name=self.name,
            key=self.key,
            policy=self._policy or record,
            now=self._store.now(),
            as_of=self._confirmed_at(),
        )

    def _confirmed_at(self) -> float:
        """Announcements that flow confirm the record as well as an answer does, once it was read."""
        if self.away or not self._started:
            return self._as_of
        return max(self._as_of, self._store.confirmed_at())

    def _admit_to(self, record: Record, now: float) -> Admission:
        if trial_is_due(record, now):
            slot_is_free = record.state is State.HALF_OPEN and not record.trial
            if slot_is_free or now >= record.next_trial_at + self._grace_s:
                return MAY_TAKE_TRIAL
        return Admission(retry_after=_retry_after(record, now))

    def _announced(self, key: str, record: Record) -> None:
        if key == self.key:
            self.observe(record)

    def _finish(self, steps: Sequence[Step]) -> None:
        """Log what this process decided, tell who listens."""
        if not self.away:
            self._as_of = self._store.now()
        log_steps(self.logger, self.name, steps)
        for step in steps:
            if (what := _TRIALS.get(type(step.event))) is not None:
                self._count(self.key, what)
        self._local.tell()


class NullView(BreakerView):
    """The view of a service that was declared without a breaker: every call passes, nothing is counted or stored."""

    def __init__(self, key: str, name: str) -> None:
        super().__init__(key, name, MemoryStore())

    def start(self) -> None:
        """There is nothing to follow."""

    def admit(self) -> Admission:
        return PASS

    def apply(self, event: Event) -> Record:
        return self.record

    def by_hand(self, event: Event) -> Record:
        return self.record

    def observe(self, record: Record) -> None:
        """A record that another process kept does not count here."""


def _as_event(policy: Policy | None) -> PolicyChanged | None:
    if policy is None:
        return None
    return PolicyChanged(policy.failure_threshold, policy.recovery_timeout, policy.trial_lease, policy.slow_start)


def _is_late(record: Record, event: Event) -> bool:
    """A call's result that changes nothing here, and can change nothing in the store, whose record is no older."""
    if not isinstance(event, CallFailed | CallSucceeded) or event.generation > record.generation:
        return False
    return transition(record, event, 0.0) is record


def describe(
    record: Record, *, name: str, key: str, policy: Policy | Record, now: float, as_of: float
) -> dict[str, Any]:
    """The form of `get_status()`, wherever the record came from."""
    return {
        "service": name,
        "key": key,
        "state": effective_state(record, now).value,
        "consecutive_failures": record.failures,
        "failure_threshold": policy.failure_threshold,
        "recovery_timeout": policy.recovery_timeout,
        "opened_at": record.opened_at or None,
        "retry_after": _retry_after(record, now),
        "last_error": record.last_error or None,
        "as_of": as_of,
    }


def _retry_after(record: Record, now: float) -> float:
    """Seconds until a trial may start; 0 when closed. Nobody knows when a breaker held by hand is let go."""
    if record.state is State.CLOSED:
        return 0.0
    return record.recovery_timeout if record.forced else max(0.0, record.next_trial_at - now)
