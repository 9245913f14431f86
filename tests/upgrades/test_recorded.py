"""What every earlier release has left in a broker is met by this one: nothing is lost, nothing is misread."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seawall import runtime as runtimes
from seawall.client import ResilientServiceClient
from seawall.supervisor.breaker import State
from tests.acceptance.harness import Fleet
from tests.support import CountingService, PrivateRedis, wait_until
from tests.support.house import caller
from tests.upgrades.keyspace import read_namespace, write_namespace
from tests.upgrades.record import KEY, PORT, fill

RECORDED = sorted(Path(__file__).parent.glob("*.json"))
#: What waited when the old fleet was stopped.
WAITING = {"failed-once", "of-a-dead-worker", "delayed", "coalesced", "deduped", "of-a-schedule", "plain"}


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda path: path.stem)
def test_a_fleet_of_this_release_takes_over(
    recorded: Path, tmp_path: Path, own_redis: PrivateRedis, service: CountingService
) -> None:
    declared = {KEY: {"url": service.url, "recovery_timeout": 0.5}}
    with Fleet(tmp_path, own_redis.url, declared) as fleet:
        with own_redis.client() as client:
            write_namespace(client, fleet.namespace, json.loads(recorded.read_text()), port=service.port, was=PORT)
        assert fleet.breaker(KEY).state is State.OPEN
        assert fleet.counts(KEY).dead == 1
        fleet.start(workers=1, supervisors=1)
        wait_until(lambda: fleet.drained(KEY), 30, message="what was left does not drain")
        assert {request.path.strip("/") for request in service.requests} == WAITING
        assert all(request.headers["idempotency-key"] == request.path.strip("/") for request in service.requests)
        assert all(request.body == b'{"from": "the past"}' for request in service.requests)
        assert fleet.breaker(KEY).state is State.CLOSED
        assert fleet.engine.queue.tally()[KEY, "skipped"] == 3
        assert fleet.engine.queue.ticks(["nightly"]) == {"nightly": 1_700_000_000.0}
        (letter,) = fleet.engine.queue.dead_letters(f"{KEY}.background")
        assert (letter.id, letter.reason, letter.progress.history[0].outcome) == (
            "buried",
            "rounds used up",
            "Server error 500",
        )
        with caller(own_redis.url, namespace=fleet.namespace):
            again = ResilientServiceClient(service.url, "Old", key=KEY)
            assert again.handle("finished").result(5).content == b"kept"
            assert again.enqueue("POST", "/x", dedupe="once").id == "deduped"
            assert runtimes.current().engine.queue.replay(f"{KEY}.background", "buried", 60)
        wait_until(lambda: service.count("/buried") == 1, 10)


def test_the_newest_record_is_what_this_release_writes(own_redis: PrivateRedis) -> None:
    """A change of what is stored shows here: then think of those who read the older form, and record anew at a release."""
    fill(own_redis.url, "written")
    with own_redis.client() as client:
        now = read_namespace(client, "written")
    recorded = json.loads(RECORDED[-1].read_text())
    assert {name: entry["type"] for name, entry in now.items()} == {
        name: entry["type"] for name, entry in recorded.items()
    }
    for name in (f"q:{KEY}.background:msg", f"q:{KEY}.background:prog", f"q:{KEY}.background:dead:msg"):
        assert now[name]["value"] == recorded[name]["value"]
