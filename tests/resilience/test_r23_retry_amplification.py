"""Row 23: retries of a service that is down. Stock: each call is made as often as it may be, three times the load.

Here a worker retries at most 20 times for each 100 calls, even with no breaker; with one, a dead service is left alone.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import requests

from seawall import ResilientServiceClient, ServiceUnavailable
from tests.resilience.scene import calling
from tests.support import Answer, CountingService

CALLS, CALLERS = 200, 8
#: Requests for each call that a dead service sees at the most: the promise.
AMPLIFICATION = 1.2


def failed(client: ResilientServiceClient) -> int:
    def call(number: int) -> int:
        try:
            client.get(f"/{number}")
        except (requests.HTTPError, ServiceUnavailable):
            return 1
        return 0

    with ThreadPoolExecutor(CALLERS) as pool:
        return sum(pool.map(call, range(CALLS)))


def test_without_a_breaker_the_budget_bounds_it(redis_url: str, service: CountingService) -> None:
    service.script("*", Answer(500))
    with calling(redis_url):
        client = ResilientServiceClient(service.url, "Down", 3, key="down", breaker=False)
        assert failed(client) == CALLS
    assert CALLS < service.count() <= AMPLIFICATION * CALLS


def test_with_a_breaker_hardly_anything_comes(redis_url: str, service: CountingService) -> None:
    service.script("*", Answer(500))
    with calling(redis_url):
        client = ResilientServiceClient(service.url, "Down", 3, key="down")
        assert failed(client) == CALLS
    assert service.count() < CALLS / 4
