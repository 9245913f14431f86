"""What keeps calls back, or lets one stand for many: bounds across workers, slow starts, Retry-After, caps, dedupe, ticks.

Asked of both stores, as in test_queue_stores.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from seawall.actors import redis_wake
from seawall.actors.memory_gate import slow_start
from seawall.actors.queue_store import (
    Bury,
    Done,
    Fetched,
    Group,
    Later,
    Oldest,
    Put,
    QueueStore,
    Release,
    Settlement,
    Want,
)
from seawall.actors.record import Attempt, Progress
from seawall.supervisor.breaker import Record, State
from tests.integration.stores import MemoryStores, RedisStores, Stores, accept, fetch, ids, one, set_record
from tests.support import wait_until

WAITED, BACKGROUND = "chroma.waited", "chroma.background"
FAILED = Progress().failed_round(Attempt(1.0, "Server error 500", 0.1))


@pytest.fixture(params=["memory", "redis"])
def stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    opened: Stores
    request.getfixturevalue("monkeypatch").setattr(redis_wake, "POLL_SECONDS", 30)  # whoever wakes before was woken
    if request.param == "memory":
        opened = MemoryStores(lease=5.0)
    else:
        opened = RedisStores(request.getfixturevalue("redis_url"), lease=5.0)
    yield opened
    opened.close()


def ask(stores: Stores, *queues: str, free: int = 8, bound: int = 0, slots: int = 8, gate: str = "chroma") -> Fetched:
    wants = tuple(Want(name, gate if name == BACKGROUND else "", free) for name in queues or (WAITED, BACKGROUND))
    return stores.queue.fetch([Group(free, wants, bound, slots)])


def slept(queue: QueueStore, seconds: float) -> float:
    """How long a fetcher sleeps at the queue; not at all where a token lies there."""
    began = time.monotonic()
    queue.wait([BACKGROUND], seconds)
    return time.monotonic() - began


def falls_asleep(queue: QueueStore) -> bool:
    """Whether it does so at last: one that spins never does."""
    return wait_until(lambda: slept(queue, 0.1) > 0.09)


def recovered(stores: Stores, seconds_ago: float, slow_start: float) -> None:
    def make(_: Record, now: float) -> Record:
        return Record(state=State.CLOSED, recovered_at=now - seconds_ago, slow_start=slow_start)

    set_record(stores.breakers, "chroma", make)


class TestMaxInFlight:
    def test_bounds_the_calls_of_both_queues_in_all_workers(self, stores: Stores) -> None:
        for number in range(4):
            accept(stores.queue, WAITED, f"w{number}")
            accept(stores.queue, BACKGROUND, f"b{number}")
        first = ask(stores, bound=5)
        assert ids(first.deliveries) == ["w0", "w1", "w2", "w3", "b0"]
        assert ask(stores, bound=5).deliveries == ()
        for over, following in zip(first.deliveries[:3], ("b1", "b2", "b3"), strict=True):
            stores.queue.settle(over, Done())
            assert ids(ask(stores, bound=5).deliveries) == [following]

    @pytest.mark.parametrize("settlement", [Done(), Later(60, FAILED), Release(delay=60), Bury("rejected")], ids=repr)
    def test_whatever_ends_a_call_makes_room(self, stores: Stores, settlement: Settlement) -> None:
        accept(stores.queue, BACKGROUND, "a")
        accept(stores.queue, BACKGROUND, "b")
        (first,) = ask(stores, bound=1).deliveries
        assert ask(stores, bound=1).deliveries == ()
        stores.queue.settle(first, settlement)
        assert ids(ask(stores, bound=1).deliveries) == ["b"]

    def test_a_place_that_comes_free_wakes_a_sleeping_fetcher(self, stores: Stores) -> None:
        other = stores.another()
        accept(stores.queue, BACKGROUND, "a")
        accept(stores.queue, BACKGROUND, "b")
        (first,) = ask(stores, bound=1).deliveries
        assert ask(stores, bound=1).deliveries == ()
        assert falls_asleep(other)
        stores.queue.settle(first, Done())
        assert slept(other, 20) < 10
        assert ids(ask(stores, bound=1).deliveries) == ["b"]

    def test_the_place_is_taken_again_in_the_step_that_ends_a_call(self, stores: Stores) -> None:
        for name in ("a", "b", "c"):
            accept(stores.queue, BACKGROUND, name)
        (first,) = ask(stores, bound=1).deliveries
        group = Group(1, (Want(WAITED, "", 1), Want(BACKGROUND, "chroma", 1)), 1, 8)
        settled, fetched = stores.queue.settle_and_fetch(first, Done(), [group])
        assert settled
        assert ids(fetched.deliveries) == ["b"]

    def test_no_mark_is_left_when_nothing_waits_any_more(self, stores: Stores) -> None:
        if isinstance(stores, MemoryStores):
            pytest.skip("marks are the Redis queue's")
        for number in range(4):
            accept(stores.queue, BACKGROUND, f"b{number}")
        (running,) = ask(stores, bound=1).deliveries
        group = Group(1, (Want(WAITED, "", 1), Want(BACKGROUND, "chroma", 1)), 1, 8)
        for _ in range(3):
            assert ask(stores, bound=1).deliveries == ()
            (running,) = stores.queue.settle_and_fetch(running, Done(), [group])[1].deliveries
        assert stores.queue.settle_and_fetch(running, Done(), [group])[1].deliveries == ()
        assert isinstance(stores, RedisStores)
        for queue in (WAITED, BACKGROUND):
            assert stores.link.command("EXISTS", f"test:q:{queue}:tok") == 0

    def test_a_trial_that_finds_no_room_is_woken_for(self, stores: Stores) -> None:
        other = stores.another()
        accept(stores.queue, BACKGROUND, "a")
        accept(stores.queue, BACKGROUND, "b")
        (running,) = ask(stores, bound=1).deliveries
        stores.set_breaker("chroma", State.HALF_OPEN, "b")
        assert ask(stores, bound=1).deliveries == ()
        assert falls_asleep(other)
        stores.queue.settle(running, Done())
        assert slept(other, 20) < 10
        assert [delivery.trial for delivery in ask(stores, bound=1).deliveries] == [True]

    def test_holds_for_a_trial_too(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        accept(stores.queue, BACKGROUND, "b")
        (running,) = ask(stores, bound=1).deliveries
        stores.set_breaker("chroma", State.HALF_OPEN, "b")
        assert ask(stores, bound=1).deliveries == ()
        stores.queue.settle(running, Done())
        assert [delivery.trial for delivery in ask(stores, bound=1).deliveries] == [True]


class TestSlowStart:
    @pytest.mark.parametrize(("ago", "most"), [(0.0, 1), (2.9, 1), (3.1, 2), (6.1, 4), (8.9, 4), (9.1, 8), (99.0, 8)])
    def test_what_may_be_in_flight_doubles_up_to_the_normal_bound(self, stores: Stores, ago: float, most: int) -> None:
        """A length of 9000 s stands for 9 s, so that no time passes while the test runs."""
        recovered(stores, ago * 1000, 9000.0)
        for number in range(10):
            accept(stores.queue, BACKGROUND, f"b{number}")
        assert len(ask(stores, bound=8).deliveries) == most
        assert ask(stores, bound=8).deliveries == ()

    def test_waited_for_calls_start_at_once(self, stores: Stores) -> None:
        recovered(stores, 0, 900.0)
        for number in range(4):
            accept(stores.queue, WAITED, f"w{number}")
            accept(stores.queue, BACKGROUND, f"b{number}")
        assert ids(ask(stores).deliveries) == ["w0", "w1", "w2", "w3", "b0"]

    def test_the_fetcher_learns_when_there_may_be_more(self, stores: Stores) -> None:
        recovered(stores, 0, 900.0)
        for number in range(10):
            accept(stores.queue, BACKGROUND, f"b{number}")
        first = ask(stores, bound=8)
        assert len(first.deliveries) == 1
        assert first.next_due_in is not None
        assert 290 < first.next_due_in <= 300
        recovered(stores, 299.9, 900.0)
        assert len(wait_until(lambda: ask(stores, bound=8).deliveries)) == 1

    def test_the_normal_bound_is_what_the_living_workers_may_run(self, stores: Stores) -> None:
        if isinstance(stores, MemoryStores):
            pytest.skip("memory has one worker")
        stores.queue.beat("w1", b"{}", [WAITED, BACKGROUND], [])
        stores.queue.beat("w2", b"{}", [WAITED, BACKGROUND], [])
        recovered(stores, 8_900, 9000.0)
        for number in range(40):
            accept(stores.queue, BACKGROUND, f"b{number}")
        assert len(ask(stores, free=30, slots=8).deliveries) == 8  # of 16

    def test_a_service_without_a_breaker_has_none(self, stores: Stores) -> None:
        recovered(stores, 0, 900.0)
        for number in range(5):
            accept(stores.queue, BACKGROUND, f"b{number}")
        assert len(ask(stores, gate="-chroma").deliveries) == 5

    def test_the_curve(self) -> None:
        for normal in (1, 2, 3, 14, 64):
            seen = [slow_start(normal, tenth / 10, 10.0) for tenth in range(100)]
            assert [most for most, _ in seen] == sorted(most for most, _ in seen)
            assert all(most <= max(1.0, normal ** (tenth / 100)) for tenth, (most, _) in enumerate(seen))
            assert all(0 < left <= 10 for _, left in seen)


class TestHold:
    def test_no_background_call_starts_before_its_service_wants_that(self, stores: Stores) -> None:
        stores.queue.hold("chroma", 60)
        accept(stores.queue, WAITED, "w")
        accept(stores.queue, BACKGROUND, "b")
        held = ask(stores)
        assert ids(held.deliveries) == ["w"]
        assert held.next_due_in is not None
        assert 50 < held.next_due_in <= 60
        stores.queue.hold("git", 0.05)
        assert ids(wait_until(lambda: ask(stores, gate="git").deliveries)) == ["b"]

    def test_holds_for_a_service_without_a_breaker(self, stores: Stores) -> None:
        stores.queue.hold("chroma", 60)
        accept(stores.queue, BACKGROUND, "b")
        assert ask(stores, gate="-chroma").deliveries == ()
        assert ids(ask(stores, gate="-git").deliveries) == ["b"]

    def test_the_longest_wish_holds(self, stores: Stores) -> None:
        stores.queue.hold("chroma", 60)
        stores.queue.hold("chroma", 0.01)
        accept(stores.queue, BACKGROUND, "b")
        held = ask(stores)
        assert held.next_due_in is not None
        assert held.next_due_in > 50

    def test_no_trial_is_made_with_a_call_meanwhile(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "b")
        stores.queue.hold("chroma", 60)
        assert stores.queue.oldest(BACKGROUND, "chroma") == Oldest()
        assert stores.queue.oldest(BACKGROUND, "git").id == "b"

    def test_a_breaker_that_was_never_stored_stays_so(self, stores: Stores) -> None:
        stores.queue.hold("chroma", 60)
        assert stores.breakers.read("chroma")[0] is None
        assert stores.breakers.read_all() == {}
        stores.set_breaker("chroma", State.OPEN)
        record = stores.breakers.read("chroma")[0]
        assert record is not None
        assert record.version == 1


class TestTrials:
    def test_a_call_that_never_failed_comes_first(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "bad")
        stores.queue.settle(one(stores.queue, BACKGROUND), Release(first=False, progress=FAILED))
        assert stores.queue.oldest(BACKGROUND, "chroma") == Oldest("bad", tried=True)
        accept(stores.queue, BACKGROUND, "new")
        assert stores.queue.oldest(BACKGROUND, "chroma") == Oldest("new", tried=False)


class TestDedupe:
    def test_the_first_call_stands_for_later_ones(self, stores: Stores) -> None:
        assert accept(stores.queue, BACKGROUND, "a", dedupe="k", dedupe_window=60).first is None
        assert accept(stores.queue, BACKGROUND, "b", dedupe="k", dedupe_window=60).first == "a"
        assert accept(stores.queue, BACKGROUND, "c", dedupe="other", dedupe_window=60).first is None
        assert ids(fetch(stores.queue, BACKGROUND)) == ["a", "c"]
        assert stores.queue.tally() == {("chroma", "deduped"): 1}

    def test_also_once_it_is_over_and_until_the_window_ends(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a", dedupe="long", dedupe_window=60)
        stores.queue.settle(one(stores.queue, BACKGROUND), Done())
        assert accept(stores.queue, BACKGROUND, "b", dedupe="long", dedupe_window=60).first == "a"
        accept(stores.queue, BACKGROUND, "b", dedupe="k", dedupe_window=0.05)
        stores.queue.settle(one(stores.queue, BACKGROUND), Done())
        again = wait_until(lambda: self._accepted_anew(stores))
        assert ids(fetch(stores.queue, BACKGROUND)) == [again]

    @staticmethod
    def _accepted_anew(stores: Stores) -> str:
        return "c" if accept(stores.queue, BACKGROUND, "c", dedupe="k", dedupe_window=60).first is None else ""

    def test_a_repeated_put_is_no_second_call(self, stores: Stores) -> None:
        for _ in range(2):
            assert accept(stores.queue, BACKGROUND, "a", dedupe="k", dedupe_window=60).first is None

    def test_keys_are_of_a_service(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a", dedupe="k", dedupe_window=60)
        assert accept(stores.queue, "git.background", "b", dedupe="k", dedupe_window=60).first is None

    def test_a_full_queue_gives_no_key_away(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        assert not accept(stores.queue, BACKGROUND, "b", dedupe="k", dedupe_window=60, cap=1).accepted
        assert accept(stores.queue, BACKGROUND, "c", dedupe="k", dedupe_window=60).first is None


class TestTicks:
    def test_a_tick_is_accepted_once_and_no_earlier_one_after_it(self, stores: Stores) -> None:
        assert accept(stores.queue, BACKGROUND, "a", tick=("nightly", 1000.0)).first is None
        assert accept(stores.queue, BACKGROUND, "b", tick=("nightly", 1000.0)).first == ""
        assert accept(stores.queue, BACKGROUND, "c", tick=("nightly", 999.0)).first == ""
        assert accept(stores.queue, BACKGROUND, "d", tick=("hourly", 1000.0)).first is None
        assert accept(stores.queue, BACKGROUND, "e", tick=("nightly", 1001.0)).first is None
        assert ids(fetch(stores.queue, BACKGROUND)) == ["a", "d", "e"]
        assert stores.queue.ticks(["nightly", "hourly"]) == {"nightly": 1001.0, "hourly": 1000.0}

    def test_a_schedule_that_was_never_seen_starts_now(self, stores: Stores) -> None:
        now = stores.breakers.read("x")[1]
        first = stores.queue.ticks(["nightly"])["nightly"]
        assert now - 0.1 <= first <= now + 5
        assert stores.queue.ticks(["nightly"]) == {"nightly": first}

    def test_a_full_queue_does_not_use_it_up(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        assert not accept(stores.queue, BACKGROUND, "b", tick=("nightly", 1000.0), cap=1).accepted
        assert accept(stores.queue, BACKGROUND, "c", tick=("nightly", 1000.0)).first is None


class TestTime:
    def test_not_before_is_a_time_on_the_stores_clock(self, stores: Stores) -> None:
        now = stores.breakers.read("x")[1]
        accept(stores.queue, BACKGROUND, "far", not_before=now + 60)
        accept(stores.queue, BACKGROUND, "past", not_before=now - 10)
        assert ids(fetch(stores.queue, BACKGROUND)) == ["past"]
        assert stores.queue.standing(BACKGROUND, "far").where == "due"
        soon = stores.breakers.read("x")[1] + 0.15
        accept(stores.queue, BACKGROUND, "soon", not_before=soon)
        wait_until(lambda: ids(fetch(stores.queue, BACKGROUND)) == ["soon"])
        assert stores.breakers.read("x")[1] >= soon

    def test_the_later_of_delay_and_not_before_counts(self, stores: Stores) -> None:
        now = stores.breakers.read("x")[1]
        accept(stores.queue, BACKGROUND, "a", delay=60, not_before=now + 1)
        due = stores.queue.standing(BACKGROUND, "a").due_in
        assert due is not None
        assert 55 < due <= 60


class TestCapOfBytes:
    def test_payloads_are_weighed(self, stores: Stores) -> None:
        def put(id: str, size: int) -> tuple[bool, str]:
            (answer,) = stores.queue.put([Put(BACKGROUND, id, b"x" * size, cap=100, cap_bytes=1000)])
            assert not isinstance(answer, Exception)
            return answer.accepted, answer.full

        assert put("a", 600) == (True, "")
        assert put("b", 401) == (False, "bytes")
        assert put("c", 400) == (True, "")
        (first, second) = fetch(stores.queue, BACKGROUND)
        stores.queue.settle(first, Later(60, FAILED))
        assert put("d", 1) == (False, "bytes")
        stores.queue.settle(second, Done())
        assert put("e", 400) == (True, "")
        stores.queue.cancel(BACKGROUND, ["a"])
        assert put("f", 600) == (True, "")

    def test_a_batch_is_taken_as_far_as_it_fits(self, stores: Stores) -> None:
        answers = stores.queue.put([Put(BACKGROUND, f"b{n}", b"x" * 100, cap=100, cap_bytes=350) for n in range(5)])
        assert [getattr(one, "accepted", one) for one in answers] == [True, True, True, False, False]

    def test_a_replaced_call_makes_room_for_the_newer_one(self, stores: Stores) -> None:
        for name in ("a", "b", "c"):
            (answer,) = stores.queue.put([Put(BACKGROUND, name, b"x" * 900, coalesce="p", cap=1, cap_bytes=1000)])
            assert getattr(answer, "accepted", answer) is True
        assert stores.queue.tally() == {("chroma", "coalesced"): 2}

    def test_an_empty_queue_weighs_nothing(self, stores: Stores) -> None:
        for round in range(3):
            accept(stores.queue, BACKGROUND, f"a{round}", cap_bytes=20, cap=10)
            stores.queue.settle(one(stores.queue, BACKGROUND), Bury("rejected"))
        for letter in stores.queue.dead_letters(BACKGROUND):
            assert stores.queue.replay(BACKGROUND, letter.id, 60)
            stores.queue.settle(one(stores.queue, BACKGROUND), Done())
        assert accept(stores.queue, BACKGROUND, "last", cap_bytes=15 + len(b"payload of last"), cap=10).accepted
        if isinstance(stores, RedisStores):
            stores.queue.settle(one(stores.queue, BACKGROUND), Done())
            assert stores.link.command("EXISTS", f"test:q:{BACKGROUND}:bytes") == 0


class TestCounts:
    def test_processes_add_to_them(self, stores: Stores) -> None:
        stores.queue.count({("chroma", "skipped"): 2, ("git", "skipped"): 1})
        stores.another().count({("chroma", "skipped"): 3})
        assert stores.queue.tally() == {("chroma", "skipped"): 5, ("git", "skipped"): 1}
