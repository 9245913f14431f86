"""Dramatiq as it is: its Redis broker, and results for callers that wait."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from fetch import fetch
from protocol import Driver

broker = RedisBroker(url=os.environ["BENCH_BROKER"])
broker.add_middleware(Results(backend=RedisBackend(url=os.environ["BENCH_BROKER"])))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True, queue_name="waited")
def waited() -> str:
    return fetch()


@dramatiq.actor(queue_name="background")
def background() -> None:
    fetch()


class Dramatiq(Driver):
    def call(self) -> None:
        waited.send().get_result(block=True, timeout=20_000)

    def enqueue(self) -> None:
        background.send()


if __name__ == "__main__":
    Dramatiq().serve()
