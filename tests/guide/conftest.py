"""Every claim of the guide is tested twice: with nothing running but the process itself, and over a broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from seawall import ResilientServiceClient
from tests.support import CountingService
from tests.support.house import RemoteHouse, caller

#: Makes a client of the test's service, named as the guide's log lines name theirs.
MakeClient = Callable[..., ResilientServiceClient]


@pytest.fixture(params=["memory", "redis"])
def mode(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the calls run. Attempts follow each other at once; the log still says how long they would have waited."""
    if request.param == "memory":
        request.getfixturevalue("seawall")
        yield request.param
        return
    url = request.getfixturevalue("redis_url")
    with caller(url), RemoteHouse(url):
        yield request.param


@pytest.fixture
def make_client(mode: str, service: CountingService) -> MakeClient:
    def make(name: str | None = "Service Name", **settings: Any) -> ResilientServiceClient:
        return ResilientServiceClient(service.url, name, **settings)

    return make


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the loggers under `seawall` have said about services so far."""
    caplog.set_level("INFO", "seawall")

    def said() -> list[str]:
        return [r.getMessage() for r in caplog.records if r.name.startswith("seawall") and r.message.startswith("[")]

    return said
