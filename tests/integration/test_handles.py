"""Background calls over a broker, seen through their handles."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from seawall import (
    CallCancelled,
    CallFailed,
    DeadlineExceeded,
    Handle,
    OutcomeUnknown,
    QueueFull,
    ResilientServiceClient,
    ResultExpired,
    ServiceUnavailable,
)
from seawall import runtime as runtimes
from seawall.actors.queue_store import DeadLetter
from seawall.supervisor.breaker import ForceClose, ForceOpen
from tests.support import Answer, CountingService, wait_until
from tests.support.house import RemoteHouse, caller
from tests.support.scripts import run_script


@pytest.fixture
def calling(redis_url: str) -> Iterator[runtimes.Runtime]:
    with caller(redis_url) as runtime:
        yield runtime


@pytest.fixture
def idle(calling: runtimes.Runtime, service: CountingService) -> ResilientServiceClient:
    """A client whose queue no worker serves yet."""
    return ResilientServiceClient(service.url, "Git Server", key="git", max_retries=2, failure_threshold=9)


@pytest.fixture
def house(idle: ResilientServiceClient, redis_url: str) -> Iterator[RemoteHouse]:
    with RemoteHouse(redis_url) as house:
        yield house


@pytest.fixture
def client(idle: ResilientServiceClient, house: RemoteHouse) -> ResilientServiceClient:
    return idle


def letters() -> list[DeadLetter]:
    return runtimes.current().engine.queue.dead_letters("git.background")


class TestResults:
    def test_the_response(self, client: ResilientServiceClient, service: CountingService) -> None:
        service.script("*", Answer(201, {"commit": "c0ffee"}))
        handle = client.enqueue("POST", "/snapshot/42", json={"message": "x"})
        assert handle.result(5).json() == {"commit": "c0ffee"}
        assert handle.result() is handle.result(), "asked once, kept"
        assert (handle.status(), handle.done(), handle.exception()) == ("succeeded", True, None)

    def test_a_client_error_is_a_result(self, client: ResilientServiceClient, service: CountingService) -> None:
        service.script("*", Answer(404))
        assert client.enqueue("POST", "/snapshot/42").result(5).status_code == 404

    def test_not_over_yet_is_a_timeout(self, client: ResilientServiceClient, service: CountingService) -> None:
        release = threading.Event()
        service.script("*", Answer(hold=release))
        handle = client.enqueue("POST", "/slow")
        service.wait_for(1)
        with pytest.raises(DeadlineExceeded):
            handle.result(0.05)
        with pytest.raises(TimeoutError):
            handle.exception(0)
        release.set()
        assert handle.result(5).status_code == 200

    def test_asked_by_another_process_by_its_id(
        self, client: ResilientServiceClient, service: CountingService, redis_url: str
    ) -> None:
        service.script("*", Answer(201, {"commit": "c0ffee"}))
        handle = client.enqueue("POST", "/snapshot/42")
        done = run_script(
            """
            import sys
            from seawall import ResilientServiceClient
            client = ResilientServiceClient(sys.argv[1], "Git Server", key="git")
            handle = client.handle(sys.argv[2])
            print(handle.result(5).json()["commit"], handle.status())
            """,
            service.url,
            handle.id,
            SEAWALL_BROKER_URL=redis_url,
        )
        assert done.stdout.split() == ["c0ffee", "succeeded"]

    def test_several_may_wait_for_it(self, client: ResilientServiceClient, service: CountingService) -> None:
        release = threading.Event()
        service.script("*", Answer(hold=release))
        handle = client.enqueue("POST", "/slow")
        with ThreadPoolExecutor(4) as pool:
            impatient = pool.submit(client.handle(handle.id).result, 0.05)
            waiting = [pool.submit(client.handle(handle.id).result, 5) for _ in range(3)]
            assert isinstance(impatient.exception(5), DeadlineExceeded)
            release.set()
            assert [future.result(5).status_code for future in waiting] == [200] * 3

    def test_gone_when_it_was_not_kept(self, client: ResilientServiceClient) -> None:
        handle = client.enqueue("POST", "/snapshot/42", keep_result=0)
        wait_until(handle.done)
        assert handle.status() == "succeeded"
        with pytest.raises(ResultExpired):
            handle.result(1)

    def test_gone_when_nobody_knows_it(self, client: ResilientServiceClient) -> None:
        handle = client.handle("018f0000-0000-7000-8000-000000000000")
        assert (handle.status(), handle.done()) == ("gone", True)
        with pytest.raises(ResultExpired):
            handle.result(1)


class TestStatus:
    def test_from_queued_to_succeeded(
        self, idle: ResilientServiceClient, service: CountingService, redis_url: str
    ) -> None:
        release = threading.Event()
        service.script("*", Answer(hold=release))
        handle = idle.enqueue("POST", "/snapshot/42")
        assert (handle.status(), handle.done()) == ("queued", False)
        with RemoteHouse(redis_url):
            service.wait_for(1)
            assert handle.status() == "running"
            release.set()
            wait_until(handle.done)
        assert handle.status() == "succeeded"

    def test_due_between_attempts_which_can_be_read(
        self, idle: ResilientServiceClient, service: CountingService, redis_url: str
    ) -> None:
        service.script("*", Answer(500), Answer(200))
        with RemoteHouse(redis_url, backoff=0.2):
            before = time.time()
            handle = idle.enqueue("POST", "/snapshot/42")
            wait_until(lambda: handle.status() == "due")
            (attempt,) = handle.attempts()
            assert attempt.outcome == "Server error 500"
            assert before - 1 < attempt.at < time.time() + 1
            assert 0 <= attempt.took < 1
            assert handle.result(5).status_code == 200

    def test_delayed(self, client: ResilientServiceClient, service: CountingService) -> None:
        asked = time.monotonic()
        handle = client.enqueue("POST", "/later", delay=0.3)
        assert handle.status() == "due"
        assert 0.25 < service.wait_for(1)[0].at - asked < 1

    def test_held_while_the_breaker_is_open(
        self, client: ResilientServiceClient, house: RemoteHouse, service: CountingService
    ) -> None:
        view = runtimes.current().views.of(client.service)
        view.by_hand(ForceOpen())
        handle = client.enqueue("POST", "/snapshot/42")
        assert handle.status() == "held"
        view.by_hand(ForceClose())
        assert handle.result(5).status_code == 200


class TestCancel:
    def test_before_it_starts(self, idle: ResilientServiceClient, service: CountingService, redis_url: str) -> None:
        handle = idle.enqueue("POST", "/snapshot/42")
        other = idle.handle(handle.id)
        assert handle.cancel()
        assert not handle.cancel()
        assert (handle.status(), other.status()) == ("cancelled", "cancelled")
        for one in (handle, other):
            with pytest.raises(CallCancelled):
                one.result(1)
        with RemoteHouse(redis_url):
            assert idle.enqueue("POST", "/after").result(5).status_code == 200
        assert [request.path for request in service.requests] == ["/after"]

    def test_not_while_it_runs(self, client: ResilientServiceClient, service: CountingService) -> None:
        release = threading.Event()
        service.script("*", Answer(hold=release))
        handle = client.enqueue("POST", "/slow")
        service.wait_for(1)
        assert not handle.cancel()
        release.set()
        assert handle.result(5).status_code == 200

    def test_by_a_newer_call_with_the_same_key(
        self, idle: ResilientServiceClient, service: CountingService, redis_url: str
    ) -> None:
        for number in range(3):
            idle.snapshot("42", f"save {number}")
        older, newer = (idle.enqueue("POST", "/tag", json=n, coalesce="tag") for n in range(2))
        assert newer.replaced == older.id
        with pytest.raises(CallCancelled):
            older.result(1)
        with RemoteHouse(redis_url):
            newer.result(5)
            wait_until(lambda: service.count() == 2)
        bodies = {request.path: request.json for request in service.requests}
        assert bodies == {"/snapshot/42": {"message": "save 2"}, "/tag": 1}


class TestAcceptance:
    def test_full_at_its_cap(self, calling: runtimes.Runtime, service: CountingService) -> None:
        client = ResilientServiceClient(service.url, "Git Server", key="git", queue_cap=2)
        answers = client.enqueue_many([("POST", f"/{number}") for number in range(3)])
        assert [type(answer) for answer in answers] == [Handle, Handle, QueueFull]
        with pytest.raises(QueueFull, match="2 calls"):
            client.enqueue("POST", "/more")

    def test_skipped_while_the_breaker_is_open(
        self, client: ResilientServiceClient, service: CountingService, caplog: pytest.LogCaptureFixture
    ) -> None:
        runtimes.current().views.of(client.service).by_hand(ForceOpen())
        handle = client.enqueue("POST", "/snapshot/42", on_open="skip")
        assert "[Git Server] Circuit breaker OPEN - skipping background call" in caplog.messages
        assert (handle.status(), handle.done(), handle.cancel(), service.count()) == ("skipped", True, False, 0)
        with pytest.raises(ServiceUnavailable):
            handle.result(1)


class TestDeadLetters:
    def test_rounds_used_up(self, client: ResilientServiceClient, service: CountingService) -> None:
        service.script("*", Answer(500))
        handle = client.enqueue("POST", "/snapshot/42", rounds=1)
        with pytest.raises(CallFailed) as caught:
            handle.result(5)
        assert (caught.value.reason, service.count(), handle.status()) == ("rounds used up", 2, "failed")
        assert [(letter.id, letter.reason) for letter in letters()] == [(handle.id, "rounds used up")]

    def test_what_may_have_happened_is_not_repeated(self, house: RemoteHouse, service: CountingService) -> None:
        """`idempotency="none"`: the service would carry a repetition out once more."""
        service.script("*", Answer(hang_up=True))
        client = ResilientServiceClient(service.url, "Git Server", key="git", idempotency="none")
        handle = client.enqueue("POST", "/snapshot/42")
        with pytest.raises(requests.RequestException):
            handle.result(5)
        assert (service.count(), handle.status()) == (1, "failed")
        assert [letter.reason for letter in letters()] == ["outcome unknown"]


class TestIdempotency:
    def test_a_call_that_may_have_left_is_of_unknown_outcome(
        self, house: RemoteHouse, service: CountingService
    ) -> None:
        service.script("*", Answer(hang_up=True))
        client = ResilientServiceClient(service.url, "Git Server", key="git", idempotency="none")
        with pytest.raises(OutcomeUnknown) as caught:
            client.post("/deduct_cost", json={"amount": 100})
        assert isinstance(caught.value, requests.ConnectionError)
        assert service.count() == 1

    def test_one_that_cannot_have_left_is_tried_again(self, house: RemoteHouse, service: CountingService) -> None:
        client = ResilientServiceClient(service.url, "Git Server", key="git", idempotency="none")
        service.stop()
        with pytest.raises(requests.ConnectionError) as caught:
            client.post("/deduct_cost", json={"amount": 100})
        assert not isinstance(caught.value, OutcomeUnknown)
        assert client.get_status()["consecutive_failures"] == 1

    def test_reading_may_be_repeated(self, house: RemoteHouse, service: CountingService) -> None:
        service.script("*", Answer(hang_up=True), Answer(200))
        client = ResilientServiceClient(service.url, "Git Server", key="git", idempotency="none")
        assert client.get("/balance").status_code == 200

    def test_otherwise_every_attempt_has_the_same_key(
        self, client: ResilientServiceClient, service: CountingService
    ) -> None:
        service.script("*", Answer(hang_up=True), Answer(200))
        client.post("/deduct_cost", json={"amount": 100})
        keys = [request.headers["idempotency-key"] for request in service.requests]
        assert len(keys) == 2
        assert keys[0] == keys[1]
