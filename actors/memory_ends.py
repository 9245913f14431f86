"""How calls ended, in memory: remembered for a while, told to whoever watches; and the calls that stand for later ones."""

from __future__ import annotations

import heapq
import math

from seawall.actors.memory_mailbox import MemoryMailbox
from seawall.actors.queue_store import Put
from seawall.actors.replies import Mailbox, Outcome
from seawall.errors import ResultExpired

__all__ = ["Ends", "Firsts", "not_kept"]

#: Seconds that the end of a background call is remembered at the least.
DONE_LIFETIME = 60.0


def not_kept() -> Outcome:
    return Outcome(error=ResultExpired("the call succeeded, its result was not kept"))


class Ends:
    """The last words on background calls. No outcome is a success whose result nobody asked to keep.

    Not safe for threads by itself: its queue's lock guards it. `now` is in seconds on the queue's clock.
    """

    def __init__(self) -> None:
        self._done: dict[str, tuple[float, Outcome | None]] = {}
        self._ends: list[tuple[float, str]] = []
        self._watching: dict[str, list[Mailbox]] = {}
        self._mailboxes: dict[str, MemoryMailbox] = {}

    def register(self, mailbox: MemoryMailbox) -> None:
        self._mailboxes[mailbox.address] = mailbox

    def knows(self, id: str, now: float) -> bool:
        self._forget(now)
        return id in self._done

    def outcome(self, id: str) -> Outcome | None:
        """Of a call that it knows."""
        return self._done[id][1]

    def conclude(self, id: str, outcome: Outcome | None, keep: float, now: float) -> None:
        """Remember it for `keep` seconds, or a minute."""
        self._forget(now)
        ends = now + max(keep, DONE_LIFETIME)
        self._done[id] = (ends, outcome)
        heapq.heappush(self._ends, (ends, id))
        for mailbox in self._watching.pop(id, ()):
            self.post(mailbox.address, id, outcome or not_kept())

    def take_back(self, id: str) -> None:
        """The call is queued again."""
        self._done.pop(id, None)

    def watch(self, id: str, mailbox: Mailbox) -> None:
        self._watching.setdefault(id, []).append(mailbox)

    def post(self, address: str, id: str, outcome: Outcome) -> None:
        mailbox = self._mailboxes.get(address)
        if mailbox is not None:
            mailbox.deliver(id, outcome)

    def _forget(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            ends, id = heapq.heappop(self._ends)
            if id in self._done and self._done[id][0] == ends:
                del self._done[id]


class Firsts:
    """Calls that stand for later ones: by a dedupe key for a while, by a schedule's tick for good. Guarded as Ends."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str], tuple[float, str]] = {}
        self._ticks: dict[str, float] = {}

    def of(self, put: Put, now: float) -> str | None:
        """The id of the call that stands for this one, empty for a tick that was there; None where there is none."""
        if put.tick is not None and self._ticks.get(put.tick[0], -math.inf) >= put.tick[1]:
            return ""
        ends, first = self._keys.get((put.queue, put.dedupe), (0.0, ""))
        return first if put.dedupe and ends > now else None

    def remember(self, put: Put, now: float) -> None:
        if put.dedupe:
            self._keys = {key: first for key, first in self._keys.items() if first[0] > now}
            self._keys[put.queue, put.dedupe] = now + put.dedupe_window, put.id
        if put.tick is not None:
            self._ticks[put.tick[0]] = put.tick[1]

    def tick(self, schedule: str, now: float) -> float:
        """Its last one; for one that was never seen, now."""
        return self._ticks.setdefault(schedule, now)
