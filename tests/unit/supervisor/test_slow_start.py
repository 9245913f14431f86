"""The time after a recovery, as the breaker sees it: two background attempts that fail in a row open it again."""

from __future__ import annotations

from functools import reduce

import pytest

from seawall.supervisor.breaker import (
    AttemptFailed,
    CallFailed,
    CallSucceeded,
    Event,
    ForceClose,
    ForceOpen,
    PolicyChanged,
    Record,
    Reset,
    State,
    TrialSucceeded,
    TrialTaken,
    is_recovering,
    transition,
)
from seawall.supervisor.memory_store import MemoryStore
from seawall.supervisor.view import BreakerView
from tests.support.clock import FixedClock

#: When the breaker of these stories has closed again.
T = 1000.0


def story(*events: tuple[float, Event], start: Record | None = None) -> Record:
    """The record after (seconds since T, event) in turn."""
    return reduce(lambda record, moment: transition(record, moment[1], T + moment[0]), events, start or Record())


def recovered() -> Record:
    record = story(*[(-70, CallFailed(T - 71, 0, "refused"))] * 5)
    return story((-1, TrialTaken("a")), (0, TrialSucceeded("a")), start=record)


def failed(record: Record, started: float = 1.0) -> AttemptFailed:
    return AttemptFailed(T + started, record.generation, "Server error 500")


def succeeded(record: Record, started: float = 1.0) -> CallSucceeded:
    return CallSucceeded(T + started, record.generation)


def test_two_failed_attempts_in_a_row_open_it_again() -> None:
    record = recovered()
    assert (record.state, record.recovered_at) == (State.CLOSED, T)
    once = story((2, failed(record)), start=record)
    assert (once.state, once.stumbles, once.failures) == (State.CLOSED, 1, 0)
    twice = story((3, failed(record)), start=once)
    assert (twice.state, twice.stumbles, twice.opened_at) == (State.OPEN, 0, T + 3)
    assert (twice.next_trial_at, twice.last_error) == (T + 63, "Server error 500")


def test_a_success_in_between_starts_the_count_again() -> None:
    record = recovered()
    after = story((2, failed(record)), (3, succeeded(record)), (4, failed(record)), start=record)
    assert (after.state, after.stumbles) == (State.CLOSED, 1)


@pytest.mark.parametrize("moment", [10.0, 11.0, 4000.0])
def test_attempts_do_not_count_after_the_slow_start(moment: float) -> None:
    record = recovered()
    assert is_recovering(record, T + 9.9)
    assert not is_recovering(record, T + moment)
    assert story((moment, failed(record)), (moment, failed(record)), start=record) is record


def test_attempts_of_an_older_generation_do_not_count() -> None:
    record = recovered()
    old = AttemptFailed(T - 5, record.generation - 1, "refused")
    assert story((1, old), (1, old), start=record) is record


def test_a_breaker_that_never_opened_has_no_slow_start() -> None:
    record = Record()
    assert story((0, failed(record)), (0, failed(record)), start=record) is record


def test_without_a_slow_start_nothing_of_it_counts() -> None:
    record = story((0, PolicyChanged(slow_start=0.0)), start=recovered())
    assert story((0, failed(record)), (0, failed(record)), start=record) is record


def test_closing_by_hand_is_a_recovery_and_a_reset_is_none() -> None:
    opened = story((-5, ForceOpen()))
    assert is_recovering(story((0, ForceClose()), start=opened), T + 1)
    assert not is_recovering(story((0, Reset()), start=opened), T + 1)
    assert not is_recovering(story((1, Reset()), start=recovered()), T + 1)


def test_closing_what_is_closed_begins_no_slow_start() -> None:
    counted = story((0, CallFailed(T, 0, "refused")))
    assert story((1, ForceClose()), start=counted).recovered_at == 0.0


class TestView:
    def test_asks_nobody_outside_a_slow_start(self) -> None:
        clock, swaps = FixedClock(T), []

        class Store(MemoryStore):
            def swap(self, *arguments: object) -> object:
                swaps.append(arguments)
                return super().swap(*arguments)  # type: ignore[arg-type]

        view = BreakerView("chroma", "Chroma", Store(clock))  # type: ignore[arg-type]
        view.start()
        view.stumbled(T, view.generation, "Server error 500")
        assert swaps == []
        view.by_hand(ForceOpen())
        view.by_hand(ForceClose())
        swaps.clear()
        view.stumbled(clock.time(), view.generation, "Server error 500")
        view.succeeded(clock.time(), view.generation)
        assert len(swaps) == 2
        assert view.record.stumbles == 0
        clock.advance(11)
        view.stumbled(clock.time(), view.generation, "Server error 500")
        view.succeeded(clock.time(), view.generation)
        assert len(swaps) == 2
