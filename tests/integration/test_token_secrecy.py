"""The internal token stays in the worker: it is in nothing that is stored, logged, raised or shown."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from seawall import ResilientServiceClient, TokenUnavailable
from seawall.actors.token import TokenSource
from tests.support import Answer, CountingService, wait_until
from tests.support.house import RemoteHouse, caller
from tests.support.scripts import ROOT

TOKEN = "tok-9f8e7d6c5b4a-never-to-be-seen"

MODULE = """
from seawall import ResilientServiceClient
git = ResilientServiceClient({url!r}, "Git Server", key="git", backoff=0.01, failure_threshold=2, max_response_bytes=100)
"""


class Wiretap(threading.Thread):
    """Everything that anybody says to the server, as MONITOR shows it."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._client = redis.Redis.from_url(url)
        self._listening = threading.Event()
        self.heard: list[str] = []

    def __enter__(self) -> Wiretap:
        self.start()
        assert self._listening.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def run(self) -> None:
        with (
            contextlib.suppress(redis.RedisError, OSError, ValueError, AttributeError),
            self._client.monitor() as monitor,
        ):
            self._listening.set()
            for command in monitor.listen():
                self.heard.append(str(command))


@pytest.fixture
def worker(redis_url: str, service: CountingService, tmp_path: Path) -> Iterator[Path]:
    """A worker process that knows the token, logging everything it does into the file."""
    (tmp_path / "services_of_the_test.py").write_text(MODULE.format(url=service.url))
    environment = {
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
        "SEAWALL_BROKER_URL": redis_url,
        "SEAWALL_INTERNAL_TOKEN": TOKEN,
        "SEAWALL_LOG_LEVEL": "debug",
    }
    log = tmp_path / "worker.log"
    command = [sys.executable, "-m", "seawall", "worker", "services_of_the_test"]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=stream, stderr=stream, cwd=tmp_path)
    try:
        yield log
    finally:
        process.terminate()
        process.wait(10)


def everything_of(answer: Any) -> str:
    """A response or an exception, inside out."""
    if isinstance(answer, BaseException):
        lines = traceback.TracebackException.from_exception(answer, capture_locals=True).format()
        return "".join(lines) + repr(vars(answer)) + everything_of(getattr(answer, "response", None))
    if isinstance(answer, requests.Response):
        request = answer.request and (answer.request.url, dict(answer.request.headers), answer.request.body)
        return repr((answer.url, dict(answer.headers), answer.content, request, vars(answer)))
    return repr(answer)


def outcome(call: Any) -> str:
    try:
        return everything_of(call())
    except requests.RequestException as error:
        return everything_of(error)


def play(client: ResilientServiceClient, service: CountingService) -> list[str]:
    """Every kind of end that a call can come to."""
    service.script("/ok", Answer(200, {"ok": True}))
    service.script("/error", Answer(500))
    service.script("/large", Answer(200, "x" * 1000))
    service.script("/moved", Answer(302, headers={"Location": "/ok"}))
    service.script("/away", Answer(302, headers={"Location": "http://127.0.0.1:1/"}))
    service.script("/slow", Answer(delay=5))
    service.script("/hang-up", Answer(hang_up=True))
    seen = [
        outcome(lambda: client.post("/ok", json={"a": 1}, headers={"X-Internal-Token": "an older one"})),
        outcome(lambda: client.get("/moved")),
        outcome(lambda: client.get("/away")),
        outcome(lambda: client.get("/large")),
        outcome(lambda: client.enqueue("POST", "/ok").result(5)),
        outcome(lambda: client.enqueue("POST", "/error", rounds=1).result(5)),
        outcome(lambda: client.get("/ok")),
        outcome(lambda: client.get("/slow", timeout=0.1)),
        outcome(lambda: client.get("/ok")),
        outcome(lambda: client.get("/error")),
        outcome(lambda: client.get("/hang-up")),
        outcome(lambda: client.get("/ok")),
    ]
    client.fire("POST", "/held")
    return [*seen, repr(client.get_status()), repr(client.service), repr(client)]


def test_the_token_is_nowhere(
    worker: Path, redis_url: str, service: CountingService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with Wiretap(redis_url) as wiretap, caller(redis_url):
        client = ResilientServiceClient(
            service.url, "Git Server", key="git", backoff=0.01, failure_threshold=2, max_response_bytes=100
        )
        queue = "git.waited"
        wait_until(lambda: redis.Redis.from_url(redis_url).exists(f"seawall:q:{queue}:serving"), 10)
        seen = play(client, service)
        processes = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _readable(path)]
        stored = _everything_stored(redis_url)
    assert service.matching("/ok")[0].headers["x-internal-token"] == TOKEN, "it was sent, though"
    assert [text for text in seen if TOKEN in text] == []
    assert [text for text in wiretap.heard if TOKEN in text] == []
    assert len(wiretap.heard) > 50
    assert TOKEN not in repr(stored)
    assert {b"seawall:breaker:git", b"seawall:q:git.background:dead"} <= stored.keys()
    assert TOKEN not in caplog.text
    assert "Server error 500" in worker.read_text()
    assert TOKEN not in worker.read_text()
    assert [line for line in processes if TOKEN.encode() in line] == []


def _readable(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:  # it has ended
        return False


def _everything_stored(url: str) -> dict[bytes, Any]:
    readers: dict[bytes, tuple[Any, ...]] = {
        b"string": ("GET",),
        b"list": ("LRANGE", 0, -1),
        b"hash": ("HGETALL",),
        b"set": ("SMEMBERS",),
        b"zset": ("ZRANGE", 0, -1),
        b"stream": ("XRANGE", "-", "+"),
    }
    found = {}
    with redis.Redis.from_url(url) as server:
        for key in server.scan_iter():
            command, *limits = readers[server.type(key)]
            found[key] = server.execute_command(command, key, *limits)
    return found


class TestTokenFile:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "token"
        path.write_text(TOKEN)
        return path

    @pytest.fixture
    def client(self, redis_url: str, path: Path, service: CountingService) -> Iterator[ResilientServiceClient]:
        with caller(redis_url), RemoteHouse(redis_url, token=TokenSource(file=path)):
            yield ResilientServiceClient(service.url, "Git Server", failure_threshold=1)

    def test_when_it_disappears_calls_fail_and_are_never_sent_without(
        self, client: ResilientServiceClient, path: Path, service: CountingService
    ) -> None:
        client.get("/ready")
        path.unlink()
        with pytest.raises(TokenUnavailable, match="cannot be read") as caught:
            client.get("/ready")
        assert TOKEN not in everything_of(caught.value)
        assert service.count() == 1
        assert client.state.value == "closed", "it says nothing about the service"

    def test_when_it_is_back_calls_go_on_with_what_it_holds_then(
        self, client: ResilientServiceClient, path: Path, service: CountingService
    ) -> None:
        path.unlink()
        with pytest.raises(TokenUnavailable):
            client.get("/ready")
        path.write_text("another one")
        client.get("/ready")
        assert [request.headers["x-internal-token"] for request in service.requests] == ["another one"]

    def test_a_background_call_waits_for_it(
        self, client: ResilientServiceClient, path: Path, service: CountingService
    ) -> None:
        path.unlink()
        handle = client.enqueue("POST", "/snapshot/42")
        wait_until(lambda: handle.status() == "due")
        assert [attempt.outcome for attempt in handle.attempts()] == ["Secret unavailable"]
        assert service.count() == 0
