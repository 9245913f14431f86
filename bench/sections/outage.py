"""What a dead service sees of four processes that go on calling it: from Seawall, and from pybreaker on Redis."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.contenders import OWN, PEERS, PROGRAMS, SEAWALL
from bench.figures import Check, Result
from bench.services import free_port, wait_until
from bench.stage import Stage

#: Processes, and calling threads in each; the breaker's interval in seconds.
PROCESSES, THREADS, INTERVAL = 4, 4, 1.0
#: Requests of the time before the breaker opens: failures that were on their way together.
OPENING = 0.5


def run(stage: Stage) -> Result:
    seconds = stage.pace.outage_seconds
    rows: list[tuple[Any, ...]] = []
    data: dict[str, Any] = {}
    for name, python in (("Seawall", OWN / "python"), ("pybreaker on Redis", PEERS / "python")):
        if not python.exists():
            continue
        stage.say(f"outage: {name}, {seconds:g} s")
        stage.broker.clear()
        arrivals = _arrivals(stage, name, python, seconds)
        trials = [at for at in arrivals if at > arrivals[0] + OPENING]
        minutes = (seconds - OPENING) / 60
        intervals = (seconds - OPENING) / INTERVAL
        burst = _most_in_an_interval(trials)
        rows.append((name, len(arrivals) - len(trials), len(trials) / minutes, len(trials) / intervals, burst))
        data[name] = {"arrivals": [round(at - arrivals[0], 4) for at in arrivals], "most_in_an_interval": burst}
    ours = rows[0]
    checks = [
        Check("requests to a dead service per interval", ours[3], 1.05, unit="requests"),
        Check("most requests within one interval", ours[4], 1, unit="requests"),
    ]
    title = f"A dead service, {PROCESSES} processes of {THREADS} threads, an interval of {INTERVAL:g} s"
    columns = ("breaker", "before it opened", "requests a minute", "requests an interval", "most in one interval")
    return Result(title, columns, rows, data, checks)


def _most_in_an_interval(arrivals: list[float]) -> int:
    """The most requests in any stretch that is a little shorter than the interval."""
    stretch = INTERVAL * 0.99
    return max((sum(first <= at < first + stretch for at in arrivals) for first in arrivals), default=0)


def _arrivals(stage: Stage, name: str, python: Path, seconds: float) -> list[float]:
    port, log = free_port(), stage.folder / f"arrivals-{name.split()[0]}"
    environment = SEAWALL.environment(stage.upstream.url, stage.broker.url)
    environment["BENCH_DEAD"] = f"http://127.0.0.1:{port}"
    program = "outage_seawall.py" if name == "Seawall" else "outage_pybreaker.py"
    with ExitStack() as stack:
        out = stack.enter_context(log.open("w"))
        _start(stack, [sys.executable, str(PROGRAMS / "dead_upstream.py"), str(port)], os.environ, out)
        if name == "Seawall":
            for command in (["worker"], ["worker"], ["supervisor"]):
                _start(stack, [str(OWN / "seawall"), *command, "outage_seawall"], environment, None)
            wait_until(lambda: _workers(stage, environment) == 2, 20, "two workers serve")
        callers = [
            _start(stack, [str(python), str(PROGRAMS / program), str(seconds), str(THREADS)], environment, None)
            for _ in range(PROCESSES)
        ]
        for caller in callers:
            caller.wait(seconds + 60)
    return sorted(map(float, log.read_text().split()))


def _workers(stage: Stage, environment: dict[str, str]) -> int:
    from redis import Redis

    with Redis.from_url(environment["BENCH_BROKER"]) as client:
        return int(client.zcard("seawall:workers"))


def _start(stack: ExitStack, command: list[str], environment: Any, out: Any) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        command, env=environment, cwd=PROGRAMS, stdout=out or subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def stop() -> None:
        process.send_signal(signal.SIGTERM)
        process.wait(20)

    stack.callback(stop)
    return process
