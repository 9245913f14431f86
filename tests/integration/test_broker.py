"""The broker under Dramatiq's own worker: what users of Dramatiq expect of one, over both stores, and how the hub shares."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import ConnectionClosed, QueueJoinTimeout, QueueNotFound
from dramatiq.middleware import Middleware, SkipMessage
from dramatiq.worker import ConsumerThread

from seawall.actors import hub, redis_wake
from seawall.actors.broker import SeawallBroker, SettleOwnActors
from seawall.actors.lanes import service_lane
from seawall.actors.queue_store import Done, Put
from seawall.actors.record import RECORD_VERSION, Call, encode
from seawall.actors.redis_queue import RedisQueue
from seawall.redis_link import ANSWER_TIMEOUT
from seawall.workers.threads import HubWorker
from tests.integration.stores import MemoryStores, RedisStores, Stores, accept, fetch
from tests.support import PrivateRedis, wait_until

QUEUE = "default"
WAITED, BACKGROUND = "chroma.waited", "chroma.background"
SHORT_LEASE = 1.5


@pytest.fixture(params=["memory", "redis"])
def stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    if request.param == "memory":
        opened: Stores = MemoryStores(lease=5.0)
    else:
        opened = RedisStores(request.getfixturevalue("redis_url"), lease=5.0)
    yield opened
    opened.close()


@pytest.fixture
def broker(stores: Stores) -> SeawallBroker:
    return SeawallBroker(stores.queue)


def make_dramatiqs(broker: SeawallBroker, threads: int) -> dramatiq.Worker:
    """Dramatiq's own worker, whose consumer threads take messages from the hub."""
    return dramatiq.Worker(broker, worker_timeout=20, worker_threads=threads)


def make_ours(broker: SeawallBroker, threads: int) -> dramatiq.Worker:
    """The worker of a worker process, whose threads do that themselves."""
    return HubWorker(broker, worker_threads=threads)


make_worker = make_dramatiqs


@pytest.fixture(autouse=True, params=[make_dramatiqs, make_ours], ids=["dramatiq", "hub"])
def kind_of_worker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "make_worker", request.param)


#: For what only a worker does that fetches more than it has threads for.
only_with_dramatiqs = pytest.mark.parametrize("kind_of_worker", [make_dramatiqs], indirect=True, ids=["dramatiq"])


@contextmanager
def working(broker: SeawallBroker, *, threads: int = 8) -> Iterator[dramatiq.Worker]:
    worker = make_worker(broker, threads)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


class Diary:
    """What an actor did, and a door that it may have to wait at."""

    def __init__(self) -> None:
        self.entries: list[Any] = []
        self.times: list[float] = []
        self.door = threading.Event()
        self.inside = 0
        self.peak = 0
        self._lock = threading.Lock()

    def write(self, entry: Any) -> None:
        with self._lock:
            self.entries.append(entry)
            self.times.append(time.monotonic())

    def pass_the_door(self, entry: Any) -> None:
        """Write at the entrance, wait for the door, leave."""
        with self._lock:
            self.inside += 1
            self.peak = max(self.peak, self.inside)
        self.write(entry)
        assert self.door.wait(10)
        with self._lock:
            self.inside -= 1

    def wait_for(self, count: int) -> list[Any]:
        wait_until(lambda: len(self.entries) >= count, message=f"{self.entries} instead of {count} entries")
        return self.entries


@pytest.fixture
def diary() -> Iterator[Diary]:
    opened = Diary()
    yield opened
    opened.door.set()


def declare(broker: SeawallBroker, fn: Callable[..., Any], name: str = "", **options: Any) -> dramatiq.Actor:
    return dramatiq.actor(fn, broker=broker, actor_name=name or fn.__name__, **options)


class TestMessages:
    def test_actors_run_with_their_arguments(self, broker: SeawallBroker, diary: Diary) -> None:
        note = declare(broker, lambda *args, **kwargs: diary.write((args, kwargs)), "note")
        with working(broker):
            note.send(1, "two", three=[3, {"four": None}])
            note.send()
            broker.join(QUEUE, timeout=5000)
        assert sorted(diary.entries, key=str) == [((), {}), ((1, "two"), {"three": [3, {"four": None}]})]

    def test_messages_wait_for_a_worker(self, broker: SeawallBroker, diary: Diary) -> None:
        note = declare(broker, diary.write, "note")
        for number in range(20):
            note.send(number)
        with working(broker, threads=1):
            assert diary.wait_for(20) == list(range(20))

    def test_a_message_is_run_once(self, broker: SeawallBroker, diary: Diary) -> None:
        note = declare(broker, diary.write, "note")
        message = note.message("a")
        broker.enqueue(message)
        broker.enqueue(message)
        with working(broker):
            broker.join(QUEUE, timeout=5000)
            broker.enqueue(message)
            note.send("b")
            broker.join(QUEUE, timeout=5000)
        assert sorted(diary.entries) == ["a", "b"]

    def test_actors_of_several_queues(self, broker: SeawallBroker, diary: Diary) -> None:
        for name in ("mail", "reports", "thumbnails"):
            declare(broker, diary.write, name, queue_name=name).send(name)
        with working(broker):
            assert sorted(diary.wait_for(3)) == ["mail", "reports", "thumbnails"]

    @only_with_dramatiqs
    def test_priorities_hold_within_a_process(self, broker: SeawallBroker, diary: Diary) -> None:
        declare(broker, diary.pass_the_door, "first").send("first")
        low = declare(broker, diary.write, "low", priority=100)
        high = declare(broker, diary.write, "high", priority=0)
        with working(broker, threads=1) as worker:
            diary.wait_for(1)
            for number in range(3):
                low.send(f"low {number}")
                high.send(f"high {number}")
            wait_until(lambda: worker.work_queue.qsize() == 6)
            diary.door.set()
            diary.wait_for(7)
        assert diary.entries == ["first", "high 0", "high 1", "high 2", "low 0", "low 1", "low 2"]

    def test_who_sends_to_a_queue_need_not_serve_it(self, broker: SeawallBroker, stores: Stores, diary: Diary) -> None:
        note = declare(broker, diary.write, "note")
        elsewhere = dramatiq.Message(queue_name="elsewhere", actor_name="other", args=(), kwargs={}, options={})
        with working(broker):
            broker.enqueue(elsewhere)
            note.send("a")
            broker.join(QUEUE, timeout=5000)
            assert stores.queue.counts(["elsewhere"])[0].ready == 1
            assert broker.get_declared_queues() == {QUEUE}

    def test_nothing_is_fetched_before_its_actor_is_there(
        self, broker: SeawallBroker, stores: Stores, diary: Diary
    ) -> None:
        message = dramatiq.Message(queue_name=QUEUE, actor_name="note", args=("a",), kwargs={}, options={})
        broker.enqueue(message)
        with working(broker):
            broker.declare_queue(QUEUE)
            assert stores.queue.counts([QUEUE])[0].ready == 1
            declare(broker, diary.write, "note")
            assert diary.wait_for(1) == ["a"]

    def test_join_gives_up(self, broker: SeawallBroker) -> None:
        declare(broker, lambda: None, "never").send()
        with pytest.raises(QueueJoinTimeout):
            broker.join(QUEUE, timeout=30)

    def test_flush(self, broker: SeawallBroker, diary: Diary) -> None:
        note = declare(broker, diary.write, "note")
        other = declare(broker, diary.write, "other", queue_name="other")
        note.send("a")
        note.send_with_options(args=("b",), delay=60_000)
        other.send("c")
        broker.flush(QUEUE)
        with working(broker):
            assert diary.wait_for(1) == ["c"]
            broker.join(QUEUE, timeout=1000)
        other.send("d")
        broker.flush_all()
        broker.join("other", timeout=1000)
        with pytest.raises(QueueNotFound):
            broker.flush("nowhere")
        with pytest.raises(QueueNotFound):
            broker.consume("nowhere")


class TestDelays:
    def test_a_delayed_message_waits_in_the_store_and_not_in_the_worker(
        self, broker: SeawallBroker, stores: Stores, diary: Diary
    ) -> None:
        note = declare(broker, diary.write, "note")
        with working(broker) as worker:
            sent = time.monotonic()
            note.send_with_options(args=("late",), delay=2500)
            note.send("now")
            diary.wait_for(1)
            wait_until(lambda: broker.hub.busy() == 0)
            assert stores.queue.counts([QUEUE])[0].due == 1
            delays = [one.delay_queue for one in worker.consumers.values() if isinstance(one, ConsumerThread)]
            assert all(queue.empty() for queue in delays)
            assert set(worker.consumers) == {QUEUE}
            assert diary.wait_for(2) == ["now", "late"]
        assert 2.495 <= diary.times[1] - sent < 10

    def test_delays_are_independent_of_each_other(self, broker: SeawallBroker, diary: Diary) -> None:
        note = declare(broker, diary.write, "note")
        with working(broker, threads=1):
            for delay in (2600, 200, 1400):
                note.send_with_options(args=(delay,), delay=delay)
            assert diary.wait_for(3) == [200, 1400, 2600]

    def test_an_eta_among_the_options_delays_nothing(self, broker: SeawallBroker, diary: Diary) -> None:
        """Dramatiq's worker would keep such a message in its memory, and its slot with it."""
        note = declare(broker, diary.write, "note")
        broker.enqueue(note.message_with_options(args=("a",), eta=int(time.time() * 1000) + 60_000))
        with working(broker):
            assert diary.wait_for(1) == ["a"]


class TestRetries:
    def test_a_failed_message_comes_back_after_a_growing_delay(self, broker: SeawallBroker, diary: Diary) -> None:
        def fail_twice() -> None:
            diary.write("try")
            if len(diary.entries) < 3:
                raise RuntimeError("not yet")

        declare(broker, fail_twice, min_backoff=40).send()
        with working(broker):
            diary.wait_for(3)
            broker.join(QUEUE, timeout=5000)
        first, second, third = diary.times
        assert second - first >= 0.038
        assert third - second >= 0.078
        assert len(diary.entries) == 3

    def test_after_its_retries_it_is_a_dead_letter(self, broker: SeawallBroker, stores: Stores, diary: Diary) -> None:
        def fail(word: str) -> None:
            diary.write(word)
            raise RuntimeError

        declare(broker, fail, max_retries=2, min_backoff=1).send("a")
        with working(broker):
            broker.join(QUEUE, timeout=5000)
        assert diary.entries == ["a"] * 3
        letter = stores.queue.dead_letters(QUEUE)[0]
        assert (letter.reason, letter.progress.attempt) == ("failed", 2)
        assert stores.queue.replay(QUEUE, letter.id, 60)
        assert stores.queue.counts([QUEUE])[0].ready == 1

    def test_without_a_limit_it_is_tried_on(self, broker: SeawallBroker, diary: Diary) -> None:
        def fail_five_times() -> None:
            diary.write("try")
            if len(diary.entries) < 6:
                raise RuntimeError

        declare(broker, fail_five_times, max_retries=None, min_backoff=1, max_backoff=2).send()
        with working(broker):
            broker.join(QUEUE, timeout=5000)
        assert len(diary.entries) == 6

    def test_a_message_may_bring_its_own_limit(self, broker: SeawallBroker, stores: Stores) -> None:
        def fail() -> None:
            raise RuntimeError

        declare(broker, fail).send_with_options(max_retries=0)
        with working(broker):
            broker.join(QUEUE, timeout=5000)
        assert len(stores.queue.dead_letters(QUEUE)) == 1

    def test_an_expected_error_is_not_retried(self, broker: SeawallBroker, stores: Stores, diary: Diary) -> None:
        def fail() -> None:
            diary.write("try")
            raise KeyError("as expected")

        declare(broker, fail, throws=(KeyError,)).send()
        with working(broker):
            broker.join(QUEUE, timeout=5000)
        assert len(diary.entries) == len(stores.queue.dead_letters(QUEUE)) == 1

    def test_a_retry_may_name_its_delay(self, broker: SeawallBroker, diary: Diary) -> None:
        def ask_for_another() -> None:
            diary.write("try")
            if len(diary.entries) < 2:
                raise dramatiq.Retry(delay=50)

        declare(broker, ask_for_another, min_backoff=60_000).send()
        with working(broker):
            diary.wait_for(2)
        assert diary.times[1] - diary.times[0] >= 0.048

    def test_a_retry_frees_its_thread(self, broker: SeawallBroker, diary: Diary) -> None:
        def fail() -> None:
            raise RuntimeError

        declare(broker, fail, min_backoff=60_000).send()
        declare(broker, diary.write, "note").send("b")
        with working(broker, threads=1):
            assert diary.wait_for(1) == ["b"]


class TestTrouble:
    def test_an_unknown_actor_is_a_dead_letter_and_its_neighbours_run(
        self, broker: SeawallBroker, stores: Stores, diary: Diary
    ) -> None:
        note = declare(broker, diary.write, "note")
        for number in range(5):
            note.send(number)
            broker.enqueue(dramatiq.Message(queue_name=QUEUE, actor_name="who", args=(), kwargs={}, options={}))
        with working(broker):
            broker.join(QUEUE, timeout=5000)
        assert sorted(diary.entries) == list(range(5))
        assert [letter.reason for letter in stores.queue.dead_letters(QUEUE)] == ["no actor"] * 5

    def test_malformed_messages_are_moved_aside_and_the_worker_lives(
        self, broker: SeawallBroker, stores: Stores, diary: Diary
    ) -> None:
        note = declare(broker, diary.write, "note")
        garbage = [
            b"",
            b"{",
            b"{}",
            b'{"actor_name": 1}',
            b"[]",
            b"\xff\xfe",
            b"null",
            b'{"args": "x"}',
            b"{" * 100_000,
        ]
        for number, payload in enumerate(garbage):
            note.send(number)
            stores.queue.put([Put(QUEUE, f"bad{number}", payload)])
        with working(broker):
            broker.join(QUEUE, timeout=5000)
            note.send("after")
            broker.join(QUEUE, timeout=5000)
        assert Counter(diary.entries) == Counter([*range(len(garbage)), "after"])
        letters = stores.queue.dead_letters(QUEUE)
        assert {letter.reason for letter in letters} == {"malformed"}
        assert len(letters) == len(garbage)

    def test_a_call_record_on_a_plain_queue_is_malformed(self, broker: SeawallBroker, stores: Stores) -> None:
        declare(broker, lambda: None, "note")
        call = Call(id="1", service="s", origin="http://h:80", method="GET", target="/")
        stores.queue.put([Put(QUEUE, "1", encode(call))])
        with working(broker):
            broker.join(QUEUE, timeout=5000)
        assert stores.queue.dead_letters(QUEUE)[0].reason == "malformed"

    def test_a_record_of_a_newer_release_waits_for_a_newer_worker(self, broker: SeawallBroker, stores: Stores) -> None:
        broker.add_lane(service_lane("chroma", 2, gated=False))
        for queue in (WAITED, BACKGROUND):
            declare(broker, lambda call: None, queue, queue_name=queue)
        call = Call(id="1", service="chroma", origin="http://h:80", method="GET", target="/", v=RECORD_VERSION + 1)
        stores.queue.put([Put(BACKGROUND, "1", encode(call))])
        with working(broker):
            wait_until(lambda: stores.queue.standing(BACKGROUND, "1").where == "due")
            due_in = stores.queue.standing(BACKGROUND, "1").due_in
            assert due_in is not None
            assert due_in > 1.5
        assert stores.queue.dead_letters(BACKGROUND) == []

    def test_a_message_that_lies_about_its_queue_does_not_kill_its_thread(
        self, broker: SeawallBroker, stores: Stores, diary: Diary
    ) -> None:
        note = declare(broker, diary.write, "note")
        liar = note.message("lie").copy(queue_name="nowhere")
        stores.queue.put([Put(QUEUE, liar.message_id, liar.encode())])
        with working(broker, threads=1):
            note.send("a")
            assert sorted(diary.wait_for(2)) == ["a", "lie"]
            broker.join(QUEUE, timeout=5000)

    def test_a_message_that_middleware_skips_is_over(self, broker: SeawallBroker, stores: Stores, diary: Diary) -> None:
        class Skip(Middleware):
            def before_process_message(self, broker: Any, message: Any) -> None:
                diary.write("skipped")
                raise SkipMessage

        broker.add_middleware(Skip())
        declare(broker, diary.write, "note").send("a")
        with working(broker):
            broker.join(QUEUE, timeout=5000)
        assert diary.entries == ["skipped"]
        assert stores.queue.dead_letters(QUEUE) == []

    def test_a_message_that_nobody_settled_comes_back_but_not_at_once(
        self, broker: SeawallBroker, stores: Stores, diary: Diary
    ) -> None:
        """It may or may not have been carried out: it is not dropped, and it does not spin."""
        broker.middleware = [one for one in broker.middleware if not isinstance(one, SettleOwnActors)]
        message = declare(broker, diary.write, "note").send("a")
        with working(broker):
            diary.wait_for(1)
            wait_until(lambda: stores.queue.standing(QUEUE, message.message_id).where == "due")
        assert diary.entries == ["a"]

    def test_a_settlement_that_cannot_be_made_frees_its_slot(
        self, broker: SeawallBroker, stores: Stores, diary: Diary, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        note = declare(broker, diary.write, "note")
        settle = stores.queue.settle

        def fail_once(*args: Any) -> bool:
            monkeypatch.setattr(stores.queue, "settle", settle)
            raise UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed")

        monkeypatch.setattr(stores.queue, "settle", fail_once)
        with working(broker):
            note.send("a")
            diary.wait_for(1)
            wait_until(lambda: broker.hub.busy() == 0)
            assert broker.hub.held() == []  # nobody renews its lease: it will be given back
            note.send("b")
            diary.wait_for(2)

    def test_a_store_that_is_away_is_an_error_of_the_sender(self, own_redis: PrivateRedis) -> None:
        stores = RedisStores(own_redis.url, lease=5)
        note = declare(SeawallBroker(stores.queue), lambda: None, "note")
        own_redis.stop()
        with pytest.raises(ConnectionClosed):
            note.send()
        stores.close()


class TestShutdown:
    @only_with_dramatiqs
    def test_what_has_not_started_goes_back_at_once_and_in_order(
        self, broker: SeawallBroker, stores: Stores, diary: Diary
    ) -> None:
        slow = declare(broker, diary.pass_the_door, "slow")
        for number in range(12):
            slow.send(number)
        worker = make_worker(broker, 2)
        worker.start()
        diary.wait_for(2)
        wait_until(lambda: broker.hub.busy() == 8 and worker.work_queue.qsize() == 6)
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        wait_until(lambda: stores.queue.counts([QUEUE])[0].ready == 10)
        wait_until(lambda: broker.hub.busy() == 2)  # these are not hurried
        diary.door.set()
        stopping.join(5)
        assert stores.queue.counts([QUEUE])[0].leased == 0
        second = SeawallBroker(stores.another())
        declare(second, diary.write, "slow")
        with working(second, threads=1):
            entries = diary.wait_for(12)
        assert sorted(entries[:2]) == [0, 1]
        assert entries[2:] == list(range(2, 12))

    def test_a_running_message_is_finished(self, broker: SeawallBroker, stores: Stores, diary: Diary) -> None:
        declare(broker, diary.pass_the_door, "slow").send("a")
        worker = make_worker(broker, 1)
        worker.start()
        diary.wait_for(1)
        threading.Timer(0.05, diary.door.set).start()
        worker.stop()
        counts = stores.queue.counts([QUEUE])[0]
        assert (counts.ready, counts.due, counts.leased, counts.dead) == (0, 0, 0, 0)

    def test_at_the_deadline_it_is_given_back(self, broker: SeawallBroker, stores: Stores, diary: Diary) -> None:
        message = declare(broker, diary.pass_the_door, "slow").send("a")
        with working(broker):
            diary.wait_for(1)
            broker.hub.quiet()
            broker.hub.give_up()
            assert stores.queue.standing(QUEUE, message.message_id).where == "ready"
            diary.door.set()  # nobody has taken it meanwhile: what it did counts
            wait_until(lambda: stores.queue.standing(QUEUE, message.message_id).where == "done")

    def test_stopping_twice_and_before_a_start(self, broker: SeawallBroker) -> None:
        broker.hub.quiet()
        broker.hub.quiet()
        broker.hub.give_up()


class TestTheHost:
    def test_its_own_dramatiq_is_left_alone(self, broker: SeawallBroker, diary: Diary) -> None:
        theirs, known = StubBroker(), dramatiq.get_encoder()
        before = dramatiq.broker.global_broker

        class Odd(dramatiq.JSONEncoder):
            def encode(self, data: Any) -> bytes:
                raise AssertionError("not ours to use")

            decode = encode

        dramatiq.set_broker(theirs)
        dramatiq.set_encoder(Odd())
        try:
            note = declare(broker, diary.write, "note")
            with working(broker):
                note.send("a")
                assert diary.wait_for(1) == ["a"]
            assert dramatiq.get_broker() is theirs
            assert not theirs.get_declared_actors()
            assert isinstance(dramatiq.get_encoder(), Odd)
        finally:
            dramatiq.set_encoder(known)
            dramatiq.set_broker(before)

    def test_nothing_logged_has_a_messages_arguments(
        self, broker: SeawallBroker, stores: Stores, diary: Diary, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Dramatiq's own lines and ours, at their most talkative; an actor's logger is its owner's."""

        def fail(word: str) -> None:
            diary.write(word)
            raise RuntimeError("oh")

        for name in ("dramatiq", "seawall"):
            caplog.set_level(logging.DEBUG, name)
        caplog.set_level(logging.INFO)
        declare(broker, fail, max_retries=1, min_backoff=1).send("canary")
        broker.enqueue(dramatiq.Message(queue_name=QUEUE, actor_name="who", args=("canary",), kwargs={}, options={}))
        stores.queue.put([Put(QUEUE, "bad", b'{"args": "canary"')])
        with working(broker):
            broker.join(QUEUE, timeout=5000)
        assert len(stores.queue.dead_letters(QUEUE)) == 3
        assert "Failed to process message" in caplog.text
        assert "canary" not in caplog.text


def impatient_stores(request: pytest.FixtureRequest) -> Stores:
    """Stores of the test's own kind, on which a lease ends soon."""
    if "redis" in request.node.callspec.id:
        return RedisStores(request.getfixturevalue("redis_url"), lease=SHORT_LEASE, namespace="suspects")
    return MemoryStores(lease=SHORT_LEASE)


class TestHub:
    """How the slots of a process are shared."""

    def _service(self, broker: SeawallBroker, diary: Diary, concurrency: int, act: str = "pass_the_door") -> Any:
        lane = service_lane("chroma", concurrency, gated=False)
        broker.add_lane(lane)
        waited, background = (
            declare(broker, getattr(diary, act), name, queue_name=name) for name in (WAITED, BACKGROUND)
        )
        return lane, waited, background

    def test_slots_bound_what_runs_at_once_and_one_is_reserved(
        self, broker: SeawallBroker, stores: Stores, diary: Diary
    ) -> None:
        _, waited, background = self._service(broker, diary, 4)
        for number in range(10):
            background.send(f"b{number}")
        with working(broker, threads=12):
            assert sorted(diary.wait_for(3)) == ["b0", "b1", "b2"]
            for number in range(5):
                waited.send(f"w{number}")
            assert diary.wait_for(4)[3] == "w0"
            assert broker.hub.busy() == 4
            assert [stores.queue.counts([name])[0].ready for name in (WAITED, BACKGROUND)] == [4, 7]
            diary.door.set()
            diary.wait_for(15)
        assert diary.peak == 4

    def test_a_slow_service_keeps_nobody_elses_slots(self, broker: SeawallBroker, diary: Diary) -> None:
        _, waited, _ = self._service(broker, diary, 2)
        quick = Diary()
        note = declare(broker, quick.write, "note")
        for number in range(10):
            waited.send(number)
        with working(broker, threads=10):
            diary.wait_for(2)
            note.send("a")
            assert quick.wait_for(1) == ["a"]
            assert len(diary.entries) == 2
            diary.door.set()

    def test_waited_for_calls_are_served_first(self, broker: SeawallBroker, diary: Diary) -> None:
        lane, waited, background = self._service(broker, diary, 1, "write")
        for number in range(3):
            background.send(f"b{number}")
            waited.send(f"w{number}")
        lane.turn = 0
        with working(broker, threads=1):
            assert diary.wait_for(6) == ["w0", "w1", "w2", "b0", "b1", "b2"]

    def test_the_background_is_not_starved(self, broker: SeawallBroker, diary: Diary) -> None:
        lane, waited, background = self._service(broker, diary, 1, "write")
        for number in range(40):
            waited.send(f"w{number}")
        for number in range(3):
            background.send(f"b{number}")
        lane.turn = 0
        with working(broker, threads=1):
            order = diary.wait_for(43)
        places = [order.index(f"b{number}") for number in range(3)]
        assert places[0] <= 8
        assert places[2] <= 26

    def test_a_suspect_runs_alone(self, broker: SeawallBroker, diary: Diary, request: pytest.FixtureRequest) -> None:
        """A call whose worker died may kill this process too; no neighbour shall be blamed for it."""
        stores = impatient_stores(request)
        broker = SeawallBroker(stores.queue)
        suspects = Diary()
        suspect = declare(broker, suspects.pass_the_door, "suspect")
        normal = declare(broker, diary.pass_the_door, "normal")
        suspect.send("s0")
        suspect.send("s1")
        assert len(fetch(stores.queue, QUEUE)) == 2
        wait_until(lambda: stores.queue.sweep(QUEUE)[0])
        normal.send("n0")
        with beating(stores, broker), working(broker):
            suspects.wait_for(1)
            assert diary.entries == []  # it has the process to itself, and the others wait in their queue
            assert stores.queue.counts([QUEUE])[0].ready == 2
            suspects.wait_for(2)  # but not for ever: a slow call is not what kills a process
            diary.wait_for(1)
            assert suspects.peak == 2
            suspects.door.set()
            diary.door.set()
            broker.join(QUEUE, timeout=5000)
        stores.close()

    def test_a_suspect_waits_for_the_neighbours_that_run(
        self, broker: SeawallBroker, diary: Diary, request: pytest.FixtureRequest
    ) -> None:
        stores = impatient_stores(request)
        broker = SeawallBroker(stores.queue)
        suspects = Diary()
        suspect = declare(broker, suspects.pass_the_door, "suspect")
        normal = declare(broker, diary.pass_the_door, "normal")
        suspect.send("s0")
        assert len(fetch(stores.queue, QUEUE)) == 1
        with beating(stores, broker), working(broker):
            normal.send("n0")
            diary.wait_for(1)
            wait_until(lambda: stores.queue.sweep(QUEUE)[0] or broker.hub.busy() == 2)
            wait_until(lambda: broker.hub.busy() == 2)  # it is here, and waits
            assert suspects.entries == []
            suspects.door.set()
            diary.door.set()
            suspects.wait_for(1)
        stores.close()

    def test_leases_that_were_lost_are_told_of_and_settled_ones_not(
        self, broker: SeawallBroker, diary: Diary, caplog: pytest.LogCaptureFixture
    ) -> None:
        declare(broker, diary.pass_the_door, "slow").send("a")
        with working(broker):
            diary.wait_for(1)
            held = broker.hub.held()
            broker.hub.lose(held)
            assert caplog.text.count("lost the lease") == 1
            diary.door.set()
            wait_until(lambda: broker.hub.busy() == 0)
            broker.hub.lose(held)
            assert caplog.text.count("lost the lease") == 1


@contextmanager
def beating(stores: Stores, broker: SeawallBroker) -> Iterator[None]:
    """Heartbeats, as the worker process around a broker makes them."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.02):
            stores.queue.beat("w", b"{}", broker.hub.queues(), broker.hub.held())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_forty_queues_cost_one_connection_for_fetching(redis_url: str) -> None:
    stores = RedisStores(redis_url, lease=5)
    queue = stores.another()
    broker = SeawallBroker(queue)
    diary = Diary()
    actors = [declare(broker, diary.write, f"a{number}", queue_name=f"q{number}") for number in range(40)]
    clients = stores.link.command("CLIENT", "LIST")
    with working(broker, threads=2):
        wait_until(lambda: stores.link.command("CLIENT", "LIST").count(b"cmd=blpop") == 1)
        for number, actor in enumerate(actors):
            actor.send(number)
        assert sorted(diary.wait_for(40)) == list(range(40))
        now = stores.link.command("CLIENT", "LIST")
        assert now.count(b"\n") - clients.count(b"\n") <= 2  # one for commands, one that sleeps
    stores.close()


def test_two_workers_share_a_queue_and_nothing_runs_twice(redis_url: str) -> None:
    stores, diary = RedisStores(redis_url, lease=5), Diary()
    brokers = [SeawallBroker(stores.another()) for _ in range(2)]
    notes = [declare(broker, diary.write, "note") for broker in brokers]
    with working(brokers[0], threads=4), working(brokers[1], threads=4):
        for number in range(200):
            notes[number % 2].send(number)
        diary.wait_for(200)
        brokers[0].join(QUEUE, timeout=5000)
    assert sorted(diary.entries) == list(range(200))
    stores.close()


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_a_store_that_is_away_for_a_moment_loses_and_repeats_nothing(
    own_redis: PrivateRedis, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    stores, diary = RedisStores(own_redis.url, lease=5, patience=ANSWER_TIMEOUT), Diary()
    queue = stores.another()
    broker = SeawallBroker(queue)
    slow = declare(broker, diary.pass_the_door, "slow")
    for number in range(20):
        slow.send(number)
    with working(broker):
        diary.wait_for(8)
        if how == "kill":
            own_redis.kill()
        else:
            own_redis.freeze()
        diary.door.set()  # the eight end while nobody can be told
        wait_until(lambda: "is away" in caplog.text)
        if how == "kill":
            own_redis.restart()
        else:
            own_redis.thaw()
        back = time.monotonic()
        diary.wait_for(20)
        assert time.monotonic() - back < 4.5  # what waits for a retry of Dramatiq's takes 5 s
        wait_until(lambda: broker.hub.busy() == 0)
        assert _left(stores.queue) == (0, 0, 0, 0)
    assert sorted(diary.entries) == list(range(20))
    wait_until(lambda: "is back after" in caplog.text)
    assert caplog.text.count("the broker is away") == caplog.text.count("the broker is back") == 1
    stores.close()


def _left(queue: RedisQueue) -> tuple[int, int, int, int]:
    counts = queue.counts([QUEUE])[0]
    return counts.ready, counts.due, counts.leased, counts.dead


def test_a_finished_call_is_settled_even_if_the_worker_stops_meanwhile(own_redis: PrivateRedis) -> None:
    stores, diary = RedisStores(own_redis.url, lease=5), Diary()
    broker = SeawallBroker(stores.queue)
    declare(broker, diary.pass_the_door, "slow").send("a")
    worker = make_worker(broker, 1)
    worker.start()
    diary.wait_for(1)
    own_redis.kill()
    diary.door.set()
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    own_redis.restart()
    stopping.join(20)
    assert not stopping.is_alive()
    assert _left(stores.another()) == (0, 0, 0, 0)
    accept(stores.queue, QUEUE, "b")
    assert stores.queue.settle(fetch(stores.queue, QUEUE)[0], Done())
    stores.close()


class TestThreadsThatFetch:
    """Of a worker process: an idle one sleeps at the store, one that has ended a call brings the next one along."""

    def test_there_is_no_thread_but_these(self, redis_url: str, kind_of_worker: None) -> None:
        before = set(threading.enumerate())
        stores, diary = RedisStores(redis_url, lease=5), Diary()
        broker = SeawallBroker(stores.another())
        for name in ("mail", "reports", "thumbnails"):
            declare(broker, diary.write, name, queue_name=name)
        worker = make_ours(broker, 3)
        worker.start()
        assert {thread.name for thread in set(threading.enumerate()) - before} == {t.name for t in worker.workers}
        worker.stop()
        stores.close()

    def test_under_load_a_call_costs_one_script(self, redis_url: str) -> None:
        stores, diary = RedisStores(redis_url, lease=5), Diary()
        broker = SeawallBroker(stores.another())
        broker.add_lane(service_lane("chroma", 4, gated=False))
        for queue in (WAITED, BACKGROUND):
            declare(broker, diary.write, queue, queue_name=queue)
        for number in range(400):
            broker.enqueue(broker.actors[BACKGROUND].message(number))
        before = _scripts_run(stores)
        worker = make_ours(broker, 4)
        worker.start()
        diary.wait_for(400)
        assert _scripts_run(stores) - before < 400 * 1.5
        worker.stop()
        stores.close()

    @pytest.mark.parametrize("threads", [1, 4])
    def test_they_go_home_at_once(self, redis_url: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_wake, "POLL_SECONDS", 30)
        monkeypatch.setattr(hub, "QUIET_SECONDS", 30)
        stores, diary = RedisStores(redis_url, lease=5), Diary()
        broker = SeawallBroker(stores.another())
        note = declare(broker, diary.write, "note")
        worker = HubWorker(broker, worker_threads=threads)
        worker.start()
        note.send("a")
        diary.wait_for(1)
        began = time.monotonic()
        worker.stop()
        assert time.monotonic() - began < 10
        assert not any(thread.is_alive() for thread in worker.workers)
        stores.close()

    def test_a_fetcher_that_gets_work_has_another_one_sleep_in_its_place(
        self, broker: SeawallBroker, diary: Diary
    ) -> None:
        slow = declare(broker, diary.pass_the_door, "slow")
        with working(broker, threads=4):
            for number in range(4):
                slow.send(number)
                diary.wait_for(number + 1)
            diary.door.set()


def _scripts_run(stores: RedisStores) -> int:
    stats = stores.link.command("INFO", "commandstats").decode()
    return int(stats.partition("cmdstat_evalsha:calls=")[2].partition(",")[0] or 0)
