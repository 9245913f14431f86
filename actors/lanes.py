"""Who may run how much at once: a lane is the queues that share a service's slots in this process."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    busy: dict[str, int] = field(default_factory=dict)
    hungry: bool = False
    """Its slots ran out at the last fetch: more may wait, so a freed slot is worth another."""
    turn: int = 0

    @property
    def queues(self) -> tuple[str, ...]:
        return tuple(queue for queue in (self.waited, self.background) if queue)

    @property
    def free(self) -> int:
        return self.concurrency - sum(self.busy.values())

    @property
    def background_room(self) -> int:
        """Free slots that background calls may take: one stays reserved for waited-for calls where there are several."""
        if not self.waited or self.concurrency == 1:
            return self.free
        return max(0, min(self.free, self.concurrency - 1 - self.busy.get(self.background, 0)))

    def open_queues(self) -> list[str]:
        """The queues from which a call could start now."""
        waited = [self.waited] if self.waited and self.free > 0 else []
        return waited + ([self.background] if self.background_room > 0 else [])

    def group(self) -> Group | None:
        """What to ask for now; None when every slot is taken."""
        free, room = self.free, self.background_room
        if free <= 0:
            return None
        background = Want(self.background, self.gate, room)
        if not self.waited:
            return Group(free, (background,))
        waited = Want(self.waited, "", free)
        self.turn = (self.turn + 1) % BACKGROUND_TURN
        if self.turn == 0 and room > 0:
            return Group(free, (Want(self.background, self.gate, 1), waited, background))
        return Group(free, (waited, background))

    def take(self, queue: str) -> None:
        self.busy[queue] = self.busy.get(queue, 0) + 1

    def give_back(self, queue: str) -> None:
        self.busy[queue] -= 1


def service_lane(key: str, concurrency: int, *, gated: bool) -> Lane:
    waited, background = queue_names(key)
    return Lane(key, concurrency, waited, background, gate=key if gated else "")


def plain_lane(queue: str, concurrency: int) -> Lane:
    """For a queue of the user's own actors: no breaker, slots of its own."""
    return Lane(queue, concurrency, background=queue)
