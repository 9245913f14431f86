"""A waited-for call that finds the queue empty is handed to whoever waits there, without a fetch."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from seawall.actors.queue_store import Delivery, Done, Group, Later, Put, Release, Want
from seawall.actors.record import Progress
from seawall.actors.redis_queue import RedisQueue
from tests.integration.stores import RedisStores, accept, fetch, ids, one, server_time
from tests.support import wait_until

WAITED, BACKGROUND = "chroma.waited", "chroma.background"
LEASE = 0.4


@pytest.fixture
def stores(redis_url: str) -> Iterator[RedisStores]:
    opened = RedisStores(redis_url, lease=5.0)
    serve(opened)
    yield opened
    opened.close()


@pytest.fixture
def inside(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def serve(stores: RedisStores) -> None:
    """Somebody says that it serves the queue; otherwise nothing is handed over."""
    stores.queue.beat("w", b"{}", [WAITED, BACKGROUND], [])


def hand(stores: RedisStores, id: str, **more: Any) -> None:
    assert accept(stores.queue, WAITED, id, hand=True, **more).accepted


def waiting(inside: redis.Redis) -> list[bytes]:
    return inside.lrange(f"test:q:{WAITED}:wake", 0, -1)


def popped(queue: RedisQueue, *queues: str) -> list[Delivery]:
    return list(queue.wait(queues or (WAITED, BACKGROUND), 5))


class TestToTheOneWhoWaits:
    def test_it_comes_with_all_that_a_fetch_would_bring(self, stores: RedisStores, inside: redis.Redis) -> None:
        worker = stores.another()
        before = server_time(stores.link)()
        with ThreadPoolExecutor(1) as pool:
            sleeper = pool.submit(popped, worker)
            wait_until(lambda: inside.info("clients")["blocked_clients"] == 1)
            hand(stores, "a", expires_in=30)
            (delivery,) = sleeper.result(5)
        assert (delivery.queue, delivery.id, delivery.token, delivery.deaths) == (WAITED, "a", 1, 0)
        assert (delivery.payload, delivery.progress, delivery.trial) == (b"payload of a", Progress(), False)
        assert before - 0.1 <= delivery.fetched_at <= server_time(stores.link)()
        assert delivery.start_by == pytest.approx(delivery.fetched_at + 30, abs=0.01)
        assert fetch(stores.queue, WAITED) == []
        assert worker.settle(delivery, Done())
        assert stores.queue.standing(WAITED, "a").where == "gone"
        assert waiting(inside) == []

    def test_a_payload_is_any_bytes(self, stores: RedisStores) -> None:
        payload = bytes(range(256)) * 8
        stores.queue.put([_put("a", payload)])
        assert [delivery.payload for delivery in popped(stores.another())] == [payload]

    def test_what_comes_while_it_is_busy_waits_in_order(self, stores: RedisStores) -> None:
        for name in ("a", "b", "c"):
            hand(stores, name)
        worker = stores.another()
        assert ids(popped(worker)) == ["a"]
        assert popped(worker) == []  # a token: there is more
        assert ids(fetch(worker, WAITED)) == ["b", "c"]

    def test_a_fetch_takes_it_too_and_takes_it_first(self, stores: RedisStores, inside: redis.Redis) -> None:
        for name in ("a", "b"):
            hand(stores, name)
        assert stores.queue.counts([WAITED])[0].ready == 2
        found = fetch(stores.queue, WAITED)
        assert ids(found) == ["a", "b"]
        assert [one.token for one in found] == [1, 1]
        assert stores.queue.counts([WAITED])[0].leased == 2
        assert waiting(inside) == []

    def test_a_retry_comes_back_as_any_other(self, stores: RedisStores) -> None:
        hand(stores, "a")
        (delivery,) = popped(stores.another())
        assert stores.queue.settle(delivery, Later(0.001, Progress(attempt=1)))
        again = wait_until(lambda: fetch(stores.queue, WAITED))[0]
        assert (again.token, again.progress.attempt) == (2, 1)
        assert not stores.queue.settle(delivery, Done())
        assert stores.queue.settle(again, Done())

    def test_a_heartbeat_keeps_it(self, redis_url: str) -> None:
        dying = RedisStores(redis_url, lease=LEASE)
        serve(dying)
        hand(dying, "a")
        (delivery,) = popped(dying.another())
        ends = time.monotonic() + 2 * LEASE
        while time.monotonic() < ends:
            assert dying.queue.beat("w", b"{}", [WAITED], [delivery]) == []
            assert dying.queue.sweep(WAITED) == (0, 0, 0)
            threading.Event().wait(LEASE / 8)
        assert dying.queue.settle(delivery, Done())
        dying.close()


class TestNotHandedOver:
    @pytest.mark.parametrize(
        "more",
        [{"hand": False}, {"delay": 0.01, "hand": True}, {"large": True, "hand": True}],
        ids=["not asked for", "delayed", "large"],
    )
    def test_what_is_not_meant_for_it(self, stores: RedisStores, inside: redis.Redis, more: dict[str, Any]) -> None:
        more = dict(more)
        large = more.pop("large", False)
        stores.queue.put([_put("a", b"x" * (20_000 if large else 10), **more)])
        assert waiting(inside) in ([b"1"], [])
        assert ids(wait_until(lambda: fetch(stores.queue, WAITED))) == ["a"]

    def test_nobody_serves_the_queue(self, redis_url: str, inside: redis.Redis) -> None:
        alone = RedisStores(redis_url, lease=5)
        hand(alone, "a")
        assert waiting(inside) == [b"1"]
        alone.close()

    def test_somebody_is_before_it(self, stores: RedisStores, inside: redis.Redis) -> None:
        accept(stores.queue, WAITED, "first")
        hand(stores, "second")
        assert ids(fetch(stores.queue, WAITED)) == ["first", "second"]


class TestToNobody:
    """It lies in the wake list, under a lease, and nobody has popped it."""

    def test_it_can_be_taken_back(self, stores: RedisStores, inside: redis.Redis) -> None:
        hand(stores, "a")
        assert stores.queue.cancel(WAITED, ["a"])[0].state == "cancelled"
        assert waiting(inside) == []
        assert stores.queue.standing(WAITED, "a").where == "gone"

    def test_one_that_was_popped_runs(self, stores: RedisStores) -> None:
        hand(stores, "a")
        assert ids(popped(stores.another())) == ["a"]
        assert stores.queue.cancel(WAITED, ["a"])[0].state == "running"

    def test_it_is_never_started_late(self, stores: RedisStores, inside: redis.Redis) -> None:
        hand(stores, "a", expires_in=0.01)
        now = server_time(stores.link)
        ends = now() + 0.02
        wait_until(lambda: now() > ends)
        assert fetch(stores.queue, WAITED) == []
        assert stores.queue.standing(WAITED, "a").where == "gone"
        assert inside.keys(f"test:q:{WAITED}:*") == [f"test:q:{WAITED}:serving".encode()]

    def test_who_pops_it_late_is_told_its_time(self, stores: RedisStores) -> None:
        """Without asking the server it can only be compared with what is known of its clock."""
        hand(stores, "a", expires_in=0.01)
        (delivery,) = popped(stores.another())
        assert delivery.start_by == pytest.approx(delivery.fetched_at + 0.01, abs=0.002)

    def test_when_its_lease_ends_no_worker_has_died_of_it(self, redis_url: str) -> None:
        dying = RedisStores(redis_url, lease=LEASE)
        serve(dying)
        hand(dying, "a")
        hand(dying, "b")

        def returned() -> bool:
            serve(dying)
            return dying.queue.sweep(WAITED)[0] == 1

        wait_until(returned)
        found = fetch(dying.queue, WAITED)
        assert ids(found) == ["a", "b"]
        assert [one.deaths for one in found] == [0, 0]
        dying.close()

    def test_of_one_that_was_popped_a_worker_has(self, redis_url: str) -> None:
        dying = RedisStores(redis_url, lease=LEASE)
        serve(dying)
        hand(dying, "a")
        assert ids(popped(dying.another())) == ["a"]

        def returned() -> bool:
            serve(dying)
            return dying.queue.sweep(WAITED)[0] == 1

        wait_until(returned)
        assert [delivery.deaths for delivery in fetch(dying.queue, WAITED)] == [1]
        dying.close()


class TestPassedOn:
    def test_a_fetcher_without_room_leaves_it_to_another(self, stores: RedisStores, inside: redis.Redis) -> None:
        full, idle = stores.another(), stores.another()
        assert full.wait([WAITED], 0.01) == ()  # its pop stays under way, the first in the line
        with ThreadPoolExecutor(2) as pool:
            idler = pool.submit(popped, idle)
            wait_until(lambda: inside.info("clients")["blocked_clients"] == 2)
            fuller = pool.submit(full.wait, [WAITED], 30, lambda queue: False)
            hand(stores, "a")
            assert ids(idler.result(5)) == ["a"]
            assert fuller.result(5) == ()

    def test_one_that_stops_leaves_it_too(self, stores: RedisStores, inside: redis.Redis) -> None:
        stopping = stores.another()
        assert stopping.wait([WAITED], 0.01) == ()
        hand(stores, "a")  # it is on its way to the one who stops
        stopping.rest([WAITED])
        assert ids(popped(stores.another())) == ["a"]

    def test_given_back_it_is_the_first_again(self, stores: RedisStores) -> None:
        hand(stores, "a")
        hand(stores, "b")
        (delivery,) = popped(stores.another())
        assert stores.queue.settle(delivery, Release())
        assert ids(fetch(stores.queue, WAITED)) == ["a", "b"]


class TestInOneStep:
    def test_a_call_ends_and_the_next_one_comes(self, stores: RedisStores) -> None:
        for number in range(4):
            accept(stores.queue, BACKGROUND, f"c{number}")
        delivery = one(stores.queue, BACKGROUND, free=1)
        group = Group(1, (Want(WAITED, "", 1), Want(BACKGROUND, "", 1)))
        order = [delivery.id]
        while True:
            settled, fetched = stores.queue.settle_and_fetch(delivery, Done(), [group])
            assert settled
            if not fetched.deliveries:
                break
            (delivery,) = fetched.deliveries
            order.append(delivery.id)
        assert order == ["c0", "c1", "c2", "c3"]
        assert stores.queue.counts([BACKGROUND])[0].leased == 0

    @pytest.mark.parametrize("ending", [Later(60, Progress(attempt=1)), Release(first=False, delay=60)])
    def test_whatever_becomes_of_it(self, stores: RedisStores, ending: Later | Release) -> None:
        for name in ("a", "b"):
            accept(stores.queue, BACKGROUND, name)
        delivery = one(stores.queue, BACKGROUND, free=1)
        group = Group(1, (Want(BACKGROUND, "", 1),))
        settled, fetched = stores.queue.settle_and_fetch(delivery, ending, [group])
        assert settled
        assert ids(fetched.deliveries) == ["b"]
        assert fetched.due_in[0] is None  # there is no room for it now
        settled, fetched = stores.queue.settle_and_fetch(fetched.deliveries[0], Done(), [group])
        assert settled
        assert fetched.due_in[0] == pytest.approx(60, abs=10)

    def test_an_older_delivery_fetches_all_the_same(self, stores: RedisStores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        older = one(stores.queue, BACKGROUND)
        stores.queue.settle(older, Release())
        newer = one(stores.queue, BACKGROUND)
        accept(stores.queue, BACKGROUND, "b")
        settled, fetched = stores.queue.settle_and_fetch(older, Done(), [Group(1, (Want(BACKGROUND, "", 1),))])
        assert not settled
        assert ids(fetched.deliveries) == ["b"]
        assert stores.queue.settle(newer, Done())


def _put(id: str, payload: bytes, **more: Any) -> Put:
    return Put(WAITED, id, payload, **({"hand": True} | more))
