"""The retry budget: a share of the last minute's calls, and ten in any case."""

from __future__ import annotations

import pytest

from seawall.actors.retry_budget import RetryBudget
from tests.support.clock import FixedClock


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(1000.0)


def budget(clock: FixedClock, share: float = 0.2) -> RetryBudget:
    return RetryBudget(share, clock=clock.time)


def spent(budget: RetryBudget, tries: int = 1000) -> int:
    return sum(budget.spend() for _ in range(tries))


@pytest.mark.parametrize(("calls", "retries"), [(0, 10), (49, 10), (50, 10), (55, 11), (1000, 200)])
def test_is_a_share_of_the_calls_and_ten_in_any_case(clock: FixedClock, calls: int, retries: int) -> None:
    one = budget(clock)
    for _ in range(calls):
        one.call()
    assert spent(one) == retries
    assert (one.calls, one.retries) == (calls, retries)


def test_looks_back_a_minute(clock: FixedClock) -> None:
    one = budget(clock)
    assert spent(one) == 10
    clock.advance(59.9)
    assert spent(one) == 0
    clock.advance(0.2)
    assert spent(one) == 10


def test_calls_of_the_past_buy_nothing(clock: FixedClock) -> None:
    one = budget(clock)
    for _ in range(1000):
        one.call()
    clock.advance(61)
    assert spent(one) == 10


def test_steady_calls_that_all_fail_are_sent_a_fifth_more_often(clock: FixedClock) -> None:
    one, retries = budget(clock), 0
    for _ in range(6000):
        clock.advance(0.05)
        one.call()
        retries += spent(one, 2)
    assert 0.19 * 6000 <= retries <= 0.2 * 6000 + 10


def test_no_share_leaves_ten(clock: FixedClock) -> None:
    one = budget(clock, 0.0)
    for _ in range(1000):
        one.call()
    assert spent(one) == 10
