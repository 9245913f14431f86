"""What the page sees of the fleet and may do to it: callables that somebody who knows the other rooms hands over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["REASONS", "Desk", "Progress", "Wanted"]

#: What a call dies of (docs/background.md).
REASONS = (
    "expired",
    "failed",
    "malformed",
    "no actor",
    "outcome unknown",
    "poison",
    "rejected",
    "rounds used up",
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters are meant: these ids, or all that have this service and reason; empty leaves a thing open."""

    service: str = ""
    reason: str = ""
    ids: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.ids:
            return f"dead letter {self.ids[0]}" if len(self.ids) == 1 else f"{len(self.ids)} dead letters"
        of = f" of {self.service}" if self.service else ""
        why = f" with reason {self.reason}" if self.reason else ""
        return f"all dead letters{of}{why}"


@dataclass(slots=True)
class Progress:
    """How far a replay has come; `gone` letters were no longer there, `empty` ones hold no request and stay."""

    total: int = 0
    queued: int = 0
    gone: int = 0
    empty: int = 0

    @property
    def done(self) -> int:
        return self.queued + self.gone + self.empty


class Desk(Protocol):
    """Everything raises BrokerUnavailable while the broker is away, and ConfigurationError for a service that cannot be meant.

    The forms of what is read are those of `seawall status --json` and of docs/commands.md. Called on threads.
    """

    def fleet(self) -> dict[str, Any]: ...

    def fleet_and_outages(self) -> tuple[dict[str, Any], Sequence[Mapping[str, Any]]]:
        """Both, from one look; outages have the newest first."""
        ...

    def latest(self) -> tuple[dict[str, Any], Sequence[Mapping[str, Any]]] | None:
        """Both as they were last read, for whomever: page, metrics, status or health. Asks nobody."""
        ...

    def history(self) -> Mapping[str, Any]:
        """By service `step` in seconds and, step by step, `at`, `calls` and `failed`, for up to one hour."""
        ...

    def transitions(self) -> Sequence[Mapping[str, Any]]: ...

    def actions(self) -> Sequence[Mapping[str, Any]]: ...

    def exposition(self) -> str: ...

    def note(self, who: str, what: str, service: str, detail: str) -> None: ...

    def act(self, verb: str, key: str) -> None:
        """open, close or reset a breaker; pause or resume a background queue."""
        ...

    def letters(self, wanted: Wanted, limit: int) -> list[dict[str, Any]]:
        """At most `limit` of them, without secrets, as `seawall dead show` has them."""
        ...

    def replay(self, wanted: Wanted, rate: float, progress: Progress, stopped: Callable[[float], bool]) -> None:
        """Queue them again, `rate` a second, until the last one or until `stopped` says so, which may wait for so many seconds before.

        `progress` is true at any time.
        """
        ...

    def purge(self, wanted: Wanted) -> int:
        """Forget them for good; how many there were."""
        ...
