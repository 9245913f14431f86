"""What a queue store promises, said once and asked of both: the one in Redis and its twin in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import requests

from seawall.actors import redis_wake
from seawall.actors.delivered import LocalCall
from seawall.actors.queue_store import Accepted, Bury, Done, Group, Later, Put, Release, Want
from seawall.actors.record import Attempt, Call, Progress, encode
from seawall.actors.replies import Outcome
from seawall.errors import CallCancelled, CallFailed, ResultExpired
from seawall.supervisor.breaker import State
from tests.integration.stores import MemoryStores, RedisStores, Stores, accept, answer, fetch, ids, one
from tests.support import wait_until

WAITED, BACKGROUND = "chroma.waited", "chroma.background"

#: Seconds: long enough that a busy machine renews in time, short enough to wait for.
SHORT_LEASE = 0.2


def _stores(request: pytest.FixtureRequest, lease: float) -> Iterator[Stores]:
    if request.param == "memory":
        stores: Stores = MemoryStores(lease=lease)
    else:
        stores = RedisStores(request.getfixturevalue("redis_url"), lease=lease)
    try:
        yield stores
    finally:
        stores.close()


@pytest.fixture(params=["memory", "redis"])
def stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    yield from _stores(request, 5.0)


@pytest.fixture(params=["memory", "redis"])
def dying(request: pytest.FixtureRequest) -> Iterator[Stores]:
    """Stores whose leases run out soon: a worker that says nothing is dead at once."""
    yield from _stores(request, SHORT_LEASE)


class TestPut:
    def test_calls_are_fetched_in_the_order_in_which_they_were_put(self, stores: Stores) -> None:
        names = ["c", "a", "b", "z", "k"]
        assert [accept(stores.queue, WAITED, name).accepted for name in names] == [True] * 5
        found = fetch(stores.queue, WAITED)
        assert ids(found) == names
        assert found[0].payload == b"payload of c"
        assert (found[0].deaths, found[0].progress, found[0].trial) == (0, Progress(), False)

    def test_many_calls_are_put_in_one_trip_each_with_its_own_answer(self, stores: Stores) -> None:
        puts = [Put(BACKGROUND, name, b"-", cap=2) for name in ("a", "b", "c")]
        answers = [one for one in stores.queue.put(puts) if isinstance(one, Accepted)]
        assert [one.accepted for one in answers] == [True, True, False]

    def test_a_delayed_call_waits_for_its_time(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "later", delay=60)
        first = stores.queue.fetch([Group(8, (Want(BACKGROUND, "", 8),))])
        assert first.deliveries == ()
        assert first.next_due_in is not None
        assert 50 < first.next_due_in <= 60
        assert stores.queue.standing(BACKGROUND, "later").where == "due"
        accept(stores.queue, BACKGROUND, "soon", delay=0.05)
        assert ids(wait_until(lambda: fetch(stores.queue, BACKGROUND))) == ["soon"]

    def test_calls_that_become_due_are_served_in_the_order_of_their_times(self, stores: Stores) -> None:
        stores.queue.put(
            [Put(BACKGROUND, name, b"-", delay=delay) for name, delay in (("a", 0.6), ("b", 0.2), ("c", 0.4))]
        )
        wait_until(lambda: stores.queue.standing(BACKGROUND, "a").due_in == 0)
        accept(stores.queue, BACKGROUND, "d")
        assert ids(fetch(stores.queue, BACKGROUND)) == ["b", "c", "a", "d"]

    def test_a_repeated_put_is_the_same_call(self, stores: Stores) -> None:
        assert accept(stores.queue, BACKGROUND, "one").accepted
        assert accept(stores.queue, BACKGROUND, "one").accepted
        delivery = one(stores.queue, BACKGROUND)
        assert accept(stores.queue, BACKGROUND, "one").accepted  # while it runs
        assert fetch(stores.queue, BACKGROUND) == []
        assert stores.queue.settle(delivery, Done())
        assert accept(stores.queue, BACKGROUND, "one").accepted  # and when it is over
        assert fetch(stores.queue, BACKGROUND) == []

    def test_a_full_queue_refuses(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a", cap=2)
        accept(stores.queue, BACKGROUND, "b", cap=2)
        assert not accept(stores.queue, BACKGROUND, "c", cap=2).accepted
        assert accept(stores.queue, BACKGROUND, "b", cap=2).accepted  # known already
        stores.queue.settle(fetch(stores.queue, BACKGROUND)[0], Done())
        assert accept(stores.queue, BACKGROUND, "c", cap=2).accepted

    def test_the_answer_tells_how_many_workers_serve_the_queue(self, stores: Stores) -> None:
        assert accept(stores.queue, WAITED, "a").workers == 0
        stores.queue.beat("w1", b"{}", [WAITED], [])
        stores.another().beat("w2", b"{}", [WAITED, BACKGROUND], [])
        assert accept(stores.queue, WAITED, "b").workers == 2
        assert accept(stores.queue, BACKGROUND, "c").workers == 1


class TestCoalesce:
    def test_the_newest_waiting_call_takes_the_place_of_the_older_one(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "old", coalesce="p1")
        accept(stores.queue, BACKGROUND, "other", coalesce="p2")
        assert accept(stores.queue, BACKGROUND, "new", coalesce="p1").replaced == "old"
        assert ids(fetch(stores.queue, BACKGROUND)) == ["other", "new"]
        ended = stores.queue.standing(BACKGROUND, "old")
        assert ended.where == "done"
        assert ended.outcome is not None
        assert isinstance(ended.outcome.error, CallCancelled)

    def test_a_delayed_call_is_replaced_too(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "old", coalesce="p1", delay=60)
        assert accept(stores.queue, BACKGROUND, "new", coalesce="p1").replaced == "old"
        assert stores.queue.counts([BACKGROUND])[0].due == 0

    def test_a_running_call_is_left_alone(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "old", coalesce="p1")
        running = one(stores.queue, BACKGROUND)
        assert accept(stores.queue, BACKGROUND, "new", coalesce="p1").replaced == ""
        assert stores.queue.settle(running, Done())
        assert one(stores.queue, BACKGROUND).id == "new"

    @pytest.mark.parametrize("ending", [Later(0.0, Progress(attempt=1)), Release()])
    def test_the_latest_wins_over_one_that_would_have_run_again(self, stores: Stores, ending: Later | Release) -> None:
        """A retry of the older call after the newer one ran would bring old data back."""
        accept(stores.queue, BACKGROUND, "old", coalesce="p1")
        older = one(stores.queue, BACKGROUND)
        accept(stores.queue, BACKGROUND, "new", coalesce="p1")
        stores.queue.settle(one(stores.queue, BACKGROUND), Done())
        assert stores.queue.settle(older, ending)
        assert fetch(stores.queue, BACKGROUND) == []
        ended = stores.queue.standing(BACKGROUND, "old").outcome
        assert ended is not None
        assert isinstance(ended.error, CallCancelled)

    def test_a_call_goes_on_where_the_one_that_it_replaces_was(self, stores: Stores) -> None:
        """Snapshots that come faster than they fail shall not try a dead service all the time."""
        accept(stores.queue, BACKGROUND, "old", coalesce="p1")
        tried = Progress(attempt=2, history=(Attempt(1.0, "refused", 0.1),))
        assert stores.queue.settle(one(stores.queue, BACKGROUND), Later(60.0, tried))
        assert accept(stores.queue, BACKGROUND, "new", coalesce="p1").replaced == "old"
        assert fetch(stores.queue, BACKGROUND) == []
        standing = stores.queue.standing(BACKGROUND, "new")
        assert (standing.where, standing.progress) == ("due", tried)
        assert standing.due_in is not None
        assert 50 < standing.due_in <= 60

    def test_a_call_goes_on_where_the_running_one_that_it_outlives_was(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "old", coalesce="p1")
        older = one(stores.queue, BACKGROUND)
        accept(stores.queue, BACKGROUND, "new", coalesce="p1")
        tried = Progress(attempt=1, history=(Attempt(1.0, "refused", 0.1),))
        assert stores.queue.settle(older, Later(60.0, tried))
        standing = stores.queue.standing(BACKGROUND, "new")
        assert (standing.where, standing.progress) == ("due", tried)

    def test_nothing_is_replaced_by_a_call_that_is_refused(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "old", coalesce="p1")
        accept(stores.queue, BACKGROUND, "more")
        accept(stores.queue, BACKGROUND, "more still")
        refused = accept(stores.queue, BACKGROUND, "new", coalesce="p1", cap=2)
        assert (refused.accepted, refused.replaced) == (False, "")
        assert ids(fetch(stores.queue, BACKGROUND)) == ["old", "more", "more still"]

    def test_the_call_that_replaces_needs_no_further_room(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "old", coalesce="p1", cap=1)
        assert accept(stores.queue, BACKGROUND, "new", coalesce="p1", cap=1).replaced == "old"

    def test_whoever_waits_for_the_replaced_call_is_told(self, stores: Stores) -> None:
        box = stores.mailbox()
        accept(stores.queue, BACKGROUND, "old", coalesce="p1")
        waiter = box.expect("old", service="Chroma")
        assert stores.queue.watch(BACKGROUND, "old", box) is None
        accept(stores.queue, BACKGROUND, "new", coalesce="p1")
        outcome = waiter.wait(5)
        assert outcome is not None
        assert isinstance(outcome.error, CallCancelled)


class TestCancel:
    def test_only_what_has_not_started_can_be_taken_back(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "running")
        running = one(stores.queue, BACKGROUND)
        accept(stores.queue, BACKGROUND, "waiting")
        accept(stores.queue, BACKGROUND, "due", delay=60)
        answers = stores.queue.cancel(BACKGROUND, ["waiting", "due", "running", "never heard of"])
        assert [one.state for one in answers] == ["cancelled", "cancelled", "running", "unknown"]
        assert fetch(stores.queue, BACKGROUND) == []
        assert stores.queue.settle(running, Done())
        assert stores.queue.counts([BACKGROUND])[0].due == 0

    def test_a_retry_that_waits_can_be_taken_back_and_tells_how_far_it_was(self, stores: Stores) -> None:
        accept(stores.queue, WAITED, "a")
        progress = Progress().failed_attempt(Attempt(1.0, "Timeout", 0.5))
        stores.queue.settle(one(stores.queue, WAITED), Later(60, progress))
        cancelled = stores.queue.cancel(WAITED, ["a"])[0]
        assert (cancelled.state, cancelled.progress) == ("cancelled", progress)

    @pytest.mark.parametrize("queue", [WAITED, BACKGROUND])
    def test_one_whose_worker_died_may_have_been_carried_out(self, dying: Stores, queue: str) -> None:
        accept(dying.queue, queue, "a")
        accept(dying.queue, queue, "b")
        fetch(dying.queue, queue, free=1)
        wait_until(lambda: dying.queue.sweep(queue)[0])
        answers = dying.queue.cancel(queue, ["a", "b"])
        assert [(one.state, one.deaths) for one in answers] == [("cancelled", 1), ("cancelled", 0)]
        if queue == BACKGROUND:
            outcome = dying.queue.watch(queue, "a", dying.mailbox())
            assert outcome is not None
            with pytest.raises(CallCancelled, match="may have been carried out"):
                raise outcome.error or AssertionError

    def test_no_ids_no_answers(self, stores: Stores) -> None:
        assert stores.queue.cancel(WAITED, []) == []

    def test_a_cancelled_background_call_is_over_for_everybody(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        stores.queue.cancel(BACKGROUND, ["a"])
        outcome = stores.queue.watch(BACKGROUND, "a", stores.mailbox())
        assert outcome is not None
        assert isinstance(outcome.error, CallCancelled)
        assert stores.queue.cancel(BACKGROUND, ["a"])[0].state == "unknown"


class TestSettle:
    def test_a_finished_call_is_gone_and_its_caller_answered(self, stores: Stores) -> None:
        box = stores.mailbox()
        accept(stores.queue, WAITED, "a")
        waiter = box.expect("a", service="Chroma")
        delivery = one(stores.queue, WAITED)
        assert stores.queue.settle(delivery, Done(Outcome(response=answer(), attempts=2), box.address))
        outcome = waiter.wait(5)
        assert outcome is not None
        assert (outcome.response.status_code, outcome.response.text, outcome.attempts) == (200, "done", 2)
        assert stores.queue.standing(WAITED, "a").where == "gone"

    def test_a_retry_keeps_its_progress(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        progress = Progress().failed_attempt(Attempt(1.0, "Server error 503", 0.25))
        assert stores.queue.settle(one(stores.queue, BACKGROUND), Later(0.05, progress))
        standing = stores.queue.standing(BACKGROUND, "a")
        assert (standing.where, standing.progress) == ("due", progress)
        again = wait_until(lambda: fetch(stores.queue, BACKGROUND))[0]
        assert (again.progress, again.deaths) == (progress, 0)

    def test_what_is_released_comes_first_last_or_later(self, stores: Stores) -> None:
        for name in ("a", "b", "c", "d"):
            accept(stores.queue, BACKGROUND, name)
        a, b, c = fetch(stores.queue, BACKGROUND, free=3)
        assert stores.queue.settle(a, Release(first=False))
        assert stores.queue.settle(b, Release())
        assert stores.queue.settle(c, Release(delay=60, progress=Progress(round=1)))
        found = fetch(stores.queue, BACKGROUND)
        assert ids(found) == ["b", "d", "a"]
        assert [one.deaths for one in found] == [0, 0, 0]
        assert stores.queue.standing(BACKGROUND, "c").progress == Progress(round=1)

    def test_a_batch_that_is_released_latest_first_keeps_its_order(self, stores: Stores) -> None:
        for name in ("a", "b", "c"):
            accept(stores.queue, BACKGROUND, name)
        for delivery in reversed(fetch(stores.queue, BACKGROUND)):
            stores.queue.settle(delivery, Release())
        accept(stores.queue, BACKGROUND, "d")
        assert ids(fetch(stores.queue, BACKGROUND)) == ["a", "b", "c", "d"]

    def test_releases_do_not_count_as_deaths(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        for _ in range(5):
            stores.queue.settle(one(stores.queue, BACKGROUND), Release())
        assert one(stores.queue, BACKGROUND).deaths == 0

    def test_a_buried_call_lies_in_the_dead_letters(self, stores: Stores) -> None:
        box = stores.mailbox()
        waiter = box.expect("a", service="Chroma")
        accept(stores.queue, BACKGROUND, "a")
        outcome = Outcome(error=CallFailed("given up", service="Chroma", reason="rejected"))
        assert stores.queue.settle(one(stores.queue, BACKGROUND), Bury("rejected", outcome, box.address))
        standing = stores.queue.standing(BACKGROUND, "a")
        assert (standing.where, standing.reason) == ("dead", "rejected")
        heard = waiter.wait(5)
        assert heard is not None
        assert isinstance(heard.error, CallFailed)
        assert heard.error.reason == "rejected"

    def test_a_burial_without_an_outcome_is_a_failure_all_the_same(self, stores: Stores) -> None:
        box = stores.mailbox()
        accept(stores.queue, BACKGROUND, "a")
        waiter = box.expect("a", service="Chroma")
        stores.queue.watch(BACKGROUND, "a", box)
        stores.queue.settle(one(stores.queue, BACKGROUND), Bury("malformed"))
        for outcome in (waiter.wait(5), stores.queue.watch(BACKGROUND, "a", box)):
            assert outcome is not None
            assert isinstance(outcome.error, CallFailed)
            assert outcome.error.reason == "malformed"

    @pytest.mark.parametrize(
        "settlement", [Done(), Later(0, Progress()), Release(), Bury("x")], ids=lambda s: type(s).__name__
    )
    def test_an_older_delivery_changes_nothing(self, stores: Stores, settlement: Done | Later | Release | Bury) -> None:
        accept(stores.queue, BACKGROUND, "a")
        older = one(stores.queue, BACKGROUND)
        stores.queue.settle(older, Release())
        newer = one(stores.queue, BACKGROUND)
        assert newer.token != older.token
        assert not stores.queue.settle(older, settlement)
        assert stores.queue.standing(BACKGROUND, "a").where == "leased"
        assert stores.queue.settle(newer, Done())

    @pytest.mark.parametrize(
        ("settlement", "where"),
        [(Done(), "done"), (Later(60, Progress(attempt=1)), "due"), (Release(), "ready"), (Bury("x"), "dead")],
        ids=["done", "later", "release", "bury"],
    )
    def test_a_repeated_settlement_changes_nothing(
        self, stores: Stores, settlement: Done | Later | Release | Bury, where: str
    ) -> None:
        accept(stores.queue, BACKGROUND, "a")
        delivery = one(stores.queue, BACKGROUND)
        assert stores.queue.settle(delivery, settlement)
        assert not stores.queue.settle(delivery, settlement)
        assert stores.queue.standing(BACKGROUND, "a").where == where
        assert len(stores.queue.dead_letters(BACKGROUND)) == (where == "dead")

    def test_a_reply_is_posted_once_however_often_it_is_settled(self, stores: Stores) -> None:
        box = stores.mailbox()
        accept(stores.queue, WAITED, "a")
        delivery = one(stores.queue, WAITED)
        first = box.expect("a")
        for _ in range(3):
            stores.queue.settle(delivery, Done(Outcome(response=answer()), box.address))
        assert first.wait(5) is not None
        again = box.expect("a")
        last = box.expect("b")
        accept(stores.queue, WAITED, "b")
        stores.queue.settle(one(stores.queue, WAITED), Done(Outcome(response=answer()), box.address))
        assert last.wait(5) is not None
        assert again.wait(0) is None


class TestLease:
    def test_a_dead_workers_call_is_returned_first(self, dying: Stores) -> None:
        for name in ("b", "a", "c"):
            accept(dying.queue, BACKGROUND, name)
        assert ids(fetch(dying.queue, BACKGROUND, free=2)) == ["b", "a"]
        returned = wait_until(lambda: fetch(dying.queue, BACKGROUND, free=1))  # takes c first
        assert ids(returned) == ["c"]
        found = wait_until(lambda: fetch(dying.queue, BACKGROUND, free=2))
        assert (ids(found), [one.deaths for one in found]) == (["b", "a"], [1, 1])

    def test_a_returned_call_goes_before_those_that_wait(self, dying: Stores) -> None:
        accept(dying.queue, BACKGROUND, "a")
        one(dying.queue, BACKGROUND)
        accept(dying.queue, BACKGROUND, "b")
        wait_until(lambda: dying.queue.sweep(BACKGROUND)[0])
        assert ids(fetch(dying.queue, BACKGROUND)) == ["a", "b"]

    def test_a_heartbeat_keeps_the_lease(self, dying: Stores) -> None:
        accept(dying.queue, BACKGROUND, "a")
        held = one(dying.queue, BACKGROUND)
        accept(dying.queue, BACKGROUND, "lost")
        lost = one(dying.queue, BACKGROUND)

        def beat_until_the_other_is_lost() -> bool:
            assert dying.queue.beat("w", b"{}", [BACKGROUND], [held]) == []
            return bool(fetch(dying.queue, BACKGROUND))

        wait_until(beat_until_the_other_is_lost)
        assert dying.queue.beat("w", b"{}", [BACKGROUND], [held, lost]) == [lost]
        assert dying.queue.settle(held, Done())

    def test_what_was_finished_after_its_lease_ran_out_still_counts(self, dying: Stores) -> None:
        accept(dying.queue, BACKGROUND, "a")
        late = one(dying.queue, BACKGROUND)
        wait_until(lambda: dying.queue.sweep(BACKGROUND)[0])
        assert not dying.queue.settle(late, Later(5, Progress()))  # it is waiting already
        assert dying.queue.settle(late, Done())
        assert fetch(dying.queue, BACKGROUND) == []

    def test_the_third_death_is_poison(self, dying: Stores) -> None:
        box = dying.mailbox()
        accept(dying.queue, BACKGROUND, "a")
        waiter = box.expect("a", service="Chroma")
        dying.queue.watch(BACKGROUND, "a", box)
        for deaths in (0, 1, 2):
            assert wait_until(lambda: fetch(dying.queue, BACKGROUND))[0].deaths == deaths
        wait_until(lambda: dying.queue.sweep(BACKGROUND)[1])
        letter = dying.queue.dead_letters(BACKGROUND)[0]
        assert (letter.id, letter.reason, letter.payload) == ("a", "poison", b"payload of a")
        outcome = waiter.wait(5)
        assert outcome is not None
        assert isinstance(outcome.error, CallFailed)
        assert outcome.error.reason == "poison"
        assert fetch(dying.queue, BACKGROUND) == []

    def test_the_caller_of_a_poisonous_call_is_told(self, dying: Stores) -> None:
        """No worker is left that could tell, and the caller need not wait for its deadline."""
        mailbox = dying.mailbox()
        call = Call(id="a", service="s", origin="http://s:80", method="GET", target="/", reply_to=mailbox.address)
        waiter = mailbox.expect("a", service="S")
        dying.queue.put([Put(WAITED, "a", LocalCall(call, {}) if isinstance(dying, MemoryStores) else encode(call))])
        for _ in range(3):
            wait_until(lambda: fetch(dying.queue, WAITED))
        wait_until(lambda: dying.queue.sweep(WAITED)[1])
        outcome = waiter.wait(5.0)
        assert outcome is not None
        assert isinstance(outcome.error, CallFailed)
        assert outcome.error.reason == "poison"

    def test_nothing_is_reaped_after_nobody_looked_for_a_while(self, dying: Stores) -> None:
        """As after an outage, or when the machine slept: workers first get the time to renew what they hold."""
        accept(dying.queue, BACKGROUND, "a")
        held = one(dying.queue, BACKGROUND)
        threading.Event().wait(SHORT_LEASE * 1.5)
        assert fetch(dying.queue, BACKGROUND) == []
        assert dying.queue.beat("w", b"{}", [BACKGROUND], [held]) == []
        assert dying.queue.settle(held, Done())

    def test_the_call_of_a_superseded_dead_worker_does_not_come_back(self, dying: Stores) -> None:
        accept(dying.queue, BACKGROUND, "old", coalesce="p1")
        one(dying.queue, BACKGROUND)
        accept(dying.queue, BACKGROUND, "new", coalesce="p1")
        dying.queue.settle(one(dying.queue, BACKGROUND), Done())
        wait_until(lambda: dying.queue.sweep(BACKGROUND) and dying.queue.counts([BACKGROUND])[0].leased == 0)
        assert fetch(dying.queue, BACKGROUND) == []
        assert dying.queue.standing(BACKGROUND, "old").where == "done"


class TestExpiry:
    def test_a_waited_for_call_is_dropped(self, stores: Stores) -> None:
        accept(stores.queue, WAITED, "a", expires_in=0.03)
        accept(stores.queue, WAITED, "mark", delay=0.04)
        wait_until(lambda: stores.queue.standing(WAITED, "mark").due_in == 0)
        assert ids(fetch(stores.queue, WAITED)) == ["mark"]
        assert stores.queue.standing(WAITED, "a").where == "gone"
        assert stores.queue.dead_letters(WAITED) == []

    def test_a_background_call_is_buried_with_its_reason(self, stores: Stores) -> None:
        box = stores.mailbox()
        accept(stores.queue, BACKGROUND, "a", expires_in=0.03)
        waiter = box.expect("a", service="Chroma")
        stores.queue.watch(BACKGROUND, "a", box)
        wait_until(lambda: stores.queue.sweep(BACKGROUND)[2])
        assert [(one.id, one.reason) for one in stores.queue.dead_letters(BACKGROUND)] == [("a", "expired")]
        outcome = waiter.wait(5)
        assert outcome is not None
        assert isinstance(outcome.error, CallFailed)
        assert outcome.error.reason == "expired"

    def test_a_running_call_does_not_expire_but_its_retry_does(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a", expires_in=1.5)
        running = one(stores.queue, BACKGROUND)
        accept(stores.queue, BACKGROUND, "mark", delay=1.6)
        wait_until(lambda: fetch(stores.queue, BACKGROUND))
        assert stores.queue.sweep(BACKGROUND)[2] == 0
        assert stores.queue.settle(running, Later(0, Progress(attempt=1)))
        assert fetch(stores.queue, BACKGROUND) == []
        assert stores.queue.standing(BACKGROUND, "a").reason == "expired"


class TestGate:
    def test_an_open_breaker_pauses_only_the_background_queue(self, stores: Stores) -> None:
        stores.set_breaker("chroma", State.OPEN)
        accept(stores.queue, WAITED, "w")
        accept(stores.queue, BACKGROUND, "b")
        assert ids(fetch(stores.queue, WAITED, BACKGROUND, gate="chroma")) == ["w"]
        stores.set_breaker("chroma", State.CLOSED)
        assert ids(fetch(stores.queue, WAITED, BACKGROUND, gate="chroma")) == ["b"]

    def test_another_services_breaker_pauses_nothing(self, stores: Stores) -> None:
        stores.set_breaker("git", State.OPEN)
        accept(stores.queue, BACKGROUND, "b")
        assert ids(fetch(stores.queue, BACKGROUND, gate="chroma")) == ["b"]

    @pytest.mark.parametrize("delay", [0.0, 60.0], ids=["ready", "due"])
    def test_the_trials_call_alone_passes(self, stores: Stores, delay: float) -> None:
        for name in ("a", "b", "c"):
            accept(stores.queue, BACKGROUND, name, delay=delay)
        stores.set_breaker("chroma", State.HALF_OPEN, "b")
        found = fetch(stores.queue, WAITED, BACKGROUND, gate="chroma")
        assert [(one.id, one.trial) for one in found] == [("b", True)]
        assert fetch(stores.queue, WAITED, BACKGROUND, gate="chroma") == []
        assert stores.queue.counts([BACKGROUND])[0].leased == 1

    def test_a_trial_that_is_no_call_lets_nothing_through(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        stores.set_breaker("chroma", State.HALF_OPEN, "health:1234")
        assert fetch(stores.queue, BACKGROUND, gate="chroma") == []

    def test_a_trial_needs_a_free_slot(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        stores.set_breaker("chroma", State.HALF_OPEN, "a")
        assert fetch(stores.queue, BACKGROUND, gate="chroma", free=0) == []
        assert one(stores.queue, BACKGROUND, gate="chroma", free=1).trial

    def test_a_trial_whose_worker_died_is_not_made_again(self, dying: Stores) -> None:
        """Trials start at least recovery_timeout apart, whatever crashes; an expired lease is a failed trial."""
        accept(dying.queue, BACKGROUND, "a")
        dying.set_breaker("chroma", State.HALF_OPEN, "a")
        assert one(dying.queue, BACKGROUND, gate="chroma").trial
        wait_until(lambda: dying.queue.sweep(BACKGROUND)[0])
        assert fetch(dying.queue, BACKGROUND, gate="chroma") == []
        dying.set_breaker("chroma", State.HALF_OPEN, "a")  # taken anew
        assert one(dying.queue, BACKGROUND, gate="chroma").trial

    def test_an_expired_call_is_no_trial(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a", expires_in=0.01)
        accept(stores.queue, WAITED, "mark", delay=0.02)
        wait_until(lambda: fetch(stores.queue, WAITED))
        stores.set_breaker("chroma", State.HALF_OPEN, "a")
        assert fetch(stores.queue, BACKGROUND, gate="chroma") == []
        assert stores.queue.standing(BACKGROUND, "a").reason == "expired"

    def test_the_oldest_call_is_offered_for_a_trial(self, stores: Stores) -> None:
        assert stores.queue.oldest(BACKGROUND, "chroma").id == ""
        accept(stores.queue, BACKGROUND, "not yet", delay=60)
        assert stores.queue.oldest(BACKGROUND, "chroma").id == ""
        accept(stores.queue, BACKGROUND, "tried")
        failed = Progress().failed_round(Attempt(1.0, "Timeout", 1.0))
        stores.queue.settle(one(stores.queue, BACKGROUND), Later(60, failed))
        assert stores.queue.oldest(BACKGROUND, "chroma").id == "tried"
        accept(stores.queue, BACKGROUND, "b")
        accept(stores.queue, BACKGROUND, "c")
        assert stores.queue.oldest(BACKGROUND, "chroma").id == "b"

    def test_a_call_that_failed_its_trial_goes_to_the_back(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        accept(stores.queue, BACKGROUND, "b")
        stores.set_breaker("chroma", State.HALF_OPEN, "a")
        stores.queue.settle(one(stores.queue, BACKGROUND, gate="chroma"), Release(first=False, progress=Progress()))
        assert stores.queue.oldest(BACKGROUND, "chroma").id == "b"


class TestResults:
    def test_somebody_else_may_watch_a_call(self, stores: Stores) -> None:
        box, second = stores.mailbox(), stores.mailbox()
        accept(stores.queue, BACKGROUND, "a")
        waiters = [box.expect("a"), second.expect("a")]
        assert stores.queue.watch(BACKGROUND, "a", box) is None
        assert stores.another().watch(BACKGROUND, "a", second) is None
        stores.queue.settle(one(stores.queue, BACKGROUND), Done(Outcome(response=answer(201)), keep=60))
        heard = [waiter.wait(5) for waiter in waiters]
        assert [outcome.response.status_code for outcome in heard if outcome] == [201, 201]

    def test_two_threads_may_wait_for_one_call(self, stores: Stores) -> None:
        box = stores.mailbox()
        accept(stores.queue, BACKGROUND, "a")
        waiters = [box.expect("a"), box.expect("a"), box.expect("a")]
        assert [stores.queue.watch(BACKGROUND, "a", box) for _ in waiters] == [None] * 3
        box.forget("a")  # one gives up
        stores.queue.settle(one(stores.queue, BACKGROUND), Done(Outcome(response=answer()), keep=60))
        assert all(waiter.wait(5) is not None for waiter in waiters[1:])

    def test_a_result_is_kept_for_who_asks_later(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        stores.queue.settle(one(stores.queue, BACKGROUND), Done(Outcome(response=answer(body=b"kept")), keep=60))
        outcome = stores.another().watch(BACKGROUND, "a", stores.mailbox())
        assert outcome is not None
        assert outcome.response.text == "kept"
        assert stores.queue.standing(BACKGROUND, "a").where == "done"

    def test_an_error_is_kept_as_well(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        error = requests.ConnectTimeout("no connection")
        stores.queue.settle(one(stores.queue, BACKGROUND), Done(Outcome(error=error), keep=60))
        outcome = stores.queue.watch(BACKGROUND, "a", stores.mailbox())
        assert outcome is not None
        assert isinstance(outcome.error, requests.ConnectTimeout)

    def test_a_result_that_nobody_asked_to_keep_says_so(self, stores: Stores) -> None:
        box = stores.mailbox()
        accept(stores.queue, BACKGROUND, "a")
        waiter = box.expect("a", service="Chroma")
        stores.queue.watch(BACKGROUND, "a", box)
        stores.queue.settle(one(stores.queue, BACKGROUND), Done(Outcome(response=answer())))
        for outcome in (waiter.wait(5), stores.queue.watch(BACKGROUND, "a", box)):
            assert outcome is not None
            assert isinstance(outcome.error, ResultExpired)
        standing = stores.queue.standing(BACKGROUND, "a")
        assert standing.where == "done"
        assert standing.outcome is not None
        assert standing.outcome.error is None  # it did succeed

    def test_an_error_is_remembered_even_if_no_result_is_kept(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        stores.queue.settle(one(stores.queue, BACKGROUND), Done(Outcome(error=requests.ConnectionError("refused"))))
        standing = stores.queue.standing(BACKGROUND, "a")
        assert standing.outcome is not None
        assert isinstance(standing.outcome.error, requests.ConnectionError)

    def test_what_never_was_or_is_long_over_has_no_result(self, stores: Stores) -> None:
        with pytest.raises(ResultExpired, match="never"):
            stores.queue.watch(BACKGROUND, "never", stores.mailbox())
        assert stores.queue.standing(BACKGROUND, "never").where == "gone"

    def test_a_dead_letter_answers_who_asks_for_its_result(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        stores.queue.settle(one(stores.queue, BACKGROUND), Bury("rejected"))
        outcome = stores.queue.watch(BACKGROUND, "a", stores.mailbox())
        assert outcome is not None
        assert isinstance(outcome.error, CallFailed)
        assert outcome.error.reason == "rejected"


class TestLooking:
    def test_a_calls_places(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        assert stores.queue.standing(BACKGROUND, "a").where == "ready"
        delivery = one(stores.queue, BACKGROUND)
        assert stores.queue.standing(BACKGROUND, "a").where == "leased"
        stores.queue.settle(delivery, Later(60, Progress(attempt=1)))
        due = stores.queue.standing(BACKGROUND, "a")
        assert due.where == "due"
        assert due.due_in is not None
        assert 55 < due.due_in <= 60

    def test_counts(self, stores: Stores) -> None:
        for name in ("leased", "dead", "ready"):
            accept(stores.queue, BACKGROUND, name)
        _, dead = fetch(stores.queue, BACKGROUND, free=2)
        stores.queue.settle(dead, Bury("x"))
        accept(stores.queue, BACKGROUND, "due", delay=60)
        stores.queue.beat("w", b"{}", [BACKGROUND], [])
        counts, empty = stores.queue.counts([BACKGROUND, WAITED])
        assert (counts.ready, counts.due, counts.leased, counts.dead, counts.workers) == (1, 1, 1, 1, 1)
        assert (empty.ready, empty.oldest) == (0, 0)
        assert wait_until(lambda: stores.queue.counts([BACKGROUND])[0].oldest) > 0
        assert stores.queue.counts([BACKGROUND])[0].oldest < 5
        assert stores.queue.counts([]) == []

    def test_queues_and_workers_are_known_by_name(self, stores: Stores) -> None:
        accept(stores.queue, WAITED, "a")
        stores.queue.beat("w1", b'{"pid": 1}', [BACKGROUND], [])
        assert stores.queue.queues() == [BACKGROUND, WAITED]
        assert stores.queue.workers() == [b'{"pid": 1}']

    def test_a_worker_that_left_serves_nothing(self, stores: Stores) -> None:
        stores.queue.beat("w1", b"one", [WAITED, BACKGROUND], [])
        stores.queue.beat("w2", b"two", [WAITED], [])
        stores.queue.leave("w1", [WAITED, BACKGROUND])
        assert [stores.queue.workers_serving(name) for name in (WAITED, BACKGROUND)] == [1, 0]
        assert stores.queue.workers() == [b"two"]
        stores.queue.leave("w1", [WAITED, BACKGROUND])


class TestDeadLetters:
    def _bury(self, stores: Stores, *names: str) -> None:
        for name in names:
            accept(stores.queue, BACKGROUND, name)
            stores.queue.settle(one(stores.queue, BACKGROUND), Bury("rejected"))

    def test_the_last_attempt_is_in_its_history(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        progress = Progress(round=1, history=(Attempt(1.0, "Server error 500", 0.1),))
        stores.queue.settle(one(stores.queue, BACKGROUND), Bury("rounds used up", progress=progress))
        assert [letter.progress for letter in stores.queue.dead_letters(BACKGROUND)] == [progress]

    def test_they_are_listed_oldest_first_and_by_the_page(self, stores: Stores) -> None:
        self._bury(stores, "a", "b", "c")
        assert [letter.id for letter in stores.queue.dead_letters(BACKGROUND)] == ["a", "b", "c"]
        page = stores.queue.dead_letters(BACKGROUND, offset=1, count=1)
        assert [(one.id, one.reason, one.payload, one.queue) for one in page] == [
            ("b", "rejected", b"payload of b", BACKGROUND)
        ]
        assert page[0].at > 1_600_000_000
        assert stores.queue.dead_letters(WAITED) == []

    def test_a_look_for_a_reason_reads_no_others(self, stores: Stores) -> None:
        for name in ("a", "b", "c", "d"):
            accept(stores.queue, BACKGROUND, name)
            stores.queue.settle(one(stores.queue, BACKGROUND), Bury("rejected" if name in "bd" else "poison"))
        first = stores.queue.dead_page(BACKGROUND, 0, 1, "rejected")
        assert ([letter.id for letter in first.letters], first.next) == (["b"], 2)
        rest = stores.queue.dead_page(BACKGROUND, 2, 10, "rejected")
        assert ([letter.id for letter in rest.letters], rest.next) == (["d"], None)
        nothing = stores.queue.dead_page(BACKGROUND, 0, 10, "expired")
        assert (nothing.letters, nothing.next) == ([], None)

    def test_a_replayed_call_is_a_new_start_under_the_same_id(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        first = one(stores.queue, BACKGROUND)
        stores.queue.settle(first, Later(0, Progress(attempt=2)))
        stores.queue.settle(one(stores.queue, BACKGROUND), Bury("x"))
        assert stores.queue.replay(BACKGROUND, "a", 60)
        assert not stores.queue.replay(BACKGROUND, "a", 60)
        again = one(stores.queue, BACKGROUND)
        assert (again.id, again.payload, again.progress, again.deaths) == ("a", b"payload of a", Progress(), 0)
        assert stores.queue.dead_letters(BACKGROUND) == []
        assert not stores.queue.settle(first, Done())  # of its earlier life
        assert stores.queue.settle(again, Done())

    def test_a_replayed_call_may_be_watched_again(self, stores: Stores) -> None:
        self._bury(stores, "a")
        stores.queue.replay(BACKGROUND, "a", 60)
        box = stores.mailbox()
        waiter = box.expect("a")
        assert stores.queue.watch(BACKGROUND, "a", box) is None
        stores.queue.settle(one(stores.queue, BACKGROUND), Done(Outcome(response=answer()), keep=60))
        outcome = waiter.wait(5)
        assert outcome is not None
        assert outcome.response.status_code == 200

    def test_a_purged_letter_is_gone(self, stores: Stores) -> None:
        self._bury(stores, "a", "b")
        assert stores.queue.purge(BACKGROUND, "a")
        assert not stores.queue.purge(BACKGROUND, "a")
        assert not stores.queue.replay(BACKGROUND, "a", 60)
        assert [letter.id for letter in stores.queue.dead_letters(BACKGROUND)] == ["b"]


class TestGroups:
    def test_the_queues_of_a_group_share_its_free_slots_the_first_one_first(self, stores: Stores) -> None:
        for number in range(3):
            accept(stores.queue, BACKGROUND, f"b{number}")
            accept(stores.queue, WAITED, f"w{number}")
        assert ids(fetch(stores.queue, WAITED, BACKGROUND, free=4)) == ["w0", "w1", "w2", "b0"]

    def test_a_limit_holds_for_one_queue(self, stores: Stores) -> None:
        for number in range(3):
            accept(stores.queue, BACKGROUND, f"b{number}")
        assert ids(fetch(stores.queue, BACKGROUND, free=4, limit=1)) == ["b0"]

    def test_groups_do_not_take_each_others_slots(self, stores: Stores) -> None:
        for number in range(3):
            accept(stores.queue, "a.waited", f"a{number}")
            accept(stores.queue, "b.waited", f"b{number}")
        found = stores.queue.fetch([Group(1, (Want("a.waited", "", 1),)), Group(2, (Want("b.waited", "", 2),))])
        assert ids(found.deliveries) == ["a0", "b0", "b1"]

    def test_a_queue_without_room_asks_nobody_to_come_back_at_once(self, stores: Stores) -> None:
        """A fetcher sleeps until the next due call; for one that it has no room for it would spin."""
        accept(stores.queue, BACKGROUND, "a", delay=0.01)
        wait_until(lambda: stores.queue.standing(BACKGROUND, "a").due_in == 0)
        fetched = stores.queue.fetch([Group(1, (Want(WAITED, "", 1), Want(BACKGROUND, "", 0)))])
        assert fetched.deliveries == ()
        assert fetched.next_due_in is None

    def test_an_empty_fetch_is_allowed(self, stores: Stores) -> None:
        assert stores.queue.fetch([]).deliveries == ()

    def test_flush_drops_what_waits(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        accept(stores.queue, BACKGROUND, "b", delay=60)
        stores.queue.flush(BACKGROUND)
        counts = stores.queue.counts([BACKGROUND])[0]
        assert (counts.ready, counts.due, counts.leased) == (0, 0, 0)


class TestWaiting:
    @pytest.mark.parametrize("wake", ["put", "poke"])
    def test_a_sleeper_is_woken(self, stores: Stores, wake: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_wake, "POLL_SECONDS", 30)
        asleep, awake = threading.Event(), threading.Event()

        def sleep() -> None:
            asleep.set()
            stores.queue.wait([BACKGROUND], 30)
            awake.set()

        thread = threading.Thread(target=sleep)
        thread.start()
        assert asleep.wait(5)
        if wake == "put":
            accept(stores.queue, BACKGROUND, "a")
        else:
            stores.queue.poke()
        assert awake.wait(10)
        thread.join()

    def test_a_poke_before_the_sleep_is_not_lost(self, stores: Stores) -> None:
        stores.queue.poke()
        stores.queue.wait([BACKGROUND], 30)

    def test_a_sleep_ends_by_itself(self, stores: Stores) -> None:
        stores.queue.wait([BACKGROUND], 0.01)
        stores.queue.wait([], 0.01)
