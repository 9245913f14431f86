"""The guide: failed requests are retried with exponential backoff."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import requests

from seawall import runtime as runtimes
from seawall.settings import load_settings
from tests.guide.conftest import MakeClient
from tests.support import Answer, CountingService
from tests.support.house import RemoteHouse, caller, no_services


def test_a_failed_request_is_retried_until_it_succeeds(make_client: MakeClient, service: CountingService) -> None:
    service.script("/add", Answer(500), Answer(503), Answer(200, {"added": 1}))
    assert make_client().post("/add", json={"id": 7}).json() == {"added": 1}
    assert [request.json for request in service.requests] == [{"id": 7}] * 3


def test_waits_double_from_one_second(
    make_client: MakeClient, service: CountingService, lines: Callable[[], list[str]]
) -> None:
    """1s, 2s, 4s."""
    service.script("*", Answer(500))
    with pytest.raises(requests.HTTPError):
        make_client(max_retries=4).get("/query")
    assert [line for line in lines() if "Retrying" in line] == [
        "[Service Name] Retrying in 1s...",
        "[Service Name] Retrying in 2s...",
        "[Service Name] Retrying in 4s...",
    ]


@pytest.fixture(params=["memory", "redis"])
def waiting_mode(request: pytest.FixtureRequest) -> Iterator[None]:
    """As `mode`, with attempts that really wait."""
    if request.param == "memory":
        runtime = runtimes.Runtime(load_settings({"broker_url": "memory://"}))
        before = runtimes.replace(runtime)
        with no_services():
            yield
        runtimes.replace(before)
        runtime.close()
        return
    url = request.getfixturevalue("redis_url")
    with caller(url), RemoteHouse(url, backoff=1.0):
        yield


@pytest.mark.usefixtures("waiting_mode")
def test_attempts_are_apart_as_long_as_the_log_says(service: CountingService) -> None:
    from seawall import ResilientServiceClient

    service.script("*", Answer(500), Answer(500), Answer(200))
    ResilientServiceClient(service.url, "Service Name", backoff=0.1, jitter=0).get("/query")
    first, second, third = (request.at for request in service.requests)
    assert second - first >= 0.1
    assert third - second >= 0.2
    assert third - first < 1


def test_three_attempts_by_default(make_client: MakeClient, service: CountingService) -> None:
    service.script("*", Answer(500))
    with pytest.raises(requests.HTTPError):
        make_client().get("/query")
    assert service.count("/query") == 3


def test_max_retries_is_configurable(make_client: MakeClient, service: CountingService) -> None:
    service.script("*", Answer(500))
    with pytest.raises(requests.HTTPError):
        make_client(max_retries=2).get("/query")
    assert service.count("/query") == 2


def test_after_the_last_attempt_a_server_error_is_raised_with_its_response(
    make_client: MakeClient, service: CountingService
) -> None:
    service.script("*", Answer(503, {"error": "busy"}))
    with pytest.raises(requests.HTTPError) as caught:
        make_client().get("/query")
    assert caught.value.response.status_code == 503
    assert caught.value.response.json() == {"error": "busy"}


def test_after_the_last_attempt_the_connection_error_is_raised(
    make_client: MakeClient, service: CountingService
) -> None:
    service.stop()
    with pytest.raises(requests.ConnectionError) as caught:
        make_client().get("/query")
    assert isinstance(caught.value, requests.RequestException)


def test_a_client_error_is_an_answer_and_not_retried(make_client: MakeClient, service: CountingService) -> None:
    """The patterns of the guide call raise_for_status() themselves."""
    service.script("*", Answer(404, {"error": "no such project"}))
    response = make_client().post("/deduct_cost", json={"amount": 100})
    assert (response.status_code, service.count()) == (404, 1)
    with pytest.raises(requests.HTTPError):
        response.raise_for_status()
