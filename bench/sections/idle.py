"""One call now and then, as most are: the machine has gone to sleep in between, and so has every process."""

from __future__ import annotations

from contextlib import ExitStack

from bench.figures import Check, Result, median, percentile
from bench.stage import Stage

#: Seconds between two calls.
PAUSE = 1.2


def run(stage: Stage) -> Result:
    with ExitStack() as stack:
        drivers = stage.drivers(stack)
        seconds: dict[str, list[float]] = {name: [] for name in drivers}
        for number in range(stage.pace.idle_rounds):
            stage.say(f"idle: round {number + 1} of {stage.pace.idle_rounds}")
            for name, driver in drivers.items():
                seconds[name].append(driver.tell("idle", pause=PAUSE)["seconds"])
    direct = median(seconds["direct"])
    rows = [
        (name, median(found) * 1e3, percentile(found, 0.9) * 1e3, max(found) * 1e3, median(found) / direct)
        for name, found in seconds.items()
    ]
    ratios = {name: median(found) / direct for name, found in seconds.items()}
    peers = [ratio for name, ratio in ratios.items() if name not in ("direct", "Seawall")]
    checks = [
        Check("idle call, median beside direct", ratios["Seawall"], 2.2),
        Check("idle call, median beside direct (stretch)", ratios["Seawall"], 2.0),
        Check("idle call, p99 beside direct", _p99(seconds, "Seawall") / _p99(seconds, "direct"), 5.0),
    ]
    if peers:
        checks.append(Check("idle call, median beside the fastest peer", ratios["Seawall"] / min(peers), 1.0))
    columns = ("idle call", "median ms", "p90 ms", "longest ms", "x direct")
    return Result("One call, 1.2 s after the last", columns, rows, {"seconds": seconds}, checks)


def _p99(seconds: dict[str, list[float]], name: str) -> float:
    return percentile(seconds[name], 0.99)
