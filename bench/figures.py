"""Numbers as people read them: percentiles, ratios, and tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Check", "Result", "median", "percentile", "show"]


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def percentile(values: Iterable[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, int(share * len(ordered))))]


@dataclass(frozen=True)
class Check:
    """A figure that was promised: `value` is to be at most, or at least, `target`."""

    what: str
    value: float
    target: float
    at_most: bool = True
    unit: str = "x"

    @property
    def met(self) -> bool:
        return self.value <= self.target if self.at_most else self.value >= self.target

    def __str__(self) -> str:
        relation = "at most" if self.at_most else "at least"
        verdict = "met" if self.met else "MISSED"
        return f"{self.what}: {self.value:.3g} {self.unit}, {relation} {self.target:g} {self.unit}: {verdict}"


@dataclass
class Result:
    """A section's table, its numbers for machines, and what was promised."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[Any]]
    data: dict[str, Any]
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def show(result: Result) -> str:
    """The table in Markdown, then the promises."""
    cells = [[_cell(value) for value in row] for row in (result.columns, *result.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(result.columns))]
    lines = [f"## {result.title}", ""]
    for number, row in enumerate(cells):
        padded = (
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append(f"| {' | '.join(padded)} |")
        if number == 0:
            rules = ("-" * width if column == 0 else "-" * (width - 1) + ":" for column, width in enumerate(widths))
            lines.append(f"| {' | '.join(rules)} |")
    lines += ["", *result.notes] if result.notes else []
    lines += ["", *(f"- {check}" for check in result.checks)] if result.checks else []
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None else str(value)
