"""Row 15: a message that nobody can read. Stock: it strands all that was fetched with it: 15 of 30 good messages stuck.

Here it goes to the dead letters, and its neighbours run.
"""

from __future__ import annotations

import pytest

from seawall import ResilientServiceClient
from seawall import runtime as runtimes
from seawall.actors.queue_store import Put
from seawall.actors.service import queue_names
from tests.resilience.scene import calling, drained
from tests.support import CountingService, wait_until
from tests.support.house import RemoteHouse, caller

GOOD = 30


@pytest.mark.parametrize("garbage", [b"", b"\xff\x00\xc1", b'{"queue_name": ', b"\x80" * 100_000])
def test_neighbours_of_garbage_run(garbage: bytes, redis_url: str, service: CountingService) -> None:
    with caller(redis_url) as runtime:
        client = ResilientServiceClient(service.url, "Mixed", key="mixed")
        queue = queue_names("mixed")[1]
        for number in range(GOOD):
            client.enqueue("POST", f"/{number}")
            if number == GOOD // 2:
                runtime.engine.queue.put([Put(queue, "garbage", garbage)])
        with RemoteHouse(redis_url):
            service.wait_for(GOOD)
            wait_until(lambda: drained("mixed"))
        letters = [(letter.id, letter.reason) for letter in runtime.engine.queue.dead_letters(queue)]
    assert letters == [("garbage", "malformed")]
    assert len({request.path for request in service.requests}) == service.count() == GOOD


def test_garbage_among_waited_for_calls_keeps_no_caller(redis_url: str, service: CountingService) -> None:
    with calling(redis_url):
        client = ResilientServiceClient(service.url, "Mixed", key="mixed")
        for number in range(5):
            runtimes.current().engine.queue.put([Put(queue_names("mixed")[0], f"garbage-{number}", b"\xc1")])
            assert client.get(f"/{number}", deadline=5).status_code == 200
