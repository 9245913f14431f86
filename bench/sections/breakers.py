"""What a breaker costs, library by library, state in the process and in Redis."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from bench.contenders import OWN, PEERS, PROGRAMS, SEAWALL
from bench.figures import Check, Result
from bench.stage import Stage

#: Library, and where it can keep its state.
LIBRARIES = (
    ("seawall", ("memory", "redis")),
    ("pybreaker", ("memory", "redis")),
    ("interlock", ("memory", "redis")),
    ("circuitbreaker", ("memory",)),
    ("purgatory", ("memory", "redis")),
)
#: Seconds for one library's measurement.
PATIENCE = 120


def run(stage: Stage) -> Result:
    rows: list[tuple[Any, ...]] = []
    data: dict[str, Any] = {}
    notes: list[str] = []
    stage.broker.clear()
    for library, places in LIBRARIES:
        folder = OWN if library == "seawall" else PEERS
        if not (folder / "python").exists():
            continue
        for place in places:
            stage.say(f"breakers: {library}, {place}")
            found = _measured(stage, str(folder / "python"), library, place)
            if found is None:
                notes.append(f"{library} does not work with its state in {place} in these versions.")
                continue
            rows.append((f"{library}, {place}", found["admission_us"], found["refusal_us"]))
            data[f"{library}, {place}"] = found
    checks = []
    for place in ("memory", "redis"):
        ours = data[f"seawall, {place}"]
        checks.append(Check(f"admission, {place}", ours["admission_us"], 2.0, unit="us"))
        checks.append(Check(f"refusal, {place}", ours["refusal_us"], 20.0, unit="us"))
    columns = ("breaker", "admission when closed us", "refusal when open us")
    return Result("The breaker's cost", columns, rows, data, checks, notes)


def _measured(stage: Stage, python: str, library: str, place: str) -> dict[str, float] | None:
    environment = SEAWALL.environment(stage.upstream.url, stage.broker.url) | {"SEAWALL_LOG_LEVEL": "info"}
    command = [python, str(PROGRAMS / "breaker_app.py"), library, place, str(stage.pace.breaker_times)]
    ended = subprocess.run(
        command, env=environment, cwd=stage.folder, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    if ended.returncode != 0:
        return None
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return found
