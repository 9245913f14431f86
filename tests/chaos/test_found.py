"""What chaos runs have found, each in small."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
import requests

from seawall import DeadlineExceeded, NoWorker, ResilientServiceClient
from seawall.actors.queue_store import Later
from seawall.actors.record import Progress
from seawall.actors.redis_wake import WakeLine
from seawall.actors.service import queue_names
from seawall.redis_link import ANSWER_TIMEOUT, RedisLink
from tests.chaos.checker import ANSWER_GRACE
from tests.integration.stores import RedisStores, fetch
from tests.support import Answer, CountingService, PrivateRedis, wait_until
from tests.support.house import PATIENT, RemoteHouse, caller
from tests.support.proxy import Proxy


def before(server: PrivateRedis) -> Proxy:
    """A proxy before a server on a unix socket."""
    with server.client() as client:
        return Proxy(client.connection_pool.connection_kwargs["path"])


def test_callers_have_their_answers_in_time_though_the_broker_falls_silent(
    own_redis: PrivateRedis, service: CountingService
) -> None:
    """They ask for their calls back when their deadlines are over; each question waited for the one before it to fail."""
    hold = threading.Event()
    service.script("*", Answer(hold=hold))
    late: dict[float, float] = {}

    def call(deadline: float) -> None:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.get(f"/{deadline}", deadline=deadline)
        late[deadline] = time.monotonic() - started - deadline

    with before(own_redis) as proxy, RemoteHouse(own_redis.url, supervised=False, answer_timeout=ANSWER_TIMEOUT):
        with caller(f"redis://127.0.0.1:{proxy.port}/0", answer_timeout=ANSWER_TIMEOUT):
            client = ResilientServiceClient(service.url, "Chroma Server")
            crew = [threading.Thread(target=call, args=(deadline,)) for deadline in (1.0, 1.1, 1.5)]
            for thread in crew:
                thread.start()
            service.wait_for(len(crew))
            proxy.passing.clear()
            for thread in crew:
                thread.join()
            proxy.passing.set()
        hold.set()
    assert len(late) == len(crew)
    assert max(late.values()) < ANSWER_GRACE


def test_a_caller_that_must_connect_anew_on_a_slow_network_has_its_answer_in_time(
    own_redis: PrivateRedis, service: CountingService
) -> None:
    """The name and the version that redis-py tells the server at first, the call itself, and the last word that takes it back."""
    took = []
    with (
        before(own_redis) as proxy,
        RemoteHouse(own_redis.url, supervised=False),
        caller(f"redis://127.0.0.1:{proxy.port}/0", answer_timeout=ANSWER_TIMEOUT),
    ):
        client = ResilientServiceClient(service.url, "Chroma Server")
        for _ in range(3):  # this process may stand still in one of them
            assert client.get("/thing").status_code == 200
            proxy.delay = 0.3
            proxy.cut()
            started = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                client.get("/thing", deadline=0.5)
            took.append(time.monotonic() - started)
            proxy.delay = 0.0
    assert min(took) < 0.5 + ANSWER_GRACE


def test_a_caller_does_not_wait_past_its_deadline_until_its_process_has_connected(
    own_redis: PrivateRedis, service: CountingService
) -> None:
    with (
        before(own_redis) as proxy,
        RemoteHouse(own_redis.url, supervised=False),
        caller(f"redis://127.0.0.1:{proxy.port}/0") as runtime,
    ):
        client = ResilientServiceClient(service.url, "Chroma Server")
        assert client.get("/thing").status_code == 200
        proxy.passing.clear()
        link = runtime.engine.queue._link
        link.close()
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="it may have been carried out"):
            client.get("/thing", deadline=0.5)
        assert time.monotonic() - started < PATIENT / 2
        proxy.passing.set()
        wait_until(lambda: link.connected)


def test_a_caller_without_workers_is_not_told_that_nothing_was_sent_when_it_was(
    own_redis: PrivateRedis, service: CountingService
) -> None:
    """A worker that does not report, because the broker has just come back, may have made an attempt."""
    stores = RedisStores(own_redis.url, lease=5.0, namespace="seawall")
    queue = queue_names("chroma")[0]
    told: list[str] = []

    def call() -> None:
        with pytest.raises(NoWorker) as caught:
            client.get("/thing", deadline=5)
        told.append(str(caught.value))

    with caller(own_redis.url):
        client = ResilientServiceClient(service.url, "Chroma Server", key="chroma")
        thread = threading.Thread(target=call)
        thread.start()
        delivery = wait_until(lambda: fetch(stores.queue, queue) or stores.queue.wait([queue], 0.1))[0]
        stores.queue.settle(delivery, Later(30, Progress(attempt=1)))
        thread.join()
    stores.close()
    assert "1 attempt(s) had failed" in told[0]
    assert "nothing was sent" not in told[0]


def test_a_worker_that_dies_in_an_outage_leaves_no_key_for_ever(own_redis: PrivateRedis) -> None:
    """It ended a pop that the server had forgotten: the element stays in its own list, and nobody else reads that."""
    with before(own_redis) as proxy:
        link = RedisLink(own_redis.url)
        line = WakeLine(RedisLink(f"redis://127.0.0.1:{proxy.port}/0"), "test:")
        line.wait(["a"], 0.01, lambda queue: True)
        line._link = link  # the pop's connection is lost, the other one is well
        proxy.lose()
        with own_redis.client() as inside:
            wait_until(lambda: inside.info("clients")["blocked_clients"] == 0)
            line.rest()
            kept = [key for key in inside.scan_iter("test:wake:*") if inside.ttl(key) < 0]
        line.close()
        link.close()
    assert kept == []


class HalfWay(Proxy):
    """While `halves` is set, of a long answer only the beginning comes through."""

    def __init__(self, host: str) -> None:
        self.halves = threading.Event()
        super().__init__(host)

    def _answer_passes(self, data: bytes) -> bytes:
        return data[: len(data) // 2] if self.halves.is_set() and len(data) > 2000 else data


def test_a_reply_that_stops_halfway_keeps_its_reader_no_longer_than_its_deadline(
    own_redis: PrivateRedis, service: CountingService
) -> None:
    service.script("*", Answer(body=b"x" * 5000))
    with own_redis.client() as client:
        path = client.connection_pool.connection_kwargs["path"]
    with (
        HalfWay(path) as proxy,
        RemoteHouse(own_redis.url, supervised=False, answer_timeout=ANSWER_TIMEOUT),
        caller(f"redis://127.0.0.1:{proxy.port}/0", answer_timeout=ANSWER_TIMEOUT),
    ):
        chroma = ResilientServiceClient(service.url, "Chroma Server")
        assert chroma.get("/whole").status_code == 200
        proxy.halves.set()
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            chroma.get("/half", deadline=1.0)
        assert time.monotonic() - started < 1.0 + ANSWER_GRACE


def test_taking_a_trial_counts_as_waiting(own_redis: PrivateRedis, service: CountingService) -> None:
    """The timer has ended, a caller takes the trial, and the broker falls silent while it does."""
    with (
        before(own_redis) as proxy,
        caller(f"redis://127.0.0.1:{proxy.port}/0", answer_timeout=ANSWER_TIMEOUT) as runtime,
    ):
        client = ResilientServiceClient(service.url, "Chroma Server", recovery_timeout=0.1, failure_threshold=1)
        view = runtime.views.of(client.service)
        view.failed(view.record.changed_at, view.generation, "it is down")
        wait_until(lambda: view.admit().may_take_trial)
        proxy.passing.clear()
        other = threading.Thread(target=client.fire, args=("POST", "/before"))  # whoever asks next waits for it too
        other.start()
        threading.Event().wait(0.05)
        started = time.monotonic()
        with pytest.raises(requests.RequestException):
            client.get("/thing", deadline=0.2)
        assert time.monotonic() - started < 0.2 + ANSWER_GRACE
        other.join()
        proxy.passing.set()


def test_a_process_that_starts_in_an_outage_has_its_answers_in_time_too(
    own_redis: PrivateRedis, service: CountingService
) -> None:
    """What it first has to learn of its breakers it learns of all of them one after the other."""
    late: list[float] = []

    def call(key: str) -> None:
        client = ResilientServiceClient(service.url, key, key=key)
        started = time.monotonic()
        with contextlib.suppress(requests.RequestException):
            client.get("/thing", deadline=0.5)
        late.append(time.monotonic() - started - 0.5)

    with before(own_redis) as proxy, caller(f"redis://127.0.0.1:{proxy.port}/0", answer_timeout=ANSWER_TIMEOUT):
        proxy.passing.clear()
        crew = [threading.Thread(target=call, args=(key,)) for key in ("billing", "files", "search", "vector")]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        proxy.passing.set()
    assert len(late) == len(crew)
    assert max(late) < ANSWER_GRACE
