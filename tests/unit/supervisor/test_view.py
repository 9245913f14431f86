"""A process's view of a breaker, over the memory store and a clock that stands still."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from seawall.errors import BrokerUnavailable
from seawall.supervisor.breaker import ForceClose, ForceOpen, Policy, Record, Reset, State, TimerEnded
from seawall.supervisor.memory_store import MemoryStore
from seawall.supervisor.store import Swap
from seawall.supervisor.view import PASS, BreakerView, NullView
from tests.support.clock import FixedClock
from tests.support.threads import run_together
from tests.support.waiting import wait_until

POLICY = Policy(failure_threshold=3, recovery_timeout=60.0, trial_lease=15.0)


class TestStore(MemoryStore):
    """Counts what it is asked; can be away, lose answers, and hold up a swap."""

    __test__ = False

    def __init__(self, clock: FixedClock) -> None:
        super().__init__(clock)
        self.reads = self.swaps = 0
        self.away = self.loses_answers = self.interrupts = False
        self.hold: threading.Event | None = None
        self.held = threading.Event()

    @property
    def commands(self) -> int:
        return self.reads + self.swaps

    def read(self, key: str) -> tuple[Record | None, float]:
        self.reads += 1
        if self.away:
            raise BrokerUnavailable("refused", written=False)
        return super().read(key)

    def swap(self, key: str, expected_version: int, record: Record, assumed_now: float) -> Swap:
        self.swaps += 1
        if self.hold is not None:
            self.held.set()
            assert self.hold.wait(5)
        if self.interrupts:
            self.interrupts = False
            raise KeyboardInterrupt
        if self.away:
            raise BrokerUnavailable("refused", written=False)
        swap = super().swap(key, expected_version, record, assumed_now)
        if self.loses_answers:
            raise BrokerUnavailable("no answer in time", written=True)
        return swap


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def store(clock: FixedClock) -> TestStore:
    return TestStore(clock)


@pytest.fixture
def view(store: TestStore) -> BreakerView:
    return started(store)


def started(store: MemoryStore, policy: Policy | None = POLICY) -> BreakerView:
    view = BreakerView("chroma", "Chroma Server", store, policy)
    view.start()
    return view


def fail(view: BreakerView, times: int = 1) -> Record:
    for _ in range(times):
        view.failed(view._store.now(), view.generation, "refused")
    return view.record


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What is logged for the service at INFO and above, as it comes."""
    found: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("seawall.chroma")
    logger.addHandler(handler)
    caplog.set_level(logging.DEBUG, logger.name)
    yield found
    logger.removeHandler(handler)


class TestAdmission:
    def test_a_closed_breaker_passes_everyone_and_asks_nobody(self, view: BreakerView, store: TestStore) -> None:
        asked = store.commands

        assert all(view.admit() is PASS for _ in range(100))
        assert store.commands == asked

    def test_an_open_one_refuses_and_asks_nobody(self, view: BreakerView, store: TestStore, clock: FixedClock) -> None:
        fail(view, 3)
        clock.advance(20)
        asked = store.commands

        admission = view.admit()
        assert not admission.passes
        assert not admission.may_take_trial
        assert admission.retry_after == 40.0
        assert store.commands == asked

    def test_the_supervisor_has_a_second_to_start_the_trial(self, view: BreakerView, clock: FixedClock) -> None:
        fail(view, 3)
        clock.advance(60.9)
        assert not view.admit().may_take_trial
        assert view.admit().retry_after == 0.0

        clock.advance(0.1)
        assert view.admit().may_take_trial

    def test_a_free_slot_is_the_next_callers(self, view: BreakerView, clock: FixedClock) -> None:
        fail(view, 3)
        clock.advance(60)
        view.apply(TimerEnded())

        assert view.admit().may_take_trial
        assert view.take_trial("a")
        assert not view.admit().may_take_trial
        assert view.admit().retry_after == 60.0

    def test_a_trial_that_was_lost_with_its_process_is_taken_over(self, view: BreakerView, clock: FixedClock) -> None:
        fail(view, 3)
        clock.advance(60)
        assert view.take_trial("lost")

        clock.advance(60.5)
        assert view.status()["state"] == "open"
        assert not view.admit().may_take_trial
        clock.advance(0.5)
        assert view.admit().may_take_trial
        assert view.take_trial("next")

    def test_one_held_open_by_hand_never_offers_a_trial(self, view: BreakerView, clock: FixedClock) -> None:
        view.by_hand(ForceOpen())
        clock.advance(10_000)

        assert not view.admit().may_take_trial
        assert view.admit().retry_after == 60.0


class TestResults:
    def test_a_success_in_good_times_asks_nobody(self, view: BreakerView, store: TestStore) -> None:
        asked = store.commands
        view.succeeded(started=store.now(), generation=0)

        assert store.commands == asked

    def test_a_success_ends_a_streak_that_another_process_began(self, view: BreakerView, store: TestStore) -> None:
        fail(started(store), 2)
        view.succeeded(store.now(), view.generation)

        stored, _ = store.read("chroma")
        assert stored is not None
        assert stored.failures == 0

    def test_late_results_ask_nobody(self, view: BreakerView, store: TestStore, clock: FixedClock) -> None:
        begun = clock.time()
        fail(view, 3)
        asked = store.commands

        assert view.failed(begun, generation=0, error="late") is view.record
        assert view.succeeded(begun, generation=0) is view.record
        assert store.commands == asked

    def test_failures_of_two_processes_add_up(self, view: BreakerView, store: TestStore) -> None:
        other = started(store)
        fail(view)
        fail(other)

        assert fail(view).state is State.OPEN
        assert other.state is State.OPEN

    def test_a_trial_is_reported_by_a_process_that_has_not_heard_of_it(
        self, view: BreakerView, store: TestStore, clock: FixedClock
    ) -> None:
        fail(view, 3)
        clock.advance(60)
        worker = BreakerView("chroma", "Chroma Server", store, POLICY)
        assert view.take_trial("call-1")

        assert worker.trial_succeeded("call-1").state is State.CLOSED
        assert view.state is State.CLOSED

    def test_a_failed_trial_resets_the_timer(self, view: BreakerView, clock: FixedClock) -> None:
        fail(view, 3)
        clock.advance(60)
        view.take_trial("a")
        clock.advance(5)

        assert view.trial_failed("a", "still refused").state is State.OPEN
        assert view.admit().retry_after == 60.0

    def test_an_inconclusive_trial_resets_the_timer_too(self, view: BreakerView, clock: FixedClock) -> None:
        fail(view, 3)
        clock.advance(60)
        view.take_trial("a")

        assert view.trial_inconclusive("a").state is State.OPEN
        assert view.record.last_error == "refused"


class TestFolding:
    def test_128_failures_at_once_cost_two_swaps(self, store: TestStore) -> None:
        """While one thread's swap is on its way, the failures of all others wait, and go together in the next."""
        view = started(store, Policy(failure_threshold=1000))
        asked, store.hold = store.swaps, threading.Event()
        threads = [threading.Thread(target=fail, args=(view,)) for _ in range(128)]
        threads[0].start()
        assert store.held.wait(5)
        for thread in threads[1:]:
            thread.start()
        wait_until(lambda: len(view._writer._tickets) == 128)
        store.hold.set()
        for thread in threads:
            thread.join(5)

        assert view.record.failures == 128
        assert store.swaps - asked == 2

    def test_a_thread_that_is_interrupted_while_it_writes_for_others_leaves_the_rest_to_the_next(
        self, store: TestStore
    ) -> None:
        view = started(store, Policy(failure_threshold=1000))
        store.hold, store.interrupts = threading.Event(), True
        interrupted: list[BaseException] = []

        def fail_and_be_interrupted() -> None:
            try:
                fail(view)
            except KeyboardInterrupt as error:
                interrupted.append(error)

        threads = [threading.Thread(target=fail_and_be_interrupted)]
        threads += [threading.Thread(target=fail, args=(view,)) for _ in range(7)]
        threads[0].start()
        assert store.held.wait(5)
        for thread in threads[1:]:
            thread.start()
        wait_until(lambda: len(view._writer._tickets) == 8)
        store.hold.set()
        for thread in threads:
            thread.join(5)

        assert len(interrupted) == 1
        assert view.record.failures == 7
        assert fail(view).failures == 8

    def test_every_failure_returns_when_it_is_stored(self, store: TestStore) -> None:
        view = started(store, Policy(failure_threshold=1000))
        seen: list[int] = []

        def fail_16_times() -> None:
            for _ in range(16):
                mine = view.failed(store.now(), 0, "refused")
                stored, _ = store.read("chroma")
                assert stored is not None
                assert stored.version >= mine.version
                seen.append(mine.failures)

        run_together([fail_16_times] * 8)

        assert len(seen) == view.record.failures == 128

    def test_two_processes_that_write_at_once_lose_nothing(self, store: TestStore) -> None:
        views = [started(store, Policy(failure_threshold=1000)) for _ in range(2)]
        run_together([partial(fail, view, 16) for view in views for _ in range(4)])

        assert [view.record.failures for view in views] == [128, 128]

    def test_8_threads_of_2_processes_want_the_trial_and_one_gets_it(self, store: TestStore, clock: FixedClock) -> None:
        views = [started(store) for _ in range(2)]
        fail(views[0], 3)
        clock.advance(61)
        wins: list[str] = []

        def want(view: BreakerView, id: str) -> None:
            if view.take_trial(id):
                wins.append(id)

        run_together([partial(want, view, f"{n}-{t}") for n, view in enumerate(views) for t in range(8)])

        assert wins == [views[0].record.trial] == [views[1].record.trial]


class TestStoreAway:
    def test_the_view_goes_on_with_its_local_state(self, view: BreakerView, store: TestStore) -> None:
        store.away = True

        assert fail(view, 3).state is State.OPEN
        assert not view.admit().passes
        assert view.away
        assert view.status()["state"] == "open"

    def test_it_asks_the_lost_store_only_now_and_then(
        self, view: BreakerView, store: TestStore, clock: FixedClock
    ) -> None:
        store.away = True
        fail(view)
        asked = store.commands
        fail(view)
        assert store.commands == asked

        clock.advance(0.5)
        fail(view)
        assert store.commands > asked

    def test_the_outage_is_logged_once_at_its_start_and_once_at_its_end(
        self, view: BreakerView, store: TestStore, clock: FixedClock, lines: list[str]
    ) -> None:
        store.away = True
        for _ in range(2):
            fail(view)
            clock.advance(3)
        store.away = False
        view.refresh()

        assert lines == [
            "The breaker's store is away, going on with the local state: refused",
            "The breaker's store is back after 6.0 s",
        ]

    def test_what_failed_meanwhile_reaches_the_store_when_it_is_back(self, view: BreakerView, store: TestStore) -> None:
        fail(view)
        store.away = True
        fail(view, 2)
        assert view.state is State.OPEN
        store.away = False
        other = started(store)
        assert other.record.failures == 1
        view.refresh()

        assert (view.state, other.state) == (State.OPEN, State.OPEN)
        assert not view.away

    def test_a_streak_that_ended_meanwhile_is_forgotten(self, view: BreakerView, store: TestStore) -> None:
        store.away = True
        fail(view, 2)
        view.succeeded(store.now(), 0)
        store.away = False
        view.refresh()

        assert store.read("chroma")[0] is None

    def test_a_trials_result_reaches_the_store_late_but_within_its_lease(
        self, view: BreakerView, store: TestStore, clock: FixedClock
    ) -> None:
        fail(view, 3)
        clock.advance(60)
        assert view.take_trial("a")
        store.away = True
        view.trial_succeeded("a")
        clock.advance(2)
        store.away = False
        view.refresh()

        assert started(store).state is State.CLOSED

    def test_no_trial_is_taken_while_another_process_may_have_one(
        self, view: BreakerView, store: TestStore, clock: FixedClock
    ) -> None:
        fail(view, 3)
        clock.advance(61)
        store.away = True
        assert not view.take_trial("a")

        clock.advance(59.9)
        assert not view.take_trial("b")

    def test_in_a_long_outage_the_process_finds_out_by_itself_that_the_service_recovered(
        self, view: BreakerView, store: TestStore, clock: FixedClock
    ) -> None:
        store.away = True
        fail(view, 3)
        clock.advance(61)

        assert view.admit().may_take_trial
        assert view.take_trial("a")
        assert view.trial_succeeded("a").state is State.CLOSED
        assert view.admit() is PASS

    def test_a_swap_whose_answer_was_lost_is_not_counted_twice(self, view: BreakerView, store: TestStore) -> None:
        store.loses_answers = True
        fail(view)
        store.loses_answers = False
        fail(view)
        view.refresh()

        assert view.record.failures == 2

    def test_a_hand_on_the_lever_is_told(self, view: BreakerView, store: TestStore) -> None:
        store.away = True

        with pytest.raises(BrokerUnavailable):
            view.by_hand(ForceOpen())
        assert view.state is State.CLOSED

    def test_a_store_that_lost_its_data_is_still_the_one_that_counts(
        self, view: BreakerView, store: TestStore, clock: FixedClock
    ) -> None:
        fail(view, 3)
        store._records.clear()
        view.refresh()

        assert view.state is State.CLOSED
        assert fail(view).version == 1

    def test_a_view_over_a_store_that_was_never_there_starts(self, store: TestStore) -> None:
        store.away = True
        view = started(store)

        assert view.admit() is PASS
        assert view.status()["as_of"] == 0


class TestTelling:
    def test_a_trip_reaches_another_process_by_announcement(self, view: BreakerView, store: TestStore) -> None:
        other = started(store)
        changes: list[tuple[State, State]] = []
        other.on_change(lambda old, new: changes.append((old.state, new.state)))
        fail(view, 3)

        assert not other.admit().passes
        assert changes[-1] == (State.CLOSED, State.OPEN)

    def test_a_reply_brings_news_and_an_old_one_none(self, store: TestStore, clock: FixedClock) -> None:
        view = BreakerView("chroma", "Chroma Server", store, POLICY)
        view.observe(Record(version=7, generation=1, state=State.OPEN, next_trial_at=clock.time() + 60))
        view.observe(Record(version=6))

        assert view.state is State.OPEN

    def test_other_services_announcements_do_not_concern_it(self, view: BreakerView, store: TestStore) -> None:
        fail(BreakerView("git", "Git", store, POLICY), 3)

        assert view.admit() is PASS

    def test_a_listener_may_come_back_with_further_events(self, view: BreakerView) -> None:
        """It is called outside every lock."""
        view.on_change(lambda old, new: view.by_hand(Reset()) and None if new.state is State.OPEN else None)
        fail(view, 3)

        assert view.state is State.CLOSED

    def test_a_listener_that_fails_hurts_nobody(self, view: BreakerView) -> None:
        def broken(old: Record, new: Record) -> None:
            raise RuntimeError("listener")

        view.on_change(broken)

        assert fail(view, 3).state is State.OPEN

    def test_the_guides_lines_are_logged_by_the_process_that_decided(
        self, view: BreakerView, store: TestStore, clock: FixedClock, lines: list[str]
    ) -> None:
        started(store)  # a second process: it hears of everything and logs none of it
        fail(view, 3)
        clock.advance(60)
        view.take_trial("a")
        view.trial_succeeded("a")

        assert lines == [
            "[Chroma Server] Circuit breaker OPEN (threshold reached: 3/3)",
            "[Chroma Server] Circuit breaker entering HALF_OPEN state",
            "[Chroma Server] Circuit breaker CLOSED (service recovered)",
        ]

    def test_trials_that_fail_and_hands_are_logged_too(
        self, view: BreakerView, clock: FixedClock, lines: list[str]
    ) -> None:
        fail(view, 3)
        clock.advance(60)
        view.take_trial("a")
        view.trial_failed("a", "refused")
        clock.advance(60)
        view.take_trial("b")
        view.trial_inconclusive("b")
        view.by_hand(ForceClose())
        view.by_hand(ForceOpen())

        assert [line.partition("Circuit breaker ")[2] for line in lines if "HALF_OPEN" not in line][1:] == [
            "OPEN (trial failed, next one in 60s: refused)",
            "OPEN (trial was inconclusive, next one in 60s)",
            "CLOSED (by hand)",
            "OPEN (held open by hand)",
        ]

    def test_status_says_what_the_guide_asks_for(self, view: BreakerView, clock: FixedClock) -> None:
        fail(view, 3)
        opened_at = clock.time()
        clock.advance(10)

        assert view.status() == {
            "service": "Chroma Server",
            "key": "chroma",
            "state": "open",
            "consecutive_failures": 3,
            "failure_threshold": 3,
            "recovery_timeout": 60.0,
            "opened_at": opened_at,
            "retry_after": 50.0,
            "last_error": "refused",
            "as_of": clock.time(),
        }

    def test_status_of_a_healthy_service(self, view: BreakerView) -> None:
        status = view.status()

        assert (status["state"], status["retry_after"], status["opened_at"]) == ("closed", 0.0, None)

    def test_while_the_store_is_away_as_of_stands_still(
        self, view: BreakerView, store: TestStore, clock: FixedClock
    ) -> None:
        begun = clock.time()
        store.away = True
        clock.advance(30)
        fail(view)

        assert view.status()["as_of"] == begun


class TestPolicies:
    def test_the_services_own_policy_is_the_one_that_counts(self, store: TestStore) -> None:
        fail(started(store, Policy(failure_threshold=10)), 2)
        view = started(store, POLICY)

        assert view.status()["failure_threshold"] == 3
        assert fail(view).state is State.OPEN

    def test_a_shorter_timer_is_brought_to_an_open_breaker_at_the_start(self, store: TestStore) -> None:
        fail(started(store, Policy(1, recovery_timeout=3600)), 1)

        assert started(store, POLICY).admit().retry_after == 60.0

    def test_without_one_the_record_keeps_its_own(self, view: BreakerView, store: TestStore) -> None:
        fail(view)
        other = started(store, policy=None)
        fail(other)

        assert other.record.failure_threshold == 3


def test_a_service_without_a_breaker_always_passes() -> None:
    view = NullView("chroma", "Chroma Server")
    view.start()
    fail(view, 100)
    view.by_hand(ForceOpen())
    view.observe(Record(version=5, state=State.OPEN))

    assert view.admit() is PASS
    assert view.status()["state"] == "closed"
