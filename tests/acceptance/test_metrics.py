"""The fleet's numbers beside the services' own books, in a run with a `kill -9` of a worker in it."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from seawall.exposition import exposition
from seawall.runtime import registry
from tests.acceptance.harness import Fleet, say
from tests.support import Answer, CountingService, PrivateRedis, wait_until
from tests.support.house import caller

CALLS, BAD = 2000, 40


def ends(fleet: Fleet, key: str) -> dict[str, int]:
    """The background calls of a service by how they ended, as a web process would tell them."""
    with caller(fleet.url, namespace=fleet.namespace) as runtime:
        text = exposition(runtime, registry)
    return {
        sample.labels["outcome"]: int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "seawall_calls_total"
        and (sample.labels["service"], sample.labels["kind"]) == (key, "background")
        and sample.value
    }


def test_every_end_is_counted_once_although_a_worker_is_killed(tmp_path: Path, redis_server: PrivateRedis) -> None:
    with CountingService() as good, CountingService() as picky:
        good.script("*", Answer(delay=0.002))
        picky.script("*", Answer(422))
        services = {"good": {"url": good.url}, "picky": {"url": picky.url}}
        with Fleet(tmp_path, redis_server.url, services) as fleet:
            victim, survivor, _ = fleet.start(workers=2, supervisors=1)
            fleet.wait_for_worker(survivor)
            paths = [f"/{number}" for number in range(CALLS)]
            fleet.enqueue("good", paths)
            fleet.enqueue("picky", paths[:BAD])
            good.wait_for(CALLS // 2, timeout=30)
            victim.kill()
            wait_until(lambda: fleet.drained("good") and fleet.drained("picky"), 60)

            arrived = {request.path for request in good.requests}
            told = ends(fleet, "good")
            say(f"metrics: {told} told, {len(arrived)} calls seen in {good.count()} requests, one worker killed")
            assert len(arrived) == CALLS
            assert told == {"succeeded": CALLS}
            assert ends(fleet, "picky") == {"answered_4xx": BAD}
