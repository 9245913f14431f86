"""What a queue can do, whoever keeps it: the seam between the broker and Redis, or this process's memory.

Values here are msgspec structs: made for every call, and several times faster to make than frozen dataclasses.

Every verb is atomic, and idempotent by id (and delivery), so that whoever is cut off may simply say it again.
Both stores pass one conformance suite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from seawall.actors.record import Progress
from seawall.actors.replies import Mailbox, Outcome

__all__ = [
    "LEASE",
    "POISON_DEATHS",
    "Accepted",
    "Bury",
    "Cancelled",
    "Counts",
    "DeadLetter",
    "DeadPage",
    "Delivery",
    "Done",
    "Fetched",
    "Group",
    "Later",
    "Oldest",
    "Put",
    "QueueStore",
    "Release",
    "Settlement",
    "Standing",
    "Want",
]

#: Seconds that a fetched call belongs to its worker without a renewal. Lease and grace together stay under the
#: promised 15 s for a call of a killed worker.
LEASE = 5.0
#: A call whose workers died this often is poison.
POISON_DEATHS = 3


class Put(msgspec.Struct, frozen=True):
    """One call to accept. `payload` is the encoded call, or the call itself where nothing leaves the process."""

    queue: str
    id: str
    payload: Any
    delay: float = 0.0
    not_before: float = 0.0
    """Time on the store's clock in seconds before which it must not start; 0 where there is none."""
    expires_in: float = 0.0
    coalesce: str = ""
    dedupe: str = ""
    dedupe_window: float = 0.0
    """Seconds in which a call with the same `dedupe` key, of the same queue, is not accepted again."""
    tick: tuple[str, float] | None = None
    """A schedule's name and the time of its tick: accepted only if it is later than the schedule's last one."""
    cap: int = 0
    cap_bytes: int = 0
    hand: bool = False
    """May be handed to an idle fetcher on the spot (a waited-for call, of a service without a bound across workers)."""
    mailbox: str = ""
    mark: str = ""
    """The caller's mailbox, and how far it has read it: what lies before goes."""


class Accepted(msgspec.Struct, frozen=True):
    """`accepted` is False when the queue is full; `workers` is how many serve the queue; `replaced` an older call's id.

    `first` is the id of the call that stands for this one, because it came first: the same dedupe key, or the same tick
    (then empty: nobody knows its id).
    """

    accepted: bool
    workers: int
    replaced: str = ""
    first: str | None = None
    full: Literal["", "calls", "bytes"] = ""
    """Which cap the queue has reached."""


class Want(msgspec.Struct, frozen=True):
    """At most `limit` calls from `queue`, unless the breaker named by `gate` is open.

    A gate with a "-" before its name is the one of a service without a breaker: only what the service asked for by
    Retry-After counts.
    """

    queue: str
    gate: str
    limit: int


class Group(msgspec.Struct, frozen=True):
    """Queues that share `free` slots, in the order in which they are served.

    `bound` is how many of their calls may be in flight in the whole fleet, 0 for no bound; `slots` how many background
    calls this process runs at once: the bound towards which a slow start grows, together with the other workers'.
    """

    free: int
    wants: tuple[Want, ...]
    bound: int = 0
    slots: int = 0


class Delivery(msgspec.Struct, frozen=True):
    """A call under a lease. `token` tells this delivery from other ones, `deaths` how many workers died with it.

    `start_by` is the time on the store's clock, in seconds, after which it must not start; 0 where there is none. `ready_at`
    is since when it could have started; 0 for a trial.
    """

    queue: str
    id: str
    token: int
    deaths: int
    payload: Any
    progress: Progress
    trial: bool
    fetched_at: float
    start_by: float = 0.0
    ready_at: float = 0.0


class Fetched(msgspec.Struct, frozen=True):
    """`due_in` has, for each group, the seconds until its next call is due; None when none waits that could start then."""

    deliveries: tuple[Delivery, ...] = ()
    due_in: tuple[float | None, ...] = ()
    bounded: frozenset[int] = frozenset()
    """The positions of groups of which more waits than a bound across workers lets start."""

    @property
    def next_due_in(self) -> float | None:
        """Seconds until the next call is due in any group."""
        return min((due for due in self.due_in if due is not None), default=None)


class Done(msgspec.Struct, frozen=True):
    """The call is over. The outcome goes to `mailbox`, and is kept for `keep` seconds for a background call.

    `ended` is what one is added to in the fleet's counts: the service, and how its call ended.
    """

    outcome: Outcome | None = None
    mailbox: str = ""
    keep: float = 0.0
    ended: tuple[str, str] | None = None


class Later(msgspec.Struct, frozen=True):
    """The attempt or the round failed; the next one is due in `delay` seconds."""

    delay: float
    progress: Progress


class Release(msgspec.Struct, frozen=True):
    """Not started, or not counted: back to its place, to the end, or in `delay` seconds."""

    first: bool = True
    delay: float = 0.0
    progress: Progress | None = None


class Bury(msgspec.Struct, frozen=True):
    """To the dead letters, for `reason`, with its last attempt in `progress`."""

    reason: str
    outcome: Outcome | None = None
    mailbox: str = ""
    progress: Progress | None = None


Settlement = Done | Later | Release | Bury


class Cancelled(msgspec.Struct, frozen=True):
    """Whether a call was taken back while it waited, and how far it had come.

    `deaths` is how many workers died with it: each of them may have sent it.
    """

    state: Literal["cancelled", "running", "unknown"]
    progress: Progress = Progress()
    deaths: int = 0


class Standing(msgspec.Struct, frozen=True):
    """Where a call is. `due_in` is seconds, for a call that waits for its time."""

    where: Literal["ready", "due", "leased", "done", "dead", "gone"]
    progress: Progress = Progress()
    due_in: float | None = None
    outcome: Outcome | None = None
    reason: str = ""


class Counts(msgspec.Struct, frozen=True):
    """One queue at a glance; `oldest` is the age in seconds of the call that has been ready longest."""

    ready: int
    due: int
    leased: int
    dead: int
    workers: int
    oldest: float


class Oldest(msgspec.Struct, frozen=True):
    """The waiting call that a trial should be made with, empty where there is none; `tried` if it has failed before."""

    id: str = ""
    tried: bool = False


class DeadLetter(msgspec.Struct, frozen=True):
    queue: str
    id: str
    at: float
    reason: str
    payload: Any
    progress: Progress


class DeadPage(msgspec.Struct, frozen=True):
    """What one look found; `next` is the offset of the next one, None at the end."""

    letters: list[DeadLetter]
    next: int | None


class QueueStore(Protocol):
    """Every verb raises BrokerUnavailable when the store cannot be reached."""

    @property
    def at_hand(self) -> bool:
        """Whether a verb can be asked without connecting first."""
        ...

    def put(self, puts: Sequence[Put]) -> list[Accepted | Exception]:
        """Accept calls, each with its own answer; some thousands go in one trip. Waiting ones with the same coalesce key are replaced.

        Raises BrokerUnavailable when none of them is known to be accepted; where some are, others' answers are errors.
        """
        ...

    def fetch(self, groups: Sequence[Group]) -> Fetched:
        """Calls under a lease. What an answer that never arrived held is given back by the next fetch."""
        ...

    def settle(self, delivery: Delivery, settlement: Settlement) -> bool:
        """False when the delivery is no longer the call's newest one; then nothing has changed."""
        ...

    def settle_and_fetch(
        self, delivery: Delivery, settlement: Settlement, groups: Sequence[Group]
    ) -> tuple[bool, Fetched]:
        """Both in one step, for a worker that has more to do; dead workers' calls are left to others."""
        ...

    def beat(self, worker: str, report: bytes, queues: Sequence[str], held: Sequence[Delivery]) -> list[Delivery]:
        """Report a living worker and renew its leases; answers the deliveries that it has lost.

        A worker that has said goodbye has an empty report: it only renews.
        """
        ...

    def leave(self, worker: str, queues: Sequence[str]) -> None: ...

    def cancel(self, queue: str, ids: Sequence[str], outcome: str = "cancelled") -> list[Cancelled]:
        """Take back what has not started. `outcome` says how these calls end for the fleet's counts: cancelled by whoever
        made them, expired, or refused by a breaker that has opened."""
        ...

    def watch(self, queue: str, id: str, mailbox: Mailbox) -> Outcome | None:
        """The outcome of a background call that is over, else None: the mailbox gets it. Raises ResultExpired."""
        ...

    def standing(self, queue: str, id: str) -> Standing: ...

    def counts(self, queues: Sequence[str]) -> list[Counts]: ...

    def workers_serving(self, queue: str) -> int: ...

    def oldest(self, queue: str, gate: str) -> Oldest:
        """The call for a trial of the breaker `gate`: the one that waits longest, of those that never failed if there are any."""
        ...

    def hold(self, gate: str, seconds: float) -> None:
        """Hand out no background call behind this gate for so long: its service asked for that."""
        ...

    def pause(self, queue: str, gate: str) -> None:
        """Hand out no background call behind this gate until somebody resumes; `queue` is where they wait."""
        ...

    def resume(self, queue: str, gate: str) -> None:
        """End a pause, and what the service asked for by Retry-After too."""
        ...

    def paused(self, gates: Sequence[str]) -> list[bool]: ...

    def ticks(self, schedules: Sequence[str]) -> dict[str, float]:
        """When each schedule's last tick was accepted, on the store's clock; for one that was never seen, now, which is noted."""
        ...

    def count(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Add to the fleet's counts, by service and what is counted."""
        ...

    def tally(self) -> dict[tuple[str, str], int]:
        """The fleet's counts: how often something happened to a service's calls (coalesced, deduped, skipped ...)."""
        ...

    def queues(self) -> list[str]: ...

    def workers(self) -> list[bytes]:
        """The reports of the living workers."""
        ...

    def sweep(self, queue: str) -> tuple[int, int, int]:
        """Return dead workers' calls, bury poison, end what is past its time: how many of each."""
        ...

    def dead_letters(self, queue: str, offset: int = 0, count: int = 100) -> list[DeadLetter]:
        """The oldest first."""
        ...

    def dead_page(self, queue: str, offset: int, count: int, reason: str = "") -> DeadPage:
        """One short look at those from `offset` on, the oldest first: at most `count` that died of this reason, empty for any.

        It may find fewer than there are, or none: those that are large or of other reasons are left to the next look.
        """
        ...

    def replay(self, queue: str, id: str, expires_in: float) -> bool: ...

    def purge(self, queue: str, id: str) -> bool: ...

    def flush(self, queue: str) -> None: ...

    def wait(
        self, queues: Sequence[str], timeout: float | None, has_room: Callable[[str], bool] = lambda queue: True
    ) -> Sequence[Delivery]:
        """Sleep until one of the queues may have work, somebody pokes, or `timeout` seconds have passed.

        Answers calls that were handed over on the spot; else a fetch tells. What comes for a queue that by then has no
        room goes to others. One thread at a time.
        """
        ...

    def rest(self, queues: Sequence[str]) -> None:
        """This process will fetch no more: others take over its queues and timers. Nobody may be in wait()."""
        ...

    def poke(self) -> None:
        """Wake the thread that sleeps in wait()."""
        ...

    def close(self) -> None: ...
