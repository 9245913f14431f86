"""A caller's process with a broker, a house that works for it, and a web process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from seawall import runtime as runtimes
from tests.integration.web_process import Web, running
from tests.support import PrivateRedis
from tests.support.house import RemoteHouse, caller


@pytest.fixture
def calling(redis_url: str) -> Iterator[runtimes.Runtime]:
    """What this process calls through."""
    with caller(redis_url) as runtime:
        yield runtime


@pytest.fixture
def house(calling: runtimes.Runtime, redis_url: str) -> Iterator[RemoteHouse]:
    """A worker for the services that this process has declared."""
    with RemoteHouse(redis_url) as house:
        yield house


@pytest.fixture(scope="module")
def shared_web(redis_server: PrivateRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with running(redis_server, tmp_path_factory.mktemp("web")) as web:
        yield web


@pytest.fixture
def web(shared_web: Web, redis_url: str) -> Web:
    """One that several tests ask; its broker is empty."""
    return shared_web
