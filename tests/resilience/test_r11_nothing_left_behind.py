"""Row 11: fire and forget. Stock: no bound on a queue, and each result stays for ten minutes: 1,000 calls, 1,000 keys.

Here a call that nobody asks for leaves no key, and a queue has a cap.
"""

from __future__ import annotations

import pytest
import redis

from seawall import QueueFull, ResilientServiceClient
from tests.resilience.scene import calling, counts, drained
from tests.support import CountingService, wait_until
from tests.support.house import caller

CALLS = 1000


def keys(inside: redis.Redis) -> set[bytes]:
    return set(inside.scan_iter("*"))


def test_a_thousand_calls_leave_no_key(redis_url: str, service: CountingService) -> None:
    with calling(redis_url), redis.Redis.from_url(redis_url) as inside:
        client = ResilientServiceClient(service.url, "Fired", key="fired")
        client.fire("POST", "/first")
        service.wait_for(1)
        wait_until(lambda: drained("fired"))
        before = keys(inside)
        for number in range(CALLS):
            client.fire("POST", f"/{number}", data=b"x" * 1000)
        service.wait_for(1 + CALLS, timeout=30)
        wait_until(lambda: drained("fired"))
        wait_until(lambda: keys(inside) <= before, message=f"left behind: {keys(inside) - before}")


def test_a_queue_has_a_cap(redis_url: str, service: CountingService) -> None:
    """Nobody serves it."""
    with caller(redis_url):
        client = ResilientServiceClient(service.url, "Capped", key="capped", queue_cap=50)
        for number in range(50):
            client.enqueue("POST", f"/{number}")
        with pytest.raises(QueueFull, match="cap of 50 calls"):
            client.enqueue("POST", "/one-too-many")
        assert counts("capped").ready == 50
