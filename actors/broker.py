"""The broker: Dramatiq's own actors, messages, middleware and worker over a store of ours."""

from __future__ import annotations

import time
from collections.abc import Iterable
from queue import Empty
from typing import Any

import dramatiq
from dramatiq.broker import Broker, Consumer, MessageProxy
from dramatiq.errors import ConnectionClosed, QueueJoinTimeout, QueueNotFound
from dramatiq.middleware import Middleware

from seawall.actors.delivered import Delivered, encode_message
from seawall.actors.hub import Hub
from seawall.actors.lanes import Lane, plain_lane
from seawall.actors.queue_store import Bury, Done, Later, Put, QueueStore, Release, Settlement
from seawall.errors import BrokerUnavailable

__all__ = ["DrainOnShutdown", "HubConsumer", "SeawallBroker", "SettleOwnActors"]

#: Calls of a queue of the user's own actors that run at once in one process.
PLAIN_CONCURRENCY = 8
#: Seconds after which a message comes back that nobody settled, because somebody's middleware failed.
UNSETTLED_DELAY = 1.0
#: Seconds between two looks at a queue in join(), which only tests use.
JOIN_POLL = 0.02


class SeawallBroker(Broker):
    """A broker over a QueueStore. Make a new one for every Worker; it never touches Dramatiq's global broker."""

    def __init__(self, store: QueueStore) -> None:
        super().__init__(middleware=[SettleOwnActors(), DrainOnShutdown()])
        self.store = store
        self.hub = Hub(store, known=self.actors.__contains__, priority=self._priority)

    def _priority(self, delivered: Delivered) -> int | None:
        actor = self.actors.get(delivered.actor_name)
        return None if actor is None else actor.priority

    def add_lane(self, lane: Lane) -> None:
        """Declare a service's queues and their slots, before the actors that serve them."""
        self.hub.add_lane(lane)
        for queue in lane.queues:
            self.declare_queue(queue)

    def declare_queue(self, queue_name: str) -> None:
        if queue_name in self.queues:
            return
        self.emit_before("declare_queue", queue_name)
        if not self.hub.has_queue(queue_name):
            self.hub.add_lane(plain_lane(queue_name, PLAIN_CONCURRENCY))
        self.queues[queue_name] = None
        self.emit_after("declare_queue", queue_name)

    def declare_actor(self, actor: Any) -> None:
        super().declare_actor(actor)
        self.hub.serve(actor.queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30000) -> Consumer:
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)  # type: ignore[no-untyped-call]  # Dramatiq types only some of its errors
        return HubConsumer(self.hub, queue_name, timeout / 1000)

    def enqueue(self, message: Any, *, delay: int | None = None) -> Any:
        """Queue a message, `delay` milliseconds from now. For a message that is being worked on, note its next delivery."""
        if isinstance(message, Delivered):
            message.settlement = _again(message, (delay or 0) / 1000)
            return message
        self.emit_before("enqueue", message, delay)  # nothing is declared: who sends to a queue need not serve it
        put = Put(message.queue_name, message.message_id, encode_message(message), delay=(delay or 0) / 1000)
        try:
            answer = self.store.put([put])[0]
        except BrokerUnavailable as error:
            raise ConnectionClosed(str(error)) from error  # type: ignore[no-untyped-call]  # as above
        if isinstance(answer, Exception):
            raise answer
        self.emit_after("enqueue", message, delay)
        return message

    def flush(self, queue_name: str) -> None:
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)  # type: ignore[no-untyped-call]  # Dramatiq types only some of its errors
        self.store.flush(queue_name)

    def flush_all(self) -> None:
        for queue in self.queues:
            self.store.flush(queue)

    def join(self, queue_name: str, *, timeout: int | None = None) -> None:
        """Wait until the queue is empty and nothing of it runs; for tests. Raises QueueJoinTimeout."""
        ends = None if timeout is None else time.monotonic() + timeout / 1000
        while True:
            counts = self.store.counts([queue_name])[0]
            if counts.ready + counts.due + counts.leased == 0:
                return
            if ends is not None and time.monotonic() > ends:
                raise QueueJoinTimeout(queue_name)  # type: ignore[no-untyped-call]  # Dramatiq types only some of its errors
            time.sleep(JOIN_POLL)


class HubConsumer(Consumer):
    """One queue's end of the hub. Nothing here raises a connection error: Dramatiq would sleep for seconds."""

    def __init__(self, hub: Hub, queue: str, timeout: float = 0.0, *, taker: str | None = None) -> None:
        """`taker` is what a thread that acknowledges a message takes next from the hub by itself; None where it does not."""
        self._hub = hub
        self._queue = queue
        self._timeout = timeout
        self._taker = taker

    def __next__(self) -> MessageProxy | None:
        return self._hub.take(self._timeout, self._queue)

    def ack(self, message: MessageProxy) -> None:
        assert isinstance(message, Delivered)
        self._settle(message, message.settlement or Release(first=False, delay=UNSETTLED_DELAY))

    def nack(self, message: MessageProxy) -> None:
        assert isinstance(message, Delivered)
        self._settle(message, message.settlement if isinstance(message.settlement, Bury) else Bury(message.reason))

    def _settle(self, message: Delivered, settlement: Settlement) -> None:
        self._hub.settle(message.delivery, settlement, taker=self._taker)
        message.let_go()

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        for message in reversed(list(messages)):
            assert isinstance(message, Delivered)
            self._hub.settle(message.delivery, Release())


class DrainOnShutdown(Middleware):
    """Before Dramatiq waits for running calls, give back those that have not started."""

    def before_worker_shutdown(self, broker: Any, worker: Any) -> None:
        broker.hub.quiet(self._taken_back(worker.work_queue))
        if late := self._taken_back(worker.work_queue):  # a consumer had it in its hand
            broker.hub.quiet(late)

    @staticmethod
    def _taken_back(work_queue: Any) -> list[Delivered]:
        waiting: list[Delivered] = []
        while True:
            try:
                waiting.append(work_queue.get_nowait().message)
                work_queue.task_done()
            except Empty:
                return waiting


class SettleOwnActors(Middleware):
    """Retries for the user's own actors on this broker; a call actor has settled its delivery before."""

    #: Attempts of a user's actor beyond the first, and the shortest and longest backoff in milliseconds.
    MAX_RETRIES, MIN_BACKOFF, MAX_BACKOFF = 3, 1000, 300_000
    #: Doublings beyond this change nothing, and would overflow.
    DOUBLINGS = 20

    @property
    def actor_options(self) -> set[str]:
        return {"max_retries", "min_backoff", "max_backoff", "throws"}

    def after_skip_message(self, broker: Any, message: Any) -> None:
        if message.settlement is None:
            message.settlement = Done()

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if message.settlement is not None:
            return
        if exception is None:
            message.settlement = Done()
            return
        options = {**broker.get_actor(message.actor_name).options, **message.options}
        failed, most = message.delivery.progress.attempt, options.get("max_retries", self.MAX_RETRIES)
        if (most is not None and failed >= most) or isinstance(exception, options.get("throws") or ()):
            message.reason = "failed"
            message.fail()
            return
        broker.enqueue(message, delay=self._delay(exception, options, failed))

    def _delay(self, exception: BaseException, options: dict[str, Any], failed: int) -> int:
        if isinstance(exception, dramatiq.errors.Retry) and exception.delay is not None:
            return exception.delay
        shortest, longest = options.get("min_backoff", self.MIN_BACKOFF), options.get("max_backoff", self.MAX_BACKOFF)
        return int(min(shortest * 2 ** min(failed, self.DOUBLINGS), longest))


def _again(message: Delivered, delay: float) -> Later:
    progress = message.delivery.progress
    return Later(delay, type(progress)(attempt=progress.attempt + 1, round=progress.round, history=progress.history))
