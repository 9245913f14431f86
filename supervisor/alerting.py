"""When an operator is told, and of what: `judge(state, news, sights, rules, now) -> state`. No I/O, no clock, no locks.

An outage begins when a breaker opens, and is over when it has stayed closed for `settle` seconds: one that flaps in
between is the same outage, with one alert at its beginning and one at its end. A queue is told of once, until it has
been well below its limit again. Dead letters are gathered, and told of once a minute at the most.

All times are seconds on the store's clock. The state holds what was seen and the alerts that are still to be delivered
(`outbox`): whoever stores it before delivering them neither misses nor repeats one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from seawall.alert_settings import ALERT_KINDS
from seawall.supervisor.alert_words import Alert, DeadLetters, Outage, Queue, summary_of
from seawall.supervisor.breaker_events import DEFAULT_SLOW_START

__all__ = ["Rules", "Sight", "State", "Transition", "judge"]

#: Seconds for which a breaker must have stayed closed, of a service that does not say how long it starts slowly.
DEFAULT_SETTLE = DEFAULT_SLOW_START
#: Share of its limit below which a queue must fall before it is told of again.
FINE_BELOW = 0.8
#: Seconds in which dead letters are counted together, and between two alerts about those of a service.
DEAD_WINDOW = 60.0
#: Seconds for which the first dead letters wait for more of their kind.
GATHER_SECONDS = 5.0
#: Seconds after which a breaker's record is believed where the stream of transitions said nothing: it was trimmed, or
#: an older release, which knows no stream, made the change.
STREAM_LATENESS = 3.0


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a breaker's state. `began` is when its outage began, 0 where that is not known."""

    id: str
    """The id of its entry in the stream."""
    at: float
    service: str
    to: str
    began: float = 0.0
    why: str = ""


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """One service as it was found: its breaker's record, its queues, and how many dead letters it ever had, by reason."""

    name: str
    state: str = "closed"
    opened_at: float = 0.0
    changed_at: float = 0.0
    why: str = ""
    slow_start: float = DEFAULT_SETTLE
    waiting: int = 0
    """Calls that are ready, held ones too."""
    paused: bool = False
    """Somebody holds its background calls by hand."""
    held: int = 0
    oldest: float = 0.0
    """Seconds for which the oldest of them has been ready."""
    dead: Mapping[str, int] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is worth an alert. A limit that is None is none; without a `settle` (seconds) it is the service's slow start.

    `dead` is the number of new dead letters within a minute. `silent` are services that are never told of.
    """

    on: frozenset[str] = frozenset(ALERT_KINDS)
    queue_age: float | None = None
    queue_depth: int | None = None
    dead: int = 1
    settle: float | None = None
    silent: frozenset[str] = frozenset()


class Growth(msgspec.Struct, frozen=True, array_like=True):
    """New dead letters that were found at one time."""

    at: float
    reasons: dict[str, int]


class Deaths(msgspec.Struct, frozen=True, omit_defaults=True):
    """The dead letters of a service: the counts that were seen, and those that were not told of yet."""

    seen: dict[str, int] = msgspec.field(default_factory=dict)
    untold: tuple[Growth, ...] = ()
    quiet_until: float = 0.0


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is remembered from one round to the next, and from one leader to the next."""

    after: str = ""
    """The id of the last transition that was handled."""
    looked: bool = False
    """Whether there was a round before: what the first one finds in the dead letters is no news."""
    outages: dict[str, Outage] = msgspec.field(default_factory=dict)
    high: tuple[str, ...] = ()
    """Queues that were told of and are not well again: `<kind> <service>`."""
    deaths: dict[str, Deaths] = msgspec.field(default_factory=dict)
    outbox: tuple[Alert, ...] = ()

    @property
    def is_watchful(self) -> bool:
        """Something is under way that deserves a look in every round."""
        return bool(self.outages) or any(deaths.untold for deaths in self.deaths.values())


def judge(state: State, news: Iterable[Transition], sights: Mapping[str, Sight], rules: Rules, now: float) -> State:
    """The state after these transitions, oldest first, and after a look at every service."""
    round = _Round(state, sights, rules, now)
    for one in news:
        round.after = one.id
        if one.service not in rules.silent:
            round.follow(one)
    for key, sight in sights.items():
        if key not in rules.silent:
            round.look_at(key, sight)
    round.end_outages()
    high = tuple(sorted(name for name in round.high if name.partition(" ")[2] in sights))
    return State(round.after, True, round.outages, high, round.deaths, tuple(round.outbox))


@dataclass(slots=True)
class _Round:
    """One judgement under way: copies of the state's parts, to be changed."""

    state: State
    sights: Mapping[str, Sight]
    rules: Rules
    now: float
    after: str = ""
    outages: dict[str, Outage] = field(default_factory=dict)
    high: set[str] = field(default_factory=set)
    deaths: dict[str, Deaths] = field(default_factory=dict)
    outbox: list[Alert] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.after, self.outages, self.high = self.state.after, dict(self.state.outages), set(self.state.high)
        self.deaths, self.outbox = dict(self.state.deaths), list(self.state.outbox)

    def follow(self, news: Transition) -> None:
        """A breaker has changed its state."""
        outage = self.outages.get(news.service)
        if news.to == "closed":
            if outage is not None and not outage.ended:
                self.outages[news.service] = msgspec.structs.replace(outage, ended=news.at)
            return
        if outage is not None and outage.ended and news.at - outage.ended >= outage.settle:
            self._ends(news.service, outage)
            outage = None
        if outage is None:
            self._begins(news)
        elif outage.ended:
            self.outages[news.service] = msgspec.structs.replace(outage, ended=0.0)

    def look_at(self, key: str, sight: Sight) -> None:
        self._believe_the_record(key, sight)
        outage = self.outages.get(key)
        if outage is not None:
            settle = self.rules.settle if self.rules.settle is not None else sight.slow_start or DEFAULT_SETTLE
            held = max(outage.held, sight.held)
            self.outages[key] = msgspec.structs.replace(outage, settle=settle, held=held)
        if outage is None and not sight.paused:  # its age would only say how long the outage, or the pause, lasts
            self._look_at_queue("queue_age", key, sight, sight.oldest, self.rules.queue_age)
        self._look_at_queue("queue_depth", key, sight, sight.waiting, self.rules.queue_depth)
        self._look_at_dead_letters(key, sight)

    def end_outages(self) -> None:
        """Those whose breaker has stayed closed for long enough, or is not known any more."""
        for key, outage in list(self.outages.items()):
            if key not in self.sights and not outage.ended:
                outage = self.outages[key] = msgspec.structs.replace(outage, ended=self.now)
            if outage.ended and self.now - outage.ended >= outage.settle:
                self._ends(key, outage)

    def _believe_the_record(self, key: str, sight: Sight) -> None:
        outage = self.outages.get(key)
        under_way = outage is not None and not outage.ended
        is_open = sight.state != "closed"
        if is_open is under_way or self.now - sight.changed_at < STREAM_LATENESS:
            return
        changed_at = sight.changed_at or self.now
        self.follow(
            Transition(id=self.after, at=changed_at, service=key, to=sight.state, began=sight.opened_at, why=sight.why)
        )

    def _begins(self, news: Transition) -> None:
        settle = DEFAULT_SETTLE if self.rules.settle is None else self.rules.settle
        outage = Outage(began=news.began or news.at, why=news.why, settle=settle)
        self.outages[news.service] = outage
        self._tell("open", news.service, outage.began, outage=outage)

    def _ends(self, key: str, outage: Outage) -> None:
        del self.outages[key]
        self._tell("close", key, outage.began, outage=outage)

    def _look_at_queue(self, kind: str, key: str, sight: Sight, value: float, limit: float | None) -> None:
        name = f"{kind} {key}"
        if limit is None or value < limit * FINE_BELOW:
            self.high.discard(name)
        elif value >= limit and name not in self.high:
            self.high.add(name)
            self._tell(kind, key, self.now, queue=Queue(sight.waiting, round(sight.oldest, 1), limit))

    def _look_at_dead_letters(self, key: str, sight: Sight) -> None:
        known = self.deaths.get(key, Deaths())
        grown = {reason: count - known.seen.get(reason, 0) for reason, count in sight.dead.items()}
        grown = {reason: count for reason, count in grown.items() if count > 0 and self.state.looked}
        untold = (*known.untold, Growth(self.now, grown)) if grown else known.untold
        quiet_until = known.quiet_until
        total = sum(sum(growth.reasons.values()) for growth in untold)
        if total >= self.rules.dead and self.now >= max(quiet_until, untold[0].at + GATHER_SECONDS):
            self._tell("dead", key, self.now, dead=DeadLetters(total, _summed(untold)))
            untold, quiet_until = (), self.now + DEAD_WINDOW
        if self.now >= quiet_until:
            untold = tuple(growth for growth in untold if self.now - growth.at < DEAD_WINDOW)
        if sight.dead or known.seen:
            self.deaths[key] = Deaths(
                dict(sight.dead), untold, quiet_until if untold or quiet_until > self.now else 0.0
            )

    def _tell(
        self,
        kind: str,
        key: str,
        of: float,
        *,
        outage: Outage | None = None,
        queue: Queue | None = None,
        dead: DeadLetters | None = None,
    ) -> None:
        """`of` is the time that tells this alert from others of its kind and service."""
        if kind not in self.rules.on:
            return
        sight = self.sights.get(key)
        alert = Alert(
            id=f"{key}.{kind}.{of * 1000:.0f}",
            kind=kind,
            service=key,
            service_name=sight.name if sight else key,
            at=self.now,
            outage=outage,
            queue=queue,
            dead=dead,
        )
        self.outbox.append(msgspec.structs.replace(alert, summary=summary_of(alert)))


def _summed(growths: Iterable[Growth]) -> dict[str, int]:
    reasons: dict[str, int] = {}
    for growth in growths:
        for reason, count in growth.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + count
    return reasons
