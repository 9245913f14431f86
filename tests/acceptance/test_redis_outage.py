"""The broker stopped with calls running, delayed and failing: nothing lost, nothing twice, work again within 2 s."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.acceptance.harness import Stage, playing, say
from tests.acceptance.redis_outage import Found, outage_of

#: Seconds within which work resumes, and within which an enqueue must have its typed error. The promises are 2 s, on a machine
#: whose processes do not stand still meanwhile; an enqueue that waits for the thaw takes 5 s.
RESUMED, REFUSED = 3.9, 3.9


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with playing(
        tmp_path_factory.mktemp("redis"),
        stopped=partial(outage_of, 1.0, "stopped"),
        frozen=partial(outage_of, 5.0, "frozen"),
    ) as stage:
        yield stage


def test_nothing_is_lost_or_repeated_while_the_broker_is_stopped_for_a_second(stage: Stage) -> None:
    check("stopped", stage.result("stopped"))


def test_nothing_is_lost_or_repeated_while_the_broker_is_frozen_for_five_seconds(stage: Stage) -> None:
    check("frozen", stage.result("frozen"))


def test_nothing_is_lost_or_repeated_when_the_broker_is_killed_and_long_away(early: Stage) -> None:
    check("killed", early.result("long_outage"))


def check(how: str, found: Found) -> None:
    lost = set(found.expected) - set(found.starts)
    twice = {path: times for path, times in found.starts.items() if times > found.expected.get(path, 0)}
    say(
        f"redis {how}, away for {found.lasted:.1f} s: {len(found.expected)} calls, {len(lost)} lost, {len(twice)} repeated, "
        f"resumed after {found.resumed:.2f} s, an enqueue refused within {found.refused:.2f} s"
    )
    assert lost == set()
    assert twice == {}
    assert found.starts == found.expected
    assert found.resumed < RESUMED
    assert found.refused < REFUSED
    assert (found.waited, found.directly) == (200, 200)
