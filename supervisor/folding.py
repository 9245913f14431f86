"""Many threads' events, one writer: whoever comes first writes everything that waits in a single swap."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from seawall.errors import BrokerUnavailable
from seawall.supervisor.breaker import (
    CallFailed,
    CallSucceeded,
    Event,
    PolicyChanged,
    Record,
    State,
    TrialFailed,
    TrialInconclusive,
    TrialSucceeded,
    TrialTaken,
    transition,
)
from seawall.supervisor.local_record import LocalRecord
from seawall.supervisor.store import BreakerStore

__all__ = ["FoldedWriter", "Step"]

#: Swaps tried for one batch. Each refusal means that another process got its own through, so that this many in a row
#: do not happen by chance.
MAX_SWAPS = 100
#: Seconds that a process goes on alone before it asks the lost store again, so that callers rarely pay for a timeout.
ASK_AGAIN_AFTER = 0.5
#: Events kept for the store's return; more cannot change what it then decides.
MAX_UNSENT = 128

#: Results that still mean something when they reach the store late.
_CALLS = (CallFailed, CallSucceeded)
_TRIALS = (TrialFailed, TrialSucceeded, TrialInconclusive)


class Step(NamedTuple):
    """One event that changed the record."""

    old: Record
    event: Event
    new: Record


@dataclass(slots=True, eq=False)
class _Ticket:
    """One thread's event, and then what came of it. `ready` is set when it is written, or when it is its turn to write."""

    event: Event
    ready: threading.Event = field(default_factory=threading.Event)
    record: Record | None = None


class FoldedWriter:
    """Brings events into the store. When it is away they change the local record only, and follow on its return."""

    def __init__(self, key: str, store: BreakerStore, local: LocalRecord, policy: PolicyChanged | None) -> None:
        self._key = key
        self._store = store
        self._local = local
        self.policy = policy
        self._tickets: deque[_Ticket] = deque()
        self._has_leader = False
        self._door = threading.Lock()
        """Guards the two above; held for a few instructions."""
        self._writing = threading.Lock()
        self._unsent: list[Event] = []
        self._in_doubt: tuple[Record, list[Event]] | None = None
        self._ask_again_at = 0.0
        self._logger = logging.getLogger(f"seawall.{key}")
        self.away_since: float | None = None
        """Server time since when the store cannot be reached; None while it can."""

    def apply(self, event: Event) -> tuple[Record, Sequence[Step]]:
        """The record with the event in it, and the steps that this thread wrote, its own and others'. Never raises."""
        ticket = _Ticket(event)
        with self._door:
            self._tickets.append(ticket)
            leads, self._has_leader = not self._has_leader, True
        try:
            if not leads:
                ticket.ready.wait()
            steps = self._write_waiting() if ticket.record is None else ()
        except BaseException:
            self._withdraw(ticket, leads=leads)
            raise
        return ticket.record or self._local.record, steps

    def insist(self, event: Event) -> Sequence[Step]:
        """Write one event now. Raises BrokerUnavailable, and then the local record is as it was."""
        with self._writing:
            return self._write([event])

    def refresh(self) -> Sequence[Step]:
        """Take over what the store holds, and bring it what it missed while it was away. Never raises."""
        with self._writing:
            try:
                return self._write([], asked=True)
            except BrokerUnavailable as error:
                self._go_alone([], error)
                return ()

    def _write_waiting(self) -> Sequence[Step]:
        """As the leader: write what waits by now, wake those who waited, and let the first of the others lead."""
        with self._writing:
            with self._door:
                tickets = list(self._tickets)
            steps = self._write_or_go_alone([ticket.event for ticket in tickets])
        with self._door:
            for ticket in tickets:
                self._tickets.remove(ticket)
                ticket.record = self._local.record
                ticket.ready.set()
            self._hand_over()
        return steps

    def _withdraw(self, ticket: _Ticket, *, leads: bool) -> None:
        """A thread was interrupted: the others must not wait for it."""
        with self._door:
            if ticket.record is None:
                self._tickets.remove(ticket)
            if leads or ticket.ready.is_set():
                self._hand_over()

    def _hand_over(self) -> None:
        """Whoever leads has a ticket in the queue until it is written, so doing this twice does no harm."""
        self._has_leader = bool(self._tickets)
        if self._tickets:
            self._tickets[0].ready.set()

    def _write_or_go_alone(self, events: list[Event]) -> Sequence[Step]:
        if self.away_since is not None and self._store.now() < self._ask_again_at:
            return self._step_alone(events)
        try:
            return self._write(events)
        except BrokerUnavailable as error:
            return self._go_alone(events, error)

    def _write(self, events: list[Event], *, asked: bool = False) -> Sequence[Step]:
        """Swap until it succeeds or nothing is left to change. Raises BrokerUnavailable."""
        known = self._local.confirmed
        fresh = asked or self.away_since is not None
        base = self._read() if fresh else known
        events = [*self._unsent, *events]
        for _ in range(MAX_SWAPS):
            now = self._store.now()
            steps = self._steps(base, events, now)
            if not steps and not fresh:
                base, fresh = self._read(), True
            elif not steps:
                self._settled(known, base)
                return ()
            else:
                base, swapped = self._swap(base, steps[-1].new, now, events)
                fresh = True
                if swapped:
                    self._settled(known, base)
                    return steps
        raise BrokerUnavailable(f"the breaker of {self._key} changes too fast to be written", written=False)

    def _read(self) -> Record:
        """The stored record. If it is the one whose swap was in doubt, that swap's events are not sent again."""
        record = self._store.read(self._key)[0] or Record()
        if self._in_doubt is not None and record == self._in_doubt[0]:
            sent = {id(event) for event in self._in_doubt[1]}
            self._unsent = [event for event in self._unsent if id(event) not in sent]
        return record

    def _swap(self, base: Record, record: Record, now: float, events: list[Event]) -> tuple[Record, bool]:
        try:
            swap = self._store.swap(self._key, base.version, record, now)
        except BrokerUnavailable as error:
            if error.written:
                self._in_doubt = (msgspec.structs.replace(record, version=base.version + 1), events)
            raise
        return swap.current, swap.ok

    def _steps(self, base: Record, events: Iterable[Event], now: float) -> list[Step]:
        """What the events change, in order; a change of policy alone is not worth a write unless it was asked for."""
        events = list(events)
        if self.policy is not None and not any(isinstance(event, PolicyChanged) for event in events):
            base = transition(base, self.policy, now)
        steps: list[Step] = []
        for event in events:
            after = transition(base, event, now)
            if after is not base:
                steps.append(Step(base, event, after))
            base = after
        return steps

    def _settled(self, known: Record, answer: Record) -> None:
        self._local.settle(known, answer)
        self._unsent, self._in_doubt = [], None
        if self.away_since is not None:
            length, self.away_since = self._store.now() - self.away_since, None
            self._logger.warning("The breaker's store is back after %.1f s", length)

    def _go_alone(self, events: list[Event], error: BrokerUnavailable) -> Sequence[Step]:
        now = self._store.now()
        self._ask_again_at = now + ASK_AGAIN_AFTER
        if self.away_since is None:
            self.away_since = now
            self._logger.warning("The breaker's store is away, going on with the local state: %s", error)
        return self._step_alone(events)

    def _step_alone(self, events: list[Event]) -> Sequence[Step]:
        now = self._store.now()
        allowed = [event for event in events if not isinstance(event, TrialTaken) or self._may_try_alone(now)]
        steps = self._steps(self._local.record, allowed, now)
        if steps:
            self._local.go_alone(steps[-1].new)
        self._keep(events)
        return steps

    def _may_try_alone(self, now: float) -> bool:
        """Only when no trial that others took before the store was lost can still run, or have been the last one."""
        record = self._local.record
        assert self.away_since is not None
        return now >= self.away_since + max(record.recovery_timeout, record.trial_lease)

    def _keep(self, events: list[Event]) -> None:
        """Keep what the store must hear of: trials' results, and calls' results while there is a streak."""
        record = self._local.record
        worth: tuple[type, ...] = _TRIALS
        if record.failures or record.state is not State.CLOSED:
            worth = (*_TRIALS, *_CALLS)
        self._unsent = [event for event in (*self._unsent, *events) if isinstance(event, worth)][-MAX_UNSENT:]
