"""The tests' own helpers work as they say."""

from __future__ import annotations

import threading
import time

import pytest
import redis
import requests

from tests.support import Answer, CountingService, PrivateRedis, wait_until


def test_every_request_is_remembered(service: CountingService) -> None:
    with requests.Session() as session:
        session.post(f"{service.url}/add?n=1", json={"a": 1}, headers={"X-One": "1"})
        session.post(f"{service.url}/add", data=iter([b"ab", b"c"]))
    first, second = service.requests
    assert (first.method, first.path, first.query, first.json) == ("POST", "/add", "n=1", {"a": 1})
    assert first.headers["x-one"] == "1"
    assert second.body == b"abc"
    assert first.connection == second.connection
    assert service.connections == 1


def test_scripted_answers_come_in_turn_and_the_last_repeats(service: CountingService) -> None:
    service.script("/a", Answer(500), Answer(200, {"ok": True}))
    assert [requests.get(f"{service.url}/a").status_code for _ in range(3)] == [500, 200, 200]
    assert requests.get(f"{service.url}/a").json() == {"ok": True}
    assert requests.get(f"{service.url}/b").content == b""


def test_held_request_answers_when_released(service: CountingService) -> None:
    release = threading.Event()
    service.script("/slow", Answer(hold=release))
    answers: list[int] = []
    caller = threading.Thread(target=lambda: answers.append(requests.get(f"{service.url}/slow").status_code))
    caller.start()
    service.wait_for(1, path="/slow")
    assert service.active == 1
    release.set()
    caller.join()
    assert answers == [200]
    wait_until(lambda: service.active == 0)


def test_stopped_service_refuses_and_returns_on_the_same_port(service: CountingService) -> None:
    port = service.port
    held = threading.Event()
    service.script("/held", Answer(hold=held))
    errors: list[Exception] = []

    def call() -> None:
        try:
            requests.get(f"{service.url}/held")
        except requests.ConnectionError as error:
            errors.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    service.wait_for(1)
    service.stop()
    caller.join()
    assert errors
    for _ in range(3):
        with pytest.raises(requests.ConnectionError, match="refused"):
            requests.get(f"{service.url}/ready")
    service.start()
    assert service.port == port
    assert requests.get(f"{service.url}/ready").status_code == 200


def test_hanging_up_and_dripping(service: CountingService) -> None:
    service.script("/gone", Answer(hang_up=True))
    service.script("/drip", Answer(body="abc", drip=0.02))
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{service.url}/gone")
    began = time.monotonic()
    assert requests.get(f"{service.url}/drip").text == "abc"
    assert time.monotonic() - began >= 0.06


def test_redis_url_is_empty_for_every_test(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "over")


test_redis_url_is_empty_again = test_redis_url_is_empty_for_every_test


def test_own_redis_keeps_its_data_through_a_kill(own_redis: PrivateRedis) -> None:
    with own_redis.client() as client:
        client.set("key", "kept")
    own_redis.kill()
    own_redis.restart()
    with own_redis.client() as client:
        assert client.get("key") == b"kept"
