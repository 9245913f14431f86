"""One look at the fleet, shared by everybody who looks: read once a second at the most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from seawall.supervisor.page.desk import Desk

__all__ = ["Scene", "last_scene", "read_scene"]

#: Seconds between two looks at what is noted each ten seconds only.
HISTORY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Scene:
    """What was read at `at` (seconds since 1970, on the broker's clock); the lists have the newest first."""

    at: float
    fleet: Mapping[str, Any]
    history: Mapping[str, Any] = field(default_factory=dict)
    transitions: Sequence[Mapping[str, Any]] = ()
    outages: Sequence[Mapping[str, Any]] = ()
    actions: Sequence[Mapping[str, Any]] = ()
    history_at: float = 0.0

    def transitions_of(self, key: str) -> list[Mapping[str, Any]]:
        return [one for one in self.transitions if one["service"] == key]

    def outages_of(self, key: str) -> list[Mapping[str, Any]]:
        return [one for one in self.outages if one["service"] == key]


def read_scene(desk: Desk, before: Scene | None) -> Scene:
    """The fleet now. Raises BrokerUnavailable."""
    fleet, outages = desk.fleet_and_outages()
    at = float(fleet["as_of"])
    if before is not None and 0 <= at - before.history_at < HISTORY_SECONDS:
        history, history_at = before.history, before.history_at
    else:
        history, history_at = desk.history(), at
    return Scene(at, fleet, history, desk.transitions(), outages, desk.actions(), history_at)


def last_scene(desk: Desk, before: Scene | None) -> Scene | None:
    """What was last known, by whoever read the fleet last; its lists are those of the page's own last look."""
    if (latest := desk.latest()) is None:
        return before
    fleet, outages = latest
    at = float(fleet["as_of"])
    if before is None:
        return Scene(at, fleet, outages=outages)
    return replace(before, at=at, fleet=fleet, outages=outages) if at > before.at else before
