"""Fixtures that every test may use; the helpers behind them live in tests.support."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support import CountingService, PrivateRedis

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("seawall", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("seawall")


def pytest_configure() -> None:
    """Children of a process that was told to ignore SIGHUP (nohup) or SIGINT (a shell's background) ignore them, too, and
    tests send them.
    """
    for number, usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the person who runs the tests play no part in them."""
    for name in [name for name in os.environ if name.startswith("SEAWALL_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[PrivateRedis]:
    """One private server for the whole session; do not stop it (see `own_redis`). Tests want `redis_url`."""
    with tempfile.TemporaryDirectory(prefix="seawall-test-") as folder:
        server = PrivateRedis(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def redis_url(redis_server: PrivateRedis) -> str:
    """The URL of an empty database on the shared server."""
    with redis_server.client() as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def own_redis() -> Iterator[PrivateRedis]:
    """A durable server of the test's own, to stop, kill, freeze and restart."""
    with tempfile.TemporaryDirectory(prefix="seawall-test-") as folder:
        server = PrivateRedis(Path(folder), durable=True)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def service() -> Iterator[CountingService]:
    """A scriptable HTTP service on a free port."""
    with CountingService() as running:
        yield running
