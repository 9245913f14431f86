"""What will go wrong, and when: a list of events that follows from a seed and a length, and from nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["CLIENTS", "SERVICES", "SUPERVISORS", "WORKERS", "Event", "Plan", "make_plan"]

SUPERVISORS = ("supervisor-1", "supervisor-2")
WORKERS = ("worker-1", "worker-2", "worker-3")
SERVICES = ("billing", "files", "search", "vector")
CLIENTS = ("client-1", "client-2", "client-3", "client-4")
#: Everybody who reaches Redis through a proxy of its own.
FLEET = (*SUPERVISORS, *WORKERS, *CLIENTS)

#: Seconds at the start and at the end without events: what is normal must be known, and everything needs time to begin.
CALM_START, CALM_END = 4.0, 1.0
#: Seconds between two events, on average. Their lengths make two or three of them hold at once.
PACE = 1.3
#: How a service may fail; see services.py. What opens its breaker comes more often.
MODES = ("error", "error", "hang", "hang", "flaky", "slow", "garbage", "drip")
#: Seconds by which a worker's clock may be off, either way.
SKEW = 120.0


@dataclass(frozen=True)
class Event:
    """From `at` for `length` seconds (both since the plan's start) `action` holds for `targets`.

    `amount` is the seconds of a delay or of a wrong clock; `mode` is a service's.
    """

    at: float
    length: float
    action: str
    targets: tuple[str, ...]
    amount: float = 0.0
    mode: str = ""

    def __str__(self) -> str:
        more = f" {self.mode}" if self.mode else f" {self.amount:+.2f} s" if self.amount else ""
        return f"{self.at:6.1f} {self.action} {' '.join(self.targets)}{more} for {self.length:.1f} s"


@dataclass(frozen=True)
class Plan:
    seed: int
    seconds: float
    events: tuple[Event, ...]


Choice = Callable[[random.Random], tuple[str, tuple[str, ...], float, float, str]]


def _one(action: str, names: Sequence[str], shortest: float, longest: float) -> Choice:
    return lambda dice: (action, (dice.choice(names),), dice.uniform(shortest, longest), 0.0, "")


def _redis(action: str, shortest: float, longest: float) -> Choice:
    return lambda dice: (action, ("redis",), dice.uniform(shortest, longest), 0.0, "")


def _network(action: str, shortest: float, longest: float) -> Choice:
    """For one process, for all of a kind, or for everybody."""
    groups = (*((name,) for name in FLEET), WORKERS, SUPERVISORS, CLIENTS, CLIENTS[:2], FLEET)
    return lambda dice: (action, dice.choice(groups), dice.uniform(shortest, longest), 0.0, "")


def _delay(dice: random.Random) -> tuple[str, tuple[str, ...], float, float, str]:
    action, targets, length, _, _ = _network("delay", 1.0, 6.0)(dice)
    return action, targets, length, 10 ** dice.uniform(-2.5, 0.2), ""


def _skew(dice: random.Random) -> tuple[str, tuple[str, ...], float, float, str]:
    return "skew", (dice.choice(WORKERS),), dice.uniform(2.0, 20.0), dice.uniform(-SKEW, SKEW), ""


def _mode(dice: random.Random) -> tuple[str, tuple[str, ...], float, float, str]:
    return "mode", (dice.choice(SERVICES),), dice.uniform(1.0, 12.0), 0.0, dice.choice(MODES)


#: What can happen, and how often compared with the others.
_CHOICES: tuple[tuple[int, Choice], ...] = (
    (8, _one("kill", WORKERS, 0.0, 5.0)),
    (4, _one("kill", SUPERVISORS, 0.0, 5.0)),
    (4, _one("kill", CLIENTS, 0.0, 2.0)),
    (4, _one("kill", SERVICES, 0.2, 6.0)),
    (3, _one("terminate", (*WORKERS, *SUPERVISORS), 0.0, 3.0)),
    (6, _one("stop", (*WORKERS, *SUPERVISORS), 0.5, 8.0)),
    (2, _one("stop", CLIENTS, 0.5, 8.0)),
    (2, _one("stop", SERVICES, 0.5, 8.0)),
    (3, _redis("kill", 0.2, 6.0)),
    (1, _redis("terminate", 0.2, 2.0)),
    (3, _redis("stop", 0.3, 5.0)),
    (2, _redis("fill", 1.0, 6.0)),
    (5, _network("cut", 0.0, 4.0)),
    (4, _network("silence", 0.3, 6.0)),
    (4, _network("lose", 0.0, 0.0)),
    (3, _network("swallow", 0.3, 4.0)),
    (5, _delay),
    (4, _skew),
    (18, _mode),
)


def make_plan(seed: int, seconds: float) -> Plan:
    """Events of `seconds` seconds, in order. No target has two of its own at once, so each ends as it began."""
    dice = random.Random(seed)
    weights, choices = zip(*_CHOICES, strict=True)
    busy: dict[tuple[str, str], float] = {}
    events: list[Event] = []
    at = CALM_START
    while (at := at + dice.expovariate(1 / PACE)) < seconds - CALM_END:
        action, targets, length, amount, mode = dice.choices(choices, weights)[0](dice)
        length = min(length, seconds - CALM_END - at)
        places = [("" if target == "redis" else _layer(action), target) for target in targets]
        if any(busy.get(place, 0.0) > at for place in places):
            continue
        busy |= dict.fromkeys(places, at + length)
        events.append(Event(round(at, 3), round(length, 3), action, targets, round(amount, 4), mode))
    return Plan(seed, seconds, tuple(events))


def _layer(action: str) -> str:
    """A process that is dead may have a bad network or clock as well, but cannot be stopped too."""
    if action in ("kill", "terminate", "stop"):
        return "process"
    return "network" if action in ("cut", "silence", "lose", "swallow", "delay") else action
