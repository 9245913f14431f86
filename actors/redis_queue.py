"""The queue in Redis or Valkey: each verb is one script of `lua/`, where its keys and its promises are written down."""

from __future__ import annotations

import itertools
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from redis.exceptions import OutOfMemoryError, ResponseError

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
)
from seawall.actors.record import Malformed, Progress, decode_progress, decode_reply, encode
from seawall.actors.redis_wake import WakeLine
from seawall.actors.replies import Mailbox, Outcome, from_reply, to_reply
from seawall.actors.service import service_of_queue
from seawall.errors import BrokerUnavailable, CallFailed, QueueFull, ResultExpired
from seawall.redis_link import Argument, RedisLink, Script, load_script

__all__ = ["RedisQueue"]

logger = logging.getLogger("seawall.queue")

#: Seconds that a worker's report outlives its last heartbeat.
REPORT_LIFETIME = 5.0
#: Seconds that a dead letter is kept.
DEAD_LIFETIME = 7 * 24 * 3600.0
#: Plain calls, and bytes of their payloads, that one script accepts; a script must stay short.
BATCH_CALLS, BATCH_BYTES = 200, 256 * 1024
#: Batches that go out in one round trip: however many calls there are, its answer comes well within the link's patience.
TRIP_BATCHES = 10
#: Calls that one sweep, and one look for dead workers' calls, treats at the most; a script must stay short.
SWEEP_LIMIT, REAP_LIMIT = 500, 100
#: Part of a lease after which a fetch looks for dead workers' calls again.
REAP_SHARE = 0.2

_SCRIPTS = {
    name: load_script("seawall.actors", name, prelude="queue")
    for name in (
        *("put", "turn", "again", "reap", "expire", "beat", "leave", "cancel", "look", "sweep", "dead"),
        *("hold", "pause", "ticks", "count"),
    )
}


class RedisQueue:
    """A QueueStore over one link. `lease` is in seconds; all workers of a namespace must agree on it."""

    def __init__(
        self, link: RedisLink, namespace: str, *, lease: float = LEASE, dead_lifetime: float = DEAD_LIFETIME
    ) -> None:
        self._link = link
        self._prefix = f"{namespace}:"
        self._lease_ms = int(lease * 1000)
        self._dead_ms = int(dead_lifetime * 1000)
        self._wake = WakeLine(link, self._prefix)
        self._fetcher = uuid.uuid4().hex[:12]
        self._fetches = itertools.count(1)
        self._reap_at = 0.0
        self._unheard: dict[str, list[str]] = {}
        """Fetches whose answers did not come, by label: the queues that they asked."""
        self._clock: tuple[int, float] | None = None
        """The server's time in ms in its last answer to a fetch, and the monotonic time of its coming."""

    @property
    def at_hand(self) -> bool:
        return self._link.connected

    def put(self, puts: Sequence[Put]) -> list[Accepted | Exception]:
        batches = list(_batches(puts))
        answers: list[Any] = []
        for start in range(0, len(batches), TRIP_BATCHES):
            trip = batches[start : start + TRIP_BATCHES]
            try:
                answers += self._link.try_many([(_SCRIPTS["put"], self._put_arguments(batch)) for batch in trip])
            except BrokerUnavailable as error:
                if not answers:
                    raise
                unsent = BrokerUnavailable(str(error), written=False)
                answers += [error] * len(trip) + [unsent] * (len(batches) - start - len(trip))
                break
        return [one for batch, answer in zip(batches, answers, strict=True) for one in _accepted(batch, answer)]

    def _put_arguments(self, batch: Sequence[Put]) -> list[Argument]:
        first, plain = batch[0], _is_plain(batch[0])
        hand = self._lease_ms if first.hand else 0
        arguments: list[Argument] = [self._prefix, first.mailbox, first.mark, first.queue, first.cap, hand]
        arguments += [int(plain), _ms(first.expires_in), first.cap_bytes]
        for put in batch:
            arguments += (put.id, put.payload)
            if not plain:
                schedule, tick = put.tick or ("", 0.0)
                arguments += (_ms(put.delay), _ms(put.not_before), put.coalesce)
                arguments += (put.dedupe, _ms(put.dedupe_window), schedule, _ms(tick))
        return arguments

    def fetch(self, groups: Sequence[Group]) -> Fetched:
        before: list[tuple[Script, Sequence[Argument]]] = []
        if groups and time.monotonic() >= self._reap_at:
            self._reap_at = time.monotonic() + self._lease_ms / 1000 * REAP_SHARE
            queues = dict.fromkeys(want.queue for group in groups for want in group.wants)
            before = [(_SCRIPTS["reap"], [self._prefix, self._lease_ms, POISON_DEATHS, REAP_LIMIT, *queues])]
        return self._turn(_NOTHING_ENDED, groups, before)[1]

    def settle(self, delivery: Delivery, settlement: Settlement) -> bool:
        return self.settle_and_fetch(delivery, settlement, ())[0]

    def settle_and_fetch(
        self, delivery: Delivery, settlement: Settlement, groups: Sequence[Group]
    ) -> tuple[bool, Fetched]:
        head = (delivery.queue, delivery.id, delivery.token)
        if isinstance(settlement, Done):
            return self._turn((*head, *_done_arguments(delivery, settlement)), groups)
        again = [self._prefix, _VERBS[type(settlement)], *head, *_again_arguments(delivery, settlement)]
        if not groups:
            return bool(self._link.run(_SCRIPTS["again"], *again)), Fetched()
        settled, fetched = self._turn(_NOTHING_ENDED, groups, [(_SCRIPTS["again"], again)])
        return settled, fetched

    def _turn(
        self,
        ended: Sequence[Argument],
        groups: Sequence[Group],
        before: Sequence[tuple[Script, Sequence[Argument]]] = (),
    ) -> tuple[bool, Fetched]:
        """Settle and fetch in one round trip, `before` first. Answers what came of the settlement, wherever it was."""
        label, unheard = f"{self._fetcher}.{next(self._fetches)}", self._unheard.copy() if groups else {}
        queues = [want.queue for group in groups for want in group.wants]
        arguments: list[Argument] = [self._prefix, *ended, label, self._latest(), self._lease_ms]
        arguments += _unheard_arguments(unheard)
        arguments += _group_arguments(groups)
        try:
            *earlier, turn = self._link.run_many([*before, (_SCRIPTS["turn"], arguments)])
        except BrokerUnavailable as error:
            if error.written and groups:
                self._unheard[label] = queues
            raise
        for heard in unheard:
            self._unheard.pop(heard, None)
        settled, now_ms, due_ms, overdue, bounded, *rows = turn
        self._clock = (now_ms, time.monotonic())
        deliveries = tuple(_delivery(queues[row[0] - 1], row, now_ms / 1000) for row in rows)
        if overdue:
            self._expire({queues[number - 1] for number in overdue})
        due_in = tuple(ms / 1000 if ms >= 0 else None for ms in due_ms)
        turned_away = frozenset(group - 1 for group in bounded)
        return bool(earlier[0] if earlier else settled), Fetched(deliveries, due_in, turned_away)

    def _expire(self, queues: Iterable[str]) -> None:
        """A fetch has met calls whose time is over. Should this fail, the next sweep finds them."""
        try:
            self._link.run_many([(_SCRIPTS["expire"], [self._prefix, queue, SWEEP_LIMIT]) for queue in queues])
        except (BrokerUnavailable, ResponseError) as error:
            logger.debug("calls whose time is over were left to a sweep: %s", error)

    def _latest(self) -> int:
        """Server time in ms at which a fetch that is sent now will have been given up by us; 0 when we do not know it."""
        if self._clock is None:
            return 0
        now_ms, heard_at = self._clock
        return int(now_ms + (time.monotonic() - heard_at + self._link.answer_timeout) * 1000)

    def beat(self, worker: str, report: bytes, queues: Sequence[str], held: Sequence[Delivery]) -> list[Delivery]:
        arguments: list[Argument] = [self._prefix, worker, report, _ms(REPORT_LIFETIME), self._lease_ms]
        arguments += [len(queues), *queues, len(held)]
        for delivery in held:
            arguments += [delivery.queue, delivery.id, delivery.token]
        return [held[position - 1] for position in self._link.run(_SCRIPTS["beat"], *arguments)]

    def leave(self, worker: str, queues: Sequence[str]) -> None:
        self._link.run(_SCRIPTS["leave"], self._prefix, worker, *queues)

    def cancel(self, queue: str, ids: Sequence[str], outcome: str = "cancelled") -> list[Cancelled]:
        if not ids:
            return []
        rows = self._link.run(_SCRIPTS["cancel"], self._prefix, queue, outcome, *ids)
        return [Cancelled(_CANCELLED[state], decode_progress(progress), deaths) for state, progress, deaths in rows]

    def watch(self, queue: str, id: str, mailbox: Mailbox) -> Outcome | None:
        answer = self._link.run(_SCRIPTS["look"], self._prefix, "watch", queue, id, mailbox.address)
        if answer[0] == b"gone":
            raise ResultExpired(
                f"the result of call {id} is gone: it was kept for keep_result seconds, or not at all",
                service=service_of_queue(queue),
            )
        return _outcome(answer[1], queue) if answer[0] == b"done" else None

    def standing(self, queue: str, id: str) -> Standing:
        where, due_ms, progress, rest = self._link.run(_SCRIPTS["look"], self._prefix, "status", queue, id)
        place = where.decode()
        return Standing(
            where=place,
            progress=decode_progress(progress),
            due_in=due_ms / 1000 if due_ms >= 0 else None,
            outcome=(_outcome(rest, queue) if rest else Outcome()) if place == "done" else None,
            reason=rest.decode() if place == "dead" else "",
        )

    def counts(self, queues: Sequence[str]) -> list[Counts]:
        if not queues:
            return []
        rows = self._link.run(_SCRIPTS["look"], self._prefix, "counts", *queues)
        return [Counts(ready, due, leased, dead, alive, age / 1000) for ready, due, leased, dead, alive, age in rows]

    def workers_serving(self, queue: str) -> int:
        return int(self._link.run(_SCRIPTS["look"], self._prefix, "next", queue))

    def oldest(self, queue: str, gate: str) -> Oldest:
        id, tried = self._link.run(_SCRIPTS["look"], self._prefix, "oldest", queue, gate)
        return Oldest(id.decode(), bool(tried))

    def hold(self, gate: str, seconds: float) -> None:
        self._link.run(_SCRIPTS["hold"], self._prefix, gate, _ms(seconds))

    def pause(self, queue: str, gate: str) -> None:
        self._link.run(_SCRIPTS["pause"], self._prefix, "pause", queue, gate)

    def resume(self, queue: str, gate: str) -> None:
        self._link.run(_SCRIPTS["pause"], self._prefix, "resume", queue, gate)

    def paused(self, gates: Sequence[str]) -> list[bool]:
        return [bool(paused) for paused in self._link.run(_SCRIPTS["pause"], self._prefix, "paused", *gates)]

    def ticks(self, schedules: Sequence[str]) -> dict[str, float]:
        last = self._link.run(_SCRIPTS["ticks"], self._prefix, *schedules)
        return {schedule: int(ms) / 1000 for schedule, ms in zip(schedules, last, strict=True)}

    def count(self, counts: Mapping[tuple[str, str], int]) -> None:
        pairs = [part for (service, what), times in counts.items() for part in (f"{service} {what}", times)]
        self._link.run(_SCRIPTS["count"], self._prefix, *pairs)

    def tally(self) -> dict[tuple[str, str], int]:
        stored = self._link.command("HGETALL", f"{self._prefix}counts")
        fields = stored.items() if isinstance(stored, dict) else zip(stored[::2], stored[1::2], strict=True)
        found: dict[tuple[str, str], int] = {}
        for field, times in fields:
            service, _, what = field.decode().partition(" ")
            found[service, what] = int(times)
        return found

    def queues(self) -> list[str]:
        return sorted(name.decode() for name in self._link.command("SMEMBERS", f"{self._prefix}queues"))

    def workers(self) -> list[bytes]:
        names = self._link.command("ZRANGE", f"{self._prefix}workers", 0, -1)
        reports = (
            self._link.command("MGET", *[self._prefix.encode() + b"worker:" + name for name in names]) if names else []
        )
        return [report for report in reports if report is not None]

    def sweep(self, queue: str) -> tuple[int, int, int]:
        returned, poisoned, expired, _ = self._link.run(
            _SCRIPTS["sweep"], self._prefix, queue, self._lease_ms, POISON_DEATHS, SWEEP_LIMIT, self._dead_ms
        )
        return returned, poisoned, expired

    def dead_letters(self, queue: str, offset: int = 0, count: int = 100) -> list[DeadLetter]:
        found: list[DeadLetter] = []
        place: int | None = offset
        while place is not None and len(found) < count:
            page = self.dead_page(queue, place, count - len(found))
            found += page.letters
            place = page.next
        return found

    def dead_page(self, queue: str, offset: int, count: int, reason: str = "") -> DeadPage:
        place, rows = self._link.run(_SCRIPTS["dead"], self._prefix, "list", queue, offset, count, reason)
        letters = [
            DeadLetter(queue, id.decode(), at / 1000, why.decode(), payload, decode_progress(progress))
            for id, at, why, payload, progress in rows
        ]
        return DeadPage(letters, place if place >= 0 else None)

    def replay(self, queue: str, id: str, expires_in: float) -> bool:
        return bool(self._link.run(_SCRIPTS["dead"], self._prefix, "replay", queue, id, _ms(expires_in)))

    def purge(self, queue: str, id: str) -> bool:
        return bool(self._link.run(_SCRIPTS["dead"], self._prefix, "purge", queue, id))

    def flush(self, queue: str) -> None:
        base = f"{self._prefix}q:{queue}:"
        names = ("msg", "bytes", "prog", "tok", "deaths", "ready", "due", "lease", "exp", "co", "cokey", "wake")
        self._link.command("DEL", *[base + name for name in names])

    def wait(
        self, queues: Sequence[str], timeout: float | None, has_room: Callable[[str], bool] = lambda queue: True
    ) -> Sequence[Delivery]:
        popped = self._wake.wait(queues, timeout, has_room)
        handed = _handed(*popped) if popped is not None else None
        return () if handed is None else (handed,)

    def rest(self, queues: Sequence[str]) -> None:
        self._wake.rest()
        self.leave("", queues)

    def poke(self) -> None:
        self._wake.poke()

    def close(self) -> None:
        self._wake.close()


_VERBS: dict[type, str] = {Later: "later", Release: "release", Bury: "bury"}
_NOTHING_ENDED: tuple[Argument, ...] = ("",) * 7
_CANCELLED: dict[int, Any] = {1: "cancelled", 0: "running", -1: "unknown"}


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _batches(puts: Sequence[Put]) -> Iterator[Sequence[Put]]:
    """The calls in their order, cut into what one script takes: many plain ones that are alike, or any one."""
    start = size = 0
    for position, put in enumerate(puts):
        size += len(put.payload)
        full = position - start >= BATCH_CALLS or size > BATCH_BYTES
        if position > start and (full or not _alike(puts[start], put)):
            yield puts[start:position]
            start, size = position, len(put.payload)
    if puts:
        yield puts[start:]


def _alike(first: Put, put: Put) -> bool:
    same = (first.queue, first.expires_in, first.cap, first.cap_bytes)
    return _is_plain(first) and _is_plain(put) and same == (put.queue, put.expires_in, put.cap, put.cap_bytes)


def _is_plain(put: Put) -> bool:
    """It may start now, and no other call has to do with it."""
    return not (put.delay or put.not_before or put.coalesce or put.dedupe or put.tick)


def _accepted(batch: Sequence[Put], answer: Any) -> list[Accepted | Exception]:
    """What became of a batch's calls. The script is one step: what it refuses as a whole, none of them got through."""
    service = service_of_queue(batch[0].queue)
    if isinstance(answer, OutOfMemoryError):
        return [QueueFull("the broker is out of memory and takes no new calls", service=service)] * len(batch)
    if isinstance(answer, BrokerUnavailable):
        return [answer] * len(batch)
    if isinstance(answer, Exception):
        return [BrokerUnavailable(f"the broker refused the call: {answer}", service=service)] * len(batch)
    workers, *each = answer
    if not each:
        return [Accepted(True, workers)] * len(batch)
    return [_answer(state, workers, other.decode()) for state, other in each]


def _answer(state: int, workers: int, other: str) -> Accepted:
    """As `put.lua` has it."""
    if state < 0:
        return Accepted(False, workers, full="calls" if state == -1 else "bytes")
    return Accepted(True, workers, first=other) if state == 2 else Accepted(True, workers, other)


def _unheard_arguments(unheard: Mapping[str, Sequence[str]]) -> list[Argument]:
    arguments: list[Argument] = [len(unheard)]
    for label, queues in unheard.items():
        arguments += [label, len(queues), *queues]
    return arguments


def _group_arguments(groups: Sequence[Group]) -> list[Argument]:
    arguments: list[Argument] = [len(groups)]
    for group in groups:
        arguments += [group.free, group.bound, group.slots, len(group.wants)]
        for want in group.wants:
            arguments += [want.queue, want.gate, want.limit]
    return arguments


def _delivery(queue: str, row: list[Any], now: float) -> Delivery:
    _, id, token, deaths, payload, progress, trial, start_by, since = row
    return Delivery(
        queue,
        id.decode(),
        token,
        deaths,
        payload,
        decode_progress(progress),
        bool(trial),
        now,
        start_by / 1000,
        since / 1000,
    )


def _handed(queue: str, element: bytes) -> Delivery | None:
    """A call that was put into the wake list itself, as `queue.lua` has it; None for a mere token."""
    if element[:1] != b"h":
        return None
    id, now_ms, start_by_ms, payload = element[1:].split(b"\n", 3)
    now = int(now_ms) / 1000
    return Delivery(queue, id.decode(), 1, 0, payload, Progress(), False, now, int(start_by_ms) / 1000, now)


def _done_arguments(delivery: Delivery, done: Done) -> list[Argument]:
    outcome = done.outcome or Outcome()
    wanted = done.mailbox or done.keep or outcome.error is not None
    ended = " ".join(done.ended) if done.ended is not None else ""
    return [done.mailbox, _reply(delivery.id, outcome) if wanted else b"", _ms(done.keep), ended]


def _again_arguments(delivery: Delivery, settlement: Later | Release | Bury) -> list[Argument]:
    match settlement:
        case Later(delay, progress):
            return [_ms(delay), encode(progress)]
        case Release(first, delay, released):
            return [int(first), _ms(delay), encode(released) if released is not None else b""]
        case Bury(reason, outcome, mailbox, progress):
            reply = _reply(delivery.id, outcome or Outcome(error=CallFailed("", reason=reason)))
            return [reason, mailbox, reply, encode(progress) if progress is not None else b""]


def _reply(id: str, outcome: Outcome) -> bytes:
    return encode(to_reply(id, outcome))


def _outcome(payload: bytes, queue: str) -> Outcome:
    """A stored reply; an empty one is of a call whose result nobody asked to keep."""
    service = service_of_queue(queue)
    if not payload:
        return Outcome(error=ResultExpired("the call succeeded, its result was not kept", service=service))
    try:
        return from_reply(decode_reply(payload), service=service)
    except Malformed as error:
        return Outcome(error=ResultExpired(f"the stored result cannot be read: {error}", service=service))
