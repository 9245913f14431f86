"""What is counted of calls: once for each end, where the end is decided. Asked of both stores."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

import pytest

from seawall.actors.queue_store import Bury, Done, Put
from seawall.actors.tally import Tally
from seawall.errors import BrokerUnavailable
from tests.integration.stores import MemoryStores, RedisStores, Stores, accept, fetch, ids, one
from tests.support import wait_until

WAITED, BACKGROUND = "chroma.waited", "chroma.background"
ENDED = ("chroma", "calls.background.succeeded")


@pytest.fixture(params=["memory", "redis"])
def stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    opened: Stores
    if request.param == "memory":
        opened = MemoryStores(lease=0.2)
    else:
        opened = RedisStores(request.getfixturevalue("redis_url"), lease=0.2)
    yield opened
    opened.close()


def counted(stores: Stores) -> dict[str, int]:
    return {what: times for (service, what), times in stores.queue.tally().items() if service == "chroma"}


class TestSettlements:
    def test_an_end_is_counted_with_the_step_that_ends_it_and_never_twice(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        delivery = one(stores.queue, BACKGROUND)
        assert stores.queue.settle(delivery, Done(ended=ENDED))
        assert not stores.queue.settle(delivery, Done(ended=ENDED))  # the worker had lost the answer
        assert counted(stores) == {"calls.background.succeeded": 1}

    def test_a_late_worker_counts_nothing(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        late = one(stores.queue, BACKGROUND)
        assert wait_until(lambda: stores.queue.sweep(BACKGROUND)[0])
        again = one(stores.queue, BACKGROUND)
        assert not stores.queue.settle(late, Done(ended=ENDED))
        assert stores.queue.settle(again, Done(ended=ENDED))
        assert counted(stores) == {"calls.background.succeeded": 1}

    def test_an_end_and_a_fetch_in_one_step(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        settled, _ = stores.queue.settle_and_fetch(one(stores.queue, BACKGROUND), Done(ended=ENDED), ())
        assert settled
        assert counted(stores)["calls.background.succeeded"] == 1


class TestEndsThatNoWorkerDecides:
    def test_dead_letters_by_reason(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        stores.queue.settle(one(stores.queue, BACKGROUND), Bury("rounds used up"))
        assert counted(stores) == {"dead.rounds used up": 1, "calls.background.dead": 1}

    def test_expired_ones(self, stores: Stores) -> None:
        for queue in (BACKGROUND, WAITED):
            accept(stores.queue, queue, "a", expires_in=0.01)
        wait_until(lambda: sum(stores.queue.sweep(queue)[2] for queue in (BACKGROUND, WAITED)))
        wait_until(lambda: "calls.waited.expired" in counted(stores) or stores.queue.sweep(WAITED)[2])
        wait_until(lambda: "dead.expired" in counted(stores) or stores.queue.sweep(BACKGROUND)[2])
        assert counted(stores) == {"calls.waited.expired": 1, "dead.expired": 1, "calls.background.dead": 1}

    @pytest.mark.parametrize("outcome", ["expired", "refused"])
    def test_those_that_were_taken_back_for_a_reason(self, stores: Stores, outcome: str) -> None:
        accept(stores.queue, WAITED, "a")
        stores.queue.cancel(WAITED, ["a"], outcome)
        assert counted(stores) == {f"calls.waited.{outcome}": 1}

    def test_those_that_were_taken_back(self, stores: Stores) -> None:
        accept(stores.queue, WAITED, "a")
        stores.queue.cancel(WAITED, ["a", "a", "unknown"])
        assert counted(stores) == {"calls.waited.cancelled": 1}


class TestGathering:
    def test_closing_waits_for_an_addition_under_way(self, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
        """It may fail after all, and give back what it was to add."""
        begun, goes_on = threading.Event(), threading.Event()
        count = stores.queue.count

        def away(counts: Mapping[tuple[str, str], int]) -> None:
            monkeypatch.setattr(stores.queue, "count", count)
            begun.set()
            goes_on.wait(10)
            raise BrokerUnavailable("away for a moment", written=False)

        monkeypatch.setattr(stores.queue, "count", away)
        tally = Tally(stores.queue)
        tally.add("chroma", "refused")
        assert begun.wait(10)
        closing = threading.Thread(target=tally.close)
        closing.start()
        closing.join(0.1)
        assert closing.is_alive()
        goes_on.set()
        closing.join(10)
        assert counted(stores) == {"refused": 1}


class TestWaiting:
    def test_a_delivery_knows_since_when_it_could_have_started(self, stores: Stores) -> None:
        begin = stores.breakers.now()
        accept(stores.queue, BACKGROUND, "a")
        before = stores.breakers.now()
        accept(stores.queue, BACKGROUND, "b", delay=0.05)
        after = stores.breakers.now()
        first = one(stores.queue, BACKGROUND, free=1)
        assert begin - 0.1 < first.ready_at <= first.fetched_at
        found = wait_until(lambda: fetch(stores.queue, BACKGROUND))
        assert before + 0.02 <= found[0].ready_at <= after + 0.08


class TestPauses:
    def test_background_calls_wait_until_somebody_resumes(self, stores: Stores) -> None:
        accept(stores.queue, BACKGROUND, "a")
        stores.queue.put([Put(WAITED, "w", b"")])
        stores.queue.pause(BACKGROUND, "chroma")
        assert stores.queue.paused(["chroma", "git"]) == [True, False]
        assert ids(fetch(stores.queue, WAITED, BACKGROUND, gate="chroma")) == ["w"]
        stores.queue.hold("chroma", 0.001)  # a Retry-After ends no pause
        assert fetch(stores.queue, BACKGROUND, gate="chroma") == []
        stores.queue.resume(BACKGROUND, "chroma")
        assert stores.queue.paused(["chroma"]) == [False]
        assert ids(fetch(stores.queue, BACKGROUND, gate="chroma")) == ["a"]
