"""`python -m tests.chaos [--seconds N] [--seed S]`: play a seeded chaos run, print what came of it, exit with 1 if a check failed."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.checker import check_all
from tests.chaos.plan import make_plan
from tests.chaos.report import figures, show, write
from tests.chaos.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long things go wrong; settling comes on top")
    parser.add_argument("--seed", type=int, default=None, help="the seed of an earlier run; by default a new one")
    parser.add_argument("--report", type=Path, default=Path("chaos-report.json"), help="where to write everything")
    parser.add_argument("--quiet", action="store_true", help="print no events")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    plan = make_plan(seed, arguments.seconds)
    folder = Path(tempfile.mkdtemp(prefix="seawall-chaos-"))
    print(f"seed {seed}: {len(plan.events)} events in {plan.seconds:g} s; logs in {folder}", flush=True)
    began = time.monotonic()
    evidence = run(plan, folder, lambda text: None if arguments.quiet else print(text, flush=True))
    checks, counted = check_all(evidence), figures(evidence)
    met = all(check.met for check in checks)
    minutes = round((time.monotonic() - began) / 60, 1)
    write(
        arguments.report,
        plan,
        checks,
        counted,
        minutes=minutes,
        begun=evidence.begun,
        lag=round(evidence.lag, 2),
        folder=str(folder),
    )
    print(f"\n{show(checks, counted)}\n")
    again = f"--seed {seed} --seconds {plan.seconds:g}"
    print(
        f"seed {seed}, {minutes} minutes, a thread waited for the processor for at most {evidence.lag:.2f} s; written to {arguments.report}"
    )
    if met:
        shutil.rmtree(folder)
        return 0
    print(f"FAILED; to run it again: python -m tests.chaos {again}; logs are in {folder}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
