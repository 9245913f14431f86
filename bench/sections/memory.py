"""Resident memory of one worker process, when it has started and when it has worked."""

from __future__ import annotations

import time
from typing import Any

from bench.contenders import SEAWALL
from bench.figures import Result
from bench.stage import Stage

#: Seconds for a worker to come to rest.
REST = 2.0
MEGABYTE = 1_000_000


def run(stage: Stage) -> Result:
    rows: list[tuple[Any, ...]] = []
    data: dict[str, Any] = {}
    for contender in stage.contenders():
        if contender.workers is None or (stage.pace.quick and contender is not SEAWALL):
            continue
        stage.say(f"memory: {contender.name}")
        stage.broker.clear()
        with stage.workers(contender) as workers, stage.driver(contender) as driver:
            time.sleep(REST)
            at_rest, processes = workers.memory() / MEGABYTE, len(workers.processes())
            driver.tell("burst", callers=8, seconds=max(1.0, stage.pace.burst_seconds))
            worked = workers.memory() / MEGABYTE
        rows.append((contender.name, processes, at_rest, worked))
        data[contender.name] = {"processes": processes, "at_rest_mb": at_rest, "worked_mb": worked}
    notes = [f"All processes of a worker together; {SEAWALL.name}'s is one."]
    return Result("Memory", ("worker", "processes", "at rest MB", "under load MB"), rows, data, notes=notes)
