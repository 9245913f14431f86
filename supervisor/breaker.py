"""The circuit breaker's rules: `transition(record, event, now) -> record`. No I/O, no clock, no locks.

    CLOSED ──(failure_threshold failed calls in a row)──> OPEN
    OPEN ──(the timer ended)──> HALF_OPEN, one trial
    HALF_OPEN ──(the trial succeeded)──> CLOSED, at first in slow start
    CLOSED, in slow start ──(two background attempts failed in a row)──> OPEN
    HALF_OPEN ──(the trial failed, was inconclusive, or its lease expired)──> OPEN, timer reset

All times are seconds on the store's clock. A record is a value: stores compare and swap it by its `version`.
"""

from __future__ import annotations

import enum
from typing import Any, assert_never

import msgspec

from seawall.supervisor.breaker_events import (
    DEFAULT_FAILURE_THRESHOLD,
    DEFAULT_RECOVERY_TIMEOUT,
    DEFAULT_SLOW_START,
    DEFAULT_TRIAL_LEASE,
    AttemptFailed,
    CallFailed,
    CallSucceeded,
    Event,
    ForceClose,
    ForceOpen,
    Policy,
    PolicyChanged,
    Reset,
    TimerEnded,
    TrialFailed,
    TrialInconclusive,
    TrialSucceeded,
    TrialTaken,
)

__all__ = [
    "LONGEST_STREAK",
    "AttemptFailed",
    "CallFailed",
    "CallSucceeded",
    "Event",
    "ForceClose",
    "ForceOpen",
    "Policy",
    "PolicyChanged",
    "Record",
    "Reset",
    "State",
    "TimerEnded",
    "TrialFailed",
    "TrialInconclusive",
    "TrialSucceeded",
    "TrialTaken",
    "effective_state",
    "is_recovering",
    "transition",
    "trial_is_due",
    "trial_is_live",
]

#: Characters of an error's text that a record keeps; it travels with every announcement.
ERROR_LENGTH = 300
#: Characters of a call's id that tell the few calls of a streak apart.
TAG_LENGTH = 8
#: Calls of a streak that a record remembers: it travels with every reply and announcement. A call that fails again beyond so
#: many others counts once more, which matters to no threshold that lets so many fail.
LONGEST_STREAK = 100
#: Background attempts that fail in a row in a slow start and open the breaker again.
MAX_STUMBLES = 2


class State(enum.StrEnum):
    """What a breaker lets through: CLOSED every call, OPEN none, HALF_OPEN the one trial."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A breaker as it is stored and announced. The defaults are part of the format: a field at its default is not written."""

    version: int = 0
    """The store's compare-and-swap number; 0 means never stored."""
    generation: int = 0
    """Grows with every change of state; a call's result counts only in the generation that admitted it."""
    state: State = State.CLOSED
    failures: int = 0
    streak_started: float = 0.0
    """When the streak's first failure was recorded."""
    streak: tuple[str, ...] = ()
    """The latest calls that failed in the streak, by the ends of their ids; at most LONGEST_STREAK of them."""
    opened_at: float = 0.0
    """When it opened; failed trials do not move it. 0 while closed."""
    next_trial_at: float = 0.0
    trial: str = ""
    """Id of the trial that was taken: a call's id, or `health:<uuid>`."""
    trial_until: float = 0.0
    """End of the trial's lease. Kept when a trial is dropped by hand, because its request may still run."""
    forced: bool = False
    """Held open by hand."""
    last_error: str = ""
    changed_at: float = 0.0
    """When the state last changed."""
    recovered_at: float = 0.0
    """When it closed after it had been open, for the slow start that follows; 0 before the first time, and after a reset."""
    failure_threshold: int = DEFAULT_FAILURE_THRESHOLD
    recovery_timeout: float = DEFAULT_RECOVERY_TIMEOUT
    trial_lease: float = DEFAULT_TRIAL_LEASE
    slow_start: float = DEFAULT_SLOW_START
    stumbles: int = 0
    """Background attempts that failed in a row in the slow start."""


def transition(record: Record, event: Event, now: float) -> Record:
    """The record after the event; the very same object when the event changes nothing. `version` is left alone.

    >>> opened = transition(Record(failure_threshold=1), CallFailed(started=0, generation=0, error="refused"), now=10)
    >>> opened.state.value, opened.next_trial_at
    ('open', 70.0)
    """
    match event:
        case CallFailed():
            return _call_failed(record, event, now)
        case AttemptFailed():
            return _attempt_failed(record, event, now)
        case CallSucceeded():
            return _call_succeeded(record, event)
        case TimerEnded():
            return _timer_ended(record, now)
        case TrialTaken():
            return _trial_taken(record, event, now)
        case TrialFailed():
            return _trial_ended(record, event.id, event.error, now)
        case TrialInconclusive():
            return _trial_ended(record, event.id, record.last_error, now)
        case TrialSucceeded():
            return _trial_succeeded(record, event, now)
        case ForceOpen():
            return _forced_open(record, now)
        case ForceClose():
            return _closed(record, now, trial_until=record.trial_until, last_error=record.last_error)
        case Reset():
            closed = _closed(record, now, trial_until=record.trial_until, last_error="")
            return _with(closed, recovered_at=0.0) if closed.recovered_at else closed
        case PolicyChanged():
            return _policy_changed(record, event, now)
        case _:
            assert_never(event)


def is_recovering(record: Record, now: float) -> bool:
    """It has closed a moment ago: background calls start slowly."""
    return record.state is State.CLOSED and record.recovered_at > 0 and now < record.recovered_at + record.slow_start


def trial_is_live(record: Record, now: float) -> bool:
    """A trial was taken and its lease still runs."""
    return record.state is State.HALF_OPEN and record.trial != "" and now < record.trial_until


def trial_is_due(record: Record, now: float) -> bool:
    """A trial may be taken: the timer ended, nobody makes one, and the breaker is not held open by hand."""
    return (
        record.state is not State.CLOSED
        and not record.forced
        and now >= record.next_trial_at
        and not trial_is_live(record, now)
    )


def effective_state(record: Record, now: float) -> State:
    """The state as callers meet it: a trial whose lease expired has failed, so its breaker is open."""
    if record.state is State.HALF_OPEN and record.trial and not trial_is_live(record, now):
        return State.OPEN
    return record.state


def _call_failed(record: Record, event: CallFailed, now: float) -> Record:
    if record.state is not State.CLOSED or event.generation != record.generation:
        return record
    tag = event.call[-TAG_LENGTH:]
    if tag and tag in record.streak:
        return record
    counted = _with(
        record,
        failures=record.failures + 1,
        streak=(*record.streak, tag)[-LONGEST_STREAK:] if tag else record.streak,
        streak_started=record.streak_started if record.failures else now,
        last_error=event.error[:ERROR_LENGTH],
    )
    return _opened(counted, now) if counted.failures >= counted.failure_threshold else counted


def _attempt_failed(record: Record, event: AttemptFailed, now: float) -> Record:
    if event.generation != record.generation or not is_recovering(record, now):
        return record
    stumbled = _with(record, stumbles=record.stumbles + 1, last_error=event.error[:ERROR_LENGTH])
    return _opened(stumbled, now) if stumbled.stumbles >= MAX_STUMBLES else stumbled


def _call_succeeded(record: Record, event: CallSucceeded) -> Record:
    if record.state is not State.CLOSED or event.generation != record.generation:
        return record
    if event.started < record.streak_started or not (record.failures or record.stumbles):
        return record
    return _with(record, failures=0, streak_started=0.0, streak=(), stumbles=0)


def _timer_ended(record: Record, now: float) -> Record:
    slot_is_free = record.state is State.HALF_OPEN and not record.trial
    if slot_is_free or not trial_is_due(record, now):
        return record
    return _changed(record, State.HALF_OPEN, now, trial="", trial_until=0.0)


def _trial_taken(record: Record, event: TrialTaken, now: float) -> Record:
    if not event.id or not trial_is_due(record, now):
        return record
    slot_is_free = record.state is State.HALF_OPEN and not record.trial
    half_open = record if slot_is_free else _changed(record, State.HALF_OPEN, now)
    return _with(
        half_open,
        trial=event.id,
        trial_until=now + record.trial_lease,
        next_trial_at=now + max(record.recovery_timeout, record.trial_lease),
    )


def _trial_ended(record: Record, trial: str, error: str, now: float) -> Record:
    if not _is_current(record, trial, now):
        return record
    return _changed(
        record,
        State.OPEN,
        now,
        trial="",
        trial_until=0.0,
        next_trial_at=now + record.recovery_timeout,
        last_error=error[:ERROR_LENGTH],
    )


def _trial_succeeded(record: Record, event: TrialSucceeded, now: float) -> Record:
    if not _is_current(record, event.id, now):
        return record
    return _closed(record, now, trial_until=0.0, last_error=record.last_error)


def _is_current(record: Record, trial: str, now: float) -> bool:
    return trial == record.trial and trial_is_live(record, now)


def _opened(record: Record, now: float, *, forced: bool = False) -> Record:
    """Open from closed. A trial that was dropped by hand may still run, so the next one waits for its lease too."""
    next_trial_at = max(now + record.recovery_timeout, record.trial_until)
    opened = _with(record, opened_at=now, next_trial_at=next_trial_at, forced=forced, streak=(), stumbles=0)
    return _changed(opened, State.OPEN, now)


def _closed(record: Record, now: float, *, trial_until: float, last_error: str) -> Record:
    closed = _with(
        record,
        state=State.CLOSED,
        failures=0,
        streak_started=0.0,
        streak=(),
        stumbles=0,
        opened_at=0.0,
        next_trial_at=0.0,
        trial="",
        trial_until=trial_until,
        forced=False,
        last_error=last_error,
    )
    if closed == record:
        return record
    recovered_at = record.recovered_at if record.state is State.CLOSED else now
    return _changed(closed, State.CLOSED, now, recovered_at=recovered_at)


def _forced_open(record: Record, now: float) -> Record:
    if record.state is State.CLOSED:
        return _opened(record, now, forced=True)
    if record.state is State.HALF_OPEN:
        return _changed(record, State.OPEN, now, trial="", forced=True)
    return record if record.forced else _with(record, forced=True)


def _policy_changed(record: Record, policy: Policy, now: float) -> Record:
    """A shorter timer holds at once; a running trial keeps its lease and its time."""
    fields: dict[str, Any] = {
        "failure_threshold": policy.failure_threshold,
        "recovery_timeout": policy.recovery_timeout,
        "trial_lease": policy.trial_lease,
        "slow_start": policy.slow_start,
    }
    if all(getattr(record, name) == value for name, value in fields.items()):
        return record
    if record.state is not State.CLOSED and not trial_is_live(record, now):
        sooner = min(record.next_trial_at, now + policy.recovery_timeout)
        fields["next_trial_at"] = max(sooner, record.trial_until)
    return _with(record, **fields)


def _changed(record: Record, state: State, now: float, **fields: Any) -> Record:
    return _with(record, state=state, generation=record.generation + 1, changed_at=now, **fields)


def _with(record: Record, **fields: Any) -> Record:
    return msgspec.structs.replace(record, **fields)
