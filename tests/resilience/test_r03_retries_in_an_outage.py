"""Row 3: an attempt fails while Redis is away. Stock: the retry's enqueue fails, that is swallowed, the message acknowledged.

Here ending an attempt and scheduling the next one are one step, which the worker repeats until it is carried out.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from seawall import ResilientServiceClient
from seawall.redis_link import ANSWER_TIMEOUT
from tests.resilience.scene import calling, drained
from tests.support import Answer, CountingService, PrivateRedis, Request, wait_until

CALLS = 10
#: Seconds within which the retries have run, from the broker's return on, and for which the machine may stand still
#: meanwhile: a lost retry never comes.
PROMISED, ROOM = 2.0, 2.0


def test_no_retry_is_lost(own_redis: PrivateRedis, service: CountingService) -> None:
    away = threading.Event()

    def answer(request: Request) -> Answer:
        """The first attempt of each call fails as soon as the broker is away."""
        return Answer(503, hold=away) if service.count(request.path) == 1 else Answer()

    service.script("*", answer)
    options = {"concurrency": CALLS + 2, "failure_threshold": 1000, "retry_budget": 1.0}
    with calling(own_redis.url, backoff=0.01, answer_timeout=ANSWER_TIMEOUT), ThreadPoolExecutor(1) as pool:
        client = ResilientServiceClient(service.url, "Failing", key="failing", **options)
        for number in range(CALLS):
            client.enqueue("POST", f"/background/{number}")
        waited = pool.submit(client.get, "/waited", deadline=30)
        service.wait_for(CALLS + 1)
        own_redis.kill()
        away.set()
        wait_until(lambda: service.active == 0)
        own_redis.restart()
        back = time.monotonic()
        assert waited.result(10).status_code == 200
        requests = service.wait_for(2 * (CALLS + 1), timeout=10)
        wait_until(lambda: drained("failing"))
    assert requests[-1].at - back < PROMISED + ROOM
    times = Counter(request.path for request in service.requests)
    # A caller that has not heard by the kill that its call was queued makes a GET itself as well.
    assert times.pop("/waited") in (2, 3)
    assert set(times.values()) == {2}
