"""Row 2: a blip of Redis. Stock: every delayed message and retry is frozen in the memory of a worker that seems alive.

Here delays lie in the broker: what was due meanwhile runs within 2 s of its return, what is due later runs when it is.
"""

from __future__ import annotations

import time

from seawall import ResilientServiceClient
from seawall.redis_link import ANSWER_TIMEOUT
from tests.resilience.scene import calling, drained, pass_time
from tests.support import CountingService, PrivateRedis, wait_until

EACH = 10
#: Seconds of the outage; of a delay that ends in it, and of one that ends after it.
OUTAGE, IN_IT, AFTER_IT = 2.5, 2.0, 4.5
#: Seconds within which work goes on, and for which the machine may stand still meanwhile: a frozen delay never ends.
PROMISED, ROOM = 2.0, 2.0


def test_delayed_calls_run_after_an_outage_and_once(own_redis: PrivateRedis, service: CountingService) -> None:
    with calling(own_redis.url, answer_timeout=ANSWER_TIMEOUT):
        client = ResilientServiceClient(service.url, "Delayed", key="delayed")
        began = time.monotonic()
        client.enqueue_many(
            ("POST", f"/{when}/{number}", {"delay": delay})
            for number in range(EACH)
            for when, delay in (("in-it", IN_IT), ("after-it", AFTER_IT))
        )
        own_redis.kill()
        pass_time(began + OUTAGE)
        seen_meanwhile = service.count()
        own_redis.restart()
        back = time.monotonic()
        requests = service.wait_for(2 * EACH, timeout=10)
        wait_until(lambda: drained("delayed"))
    assert seen_meanwhile == 0, "the delays did not end in the outage"
    assert len({request.path for request in service.requests}) == service.count() == 2 * EACH
    for request in requests:
        due = began + (IN_IT if request.path.startswith("/in-it/") else AFTER_IT)
        assert due <= request.at < max(due, back) + PROMISED + ROOM, request.path
