"""The queue in this process: the twin of the Redis queue, for memory mode and tests. Nothing outlives the process."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from seawall.actors.delivered import LocalCall
from seawall.actors.memory_ends import Ends, Firsts, not_kept
from seawall.actors.memory_entries import Entry, EntryQueue
from seawall.actors.memory_gate import MemoryGates
from seawall.actors.memory_mailbox import MemoryMailbox
from seawall.actors.queue_store import (
    LEASE,
    POISON_DEATHS,
    Accepted,
    Bury,
    Cancelled,
    Counts,
    DeadLetter,
    DeadPage,
    Delivery,
    Done,
    Fetched,
    Group,
    Later,
    Oldest,
    Put,
    Release,
    Settlement,
    Standing,
    Want,
)
from seawall.actors.record import Progress
from seawall.actors.replies import Mailbox, Outcome, given_up, taken_back
from seawall.actors.service import service_of_queue
from seawall.errors import CallCancelled, ResultExpired
from seawall.supervisor.breaker import Record

__all__ = ["MemoryQueue"]

#: Seconds that a worker counts as running after its last heartbeat.
SILENT = 5.0


def _size(payload: Any) -> int:
    """About what a call takes: its body is what can be large."""
    body = payload.call.body if isinstance(payload, LocalCall) else payload
    return len(body) if isinstance(body, (bytes, str)) else 0


class Clock(Protocol):
    def time(self) -> float: ...


#: First tokens of calls that were replayed.
_lives = itertools.count(1_000_000, 1_000_000)


def _inherit(queue: EntryQueue, heir: Entry, progress: Progress, due: float | None, now: float) -> None:
    """The newer call goes on where the older one was: with its failed attempts, and not before its next one was due."""
    if heir.lease is None:
        heir.progress = progress
        if due is not None and due > now:
            queue.make_due(heir, max(due, heir.due or 0.0))


def _given_up(queue: EntryQueue, reason: str) -> Outcome:
    return Outcome(error=given_up(service_of_queue(queue.name), reason))


class MemoryQueue:
    """A QueueStore in memory. `record_of` answers a breaker's record; `clock` is the only clock that decides anything."""

    def __init__(self, *, record_of: Callable[[str], Record | None], clock: Clock = time, lease: float = LEASE) -> None:
        self._gates = MemoryGates(record_of)
        self._clock = clock
        self._lease = lease
        self._lock = threading.Condition(threading.RLock())
        self._queues: dict[str, EntryQueue] = {}
        self._ends = Ends()
        self._firsts = Firsts()
        self._tallied: Counter[tuple[str, str]] = Counter()
        self._seen: float | None = None
        self._grace_until = 0.0
        self._reports: dict[str, tuple[float, bytes]] = {}
        self._poked = False

    def register(self, mailbox: MemoryMailbox) -> None:
        self._ends.register(mailbox)

    def _queue(self, name: str) -> EntryQueue:
        return self._queues.setdefault(name, EntryQueue(name))

    @property
    def at_hand(self) -> bool:
        return True

    def put(self, puts: Sequence[Put]) -> list[Accepted | Exception]:
        with self._lock:
            answers: list[Accepted | Exception] = [self._put(put) for put in puts]
            self._wake()
            return answers

    def _put(self, put: Put) -> Accepted:
        queue, now = self._queue(put.queue), self._clock.time()
        workers = self.workers_serving(put.queue)
        if put.id in queue.entries or self._ends.knows(put.id, now):
            return Accepted(True, workers)
        if (first := self._firsts.of(put, now)) is not None:
            if first:
                self._tallied[service_of_queue(put.queue), "deduped"] += 1
            return Accepted(True, workers, first=first)
        older = queue.entries.get(queue.coalesced.get(put.coalesce, ""))
        if older is not None and older.lease is not None:
            older = None
        size = _size(put.payload)
        if put.cap and len(queue.entries) - (older is not None) >= put.cap:
            return Accepted(False, workers, full="calls")
        if put.cap_bytes and queue.bytes - (older.size if older is not None else 0) + size > put.cap_bytes:
            return Accepted(False, workers, full="bytes")
        self._firsts.remember(put, now)
        due = older.due if older is not None else None
        if older is not None:
            self._replace(queue, older)
        entry = Entry(put.id, put.payload, coalesce=put.coalesce, size=size)
        entry.expires = now + put.expires_in if put.expires_in > 0 else None
        queue.add(entry)
        start = max(now + put.delay, put.not_before)
        if start > now:
            queue.make_due(entry, start)
        else:
            queue.make_ready(entry, now)
        if older is not None and older.progress.history:
            _inherit(queue, entry, older.progress, due, now)
        if put.coalesce:
            queue.coalesced[put.coalesce] = put.id
        return Accepted(True, workers, older.id if older is not None else "")

    def _replace(self, queue: EntryQueue, older: Entry) -> None:
        queue.forget(older)
        self._tallied[service_of_queue(queue.name), "coalesced"] += 1
        self._conclude(
            older.id, Outcome(error=CallCancelled("the call was replaced by a newer one before it started")), 0
        )

    def fetch(self, groups: Sequence[Group]) -> Fetched:
        with self._lock:
            return self._fetch(groups, may_reap=self._touch(self._clock.time()))

    def _fetch(self, groups: Sequence[Group], *, may_reap: bool) -> Fetched:
        now = self._clock.time()
        deliveries: list[Delivery] = []
        due_in: list[float | None] = []
        for group in groups:
            free = group.free
            due: list[float] = []
            for want in group.wants:
                if may_reap:
                    self._reap(self._queue(want.queue), now)
                taken, queue_due = self._fetch_queue(group, want, min(free, want.limit), now)
                free -= len(taken)
                deliveries += taken
                due += queue_due
            due_in.append(max(0.0, min(due) - now) if due else None)
        return Fetched(tuple(deliveries), tuple(due_in))

    def _fetch_queue(self, group: Group, want: Want, room: int, now: float) -> tuple[list[Delivery], list[float]]:
        """What starts now, and the times at which more may."""
        queue = self._queue(want.queue)
        if group.bound:
            names = {one.queue for one in group.wants}
            room = min(room, group.bound - sum(len(self._queue(name).leased) for name in names))
        if not self._gates.is_closed(want.gate):
            return self._fetch_trial(queue, want.gate, now) if room > 0 else [], []
        if (held := self._gates.held_until(want.gate)) > now:
            return [], [held]
        due = []
        ramp = self._gates.slow_start(want.gate, now, group.bound or group.slots)
        if ramp is not None:
            room = min(room, ramp[0] - len(queue.leased))
            due.append(now + ramp[1])
        queue.promote(now)
        found: list[Delivery] = []
        while queue.ready and len(found) < room:
            if delivery := self._deliver(queue, next(iter(queue.ready.values())), now, trial=False):
                found.append(delivery)
        head = queue.next_timer()
        return found, [*due, head[0]] if head is not None else due

    def _fetch_trial(self, queue: EntryQueue, gate: str, now: float) -> list[Delivery]:
        entry = queue.entries.get(self._gates.trial(gate))
        if entry is None or entry.lease is not None:
            return []
        self._gates.trial_is_handed_out(gate)
        delivery = self._deliver(queue, entry, now, trial=True)
        return [delivery] if delivery is not None else []

    def _touch(self, now: float) -> bool:
        """Whether leases may be reaped: not after nobody looked for a while, as when the machine slept."""
        if self._seen is not None and now - self._seen > self._lease / 2:
            self._grace_until = now + self._lease
        self._seen = now
        return now >= self._grace_until

    def _deliver(self, queue: EntryQueue, entry: Entry, now: float, *, trial: bool) -> Delivery | None:
        if entry.expires is not None and entry.expires <= now:
            self._expire(queue, entry)
            return None
        entry.token += 1
        queue.make_leased(entry, now + self._lease)
        return Delivery(
            queue.name,
            entry.id,
            entry.token,
            entry.deaths,
            entry.payload,
            entry.progress,
            trial,
            now,
            entry.expires or 0.0,
            0.0 if trial else entry.since,
        )

    def _reap(self, queue: EntryQueue, now: float) -> tuple[int, int]:
        returned = poisoned = 0
        late = [e for e in queue.leased.values() if e.lease is not None and e.lease <= now]
        for entry in reversed(late):  # the latest first, so that each goes in front of those that came after it
            entry.deaths += 1
            if queue.is_superseded(entry):
                self._replace(queue, entry)
            elif entry.deaths >= POISON_DEATHS:
                self._bury(queue, entry, "poison", None)
                if isinstance(entry.payload, LocalCall) and entry.payload.call.reply_to:
                    self._ends.post(entry.payload.call.reply_to, entry.id, _given_up(queue, "poison"))
                poisoned += 1
            else:
                queue.make_ready(entry, now, first=True)
                returned += 1
        return returned, poisoned

    def _expire(self, queue: EntryQueue, entry: Entry) -> None:
        if queue.waited:
            self._count_end(queue, "expired")
            queue.forget(entry)
        else:
            self._bury(queue, entry, "expired", None)

    def _bury(self, queue: EntryQueue, entry: Entry, reason: str, outcome: Outcome | None) -> None:
        queue.forget(entry)
        self._tallied[service_of_queue(queue.name), f"dead.{reason}"] += 1
        self._count_end(queue, "dead")
        at = self._clock.time()
        queue.dead[entry.id] = DeadLetter(queue.name, entry.id, at, reason, entry.payload, entry.progress)
        self._conclude(entry.id, outcome or _given_up(queue, reason), 0)

    def _count_end(self, queue: EntryQueue, outcome: str) -> None:
        kind = "waited" if queue.waited else "background"
        self._tallied[service_of_queue(queue.name), f"calls.{kind}.{outcome}"] += 1

    def _conclude(self, id: str, outcome: Outcome | None, keep: float = 0.0) -> None:
        self._ends.conclude(id, outcome, keep, self._clock.time())

    def settle(self, delivery: Delivery, settlement: Settlement) -> bool:
        with self._lock:
            queue = self._queue(delivery.queue)
            entry = queue.entries.get(delivery.id)
            if entry is None or entry.token != delivery.token:
                return False
            if isinstance(settlement, (Later, Release)) and entry.lease is None:
                return False
            self._settle(queue, entry, settlement, self._clock.time())
            self._wake()
            return True

    def settle_and_fetch(
        self, delivery: Delivery, settlement: Settlement, groups: Sequence[Group]
    ) -> tuple[bool, Fetched]:
        with self._lock:
            return self.settle(delivery, settlement), self._fetch(groups, may_reap=False)

    def _settle(self, queue: EntryQueue, entry: Entry, settlement: Settlement, now: float) -> None:
        match settlement:
            case Done(outcome, mailbox, keep, ended):
                queue.forget(entry)
                if ended is not None:
                    self._tallied[ended] += 1
                self._answer(queue, entry.id, mailbox, outcome, keep)
            case Bury(reason, outcome, mailbox, progress):
                entry.progress = progress or entry.progress
                self._bury(queue, entry, reason, outcome)
                if mailbox:
                    self._ends.post(mailbox, entry.id, outcome or _given_up(queue, reason))
            case Later() | Release() if queue.is_superseded(entry):
                heir = queue.entries.get(queue.coalesced.get(entry.coalesce, ""))
                if isinstance(settlement, Later) and heir is not None:
                    _inherit(queue, heir, settlement.progress, now + settlement.delay, now)
                self._replace(queue, entry)
            case Later(delay, progress):
                entry.progress = progress
                self._put_back(queue, entry, now, delay, first=False)
            case Release(first, delay, released):
                entry.progress = released or entry.progress
                self._put_back(queue, entry, now, delay, first=first)

    def _put_back(self, queue: EntryQueue, entry: Entry, now: float, delay: float, *, first: bool) -> None:
        if delay > 0:
            queue.make_due(entry, now + delay)
        else:
            queue.make_ready(entry, now, first=first)

    def _answer(self, queue: EntryQueue, id: str, mailbox: str, outcome: Outcome | None, keep: float) -> None:
        if mailbox:
            self._ends.post(mailbox, id, outcome or Outcome())
        if not queue.waited:
            failed = outcome is not None and outcome.error is not None
            self._conclude(id, outcome if keep > 0 or failed else None, keep)

    def beat(self, worker: str, report: bytes, queues: Sequence[str], held: Sequence[Delivery]) -> list[Delivery]:
        with self._lock:
            now = self._clock.time()
            self._touch(now)
            if report:
                self._reports[worker] = (now, report)
            for name in queues:
                self._queue(name).serving[worker] = now
            return [delivery for delivery in held if not self._renew(delivery, now)]

    def _renew(self, delivery: Delivery, now: float) -> bool:
        entry = self._queue(delivery.queue).entries.get(delivery.id)
        if entry is None or entry.token != delivery.token or entry.lease is None:
            return False
        entry.lease = now + self._lease
        return True

    def leave(self, worker: str, queues: Sequence[str]) -> None:
        with self._lock:
            self._reports.pop(worker, None)
            for name in queues:
                self._queue(name).serving.pop(worker, None)

    def cancel(self, queue: str, ids: Sequence[str], outcome: str = "cancelled") -> list[Cancelled]:
        with self._lock:
            return [self._cancel(self._queue(queue), id, outcome) for id in ids]

    def _cancel(self, queue: EntryQueue, id: str, outcome: str) -> Cancelled:
        entry = queue.entries.get(id)
        if entry is None:
            return Cancelled("unknown")
        if entry.lease is not None:
            return Cancelled("running")
        self._count_end(queue, outcome)
        queue.forget(entry)
        if not queue.waited:
            self._conclude(id, Outcome(error=taken_back(service_of_queue(queue.name), entry.deaths)), 0)
        return Cancelled("cancelled", entry.progress, entry.deaths)

    def watch(self, queue: str, id: str, mailbox: Mailbox) -> Outcome | None:
        with self._lock:
            if id in self._queue(queue).entries:
                self._ends.watch(id, mailbox)
                return None
            if self._ends.knows(id, self._clock.time()):
                return self._ends.outcome(id) or not_kept()
            if letter := self._queue(queue).dead.get(id):
                return _given_up(self._queue(queue), letter.reason)
        raise ResultExpired(f"the result of call {id} is gone, or was never kept", service=service_of_queue(queue))

    def standing(self, queue: str, id: str) -> Standing:
        with self._lock:
            entry = self._queue(queue).entries.get(id)
            if entry is not None:
                due = None if entry.due is None else max(0.0, entry.due - self._clock.time())
                where = "leased" if entry.lease is not None else "ready" if due is None else "due"
                return Standing(where, entry.progress, due)  # type: ignore[arg-type]
            letter = self._queue(queue).dead.get(id)
            if letter is not None:
                return Standing("dead", letter.progress, reason=letter.reason)
            known = self._ends.knows(id, self._clock.time())
            return Standing("done", outcome=self._ends.outcome(id) or Outcome()) if known else Standing("gone")

    def counts(self, queues: Sequence[str]) -> list[Counts]:
        with self._lock:
            return [self._counts(self._queue(name)) for name in queues]

    def _counts(self, queue: EntryQueue) -> Counts:
        queue.promote(self._clock.time())
        ready, leased = len(queue.ready), len(queue.leased)
        due = len(queue.entries) - ready - leased
        head = next(iter(queue.ready.values()), None)
        oldest = max(0.0, self._clock.time() - head.since) if head is not None else 0.0
        return Counts(ready, due, leased, len(queue.dead), self.workers_serving(queue.name), oldest)

    def next_due_in(self, queue: str) -> float:
        """Seconds until the next call's time has come; infinite when none waits for one."""
        with self._lock:
            head = self._queue(queue).next_timer()
            return math.inf if head is None else max(0.0, head[0] - self._clock.time())

    def workers_serving(self, queue: str) -> int:
        with self._lock:
            return sum(self._is_recent(beat) for beat in self._queue(queue).serving.values())

    def _is_recent(self, beat: float) -> bool:
        return self._clock.time() - beat <= SILENT

    def oldest(self, queue: str, gate: str) -> Oldest:
        with self._lock:
            entries, now = self._queue(queue), self._clock.time()
            if self._gates.held_until(gate) > now:
                return Oldest()
            ready = list(itertools.islice(entries.ready.values(), 100))
            if ready:
                found = next((entry for entry in ready if not entry.tried), ready[0])
                return Oldest(found.id, found.tried)
            waiting = sorted((e for e in entries.entries.values() if e.due is not None), key=lambda e: e.due or 0)
            may = [entry for entry in waiting if (entry.due or 0) <= now or entry.tried]
            return Oldest(may[0].id, may[0].tried) if may else Oldest()

    def hold(self, gate: str, seconds: float) -> None:
        with self._lock:
            self._gates.hold(gate, self._clock.time() + seconds)

    def pause(self, queue: str, gate: str) -> None:
        with self._lock:
            self._gates.pause(gate)

    def resume(self, queue: str, gate: str) -> None:
        with self._lock:
            self._gates.resume(gate)
            self._wake()

    def paused(self, gates: Sequence[str]) -> list[bool]:
        with self._lock:
            return [self._gates.is_paused(gate) for gate in gates]

    def ticks(self, schedules: Sequence[str]) -> dict[str, float]:
        with self._lock:
            return {name: self._firsts.tick(name, self._clock.time()) for name in schedules}

    def count(self, counts: Mapping[tuple[str, str], int]) -> None:
        with self._lock:
            self._tallied.update(counts)

    def tally(self) -> dict[tuple[str, str], int]:
        with self._lock:
            return dict(self._tallied)

    def queues(self) -> list[str]:
        with self._lock:
            return sorted(self._queues)

    def workers(self) -> list[bytes]:
        with self._lock:
            return [report for beat, report in self._reports.values() if self._is_recent(beat)]

    def sweep(self, queue: str) -> tuple[int, int, int]:
        with self._lock:
            entries, now = self._queue(queue), self._clock.time()
            returned, poisoned = self._reap(entries, now) if self._touch(now) else (0, 0)
            late = [e for e in entries.entries.values() if e.lease is None and e.expires and e.expires <= now]
            for entry in late:
                self._expire(entries, entry)
            self._wake()
            return returned, poisoned, len(late)

    def dead_letters(self, queue: str, offset: int = 0, count: int = 100) -> list[DeadLetter]:
        with self._lock:
            return list(self._queue(queue).dead.values())[offset : offset + count]

    def dead_page(self, queue: str, offset: int, count: int, reason: str = "") -> DeadPage:
        with self._lock:
            left = itertools.islice(self._queue(queue).dead.values(), offset, None)
            found: list[DeadLetter] = []
            for place, letter in enumerate(left, offset):
                if len(found) == count:
                    return DeadPage(found, place)
                if reason in ("", letter.reason):
                    found.append(letter)
            return DeadPage(found, None)

    def replay(self, queue: str, id: str, expires_in: float) -> bool:
        with self._lock:
            letter = self._queue(queue).dead.pop(id, None)
            if letter is None:
                return False
            self._ends.take_back(id)
            self._put(Put(queue, id, letter.payload, expires_in=expires_in))
            entry = self._queue(queue).entries[id]
            entry.token = next(_lives)  # no delivery of its earlier life has such a token
            if history := letter.progress.history:
                entry.progress = Progress(history=history, replays=letter.progress.replays + 1)
            self._wake()
            return True

    def purge(self, queue: str, id: str) -> bool:
        with self._lock:
            return self._queue(queue).dead.pop(id, None) is not None

    def flush(self, queue: str) -> None:
        with self._lock:
            entries = self._queue(queue)
            for entry in list(entries.entries.values()):
                entries.forget(entry)

    def wait(
        self, queues: Sequence[str], timeout: float | None, has_room: Callable[[str], bool] = lambda queue: True
    ) -> Sequence[Delivery]:
        with self._lock:
            if not self._poked:
                self._lock.wait(timeout)
            self._poked = False
        return ()

    def rest(self, queues: Sequence[str]) -> None:
        """Nobody else is asleep who would have to be woken."""

    def poke(self) -> None:
        with self._lock:
            self._wake()

    def _wake(self) -> None:
        self._poked = True
        self._lock.notify_all()

    def close(self) -> None:
        self.poke()
