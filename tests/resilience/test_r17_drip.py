"""Row 17: a service that answers a byte at a time. Stock: requests' timeout is for each read: 2 s became 30 and 120 s.

Here `timeout` bounds the whole attempt: 2 s end within 2.3 s, whatever drips.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from seawall import ResilientServiceClient
from tests.resilience.scene import calling
from tests.support.drip import drip_of_body, drip_of_chunks, drip_of_headers, silence
from tests.support.loopback import Loopback, Peer

#: Seconds of an attempt, and by which its end may be late, as promised.
LIMIT, LATE = 2.0, 0.3
#: A machine that stands still for a moment makes an attempt late, but not each time; one without a limit never ends.
TRIES = 3


def test_an_attempt_ends_in_its_time_whatever_drips(redis_url: str) -> None:
    def attempt(behaviour: Callable[[Peer], None]) -> float:
        with Loopback(behaviour) as server:
            client = ResilientServiceClient(server.url, behaviour.__name__, 1, LIMIT)
            for _ in range(TRIES):
                started = time.monotonic()
                with pytest.raises(requests.ReadTimeout):
                    client.get("/query")
                took = time.monotonic() - started
                if took <= LIMIT + LATE:
                    break
            return took

    behaviours = (silence, drip_of_headers, drip_of_body, drip_of_chunks)
    with calling(redis_url), ThreadPoolExecutor(len(behaviours)) as pool:
        took = dict(zip([one.__name__ for one in behaviours], pool.map(attempt, behaviours), strict=True))
    assert {name: each for name, each in took.items() if not LIMIT <= each <= LIMIT + LATE} == {}
