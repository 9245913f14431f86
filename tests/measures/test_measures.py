"""Every line of RELIABILITY.md has a measure or a reason why not, and a cheap one runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.measures.__main__ import main
from tests.measures.every import MEASURES
from tests.measures.figures import BY_NAME, LEFT_OUT
from tests.resilience.scene import ROOT

LINES = {f"B{number}" for number in range(1, 7)} | {f"X{number}" for number in range(1, 21)}
CHEAP = "X13"


def test_every_line_has_a_measure_or_a_reason() -> None:
    assert set(MEASURES) - BY_NAME | set(LEFT_OUT) == LINES
    assert not set(MEASURES) & set(LEFT_OUT)


def test_the_page_has_a_figure_of_each() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    assert set(re.findall(r"^\| ([BX]\d+|MEM) \|", page, flags=re.M)) == set(MEASURES)


def test_a_cheap_one_runs_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    assert main([CHEAP, "--report", str(report)]) == 0
    figures = json.loads(report.read_text())["figures"]
    assert {figure["id"] for figure in figures} == {CHEAP}
    assert all(figure["met"] for figure in figures)
    assert "2 of 2 met" in capsys.readouterr().out


def test_a_name_that_is_none_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["X15"])
    assert "a failover" in capsys.readouterr().err
