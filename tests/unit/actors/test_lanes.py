"""Who may run how much at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.actors.lanes import BACKGROUND_TURN, Lane, plain_lane, service_lane
from seawall.actors.queue_store import Group

WAITED, BACKGROUND = "chroma.waited", "chroma.background"


def lane(concurrency: int = 4) -> Lane:
    return service_lane("chroma", concurrency, gated=True)


def asked(lane: Lane) -> Group | None:
    """What a lane would fetch now, by a fetch that brings nothing."""
    group = lane.ask()
    if group is not None:
        lane.answered(group)
    return group


def test_a_services_lane_has_its_two_queues_and_its_gate() -> None:
    assert lane().queues == (WAITED, BACKGROUND)
    group = asked(lane())
    assert group is not None
    assert [(want.queue, want.gate) for want in group.wants] == [(WAITED, ""), (BACKGROUND, "chroma")]
    open_group = asked(service_lane("chroma", 4, gated=False))
    assert open_group is not None
    assert {want.gate for want in open_group.wants} == {"", "-chroma"}


def test_one_slot_stays_reserved_for_waited_for_calls() -> None:
    busy = lane(4)
    assert busy.background_room == 3
    for left in (2, 1, 0):
        busy.take(BACKGROUND)
        assert busy.background_room == left
    assert busy.free == 1
    assert busy.open_queues() == [WAITED]
    busy.give_back(BACKGROUND)
    assert busy.open_queues() == [WAITED, BACKGROUND]


def test_a_single_slot_serves_both() -> None:
    single = lane(1)
    assert single.background_room == 1
    single.take(BACKGROUND)
    assert asked(single) is None
    assert single.open_queues() == []


def test_waited_for_calls_may_take_every_slot() -> None:
    busy = lane(3)
    for _ in range(3):
        busy.take(WAITED)
    assert (busy.free, busy.background_room, asked(busy)) == (0, 0, None)


def test_one_fetch_in_eight_serves_the_background_first() -> None:
    turns = [asked(lane) for lane in [lane()] for _ in range(BACKGROUND_TURN * 2)]
    firsts = [group.wants[0].queue for group in turns if group is not None]
    assert firsts.count(BACKGROUND) == 2
    assert firsts.index(BACKGROUND) == BACKGROUND_TURN - 1
    special = turns[BACKGROUND_TURN - 1]
    assert special is not None
    assert special.wants[0].limit == 1
    assert [want.queue for want in special.wants] == [BACKGROUND, WAITED, BACKGROUND]


@pytest.mark.parametrize("taken", range(4))
def test_no_turn_asks_for_more_than_background_calls_may_have(taken: int) -> None:
    """The reserved slot stays reserved, also where the background is served first."""
    busy = lane(4)
    for _ in range(taken):
        busy.take(BACKGROUND)
    for _ in range(BACKGROUND_TURN * 2):
        group = asked(busy)
        assert group is not None
        assert sum(want.limit for want in group.wants if want.queue == BACKGROUND) == 3 - taken


def test_a_full_background_has_no_turn() -> None:
    busy = lane(2)
    busy.take(BACKGROUND)
    for _ in range(BACKGROUND_TURN * 2):
        group = asked(busy)
        assert group is not None
        assert group.wants[0].queue == WAITED
        assert group.wants[1].limit == 0


def test_a_plain_queue_has_slots_and_nothing_else() -> None:
    plain = plain_lane("mail", 2)
    group = asked(plain)
    assert group is not None
    assert [(want.queue, want.gate, want.limit) for want in group.wants] == [("mail", "", 2)]
    assert plain.open_queues() == ["mail"]
    plain.take("mail")
    plain.take("mail")
    assert plain.open_queues() == []


def test_slots_that_a_fetch_has_asked_for_are_promised() -> None:
    """Threads fetch side by side; together they get no more than there is."""
    busy = lane(4)
    busy.take(WAITED)
    first = busy.ask()
    assert first is not None
    assert (first.free, busy.free, busy.ask()) == (3, 0, None)
    after = busy.swap(WAITED)
    assert after is not None
    assert after.free == 1
    assert busy.ask() is None
    busy.answered(first)
    assert busy.free == 3
    busy.answered(after)
    assert busy.free == 4


def test_a_swap_that_fails_leaves_the_slot_taken() -> None:
    busy = lane(1)
    busy.take(WAITED)
    group = busy.swap(WAITED)
    assert group is not None
    busy.swap_failed(WAITED, group)
    assert (busy.free, busy.busy) == (0, 1)


def test_a_lane_is_hungry_once_it_is_full() -> None:
    busy = lane(3)
    busy.take(BACKGROUND)
    assert not busy.hungry
    busy.take(BACKGROUND)
    assert busy.hungry


STEPS = [
    "take waited",
    "take background",
    "end waited",
    "end background",
    "ask",
    "answer",
    "swap waited",
    "swap background",
]


@given(st.integers(1, 9), st.lists(st.sampled_from(STEPS)))
def test_slots_are_never_overdrawn(concurrency: int, steps: list[str]) -> None:
    """Whatever comes and goes: what runs and what is asked for stay within the bounds together."""
    busy, asks = lane(concurrency), list[Group]()
    for step in steps:
        verb, _, kind = step.partition(" ")
        queue = WAITED if kind == "waited" else BACKGROUND
        running = busy.busy_background if kind == "background" else busy.busy - busy.busy_background
        if verb == "end" and running:
            busy.give_back(queue)
        elif verb == "take" and busy.has_room(queue):
            busy.take(queue)
        elif (verb == "ask" and (group := busy.ask()) is not None) or (
            verb == "swap" and running and (group := busy.swap(queue)) is not None
        ):
            asks.append(group)
        elif verb == "answer" and asks:
            busy.answered(asks.pop())
        assert busy.busy + sum(group.free for group in asks) + busy.free == concurrency
        assert busy.free >= 0
        assert 0 <= busy.background_room <= busy.free
        assert busy.busy_background <= max(1, concurrency - 1)
        for group in asks:
            assert all(want.limit <= group.free for want in group.wants)


def test_fetches_that_are_under_way_at_once_leave_the_reserved_slot_free() -> None:
    busy = lane(4)
    for _ in range(3):
        busy.take(BACKGROUND)
    first, second = busy.swap(BACKGROUND), busy.swap(BACKGROUND)
    asked_for = [want.limit for group in (first, second) if group for want in group.wants if want.queue == BACKGROUND]
    assert sum(asked_for) == 2
    for group in (first, second):
        assert group is not None
        busy.answered(group)
    assert (busy.promised, busy.promised_background, busy.background_room) == (0, 0, 2)
