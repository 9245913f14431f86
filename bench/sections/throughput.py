"""Background calls: queued while no worker runs, then worked off; the upstream counts them."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from bench.contenders import DIRECT, SEAWALL, Contender
from bench.figures import Check, Result, median
from bench.stage import Stage

#: Shares of the calls between which the rate is measured: boot and tail are left out.
FROM, TO = 0.2, 0.95
#: Seconds since the first call for which a second worker process may still be starting.
STARTING = 0.7
#: Seconds after which a slow contender's rate is taken from what it has done.
LONGEST = 20.0
#: Seconds between two looks at the upstream's counter.
LOOK = 0.05
#: Calls that are queued one by one; the others by `enqueue_many`.
SINGLE = 500


def run(stage: Stage) -> Result:
    calls, rounds = stage.pace.background_calls, stage.pace.background_rounds
    plans = _plans(stage)
    rates: dict[str, list[float]] = {name: [] for name, _, _ in plans}
    single: dict[str, list[float]] = {name: [] for name, _, _ in plans}
    many: dict[str, list[float]] = {"Seawall": []}
    for number in range(rounds):
        stage.say(f"background calls: round {number + 1} of {rounds}")
        for name, contender, processes in plans:
            if contender is DIRECT:
                rates[name].append(_direct(stage, calls))
                continue
            amount = calls * processes if contender is SEAWALL else calls
            one_by_one, at_once, rate = _queued(stage, contender, amount, processes)
            rates[name].append(rate)
            single[name].append(one_by_one)
            if name == "Seawall":
                many["Seawall"].append(at_once)
    direct = median(rates["direct, 8 threads"])
    rows: list[tuple[Any, ...]] = [
        (name, median(found), median(found) / direct, median(single[name]) if single[name] else None)
        for name, found in rates.items()
    ]
    rows.append(("Seawall, enqueue_many", None, None, median(many["Seawall"])))
    return Result(
        f"{calls:,} background calls",
        ("contender", "calls/s", "x direct", "queued/s, one by one"),
        rows,
        {"rates": rates, "single": single, "many": many},
        _checks(rates, single, many),
        ["Two Seawall processes work off twice as many calls."],
    )


def _plans(stage: Stage) -> list[tuple[str, Contender, int]]:
    plans = [("direct, 8 threads", DIRECT, 1)]
    for contender in stage.contenders():
        if contender.workers is not None:
            plans.append((contender.name, contender, contender.processes))
        if contender is SEAWALL:
            plans.append(("Seawall, 2 processes", contender, 2))
    return plans


def _direct(stage: Stage, calls: int) -> float:
    with stage.driver(DIRECT) as driver:
        return calls / float(driver.tell("enqueue_many", calls=calls)["seconds"])


def _queued(stage: Stage, contender: Contender, calls: int, processes: int) -> tuple[float, float, float]:
    """Calls queued per second, one by one and at once, and worked off per second."""
    stage.broker.clear()
    with ExitStack() as stack:
        with stage.workers(contender, processes):
            driver = stack.enter_context(stage.driver(contender))  # it begins with a call, to see that everything works
        single = SINGLE / driver.tell("enqueue", calls=SINGLE)["seconds"]
        many = (calls - SINGLE) / driver.tell("enqueue_many", calls=calls - SINGLE)["seconds"]
        before = stage.upstream.seen()
        with stage.workers(contender, processes):
            return single, many, _rate(stage, before, calls)


def _rate(stage: Stage, before: int, calls: int) -> float:
    first: tuple[float, int] | None = None
    began, arriving = time.monotonic(), 0.0
    while True:
        time.sleep(LOOK)
        done, now = stage.upstream.seen() - before, time.monotonic()
        arriving = arriving or (now if done else 0.0)
        if first is None and done >= calls * FROM and now - arriving >= STARTING:
            first = (now, done)
        slow = now - began > LONGEST
        if first is not None and (done >= calls * TO or slow):
            return (done - first[1]) / (now - first[0])
        if slow and done:
            return done / (now - began)
        if now - began > 3 * LONGEST:
            raise TimeoutError("no background call arrived")


def _checks(rates: dict[str, list[float]], single: dict[str, list[float]], many: dict[str, list[float]]) -> list[Check]:
    ours, direct = median(rates["Seawall"]), median(rates["direct, 8 threads"])
    peers = {name: median(found) for name, found in rates.items() if not name.startswith(("direct", "Seawall"))}
    checks = [
        Check("one worker process beside 8 threads calling directly", ours / direct, 1.0, at_most=False),
        Check("two worker processes beside one", median(rates["Seawall, 2 processes"]) / ours, 1.6, at_most=False),
        Check("enqueue_many beside single sends", _ratio(many["Seawall"], single["Seawall"]), 8.0, at_most=False),
    ]
    if peers:
        checks.insert(
            1, Check("one worker process beside the best peer", ours / max(peers.values()), 1.5, at_most=False)
        )
        prefork = peers["Celery, prefork 2"]
        checks.insert(2, Check("one worker process beside Celery prefork 2", ours / prefork, 2.0, at_most=False))
    return checks


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return median([one / other for one, other in zip(ours, theirs, strict=True)])
