"""RQ: a job is a function's name; its worker forks for each."""

from __future__ import annotations

import os

import redis
from protocol import Driver
from rq import Queue

#: Seconds that a caller waits for its result.
TIMEOUT = 20


class Rq(Driver):
    def __init__(self) -> None:
        self._queue = Queue(connection=redis.Redis.from_url(os.environ["BENCH_BROKER"], socket_timeout=TIMEOUT + 10))

    def call(self) -> None:
        job = self._queue.enqueue("fetch.fetch")
        if job.latest_result(timeout=TIMEOUT) is None:
            raise TimeoutError("no result")

    def enqueue(self) -> None:
        self._queue.enqueue("fetch.fetch", result_ttl=0)


if __name__ == "__main__":
    Rq().serve()
