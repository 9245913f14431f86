"""`python -m bench.page`: write the tables of bench/results.json into docs/performance.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.figures import Check, Result, show

__all__ = ["PAGE", "RESULTS", "page_with_results", "write"]

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
RESULTS = Path(__file__).parent / "results.json"
#: What stands around the tables.
BEGIN, END = "<!-- tables of bench/results.json, written by make bench -->", "<!-- end of the tables -->"


def page_with_results(page: str, document: dict[str, Any]) -> str:
    """The page with the document's tables in the place of those that it has."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    machine = "\n".join(f"- {name}: {value}" for name, value in document["machine"].items())
    tables = "\n".join(show(_result(section)).replace("## ", "### ", 1) for section in document["sections"].values())
    return f"{before}{BEGIN}\n\n{machine}\n\n{tables}\n{END}{after}"


def _result(section: dict[str, Any]) -> Result:
    checks = [Check(**{name: value for name, value in check.items() if name != "met"}) for check in section["checks"]]
    return Result(section["title"], section["columns"], section["rows"], section["data"], checks, section["notes"])


def write() -> None:
    PAGE.write_text(page_with_results(PAGE.read_text(), json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    write()
