"""`python -m bench [--quick] [--only SECTION]...`: run the benchmarks, print the tables, write bench/results.json."""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.figures import Result, show
from bench.machine import describe
from bench.page import RESULTS, write
from bench.sections import back_to_back, backlog, breakers, idle, memory, observed, outage, stages, throughput, trip
from bench.services import Broker, Upstream
from bench.stage import FULL, QUICK, Stage

SECTIONS: dict[str, Callable[[Stage], Result]] = {
    "idle": idle.run,
    "back-to-back": back_to_back.run,
    "throughput": throughput.run,
    "breakers": breakers.run,
    "trip": trip.run,
    "backlog": backlog.run,
    "outage": outage.run,
    "memory": memory.run,
    "observed": observed.run,
    "stages": stages.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything, under 3 minutes")
    parser.add_argument("--only", action="append", choices=list(SECTIONS), help="this section; may be repeated")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where to write the numbers")
    arguments = parser.parse_args()
    pace = QUICK if arguments.quick else FULL
    began = time.monotonic()
    written: dict[str, Any] = {}
    missed: list[str] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seawall-bench-")))
        upstream, broker = stack.enter_context(Upstream(folder)), stack.enter_context(Broker(folder))
        stage = Stage(folder, upstream, broker, pace)
        machine = describe(stage)
        print("\n".join(f"{name}: {value}" for name, value in machine.items()), end="\n\n", flush=True)
        for name in arguments.only or SECTIONS:
            result = SECTIONS[name](stage)
            print(show(result), flush=True)
            missed += [str(check) for check in result.checks if not check.met]
            written[name] = _as_json(result)
    minutes = (time.monotonic() - began) / 60
    print(f"{minutes:.1f} minutes; " + ("missed:\n" + "\n".join(missed) if missed else "every figure was met"))
    document = {"machine": machine, "quick": pace.quick, "minutes": round(minutes, 1), "sections": written}
    if arguments.only and arguments.results.exists():
        document = _renewed(json.loads(arguments.results.read_text()), document)
    arguments.results.write_text(json.dumps(document, indent=1) + "\n")
    print(f"written to {arguments.results}")
    if arguments.results == RESULTS:
        write()


def _renewed(record: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """The record with these sections measured anew. Raises SystemExit for one of another machine, versions or length."""
    if (record["machine"], record["quick"]) != (document["machine"], document["quick"]):
        raise SystemExit("the record is of another machine, other versions or another length: measure everything")
    return {**record, "sections": {**record["sections"], **document["sections"]}}


def _as_json(result: Result) -> dict[str, Any]:
    checks = [dataclasses.asdict(check) | {"met": check.met} for check in result.checks]
    columns, rows = list(result.columns), [list(row) for row in result.rows]
    shown = {"title": result.title, "columns": columns, "rows": rows, "notes": result.notes}
    return {**shown, "data": result.data, "checks": checks}


if __name__ == "__main__":
    main()
