"""The breaker's rules as short stories: what happened when, and what the breaker made of it."""

from __future__ import annotations

from functools import reduce

import msgspec
import pytest

from seawall.supervisor.breaker import (
    LONGEST_STREAK,
    CallFailed,
    CallSucceeded,
    Event,
    ForceClose,
    ForceOpen,
    PolicyChanged,
    Record,
    Reset,
    State,
    TimerEnded,
    TrialFailed,
    TrialInconclusive,
    TrialSucceeded,
    TrialTaken,
    effective_state,
    transition,
    trial_is_due,
    trial_is_live,
)

T = 1000.0  # when the stories begin


def story(*events: tuple[float, Event], start: Record | None = None) -> Record:
    """The record after (seconds since T, event) in turn."""
    return reduce(lambda record, moment: transition(record, moment[1], T + moment[0]), events, start or Record())


def failed(started: float = 0, generation: int = 0, error: str = "refused") -> CallFailed:
    return CallFailed(T + started, generation, error)


def succeeded(started: float, generation: int = 0) -> CallSucceeded:
    return CallSucceeded(T + started, generation)


def opened() -> Record:
    """Opened at T by five failures; the timer ends at T + 60."""
    return story(*[(0, failed())] * 5)


def on_trial() -> Record:
    """The trial `a` started at T + 60; its lease ends at T + 75, and the next may start at T + 120."""
    return story((60, TrialTaken("a")), start=opened())


class TestClosed:
    def test_five_failed_calls_in_a_row_open_it(self) -> None:
        record = opened()

        assert record.state is State.OPEN
        assert (record.failures, record.opened_at, record.next_trial_at) == (5, T, T + 60)
        assert record.last_error == "refused"
        assert record.generation == 1

    def test_four_do_not(self) -> None:
        assert story(*[(0, failed())] * 4).state is State.CLOSED

    def test_a_success_in_between_starts_the_count_again(self) -> None:
        record = story(*[(0, failed())] * 4, (2, succeeded(1)), (3, failed()))

        assert (record.state, record.failures) == (State.CLOSED, 1)
        assert record.streak_started == T + 3

    def test_a_success_that_started_before_the_streak_does_not_reset_it(self) -> None:
        """A slow answer to a question that was asked before the trouble began says nothing about now."""
        record = story((10, failed()), (11, failed()), (12, succeeded(started=9)))

        assert record.failures == 2

    def test_a_success_that_started_with_the_first_failure_resets_it(self) -> None:
        assert story((10, failed()), (12, succeeded(started=10))).failures == 0

    def test_only_the_start_of_the_streak_counts_not_its_latest_failure(self) -> None:
        assert story((10, failed()), (20, failed()), (21, succeeded(started=15))).failures == 0

    def test_a_success_without_a_streak_changes_nothing(self) -> None:
        record = Record()

        assert transition(record, succeeded(0), T) is record

    @pytest.mark.parametrize("event", [TimerEnded(), TrialTaken("a"), TrialFailed("", "x"), TrialSucceeded("")])
    def test_there_are_no_trials_while_it_is_closed(self, event: Event) -> None:
        record = Record()

        assert transition(record, event, T) is record

    def test_four_background_calls_fail_in_a_minute_each_and_the_fifth_is_delivered(self) -> None:
        """One background call a minute, and the service is down for four of them: the breaker never opens.

        Each of the four fails three attempts; a failure is a call's, not an attempt's, so that four are counted.
        """
        record = story(*[(60 * minute, failed(60 * minute)) for minute in range(4)])
        assert (record.state, record.failures) == (State.CLOSED, 4)

        record = story((241, succeeded(240)), start=record)
        assert (record.state, record.failures, record.generation) == (State.CLOSED, 0, 0)

    def test_a_long_error_is_cut_because_it_travels_with_every_announcement(self) -> None:
        assert len(story((0, failed(error="x" * 10_000))).last_error) == 300


class TestOpen:
    def test_results_of_calls_that_started_before_it_opened_are_ignored(self) -> None:
        record = opened()

        assert transition(record, failed(generation=0), T + 1) is record
        assert transition(record, succeeded(0, generation=0), T + 1) is record

    def test_nothing_happens_before_the_timer_ends(self) -> None:
        record = opened()

        assert transition(record, TimerEnded(), T + 59.9) is record
        assert transition(record, TrialTaken("a"), T + 59.9) is record

    def test_when_the_timer_ends_the_slot_is_free(self) -> None:
        record = story((60, TimerEnded()), start=opened())

        assert (record.state, record.trial, record.generation) == (State.HALF_OPEN, "", 2)

    def test_a_trial_can_be_taken_without_the_stop_in_between(self) -> None:
        record = on_trial()

        assert (record.state, record.trial, record.generation) == (State.HALF_OPEN, "a", 2)
        assert (record.trial_until, record.next_trial_at) == (T + 75, T + 120)


class TestTrial:
    def test_a_free_slot_waits_for_whoever_comes(self) -> None:
        record = story((60, TimerEnded()), (5000, TimerEnded()), (5000, TrialTaken("a")), start=opened())

        assert (record.state, record.trial, record.next_trial_at) == (State.HALF_OPEN, "a", T + 5060)

    def test_there_is_one_at_a_time(self) -> None:
        record = on_trial()

        assert transition(record, TrialTaken("b"), T + 61) is record
        assert transition(record, TimerEnded(), T + 61) is record

    def test_its_success_closes_the_breaker(self) -> None:
        record = story((61, TrialSucceeded("a")), start=on_trial())

        assert (record.state, record.failures, record.trial, record.generation) == (State.CLOSED, 0, "", 3)
        assert (record.opened_at, record.next_trial_at, record.trial_until) == (0, 0, 0)
        assert record.last_error == "refused"

    def test_its_failure_opens_the_breaker_again_and_resets_the_timer(self) -> None:
        record = story((64, TrialFailed("a", "still refused")), start=on_trial())

        assert (record.state, record.trial, record.last_error) == (State.OPEN, "", "still refused")
        assert record.next_trial_at == T + 124
        assert record.opened_at == T, "the outage began when it first opened"

    def test_an_inconclusive_one_gives_the_slot_back_and_resets_the_timer(self) -> None:
        record = story((64, TrialInconclusive("a")), start=on_trial())

        assert (record.state, record.trial, record.next_trial_at) == (State.OPEN, "", T + 124)
        assert record.last_error == "refused"

    @pytest.mark.parametrize("event", [TrialSucceeded("b"), TrialFailed("b", "x"), TrialInconclusive("b")])
    def test_results_of_another_trial_are_ignored(self, event: Event) -> None:
        record = on_trial()

        assert transition(record, event, T + 61) is record

    def test_calls_that_were_let_through_long_ago_do_not_end_it(self) -> None:
        record = on_trial()

        assert transition(record, failed(generation=0), T + 61) is record
        assert transition(record, succeeded(0, generation=0), T + 61) is record

    @pytest.mark.parametrize("event", [TrialSucceeded("a"), TrialFailed("a", "x"), TrialInconclusive("a")])
    def test_it_has_failed_when_its_lease_ends_whatever_it_says_later(self, event: Event) -> None:
        record = on_trial()

        assert trial_is_live(record, T + 74.9)
        assert not trial_is_live(record, T + 75)
        assert effective_state(record, T + 75) is State.OPEN
        assert transition(record, event, T + 75) is record

    def test_after_a_lost_one_the_next_may_start_a_recovery_timeout_after_its_start(self) -> None:
        record = on_trial()

        assert transition(record, TrialTaken("b"), T + 119.9) is record
        taken = transition(record, TrialTaken("b"), T + 120)
        assert (taken.trial, taken.trial_until, taken.generation) == ("b", T + 135, 3)

    def test_after_a_lost_one_the_timer_frees_the_slot(self) -> None:
        record = story((120, TimerEnded()), start=on_trial())

        assert (record.state, record.trial) == (State.HALF_OPEN, "")
        assert trial_is_due(record, T + 120)

    def test_a_lease_longer_than_the_recovery_timeout_is_waited_for(self) -> None:
        """Two requests at once would be two trials, however impatient the policy is."""
        start = Record(failure_threshold=1, recovery_timeout=1, trial_lease=15)
        record = story((0, failed()), (1, TrialTaken("a")), start=start)

        assert record.next_trial_at == T + 16
        assert transition(record, TrialTaken("b"), T + 15.9) is record
        assert transition(record, TrialTaken("b"), T + 16).trial == "b"

    def test_it_needs_an_id(self) -> None:
        record = opened()

        assert transition(record, TrialTaken(""), T + 60) is record

    def test_after_the_recovery_the_first_generation_still_does_not_count(self) -> None:
        record = story((61, TrialSucceeded("a")), start=on_trial())

        assert transition(record, failed(generation=0), T + 62) is record
        assert transition(record, failed(generation=3), T + 62).failures == 1


class TestByHand:
    def test_forced_open_stays_open(self) -> None:
        record = story((0, ForceOpen()))

        assert (record.state, record.forced) == (State.OPEN, True)
        assert transition(record, TimerEnded(), T + 10_000) is record
        assert transition(record, TrialTaken("a"), T + 10_000) is record
        assert transition(record, ForceOpen(), T + 1) is record

    def test_an_open_one_is_held(self) -> None:
        record = story((1, ForceOpen()), start=opened())

        assert record.forced
        assert not trial_is_due(record, T + 10_000)

    def test_a_trial_in_progress_does_not_count_any_more(self) -> None:
        record = story((61, ForceOpen()), start=on_trial())

        assert record.state is State.OPEN
        assert transition(record, TrialSucceeded("a"), T + 62) is record

    @pytest.mark.parametrize("event", [ForceClose(), Reset()])
    @pytest.mark.parametrize("start", [opened(), on_trial(), story((0, ForceOpen()))], ids=["open", "trial", "forced"])
    def test_close_and_reset_let_calls_through_again(self, event: Event, start: Record) -> None:
        record = story((62, event), start=start)

        assert (record.state, record.failures, record.trial, record.forced) == (State.CLOSED, 0, "", False)
        assert record.generation == start.generation + 1

    def test_only_reset_forgets_the_last_error(self) -> None:
        assert story((1, ForceClose()), start=opened()).last_error == "refused"
        assert story((1, Reset()), start=opened()).last_error == ""

    def test_closing_a_closed_one_forgets_the_streak(self) -> None:
        record = story((0, failed()), (1, ForceClose()))

        assert record.failures == 0
        assert transition(record, ForceClose(), T + 2) is record

    def test_after_closing_in_the_middle_of_a_trial_the_next_one_waits_for_its_lease(self) -> None:
        """The dropped trial's request may still be running."""
        start = Record(failure_threshold=1, recovery_timeout=1, trial_lease=15)
        record = story((0, failed()), (1, TrialTaken("a")), (2, ForceClose()), start=start)
        record = story((3, failed(generation=record.generation)), start=record)

        assert record.state is State.OPEN
        assert record.next_trial_at == T + 16

    def test_not_even_a_shorter_timer_makes_two_trials_overlap(self) -> None:
        start = Record(failure_threshold=1, recovery_timeout=20, trial_lease=15)
        record = story((0, failed()), (20, TrialTaken("a")), (21, ForceClose()), start=start)
        record = story((22, failed(generation=3)), (23, PolicyChanged(1, 1.0, 1.0)), start=record)

        assert record.next_trial_at == T + 35


class TestPolicy:
    def test_the_same_policy_changes_nothing(self) -> None:
        record = Record()

        assert transition(record, PolicyChanged(5, 60.0, 15.0), T) is record

    def test_a_lower_threshold_counts_from_the_next_failure(self) -> None:
        record = story((0, failed()), (0, failed()), (1, PolicyChanged(failure_threshold=2)))
        assert record.state is State.CLOSED

        assert story((2, failed()), start=record).state is State.OPEN

    def test_a_shorter_timer_holds_for_the_outage_that_is_on(self) -> None:
        record = story((1, PolicyChanged(recovery_timeout=5)), start=opened())
        assert record.next_trial_at == T + 6

    def test_a_longer_timer_holds_from_the_next_outage_on(self) -> None:
        assert story((1, PolicyChanged(recovery_timeout=600)), start=opened()).next_trial_at == T + 60

    def test_a_running_trial_keeps_its_lease(self) -> None:
        record = story((61, PolicyChanged(recovery_timeout=1, trial_lease=1)), start=on_trial())

        assert (record.trial_until, record.next_trial_at) == (T + 75, T + 120)


def test_a_record_survives_the_wire_and_readers_older_and_newer_than_it() -> None:
    record = on_trial()
    encoded = msgspec.msgpack.encode(record)

    assert msgspec.msgpack.decode(encoded, type=Record) == record
    newer = msgspec.msgpack.encode({**msgspec.to_builtins(record), "invented_later": 1})
    assert msgspec.msgpack.decode(newer, type=Record) == record
    assert msgspec.msgpack.decode(b"\x80", type=Record) == Record()


def test_a_call_that_fails_again_in_its_next_round_is_one_failed_call() -> None:
    """Otherwise a few background calls, patiently tried again, would open the breaker of a service that is back soon."""
    record = Record(failure_threshold=3)
    for number in range(6):
        failed = CallFailed(started=float(number), generation=0, error="refused", call=f"call-{number % 2}")
        record = transition(record, failed, now=float(number))
    assert (record.state, record.failures) == (State.CLOSED, 2)
    record = transition(record, CallFailed(started=9.0, generation=0, error="refused", call="call-7"), now=9.0)
    assert record.state is State.OPEN


def test_a_success_ends_the_streak_and_the_same_call_may_begin_the_next_one() -> None:
    failed = CallFailed(started=1.0, generation=0, error="refused", call="call-1")
    record = transition(Record(failure_threshold=3), failed, now=1.0)
    record = transition(record, CallSucceeded(started=2.0, generation=0), now=2.0)
    assert transition(record, failed, now=3.0).failures == 1


def test_a_record_stays_small_however_many_calls_fail() -> None:
    """It travels with every reply: a threshold that is never reached makes it no longer."""
    record = Record(failure_threshold=10**6)
    for number in range(3 * LONGEST_STREAK):
        failed = CallFailed(started=float(number), generation=0, error="refused", call=f"call-{number:04}")
        record = transition(record, failed, now=float(number))
    assert (record.failures, len(record.streak)) == (3 * LONGEST_STREAK, LONGEST_STREAK)
