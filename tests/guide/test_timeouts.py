"""The guide: all requests have configurable timeouts."""

from __future__ import annotations

import time

import pytest
import requests

from tests.guide.conftest import MakeClient
from tests.support import Answer, CountingService


def test_a_request_times_out_after_the_clients_timeout(make_client: MakeClient, service: CountingService) -> None:
    service.script("*", Answer(delay=5))
    started = time.monotonic()
    with pytest.raises(requests.Timeout):
        make_client(timeout=0.2, max_retries=1).get("/query")
    assert 0.2 <= time.monotonic() - started < 1


def test_ten_seconds_by_default(make_client: MakeClient) -> None:
    assert make_client().service.timeout == (10, 10)


def test_a_call_may_have_a_timeout_of_its_own(make_client: MakeClient, service: CountingService) -> None:
    service.script("/ready", Answer(200, delay=0.2))
    client = make_client(timeout=0.05, max_retries=1)
    assert client.get("/ready", timeout=5).status_code == 200
    with pytest.raises(requests.Timeout):
        client.get("/ready")


def test_every_attempt_has_the_whole_timeout(make_client: MakeClient, service: CountingService) -> None:
    service.script("*", Answer(200, delay=5), Answer(200, delay=0.3))
    assert make_client(timeout=0.5).get("/query").status_code == 200
    assert service.count() == 2


def test_an_answer_that_drips_is_over_in_time_too(make_client: MakeClient, service: CountingService) -> None:
    service.script("*", Answer(200, "x" * 1000, drip=0.02))
    started = time.monotonic()
    with pytest.raises(requests.RequestException):
        make_client(timeout=0.2, max_retries=1).get("/query")
    assert time.monotonic() - started < 1
