"""The yardstick: no queue, a `requests.Session` per thread."""

from __future__ import annotations

import threading

from fetch import fetch
from protocol import Driver

#: Threads of the loop that background throughput is compared with.
THREADS = 8


class Direct(Driver):
    def call(self) -> None:
        fetch()

    def enqueue_many(self, calls: int) -> None:
        """Make the calls here and now, by 8 threads."""
        threads = [threading.Thread(target=self._loop, args=(calls // THREADS,)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _loop(self, calls: int) -> None:
        for _ in range(calls):
            fetch()


if __name__ == "__main__":
    Direct().serve()
