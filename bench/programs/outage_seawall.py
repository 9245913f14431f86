"""A backend process that keeps calling a dead service through Seawall. `python outage_seawall.py SECONDS THREADS`

The workers and the supervisor of the run import it for its client.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

import requests

from seawall import ResilientServiceClient

client = ResilientServiceClient(
    os.environ["BENCH_DEAD"],
    service_name="Dead",
    key="dead",
    max_retries=1,
    failure_threshold=5,
    recovery_timeout=1,
    timeout=2,
)
#: Seconds between two calls of a thread: a backend under a steady load.
PAUSE = 0.01


def work(ends: float) -> None:
    while time.monotonic() < ends:
        with contextlib.suppress(requests.RequestException):
            client.get("/item")
        time.sleep(PAUSE)


if __name__ == "__main__":
    ends = time.monotonic() + float(sys.argv[1])
    threads = [threading.Thread(target=work, args=(ends,)) for _ in range(int(sys.argv[2]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
