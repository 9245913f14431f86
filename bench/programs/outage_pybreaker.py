"""The same with pybreaker on Redis around `requests`. `python outage_pybreaker.py SECONDS THREADS`"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

import pybreaker
import redis
import requests

PAUSE = 0.01

storage = pybreaker.CircuitRedisStorage(
    pybreaker.STATE_CLOSED, redis.Redis.from_url(os.environ["BENCH_BROKER"]), namespace="dead"
)
breaker = pybreaker.CircuitBreaker(fail_max=5, reset_timeout=1, state_storage=storage)


def work(url: str, ends: float) -> None:
    session = requests.Session()

    @breaker
    def call() -> None:
        session.get(f"{url}/item", timeout=2).raise_for_status()

    while time.monotonic() < ends:
        with contextlib.suppress(requests.RequestException, pybreaker.CircuitBreakerError):
            call()
        time.sleep(PAUSE)


if __name__ == "__main__":
    ends = time.monotonic() + float(sys.argv[1])
    threads = [threading.Thread(target=work, args=(os.environ["BENCH_DEAD"], ends)) for _ in range(int(sys.argv[2]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
