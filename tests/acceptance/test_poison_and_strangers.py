"""What does not belong into a queue: a call that kills its workers, messages nobody can read, results nobody wants."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from seawall.actors.queue_store import Put
from seawall.actors.record import Call, encode
from tests.acceptance.harness import CallError, Fleet, Program, Stage, playing, say
from tests.support import Answer, CountingService, PrivateRedis, wait_until

#: Workers that a call may kill.
DEATHS = 3
#: Calls that run beside the deadly one when it kills for the first time.
SIBLINGS = 3


def deadly_call(folder: Path, url: str) -> dict[str, Any]:
    """Whoever runs /deadly is killed with `kill -9`, as it would be by the system for want of memory."""
    with ExitStack() as stack:
        service = stack.enter_context(CountingService())
        hold = threading.Event()
        stack.callback(hold.set)
        first = [Answer(hold=hold)] * (1 + SIBLINGS)
        service.script("/deadly", Answer(hold=hold))
        service.script("*", *first[1:], Answer())
        fleet = stack.enter_context(Fleet(folder, url, {"mine": {"url": service.url, "timeout": 60}}))
        worker, _, caller = fleet.start(workers=1, supervisors=1, callers=1)
        paths = ["/deadly", *(f"/sibling/{n}" for n in range(SIBLINGS))]
        deadly, *_ = caller.ask("enqueue", service="mine", calls=[["POST", path] for path in paths])
        service.wait_for(1 + SIBLINGS)
        began = time.monotonic()
        for deaths in range(1, DEATHS + 1):
            service.wait_for(deaths, path="/deadly", timeout=20)
            successor = fleet.worker()
            fleet.wait_for_worker(successor)
            worker.kill()
            worker = successor
        with pytest.raises(CallError) as caught:
            caller.ask("result", service="mine", id=deadly, timeout=20)
        took = time.monotonic() - began
        caller.ask("call", service="mine", method="GET", path="/alive")
        wait_until(lambda: fleet.drained("mine"))
        return {
            "took": took,
            "error": (caught.value.kind, str(caught.value)),
            "deadly": service.count("/deadly"),
            "siblings": {path for path in paths[1:] if service.count(path) == 2},
            "dead": [
                (letter.id == deadly, letter.reason) for letter in fleet.engine.queue.dead_letters("mine.background")
            ],
        }


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, redis_server: PrivateRedis) -> Iterator[Stage]:
    plays = {"deadly_call": partial(deadly_call, url=redis_server.url)}
    with playing(tmp_path_factory.mktemp("poison"), **plays) as stage:
        yield stage


@pytest.fixture(scope="module")
def service() -> Iterator[CountingService]:
    with CountingService() as running:
        yield running


@pytest.fixture(scope="module")
def fleet(
    stage: Stage, tmp_path_factory: pytest.TempPathFactory, redis_server: PrivateRedis, service: CountingService
) -> Iterator[Fleet]:
    """One worker and one caller; made after the stage, whose play takes its time meanwhile."""
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
    assert "Traceback" not in worker.text


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
    with redis_server.client() as redis:
        before = lasting_keys(redis, fleet)
        widow = fleet.start(callers=1)[0]
        widow.start("call", service="mine", method="GET", path="/orphan")
        service.wait_for(1, path="/orphan")
        widow.kill()
        hold.set()
        caller = fleet.start(callers=1)[0]
        for n in range(200):
            caller.start("fire", service="mine", method="POST", path=f"/fire/{n}")
        caller.ask("enqueue", service="mine", calls=[["POST", f"/kept/{n}", {"keep_result": 30}] for n in range(50)])
        service.wait_for(1, path="/kept/49")
        wait_until(lambda: fleet.drained("mine") and service.count() >= 250)
        left = set(map(bytes, redis.scan_iter(f"{fleet.namespace}:*"))) - before
        say(f"after 250 results that nobody fetched: {len(left)} keys, all of which expire; none for ever")
        assert {key: redis.ttl(key) for key in left if not 0 < redis.ttl(key) <= 120} == {}
        assert lasting_keys(redis, fleet) <= before


def lasting_keys(redis: Any, fleet: Fleet) -> set[bytes]:
    return {key for key in redis.scan_iter(f"{fleet.namespace}:*") if redis.ttl(key) == -1}


def test_a_call_that_kills_three_workers_is_a_dead_letter_and_its_siblings_live(stage: Stage) -> None:
    found = stage.result("deadly_call")
    say(f"poison: three workers killed, in the dead letters after {found['took']:.1f} s")
    assert found["deadly"] == DEATHS
    assert found["dead"] == [(True, "poison")]
    assert found["error"][0] == "CallFailed"
    assert "poison" in found["error"][1]
    assert len(found["siblings"]) == SIBLINGS
