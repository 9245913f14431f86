"""One alert per outage however it flaps, one per queue that grows, one a minute for dead letters; nothing twice."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from seawall.supervisor.alert_words import Alert, as_json
from seawall.supervisor.alerting import DEAD_WINDOW, Rules, Sight, State, Transition, judge

T0 = 1_700_000_000.0
SETTLE = 10.0
RULES = Rules(settle=SETTLE, queue_age=60.0, queue_depth=100, silent=frozenset({"self"}))


@dataclass
class World:
    """Services as a broker would show them, and a leader that may be another one in every round."""

    rules: Rules = RULES
    now: float = T0
    state: State = field(default_factory=State)
    sights: dict[str, Sight] = field(default_factory=dict)
    told: list[Alert] = field(default_factory=list)
    _news: list[Transition] = field(default_factory=list)
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _began: dict[str, float] = field(default_factory=dict)

    def service(self, key: str, **facts: object) -> None:
        sight = self.sights.get(key) or Sight(name=key.capitalize())
        self.sights[key] = msgspec.structs.replace(sight, **facts)

    def becomes(self, key: str, state: str, why: str = "refused") -> None:
        if self.sights.get(key, Sight(name=key)).state == "closed":
            self._began[key] = self.now
        began = self._began[key]
        self._news.append(
            Transition(id=f"{next(self._ids):08d}", at=self.now, service=key, to=state, began=began, why=why)
        )
        opened_at = 0.0 if state == "closed" else began
        self.service(key, state=state, opened_at=opened_at, changed_at=self.now, why=why)

    def passes(self, seconds: float, *, step: float = 1.0) -> list[Alert]:
        """Rounds in steps; the alerts of this time."""
        before, ends = len(self.told), self.now + seconds
        while self.now < ends:
            self.now = min(ends, self.now + step)
            self.round()
        return self.told[before:]

    def round(self) -> list[Alert]:
        """The state goes through the store each time."""
        stored = msgspec.json.decode(msgspec.json.encode(self.state), type=State)
        judged = judge(stored, self._news, self.sights, self.rules, self.now)
        self._news = []
        self.told += judged.outbox
        self.state = msgspec.structs.replace(judged, outbox=())
        return list(judged.outbox)


def ready(rules: Rules = RULES, *keys: str) -> World:
    world = World(rules)
    for key in keys or ("chroma",):
        world.service(key)
    assert world.round() == []
    return world


def kinds(alerts: Sequence[Alert]) -> list[str]:
    return [alert.kind for alert in alerts]


def test_an_outage_has_an_alert_at_its_beginning_and_one_when_it_is_over() -> None:
    world = ready()
    world.becomes("chroma", "open", "Connection refused")
    (opened,) = world.round()
    world.service("chroma", held=1204)
    assert world.passes(60) == []
    world.becomes("chroma", "half_open")
    world.becomes("chroma", "closed")
    world.service("chroma", held=0)
    (closed,) = world.passes(30)
    assert (opened.kind, closed.kind) == ("open", "close")
    assert opened.summary == "Chroma is down: its circuit breaker opened (Connection refused)"
    assert closed.summary == "Chroma is back after 1 min 0 s, 1,204 calls waited for it"
    assert closed.at == T0 + 60 + SETTLE
    outage = as_json(closed)["outage"]
    assert (outage["seconds"], outage["held"], outage["why"]) == (60.0, 1204, "Connection refused")
    assert as_json(opened)["outage"]["ended"] is None


def test_a_breaker_that_flaps_is_one_outage() -> None:
    world = ready()
    world.becomes("chroma", "open")
    for _ in range(5):
        world.passes(5)
        world.becomes("chroma", "half_open")
        world.becomes("chroma", "closed")
        world.passes(SETTLE - 1)
        world.becomes("chroma", "open")
    world.becomes("chroma", "half_open")
    world.becomes("chroma", "closed")
    world.passes(60)
    assert kinds(world.told) == ["open", "close"]


def test_an_outage_that_was_over_is_followed_by_another_one() -> None:
    world = ready()
    for _ in range(2):
        world.becomes("chroma", "open")
        world.passes(5)
        world.becomes("chroma", "closed")
        world.passes(SETTLE + 1)
    assert kinds(world.told) == ["open", "close"] * 2
    assert len({alert.id for alert in world.told}) == 4


def test_what_was_missed_while_nobody_led_is_made_up_for() -> None:
    """Two outages in the time of no leader are two of each; the third one goes on."""
    world = ready()
    for _ in range(2):
        world.becomes("chroma", "open")
        world.now += 60
        world.becomes("chroma", "closed")
        world.now += 60
    world.becomes("chroma", "open")
    world.now += 60
    assert kinds(world.round()) == ["open", "close", "open", "close", "open"]


def test_the_first_leader_tells_of_an_outage_that_it_finds() -> None:
    world = World()
    world.service("chroma", state="open", opened_at=T0 - 300, changed_at=T0 - 20, why="Timeout")
    (alert,) = world.round()
    assert (alert.kind, alert.outage and alert.outage.began) == ("open", T0 - 300)


def test_a_record_is_believed_where_the_stream_was_silent() -> None:
    """An older release makes its changes without it."""
    world = ready()
    world.service("chroma", state="open", opened_at=T0, changed_at=T0, why="Timeout")
    assert kinds(world.passes(5)) == ["open"]
    world.service("chroma", state="closed", opened_at=0.0, changed_at=world.now)
    assert kinds(world.passes(30)) == ["close"]
    assert world.told[1].outage is not None
    assert world.told[1].outage.ended == T0 + 5


def test_a_record_that_is_ahead_of_the_stream_is_not_believed_yet() -> None:
    """Between the reading of the stream and the look a breaker may change; the next reading tells of it."""
    world = ready(replace(RULES, settle=0.0))
    world.becomes("chroma", "open")
    world.round()
    world.now += 60
    world.becomes("chroma", "half_open")
    world.becomes("chroma", "closed")
    late, world._news = world._news, []
    assert world.passes(1) == []
    world._news = late
    assert kinds(world.passes(10)) == ["close"]


def test_a_service_that_is_forgotten_ends_its_outage() -> None:
    world = ready()
    world.becomes("chroma", "open")
    world.round()
    del world.sights["chroma"]
    assert kinds(world.passes(30)) == ["close"]


def test_the_slow_start_of_the_service_is_waited_for_unless_settings_say_otherwise() -> None:
    world = ready(replace(RULES, settle=None))
    world.service("chroma", slow_start=40.0)
    world.becomes("chroma", "open")
    world.passes(5)
    world.becomes("chroma", "closed")
    assert world.passes(39) == []
    assert kinds(world.passes(2)) == ["close"]


def test_only_what_was_asked_for_is_told_and_nothing_of_the_webhook_itself() -> None:
    world = ready(replace(RULES, on=frozenset({"close"})), "chroma", "self")
    for key in ("chroma", "self"):
        world.becomes(key, "open")
    world.passes(5)
    for key in ("chroma", "self"):
        world.becomes(key, "closed")
        world.service(key, waiting=1000, dead={"expired": 3})
    assert [(alert.kind, alert.service) for alert in world.passes(60)] == [("close", "chroma")]


def test_a_queue_is_told_of_once_until_it_was_fine_again() -> None:
    world = ready()
    for waiting, expected in ((99, 0), (100, 1), (500, 0), (90, 0), (120, 0), (79, 0), (100, 1)):
        world.service("chroma", waiting=waiting)
        assert kinds(world.round()) == ["queue_depth"] * expected, waiting
    assert world.told[0].summary == "Chroma falls behind: 100 calls wait, the limit is 100"


def test_the_age_of_calls_that_an_outage_holds_is_no_news() -> None:
    world = ready()
    world.becomes("chroma", "open")
    world.service("chroma", oldest=600.0, waiting=3)
    assert kinds(world.passes(60)) == ["open"]
    world.becomes("chroma", "closed")
    assert kinds(world.passes(SETTLE + 1)) == ["close", "queue_age"]
    assert world.told[-1].summary == "Chroma falls behind: its oldest call has waited for 10 min 0 s, 3 wait"


def test_dead_letters_are_gathered_and_told_of_once_a_minute() -> None:
    world = ready()
    world.service("chroma", dead={"expired": 2})
    world.passes(3)
    world.service("chroma", dead={"expired": 9, "poison": 1})
    (first,) = world.passes(20)
    world.service("chroma", dead={"expired": 10, "poison": 1})
    (second,) = world.passes(120)
    assert as_json(first)["dead"] == {"count": 10, "reasons": {"expired": 9, "poison": 1}}
    assert first.summary == "Chroma has 10 new dead letters (9 expired, 1 poison)"
    assert as_json(second)["dead"] == {"count": 1, "reasons": {"expired": 1}}
    assert second.at - first.at >= DEAD_WINDOW


def test_few_dead_letters_are_no_alert_and_old_ones_no_news() -> None:
    world = World(replace(RULES, dead=5))
    world.service("chroma", dead={"expired": 1000})
    world.passes(30)
    for count in range(1, 20):  # one each half a minute: never five within one
        world.service("chroma", dead={"expired": 1000 + count})
        world.passes(30)
    assert world.told == []
    world.service("chroma", dead={"expired": 1024})
    assert kinds(world.passes(10)) == ["dead"]


FLAPS = st.lists(
    st.tuples(
        st.sampled_from(("chroma", "git")),
        st.sampled_from(("open", "half_open", "closed")),
        st.sampled_from((0.5, 2.0, 9.0, 11.0, 45.0)),
        st.integers(0, 50),
    ),
    max_size=40,
)


def played(flaps: Sequence[tuple[str, str, float, int]], step: float) -> World:
    """A leader that looks every `step` seconds; at the end everything is closed for long."""
    world = ready(RULES, "chroma", "git")
    for key, state, gap, held in flaps:
        before = world.sights[key].state
        allowed = {"closed": {"open"}, "open": {"half_open", "closed"}, "half_open": {"open", "closed"}}[before]
        if state in allowed:
            world.becomes(key, state)
        world.service(key, held=held if world.sights[key].state != "closed" else 0)
        world.passes(gap, step=step)
    for key in world.sights:
        if world.sights[key].state != "closed":
            world.becomes(key, "closed")
            world.service(key, held=0)
    world.passes(3 * SETTLE, step=step)
    return world


@given(FLAPS)
def test_alerts_of_a_service_are_open_and_close_in_turn_and_outages_are_apart(
    flaps: Sequence[tuple[str, str, float, int]],
) -> None:
    world = played(flaps, 1.0)
    assert len({alert.id for alert in world.told}) == len(world.told)
    for key in world.sights:
        told = [alert for alert in world.told if alert.service == key]
        assert kinds(told) == ["open", "close"] * (len(told) // 2)
        outages = [alert.outage for alert in told if alert.kind == "close" and alert.outage]
        assert all(outage.began <= outage.ended for outage in outages)
        assert all(later.began - earlier.ended >= SETTLE for earlier, later in itertools.pairwise(outages))
    assert world.state.outages == {}


@given(FLAPS, st.sampled_from((0.25, 3.0, 7.0, 100.0)))
def test_how_often_a_leader_looks_changes_no_outage(flaps: Sequence[tuple[str, str, float, int]], step: float) -> None:
    """Nor does a time without any leader: the stream has every change."""

    def outages(world: World) -> list[tuple[str, float, float]]:
        return sorted((a.service, a.outage.began, a.outage.ended) for a in world.told if a.kind == "close" and a.outage)

    often, rarely = played(flaps, 1.0), played(flaps, step)
    assert outages(often) == outages(rarely)
    assert sorted(a.id for a in often.told) == sorted(a.id for a in rarely.told)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from((1.0, 5.0, 70.0))), max_size=40))
def test_every_dead_letter_is_in_one_alert_and_alerts_are_a_minute_apart(
    deaths: Sequence[tuple[int, int, float]],
) -> None:
    world = ready()
    total = {"expired": 0, "poison": 0}
    for expired, poison, gap in deaths:
        total = {"expired": total["expired"] + expired, "poison": total["poison"] + poison}
        world.service("chroma", dead=total)
        world.passes(gap, step=min(gap, 5.0))
    world.passes(3 * DEAD_WINDOW, step=5.0)
    assert summed(world.told) == {reason: count for reason, count in total.items() if count}
    assert all(later.at - earlier.at >= DEAD_WINDOW for earlier, later in itertools.pairwise(world.told))


def summed(alerts: Sequence[Alert]) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for alert in alerts:
        assert alert.dead is not None
        assert sum(alert.dead.reasons.values()) == alert.dead.count
        for reason, count in alert.dead.reasons.items():
            found[reason] = found.get(reason, 0) + count
    return found


@given(st.lists(st.integers(0, 200), max_size=60))
def test_a_queue_has_an_alert_for_each_time_it_was_fine_and_then_was_not(depths: Sequence[int]) -> None:
    world, expected, fine = ready(), 0, True
    for depth in depths:
        world.service("chroma", waiting=depth)
        world.round()
        if depth >= 100 and fine:
            expected, fine = expected + 1, False
        fine = fine or depth < 80
    assert kinds(world.told) == ["queue_depth"] * expected


def test_the_age_of_a_paused_services_queue_is_no_news() -> None:
    world = ready()
    world.service("chroma", paused=True, oldest=500.0, waiting=150)
    assert kinds(world.round()) == ["queue_depth"]
    world.service("chroma", paused=False)
    assert kinds(world.round()) == ["queue_age"]
