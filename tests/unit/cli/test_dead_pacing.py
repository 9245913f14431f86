"""Turns are evenly spaced, keep to their plan, and never come in a burst."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from seawall.cli.pacing import SLACK, Pace


class World:
    """A clock that moves when somebody sleeps, or works. Sleeps end `late` seconds after their time."""

    def __init__(self, late: Callable[[], float] = lambda: 0.0) -> None:
        self.now = 5000.0
        self.slept = 0.0
        self._late = late

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept += seconds
        self.now += seconds + self._late()

    def turns(self, pace: Pace, works: list[float]) -> list[float]:
        """Take a turn before each piece of work; when they came, in seconds after the first."""
        times = []
        for work in works:
            pace.wait()
            times.append(self.now)
            self.now += work
        return [time - times[0] for time in times]


def paced(world: World, rate: float) -> Pace:
    return Pace(rate, clock=lambda: world.now, sleep=world.sleep)


def test_turns_are_evenly_spaced_from_the_first_which_is_at_once() -> None:
    world = World()
    assert world.turns(paced(world, 4), [0.1] * 5) == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
    assert world.slept == pytest.approx(4 * 0.15)


@pytest.mark.parametrize("rate", [20, 200, 1000])
def test_small_delays_do_not_add_up(rate: float) -> None:
    """A sleep ends late, by up to a millisecond, each time."""
    fate = random.Random(rate)
    world = World(lambda: fate.uniform(0, 0.001))
    times = world.turns(paced(world, rate), [0.0001] * 3000)
    assert all(0 <= time - turn / rate < 0.002 for turn, time in enumerate(times))


@pytest.mark.parametrize("rate", [10, 100, 500, 5000])
def test_after_a_stall_no_burst_makes_up_for_it(rate: float) -> None:
    world = World()
    works = [0.0] * 10 + [30.0] + [0.0] * 200
    times = world.turns(paced(world, rate), works)
    after = [time - times[11] for time in times[11:]]
    assert all(time >= turn / rate - SLACK - 1e-9 for turn, time in enumerate(after))
    assert after[-1] == pytest.approx((len(after) - 1) / rate, abs=SLACK + 1 / rate)


def test_work_slower_than_the_rate_is_never_waited_for() -> None:
    world = World()
    world.turns(paced(world, 100), [0.02] * 50)
    assert world.slept == 0


def test_rate_of_zero_never_sleeps() -> None:
    world = World()
    world.turns(paced(world, 0), [0.0] * 100)
    assert world.slept == 0


def test_sleep_that_is_cut_short_changes_nothing_in_the_plan() -> None:
    world = World()
    cut = iter([True, False, False])

    def sleep(seconds: float) -> None:
        world.sleep(seconds / 10 if next(cut) else seconds)

    pace = Pace(1, clock=lambda: world.now, sleep=sleep)
    assert world.turns(pace, [0.0] * 4) == pytest.approx([0, 0.1, 2.0, 3.0])
