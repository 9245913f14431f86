"""Row 12: a call that is due soon behind many that are due later. Stock: behind 8,000 of them it had not run after 90 s.

Here what is due is sorted by time in the broker: it runs within 100 ms of its time, whatever else waits.
"""

from __future__ import annotations

import statistics
import time

from seawall import ResilientServiceClient
from seawall import runtime as runtimes
from seawall.actors.queue_store import Accepted, Put
from seawall.actors.service import queue_names
from tests.resilience.scene import calling, counts
from tests.support import CountingService

FAR, SOON = 20_000, 5
#: Calls that are queued in one round trip, which has to end within the link's timeout.
AT_ONCE = 200
#: Seconds of a soon call's delay, and by which it may be late.
DELAY, PUNCTUAL = 0.5, 0.1


def test_a_due_call_is_on_time(redis_url: str, service: CountingService) -> None:
    with calling(redis_url):
        client = ResilientServiceClient(service.url, "Sorted", key="sorted")
        queue = queue_names("sorted")[1]
        far = [Put(queue, f"far-{number}", b"never run", delay=3600) for number in range(FAR)]
        for first in range(0, FAR, AT_ONCE):
            answers = runtimes.current().engine.queue.put(far[first : first + AT_ONCE])
            assert all(isinstance(answer, Accepted) for answer in answers)
        late = []
        # One after another, so that a moment in which the machine stands still delays one of them.
        for number in range(SOON):
            before = time.monotonic()
            client.enqueue("POST", f"/{number}", delay=DELAY)
            asked = time.monotonic()
            (request,) = service.wait_for(path=f"/{number}", timeout=10)
            assert request.at >= before + DELAY - 0.01, "none starts early"
            late.append(request.at - asked - DELAY)
        assert counts("sorted").due == FAR
    assert statistics.median(late) <= PUNCTUAL
