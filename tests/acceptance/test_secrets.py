"""The internal token and a base URL's password reach the service, and nothing else: not the queue, a log, a result."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.harness import CallError, Fleet, say
from tests.support import Answer, CountingService, PrivateRedis
from tests.support.canaries import Sightings, every_value, every_write, process_titles

#: Canaries: nobody else writes these.
TOKEN, PASSWORD = "canary-token-5f2c81", "canary-password-93ab07"
BASIC = base64.b64encode(f"user:{PASSWORD}".encode()).decode()


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


def test_no_secret_is_anywhere_but_at_the_service(
    fleet: Fleet, service: CountingService, redis_server: PrivateRedis
) -> None:
    sightings = Sightings({"token": TOKEN, "password": PASSWORD, "user and password": f"user:{PASSWORD}"})
    told = make_calls(fleet, service)
    with redis_server.client() as redis:
        sightings.search_all("stored value", every_value(redis))
    sightings.search_all("append-only file", every_write(redis_server))
    for number, text in enumerate(told):
        sightings.search("result or exception", str(number), text)
    for program in fleet.programs:
        sightings.search("log", program.log.name, program.log.read_bytes())
    sightings.search_all("process title", process_titles())

    say(f"searched for the token and the password: {sightings.searched}")
    assert sightings.found == []
    assert min(sightings.searched.values()) > 1
    assert b"/held" in b"".join(written for _, written in every_write(redis_server)), "the search sees what is stored"
    assert {request.headers.get("x-internal-token") for request in service.requests} == {TOKEN}
    assert {request.headers.get("authorization") for request in service.requests} == {f"Basic {BASIC}"}
    assert service.count("/broken", method="GET") > 4
