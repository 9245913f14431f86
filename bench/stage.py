"""What a section needs to run: the services, how thorough to be, and a way to say what it is doing."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import CONTENDERS, PEERS, Contender, Driver, Workers
from bench.services import Broker, Upstream

__all__ = ["Pace", "Stage"]


@dataclass(frozen=True)
class Pace:
    """How much of everything: `FULL` for the record, `QUICK` for a look, without the contender that takes the longest."""

    idle_rounds: int
    burst_rounds: int
    burst_seconds: float
    background_calls: int
    background_rounds: int
    depths: tuple[int, ...]
    depth_cycles: int
    held_calls: int
    held_seconds: float
    outage_seconds: float
    trips: int
    breaker_times: int
    without: frozenset[str] = frozenset()
    quick: bool = False


FULL = Pace(
    idle_rounds=30,
    burst_rounds=3,
    burst_seconds=3.0,
    background_calls=5000,
    background_rounds=3,
    depths=(1_000, 10_000, 100_000, 1_000_000),
    depth_cycles=6000,
    held_calls=100_000,
    held_seconds=10.0,
    outage_seconds=30.0,
    trips=200,
    breaker_times=7,
)
QUICK = Pace(
    idle_rounds=3,
    burst_rounds=1,
    burst_seconds=0.7,
    background_calls=2500,
    background_rounds=1,
    depths=(1_000, 100_000),
    depth_cycles=1000,
    held_calls=100_000,
    held_seconds=3.0,
    outage_seconds=5.0,
    trips=50,
    breaker_times=2,
    without=frozenset({"RQ"}),
    quick=True,
)


@dataclass
class Stage:
    folder: Path
    upstream: Upstream
    broker: Broker
    pace: Pace

    def contenders(self) -> list[Contender]:
        """Everybody who is installed."""
        here = [one for one in CONTENDERS if one.folder != PEERS or (PEERS / "python").exists()]
        return [one for one in here if one.name not in self.pace.without]

    def workers(self, contender: Contender, processes: int = 1) -> Workers:
        return Workers(contender, self.upstream.url, self.broker.url, processes)

    def driver(self, contender: Contender) -> Driver:
        return Driver(contender, self.upstream.url, self.broker.url)

    def drivers(self, stack: ExitStack) -> dict[str, Driver]:
        """Everybody's workers and drivers, running side by side until the stack closes."""
        self.broker.clear()
        found = self.contenders()
        for contender in found:
            if contender.workers is not None:
                stack.enter_context(self.workers(contender, contender.processes))
        drivers = {contender.name: self.driver(contender) for contender in found}
        for driver in drivers.values():
            stack.enter_context(driver)
        return drivers

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
