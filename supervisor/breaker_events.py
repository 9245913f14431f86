"""What can happen to a breaker, as frozen records; `breaker.transition` says what each one means."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "DEFAULT_FAILURE_THRESHOLD",
    "DEFAULT_RECOVERY_TIMEOUT",
    "DEFAULT_SLOW_START",
    "DEFAULT_TRIAL_LEASE",
    "AttemptFailed",
    "CallFailed",
    "CallSucceeded",
    "Event",
    "ForceClose",
    "ForceOpen",
    "Policy",
    "PolicyChanged",
    "Reset",
    "TimerEnded",
    "TrialFailed",
    "TrialInconclusive",
    "TrialSucceeded",
    "TrialTaken",
]

#: Consecutive failed calls that open the breaker, as in the guide.
DEFAULT_FAILURE_THRESHOLD = 5
#: Seconds before a trial, as in the guide.
DEFAULT_RECOVERY_TIMEOUT = 60.0
#: Seconds that a trial may take before it counts as failed: the default timeout of a request and half as much again.
DEFAULT_TRIAL_LEASE = 15.0
#: Seconds after a recovery in which the background calls in flight grow from one to their normal bound.
DEFAULT_SLOW_START = 10.0


@dataclass(frozen=True, slots=True)
class Policy:
    """When to open, and for how long; durations in seconds. It travels in the record."""

    failure_threshold: int = DEFAULT_FAILURE_THRESHOLD
    recovery_timeout: float = DEFAULT_RECOVERY_TIMEOUT
    trial_lease: float = DEFAULT_TRIAL_LEASE
    slow_start: float = DEFAULT_SLOW_START


@dataclass(frozen=True, slots=True)
class CallFailed:
    """A call, or one round of a background call, failed with its last attempt. `generation` is the one that admitted it.

    `call` is its id: a background call that fails again in its next round is still one failed call of the streak.
    """

    started: float
    generation: int
    error: str
    call: str = ""


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt of a background call failed. It counts in the slow start after a recovery, and only there."""

    started: float
    generation: int
    error: str


@dataclass(frozen=True, slots=True)
class CallSucceeded:
    """A call's attempt that started at `started` succeeded."""

    started: float
    generation: int


@dataclass(frozen=True, slots=True)
class TimerEnded:
    """Someone looked at the clock and wants the trial's slot to be free."""


@dataclass(frozen=True, slots=True)
class TrialTaken:
    """Someone asks to make the trial; it was granted if the new record's `trial` is this id."""

    id: str


@dataclass(frozen=True, slots=True)
class TrialFailed:
    """The trial failed."""

    id: str
    error: str


@dataclass(frozen=True, slots=True)
class TrialSucceeded:
    """The trial succeeded."""

    id: str


@dataclass(frozen=True, slots=True)
class TrialInconclusive:
    """The trial said nothing about the service (429, cancelled, no token ...)."""

    id: str


@dataclass(frozen=True, slots=True)
class ForceOpen:
    """Hold it open until it is closed by hand."""


@dataclass(frozen=True, slots=True)
class ForceClose:
    """Close it by hand."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Close it by hand and forget the last error, as if it were new."""


@dataclass(frozen=True, slots=True)
class PolicyChanged(Policy):
    """The service was declared with this policy."""


Event = (
    CallFailed
    | AttemptFailed
    | CallSucceeded
    | TimerEnded
    | TrialTaken
    | TrialFailed
    | TrialSucceeded
    | TrialInconclusive
    | ForceOpen
    | ForceClose
    | Reset
    | PolicyChanged
)
