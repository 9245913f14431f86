"""Each row of RELIABILITY.md has a test of its own, or a line in docs/reliability.md that says why it has none."""

from __future__ import annotations

import re
from pathlib import Path

from tests.resilience.scene import ROOT

ROWS = range(1, 30)
PAGE = (ROOT / "docs" / "reliability.md").read_text("utf-8")


def test_each_row_has_a_test_or_a_reason() -> None:
    tested = {int(file.name[6:8]) for file in Path(__file__).parent.glob("test_r[0-9][0-9]_*.py")}
    argued = {int(row) for row in re.findall(r"^- \*\*Row (\d+)\b", PAGE, flags=re.M)}
    assert tested | argued == set(ROWS)


def test_the_page_names_files_that_exist() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)(?:::\w+)?`", PAGE))
    assert len(named) > len(ROWS) / 2
    assert {name for name in named if not (ROOT / name).is_file()} == set()


def test_the_page_names_every_test_here() -> None:
    files = {f"tests/resilience/{file.name}" for file in Path(__file__).parent.glob("test_r[0-9][0-9]_*.py")}
    assert {file for file in files if file not in PAGE} == set()
