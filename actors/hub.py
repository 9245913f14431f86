"""The one fetcher of a process: takes calls from the store as slots come free, and hands them to Dramatiq's consumers.

States: running, then quiet (fetches nothing more, gives back what has not started), then stopped. What happens when the
store is away: the fetcher tries again, a finished call is settled as soon as it is back, nothing runs twice for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue

from redis.exceptions import ResponseError

from seawall.actors.delivered import Delivered, decode_delivery
from seawall.actors.lanes import Lane
from seawall.actors.queue_store import Bury, Delivery, Fetched, Group, QueueStore, Release, Settlement
from seawall.actors.record import Malformed, TooNew
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
#: Seconds that a call whose worker died runs alone. What kills a worker does so soon; a slow call is no reason to keep all
#: others waiting, nor the next suspect: five of them must be under way within the promised 15 s of their worker's death.
QUARANTINE_SECONDS = 1.0


class Hub:
    """`known` says whether an actor serves a queue. All methods but the thread's own are safe for threads."""

    def __init__(self, store: QueueStore, *, known: Callable[[str], bool]) -> None:
        self._store = store
        self._known = known
        self._lanes: dict[str, Lane] = {}
        self._lane_of: dict[str, Lane] = {}
        self._served: set[str] = set()
        self._buffers: dict[str, SimpleQueue[Delivered]] = {}
        self._held: dict[tuple[str, str, int], Delivery] = {}
        self._settling: set[tuple[str, str, int]] = set()
        self._suspects: deque[Delivered] = deque()
        self._alone: tuple[str, str, int] | None = None
        self._alone_until = 0.0
        self._lock = threading.Lock()
        self._quiet = False
        self._given_up = threading.Event()
        self._thread: threading.Thread | None = None
        self._outage = Outage(logger, "the broker")

    def add_lane(self, lane: Lane) -> None:
        """Share these slots between these queues; nothing is fetched before there are actors for them."""
        with self._lock:
            self._lanes[lane.name] = lane
            for queue in lane.queues:
                self._lane_of[queue] = lane

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

    def buffer(self, queue: str) -> SimpleQueue[Delivered]:
        return self._buffers.setdefault(queue, SimpleQueue())

    def held(self) -> list[Delivery]:
        with self._lock:
            return list(self._held.values())

    def busy(self) -> int:
        return len(self._held)

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="seawall-hub", daemon=True)
            self._thread.start()

    def poke(self) -> None:
        self._store.poke()

    def quiet(self, waiting: Iterable[Delivered] = ()) -> None:
        """Fetch nothing more, and give back what has not started: `waiting`, the buffers', the suspects'. Safe twice."""
        self._quiet = True
        self._store.poke()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(2.0)
        back = [*waiting, *self._suspects]
        self._suspects.clear()
        for buffer in self._buffers.values():
            back += _drain(buffer)
        # The latest first, so that each goes in front of those that came after it.
        back.sort(key=lambda one: one.delivery.fetched_at)
        for delivered in reversed(back):
            self.settle(delivered.delivery, Release())

    def give_up(self) -> None:
        """The deadline of a stop: settle no longer waits for a store that is away; what still runs is given back."""
        self._given_up.set()
        for delivery in self.held():
            self.settle(delivery, Release())

    def settle(self, delivery: Delivery, settlement: Settlement) -> bool:
        """Say what came of a delivery and free its slot. Tries until the store answers or the process gives up."""
        settled, pause = False, RETRY_SHORTEST
        with self._lock:
            self._settling.add(_key(delivery))
        while True:
            try:
                settled = self._store.settle(delivery, settlement)
                self._outage.over()
                break
            except BrokerUnavailable as error:
                self._outage.begins(error)
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

    def lose(self, deliveries: Iterable[Delivery]) -> None:
        """Leases that are no longer ours: another worker has them, or will. Ours run to their end unrenewed."""
        for delivery in deliveries:
            with self._lock:
                settled = _key(delivery) not in self._held or _key(delivery) in self._settling
            if settled:
                continue  # it ended while the heartbeat was under way
            logger.warning("lost the lease of call %s on %s; it may run twice", delivery.id, delivery.queue)

    def _free(self, delivery: Delivery) -> None:
        key = _key(delivery)
        with self._lock:
            self._settling.discard(key)
            if self._held.pop(key, None) is None:
                return
            lane = self._lane_of[delivery.queue]
            lane.give_back(delivery.queue)
            wanted = lane.hungry or bool(self._suspects) or self._alone == key
            if self._alone == key:
                self._alone = None
        if wanted:
            self._store.poke()

    def _run(self) -> None:
        pause = RETRY_SHORTEST
        while not self._quiet:
            try:
                self._turn()
                self._outage.over()
                pause = RETRY_SHORTEST
            except BrokerUnavailable as error:
                self._outage.begins(error)
                time.sleep(pause)
                pause = min(pause * 2, RETRY_LONGEST)
            except Exception:
                logger.exception("the fetcher met an error that it did not expect; it goes on")
                time.sleep(RETRY_LONGEST)
        self._rest()

    def _rest(self) -> None:
        try:
            self._store.rest(self.queues())
        except (BrokerUnavailable, ResponseError) as error:
            logger.debug("stopped fetching without telling the broker: %s", error)

    def _turn(self) -> None:
        if self._suspects or self._quarantine() > 0:
            self._run_suspect()
            self._store.wait((), self._quarantine() or IDLE_SECONDS)
            return
        groups = self._groups()
        fetched = self._store.fetch(groups) if groups else Fetched((), None, 0.0)
        received = [delivered for one in fetched.deliveries if (delivered := self._receive(one)) is not None]
        if any(delivered.delivery.deaths for delivered in received):
            self._isolate(received)
            return
        for delivered in received:
            self.buffer(delivered.delivery.queue).put(delivered)
        with self._lock:
            queues = [queue for lane in self._open_lanes() for queue in lane.open_queues()]
            for lane in self._lanes.values():
                lane.hungry = lane.background_room <= 0
        self._store.wait(queues, fetched.next_due_in)

    def _groups(self) -> list[Group]:
        with self._lock:
            return [group for lane in self._open_lanes() if (group := lane.group()) is not None]

    def _receive(self, delivery: Delivery) -> Delivered | None:
        """Hold it, and read it; None for what cannot be read, which is dealt with."""
        with self._lock:
            self._held[_key(delivery)] = delivery
            self._lane_of[delivery.queue].take(delivery.queue)
        try:
            return decode_delivery(delivery, self._known)
        except TooNew as error:
            logger.warning("call %s on %s waits for a newer worker: %s", delivery.id, delivery.queue, error)
            self.settle(delivery, Release(first=False, delay=TOO_NEW_DELAY))
        except Malformed as error:
            logger.error(
                "moved a malformed message (%s) on %s to the dead letters: %s", delivery.id, delivery.queue, error
            )
            self.settle(delivery, Bury("malformed"))
        return None

    def _isolate(self, received: list[Delivered]) -> None:
        """Keep one suspect of these. The others wait in their queues, not under a lease of ours: they would be blamed for
        what this one does. A breaker's trial stays in any case, because it is handed out once.
        """
        kept = [one for one in received if one.delivery.trial]
        if not any(one.delivery.deaths for one in kept):
            kept.append(next(one for one in received if one.delivery.deaths))
        for one in reversed(received):
            if one not in kept:
                self.settle(one.delivery, Release())
        for one in kept:
            if one.delivery.deaths:
                self._suspects.append(one)
            else:
                self.buffer(one.delivery.queue).put(one)

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
        self.buffer(delivered.delivery.queue).put(delivered)


def _key(delivery: Delivery) -> tuple[str, str, int]:
    return delivery.queue, delivery.id, delivery.token


def _drain(buffer: SimpleQueue[Delivered]) -> list[Delivered]:
    found: list[Delivered] = []
    while True:
        try:
            found.append(buffer.get_nowait())
        except Empty:
            return found
