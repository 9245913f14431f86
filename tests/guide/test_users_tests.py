"""The guide: an application's own tests patch `requests.request`. They need nothing running, and reach no queue."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from unittest.mock import MagicMock, patch

import pytest
import redis

from seawall import ResilientServiceClient, ServiceUnavailable
from seawall import runtime as runtimes
from seawall.settings import load_settings
from tests.support import wait_until
from tests.support.house import RemoteHouse, caller, no_services


@pytest.fixture(params=["no broker", "broker"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The broker's URL, or empty. Nothing is mocked but what the user mocks."""
    if request.param == "broker":
        url = request.getfixturevalue("redis_url")
        with caller(url), RemoteHouse(url):
            yield url
        return
    runtime = runtimes.Runtime(load_settings())
    before = runtimes.replace(runtime)
    with no_services():
        yield ""
    runtimes.replace(before)
    runtime.close()


def down(client: ResilientServiceClient, mock: MagicMock, times: int) -> None:
    mock.side_effect = builtins.ConnectionError("down")
    for _ in range(times):
        with pytest.raises(builtins.ConnectionError) as caught:
            client.post("/test")
        assert caught.value is mock.side_effect, "the very object"


@pytest.mark.usefixtures("url")
def test_a_mocked_failure_opens_the_breaker() -> None:
    client = ResilientServiceClient("http://failing-service:9999", failure_threshold=3, max_retries=1)
    with patch("requests.request") as mock:
        down(client, mock, 3)
        assert client.state.value == "open"
        with pytest.raises(ServiceUnavailable):
            client.post("/test")
        assert mock.call_count == 3


@pytest.mark.usefixtures("url")
def test_a_mocked_success_closes_it_again() -> None:
    client = ResilientServiceClient("http://service:9999", failure_threshold=2, recovery_timeout=0.3, max_retries=1)
    with patch("requests.request") as mock:
        down(client, mock, 2)
        assert client.state.value == "open"
        wait_until(lambda: client.state.value == "half_open")
        mock.side_effect, mock.return_value = None, MagicMock(status_code=200)
        assert client.post("/test") is mock.return_value
        assert client.state.value == "closed"


@pytest.mark.usefixtures("url")
def test_every_mock_finds_a_closed_breaker() -> None:
    client = ResilientServiceClient("http://service:9999", failure_threshold=1, max_retries=1)
    with patch("requests.request") as mock:
        down(client, mock, 1)
        assert client.state.value == "open"
    again = ResilientServiceClient("http://service:9999", failure_threshold=1, max_retries=1)
    with patch("requests.request") as mock:
        mock.return_value = MagicMock(status_code=200)
        assert again.post("/test").status_code == 200


def test_a_mocked_call_leaves_no_trace_on_the_broker(redis_url: str) -> None:
    with caller(redis_url), patch("requests.request") as mock:
        mock.return_value = MagicMock(status_code=200)
        client = ResilientServiceClient("http://service:9999", "Chroma Server")
        client.post("/test", json={"a": 1})
        assert mock.call_args.kwargs["json"] == {"a": 1}
    with redis.Redis.from_url(redis_url) as server:
        assert server.keys() == []
