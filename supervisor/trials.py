"""Half-open trials: the moment an open breaker's timer ends, somebody tries whether the service is back.

Run by the leading supervisor, and by memory mode for itself. The timers are APScheduler's; the truth is the store's: a
new leader reads every record and sets its timers anew, and taking a trial is a compare-and-swap, so that a second
leader, a late timer or a crash starts no trial too many. What a trial needs from other rooms comes as callables.

States of a breaker's timer: none (closed, or held open by hand); set for the end of the open time; or, while a free
trial waits for the next caller, set again every quarter of a second, so that a background call that comes in takes it.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from seawall.errors import BrokerUnavailable
from seawall.supervisor.breaker import Record, State, TimerEnded, trial_is_due
from seawall.supervisor.store import BreakerStore
from seawall.supervisor.view import BreakerView

__all__ = ["Trials"]

logger = logging.getLogger("seawall.supervisor")

#: Seconds between two looks while a trial is free to be taken.
FREE_TRIAL_LOOK = 0.25
#: Trials in a row made with calls that had failed before, after which callers are let in front: what fails may be those calls.
STUBBORN_TRIALS = 3
#: Seconds after which a timer tries again when the store was away.
RETRY_SECONDS = 0.5
#: A timer that comes late is still wanted. One may overlap an older one whose health check hangs, or that is about to
#: end: APScheduler would drop the one that is too many, and nobody would set it again. The store grants one trial.
_JOB = {"misfire_grace_time": None, "coalesce": True, "replace_existing": True, "max_instances": 1000}


class Held(Protocol):
    """A held call, empty where there is none; `tried` if it has failed before."""

    @property
    def id(self) -> str: ...

    @property
    def tried(self) -> bool: ...


class Trials:
    """`target(key)` is a breaker's view, or None for a service that nobody knows; `health(key)` asks the service's health
    path (None when it cannot be asked, True for healthy, a text for what is wrong); `oldest(key)` is the held call to try
    with; `leads()` is asked before every trial. All may raise BrokerUnavailable. Safe for threads."""

    def __init__(
        self,
        store: BreakerStore,
        scheduler: Any,
        *,
        target: Callable[[str], BreakerView | None],
        health: Callable[[str], bool | str | None],
        has_health: Callable[[str], bool],
        oldest: Callable[[str], Held],
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._scheduler = scheduler
        self._target = target
        self._health = health
        self._has_health = has_health
        self._oldest = oldest
        self._leads = leads
        self._active = False
        self._lock = threading.Lock()
        self._versions: dict[str, int] = {}
        self._stubborn: dict[str, int] = {}
        """Trials in a row with calls that had failed before, by breaker."""
        self._busy = 0

    def start(self) -> None:
        """Set a timer for every breaker that is not closed; again, after anything was missed. Raises BrokerUnavailable."""
        self._active = True
        with self._lock:
            self._versions.clear()  # a store that was emptied counts from 1 again
        for key, record in self._store.read_all().items():
            self.announced(key, record)

    def stop(self) -> None:
        """Leave the timers to the next leader; a trial that runs ends by itself. Safe twice and before start."""
        self._active = False
        for job in self._scheduler.get_jobs():
            if job.id.startswith("trial:"):
                self._remove(job.id)

    def busy(self) -> int:
        """Trials that are being started or, with a health path, made."""
        return self._busy

    def announced(self, key: str, record: Record) -> None:
        """A breaker has changed: set its timer, or take it away."""
        self._plan(key, record, self._store.now())

    def fire_due(self) -> None:
        """Start the trials that are due, in this thread; for a clock that was moved by hand. Raises BrokerUnavailable."""
        now = self._store.now()
        for key, record in self._store.read_all().items():
            if trial_is_due(record, now):
                self._fire(key)

    def _plan(self, key: str, record: Record, now: float, *, at_least: float = 0.0) -> None:
        """As the newest known record says: what a timer has read may be older than what was announced meanwhile."""
        with self._lock:
            if not self._active or record.version < self._versions.get(key, 0):
                return
            self._versions[key] = record.version
            if record.state is State.CLOSED:
                self._stubborn.pop(key, None)
            if record.state is State.CLOSED or record.forced:
                self._remove(f"trial:{key}")
            elif record.state is State.HALF_OPEN and not record.trial:
                self._set(key, FREE_TRIAL_LOOK)
            else:
                self._set(key, max(at_least, record.next_trial_at - now, record.trial_until - now))

    def _set(self, key: str, seconds: float) -> None:
        at = datetime.now(UTC) + timedelta(seconds=seconds)
        self._scheduler.add_job(self._fire, "date", run_date=at, id=f"trial:{key}", args=[key], **_JOB)

    def _remove(self, job: str) -> None:
        if self._scheduler.get_job(job) is not None:
            try:
                self._scheduler.remove_job(job)
            except LookupError:  # it fired in the meantime
                return

    def _fire(self, key: str) -> None:
        """The timer has ended: start the trial, or leave it to the next caller."""
        if not self._active:
            return
        with self._lock:
            self._busy += 1
        try:
            if not self._leads():
                self._set(key, RETRY_SECONDS)
            elif (target := self._target(key)) is not None:
                self._start_trial(key, target)
        except BrokerUnavailable:
            self._set(key, RETRY_SECONDS)
        except Exception:
            logger.exception("the trial of %s could not be started; it is tried again", key)
            self._set(key, RETRY_SECONDS)
        finally:
            with self._lock:
                self._busy -= 1

    def _start_trial(self, key: str, target: BreakerView) -> None:
        record, now = self._store.read(key)
        if record is None or not trial_is_due(record, now):
            self._plan(key, record or Record(), now)
            return
        self._make_trial(key, target)
        # A trial that could not be made after all is no reason to hurry.
        self._plan(key, target.record, self._store.now(), at_least=FREE_TRIAL_LOOK)

    def _make_trial(self, key: str, target: BreakerView) -> None:
        if self._has_health(key):
            self._ask_health(key, target)
        elif (held := self._oldest(key)).id and not self._callers_first(key, target, tried=held.tried):
            target.take_trial(held.id)
        else:
            target.apply(TimerEnded())

    def _callers_first(self, key: str, target: BreakerView, *, tried: bool) -> bool:
        """Whether callers have a look's time to take this trial: one call that always fails must not keep them out."""
        slot_is_free = target.record.state is State.HALF_OPEN and not target.record.trial
        self._stubborn[key] = self._stubborn.get(key, 0) + 1 if tried else 0
        return self._stubborn[key] > STUBBORN_TRIALS and not slot_is_free

    def _ask_health(self, key: str, target: BreakerView) -> None:
        id = f"health:{uuid.uuid4().hex}"
        if not target.take_trial(id):
            return
        answer: bool | str | None = None
        try:
            answer = self._health(key)
        finally:
            if answer is True:
                target.trial_succeeded(id)
            elif isinstance(answer, str):
                target.trial_failed(id, answer)
            else:  # it says nothing about the service
                target.trial_inconclusive(id)
