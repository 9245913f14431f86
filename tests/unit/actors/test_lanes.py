"""Who may run how much at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from seawall.actors.lanes import BACKGROUND_TURN, Lane, plain_lane, service_lane

WAITED, BACKGROUND = "chroma.waited", "chroma.background"


def lane(concurrency: int = 4) -> Lane:
    return service_lane("chroma", concurrency, gated=True)


def test_a_services_lane_has_its_two_queues_and_its_gate() -> None:
    assert lane().queues == (WAITED, BACKGROUND)
    group = lane().group()
    assert group is not None
    assert [(want.queue, want.gate) for want in group.wants] == [(WAITED, ""), (BACKGROUND, "chroma")]
    open_group = service_lane("chroma", 4, gated=False).group()
    assert open_group is not None
    assert {want.gate for want in open_group.wants} == {""}


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
    assert single.group() is None
    assert single.open_queues() == []


def test_waited_for_calls_may_take_every_slot() -> None:
    busy = lane(3)
    for _ in range(3):
        busy.take(WAITED)
    assert (busy.free, busy.background_room, busy.group()) == (0, 0, None)


def test_one_fetch_in_eight_serves_the_background_first() -> None:
    turns = [lane.group() for lane in [lane()] for _ in range(BACKGROUND_TURN * 2)]
    firsts = [group.wants[0].queue for group in turns if group is not None]
    assert firsts.count(BACKGROUND) == 2
    assert firsts.index(BACKGROUND) == BACKGROUND_TURN - 1
    special = turns[BACKGROUND_TURN - 1]
    assert special is not None
    assert special.wants[0].limit == 1
    assert [want.queue for want in special.wants] == [BACKGROUND, WAITED, BACKGROUND]


def test_a_full_background_has_no_turn() -> None:
    busy = lane(2)
    busy.take(BACKGROUND)
    for _ in range(BACKGROUND_TURN * 2):
        group = busy.group()
        assert group is not None
        assert group.wants[0].queue == WAITED
        assert group.wants[1].limit == 0


def test_a_plain_queue_has_slots_and_nothing_else() -> None:
    plain = plain_lane("mail", 2)
    group = plain.group()
    assert group is not None
    assert [(want.queue, want.gate, want.limit) for want in group.wants] == [("mail", "", 2)]
    assert plain.open_queues() == ["mail"]
    plain.take("mail")
    plain.take("mail")
    assert plain.open_queues() == []


@given(st.integers(1, 9), st.lists(st.sampled_from(["take waited", "take background", "end waited", "end background"])))
def test_slots_are_never_overdrawn(concurrency: int, steps: list[str]) -> None:
    """Whatever comes and goes: a lane that takes what it asked for stays within its bounds."""
    busy = lane(concurrency)
    for step in steps:
        verb, kind = step.split()
        queue = WAITED if kind == "waited" else BACKGROUND
        if verb == "end" and busy.busy.get(queue, 0):
            busy.give_back(queue)
        elif verb == "take" and queue in busy.open_queues():
            busy.take(queue)
        assert 0 <= busy.free <= concurrency
        assert 0 <= busy.background_room <= busy.free
        assert busy.busy.get(BACKGROUND, 0) <= max(1, concurrency - 1)
        group = busy.group()
        assert (group is None) == (busy.free == 0)
        if group is not None:
            assert all(want.limit <= group.free for want in group.wants)
