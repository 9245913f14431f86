"""Dramatiq's worker with threads that fetch for themselves: no consumer threads, and no queue between them and the hub."""

from __future__ import annotations

import time
from queue import Empty
from typing import Any

import dramatiq

from seawall.actors.broker import HubConsumer, SeawallBroker
from seawall.actors.delivered import Delivered
from seawall.actors.hub import Hub

__all__ = ["HubWorker"]

#: Seconds after which an idle thread looks up to see whether it shall stop; it is called when it shall.
LOOK_UP_SECONDS = 30.0
#: Seconds that a thread sleeps which asks a hub that has closed: it is about to be stopped.
CLOSED_SECONDS = 0.01


class HubWorker(dramatiq.Worker):
    """Runs actors, messages and middleware as Dramatiq does, on `worker_threads` threads that take calls from the hub."""

    def __init__(self, broker: SeawallBroker, *, worker_threads: int) -> None:
        super().__init__(broker, worker_threads=worker_threads)
        self._hub = broker.hub
        self.work_queue: Any = _HubQueue(broker.hub)

    def _add_consumer(self, queue_name: str, *, delay: bool = False) -> None:
        if queue_name not in self.consumers:
            desk: Any = _Desk(self.broker, HubConsumer(self._hub, queue_name, taker=""))
            self.consumers[queue_name] = desk

    def stop(self, timeout: int = 600_000) -> None:
        """Give back what has not started, and wait up to `timeout` milliseconds for what runs."""
        self._hub.quiet()
        self.let_go()
        super().stop(timeout)

    def let_go(self) -> None:
        """Send every thread home after what it runs; those that are idle go at once."""
        for thread in self.workers:
            thread.stop()
        self._hub.close()


class _HubQueue:
    """The hub as Dramatiq's threads see it: the queue that they get their work from."""

    unfinished_tasks = 0

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def get(self, timeout: float = LOOK_UP_SECONDS) -> Delivered:
        delivered = self._hub.take(LOOK_UP_SECONDS)
        if delivered is None:
            time.sleep(CLOSED_SECONDS)
            raise Empty
        return delivered

    def get_nowait(self) -> Delivered:
        """Nothing: what has not started is the hub's to give back."""
        raise Empty

    def task_done(self) -> None:
        """The hub knows by the settlement."""


class _Desk:
    """Where a thread brings a message that it has processed; in the place of Dramatiq's consumer thread."""

    def __init__(self, broker: Any, consumer: HubConsumer) -> None:
        self._broker = broker
        self._consumer = consumer

    def stop(self, timeout: float | None = None) -> None:
        """There is no thread to stop, and nothing of its own to give back or to close."""

    join = close = stop

    def post_process_message(self, message: Delivered) -> None:
        if message.failed:
            self._broker.emit_before("nack", message)
            self._consumer.nack(message)
            self._broker.emit_after("nack", message)
        else:
            self._broker.emit_before("ack", message)
            self._consumer.ack(message)
            self._broker.emit_after("ack", message)
