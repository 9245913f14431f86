"""The broker stopped with calls running, delayed and failing: nothing lost, nothing twice, work again within 2 s."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.acceptance.harness import Stage, playing, say
from tests.acceptance.redis_outage import Found, stop_redis_for

#: Seconds within which work resumes, and within which an enqueue must have its typed error: the promises.
RESUMED, REFUSED = 2.0, 2.0


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with playing(
        tmp_path_factory.mktemp("redis"), short=partial(stop_redis_for, 1.0), longer=partial(stop_redis_for, 5.0)
    ) as stage:
        yield stage


def test_nothing_is_lost_or_repeated_in_an_outage_of_a_second(stage: Stage) -> None:
    check(stage.result("short"))


def test_nothing_is_lost_or_repeated_in_an_outage_of_five_seconds(stage: Stage) -> None:
    check(stage.result("longer"))


def test_nothing_is_lost_or_repeated_when_the_broker_is_killed_and_long_away(early: Stage) -> None:
    check(early.result("long_outage"))


def check(found: Found) -> None:
    lost = set(found.expected) - set(found.starts)
    twice = {path: times for path, times in found.starts.items() if times > found.expected.get(path, 0)}
    say(
        f"redis away for {found.lasted:.1f} s: {len(found.expected)} calls, {len(lost)} lost, {len(twice)} repeated, "
        f"resumed after {found.resumed:.2f} s, two enqueues refused within {found.refused:.2f} s"
    )
    assert lost == set()
    assert twice == {}
    assert found.starts == found.expected
    assert found.resumed < RESUMED
    assert found.refused < REFUSED
    assert (found.waited, found.directly) == (200, 200)
