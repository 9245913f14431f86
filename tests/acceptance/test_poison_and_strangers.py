"""What does not belong into a queue: a call that kills its workers, messages nobody can read, results nobody wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from seawall.actors.queue_store import Put
from seawall.actors.record import Call, encode
from tests.acceptance.harness import Fleet, Program, Stage, say
from tests.acceptance.poison import DEATHS, SIBLINGS
from tests.support import Answer, CountingService, PrivateRedis, wait_until


@pytest.fixture(scope="module")
def service() -> Iterator[CountingService]:
    with CountingService() as running:
        yield running


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, redis_server: PrivateRedis, service: CountingService
) -> Iterator[Fleet]:
    """One worker and one caller."""
    with Fleet(tmp_path_factory.mktemp("strangers"), redis_server.url, {"mine": {"url": service.url}}) as fleet:
        fleet.start(workers=1, callers=1)
        yield fleet


def worker_and_caller(fleet: Fleet) -> tuple[Program, Any]:
    return fleet.programs[0], fleet.programs[1]


def dramatiq_message(actor: str) -> bytes:
    fields = {
        "queue_name": "other",
        "actor_name": actor,
        "args": [],
        "kwargs": {},
        "options": {},
        "message_id": "m",
        "message_timestamp": 0,
    }
    return json.dumps(fields).encode()


def test_messages_that_nobody_can_read_are_moved_aside_and_the_worker_lives(fleet: Fleet) -> None:
    worker, caller = worker_and_caller(fleet)
    record = encode(Call(id="half", service="mine", origin="http://127.0.0.1:9", method="GET", target="/"))
    stranger = encode(Call(id="stranger", service="other", origin="http://127.0.0.1:9", method="GET", target="/"))
    messages = {
        "garbage": (b"\xff\x00 no record at all", "malformed"),
        "empty": (b"", "malformed"),
        "half": (record[: len(record) // 2], "malformed"),
        "json": (b'{"queue_name": ', "malformed"),
        "list": (b"{}", "malformed"),
        "nobody": (dramatiq_message("nobody_knows_me"), "no actor"),
        "stranger": (stranger, "rejected"),
    }
    queue = "mine.background"
    fleet.engine.queue.put([Put(queue, id, payload) for id, (payload, _) in messages.items()])
    caller.ask("enqueue", service="mine", calls=[["POST", "/after-the-strangers"]])

    wait_until(lambda: fleet.drained("mine"))
    letters = {letter.id: letter.reason for letter in fleet.engine.queue.dead_letters(queue)}
    assert letters == {id: reason for id, (_, reason) in messages.items()}
    assert caller.ask("call", service="mine", method="GET", path="/still-here")["status"] == 200
    assert worker.popen.poll() is None
    assert "malformed message" in worker.text


def test_a_malformed_message_on_the_waited_queue_harms_nobody_who_waits(fleet: Fleet) -> None:
    _, caller = worker_and_caller(fleet)
    fleet.engine.queue.put([Put("mine.waited", f"waited-{n}", b"\xc1") for n in range(30)])
    answers = [caller.start("call", service="mine", method="GET", path=f"/between/{n}") for n in range(30)]
    assert {answer.result(10)["status"] for answer in answers} == {200}
    wait_until(lambda: fleet.drained("mine"))
    assert len(fleet.engine.queue.dead_letters("mine.waited")) == 30


def test_results_that_nobody_waits_for_leave_nothing_behind(
    fleet: Fleet, service: CountingService, redis_server: PrivateRedis
) -> None:
    hold = threading.Event()
    service.script("/orphan", Answer(hold=hold))
    widow, caller = fleet.start(callers=2)
    with redis_server.client() as redis:
        caller.ask("call", service="mine", method="GET", path="/first")
        caller.ask("enqueue", service="mine", calls=[["POST", "/first", {"keep_result": 30}]])
        wait_until(lambda: fleet.drained("mine") and service.count(path="/first") == 2)
        before = lasting_keys(redis, fleet)  # a service has a few, however many calls there are
        widow.start("call", service="mine", method="GET", path="/orphan")
        service.wait_for(1, path="/orphan")
        widow.kill()
        hold.set()
        fires = [caller.start("fire", service="mine", method="POST", path=f"/fire/{n}") for n in range(200)]
        caller.ask("enqueue", service="mine", calls=[["POST", f"/kept/{n}", {"keep_result": 30}] for n in range(50)])
        for fire in fires:
            fire.result(20)
        wait_until(lambda: fleet.drained("mine"))
        assert len({r.path for r in service.requests if r.path.startswith(("/fire/", "/kept/"))}) == 250
        # The token that wakes a worker lies there until that has slept at the broker again.
        wait_until(lambda: lasting_keys(redis, fleet) <= before, message="something stays for ever")
        left = set(map(bytes, redis.scan_iter(f"{fleet.namespace}:*"))) - before
        say(f"after 250 results that nobody fetched: {len(left)} keys, all of which expire; none for ever")
        ttls = {key: redis.ttl(key) for key in left}
        assert {key: ttl for key, ttl in ttls.items() if ttl == -1 or ttl > 120} == {}  # -2 is gone by now


def lasting_keys(redis: Any, fleet: Fleet) -> set[bytes]:
    return {key for key in redis.scan_iter(f"{fleet.namespace}:*") if redis.ttl(key) == -1}


def test_a_call_that_kills_three_workers_is_a_dead_letter_and_its_siblings_live(early: Stage) -> None:
    found = early.result("deadly_call")
    say(f"poison: three workers killed, in the dead letters after {found['took']:.1f} s")
    assert found["deadly"] == DEATHS
    assert found["dead"] == [(True, "poison")]
    assert found["error"][0] == "CallFailed"
    assert "poison" in found["error"][1]
    assert len(found["siblings"]) == SIBLINGS
