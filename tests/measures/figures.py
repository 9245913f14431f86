"""What a measure has found, beside what the stock stack did and what is promised; and the table of all of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.measures.stand import Stand

__all__ = [
    "BY_NAME",
    "LEFT_OUT",
    "REGISTERED",
    "Figure",
    "Measure",
    "Row",
    "at_most",
    "exactly",
    "measure",
    "percentiles",
    "show",
]

#: Lines of RELIABILITY.md that nothing here measures, and why.
LEFT_OUT = {
    "X2": "there is no such line",
    "X15": "a failover: Seawall speaks to one server, and refuses a replica",
}

#: Measures that are played only when they are named: no line of RELIABILITY.md, and minutes long.
BY_NAME = frozenset({"MEM"})


@dataclass(frozen=True)
class Figure:
    what: str
    stock: str
    """What the stock stack did, in RELIABILITY.md's words."""
    promise: str
    ours: str
    met: bool


@dataclass(frozen=True)
class Row:
    """A figure by the measure that found it."""

    id: str
    figure: Figure

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, **asdict(self.figure)}


@dataclass(frozen=True)
class Measure:
    id: str
    play: Callable[[Stand], Iterator[Figure]]

    def rows(self, stand: Stand) -> list[Row]:
        """Whatever goes wrong in it is a promise that was not kept, after what it had found by then."""
        found: list[Row] = []
        try:
            for figure in self.play(stand):
                found.append(Row(self.id, figure))
        except Exception as error:
            words = (str(error).splitlines() or [""])[0][:80]
            found.append(
                Row(self.id, Figure("comes to its end", "-", "yes", f"{type(error).__name__}: {words}", False))
            )
        return found


#: Measures by their ids, as far as their modules are imported; see `every`.
REGISTERED: dict[str, Measure] = {}


def measure(id: str) -> Callable[[Callable[[Stand], Iterator[Figure]]], Callable[[Stand], Iterator[Figure]]]:
    """Have the function play this line of RELIABILITY.md, on a stand of its own; it yields figures."""

    def register(play: Callable[[Stand], Iterator[Figure]]) -> Callable[[Stand], Iterator[Figure]]:
        REGISTERED[id] = Measure(id, play)
        return play

    return register


def at_most(what: str, value: float, promised: float, *, stock: str, unit: str = "s", shown: str = "") -> Figure:
    """Kept when the value is no more than promised. `shown` says more than the value alone."""
    return Figure(
        what, stock, f"<= {promised:g} {unit}".rstrip(), shown or f"{_short(value)} {unit}".rstrip(), value <= promised
    )


def exactly(what: str, value: object, promised: object, *, stock: str) -> Figure:
    return Figure(what, stock, str(promised), str(value), value == promised)


def percentiles(seconds: Sequence[float]) -> tuple[float, str]:
    """The 95th percentile in milliseconds, and in words: median, that one, the longest."""
    p95 = statistics.quantiles(seconds, n=20)[-1] if len(seconds) > 1 else seconds[0]
    three = (statistics.median(seconds), min(p95, max(seconds)), max(seconds))
    return three[1] * 1000, " / ".join(_short(each * 1000) for each in three) + " ms"


def show(rows: Sequence[Row]) -> str:
    """The table, for people."""
    heads = ("id", "what", "stock", "promise", "ours", "")
    lines = [(r.id, r.figure.what, r.figure.stock, r.figure.promise, r.figure.ours, _verdict(r.figure)) for r in rows]
    wide = [max(len(line[column]) for line in (heads, *lines)) for column in range(len(heads))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, wide, strict=True)).rstrip()
        for line in (heads, tuple("-" * width for width in wide), *lines)
    )


def _verdict(figure: Figure) -> str:
    return "met" if figure.met else "NOT MET"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.2f}" if value < 10 else f"{value:.1f}"
