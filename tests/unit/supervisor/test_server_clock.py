"""Knowing the server's clock without asking: what answers teach, and what they cannot."""

from __future__ import annotations

import pytest

from seawall.supervisor.server_clock import ServerClock
from tests.support.clock import FixedClock


@pytest.fixture
def here() -> FixedClock:
    """Our monotonic clock."""
    return FixedClock(50.0)


@pytest.fixture
def clock(here: FixedClock) -> ServerClock:
    return ServerClock(monotonic=here.time, wall=lambda: 7000.0)


def test_before_the_first_answer_it_is_our_own_clock(clock: ServerClock) -> None:
    assert clock.now() == 7000.0


def test_an_answer_is_placed_in_the_middle_of_its_way(clock: ServerClock, here: FixedClock) -> None:
    here.advance(0.2)
    clock.heard(9000.0, sent=50.0, received=50.2)

    assert clock.now() == pytest.approx(9000.1)
    assert clock.uncertainty == pytest.approx(0.2)


def test_a_slow_answer_does_not_spoil_what_a_quick_one_taught(clock: ServerClock, here: FixedClock) -> None:
    clock.heard(9000.0, sent=49.999, received=50.0)
    here.advance(5)
    clock.heard(9005.0, sent=51.0, received=55.0)

    assert clock.now() == pytest.approx(9005.0, abs=0.001)


def test_a_clock_that_was_set_is_believed_at_once(clock: ServerClock) -> None:
    clock.heard(9000.0, sent=49.9, received=50.0)
    clock.heard(5000.0, sent=49.9, received=50.0)

    assert clock.now() == pytest.approx(5000.05)
