"""A trip: how long until ten other processes know that a breaker has opened."""

from __future__ import annotations

import subprocess
import threading
import time

from bench.contenders import OWN, PROGRAMS, SEAWALL
from bench.figures import Check, Result, percentile
from bench.services import wait_until
from bench.stage import Stage
from seawall.actors.engine import engine_from_url
from seawall.supervisor.breaker import ForceOpen, Policy, Reset
from seawall.supervisor.view import BreakerView

PROCESSES = 10
#: Seconds between two trips.
PAUSE = 0.02


def run(stage: Stage) -> Result:
    stage.say(f"trips: {stage.pace.trips} of them, {PROCESSES} processes")
    stage.broker.clear()
    environment = SEAWALL.environment(stage.upstream.url, stage.broker.url)
    engine = engine_from_url(environment["BENCH_BROKER"])
    view = BreakerView("tripped", "Tripped", engine.breakers, Policy())
    view.start()
    seen: list[tuple[int, float]] = []
    watchers = [_Watcher(environment, seen) for _ in range(PROCESSES)]
    try:
        for watcher in watchers:
            watcher.ready.wait(20)
        tripped: dict[int, float] = {}
        for _ in range(stage.pace.trips):
            before = time.monotonic()
            view.by_hand(ForceOpen())
            tripped[view.generation] = before
            time.sleep(PAUSE)
            view.by_hand(Reset())
        wait_until(lambda: len(seen) == stage.pace.trips * PROCESSES, 20, "everybody has seen every trip")
    finally:
        for watcher in watchers:
            watcher.stop()
        engine.close()
    took = [(at - tripped[generation]) * 1e3 for generation, at in seen]
    rows = [("until another process knows", percentile(took, 0.5), percentile(took, 0.99), max(took))]
    checks = [Check("a trip in ten other processes, p99", percentile(took, 0.99), 50.0, unit="ms")]
    data = {"p50_ms": percentile(took, 0.5), "p99_ms": percentile(took, 0.99), "max_ms": max(took)}
    return Result(f"A trip, seen by {PROCESSES} processes", ("", "p50 ms", "p99 ms", "longest ms"), rows, data, checks)


class _Watcher:
    def __init__(self, environment: dict[str, str], seen: list[tuple[int, float]]) -> None:
        self.ready = threading.Event()
        self._seen = seen
        self._process = subprocess.Popen(
            [str(OWN / "python"), str(PROGRAMS / "trip_watcher.py")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() == "ready":
                self.ready.set()
            else:
                generation, at = line.split()
                self._seen.append((int(generation), float(at)))

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._reader.join(5)
