"""Calls without a pause, by 1, 8 and 64 callers of one process."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from bench.figures import Check, Result, median, percentile
from bench.stage import Stage

CALLERS = (1, 8, 64)


def run(stage: Stage) -> Result:
    rows: list[tuple[Any, ...]] = []
    data: dict[str, Any] = {}
    with ExitStack() as stack:
        drivers = stage.drivers(stack)
        for callers in CALLERS:
            latencies: dict[str, list[float]] = {name: [] for name in drivers}
            rates: dict[str, list[float]] = {name: [] for name in drivers}
            for number in range(stage.pace.burst_rounds):
                stage.say(f"back to back, {callers} callers: round {number + 1} of {stage.pace.burst_rounds}")
                for name, driver in drivers.items():
                    answer = driver.tell("burst", callers=callers, seconds=stage.pace.burst_seconds)
                    latencies[name] += answer["latencies"]
                    rates[name].append(len(answer["latencies"]) / answer["seconds"])
            rows += [_row(callers, name, latencies, rates) for name in drivers]
            data[str(callers)] = {name: {"rates": rates[name], **_percentiles(latencies[name])} for name in drivers}
    return Result(
        "Calls back to back",
        ("callers, contender", "p50 ms", "p95 ms", "p99 ms", "calls/s", "p50 x direct", "rate x direct"),
        rows,
        data,
        _checks(data),
    )


def _percentiles(latencies: list[float]) -> dict[str, float]:
    return {name: percentile(latencies, share) * 1e3 for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}


def _row(callers: int, name: str, latencies: dict[str, list[float]], rates: dict[str, list[float]]) -> tuple[Any, ...]:
    p50 = percentile(latencies[name], 0.5) / percentile(latencies["direct"], 0.5)
    rate = median(rates[name])
    return (
        f"{callers} {name}",
        *_percentiles(latencies[name]).values(),
        rate,
        p50,
        rate / median(rates["direct"]),
    )


def _checks(data: dict[str, Any]) -> list[Check]:
    one, many = data["1"], data["64"]
    rate = median(many["Seawall"]["rates"]) / median(many["direct"]["rates"])
    return [
        Check("one caller, median beside direct", one["Seawall"]["p50"] / one["direct"]["p50"], 2.0),
        Check("64 callers, throughput beside 64 threads calling directly", rate, 1.0, at_most=False),
    ]
