"""The internal token and a base URL's password reach the service, and nothing else: not the queue, a log, a result."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.harness import CallError, Fleet, say
from tests.support import Answer, CountingService, PrivateRedis

#: Canaries: nobody else writes these.
TOKEN, PASSWORD = "canary-token-5f2c81", "canary-password-93ab07"
BASIC = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
#: In every form in which they could show up: as they are, as HTTP sends them, and as repr or hex of bytes.
TRACES = tuple(
    form.encode()
    for secret in (TOKEN, PASSWORD, BASIC)
    for form in (secret, base64.b64encode(secret.encode()).decode().rstrip("="), secret.encode().hex())
)


class Sightings:
    """What a search of one kind has found: where, and how much was searched."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.searched: dict[str, int] = {}

    def search(self, kind: str, where: str, data: bytes) -> None:
        self.searched[kind] = self.searched.get(kind, 0) + 1
        self.found += [f"{kind} {where}: {trace!r}" for trace in TRACES if trace in data]


@pytest.fixture(scope="module")
def service() -> Iterator[CountingService]:
    with CountingService() as running:
        running.script("/missing", Answer(404))
        running.script("/broken", Answer(500))
        running.script("/gone", Answer(hang_up=True))
        running.script("/slow", Answer(delay=3))
        running.script("/moved", Answer(302, headers={"Location": "/ok?moved=1"}))
        running.script("/away", Answer(302, headers={"Location": "http://127.0.0.1:9/elsewhere"}))
        yield running


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, redis_server: PrivateRedis, service: CountingService
) -> Iterator[Fleet]:
    """Workers and a supervisor that know the secrets and log all they can; the callers know neither."""
    common = {"max_retries": 1, "failure_threshold": 1000, "timeout": 1}
    secret_url = service.url.replace("//", f"//user:{PASSWORD}@")
    services = {
        "steady": {"url": secret_url, **common},
        "sick": {
            "url": secret_url,
            **common,
            "failure_threshold": 1,
            "recovery_timeout": 0.5,
            "health_path": "/broken",
        },
        "dead": {"url": f"http://user:{PASSWORD}@127.0.0.1:9", **common},
    }
    environ = {"SEAWALL_INTERNAL_TOKEN": TOKEN, "SEAWALL_LOG_LEVEL": "debug"}
    with Fleet(tmp_path_factory.mktemp("secrets"), redis_server.url, services, environ=environ) as fleet:
        fleet.start(workers=2, supervisors=1)
        yield fleet


def make_calls(fleet: Fleet, service: CountingService) -> list[str]:
    """Calls of every kind and end; everything that a caller's process could print about them."""
    fleet.environ.pop("SEAWALL_INTERNAL_TOKEN")
    caller = fleet.start(callers=1)[0]
    told = []
    paths = ["/ok", "/missing", "/broken", "/gone", "/slow", "/moved", "/away"]
    answers = [
        caller.start("call", service="steady", method=method, path=path) for path in paths for method in ("GET", "POST")
    ]
    answers += [caller.start("call", service="dead", method="GET", path="/refused")]
    answers += [caller.start("call", service="sick", method="GET", path="/broken") for _ in range(3)]
    for answer in answers:
        told.append(shown(answer))
    calls = [["POST", path, {"keep_result": 60, "rounds": 1}] for path in paths]
    for id in caller.ask("enqueue", service="steady", calls=calls):
        told.append(shown(caller.start("result", service="steady", id=id, within=10)))
    caller.ask("enqueue", service="sick", calls=[["POST", "/held"]])
    told.append(str(caller.ask("status", service="sick")))
    service.wait_for(12, path="/broken")  # the supervisor's trials are among them
    return told


def shown(answer: Any) -> str:
    try:
        return str(answer.result(20))
    except CallError as error:
        return error.shown


def every_value(redis: Any) -> Iterator[tuple[str, bytes]]:
    """All that the server stores now, decoded by type."""
    read = {
        "string": redis.get,
        "hash": redis.hgetall,
        "list": lambda key: redis.lrange(key, 0, -1),
        "set": redis.smembers,
        "zset": lambda key: redis.zrange(key, 0, -1, withscores=True),
        "stream": redis.xrange,
    }
    for key in redis.scan_iter("*"):
        yield key.decode(), key + b" " + b" ".join(flat(read[redis.type(key).decode()](key)))


def flat(value: Any) -> Iterator[bytes]:
    """The bytes in nested containers."""
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        yield from flat(list(value.items()))
    elif isinstance(value, (list, tuple, set)):
        for part in value:
            yield from flat(part)


def every_write(server: PrivateRedis) -> Iterator[tuple[str, bytes]]:
    """All that the server has ever stored: its append-only file."""
    for file in (server.folder / "appendonlydir").iterdir():
        yield file.name, file.read_bytes()


def process_titles() -> Iterator[tuple[str, bytes]]:
    for folder in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "comm"):
            with contextlib.suppress(OSError):
                yield f"{folder.name}/{name}", (folder / name).read_bytes()


def test_no_secret_is_anywhere_but_at_the_service(
    fleet: Fleet, service: CountingService, redis_server: PrivateRedis
) -> None:
    sightings = Sightings()
    told = make_calls(fleet, service)
    with redis_server.client() as redis:
        for key, value in every_value(redis):
            sightings.search("stored value", key, value)
    for name, written in every_write(redis_server):
        sightings.search("append-only file", name, written)
    for number, text in enumerate(told):
        sightings.search("result or exception", str(number), text.encode())
    for program in fleet.programs:
        sightings.search("log", program.log.name, program.log.read_bytes())
    for where, title in process_titles():
        sightings.search("process title", where, title)

    say(f"searched for the token and the password: {sightings.searched}")
    assert sightings.found == []
    assert min(sightings.searched.values()) > 1
    assert b"/held" in b"".join(written for _, written in every_write(redis_server)), "the search sees what is stored"
    assert {request.headers.get("x-internal-token") for request in service.requests} == {TOKEN}
    assert {request.headers.get("authorization") for request in service.requests} == {f"Basic {BASIC}"}
    assert service.count("/broken", method="GET") > 4
