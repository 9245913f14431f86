"""When trials start, who makes them, and what sets the next timer: on a clock and a scheduler that a test moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest

from seawall.actors.queue_store import Oldest
from seawall.errors import BrokerUnavailable
from seawall.supervisor.breaker import ForceClose, ForceOpen, Policy, Record, State
from seawall.supervisor.memory_store import MemoryStore
from seawall.supervisor.store import Swap
from seawall.supervisor.trials import FREE_TRIAL_LOOK, RETRY_SECONDS, Trials
from seawall.supervisor.view import BreakerView, NullView
from tests.support.clock import FixedClock
from tests.unit.supervisor.conftest import STOPPED_AT

pytestmark = pytest.mark.usefixtures("stopped_clock")

POLICY = Policy(failure_threshold=1, recovery_timeout=60.0, trial_lease=15.0)
START = 1_000_000.0


@dataclass
class Timer:
    id: str
    due: float
    run: Callable[[], None]


class HandScheduler:
    """Timers by id, on the test's clock. `pass_time` runs what is due, in order."""

    def __init__(self, clock: FixedClock) -> None:
        self.clock = clock
        self.timers: dict[str, Timer] = {}

    def add_job(
        self, do: Callable[..., None], trigger: str, *, run_date: datetime, id: str, args: list[Any], **_: Any
    ) -> None:
        delay = max(0.0, run_date.timestamp() - STOPPED_AT)
        self.timers[id] = Timer(id, round(self.clock.time() + delay, 2), lambda: do(*args))

    def get_job(self, id: str) -> Timer | None:
        return self.timers.get(id)

    def get_jobs(self) -> list[Timer]:
        return list(self.timers.values())

    def remove_job(self, id: str) -> None:
        del self.timers[id]

    def pass_time(self, seconds: float) -> None:
        until = self.clock.time() + seconds
        while due := [timer for timer in self.timers.values() if timer.due <= until]:
            first = min(due, key=lambda timer: timer.due)
            self.clock.advance(max(0.0, first.due - self.clock.time()))
            del self.timers[first.id]
            first.run()
        self.clock.advance(until - self.clock.time())


class Store(MemoryStore):
    """Can be away."""

    away = False

    def read(self, key: str) -> tuple[Record | None, float]:
        self._reach()
        return super().read(key)

    def read_all(self) -> dict[str, Record]:
        self._reach()
        return super().read_all()

    def swap(self, key: str, expected_version: int, record: Record, assumed_now: float) -> Swap:
        self._reach()
        return super().swap(key, expected_version, record, assumed_now)

    def _reach(self) -> None:
        if self.away:
            raise BrokerUnavailable("connection refused")


class House:
    """A store, views of it, and the trials of one supervisor. What the other rooms would answer is set by the test."""

    def __init__(self) -> None:
        self.clock = FixedClock(START)
        self.store = Store(self.clock)
        self.scheduler = HandScheduler(self.clock)
        self.healthy: bool | str | Exception | None = None
        self.has_health = False
        self.held = ""
        self.tried = False
        self.leads = True
        self.asked_at: list[float] = []
        self.while_asked: Callable[[], None] = lambda: None
        self.view = self.new_view()
        self.trials = self.new_trials(self.scheduler)

    def new_view(self) -> BreakerView:
        view = BreakerView("chroma", "Chroma", self.store, POLICY)
        view.start()
        return view

    def new_trials(self, scheduler: HandScheduler) -> Trials:
        trials = Trials(
            self.store,
            scheduler,
            target=lambda key: self.view if key == "chroma" else None,
            health=self._ask,
            has_health=lambda key: self.has_health,
            oldest=lambda key: Oldest(self.held, self.tried),
            leads=lambda: self.leads,
        )
        self.store.subscribe(trials.announced)
        return trials

    def _ask(self, key: str) -> bool | str | None:
        self.asked_at.append(self.clock.time() - START)
        self.while_asked()
        if isinstance(self.healthy, Exception):
            raise self.healthy
        return self.healthy

    def open(self) -> None:
        self.view.failed(self.clock.time(), self.view.generation, "connection refused")

    @property
    def record(self) -> Record:
        return self.store.read("chroma")[0] or Record()

    @property
    def timer(self) -> float | None:
        """Seconds until the timer ends; None: there is none."""
        timer = self.scheduler.timers.get("trial:chroma")
        return None if timer is None else round(timer.due - self.clock.time(), 2)


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def started(house: House) -> House:
    house.trials.start()
    return house


class TestTimer:
    def test_is_set_when_a_breaker_opens_and_taken_away_when_it_closes(self, started: House) -> None:
        assert started.timer is None
        started.open()
        assert started.timer == 60.0
        started.view.by_hand(ForceClose())
        assert started.timer is None

    def test_is_not_set_for_a_breaker_held_open_by_hand(self, started: House) -> None:
        started.open()
        started.view.by_hand(ForceOpen())
        assert started.timer is None

    def test_of_every_open_breaker_is_set_at_start(self, house: House) -> None:
        house.open()
        house.clock.advance(20)
        assert house.timer is None, "not before the start"
        house.trials.start()
        assert house.timer == 40.0

    def test_that_is_overdue_at_start_ends_at_once(self, house: House) -> None:
        house.open()
        house.clock.advance(500)
        house.trials.start()
        assert house.timer == 0.0

    def test_is_left_to_the_next_leader_after_a_stop(self, started: House) -> None:
        started.open()
        started.trials.stop()
        assert started.timer is None
        started.trials.stop()
        started.view.by_hand(ForceClose())
        started.open()
        assert started.timer is None

    def test_stop_is_safe_before_start(self, house: House) -> None:
        house.trials.stop()

    def test_follows_the_newest_record_whatever_arrives_last(self, started: House) -> None:
        """A timer that has read the record and an announcement may overtake each other."""
        started.open()
        opened = started.record
        started.view.by_hand(ForceClose())
        closed = started.record
        started.trials.announced("chroma", opened)
        assert started.timer is None
        started.open()
        started.trials.announced("chroma", closed)
        assert started.timer == 60.0

    def test_is_found_in_a_store_that_was_emptied_by_the_next_start(self, started: House) -> None:
        started.open()
        started.view.by_hand(ForceClose())
        started.store._records.clear()
        started.view = started.new_view()
        started.open()
        started.trials.start()
        assert started.timer == 60.0

    def test_that_ends_a_moment_early_waits_for_the_rest(self, started: House) -> None:
        """Our estimate of the server's clock may be ahead by some milliseconds."""
        started.has_health, started.healthy = True, True
        started.open()
        started.clock.advance(59.9)
        started.scheduler.timers["trial:chroma"].run()
        assert started.asked_at == []
        assert started.timer == 0.1


class TestHealthPath:
    def test_is_asked_the_moment_the_timer_ends_and_closes_the_breaker(self, started: House) -> None:
        started.has_health, started.healthy = True, True
        started.open()
        started.scheduler.pass_time(300)
        assert started.asked_at == [60.0]
        assert started.record.state is State.CLOSED
        assert started.timer is None

    def test_that_fails_starts_the_timer_anew(self, started: House) -> None:
        started.has_health, started.healthy = True, "HTTP 503"
        started.open()
        started.scheduler.pass_time(200)
        assert started.asked_at == [60.0, 120.0, 180.0]
        assert started.record.state is State.OPEN
        assert started.record.last_error == "HTTP 503"

    def test_is_asked_under_a_trial_of_its_own(self, started: House) -> None:
        seen: list[Record] = []
        started.has_health, started.healthy = True, True
        started.while_asked = lambda: seen.append(started.record)
        started.open()
        started.scheduler.pass_time(60)
        assert seen[0].state is State.HALF_OPEN
        assert seen[0].trial.startswith("health:")

    @pytest.mark.parametrize("answer", [None, RuntimeError("a bug")])
    def test_that_cannot_be_asked_says_nothing_about_the_service(self, started: House, answer: Any) -> None:
        started.has_health, started.healthy = True, answer
        started.open()
        started.scheduler.pass_time(60)
        assert started.record.state is State.OPEN
        assert started.record.last_error == "connection refused"
        assert started.record.next_trial_at == START + 120
        started.scheduler.pass_time(60)
        assert started.asked_at == [60.0, 120.0]

    def test_that_answers_after_its_lease_counts_as_failed(self, started: House) -> None:
        started.has_health, started.healthy = True, True
        started.while_asked = lambda: started.clock.advance(16)
        started.open()
        started.scheduler.pass_time(61)
        assert started.record.state is not State.CLOSED
        started.while_asked = lambda: None
        started.scheduler.pass_time(60)
        assert started.asked_at == [60.0, 120.0], "from start to start"
        assert started.record.state is State.CLOSED

    def test_is_counted_as_busy_while_it_is_asked(self, started: House) -> None:
        busy: list[int] = []
        started.has_health, started.healthy = True, True
        started.while_asked = lambda: busy.append(started.trials.busy())
        started.open()
        started.scheduler.pass_time(60)
        assert busy == [1]
        assert started.trials.busy() == 0


class TestHeldCall:
    def test_becomes_the_trial_the_moment_the_timer_ends(self, started: House) -> None:
        started.held = "call-1"
        started.open()
        started.scheduler.pass_time(60)
        assert started.record.state is State.HALF_OPEN
        assert started.record.trial == "call-1"
        assert started.timer == 60.0, "for the case that nobody tells what became of it"

    def test_that_nobody_made_is_a_failed_trial(self, started: House) -> None:
        started.held = "call-1"
        started.open()
        started.scheduler.pass_time(60)
        started.held = "call-2"
        started.scheduler.pass_time(60)
        assert started.record.trial == "call-2"

    def test_health_path_is_preferred(self, started: House) -> None:
        started.held, started.has_health, started.healthy = "call-1", True, True
        started.open()
        started.scheduler.pass_time(60)
        assert started.record.state is State.CLOSED


class TestStubbornCall:
    def test_lets_callers_in_front_after_three_trials_in_a_row(self, started: House) -> None:
        """A call that always fails would otherwise keep the breaker open for those that do not."""
        started.held, started.tried = "bad", True
        started.open()
        for _ in range(3):
            started.scheduler.pass_time(60)
            assert started.record.trial == "bad"
            started.view.trial_failed("bad", "Server error 500")
        started.scheduler.pass_time(60)
        assert (started.record.state, started.record.trial) == (State.HALF_OPEN, "")
        assert started.view.take_trial("a caller's")

    def test_takes_the_trial_all_the_same_when_no_caller_comes(self, started: House) -> None:
        started.held, started.tried = "bad", True
        started.open()
        for _ in range(3):
            started.scheduler.pass_time(60)
            started.view.trial_failed("bad", "Server error 500")
        started.scheduler.pass_time(60 + FREE_TRIAL_LOOK)
        assert started.record.trial == "bad"

    def test_is_none_once_the_breaker_has_closed(self, started: House) -> None:
        started.held, started.tried = "bad", True
        started.open()
        for _ in range(2):
            started.scheduler.pass_time(60)
            started.view.trial_failed("bad", "Server error 500")
        started.view.by_hand(ForceClose())
        started.open()
        for _ in range(3):
            started.scheduler.pass_time(60)
            assert started.record.trial == "bad"
            started.view.trial_failed("bad", "Server error 500")


class TestFreeTrial:
    def test_is_the_next_callers(self, started: House) -> None:
        started.open()
        started.scheduler.pass_time(60)
        assert started.record.state is State.HALF_OPEN
        assert started.record.trial == ""
        assert started.view.take_trial("caller")

    def test_goes_to_a_background_call_that_comes_in(self, started: House) -> None:
        started.open()
        started.scheduler.pass_time(70)
        started.held = "call-1"
        started.scheduler.pass_time(FREE_TRIAL_LOOK)
        assert started.record.trial == "call-1"

    def test_that_was_taken_is_not_given_away(self, started: House) -> None:
        started.open()
        started.scheduler.pass_time(60)
        assert started.view.take_trial("caller")
        started.held = "call-1"
        started.scheduler.pass_time(30)
        assert started.record.trial == "caller"

    def test_writes_nothing_while_it_waits(self, started: House) -> None:
        started.open()
        started.scheduler.pass_time(61)
        version = started.record.version
        started.scheduler.pass_time(60)
        assert started.record.version == version


class TestSeveralSupervisors:
    def test_timers_of_two_leaders_make_one_trial(self, house: House) -> None:
        """Should two ever lead, the store grants one trial."""
        other = HandScheduler(house.clock)
        house.has_health, house.healthy = True, "HTTP 503"
        second = house.new_trials(other)
        house.trials.start()
        second.start()
        house.open()
        for _ in range(200):
            house.scheduler.pass_time(1)
            other.pass_time(0)
        assert house.asked_at == [60.0, 120.0, 180.0]

    def test_leader_that_was_paused_starts_no_trial_when_it_wakes_up(self, started: House) -> None:
        started.held = "call-1"
        started.open()
        started.clock.advance(70)
        started.leads = False
        started.scheduler.pass_time(0)
        assert started.record.state is State.OPEN
        assert started.timer == RETRY_SECONDS, "it may be granted another term"
        started.leads = True
        started.scheduler.pass_time(RETRY_SECONDS)
        assert started.record.trial == "call-1"

    def test_leader_killed_in_the_middle_of_a_trial_changes_nothing(self, house: House) -> None:
        """The next one waits for the trial's time to be over; the late answer of the first counts for nothing."""
        house.trials.start()
        house.open()
        house.clock.advance(60)
        assert house.view.take_trial("health:dead")
        house.has_health, house.healthy = True, "HTTP 503"
        after = HandScheduler(house.clock)
        house.trials.stop()
        house.new_trials(after).start()
        after.pass_time(59.5)
        assert house.asked_at == []
        after.pass_time(0.5)
        assert house.asked_at == [120.0]
        house.view.trial_succeeded("health:dead")
        assert house.record.state is State.OPEN


class TestTrouble:
    def test_store_that_is_away_delays_the_trial_until_it_is_back(self, started: House) -> None:
        started.held = "call-1"
        started.open()
        started.store.away = True
        started.scheduler.pass_time(63)
        started.store.away = False
        started.scheduler.pass_time(RETRY_SECONDS)
        assert started.record.trial == "call-1"

    def test_start_without_the_store_raises_and_can_be_repeated(self, house: House) -> None:
        house.open()
        house.store.away = True
        with pytest.raises(BrokerUnavailable):
            house.trials.start()
        house.store.away = False
        house.trials.start()
        assert house.timer == 60.0

    def test_unknown_service_is_nobodys_to_try(self, started: House) -> None:
        stranger = BreakerView("git", "Git", started.store, POLICY)
        stranger.failed(START, 0, "refused")
        assert "trial:git" in started.scheduler.timers
        started.scheduler.pass_time(60)
        assert stranger.record.state is State.OPEN

    def test_breaker_that_was_switched_off_here_is_left_alone(self, started: House) -> None:
        """Its record may be another release's; what cannot be tried is not tried in a loop."""
        started.open()
        started.view = NullView("chroma", "Chroma")
        started.scheduler.pass_time(60)
        assert started.timer is None or started.timer >= FREE_TRIAL_LOOK

    def test_error_of_another_room_is_logged_and_the_trial_tried_again(
        self, started: House, caplog: pytest.LogCaptureFixture
    ) -> None:
        started.has_health, started.healthy = True, RuntimeError("a bug")
        started.open()
        started.scheduler.pass_time(60)
        assert "the trial of chroma could not be started" in caplog.text
        started.healthy = True
        started.scheduler.pass_time(60)
        assert started.record.state is State.CLOSED
