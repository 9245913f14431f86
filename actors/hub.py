"""What shares the calls of a process among its threads. There is no fetching thread: whoever is idle fetches.

One idle thread at a time is the fetcher: it sleeps at the store for all queues, takes a call that comes and runs it, and
another idle thread sleeps in its place. So a call that finds the process idle changes threads nowhere. A thread that ends
a call of a service whose slots are all taken settles it and fetches the next one in the same step.

States: running, then quiet (fetches nothing more, gives back what has not started), then closed. When the store is
away, the fetcher tries again, a finished call is settled as soon as it is back, and nothing runs twice for it.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from redis.exceptions import ResponseError

from seawall.actors.delivered import Delivered, decode_delivery
from seawall.actors.lanes import Lane
from seawall.actors.queue_store import Bury, Delivery, Fetched, Group, QueueStore, Release, Settlement
from seawall.actors.record import Malformed, TooNew
from seawall.actors.seats import Seats
from seawall.errors import BrokerUnavailable
from seawall.outage import Outage

__all__ = ["Hub"]

logger = logging.getLogger("seawall.hub")

#: Seconds between attempts to reach a store that is away; the promise is to be back within 2 s of its return.
RETRY_SHORTEST, RETRY_LONGEST = 0.05, 0.5
#: Seconds after which a record that is too new for this release is offered again, to a newer worker.
TOO_NEW_DELAY = 5.0
#: Seconds a fetcher sleeps at the most with nothing to wait for.
IDLE_SECONDS = 5.0
#: Seconds that quiet() waits for a fetch that is under way.
QUIET_SECONDS = 2.0
#: Seconds that a call whose worker died runs alone. What kills a worker does so soon; a slow call is no reason to keep all
#: others waiting, nor the next suspect: five of them must be under way within the promised 15 s of their worker's death.
QUARANTINE_SECONDS = 1.0

_Key = tuple[str, str, int]


class Hub:
    """`priority` is of a delivery's actor, None where there is none; `known` says whether an actor serves a queue."""

    def __init__(
        self, store: QueueStore, *, known: Callable[[str], bool], priority: Callable[[Delivered], int | None]
    ) -> None:
        self._store = store
        self._known = known
        self._priority = priority
        self._lanes: dict[str, Lane] = {}
        self._lane_of: dict[str, Lane] = {}
        self._served: set[str] = set()
        self._held: dict[_Key, Delivery] = {}
        self._settling: set[_Key] = set()
        self._waiting: list[tuple[int, int, Delivered]] = []
        """Fetched and not started: a heap by priority, then in order."""
        self._order = itertools.count()
        self._suspects: deque[Delivered] = deque()
        self._alone: _Key | None = None
        self._alone_until = 0.0
        self._lock = threading.Lock()
        self._seats = Seats()
        self._fetching = False
        """One of our threads is the fetcher."""
        self._fetches = 0
        """Fetches of other threads that are under way."""
        self._look = True
        """Fetch before the next sleep."""
        self._asleep_for: frozenset[str] | None = None
        """The queues for which the fetcher sleeps; None while it does not."""
        self._asleep_until = 0.0
        self._quiet = False
        self._closed = False
        self._left = threading.Condition(self._lock)
        self._given_up = threading.Event()
        self._pause = RETRY_SHORTEST
        self._outage = Outage(logger, "the broker")

    # What is served

    def add_lane(self, lane: Lane) -> None:
        """Share these slots between these queues; nothing is fetched before there are actors for them."""
        with self._lock:
            self._lanes[lane.name] = lane
            for queue in lane.queues:
                self._lane_of[queue] = lane

    def rebound(self, name: str, bound: int) -> None:
        """A service was declared again: so many of its calls may be in flight in the whole fleet, 0 for any number."""
        with self._lock:
            self._lanes[name].bound = bound

    def serve(self, queue: str) -> None:
        """An actor serves this queue: fetch from it as soon as all queues of its lane are served."""
        with self._lock:
            self._served.add(queue)
        self._store.poke()

    def has_queue(self, queue: str) -> bool:
        return queue in self._lane_of

    def queues(self) -> list[str]:
        """The queues that are served here."""
        with self._lock:
            return [queue for lane in self._open_lanes() for queue in lane.queues]

    def _open_lanes(self) -> list[Lane]:
        return [lane for lane in self._lanes.values() if self._served.issuperset(lane.queues)]

    def held(self) -> list[Delivery]:
        with self._lock:
            return list(self._held.values())

    def busy(self) -> int:
        return len(self._held)

    def poke(self) -> None:
        self._store.poke()

    # A thread asks for its next call

    def take(self, timeout: float, queue: str = "") -> Delivered | None:
        """The next call for this thread to run, of any queue or of this one; None after `timeout` seconds or a close."""
        ends = time.monotonic() + timeout
        while True:
            with self._lock:
                found = None if self._quiet else self._next(queue)
                left = ends - time.monotonic()
                if found is not None or left <= 0 or self._closed:
                    return found
                fetches = not (self._fetching or self._quiet)
                if fetches:
                    self._fetching = True
                else:
                    seat = self._seats.sit_down(queue)
            if fetches:
                return self._fetch_until(queue, ends)
            if not seat.wait(left):
                with self._lock:
                    self._seats.stand_up(seat)

    def _next(self, queue: str) -> Delivered | None:
        if not queue:
            return heapq.heappop(self._waiting)[2] if self._waiting else None
        for place, (_, _, delivered) in enumerate(sorted(self._waiting)):
            if delivered.delivery.queue == queue:
                self._waiting = sorted(self._waiting)
                return self._waiting.pop(place)[2]
        return None

    def _fetch_until(self, queue: str, ends: float) -> Delivered | None:
        """As the process's fetcher, until there is a call for this thread."""
        try:
            while not self._quiet and time.monotonic() < ends:
                self._turn(queue, ends)
                with self._lock:
                    if not self._quiet and (found := self._next(queue)) is not None:
                        return found
            return None
        finally:
            with self._lock:
                self._fetching = False
                self._left.notify_all()
                if not self._quiet:
                    self._seats.call_anybody()

    def _turn(self, taker: str, ends: float) -> None:
        asked_at = time.monotonic()
        try:
            if not self._look or not self._fetch(taker):
                self._sleep(taker, ends)
        except BrokerUnavailable as error:
            self._outage.begins(error, asked_at)
            self._look = True
            time.sleep(self._pause)
            self._pause = min(self._pause * 2, RETRY_LONGEST)
        except Exception:
            logger.exception("the fetcher met an error that it did not expect; it goes on")
            self._look = True
            time.sleep(RETRY_LONGEST)

    def _fetch(self, taker: str) -> bool:
        """Fetch for every service that has room. Whether anything came."""
        if self._suspects or self._quarantine() > 0:
            return False
        self._look = False
        with self._lock:
            lanes = [lane for lane in self._open_lanes() if lane.free > 0]
            groups = [group for lane in lanes if (group := lane.ask()) is not None]
        fetched: Fetched | None = None
        try:
            if groups:
                fetched = self._store.fetch(groups)
                self._outage.over()
                self._pause = RETRY_SHORTEST
        finally:
            self._arrived(lanes, groups, fetched, taker)
        return fetched is not None and bool(fetched.deliveries)

    def _sleep(self, taker: str, ends: float) -> None:
        if self._suspects or self._quarantine() > 0:
            self._run_suspect()
            self._store.wait((), self._quarantine() or IDLE_SECONDS, self._has_room)
            self._look = True
            return
        with self._lock:
            lanes = self._open_lanes()
            queues = [queue for lane in lanes for queue in lane.open_queues()]
            due = min((lane.due_at for lane in lanes if lane.due_at is not None and lane.free > 0), default=ends)
            self._asleep_for, self._asleep_until = frozenset(queues), due
        try:
            handed = self._store.wait(queues, max(0.0, min(due, ends) - time.monotonic()), self._has_room)
        finally:
            self._asleep_for = None
        if handed:
            self._receive_all(handed, taker)
        else:
            self._look = True

    def _has_room(self, queue: str) -> bool:
        with self._lock:
            lane = self._lane_of.get(queue)
            if lane is None or self._suspects or self._alone is not None:
                return False
            if not lane.has_room(queue):
                lane.hungry = True
                return False
            return True

    # What comes in

    def _arrived(
        self, lanes: Sequence[Lane], groups: Sequence[Group], fetched: Fetched | None, taker: str | None
    ) -> None:
        """A fetch is over, without an answer for None. `taker` is what the thread that made it takes next."""
        now = time.monotonic()
        with self._lock:
            for lane, group in zip(lanes, groups, strict=True):
                lane.answered(group)
            due_in, bounded = (fetched.due_in, fetched.bounded) if fetched is not None else ((), frozenset[int]())
            for position, (lane, due) in enumerate(zip(lanes, due_in, strict=False)):
                lane.due_at = None if due is None else now + due
                lane.hungry = position in bounded  # taking what came sets it too, where the slots run out
        if fetched is not None:
            self._receive_all(fetched.deliveries, taker)

    def _receive_all(self, deliveries: Sequence[Delivery], taker: str | None) -> None:
        received = [delivered for one in deliveries if (delivered := self._receive(one)) is not None]
        if any(delivered.delivery.deaths for delivered in received):
            received = self._isolate(received)
        with self._lock:
            for delivered in received:
                taker = self._place(delivered, taker)

    def _place(self, delivered: Delivered, taker: str | None) -> str | None:
        """Have a thread run it: the one that takes next, or one that waits. Answers what that one still takes."""
        queue = delivered.delivery.queue
        heapq.heappush(self._waiting, (self._priority(delivered) or 0, next(self._order), delivered))
        if taker is not None and taker in ("", queue):
            return None
        if not self._seats.call(queue) and self._fetching:
            self._store.poke()  # the one who sleeps at the store is idle too
        return taker

    def _receive(self, delivery: Delivery) -> Delivered | None:
        """Hold it, and read it; None for what cannot be read, which is dealt with."""
        with self._lock:
            self._held[_key(delivery)] = delivery
            self._lane_of[delivery.queue].take(delivery.queue)
        try:
            delivered = decode_delivery(delivery, self._known)
            if self._priority(delivered) is not None:
                return delivered
            logger.error("moved a message for an actor that is not known here (%s) to the dead letters", delivered)
            self.settle(delivery, Bury("no actor"))
        except TooNew as error:
            logger.warning("call %s on %s waits for a newer worker: %s", delivery.id, delivery.queue, error)
            self.settle(delivery, Release(first=False, delay=TOO_NEW_DELAY))
        except Malformed as error:
            logger.error(
                "moved a malformed message (%s) on %s to the dead letters: %s", delivery.id, delivery.queue, error
            )
            self.settle(delivery, Bury("malformed"))
        return None

    # A call ends

    def settle(self, delivery: Delivery, settlement: Settlement, *, taker: str | None = None) -> bool:
        """Say what came of a delivery and free its slot. Tries until the store answers or the process gives up.

        `taker` is what this thread takes next: then the next call may come with the same step.
        """
        settled, pause = False, RETRY_SHORTEST
        with self._lock:
            self._settling.add(_key(delivery))
        while True:
            asked_at = time.monotonic()
            try:
                settled = self._settle_once(delivery, settlement, taker)
                self._outage.over()
                break
            except BrokerUnavailable as error:
                taker = None
                self._outage.begins(error, asked_at)
                if self._given_up.wait(pause):
                    break
                pause = min(pause * 2, RETRY_LONGEST)
            except ResponseError as error:
                logger.error("the broker refused to settle call %s: %s", delivery.id, error)
                break
            except Exception:  # whatever it is, the slot must come free; the call is given back when its lease runs out
                logger.exception("call %s could not be settled", delivery.id)
                break
        self._free(delivery)
        return settled

    def _settle_once(self, delivery: Delivery, settlement: Settlement, taker: str | None) -> bool:
        lane, queue, key = self._lane_of[delivery.queue], delivery.queue, _key(delivery)
        group = None
        with self._lock:
            may_fetch = not (self._quiet or self._suspects or self._alone is not None)
            if taker is not None and lane.hungry and may_fetch and key in self._held:
                group = lane.swap(queue)
            if group is not None:
                self._fetches += 1
        if group is None:
            return self._store.settle(delivery, settlement)
        try:
            settled, fetched = self._store.settle_and_fetch(delivery, settlement, [group])
        except BaseException:
            with self._lock:
                lane.swap_failed(queue, group)
                self._fetch_is_over()
            raise
        with self._lock:
            self._held.pop(key, None)
            self._settling.discard(key)
        self._arrived([lane], [group], fetched, taker)
        with self._lock:
            self._fetch_is_over()
        return settled

    def _fetch_is_over(self) -> None:
        self._fetches -= 1
        self._left.notify_all()

    def _free(self, delivery: Delivery) -> None:
        """Give its slot back, unless that was done in the same step, and have the fetcher look where there is reason to."""
        lane, key = self._lane_of[delivery.queue], _key(delivery)
        with self._lock:
            self._settling.discard(key)
            held = self._held.pop(key, None) is not None
            if held:
                lane.give_back(delivery.queue)
            wanted = (held and lane.hungry) or bool(self._suspects) or self._alone == key or self._oversleeps(lane)
            if self._alone == key:
                self._alone = None
        if wanted:
            self._store.poke()

    def _oversleeps(self, lane: Lane) -> bool:
        """The fetcher sleeps without this lane, which has room again, or beyond its next delayed call."""
        if self._asleep_for is None:
            return False
        too_long = lane.due_at is not None and lane.due_at < self._asleep_until
        return too_long or not self._asleep_for.issuperset(lane.open_queues())

    def lose(self, deliveries: Iterable[Delivery]) -> None:
        """Leases that are no longer ours: another worker has them, or will. Ours run to their end unrenewed."""
        for delivery in deliveries:
            with self._lock:
                settled = _key(delivery) not in self._held or _key(delivery) in self._settling
            if settled:
                continue  # it ended while the heartbeat was under way
            logger.warning("lost the lease of call %s on %s; it may run twice", delivery.id, delivery.queue)

    # Suspects

    def _isolate(self, received: list[Delivered]) -> list[Delivered]:
        """Keep one suspect of these. The others wait in their queues, not under a lease of ours: they would be blamed for
        what this one does. A breaker's trial stays in any case, because it is handed out once. Answers what may run now.
        """
        kept = [one for one in received if one.delivery.trial]
        if not any(one.delivery.deaths for one in kept):
            kept.append(next(one for one in received if one.delivery.deaths))
        for one in reversed(received):
            if one not in kept:
                self.settle(one.delivery, Release())
        with self._lock:
            self._suspects += [one for one in kept if one.delivery.deaths]
        self._store.poke()
        return [one for one in kept if not one.delivery.deaths]

    def _quarantine(self) -> float:
        """Seconds for which a suspect still has this process to itself."""
        with self._lock:
            left = self._alone_until - time.monotonic() if self._alone is not None else 0.0
            if left <= 0:
                self._alone = None
            return max(0.0, left)

    def _run_suspect(self) -> None:
        """A call whose worker died runs alone, so that no neighbour is blamed if it kills this process too."""
        with self._lock:
            neighbours = any(not delivery.deaths for delivery in self._held.values())
            if self._alone is not None or neighbours or not self._suspects:
                return
            delivered = self._suspects.popleft()
            self._alone = _key(delivered.delivery)
            self._alone_until = time.monotonic() + QUARANTINE_SECONDS
            self._place(delivered, None)

    # The end

    def quiet(self, waiting: Iterable[Delivered] = ()) -> None:
        """Fetch nothing more, and give back what has not started: `waiting`, ours, the suspects. Safe twice."""
        with self._lock:
            first, self._quiet = not self._quiet, True
        self._store.poke()
        with self._lock:
            left = self._left.wait_for(lambda: not self._fetching and not self._fetches, QUIET_SECONDS)
            back = [*waiting, *self._suspects, *(delivered for _, _, delivered in self._waiting)]
            self._suspects.clear()
            self._waiting.clear()
        if first and left:
            self._rest()
        # The latest first, so that each goes in front of those that came after it.
        back.sort(key=lambda one: one.delivery.fetched_at)
        for delivered in reversed(back):
            self.settle(delivered.delivery, Release())

    def _rest(self) -> None:
        try:
            self._store.rest(self.queues())
        except (BrokerUnavailable, ResponseError) as error:
            logger.debug("stopped fetching without telling the broker: %s", error)

    def give_up(self) -> None:
        """The deadline of a stop: settle no longer waits for a store that is away; what still runs is given back."""
        self._given_up.set()
        for delivery in self.held():
            self.settle(delivery, Release())

    def close(self) -> None:
        """Send every thread home that waits in take()."""
        with self._lock:
            self._closed = self._quiet = True
            self._seats.call_everybody()
        self._store.poke()


def _key(delivery: Delivery) -> _Key:
    return delivery.queue, delivery.id, delivery.token
