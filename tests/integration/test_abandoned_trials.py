"""A caller that won the breaker's trial and ends before it is made: the slot goes back at once, and not with its lease."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from seawall import BrokerUnavailable, DeadlineExceeded, QueueFull, ResilientServiceClient, State, calling
from seawall import runtime as runtimes
from seawall.actors.engine import Engine, engine_from_url
from seawall.actors.queue_store import Group, Want
from seawall.actors.service import queue_names
from seawall.redis_link import ANSWER_TIMEOUT
from seawall.supervisor.breaker import Record
from seawall.supervisor.memory_store import MemoryStore
from seawall.supervisor.view import BreakerView
from tests.support import PrivateRedis, wait_until
from tests.support.house import caller

#: Seconds of an open breaker; the trial's lease is 15 s.
RECOVERY = 0.2
WAITED = queue_names("chroma")[0]


@pytest.fixture
def runtime(own_redis: PrivateRedis) -> Iterator[runtimes.Runtime]:
    with caller(own_redis.url, answer_timeout=ANSWER_TIMEOUT) as runtime:
        yield runtime


@pytest.fixture
def worker(own_redis: PrivateRedis) -> Iterator[Engine]:
    """It is there, and takes nothing by itself."""
    engine = engine_from_url(own_redis.url)
    engine.queue.beat("w", b"{}", [WAITED], [])
    yield engine
    engine.close()


@pytest.fixture
def view(runtime: runtimes.Runtime) -> BreakerView:
    """Of a breaker that has opened, and whose next caller makes the trial."""
    client = ResilientServiceClient(
        "http://127.0.0.1:9", "Chroma", key="chroma", failure_threshold=1, recovery_timeout=RECOVERY
    )
    view = runtime.views.of(client.service)
    view.failed(runtime.engine.breakers.now(), view.generation, "refused")
    wait_until(lambda: view.admit().may_take_trial)
    return view


@contextmanager
def interrupted_when(condition: Callable[[], object]) -> Iterator[None]:
    """Ctrl-C in this thread as soon as the condition holds; once more when Python loses it, as in a callback of its collector."""
    over = threading.Event()

    def interrupt() -> None:
        wait_until(condition)
        os.kill(os.getpid(), signal.SIGINT)
        while not over.wait(1):
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    watching = threading.Thread(target=interrupt)
    watching.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        over.set()
        watching.join()
        signal.signal(signal.SIGINT, before)


def given_back(view: BreakerView, since: float) -> Record:
    """The record, whose slot is free again; the next trial is a recovery timeout away from this one, which was none."""
    record = wait_until(lambda: view.record.state is State.OPEN and view.record)
    now = view._store.now()
    assert isinstance(record, Record)
    assert record.trial == ""
    assert since + RECOVERY <= record.next_trial_at <= now + RECOVERY + 0.1
    return record


def test_one_that_is_interrupted_takes_its_call_back(
    runtime: runtimes.Runtime, worker: Engine, view: BreakerView
) -> None:
    since = worker.breakers.now()
    with interrupted_when(lambda: worker.queue.counts([WAITED])[0].ready == 1):
        ResilientServiceClient.named("chroma").get("/thing")
    given_back(view, since)
    assert worker.queue.fetch([Group(1, (Want(WAITED, "", 1),))]).deliveries == ()


def test_one_whose_call_is_refused(
    runtime: runtimes.Runtime, worker: Engine, view: BreakerView, own_redis: PrivateRedis
) -> None:
    since = worker.breakers.now()
    with own_redis.client() as inside:
        inside.config_set("maxmemory", int(inside.info("memory")["used_memory"]) - 500_000)
        with pytest.raises(QueueFull):
            ResilientServiceClient.named("chroma").get("/thing")
    given_back(view, since)


def test_one_that_runs_out_of_time(runtime: runtimes.Runtime, worker: Engine, view: BreakerView) -> None:
    since = worker.breakers.now()
    with pytest.raises(DeadlineExceeded, match="was not sent"):
        ResilientServiceClient.named("chroma").get("/thing", deadline=3)
    given_back(view, since)


def test_the_trial_of_a_call_that_runs_goes_on(runtime: runtimes.Runtime, worker: Engine, view: BreakerView) -> None:
    """Whoever makes it tells how it went."""
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(ResilientServiceClient.named("chroma").get, "/thing", deadline=5)
        wait_until(lambda: worker.queue.fetch([Group(1, (Want(WAITED, "", 1),))]).deliveries)
        assert isinstance(call.exception(15), DeadlineExceeded)
    wait_until(lambda: all(thread.name != "seawall-last-word" for thread in threading.enumerate()))
    assert view.record.trial


def test_with_no_broker_that_could_be_asked(
    runtime: runtimes.Runtime, view: BreakerView, own_redis: PrivateRedis
) -> None:
    """Nothing was written to it, so the call can be nowhere."""
    assert view.take_trial("call")
    own_redis.kill()
    try:
        raise BrokerUnavailable("away", written=False)
    except BrokerUnavailable:
        calling.abandon_trial(runtime, runtimes.registry.get("chroma"), "call")
    wait_until(lambda: view.record.state is State.OPEN)
    own_redis.restart()
    view.refresh()
    assert runtime.engine.breakers.read("chroma")[0] == view.record
    assert view.record.trial == ""


class SlowView(BreakerView):
    """Its trial is granted, and the answer is on its way until `arrives` is set."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__("chroma", "Chroma", store)
        self.arrives = threading.Event()

    def take_trial(self, id: str) -> bool:
        taken = super().take_trial(id)
        self.arrives.wait(20)
        return taken


def test_one_that_is_interrupted_while_it_takes_the_trial() -> None:
    store = MemoryStore()
    store.swap("chroma", 0, Record(state=State.OPEN, recovery_timeout=RECOVERY), store.now())
    view = SlowView(store)
    view.start()
    with interrupted_when(lambda: view.record.trial):
        calling._take_trial(view, "call", time.monotonic() + 10)
    assert view.record.trial == "call"
    view.arrives.set()
    wait_until(lambda: view.record.trial == "")
    assert view.record.state is State.OPEN
