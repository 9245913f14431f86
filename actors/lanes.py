"""Who may run how much at once: a lane is the queues that share a service's slots in this process."""

from __future__ import annotations

from dataclasses import dataclass

from seawall.actors.queue_store import Group, Want
from seawall.actors.service import queue_names

__all__ = ["Lane", "plain_lane", "service_lane"]

#: One fetch in this many serves the background queue first, so that waited-for calls cannot starve it.
BACKGROUND_TURN = 8


@dataclass(slots=True, eq=False)
class Lane:
    """Slots of one service. `background` may take all but one of them, when there is more than one."""

    name: str
    concurrency: int
    waited: str = ""
    background: str = ""
    gate: str = ""
    bound: int = 0
    """Calls of the service that may be in flight in the whole fleet; 0 for no bound."""
    busy: int = 0
    """Slots in which calls run, or are about to."""
    busy_background: int = 0
    """Those of background calls."""
    promised: int = 0
    """Slots that fetches which are under way have asked calls for."""
    promised_background: int = 0
    """Those that they may bring background calls for."""
    hungry: bool = False
    """Its slots ran out, or a bound across workers: more may wait, so a freed slot is worth another fetch."""
    due_at: float | None = None
    """Monotonic time of its next delayed call, as far as is known."""
    turn: int = 0

    @property
    def queues(self) -> tuple[str, ...]:
        return tuple(queue for queue in (self.waited, self.background) if queue)

    @property
    def free(self) -> int:
        return self.concurrency - self.busy - self.promised

    @property
    def background_slots(self) -> int:
        """Slots that background calls may take: one stays reserved for waited-for calls where there are several."""
        return self.concurrency - 1 if self.waited and self.concurrency > 1 else self.concurrency

    @property
    def background_room(self) -> int:
        return max(0, min(self.free, self.background_slots - self.busy_background - self.promised_background))

    def has_room(self, queue: str) -> bool:
        return (self.free if queue == self.waited else self.background_room) > 0

    def open_queues(self) -> list[str]:
        """The queues from which a call could start now."""
        return [queue for queue in self.queues if self.has_room(queue)]

    def ask(self) -> Group | None:
        """What to fetch now, None when every slot is taken. The slots are promised until `answered`."""
        return self._ask(self.free)

    def swap(self, ending: str) -> Group | None:
        """What to fetch into the slot of a call of the queue `ending` that is about to end; the slot is given back by this.

        A slot that stays reserved is left to the fetcher, which sleeps for it.
        """
        self.give_back(ending)
        group = self._ask(min(self.free, max(1, self.background_room)))
        if group is None:
            self._count(ending)
        return group

    def swap_failed(self, ending: str, group: Group) -> None:
        """The call did not end after all."""
        self.answered(group)
        self._count(ending)

    def _ask(self, free: int) -> Group | None:
        room = min(self.background_room, free)
        if free <= 0:
            return None
        self.promised += free
        self.promised_background += room
        background = Want(self.background, self.gate, room)
        if not self.waited:
            return Group(free, (background,), self.bound, self.background_slots)
        waited = Want(self.waited, "", free)
        self.turn = (self.turn + 1) % BACKGROUND_TURN
        if self.turn == 0 and room > 0:
            rest = Want(self.background, self.gate, room - 1)
            wants = (Want(self.background, self.gate, 1), waited, *((rest,) if rest.limit else ()))
            return Group(free, wants, self.bound, self.background_slots)
        return Group(free, (waited, background), self.bound, self.background_slots)

    def answered(self, group: Group) -> None:
        """The fetch for this group is over, well or not."""
        self.promised -= group.free
        self.promised_background -= sum(want.limit for want in group.wants if want.queue == self.background)

    def take(self, queue: str) -> None:
        self._count(queue)
        if self.background_room <= 0:
            self.hungry = True

    def _count(self, queue: str) -> None:
        self.busy += 1
        if queue == self.background:
            self.busy_background += 1

    def give_back(self, queue: str) -> None:
        self.busy -= 1
        if queue == self.background:
            self.busy_background -= 1


def service_lane(key: str, concurrency: int, *, gated: bool, bound: int = 0) -> Lane:
    """`gated` by the service's breaker, or only by what the service asks for with Retry-After."""
    waited, background = queue_names(key)
    return Lane(key, concurrency, waited, background, key if gated else f"-{key}", bound)


def plain_lane(queue: str, concurrency: int) -> Lane:
    """For a queue of the user's own actors: no breaker, slots of its own."""
    return Lane(queue, concurrency, background=queue)
