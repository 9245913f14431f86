"""What it costs that every attempt is counted and timed: two worker processes at the same time, one with metrics, one without.

At the same time, since what else happens on a machine in two rounds, one after the other, is several times what is looked for.
Each has a queue of its own on the same broker, and calls the same upstream.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import redis

from bench.contenders import SEAWALL, Contender, Workers
from bench.figures import Check, Result, median
from bench.stage import Stage

#: Shares of the calls between which it is measured: boot and tail are left out.
FROM, TO = 0.1, 0.9
#: Seconds between two looks at the queues.
LOOK = 0.02
#: Rounds for each of a section's usual ones: a difference of a few per cent drowns in the noise of a few rounds.
MORE = 4
#: What is left of a queue that is worked off.
QUEUE = "seawall:q:upstream.background:ready"
PLANS = {
    "on": SEAWALL,
    "off": dataclasses.replace(SEAWALL, name="Seawall, metrics off", database=7, more={"SEAWALL_METRICS": "0"}),
}


def run(stage: Stage) -> Result:
    calls, rounds = stage.pace.background_calls * 2, stage.pace.background_rounds * MORE
    rates: dict[str, list[float]] = {name: [] for name in PLANS}
    costs: dict[str, list[float]] = {name: [] for name in PLANS}
    for number in range(rounds):
        stage.say(f"metrics: round {number + 1} of {rounds}")
        for name, (rate, cost) in _worked_off(stage, sorted(PLANS, reverse=number % 2 == 1), calls).items():
            rates[name].append(rate)
            costs[name].append(cost)
    kept = median([on / off for on, off in zip(rates["on"], rates["off"], strict=True)])
    spent = median([on / off for on, off in zip(costs["on"], costs["off"], strict=True)])
    rows: list[tuple[Any, ...]] = [(f"metrics {name}", median(rates[name]), median(costs[name])) for name in PLANS]
    return Result(
        "Counting and timing every attempt",
        ("", "calls/s", "worker's CPU per call, us"),
        rows,
        {"rates": rates, "costs": costs},
        [
            Check("throughput with metrics beside without", kept, 0.97, at_most=False),
            Check("the worker's CPU per call with metrics beside without", spent, 1.03),
        ],
        [
            f"Two worker processes at the same time, each with {calls:,} background calls of its own; {rounds} rounds, the "
            "medians of their ratios."
        ],
    )


def _worked_off(stage: Stage, order: list[str], calls: int) -> dict[str, tuple[float, float]]:
    """Calls per second of each worker process in the same seconds, and its microseconds of CPU for each call."""
    stage.broker.clear()
    for name in order:
        with ExitStack() as stack:
            with stage.workers(PLANS[name]):
                driver = stack.enter_context(
                    stage.driver(PLANS[name])
                )  # it begins with a call, to see that everything works
            driver.tell("enqueue_many", calls=calls)
    with ExitStack() as stack:
        running = {name: _Running(stage, PLANS[name], stack, calls) for name in order}
        began = _once(lambda: min(one.done() for one in running.values()) >= calls * FROM, running)
        ended = _once(lambda: max(one.done() for one in running.values()) >= calls * TO, running)
    return {name: _between(began[name], ended[name]) for name in order}


class _Running:
    """A worker process and its queue, until the stack closes."""

    def __init__(self, stage: Stage, contender: Contender, stack: ExitStack, calls: int) -> None:
        self._calls = calls
        url = contender.environment(stage.upstream.url, stage.broker.url)["BENCH_BROKER"]
        self._queue = stack.enter_context(redis.Redis.from_url(url))
        self._workers: Workers = stack.enter_context(stage.workers(contender))

    def done(self) -> int:
        return self._calls - int(self._queue.zcard(QUEUE))

    def reading(self) -> tuple[float, int, float]:
        """The time, the calls that are done, and the CPU seconds that they took."""
        return time.monotonic(), self.done(), self._workers.cpu_seconds()


def _once(reached: Callable[[], bool], running: dict[str, _Running]) -> dict[str, tuple[float, int, float]]:
    while not reached():
        time.sleep(LOOK)
    return {name: one.reading() for name, one in running.items()}


def _between(first: tuple[float, int, float], last: tuple[float, int, float]) -> tuple[float, float]:
    seconds, calls, spent = (after - before for before, after in zip(first, last, strict=True))
    return calls / seconds, spent / calls * 1e6
