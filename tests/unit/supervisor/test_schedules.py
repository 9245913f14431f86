"""What the leader does at a schedule's tick, with a store, a scheduler and a clock that a test moves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import pytest
from redis.exceptions import ResponseError

from seawall.errors import BrokerUnavailable, QueueFull
from seawall.supervisor.schedules import AGAIN_SECONDS, RETRY_SECONDS, Schedules
from seawall.ticks import Every, Ticks
from tests.support.clock import FixedClock
from tests.unit.supervisor.conftest import STOPPED_AT, logged

pytestmark = pytest.mark.usefixtures("stopped_clock")

#: Half a minute after a minute: it ticks at 30, 90, 150 ... seconds from here.
START = 1_000_000_050.0
MINUTE = Every(60)
LOGGER = "seawall.supervisor"


class Store:
    """What the broker keeps: the last tick accepted of each schedule. Can be away, or full for a schedule."""

    def __init__(self, clock: FixedClock) -> None:
        self.clock = clock
        self.accepted: list[tuple[str, float]] = []
        self.asked = 0
        self.away: Exception | None = None
        self.refuses: dict[str, Exception] = {}
        self.loses_answers = False
        self._last: dict[str, float] = {}

    def last(self, names: Sequence[str]) -> dict[str, float]:
        self.asked += 1
        self._reach()
        return {name: self._last.setdefault(name, self.clock.time()) for name in names}

    def enqueue(self, name: str, tick: float) -> None:
        self._reach()
        if name in self.refuses:
            raise self.refuses[name]
        if tick > self._last.get(name, 0.0):
            self._last[name] = tick
            self.accepted.append((name, tick - START))
        if self.loses_answers:
            raise BrokerUnavailable("the answer did not come", written=True)

    def _reach(self) -> None:
        if self.away is not None:
            raise self.away


class Timers:
    """One timer, on the test's clock; `pass_time` runs it as often as it is due."""

    def __init__(self, clock: FixedClock) -> None:
        self.clock = clock
        self.due: float | None = None
        self.run: Callable[[], None] = lambda: None

    def add_job(self, do: Callable[[], None], trigger: str, *, run_date: datetime, id: str, **_: Any) -> None:
        seconds = max(0.0, run_date.timestamp() - STOPPED_AT)
        self.due, self.run = self.clock.time() + round(seconds, 2), do

    def get_job(self, id: str) -> float | None:
        return self.due

    def remove_job(self, id: str) -> None:
        self.due = None

    def pass_time(self, seconds: float) -> None:
        until = self.clock.time() + seconds
        while self.due is not None and self.due <= until:
            self.clock.advance(max(0.0, self.due - self.clock.time()))
            self.fire()
        self.clock.advance(until - self.clock.time())

    def fire(self) -> None:
        self.due = None
        self.run()


class House:
    def __init__(self, **declared: Ticks) -> None:
        self.clock = FixedClock(START)
        self.store = Store(self.clock)
        self.declared = declared
        self.leads = True
        self.timers, self.schedules = self.leader()

    def leader(self) -> tuple[Timers, Schedules]:
        """One supervisor's timers and duty."""
        timers = Timers(self.clock)
        schedules = Schedules(
            timers,
            declared=lambda: self.declared,
            now=self.clock.time,
            last=self.store.last,
            enqueue=self.store.enqueue,
            leads=lambda: self.leads,
        )
        return timers, schedules

    def begun(self) -> House:
        self.schedules.start()
        self.timers.pass_time(0)
        return self

    def pass_time(self, seconds: float) -> list[tuple[str, float]]:
        """The ticks that were accepted meanwhile, in seconds since the start."""
        before = len(self.store.accepted)
        self.timers.pass_time(seconds)
        return self.store.accepted[before:]

    @property
    def timer(self) -> float | None:
        return None if self.timers.due is None else round(self.timers.due - self.clock.time(), 2)


@pytest.fixture
def house() -> House:
    return House(minutely=MINUTE).begun()


class TestInGoodTimes:
    def test_new_schedule_waits_for_its_next_tick(self, house: House) -> None:
        assert house.store.accepted == []
        assert house.timer == 30.0

    def test_each_tick_is_queued_when_it_comes(self, house: House) -> None:
        assert house.pass_time(29.9) == []
        assert house.pass_time(0.1) == [("minutely", 30.0)]
        assert house.pass_time(120) == [("minutely", 90.0), ("minutely", 150.0)]

    def test_one_timer_serves_all_schedules(self) -> None:
        house = House(minutely=MINUTE, often=Every(20)).begun()
        assert [name for name, _ in house.pass_time(60)].count("often") == 3
        assert [name for name, _ in house.store.accepted].count("minutely") == 1

    def test_without_schedules_nobody_is_asked(self) -> None:
        house = House().begun()
        assert house.timer is None
        assert house.store.asked == 0

    def test_schedule_that_is_declared_later_is_found_by_the_next_look(self) -> None:
        house = House().begun()
        house.declared["late"] = Every(20)
        house.begun()
        assert len(house.pass_time(20)) == 1

    def test_schedule_that_never_comes_again_needs_no_timer(self) -> None:
        class Once:
            def after(self, moment: float) -> float | None:
                return START + 5 if moment < START + 5 else None

            def latest(self, now: float, *, after: float) -> float | None:
                return START + 5 if after < START + 5 <= now else None

        house = House(once=Once()).begun()
        assert house.pass_time(10) == [("once", 5.0)]
        assert house.timer is None


class TestMissedTicks:
    def test_new_leader_queues_the_latest_and_only_that(self, house: House) -> None:
        house.schedules.stop()
        assert house.pass_time(600) == []
        timers, successor = house.leader()
        successor.start()
        timers.pass_time(0)
        assert house.store.accepted == [("minutely", 570.0)]
        successor.start()
        timers.pass_time(0)
        assert len(house.store.accepted) == 1

    def test_late_timer_is_one_call_and_one_line(self, house: House, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, LOGGER)
        house.clock.advance(617)
        house.timers.fire()
        assert len(house.store.accepted) == 1
        (line,) = (record.getMessage() for record in logged(caplog, LOGGER))
        assert line.startswith("schedule minutely: the tick of 2001-09-09 01:")
        assert line.endswith("s late, for all that were missed")

    def test_second_leader_queues_nothing_twice(self, house: House) -> None:
        timers, other = house.leader()
        other.start()
        for _ in range(5):
            house.timers.pass_time(0)
            timers.pass_time(0)
            house.clock.advance(60)
            timers.fire()
            house.timers.fire()
        assert len(house.store.accepted) == len(set(house.store.accepted)) == 5


class TestWhoDoesNotLead:
    def test_queues_nothing_and_looks_again(self, house: House) -> None:
        """As after a pause that was longer than the lease: the timers fire before the lease is renewed."""
        house.leads = False
        assert house.pass_time(60) == []
        assert house.timer is not None
        assert house.timer <= RETRY_SECONDS
        house.leads = True
        assert len(house.pass_time(RETRY_SECONDS)) == 1

    def test_asks_before_every_call(self) -> None:
        house = House(one=Every(60), other=Every(60)).begun()
        first = house.store.enqueue

        def and_lose_the_lead(name: str, tick: float) -> None:
            first(name, tick)
            house.leads = False

        house.schedules._enqueue = and_lose_the_lead
        assert [name for name, _ in house.pass_time(60)] == ["one"]

    def test_stop_takes_the_timer_away(self, house: House) -> None:
        house.schedules.stop()
        house.schedules.stop()
        assert house.timer is None
        house.timers.fire()
        assert house.store.accepted == []

    def test_stop_is_safe_before_start(self) -> None:
        House(minutely=MINUTE).schedules.stop()


class TestWhatGoesWrong:
    @pytest.mark.parametrize("error", [BrokerUnavailable("connection refused"), ResponseError("LOADING")])
    def test_broker_that_is_away_is_asked_again_and_told_once(
        self, house: House, caplog: pytest.LogCaptureFixture, error: Exception
    ) -> None:
        house.store.away = error
        assert house.pass_time(130) == []
        house.store.away = None
        assert len(house.pass_time(RETRY_SECONDS)) == 1
        told = logged(caplog, LOGGER)
        began, over = (record.getMessage() for record in told if record.levelno == logging.WARNING)
        assert began.startswith("the broker (schedules) is away, trying again until it is back")
        assert over.startswith("the broker (schedules) is back after")

    def test_answer_that_was_lost_queues_nothing_twice(self, house: House) -> None:
        house.store.loses_answers = True
        assert len(house.pass_time(60 + RETRY_SECONDS)) == 1
        house.store.loses_answers = False
        assert house.pass_time(RETRY_SECONDS * 2) == []

    def test_full_queue_is_told_once_and_tried_again(self, house: House, caplog: pytest.LogCaptureFixture) -> None:
        house.store.refuses["minutely"] = QueueFull("the queue is full")
        house.pass_time(60 + 2 * AGAIN_SECONDS)
        (line,) = (record.getMessage() for record in logged(caplog, LOGGER))
        assert "was not queued, it is tried again until the next one: the queue is full" in line
        del house.store.refuses["minutely"]
        assert len(house.pass_time(AGAIN_SECONDS)) == 1

    def test_next_tick_takes_the_place_of_one_that_found_no_room(
        self, house: House, caplog: pytest.LogCaptureFixture
    ) -> None:
        house.store.refuses["minutely"] = QueueFull("the queue is full")
        house.pass_time(120)
        assert len(logged(caplog, LOGGER)) == 2
        del house.store.refuses["minutely"]
        assert house.pass_time(AGAIN_SECONDS) == [("minutely", 90.0)]

    def test_full_queue_is_not_hammered_by_other_schedules(self) -> None:
        house = House(full=MINUTE, often=Every(1)).begun()
        tried: list[str] = []
        enqueue = house.store.enqueue

        def noted(name: str, tick: float) -> None:
            tried.append(name)
            enqueue(name, tick)

        house.schedules._enqueue = noted
        house.store.refuses["full"] = QueueFull("the queue is full")
        house.pass_time(30 + 11)
        assert tried.count("full") == 3
        assert tried.count("often") > 11

    def test_call_that_cannot_be_made_stops_no_other(self, caplog: pytest.LogCaptureFixture) -> None:
        house = House(broken=MINUTE, sound=MINUTE).begun()
        house.store.refuses["broken"] = ZeroDivisionError("a bug")
        assert [name for name, _ in house.pass_time(120)] == ["sound", "sound"]
        told = logged(caplog, LOGGER)
        assert [record.levelname for record in told] == ["ERROR", "ERROR"]
        assert told[0].exc_info is not None

    def test_ticks_that_cannot_be_computed_stop_no_other(self, caplog: pytest.LogCaptureFixture) -> None:
        class Broken:
            def after(self, moment: float) -> float | None:
                raise OverflowError("date value out of range")

            def latest(self, now: float, *, after: float) -> float | None:
                raise OverflowError("date value out of range")

        house = House(broken=Broken(), sound=MINUTE).begun()
        assert [name for name, _ in house.pass_time(60)] == ["sound"]
        assert "schedule broken could not be looked at" in caplog.text

    def test_bug_on_the_way_is_survived(self, house: House, caplog: pytest.LogCaptureFixture) -> None:
        house.store.away = ZeroDivisionError("a bug")
        assert house.pass_time(61) == []
        house.store.away = None
        assert len(house.pass_time(AGAIN_SECONDS)) == 1
        assert "schedules could not be looked at" in caplog.text

    def test_tick_that_an_open_breaker_skipped_is_settled(self, house: House) -> None:
        """The store knows nothing of it: the call was never put."""
        offered: list[float] = []
        house.schedules._enqueue = lambda name, tick: offered.append(tick)
        house.pass_time(60)
        house.schedules.start()
        house.pass_time(10)
        assert len(offered) == 1


def test_rounds_do_not_overlap(house: House) -> None:
    """A round that hangs holds up none of the scheduler's threads; it sets the timer when it ends."""
    rounds = 0

    def while_the_round_runs(name: str, tick: float) -> None:
        nonlocal rounds
        rounds += 1
        house.schedules._round()

    house.schedules._enqueue = while_the_round_runs
    house.pass_time(60)
    assert rounds == 1
    assert house.timer is not None
