"""A backlog: what a call costs when a million others wait, what it takes of the broker's memory, and what it costs a worker
to have a hundred thousand calls behind an open breaker.
"""

from __future__ import annotations

import time
from typing import Any

from bench.contenders import SEAWALL
from bench.figures import Check, Result, median
from bench.services import wait_until
from bench.stage import Stage
from seawall.actors.engine import Engine, engine_from_url
from seawall.actors.queue_store import Done, Group, Put, Want
from seawall.actors.record import Call, encode, new_call_id
from seawall.actors.service import queue_names
from seawall.supervisor.breaker import ForceOpen, Policy
from seawall.supervisor.view import BreakerView

#: Calls that are queued at once while a backlog is made.
CHUNK = 10_000
DAY = 24 * 3600.0


def run(stage: Stage) -> Result:
    rows, data = _depths(stage)
    smallest, largest = min(stage.pace.depths), max(stage.pace.depths)
    held = _held(stage)
    data["held"] = held
    cost = data["cycle_us"][str(largest)] / data["cycle_us"][str(smallest)]
    checks = [
        Check(f"cost of a call at depth {largest:,} beside {smallest:,}", cost, 1.1),
        Check(f"a worker with {stage.pace.held_calls:,} held calls", held["with"], 2.0, unit="% of a core"),
    ]
    notes = [
        f"A worker beside {stage.pace.held_calls:,} held calls used {held['with']:.2f} % of a core, without them "
        f"{held['without']:.2f} %."
    ]
    columns = (
        "calls that wait",
        "us to queue, fetch and settle one",
        "calls/s",
        "broker's bytes a call beside its payload",
    )
    return Result("Backlog", columns, rows, data, checks, notes)


def _depths(stage: Stage) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """Each depth has a namespace of its own, and their rounds alternate, so that a change of the machine's speed is in all."""
    stage.broker.clear()
    engines: dict[int, Engine] = {}
    bytes_each: dict[int, float] = {}
    for depth in stage.pace.depths:
        stage.say(f"backlog: queueing {depth:,} calls")
        engines[depth] = engine_from_url(stage.broker.url, f"depth{depth}")
        before = stage.broker.client.info("memory")["used_memory"]
        payload = _fill(engines[depth], depth)
        bytes_each[depth] = (stage.broker.client.info("memory")["used_memory"] - before) / depth - payload
    micros: dict[int, list[float]] = {depth: [] for depth in engines}
    rounds = 2 + 3 * stage.pace.burst_rounds
    for number in range(rounds):
        for depth, engine in engines.items():
            stage.say(f"backlog: round {number + 1} of {rounds}, {depth:,} calls")
            micros[depth].append(_cycle(engine, stage.pace.depth_cycles // rounds) * 1e6)
    for engine in engines.values():
        engine.close()
    stage.broker.clear()
    best = {depth: median(found[1:]) for depth, found in micros.items()}  # the first round warms up
    rows: list[tuple[Any, ...]] = [(f"{depth:,}", us, 1e6 / us, bytes_each[depth]) for depth, us in best.items()]
    data = {
        "cycle_us": {str(depth): us for depth, us in best.items()},
        "bytes": {str(depth): size for depth, size in bytes_each.items()},
    }
    return rows, data


def _put(queue: str) -> Put:
    id = new_call_id()
    call = Call(id=id, service="upstream", origin="http://127.0.0.1:80", method="GET", target="/item")
    return Put(queue, id, encode(call), expires_in=DAY)


def _fill(engine: Engine, depth: int) -> int:
    queue = queue_names("upstream")[1]
    for start in range(0, depth, CHUNK):
        engine.queue.put([_put(queue) for _ in range(min(CHUNK, depth - start))])
    return len(_put(queue).payload)


def _cycle(engine: Engine, cycles: int) -> float:
    """Seconds to queue a call, fetch the oldest and settle it, while the depth stays what it is."""
    waited, background = queue_names("upstream")
    groups = [Group(1, (Want(waited, "", 1), Want(background, "upstream", 1)))]
    started = time.perf_counter()
    for _ in range(cycles):
        engine.queue.put([_put(background)])
        for delivery in engine.queue.fetch(groups).deliveries:
            engine.queue.settle(delivery, Done())
    return (time.perf_counter() - started) / cycles


def _held(stage: Stage) -> dict[str, float]:
    """Percent of a core that an idle worker uses, with the calls behind an open breaker, and without any."""
    stage.broker.clear()
    found: dict[str, float] = {}
    for name, calls in (("without", 0), ("with", stage.pace.held_calls)):
        url = SEAWALL.environment(stage.upstream.url, stage.broker.url)["BENCH_BROKER"]
        engine = engine_from_url(url)
        view = BreakerView("upstream", "Upstream", engine.breakers, Policy())
        view.start()
        view.by_hand(ForceOpen())
        if calls:
            stage.say(f"backlog: {calls:,} held calls")
            _fill(engine, calls)
        with stage.workers(SEAWALL) as workers:
            wait_until(engine.queue.workers, 15, "the worker serves")
            time.sleep(1.0)
            before, started = workers.cpu_seconds(), time.monotonic()
            time.sleep(stage.pace.held_seconds)
            found[name] = (workers.cpu_seconds() - before) / (time.monotonic() - started) * 100
        engine.close()
    stage.broker.clear()
    return found
