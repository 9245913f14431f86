"""The queue in Redis where it differs from its twin: what it leaves behind, what it costs, and what happens in an outage."""

from __future__ import annotations

import contextlib
import itertools
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import redis

from seawall.actors import redis_wake
from seawall.actors.queue_store import (
    Accepted,
    Bury,
    DeadPage,
    Done,
    Group,
    Later,
    Oldest,
    Put,
    QueueStore,
    Release,
    Want,
)
from seawall.actors.record import Progress, Reply, encode
from seawall.actors.redis_mailbox import RedisMailbox
from seawall.actors.redis_queue import RedisQueue
from seawall.actors.replies import Outcome
from seawall.errors import BrokerUnavailable, QueueFull
from seawall.redis_link import ANSWER_TIMEOUT, RedisLink, load_script
from seawall.supervisor.breaker import State
from tests.integration.stores import RedisStores, accept, answer, fake_time, fetch, ids, one, server_time
from tests.support import PrivateRedis, wait_until
from tests.support.dead_letters import bury
from tests.support.ports import free_port
from tests.support.proxy import Proxy

WAITED, BACKGROUND = "chroma.waited", "chroma.background"
#: Seconds; everything typed happens within this time, and within so many more where this process stands still meanwhile.
TYPED, ROOM = 2.0, 1.5
LEASE = 0.4


@pytest.fixture
def stores(redis_url: str) -> Iterator[RedisStores]:
    opened = RedisStores(redis_url, lease=5.0)
    yield opened
    opened.close()


@pytest.fixture
def fragile(own_redis: PrivateRedis) -> Iterator[RedisStores]:
    """Stores over a server that the test may stop, with short leases."""
    opened = RedisStores(own_redis.url, lease=LEASE, patience=ANSWER_TIMEOUT)
    yield opened
    opened.close()


@pytest.fixture
def alone(own_redis: PrivateRedis) -> Iterator[RedisStores]:
    """Stores over a server of the test's own that is always there."""
    opened = RedisStores(own_redis.url, lease=5.0)
    yield opened
    opened.close()


@pytest.fixture
def inside(redis_url: str) -> Iterator[redis.Redis]:
    """A client for looking at what is there."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


class TestConnections:
    @pytest.fixture
    def port(self, tmp_path: Path) -> Iterator[int]:
        """A server that is reached by TCP, and has a password."""
        number = free_port()
        server = PrivateRedis(tmp_path, port=str(number))
        server.start()
        with server.client() as inside:
            inside.config_set("requirepass", "open")
        yield number
        server.stop()

    def test_a_queue_over_tcp_with_a_password(self, port: int) -> None:
        """Not only over a unix socket: redis-py treats the two differently."""
        stores = RedisStores(f"redis://:open@127.0.0.1:{port}/0", lease=5)
        box = stores.mailbox()
        waiter = box.expect("a")
        accept(stores.queue, WAITED, "a")
        stores.queue.wait([WAITED], 5)
        stores.queue.settle(one(stores.queue, WAITED), Done(Outcome(response=answer()), box.address))
        assert waiter.wait(5) is not None
        stores.close()

    @pytest.mark.parametrize("login", ["", ":wrong@"])
    def test_a_wrong_password_is_typed_and_not_shown(self, port: int, login: str) -> None:
        stores = RedisStores(f"redis://{login}127.0.0.1:{port}/0", lease=5)
        with pytest.raises(BrokerUnavailable) as caught:
            fetch(stores.queue, WAITED)
        assert "wrong" not in str(caught.value)
        stores.close()

    def test_what_cannot_be_sent_fails_alone(self, stores: RedisStores) -> None:
        """Commands of many threads share a write: one that has no bytes must not spoil the others'."""
        with ThreadPoolExecutor(8) as pool:
            puts = [pool.submit(accept, stores.queue, "\ud800" if n == 4 else WAITED, f"c{n}") for n in range(8)]
            errors = [put.exception(5) for put in puts]
        assert [type(error) for error in errors if error] == [ValueError]
        assert stores.queue.counts([WAITED])[0].ready == 7


class TestVeryMany:
    """A round trip whose answer takes too long is given up: very many calls go in several."""

    def test_go_in_several_trips(self, stores: RedisStores, monkeypatch: pytest.MonkeyPatch) -> None:
        trips = self._trips(stores, monkeypatch)
        answers = stores.queue.put([Put(BACKGROUND, f"b{number}", b"-") for number in range(5000)])
        assert [getattr(answer, "accepted", answer) for answer in answers] == [True] * 5000
        assert trips == [10, 10, 5]
        assert stores.queue.counts([BACKGROUND])[0].ready == 5000

    def test_tell_each_call_what_is_known_of_it_when_the_broker_is_lost(
        self, stores: RedisStores, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._trips(stores, monkeypatch, lost_in=2)
        answers = stores.queue.put([Put(BACKGROUND, f"b{number}", b"-") for number in range(5000)])
        assert all(isinstance(answer, Accepted) for answer in answers[:2000])
        assert [getattr(answer, "written", None) for answer in answers[2000:]] == [True] * 2000 + [False] * 1000

    def test_raise_when_nothing_is_known_to_be_queued(
        self, stores: RedisStores, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._trips(stores, monkeypatch, lost_in=1)
        with pytest.raises(BrokerUnavailable):
            stores.queue.put([Put(BACKGROUND, f"b{number}", b"-") for number in range(5000)])

    @staticmethod
    def _trips(stores: RedisStores, monkeypatch: pytest.MonkeyPatch, *, lost_in: int = 0) -> list[int]:
        """How many scripts each trip has; the one with this number is lost on its way."""
        trips: list[int] = []
        link = stores.queue._link  # type: ignore[attr-defined]
        send = link.try_many

        def counted(calls: Any) -> Any:
            trips.append(len(calls))
            if len(trips) == lost_in:
                raise BrokerUnavailable("lost", written=True)
            return send(calls)

        monkeypatch.setattr(link, "try_many", counted)
        return trips


class TestDeadLetters:
    def test_one_look_is_short_however_large_or_many_they_are(self, stores: RedisStores) -> None:
        bury(stores.queue, BACKGROUND, {f"{n:02}": b"x" * 400_000 for n in range(7)}, reason="poison")
        large = stores.queue.dead_page(BACKGROUND, 0, 100)
        assert (len(large.letters), large.next) == (3, 3)
        assert len(stores.queue.dead_letters(BACKGROUND)) == 7
        bury(stores.queue, "mail.background", {f"{n:04}": b"x" for n in range(1200)}, reason="poison")
        assert stores.queue.dead_page("mail.background", 0, 100, "expired") == DeadPage([], 1000)
        assert stores.queue.dead_page("mail.background", 1000, 100, "expired") == DeadPage([], None)


class TestWhatIsLeftBehind:
    #: Sets and marks that stay: one per queue, worker or service, however many calls there were.
    BOOKKEEPING = frozenset({"queues", "workers", "seen", "counts", "q:*:wake", "q:*:serving", "q:*:ended"})

    def test_settled_calls_leave_only_what_expires(self, stores: RedisStores, inside: redis.Redis) -> None:
        box = stores.mailbox()
        reader = threading.Thread(target=box.expect("nothing that comes").wait, args=(30,))
        reader.start()  # it takes out what it has read
        for number in range(100):
            accept(stores.queue, WAITED, f"w{number}", expires_in=60)
            accept(stores.queue, BACKGROUND, f"b{number}", coalesce=f"p{number % 60}", expires_in=60, cap=1000)
            accept(stores.queue, BACKGROUND, f"d{number}", delay=0.001)
        self._live_on(stores, box.address)
        for letter in stores.queue.dead_letters(BACKGROUND, count=1000):
            assert stores.queue.purge(BACKGROUND, letter.id)
        stores.queue.leave("w", [WAITED, BACKGROUND])
        wait_until(lambda: self._takes_out_what_was_read(stores, box, inside))
        box.close()
        reader.join()
        kept = {key for key in self._keys(inside) if inside.ttl(key) < 0}
        assert {self._shape(key) for key in kept} <= self.BOOKKEEPING
        expiring = Counter(self._shape(key) for key in self._keys(inside) - kept)
        assert set(expiring) <= {"done:*", "grace", "mail:*"}
        assert expiring["mail:*"] == 1
        assert expiring["done:*"] <= 200

    def _live_on(self, stores: RedisStores, mailbox: str) -> None:
        """Retry, release, bury, cancel and finish calls until none is left."""
        stores.queue.cancel(BACKGROUND, ["b99", "d99"])
        for turn in range(10_000):
            stores.queue.beat("w", b"{}", [WAITED, BACKGROUND], [])
            found = fetch(stores.queue, WAITED, BACKGROUND, free=50, limit=50)
            left = stores.queue.counts([BACKGROUND])[0]
            if not found and left.due + left.ready == 0:  # one that was due may have become ready since the fetch
                return
            for position, delivery in enumerate(found):
                kind = (turn + position) % 5
                if kind == 0 and delivery.progress.attempt < 2:
                    stores.queue.settle(delivery, Later(0.001, Progress(attempt=delivery.progress.attempt + 1)))
                elif kind == 1 and delivery.token < 3:
                    stores.queue.settle(delivery, Release(first=bool(position % 2)))
                elif kind == 2 and delivery.queue == BACKGROUND:
                    stores.queue.settle(delivery, Bury("rejected"))
                else:
                    stores.queue.settle(delivery, Done(Outcome(response=answer()), mailbox, keep=1.0))
        raise AssertionError("the queue does not empty")

    def _takes_out_what_was_read(self, stores: RedisStores, box: RedisMailbox, inside: redis.Redis) -> bool:
        accept(stores.queue, WAITED, "the next call", mailbox=box.address, mark=box.mark)
        stores.queue.cancel(WAITED, ["the next call"])
        return inside.xlen(f"test:mail:{box.address}") == 0

    @staticmethod
    def _keys(inside: redis.Redis) -> set[str]:
        return {key.decode() for key in inside.scan_iter("*")}

    @staticmethod
    def _shape(key: str) -> str:
        """`test:done:8a1f` -> `done:*`, `test:q:x:wake` -> `q:*:wake`."""
        name = key.removeprefix("test:")
        if name.startswith("q:"):
            return f"q:*:{name.rpartition(':')[2]}"
        return f"{name.partition(':')[0]}:*" if ":" in name else name

    def test_fire_and_forget_keeps_no_results(self, stores: RedisStores, inside: redis.Redis) -> None:
        def fire(id: str) -> int:
            accept(stores.queue, BACKGROUND, id)
            stores.queue.settle(one(stores.queue, BACKGROUND), Done(Outcome(response=answer(body=b"x" * 10_000))))
            return inside.dbsize()

        assert len({fire(f"c{number}") for number in range(50)}) == 1  # no key more than after the first one
        assert 0 < inside.zscore(f"test:q:{BACKGROUND}:ended", "c9") / 1000 - server_time(stores.link)() <= 60

    def test_watchers_and_mail_expire(self, stores: RedisStores, inside: redis.Redis) -> None:
        accept(stores.queue, BACKGROUND, "a")
        box = stores.mailbox()
        stores.queue.watch(BACKGROUND, "a", box)
        assert inside.ttl("test:watch:a") > 0
        stores.queue.settle(one(stores.queue, BACKGROUND), Done(Outcome(response=answer()), keep=1))
        assert inside.exists("test:watch:a") == 0
        assert inside.ttl(f"test:mail:{box.address}") > 0


class TestWhatACallCosts:
    CALLS = 40

    def test_few_commands_and_none_that_grows_with_the_keyspace(self, stores: RedisStores, inside: redis.Redis) -> None:
        """One waited-for call back to back: three scripts and two blocking pops, in four round trips of which the caller
        waits for one. The scripts run about 50 small commands, all O(1) or O(log n)."""
        box = stores.mailbox()
        worker = stores.another()
        self._call(stores, worker, box, "warm up")
        inside.config_resetstat()
        for number in range(self.CALLS):
            self._call(stores, worker, box, f"c{number}")
        stats = {name.removeprefix("cmdstat_"): row["calls"] for name, row in inside.info("commandstats").items()}
        stats.pop("config|resetstat", None), stats.pop("info", None)
        outer = {name: stats.pop(name, 0) / self.CALLS for name in ("evalsha", "blpop")}
        assert outer["evalsha"] == pytest.approx(3, abs=0.2)
        assert outer["blpop"] <= 2.2
        assert "eval" not in stats
        slow = {"keys", "scan", "sscan", "hscan", "zscan", "hgetall", "hkeys", "hvals", "sort", "lrange", "dbsize"}
        assert not slow & set(stats)
        assert sum(stats.values()) / self.CALLS < 55

    def _call(self, stores: RedisStores, worker: RedisQueue, box, id: str) -> None:
        waiter = box.expect(id)
        accept(stores.queue, WAITED, id, expires_in=30)
        found = []
        while not found:
            worker.wait([WAITED, BACKGROUND], 5)
            found = fetch(worker, WAITED, BACKGROUND, gate="chroma")
        worker.settle(found[0], Done(Outcome(response=answer()), box.address))
        assert waiter.wait(5) is not None

    def test_many_threads_share_round_trips(self, own_redis: PrivateRedis) -> None:
        """64 threads put at once: the first one's write goes out alone, the others' together while it is under way."""
        link = RedisLink(own_redis.url, answer_timeout=10)
        queue = RedisQueue(link, "test")
        accept(queue, BACKGROUND, "first")
        with ThreadPoolExecutor(64) as pool, own_redis.client() as inside:
            before = inside.info("stats")["total_reads_processed"]
            own_redis.freeze()
            puts = [pool.submit(accept, queue, BACKGROUND, "c0")]
            wait_until(lambda: link._io.locked() and not link._jobs)
            puts += [pool.submit(accept, queue, BACKGROUND, f"c{number}") for number in range(1, 64)]
            wait_until(lambda: len(link._jobs) == 63)
            own_redis.thaw()
            assert all(put.result(10).accepted for put in puts)
            assert inside.info("stats")["total_reads_processed"] - before <= 4
            assert queue.counts([BACKGROUND])[0].ready == 65
        queue.close()
        link.close()

    def test_a_thousand_callers_wait_on_one_connection(self, stores: RedisStores, inside: redis.Redis) -> None:
        box = stores.mailbox()
        before = inside.info("clients")["connected_clients"]
        threads = threading.active_count()
        with ThreadPoolExecutor(1000) as pool:
            waiting = [pool.submit(box.expect(f"c{number}").wait, 30) for number in range(1000)]
            wait_until(lambda: inside.info("clients")["blocked_clients"] == 1)
            assert inside.info("clients")["connected_clients"] - before == 1
            assert threading.active_count() - threads <= 1000
            with inside.pipeline(transaction=False) as pipe:
                for number in range(1000):
                    pipe.xadd(f"test:mail:{box.address}", {"reply": encode(Reply(id=f"c{number}", status=200))})
                pipe.execute()
            assert all(one.result(5) is not None for one in waiting)
        assert box.waiting() == 0

    def test_a_caller_that_has_its_answer_lets_another_one_read(self, stores: RedisStores, inside: redis.Redis) -> None:
        """Whatever ends the reader's wait: its reply, its patience, or an answer of this very process."""
        box = stores.mailbox()
        with ThreadPoolExecutor(4) as pool:
            waiting = {}
            for name, patience in (("replied", 30), ("refused", 30), ("impatient", 0.05), ("last", 30)):
                waiters = box.expect(name)
                waiting[name] = pool.submit(waiters.wait, patience)
                if name == "refused":
                    refused = waiters
            wait_until(lambda: inside.info("clients")["blocked_clients"] == 1)
            self._post(inside, box.address, "replied")
            assert waiting["replied"].result(5) is not None
            refused.answer(Outcome())
            assert waiting["refused"].result(5) is not None
            assert waiting["impatient"].result(5) is None
            self._post(inside, box.address, "last")
            assert waiting["last"].result(5) is not None

    @staticmethod
    def _post(inside: redis.Redis, address: str, id: str) -> None:
        inside.xadd(f"test:mail:{address}", {"reply": encode(Reply(id=id, status=200))})

    def test_a_mailbox_that_closes_keeps_nobody(self, stores: RedisStores) -> None:
        box = stores.mailbox()
        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(box.expect(f"c{number}").wait, 30) for number in range(3)]
            wait_until(lambda: box.waiting() == 3)
            box.close()
            box.close()
            assert [one.result(5) for one in waiting] == [None] * 3


class TestScripts:
    def test_a_server_that_forgot_the_scripts_is_taught_again(self, stores: RedisStores, inside: redis.Redis) -> None:
        accept(stores.queue, BACKGROUND, "a")
        inside.script_flush()
        answers = stores.queue.put([Put(BACKGROUND, name, b"-") for name in ("b", "c", "d")])
        assert [one.accepted for one in answers] == [True] * 3
        assert inside.info("commandstats")["cmdstat_eval"]["calls"] >= 1
        assert ids(fetch(stores.queue, BACKGROUND)) == ["a", "b", "c", "d"]

    @pytest.mark.parametrize(("script", "argument"), [("again", "no such verb"), ("look", "x"), ("dead", "x")])
    def test_an_unknown_verb_is_an_error(self, stores: RedisStores, script: str, argument: str) -> None:
        accept(stores.queue, BACKGROUND, "a")
        delivery = one(stores.queue, BACKGROUND)
        source = load_script("seawall.actors", script, prelude="queue")
        with pytest.raises(redis.ResponseError, match="knows no"):
            stores.link.run(source, "test:", argument, BACKGROUND, "a", delivery.token)


class TestOutage:
    def test_no_running_call_is_taken_for_dead_after_an_outage(
        self, own_redis: PrivateRedis, fragile: RedisStores
    ) -> None:
        accept(fragile.queue, BACKGROUND, "held")
        accept(fragile.queue, BACKGROUND, "orphan")
        held, _ = fetch(fragile.queue, BACKGROUND)
        own_redis.kill()
        threading.Event().wait(LEASE * 1.2)  # both leases run out meanwhile
        own_redis.restart()
        other = fragile.another()
        back = time.monotonic()
        assert fetch(other, BACKGROUND) == []
        while not (found := fetch(other, BACKGROUND)):
            assert fragile.queue.beat("w", b"{}", [BACKGROUND], [held]) == []
            threading.Event().wait(0.01)
            assert time.monotonic() - back < 5
        assert time.monotonic() - back > LEASE / 2
        assert [(one.id, one.deaths) for one in found] == [("orphan", 1)]
        assert fragile.queue.settle(held, Done())

    def test_everything_accepted_is_there_after_a_kill(self, own_redis: PrivateRedis, fragile: RedisStores) -> None:
        accept(fragile.queue, BACKGROUND, "ready")
        accept(fragile.queue, BACKGROUND, "due", delay=0.01)
        accept(fragile.queue, BACKGROUND, "retried")
        first = fetch(fragile.queue, BACKGROUND, free=1)[0]
        fragile.queue.settle(first, Later(0.01, Progress(attempt=1)))
        own_redis.kill()
        own_redis.restart()
        found: list = []
        wait_until(lambda: found.extend(fetch(fragile.queue, BACKGROUND)) or len(found) == 3)
        assert sorted(ids(found)) == ["due", "ready", "retried"]
        assert [one.progress.attempt for one in found if one.id == first.id] == [1]

    def test_a_put_repeated_after_a_freeze_runs_once(self, own_redis: PrivateRedis, fragile: RedisStores) -> None:
        accept(fragile.queue, BACKGROUND, "before")
        own_redis.freeze()
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable) as caught:
            accept(fragile.queue, BACKGROUND, "a")
        assert caught.value.written
        assert time.monotonic() - began < TYPED + ROOM
        own_redis.thaw()
        wait_until(lambda: accept(fragile.queue, BACKGROUND, "a").accepted)
        assert ids(fetch(fragile.queue, BACKGROUND)) == ["before", "a"]
        assert fetch(fragile.queue, BACKGROUND) == []

    def test_those_who_wait_behind_a_silent_server_do_not_ask_it_again(self, own_redis: PrivateRedis) -> None:
        """One patience is enough for all: whoever comes while a round trip is under way has its error when that has."""
        patience = 3.0
        link = RedisLink(own_redis.url, answer_timeout=patience)
        queue = RedisQueue(link, "test")
        accept(queue, BACKGROUND, "before")

        def put(id: str) -> tuple[BrokerUnavailable | None, float]:
            began = time.monotonic()
            try:
                accept(queue, BACKGROUND, id)
            except BrokerUnavailable as error:
                return error, time.monotonic() - began
            return None, 0.0

        with own_redis.client() as inside, ThreadPoolExecutor(50) as pool:
            before = inside.info("stats")["total_connections_received"]
            own_redis.freeze()
            waiting = [pool.submit(put, f"c{number}") for number in range(50)]
            wait_until(lambda: link._io.locked() and len(link._jobs) == 49, patience)
            ended = [one.result(10) for one in waiting]
            own_redis.thaw()
            written = [error.written for error, _ in ended if error]
            assert (len(written), any(written)) == (50, True)
            assert max(took for _, took in ended) < 2 * patience - 0.5
            assert inside.info("stats")["total_connections_received"] == before, "nobody has knocked a second time"
        assert len(fetch(queue, BACKGROUND, free=60, limit=60)) <= 1 + sum(written), "what was not written never comes"
        queue.close()
        link.close()

    def test_a_fetch_that_was_given_up_hands_out_nothing(self, own_redis: PrivateRedis) -> None:
        """The thawed server carries out the fetch that it was sent; nobody is there to take what it would hand out."""
        stores = RedisStores(own_redis.url, lease=30, patience=ANSWER_TIMEOUT)
        for number in range(6):
            accept(stores.queue, BACKGROUND, f"c{number}")
        assert ids(fetch(stores.queue, BACKGROUND, free=1)) == ["c0"]
        with own_redis.client() as inside:
            before = _evaluations(inside)
            own_redis.freeze()
            with pytest.raises(BrokerUnavailable) as caught:
                fetch(stores.queue, BACKGROUND, free=4)
            assert caught.value.written
            own_redis.thaw()
            wait_until(lambda: _evaluations(inside) == before + 1)
        assert stores.another().counts([BACKGROUND])[0].leased == 1
        assert ids(fetch(stores.queue, BACKGROUND)) == [f"c{number}" for number in range(1, 6)]
        stores.close()

    @pytest.mark.parametrize("lost", [1, 3])
    def test_calls_whose_answer_was_lost_go_back_in_order(self, own_redis: PrivateRedis, lost: int) -> None:
        """They were handed out, and no worker has died of it."""
        with own_redis.client() as inside:
            inside.config_set("port", free := free_port())
        with Proxy("127.0.0.1", free) as proxy:
            stores = RedisStores(f"redis://127.0.0.1:{proxy.port}/0", lease=30, patience=ANSWER_TIMEOUT)
            for number in range(12):
                accept(stores.queue, BACKGROUND, f"c{number:02}")
            heard = one(stores.queue, BACKGROUND, free=1)
            for _ in range(lost):
                assert stores.queue.counts([WAITED])[0].ready == 0  # it is connected
                proxy.swallow.set()
                with pytest.raises(BrokerUnavailable) as caught:
                    fetch(stores.queue, BACKGROUND, free=3)
                assert caught.value.written
                proxy.swallow.clear()
            assert stores.another().counts([BACKGROUND])[0].leased == 1 + 3
            found = fetch(stores.queue, BACKGROUND, free=20, limit=20)
            assert sorted(ids(found)) == [f"c{number:02}" for number in range(1, 12)]
            assert ids(found)[:3] == ["c01", "c02", "c03"]
            assert {one.deaths for one in found} == {0}
            assert stores.queue.settle(heard, Done())
            assert fetch(stores.queue, BACKGROUND) == []
            stores.close()

    def test_a_reply_that_came_while_the_mailbox_was_cut_off_is_read_later(
        self, own_redis: PrivateRedis, fragile: RedisStores
    ) -> None:
        box = fragile.mailbox()
        accept(fragile.queue, WAITED, "a")
        delivery = one(fragile.queue, WAITED)
        with own_redis.client() as inside, ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(box.expect("a").wait, 5)
            wait_until(lambda: inside.info("clients")["blocked_clients"] == 1)
            inside.client_kill_filter(_type="normal", skipme=True)
            fragile.queue.settle(delivery, Done(Outcome(response=answer()), box.address))
            assert waiting.result(5) is not None

    def test_a_reply_that_was_lost_on_its_way_is_sent_again(self, own_redis: PrivateRedis) -> None:
        """The server has given it out, and nobody got it."""
        with own_redis.client() as inside:
            inside.config_set("port", free := free_port())
            with Proxy("127.0.0.1", free) as proxy, ThreadPoolExecutor(1) as pool:
                stores = RedisStores(f"redis://127.0.0.1:{proxy.port}/0", lease=30)
                box = stores.mailbox()
                waiting = pool.submit(box.expect("a").wait, 10)
                wait_until(lambda: inside.info("clients")["blocked_clients"] == 1)
                proxy.swallow.set()
                inside.xadd(f"test:mail:{box.address}", {"reply": encode(Reply(id="a", status=200))})
                wait_until(lambda: inside.info("clients")["blocked_clients"] == 0)
                proxy.swallow.clear()
                proxy.cut()
                assert waiting.result(5) is not None
                stores.close()

    def test_a_server_that_is_gone_is_typed_and_nothing_was_written(
        self, own_redis: PrivateRedis, fragile: RedisStores
    ) -> None:
        accept(fragile.queue, WAITED, "before")
        own_redis.stop()
        began = time.monotonic()
        for verb in (
            lambda: accept(fragile.queue, WAITED, "a"),
            lambda: fetch(fragile.queue, WAITED),
            lambda: fragile.queue.counts([WAITED]),
            lambda: fragile.queue.wait([WAITED], 5),
        ):
            with pytest.raises(BrokerUnavailable) as caught:
                verb()
            assert not caught.value.written
        assert time.monotonic() - began < TYPED + ROOM

    def test_a_frozen_server_keeps_nobody_longer_than_promised(
        self, own_redis: PrivateRedis, fragile: RedisStores
    ) -> None:
        """Also not those who come while others wait: each is in the second exchange at the latest."""
        accept(fragile.queue, WAITED, "before")
        own_redis.freeze()
        took: list[float] = []

        def put(number: int) -> None:
            threading.Event().wait(number * 0.1)
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable):
                accept(fragile.queue, WAITED, f"c{number}")
            took.append(time.monotonic() - began)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, range(8)))
        assert len(took) == 8
        assert max(took) < 3 * ANSWER_TIMEOUT - 0.05  # a third exchange would end later


def _evaluations(inside: redis.Redis) -> int:
    return int(inside.info("commandstats")["cmdstat_evalsha"]["calls"])


class _Stubborn(socketserver.ThreadingTCPServer):
    """A server that lets one in, and has one answer for everything else."""

    daemon_threads = True

    def __init__(self, reply: bytes) -> None:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    while header := self.rfile.readline():
                        words = [self.rfile.read(int(self.rfile.readline()[1:]) + 2) for _ in range(int(header[1:]))]
                        self.wfile.write(b"+OK\r\n" if words[0].startswith(b"CLIENT") else reply)

        super().__init__(("127.0.0.1", 0), Handler)

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"redis://127.0.0.1:{self.server_address[1]}"
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


@pytest.mark.parametrize(
    "refusal",
    [
        b"-LOADING Redis is loading the dataset in memory",
        b"-READONLY You can't write against a read only replica.",
        b"-MISCONF Errors writing to the AOF file: No space left on device",
        b"-BUSY Redis is busy running a script.",
        b"-MASTERDOWN Link with MASTER is down",
        b"-NOREPLICAS Not enough good replicas to write.",
    ],
    ids=lambda text: text[1:].split()[0].decode().lower(),
)
def test_a_server_that_takes_no_writes_now_counts_as_away(refusal: bytes) -> None:
    """So that a finished call's settlement is tried again, and not dropped."""
    with _Stubborn(refusal + b"\r\n").running() as url:
        stores = RedisStores(url, lease=5)
        with pytest.raises(BrokerUnavailable) as caught:
            fetch(stores.queue, WAITED)
        assert not caught.value.written
        with contextlib.suppress(BrokerUnavailable):
            assert isinstance(stores.queue.put([Put(WAITED, "a", b"-")])[0], BrokerUnavailable)
        stores.close()


def test_a_refusal_that_nobody_foresaw_is_typed_too() -> None:
    with _Stubborn(b"-NOPERM this user has no permissions\r\n").running() as url:
        stores = RedisStores(url, lease=5)
        assert isinstance(stores.queue.put([Put(WAITED, "a", b"-")])[0], BrokerUnavailable)
        stores.close()


class TestOutOfMemory:
    def test_a_full_server_refuses_new_calls_and_drains(self, own_redis: PrivateRedis, alone: RedisStores) -> None:
        box = alone.mailbox()
        waiter = box.expect("0", service="Chroma")
        with own_redis.client() as inside:
            accept(alone.queue, BACKGROUND, "0")
            alone.queue.watch(BACKGROUND, "0", box)
            inside.config_set("maxmemory", int(inside.info("memory")["used_memory"]) + 3_000_000)
            accepted = self._fill(alone)
            assert accepted >= 4
            inside.config_set("maxmemory", int(inside.info("memory")["used_memory"]) - 500_000)
            self._use_every_verb(alone)
            done = 0
            while found := fetch(alone.queue, BACKGROUND):
                assert alone.queue.beat("w", b"{}", [BACKGROUND], found) == []
                for delivery in found:
                    outcome = Outcome(response=answer())
                    assert alone.queue.settle(delivery, Done(outcome, keep=60 if delivery.id == "0" else 0))
                    done += 1
            assert done == accepted - 3
            assert waiter.wait(5) is not None
            assert accept(alone.queue, BACKGROUND, "room again").accepted

    def _fill(self, stores: RedisStores) -> int:
        """Put until the server is full; how many calls it took, with the first one."""
        for number in range(1, 1000):
            taken = stores.queue.put([Put(BACKGROUND, str(number), b"x" * 200_000)])[0]
            if isinstance(taken, QueueFull):
                return number
        raise AssertionError("the server does not fill up")

    def _use_every_verb(self, stores: RedisStores) -> None:
        """What makes room, or lets others know, works on a full server."""
        queue = stores.queue
        assert queue.cancel(BACKGROUND, ["1"])[0].state == "cancelled"
        later, released, buried = fetch(queue, BACKGROUND, free=3)
        assert queue.settle(later, Later(60, Progress(attempt=1)))
        assert queue.cancel(BACKGROUND, [later.id])[0].state == "cancelled"
        assert queue.settle(released, Release())
        assert queue.settle(buried, Bury("rejected"))
        assert queue.replay(BACKGROUND, buried.id, 60)
        assert queue.cancel(BACKGROUND, [buried.id])[0].state == "cancelled"
        assert queue.sweep(BACKGROUND) == (0, 0, 0)
        queue.count({("chroma", "retries_denied"): 2})
        assert queue.tally()["chroma", "retries_denied"] == 2
        queue.hold("git", 60)
        queue.pause("mail.background", "mail")
        assert queue.paused(["mail"]) == [True]
        queue.resume("mail.background", "mail")
        assert queue.oldest(BACKGROUND, "git") == Oldest()
        self._turn_away(queue)
        assert queue.watch(BACKGROUND, released.id, stores.mailbox()) is None
        queue.leave("w", [BACKGROUND])
        queue.wait([BACKGROUND], 0.01)
        queue.wait([BACKGROUND, WAITED], 0.01)

    @staticmethod
    def _turn_away(queue: QueueStore) -> None:
        """A fetch that may take nothing leaves a mark for whoever makes room, or wakes somebody else."""
        running = one(queue, BACKGROUND, free=1)
        want = Want(BACKGROUND, "", 8)
        assert queue.fetch([Group(8, (want,), bound=1)]).bounded == {0}
        queue.wait([BACKGROUND], 0.01)  # the token that lay there is gone
        assert queue.fetch([Group(0, (want,))]).deliveries == ()
        assert queue.settle(running, Release())


class Sleeper(threading.Thread):
    """A fetcher that sleeps on queues; `woken` is set when it wakes."""

    def __init__(self, queue: RedisQueue, queues: list[str], timeout: float | None = 30) -> None:
        super().__init__()
        self._sleep = lambda: queue.wait(queues, timeout)
        self.woken = threading.Event()

    def run(self) -> None:
        self._sleep()
        self.woken.set()


def _fall_asleep(stores: RedisStores, inside: redis.Redis, *queues: str, timeout: float | None = 30) -> Sleeper:
    """A sleeper of its own process, as soon as its blocking pop is under way."""
    asleep = inside.info("clients")["blocked_clients"]
    sleeper = Sleeper(stores.another(), list(queues), timeout)
    sleeper.start()
    wait_until(lambda: inside.info("clients")["blocked_clients"] == asleep + 1)
    return sleeper


class TestWakeUps:
    """To wake within `SOON` is to be woken: nobody's sleep ends by itself before."""

    SOON = 10.0

    @pytest.fixture(autouse=True)
    def long_sleeps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_wake, "POLL_SECONDS", 30)

    def test_a_put_wakes_an_idle_fetcher_at_once(self, stores: RedisStores, inside: redis.Redis) -> None:
        sleeper = _fall_asleep(stores, inside, WAITED, BACKGROUND)
        accept(stores.queue, BACKGROUND, "a")
        assert sleeper.woken.wait(self.SOON)

    def test_a_retry_and_a_release_wake_one_too(self, stores: RedisStores, inside: redis.Redis) -> None:
        for ending in (Later(30, Progress(attempt=1)), Release()):
            accept(stores.queue, BACKGROUND, f"a{type(ending).__name__}")
            delivery = wait_until(lambda: fetch(stores.queue, BACKGROUND))[0]
            inside.delete(f"test:q:{BACKGROUND}:wake")
            sleeper = _fall_asleep(stores, inside, BACKGROUND)
            stores.queue.settle(delivery, ending)
            assert sleeper.woken.wait(self.SOON)

    def test_a_call_is_fetched_when_its_time_comes(self, stores: RedisStores) -> None:
        """The timer runs on this side of the wire: the server's own would be late by up to its `hz`."""
        lateness = []
        for number in range(9):
            accept(stores.queue, BACKGROUND, f"c{number}", delay=0.05)
            due = time.monotonic() + 0.05
            found: list = []
            while not found:
                fetched = stores.queue.fetch([Group(8, (Want(BACKGROUND, "", 8),))])
                found = list(fetched.deliveries)
                if not found:
                    stores.queue.wait([BACKGROUND], fetched.next_due_in)
            lateness.append(time.monotonic() - due)
            stores.queue.settle(found[0], Done())
        assert median(lateness) < 0.03  # some come while this machine does something else

    def test_an_earlier_call_wakes_a_fetcher_that_waits_for_a_later_one(
        self, stores: RedisStores, inside: redis.Redis
    ) -> None:
        accept(stores.queue, BACKGROUND, "late", delay=60)
        fetch(stores.queue, BACKGROUND)
        inside.delete(f"test:q:{BACKGROUND}:wake")
        sleeper = _fall_asleep(stores, inside, BACKGROUND, timeout=60)
        accept(stores.queue, BACKGROUND, "early", delay=30)
        assert sleeper.woken.wait(self.SOON)

    def test_a_lost_token_costs_only_a_slow_poll(
        self, stores: RedisStores, inside: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(redis_wake, "POLL_SECONDS", 0.2)
        accept(stores.queue, BACKGROUND, "a")
        assert inside.lpop(f"test:q:{BACKGROUND}:wake") == b"1"  # popped by a process that died of it
        sleeper = _fall_asleep_or_wake(stores, BACKGROUND, timeout=None)
        assert sleeper.woken.wait(self.SOON)
        assert ids(fetch(stores.queue, BACKGROUND)) == ["a"]

    def test_a_fetcher_that_leaves_work_behind_wakes_the_next(self, stores: RedisStores, inside: redis.Redis) -> None:
        for name in ("a", "b", "c"):
            accept(stores.queue, BACKGROUND, name)
        sleepers = [_fall_asleep_or_wake(stores, BACKGROUND) for _ in range(3)]
        for _ in range(3):
            wait_until(lambda: any(sleeper.woken.is_set() for sleeper in sleepers))
            woken = next(sleeper for sleeper in sleepers if sleeper.woken.is_set())
            sleepers.remove(woken)
            one(stores.queue, BACKGROUND, free=1)

    def test_a_fetcher_without_room_does_not_keep_a_token(self, stores: RedisStores, inside: redis.Redis) -> None:
        """Its pop is still under way when its slots fill up by another way; somebody else must hear of the next call."""
        full = stores.another()
        full.wait([BACKGROUND], 0.01)  # leaves its pop under way, and is the first in the line
        idle = _fall_asleep(stores, inside, BACKGROUND)
        busy = Sleeper(full, [])
        busy.start()
        accept(stores.queue, BACKGROUND, "a")
        assert idle.woken.wait(self.SOON)
        full.poke()
        busy.join()

    def test_a_token_that_is_passed_on_beside_a_new_one_is_no_call(self, stores: RedisStores) -> None:
        full = stores.another()
        full.wait([BACKGROUND], 0.01)  # leaves its pop under way
        accept(stores.queue, BACKGROUND, "a")

        def has_none(queue: str) -> bool:
            if stores.queue.standing(BACKGROUND, "b").where != "ready":
                accept(stores.queue, BACKGROUND, "b")  # between its pop and its passing on
            return False

        full.wait([BACKGROUND], self.SOON, has_none)
        assert stores.link.command("LRANGE", f"test:q:{BACKGROUND}:wake", 0, -1) == [b"1", b"1"]
        counts = stores.queue.counts([BACKGROUND])[0]
        assert (counts.ready, counts.leased) == (2, 0)

    def test_a_fetcher_that_turns_to_other_queues_passes_a_token_on(
        self, stores: RedisStores, inside: redis.Redis
    ) -> None:
        first = stores.another()
        first.wait([BACKGROUND], 0.01)
        accept(stores.queue, BACKGROUND, "a")  # its token goes to the first one, which does not look
        idle = _fall_asleep(stores, inside, BACKGROUND)
        turned = Sleeper(first, [WAITED])
        turned.start()
        assert idle.woken.wait(self.SOON)
        first.poke()
        turned.join()

    def test_a_fetcher_that_stops_takes_no_token_with_it(self, stores: RedisStores, inside: redis.Redis) -> None:
        stopped = stores.another()
        stopped.wait([BACKGROUND], 0.01)
        idle = _fall_asleep(stores, inside, BACKGROUND)
        stopped.rest([BACKGROUND])
        assert not idle.woken.is_set()
        accept(stores.queue, BACKGROUND, "a")
        assert idle.woken.wait(self.SOON)

    def test_the_timer_of_a_fetcher_that_stops_or_fills_up_is_somebody_elses(
        self, stores: RedisStores, inside: redis.Redis
    ) -> None:
        first = stores.another()
        accept(stores.queue, BACKGROUND, "due", delay=60)
        assert fetch(first, BACKGROUND) == []  # it has set its timer
        inside.delete(f"test:q:{BACKGROUND}:wake")
        idle = _fall_asleep(stores, inside, BACKGROUND)
        first.rest([BACKGROUND])
        assert idle.woken.wait(self.SOON)
        idle = _fall_asleep(stores, inside, BACKGROUND)
        accept(stores.queue, WAITED, "w")
        assert ids(fetch(first, WAITED, BACKGROUND, free=1)) == ["w"]  # its last slot
        assert idle.woken.wait(self.SOON)

    def test_two_fetchers_do_not_starve_each_other(self, stores: RedisStores) -> None:
        done: Counter[str] = Counter()
        over = threading.Event()

        def work(name: str) -> None:
            queue = stores.another()
            while not over.is_set():
                found = fetch(queue, BACKGROUND, free=1)
                for delivery in found:
                    queue.settle(delivery, Done())
                    done[name] += 1
                if not found:
                    queue.wait([BACKGROUND], 0.1)

        threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
        for thread in threads:
            thread.start()
        numbers = itertools.count()

        def both_have_worked() -> bool:
            accept(stores.queue, BACKGROUND, f"c{next(numbers)}")
            return min(done["one"], done["two"]) >= 20

        try:
            wait_until(both_have_worked)
        finally:
            over.set()
            for thread in threads:
                thread.join()


def _fall_asleep_or_wake(stores: RedisStores, queue: str, timeout: float | None = 30) -> Sleeper:
    sleeper = Sleeper(stores.another(), [queue], timeout)
    sleeper.start()
    return sleeper


@pytest.mark.parametrize("off", [-120.0, 120.0])
def test_a_wrong_clock_in_this_process_decides_nothing(
    stores: RedisStores, monkeypatch: pytest.MonkeyPatch, off: float
) -> None:
    fake_time(monkeypatch, off)
    accept(stores.queue, WAITED, "a", expires_in=30)
    accept(stores.queue, WAITED, "later", delay=60, expires_in=90)
    held = one(stores.queue, WAITED)
    assert stores.queue.beat("w", b"{}", [WAITED], [held]) == []
    assert stores.queue.workers_serving(WAITED) == 1
    assert fetch(stores.queue, WAITED) == []  # neither the lease nor the delay is over
    accept(stores.queue, WAITED, "soon", delay=0.05, expires_in=30)
    assert ids(wait_until(lambda: fetch(stores.queue, WAITED))) == ["soon"]
    assert stores.queue.settle(held, Done())
    assert stores.queue.sweep(WAITED) == (0, 0, 0)


def test_the_gate_reads_what_the_breakers_store_writes(stores: RedisStores, inside: redis.Redis) -> None:
    stores.set_breaker("chroma", State.HALF_OPEN, "a")
    assert inside.hmget("test:breaker:chroma", "state", "trial") == [b"half_open", b"a"]
    accept(stores.queue, BACKGROUND, "a")
    assert one(stores.queue, BACKGROUND, gate="chroma").trial
    known, _ = stores.breakers.read("chroma")
    assert known is not None
    assert known.trial == "a"  # the ticket is spent, the record is as it was
