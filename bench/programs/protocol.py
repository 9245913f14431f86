"""How a contender's driver is told what to do: a JSON object a line in, one a line out. Runs in any environment.

- `{"do": "idle", "pause": 1.2}` sleeps so long, makes one call, answers its seconds
- `{"do": "burst", "callers": 8, "seconds": 2}` has so many callers call back to back, answers every latency and the time
- `{"do": "enqueue", "calls": 500}` queues background calls one by one, answers the seconds
- `{"do": "enqueue_many", "calls": 4500}` the same in one go, where the contender can
- an end of file ends it
"""

from __future__ import annotations

import json
import sys
import threading
import time


class Driver:
    """`call` makes one call and waits for it. Override what a contender does differently."""

    def call(self) -> None:
        raise NotImplementedError

    def enqueue(self) -> None:
        raise NotImplementedError

    def enqueue_many(self, calls: int) -> None:
        for _ in range(calls):
            self.enqueue()

    def idle(self, pause: float) -> float:
        time.sleep(pause)
        started = time.perf_counter()
        self.call()
        return time.perf_counter() - started

    def burst(self, callers: int, seconds: float) -> tuple[list[float], float]:
        latencies: list[float] = []
        started = time.perf_counter()
        ends = started + seconds

        def work() -> None:
            before = time.perf_counter()
            while before < ends:
                self.call()
                now = time.perf_counter()
                latencies.append(now - before)
                before = now

        if callers == 1:
            work()
        else:
            threads = [threading.Thread(target=work) for _ in range(callers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return latencies, time.perf_counter() - started

    def serve(self) -> None:
        self.call()  # connections are open, scripts are loaded
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            print(json.dumps(self._answer(json.loads(line))), flush=True)

    def _answer(self, order: dict) -> dict:
        if order["do"] == "idle":
            return {"seconds": self.idle(order["pause"])}
        if order["do"] == "burst":
            latencies, took = self.burst(order["callers"], order["seconds"])
            return {"latencies": latencies, "seconds": took}
        started = time.perf_counter()
        if order["do"] == "enqueue":
            for _ in range(order["calls"]):
                self.enqueue()
        elif order["do"] == "enqueue_many":
            self.enqueue_many(order["calls"])
        else:
            raise ValueError(f"unknown order {order}")
        return {"seconds": time.perf_counter() - started}
