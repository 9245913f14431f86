"""What a chaos run has left behind for its checker, gathered once everything is still and once everything has ended."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import psutil
import redis

from seawall.actors.queue_store import QueueStore
from seawall.actors.record import decode_call
from seawall.actors.service import queue_names
from seawall.errors import BrokerUnavailable
from tests.chaos.ledger import Asked, Visit
from tests.chaos.letters import number_in
from tests.chaos.members import Life, Member
from tests.chaos.plan import SERVICES
from tests.chaos.trials import Followed
from tests.chaos.world import NAMESPACE

__all__ = ["Burial", "Evidence", "Lag", "Size", "dead_letters", "drained", "keys_left", "sizes", "waiting"]

#: Keys that may stay for ever, by what follows the namespace: one for a queue or a service, however many calls there were.
BOOKKEEPING = frozenset(
    {
        *("queues", "workers", "supervisors", "seen", "counts", "leader", "breaker-keys", "breaker:*"),
        *("q:*:wake", "q:*:serving", "q:*:ended", "history", "transitions", "alerts", "audit"),
    }
)
#: Keys that go by themselves.
EXPIRING = frozenset({"done:*", "grace", "mail:*", "watch:*", "worker:*", "supervisor:*", "wake:*"})
#: All that a HASH of deliveries may hold: the mark that a bound across workers has turned a fetch away.
TURNED_AWAY = ["!"]
#: What the server answers for the time to live of a key that has gone meanwhile.
GONE = -2


@dataclass(frozen=True)
class Burial:
    """A dead letter."""

    service: str
    id: str
    number: str
    reason: str


@dataclass(frozen=True)
class Size:
    """What a process holds: threads and file descriptors."""

    threads: int
    files: int


@dataclass
class Evidence:
    recovery: Mapping[str, float]
    """Seconds between two trials, at least, by service."""
    asked: Sequence[Asked] = ()
    visits: Sequence[Visit] = ()
    lives: Sequence[Life] = ()
    breakers: Mapping[str, Followed] = field(default_factory=dict)
    burials: Sequence[Burial] = ()
    drained: bool = True
    waiting: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Ids of background calls that are not over, by service, after all the time that they were given."""
    begun: float = 0.0
    """Monotonic time at which the plan began."""
    lag: float = 0.0
    """The most seconds for which a thread of this process did not get to run, though it wanted to: how busy the machine is."""
    calm_from: float = 0.0
    """Monotonic time from which nothing was disturbed any more."""
    sizes_before: Mapping[str, Size] = field(default_factory=dict)
    sizes_after: Mapping[str, Size] = field(default_factory=dict)
    keys_left: Sequence[str] = ()
    processes_left: Sequence[str] = ()
    sockets_left: Sequence[str] = ()


class Lag:
    """Measures, on a thread of its own for as long as the process lives, how late a thread runs at most."""

    LOOK_EVERY = 0.05

    def __init__(self) -> None:
        self.seconds = 0.0
        threading.Thread(target=self._measure, daemon=True).start()

    def _measure(self) -> None:
        while True:
            looked = time.monotonic()
            time.sleep(self.LOOK_EVERY)
            self.seconds = max(self.seconds, time.monotonic() - looked - self.LOOK_EVERY)


def drained(queue: QueueStore) -> bool:
    """Nothing waits and nothing runs in any queue; False while the server is away."""
    try:
        counts = queue.counts([name for service in SERVICES for name in queue_names(service)])
    except BrokerUnavailable:
        return False
    return all(one.ready + one.due + one.leased == 0 for one in counts)


def waiting(client: redis.Redis) -> dict[str, list[str]]:
    """The ids of accepted background calls that are in their queue, whatever its counts say."""
    keys = {service: f"{NAMESPACE}:q:{queue_names(service)[1]}:msg" for service in SERVICES}
    return {service: [id.decode() for id in client.hkeys(key)] for service, key in keys.items()}


def dead_letters(queue: QueueStore) -> list[Burial]:
    """All of them, taken out of their queues on the way."""
    found = []
    for service in SERVICES:
        name = queue_names(service)[1]
        while letters := queue.dead_letters(name):
            for letter in letters:
                found.append(Burial(service, letter.id, _number(letter.payload), letter.reason))
                queue.purge(name, letter.id)
    return found


def _number(payload: object) -> str:
    return number_in(decode_call(payload).target) if isinstance(payload, bytes) else ""


def sizes(members: Iterable[Member]) -> dict[str, Size]:
    """Of those that run, by the name of their place."""
    found = {}
    for member in members:
        if member.runs:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(member.life.pid)
                found[member.name] = Size(process.num_threads(), process.num_fds())
    return found


def keys_left(client: redis.Redis) -> list[str]:
    """Keys that should not be there once all calls are over, all dead letters purged and all processes ended."""
    found = set()
    for key in client.scan_iter("*", count=1000):
        left = client.ttl(key)
        if left == GONE or _shape(key.decode()) in (EXPIRING if left >= 0 else BOOKKEEPING):
            continue
        fields = [field.decode() for field in client.hkeys(key)] if client.type(key) == b"hash" else []
        if fields != TURNED_AWAY:
            found.add(f"{key.decode()} {' '.join(fields[:5])}")
    return sorted(found)


def _shape(key: str) -> str:
    """`chaos:done:8a1f` -> `done:*`, `chaos:q:x:wake` -> `q:*:wake`."""
    name = key.removeprefix(f"{NAMESPACE}:")
    if name.startswith("q:"):
        return f"q:*:{name.split(':', 2)[2]}"
    return f"{name.partition(':')[0]}:*" if ":" in name else name
