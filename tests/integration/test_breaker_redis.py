"""What only the Redis store does: its keys, its round trips, and a server that goes away and comes back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import pytest
import redis

from seawall.errors import BrokerUnavailable
from seawall.redis_link import RedisLink
from seawall.supervisor.breaker import ForceOpen, Policy, Record, State
from seawall.supervisor.redis_store import _SCRIPT, RedisStore
from seawall.supervisor.view import PASS, BreakerView
from tests.support import PrivateRedis
from tests.support.threads import run_together
from tests.support.waiting import wait_until

Process = Callable[[str], BreakerView]


class Followed(BreakerView):
    """Counts how often it has read its record anew."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.readings = threading.Semaphore(0)

    def refresh(self) -> None:
        super().refresh()
        self.readings.release()


@pytest.fixture
def process() -> Iterator[Process]:
    """A view of `chroma` with a store and a link of its own, as another process has; it hears announcements."""
    opened: list[tuple[RedisStore, RedisLink]] = []

    def start(url: str, policy: Policy = Policy(failure_threshold=3)) -> BreakerView:  # noqa: B008  frozen
        link = RedisLink(url)
        store = RedisStore(link, "test")
        opened.append((store, link))
        view = Followed("chroma", "Chroma Server", store, policy)
        view.start()
        for _ in ("as it starts", "as it hears announcements"):
            assert view.readings.acquire(timeout=20)
        return view

    yield start
    for store, link in opened:
        store.close()
        link.close()


@pytest.fixture
def inside(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def fail(view: BreakerView, times: int = 1) -> None:
    for _ in range(times):
        view.failed(view._store.now(), view.generation, "refused")


def cut_announcements(client: redis.Redis) -> int:
    """Cut every process's connection for announcements."""
    return int(client.execute_command("CLIENT", "KILL", "TYPE", "pubsub"))


def calls(client: redis.Redis) -> dict[str, int]:
    """How often each command ran, those inside scripts included."""
    stats: dict[str, Any] = client.info("commandstats")
    return {name: values["calls"] for name, values in stats.items()}


def listening() -> set[threading.Thread]:
    """Threads that hear announcements, other tests' included."""
    return {thread for thread in threading.enumerate() if thread.name == "seawall-announcements"}


class TestKeys:
    def test_the_queues_script_finds_state_and_trial_beside_the_record(
        self, redis_url: str, inside: redis.Redis, process: Process
    ) -> None:
        view = process(redis_url)
        fail(view, 3)
        assert inside.hget("test:breaker:chroma", "state") == b"open"

        view._store.swap("chroma", 1, Record(), 0)  # refused, changes nothing
        taken = msgspec.structs.replace(view.record, next_trial_at=1.0)
        wait_until(lambda: view._store.swap("chroma", view.record.version, taken, view._store.now()).ok)
        assert view.take_trial("call-1")
        fields = inside.hgetall("test:breaker:chroma")
        assert (fields[b"v"], fields[b"state"], fields[b"trial"]) == (b"5", b"half_open", b"call-1")
        assert inside.smembers("test:breaker-keys") == {b"chroma"}

    def test_an_unknown_command_fails(self, redis_url: str) -> None:
        link = RedisLink(redis_url)

        with pytest.raises(redis.ResponseError, match="unknown breaker command: misspelt"):
            link.run(_SCRIPT, "misspelt", "test")
        link.close()

    def test_a_record_that_cannot_be_read_counts_as_closed_and_is_overwritten(
        self, redis_url: str, inside: redis.Redis, process: Process
    ) -> None:
        inside.hset("test:breaker:chroma", mapping={"v": 9, "state": "open", "trial": "", "rec": b"\xc1"})
        inside.publish("test:breakers", b"chroma \xc1")
        view = process(redis_url)
        fail(view)

        assert (view.record.version, view.record.failures) == (10, 1)


class TestRoundTrips:
    def test_admission_and_refusal_and_a_success_in_good_times_make_no_command(
        self, redis_url: str, inside: redis.Redis, process: Process
    ) -> None:
        view = process(redis_url)
        before = calls(inside)
        for _ in range(1000):
            assert view.admit() is PASS
            view.succeeded(view._store.now(), view.generation)
        assert evals(calls(inside)) == evals(before)

        fail(view, 3)
        before = calls(inside)
        assert not any(view.admit().passes for _ in range(1000))
        view.failed(0.0, 0, "late")
        view.status()
        assert evals(calls(inside)) == evals(before)

    def test_128_failures_from_32_threads_cost_few_swaps(
        self, redis_url: str, inside: redis.Redis, process: Process
    ) -> None:
        view = process(redis_url, Policy(failure_threshold=1000))  # type: ignore[call-arg]
        before = evals(calls(inside))
        run_together([partial(fail, view, 4)] * 32)

        assert view.record.failures == 128
        assert evals(calls(inside)) - before <= 64

    def test_no_thread_is_started_before_somebody_listens(self, redis_url: str) -> None:
        before = listening()
        link = RedisLink(redis_url)
        store = RedisStore(link, "test")
        store.read("chroma")
        assert store._reader is None

        store.subscribe(lambda key, record: None)
        wait_until(store.confirmed_at)
        assert len(listening() - before) == 1
        store.close()
        link.close()
        wait_until(lambda: not listening() - before)


class TestLosingTheServer:
    def test_a_change_that_was_missed_is_read_after_reconnecting(
        self, redis_url: str, inside: redis.Redis, process: Process
    ) -> None:
        ours, theirs = process(redis_url), process(redis_url)
        fail(ours, 2)
        wait_until(lambda: theirs.record.failures == 2)
        assert cut_announcements(inside) >= 2
        fail(ours)

        wait_until(lambda: theirs.state is State.OPEN)

    def test_a_server_that_restarts_is_found_again_and_the_outage_is_logged_with_its_length(
        self, own_redis: PrivateRedis, process: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        ours, theirs = process(own_redis.url), process(own_redis.url)
        fail(ours)
        own_redis.kill()
        fail(ours, 2)
        assert ours.state is State.OPEN
        own_redis.restart()

        wait_until(lambda: theirs.state is State.OPEN)
        wait_until(lambda: not ours.away)
        wait_until(lambda: sum("are back after" in record.getMessage() for record in caplog.records) == 2)
        said = [record.getMessage() for record in caplog.records if "nnouncements" in record.getMessage()]
        assert sum("are lost" in line for line in said) == 2

    def test_while_it_is_away_nothing_raises_but_a_hand_on_the_lever(
        self, own_redis: PrivateRedis, process: Process
    ) -> None:
        view = process(own_redis.url)
        own_redis.stop()

        fail(view, 3)
        assert view.status()["state"] == "open"
        with pytest.raises(BrokerUnavailable):
            view.by_hand(ForceOpen())
        with pytest.raises(BrokerUnavailable):
            view._store.read_all()

    def test_a_swap_that_a_frozen_server_finds_later_changes_nothing(
        self, own_redis: PrivateRedis, process: Process
    ) -> None:
        """It was computed for a time that is over when the server comes to it."""
        view = process(own_redis.url)
        own_redis.freeze()
        fail(view)
        assert view.away
        own_redis.thaw()
        wait_until(lambda: not view.away)

        assert view.record.failures == 1
        stored, _ = view._store.read("chroma")
        assert stored is not None
        assert stored.failures == 1

    def test_a_store_that_was_emptied_is_still_the_one_that_counts(
        self, redis_url: str, inside: redis.Redis, process: Process
    ) -> None:
        view = process(redis_url)
        fail(view, 3)
        inside.flushall()
        cut_announcements(inside)

        wait_until(lambda: view.state is State.CLOSED)


def evals(counts: dict[str, int]) -> int:
    return counts.get("cmdstat_evalsha", 0) + counts.get("cmdstat_eval", 0)
