"""`python -m tests.measures [ID]...`: play the lines of RELIABILITY.md, print a table; exits with 1 if a promise was not kept."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.measures.every import MEASURES
from tests.measures.figures import BY_NAME, LEFT_OUT, Row, show
from tests.measures.stand import Stand


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.measures", description=__doc__)
    parser.add_argument("ids", nargs="*", metavar="ID", help=f"of {', '.join(MEASURES)}; all B and X by default")
    parser.add_argument("--report", type=Path, help="write the table as JSON, too")
    given = parser.parse_args(arguments)
    chosen = [id.upper() for id in given.ids] or [id for id in MEASURES if id not in BY_NAME]
    if unknown := [id for id in chosen if id not in MEASURES]:
        parser.error("; ".join(f"{id}: {LEFT_OUT.get(id, 'no such measure')}" for id in unknown))
    rows, began = [], time.monotonic()
    for id in chosen:
        started = time.monotonic()
        rows += _play(id)
        print(f"{id} took {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    failed = sum(not row.figure.met for row in rows)
    minutes = (time.monotonic() - began) / 60
    print(f"\n{show(rows)}\n\n{len(rows) - failed} of {len(rows)} met, {minutes:.1f} minutes")
    if given.report:
        found = {"minutes": round(minutes, 1), "met": not failed, "figures": [row.as_json() for row in rows]}
        given.report.write_text(json.dumps(found, indent=2) + "\n")
    return 1 if failed else 0


def _play(id: str) -> list[Row]:
    with Stand() as stand:
        return MEASURES[id].rows(stand)


if __name__ == "__main__":
    sys.exit(main())
