"""What it costs that every attempt is counted and timed: one worker process with metrics on and off, in turns."""

from __future__ import annotations

import dataclasses
import time
from contextlib import ExitStack
from typing import Any

from bench.contenders import SEAWALL
from bench.figures import Check, Result, median
from bench.stage import Stage

#: Shares of the calls between which it is measured: boot and tail are left out.
FROM, TO = 0.1, 0.95
#: Seconds between two looks at the upstream's counter.
LOOK = 0.02
#: Rounds for each of a section's usual ones: a difference of a few per cent drowns in the noise of a few rounds.
MORE = 4


def run(stage: Stage) -> Result:
    plans = {
        "on": SEAWALL,
        "off": dataclasses.replace(SEAWALL, name="Seawall, metrics off", more={"SEAWALL_METRICS": "0"}),
    }
    calls, rounds = stage.pace.background_calls * 2, stage.pace.background_rounds * MORE
    rates: dict[str, list[float]] = {name: [] for name in plans}
    costs: dict[str, list[float]] = {name: [] for name in plans}
    for number in range(rounds):
        stage.say(f"metrics: round {number + 1} of {rounds}")
        for name in sorted(plans, reverse=number % 2 == 1):
            rate, cost = _worked_off(stage, plans[name], calls)
            rates[name].append(rate)
            costs[name].append(cost)
    kept = median([on / off for on, off in zip(rates["on"], rates["off"], strict=True)])
    spent = median(costs["on"]) / median(costs["off"])
    rows: list[tuple[Any, ...]] = [(f"metrics {name}", median(rates[name]), median(costs[name])) for name in plans]
    return Result(
        "Counting and timing every attempt",
        ("", "calls/s", "worker's CPU per call, us"),
        rows,
        {"rates": rates, "costs": costs},
        [
            Check("throughput with metrics beside without", kept, 0.97, at_most=False),
            Check("the worker's CPU per call with metrics beside without", spent, 1.03),
        ],
        [f"{calls:,} background calls a round, {rounds} rounds each, in turns; the median of the rounds' ratios."],
    )


def _worked_off(stage: Stage, contender: Any, calls: int) -> tuple[float, float]:
    """Calls per second of one worker process, and its microseconds of CPU for each."""
    stage.broker.clear()
    with ExitStack() as stack:
        with stage.workers(contender):
            driver = stack.enter_context(stage.driver(contender))  # it begins with a call, to see that everything works
        driver.tell("enqueue_many", calls=calls)
    before = stage.upstream.seen()
    with stage.workers(contender) as workers:
        began, spent, first = _at(stage, workers, before, calls * FROM)
        ended, spent_then, last = _at(stage, workers, before, calls * TO)
    return (last - first) / (ended - began), (spent_then - spent) / (last - first) * 1e6


def _at(stage: Stage, workers: Any, before: int, calls: float) -> tuple[float, float, int]:
    """The time, the CPU seconds and the count, once so many calls have arrived."""
    while (done := stage.upstream.seen() - before) < calls:
        time.sleep(LOOK)
    return time.monotonic(), workers.cpu_seconds(), done
