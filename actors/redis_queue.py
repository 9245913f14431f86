"""The queue in Redis or Valkey: each verb is one script of `lua/`, where its keys and its promises are written down."""

from __future__ import annotations

import itertools
import logging
import threading
import uuid
from collections.abc import Sequence
from typing import Any

from redis.exceptions import OutOfMemoryError

from seawall.actors.queue_store import (
    LEASE,
    POISON_DEATHS,
    Accepted,
    Bury,
    Cancelled,
    Counts,
    DeadLetter,
    Delivery,
    Done,
    Fetched,
    Group,
    Later,
    Put,
    Release,
    Settlement,
    Standing,
)
from seawall.actors.record import Malformed, decode_progress, decode_reply, encode
from seawall.actors.redis_wake import WakeLine
from seawall.actors.replies import Mailbox, Outcome, from_reply, to_reply
from seawall.actors.service import service_of_queue
from seawall.errors import BrokerUnavailable, CallFailed, QueueFull, ResultExpired
from seawall.redis_link import Argument, RedisLink, load_script

__all__ = ["RedisQueue"]

logger = logging.getLogger("seawall.queue")

#: Seconds that a worker's report outlives its last heartbeat.
REPORT_LIFETIME = 5.0
#: Seconds that a dead letter is kept.
DEAD_LIFETIME = 7 * 24 * 3600.0
#: Calls that one sweep treats at the most; a script must stay short.
SWEEP_LIMIT = 500

_SCRIPTS = {
    name: load_script("seawall.actors", name, prelude="queue")
    for name in ("put", "fetch", "settle", "beat", "leave", "cancel", "look", "sweep", "dead")
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
        self._fetcher = uuid.uuid4().hex
        self._fetches = itertools.count(1)
        self._answered = 0
        self._fetching = threading.Lock()

    def put(self, puts: Sequence[Put]) -> list[Accepted | Exception]:
        answers = self._link.try_many([(_SCRIPTS["put"], self._put_arguments(put)) for put in puts])
        return [_accepted(put, answer) for put, answer in zip(puts, answers, strict=True)]

    def _put_arguments(self, put: Put) -> list[Argument]:
        return [
            self._prefix,
            put.queue,
            put.id,
            put.payload,
            _ms(put.delay),
            _ms(put.expires_in),
            put.coalesce,
            put.cap,
        ]

    def fetch(self, groups: Sequence[Group]) -> Fetched:
        with self._fetching:
            number = next(self._fetches)
            now_ms, next_ms, *rows = self._link.run(_SCRIPTS["fetch"], *self._fetch_arguments(number, groups))
            self._answered = number
        now = now_ms / 1000
        return Fetched(tuple(_delivery(row, now) for row in rows), next_ms / 1000 if next_ms >= 0 else None, now)

    def _fetch_arguments(self, number: int, groups: Sequence[Group]) -> list[Argument]:
        arguments: list[Argument] = [self._prefix, self._fetcher, number, self._answered]
        arguments += [self._lease_ms, POISON_DEATHS, len(groups)]
        arguments += [group.free for group in groups]
        wants = [(want, position) for position, group in enumerate(groups, 1) for want in group.wants]
        arguments.append(len(wants))
        for want, position in wants:
            arguments += [want.queue, want.gate, want.limit, position]
        return arguments

    def settle(self, delivery: Delivery, settlement: Settlement) -> bool:
        head: list[Argument] = [self._prefix, _VERBS[type(settlement)], delivery.queue, delivery.id, delivery.token]
        return bool(self._link.run(_SCRIPTS["settle"], *head, *_settlement_arguments(delivery, settlement)))

    def beat(self, worker: str, report: bytes, queues: Sequence[str], held: Sequence[Delivery]) -> list[Delivery]:
        arguments: list[Argument] = [self._prefix, worker, report, _ms(REPORT_LIFETIME), self._lease_ms]
        arguments += [len(queues), *queues, len(held)]
        for delivery in held:
            arguments += [delivery.queue, delivery.id, delivery.token]
        return [held[position - 1] for position in self._link.run(_SCRIPTS["beat"], *arguments)]

    def leave(self, worker: str, queues: Sequence[str]) -> None:
        self._link.run(_SCRIPTS["leave"], self._prefix, worker, *queues)

    def cancel(self, queue: str, ids: Sequence[str]) -> list[Cancelled]:
        if not ids:
            return []
        rows = self._link.run(_SCRIPTS["cancel"], self._prefix, queue, *ids)
        return [Cancelled(_CANCELLED[state], decode_progress(progress)) for state, progress in rows]

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

    def oldest(self, queue: str) -> str:
        found: bytes = self._link.run(_SCRIPTS["look"], self._prefix, "oldest", queue)
        return found.decode()

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
        rows = self._link.run(_SCRIPTS["dead"], self._prefix, "list", queue, offset, count)
        return [
            DeadLetter(queue, id.decode(), at / 1000, reason.decode(), payload, decode_progress(progress))
            for id, at, reason, payload, progress in rows
        ]

    def replay(self, queue: str, id: str, expires_in: float) -> bool:
        return bool(self._link.run(_SCRIPTS["dead"], self._prefix, "replay", queue, id, _ms(expires_in)))

    def purge(self, queue: str, id: str) -> bool:
        return bool(self._link.run(_SCRIPTS["dead"], self._prefix, "purge", queue, id))

    def flush(self, queue: str) -> None:
        base = f"{self._prefix}q:{queue}:"
        names = ("msg", "prog", "tok", "deaths", "ready", "due", "lease", "exp", "co", "cokey", "wake")
        self._link.command("DEL", *[base + name for name in names])

    def wait(self, queues: Sequence[str], timeout: float | None) -> None:
        self._wake.wait(queues, timeout)

    def rest(self, queues: Sequence[str]) -> None:
        self._wake.rest()
        self.leave("", queues)

    def poke(self) -> None:
        self._wake.poke()

    def close(self) -> None:
        self._wake.close()


_VERBS: dict[type, str] = {Done: "done", Later: "later", Release: "release", Bury: "bury"}
_CANCELLED: dict[int, Any] = {1: "cancelled", 0: "running", -1: "unknown"}


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _accepted(put: Put, answer: Any) -> Accepted | Exception:
    if isinstance(answer, OutOfMemoryError):
        return QueueFull("the broker is out of memory and takes no new calls", service=service_of_queue(put.queue))
    if isinstance(answer, BrokerUnavailable):
        return answer
    if isinstance(answer, Exception):
        return BrokerUnavailable(f"the broker refused the call: {answer}", service=service_of_queue(put.queue))
    state, workers, replaced = answer
    return Accepted(state >= 0, workers, replaced.decode())


def _delivery(row: list[Any], now: float) -> Delivery:
    queue, id, token, deaths, payload, progress, trial = row
    return Delivery(queue.decode(), id.decode(), token, deaths, payload, decode_progress(progress), bool(trial), now)


def _settlement_arguments(delivery: Delivery, settlement: Settlement) -> list[Argument]:
    match settlement:
        case Done(outcome, mailbox, keep):
            wanted = mailbox or keep or (outcome is not None and outcome.error is not None)
            return [mailbox, _reply(delivery.id, outcome or Outcome()) if wanted else b"", _ms(keep)]
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
