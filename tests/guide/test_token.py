"""The guide: the internal token is injected by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from seawall import ResilientServiceClient
from seawall.actors.token import TokenSource
from tests.support import CountingService
from tests.support.house import RemoteHouse, caller

TOKEN = "t0ken-of-the-inner-circle"


@pytest.fixture(params=["memory", "redis"])
def _with_token(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A token that is known where calls are sent: here in memory mode, in the worker alone with a broker."""
    if request.param == "memory":
        monkeypatch.setenv("SEAWALL_INTERNAL_TOKEN", TOKEN)
        request.getfixturevalue("seawall")
        yield
        return
    url = request.getfixturevalue("redis_url")
    with caller(url), RemoteHouse(url, token=TokenSource(value=TOKEN)):
        yield


@pytest.mark.usefixtures("_with_token")
def test_the_token_is_added_automatically(service: CountingService) -> None:
    client = ResilientServiceClient(service.url, "Chroma Server")
    client.post("/add", json={})
    client.get("/ready")
    assert [request.headers["x-internal-token"] for request in service.requests] == [TOKEN, TOKEN]


@pytest.mark.usefixtures("_with_token")
def test_a_header_left_over_from_before_the_migration_does_no_harm(
    service: CountingService, caplog: pytest.LogCaptureFixture
) -> None:
    client = ResilientServiceClient(service.url, "Filesystem Server")
    for _ in range(2):
        client.post("/save_file", json={}, headers={"X-Internal-Token": "stale", "X-Request-Id": "7"})
    assert [request.headers["x-internal-token"] for request in service.requests] == [TOKEN, TOKEN]
    assert service.requests[0].headers["x-request-id"] == "7"
    warned = [r.getMessage() for r in caplog.records if "X-Internal-Token" in r.getMessage()]
    assert len(warned) <= 1, "one warning for a service, not one for a call"


@pytest.mark.usefixtures("_with_token")
def test_the_caller_never_sees_the_token(service: CountingService) -> None:
    response = ResilientServiceClient(service.url, "Chroma Server").get("/ready")
    assert TOKEN not in str(dict(response.request.headers))


@pytest.mark.usefixtures("mode")
def test_without_a_configured_token_none_is_sent(service: CountingService) -> None:
    ResilientServiceClient(service.url, "Chroma Server").get("/ready")
    assert "x-internal-token" not in service.requests[0].headers
