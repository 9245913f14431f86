"""Every measure; importing the modules registers them."""

from __future__ import annotations

from tests.measures import breakers, broker, deaths, hosts, http, idle, memory, outages, supervisors, waiting
from tests.measures.figures import REGISTERED, Measure

__all__ = ["MEASURES"]

_SUBJECTS = (breakers, broker, deaths, hosts, http, idle, memory, outages, supervisors, waiting)


def _in_order(id: str) -> tuple[str, int]:
    """B before X, by number, and what RELIABILITY.md has no line for at the end."""
    return ("Z", 0) if not id[1:].isdigit() else (id[0], int(id[1:]))


#: By id, in RELIABILITY.md's order.
MEASURES: dict[str, Measure] = {id: REGISTERED[id] for id in sorted(REGISTERED, key=_in_order)}
