"""The broker is away, or silent: what a caller gets, and when."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from seawall import (
    BrokerUnavailable,
    DeadlineExceeded,
    OutcomeUnknown,
    ResilientServiceClient,
    ServiceUnavailable,
    TokenUnavailable,
    direct,
)
from seawall.redis_link import ANSWER_TIMEOUT
from tests.support import Answer, CountingService, PrivateRedis, Request, wait_until
from tests.support.house import RemoteHouse, caller


@pytest.fixture(autouse=True)
def _warns_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "_warned_at", None)


@pytest.fixture
def client(tmp_path: Path, service: CountingService) -> Iterator[ResilientServiceClient]:
    """A client whose broker refuses connections."""
    with caller(f"unix://{tmp_path}/nobody.sock", answer_timeout=ANSWER_TIMEOUT):
        yield ResilientServiceClient(service.url, "Chroma Server", backoff=0.01, failure_threshold=2)


class TestUnreachable:
    """Nothing was written to it: the call runs in the caller's process."""

    def test_calls_run_here_with_one_warning(
        self, client: ResilientServiceClient, service: CountingService, caplog: pytest.LogCaptureFixture
    ) -> None:
        for number in range(3):
            assert client.post("/add", json=number).status_code == 200
        assert [request.json for request in service.requests] == [0, 1, 2]
        warnings = [text for text in caplog.messages if "calls run in this process" in text]
        assert len(warnings) == 1

    def test_with_retries_and_the_breaker_on_local_state(
        self, client: ResilientServiceClient, service: CountingService
    ) -> None:
        service.script("*", Answer(500))
        for _ in range(2):
            with pytest.raises(requests.HTTPError):
                client.get("/thing")
        assert (service.count(), client.state.value) == (6, "open")
        with pytest.raises(ServiceUnavailable):
            client.get("/thing")
        assert service.count() == 6

    def test_within_the_deadline(self, client: ResilientServiceClient, service: CountingService) -> None:
        service.script("*", Answer(delay=5))
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="may have been carried out"):
            client.get("/slow", deadline=0.3)
        assert time.monotonic() - started < 1
        assert client.get_status()["consecutive_failures"] == 0, "the caller's haste is no fault of the service"

    def test_although_the_breakers_store_is_silent_when_the_answer_comes(
        self, client: ResilientServiceClient, service: CountingService, tmp_path: Path
    ) -> None:
        def fall_silent(request: Request) -> Answer:
            listener.bind(f"{tmp_path}/nobody.sock")
            listener.listen()
            return Answer(delay=0.6)  # beyond the time for which the lost store is not asked again

        with socket.socket(socket.AF_UNIX) as listener:
            service.script("/sick", Answer(500))
            with pytest.raises(requests.HTTPError):
                client.get("/sick")
            service.script("/slow", fall_silent)
            started = time.monotonic()
            assert client.get("/slow", deadline=0.8).status_code == 200
            assert time.monotonic() - started < 1.4

    def test_with_no_backoff_beyond_the_deadline(
        self, client: ResilientServiceClient, service: CountingService
    ) -> None:
        service.script("*", Answer(503, headers={"Retry-After": "60"}))
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="no further one was made"):
            client.get("/thing", deadline=1)
        assert time.monotonic() - started < 1
        assert service.count() == 1

    def test_unless_the_service_says_no(self, client: ResilientServiceClient, service: CountingService) -> None:
        strict = ResilientServiceClient(service.url, "Billing Server", when_broker_down="raise")
        with pytest.raises(BrokerUnavailable) as caught:
            strict.post("/deduct_cost", json={})
        assert not caught.value.written
        assert service.count() == 0

    def test_not_without_its_token(self, tmp_path: Path, service: CountingService) -> None:
        with caller(
            f"unix://{tmp_path}/nobody.sock", answer_timeout=ANSWER_TIMEOUT, internal_token_file=str(tmp_path / "token")
        ):
            client = ResilientServiceClient(service.url, "Chroma Server")
            with pytest.raises(ServiceUnavailable) as caught:
                client.get("/ready")
        assert isinstance(caught.value.__cause__, TokenUnavailable)
        assert service.count() == 0

    def test_enqueue_raises_within_two_seconds(self, client: ResilientServiceClient) -> None:
        started = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="nothing was queued") as caught:
            client.enqueue("POST", "/add")
        assert time.monotonic() - started < 2
        assert (caught.value.written, caught.value.service) == (False, "Chroma Server")

    def test_fire_logs_and_counts(self, client: ResilientServiceClient, caplog: pytest.LogCaptureFixture) -> None:
        for _ in range(2):
            client.fire("POST", "/add?token=secret")
        lost = [record for record in caplog.records if "was not queued" in record.getMessage()]
        assert [record.levelno for record in lost] == [logging.ERROR] * 2
        assert "POST /add " in lost[0].getMessage()
        assert "secret" not in caplog.text
        assert "2 so far" in lost[1].getMessage()

    def test_a_wrong_argument_is_still_an_error(self, client: ResilientServiceClient) -> None:
        with pytest.raises(TypeError):
            client.fire("POST", "/add", stream=True)  # type: ignore[call-arg]


@pytest.fixture
def silent(own_redis: PrivateRedis, service: CountingService) -> Iterator[ResilientServiceClient]:
    """A client whose broker took its connection, and then answers nothing any more."""
    with caller(own_redis.url, answer_timeout=ANSWER_TIMEOUT), RemoteHouse(own_redis.url, supervised=False):
        client = ResilientServiceClient(service.url, "Chroma Server", 1)
        client.get("/ready")
        service.clear()
        own_redis.freeze()
        yield client
        own_redis.thaw()


class TestSilent:
    """It is not known whether the call was queued."""

    def test_an_idempotent_call_runs_here(self, silent: ResilientServiceClient, service: CountingService) -> None:
        started = time.monotonic()
        assert silent.get("/thing").status_code == 200
        assert time.monotonic() - started < 2

    def test_another_one_is_of_unknown_outcome(
        self, silent: ResilientServiceClient, service: CountingService, own_redis: PrivateRedis
    ) -> None:
        started = time.monotonic()
        with pytest.raises(OutcomeUnknown, match="may or may not be carried out") as caught:
            silent.post("/add", json={})
        assert time.monotonic() - started < 2
        assert isinstance(caught.value, requests.ConnectionError)
        assert service.count() == 0
        own_redis.thaw()
        wait_until(lambda: service.count("/add") == 1, message="this time it had been queued")

    def test_enqueue_says_that_it_may_have_been_queued(self, silent: ResilientServiceClient) -> None:
        started = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="may have been queued all the same") as caught:
            silent.enqueue("POST", "/add")
        assert time.monotonic() - started < 2
        assert caught.value.written


def test_the_status_never_waits_for_a_silent_broker(own_redis: PrivateRedis, service: CountingService) -> None:
    """Not even in a process that has never talked to it."""
    own_redis.freeze()
    with caller(own_redis.url, answer_timeout=ANSWER_TIMEOUT):
        client = ResilientServiceClient(service.url, "Chroma Server")
        for _ in range(3):
            started = time.monotonic()
            status = client.get_status()
            assert time.monotonic() - started < 0.4
            assert (status["state"], status["as_of"]) == ("closed", 0)
        own_redis.thaw()
        wait_until(lambda: client.get_status()["as_of"] > 0)
