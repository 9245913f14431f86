"""With no broker, everything runs inside the process that imports Seawall."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from seawall import (
    CallCancelled,
    CallFailed,
    ConfigurationError,
    DeadlineExceeded,
    ResilientServiceClient,
    ResultExpired,
    ServiceUnavailable,
)
from seawall import runtime as runtimes
from seawall.settings import load_settings
from seawall.testing import Harness
from tests.support import Answer, CountingService, wait_until
from tests.support.house import no_services
from tests.support.threads import run_together


@pytest.fixture
def client(seawall: Harness, service: CountingService) -> ResilientServiceClient:
    return ResilientServiceClient(service.url, "Git Server", failure_threshold=1, max_retries=1)


@pytest.fixture
def plain_runtime() -> Iterator[runtimes.Runtime]:
    """Memory mode as an application has it, on the machine's own clock."""
    runtime = runtimes.Runtime(load_settings())
    before = runtimes.replace(runtime)
    with no_services():
        yield runtime
    runtimes.replace(before)
    runtime.close()


class TestBackgroundCalls:
    def test_an_enqueued_call_is_made_and_its_result_kept(
        self, client: ResilientServiceClient, service: CountingService
    ) -> None:
        service.script("/snapshot/42", Answer(201, {"commit": "c0ffee"}))
        handle = client.enqueue("POST", "/snapshot/42", json={"message": "x"})
        assert handle.result(5).json() == {"commit": "c0ffee"}
        assert (handle.status(), handle.done(), handle.exception()) == ("succeeded", True, None)

    def test_a_fired_call_is_made(self, client: ResilientServiceClient, service: CountingService) -> None:
        assert client.fire("POST", "/snapshot/42") is None
        service.wait_for(1)

    def test_a_delayed_call_waits_for_its_time(
        self, seawall: Harness, client: ResilientServiceClient, service: CountingService
    ) -> None:
        handle = client.enqueue("POST", "/later", delay=0.2)
        assert handle.status() == "due"
        asked = time.monotonic()
        arrived = service.wait_for(1)[0].at
        assert 0.15 < arrived - asked < 1

    def test_a_cancelled_call_is_never_made(
        self, seawall: Harness, client: ResilientServiceClient, service: CountingService
    ) -> None:
        handle = client.enqueue("POST", "/later", delay=60)
        assert handle.cancel()
        assert (handle.status(), handle.cancel()) == ("cancelled", False)
        with pytest.raises(CallCancelled):
            handle.result(1)
        seawall.advance(61)
        seawall.drain()
        assert service.count() == 0

    def test_a_running_call_cannot_be_cancelled(self, client: ResilientServiceClient, service: CountingService) -> None:
        release = threading.Event()
        service.script("*", Answer(hold=release))
        handle = client.enqueue("POST", "/slow")
        service.wait_for(1)
        assert (handle.status(), handle.cancel(), handle.done()) == ("running", False, False)
        with pytest.raises(DeadlineExceeded):
            handle.result(0.01)
        release.set()
        assert handle.result(5).status_code == 200

    def test_a_newer_call_takes_the_place_of_a_waiting_one(
        self, seawall: Harness, client: ResilientServiceClient, service: CountingService
    ) -> None:
        seawall.open("git-server")
        older = client.enqueue("POST", "/snapshot/42", json=1, coalesce="42")
        newer = client.enqueue("POST", "/snapshot/42", json=2, coalesce="42")
        other = client.enqueue("POST", "/snapshot/7", json=3, coalesce="7")
        assert newer.replaced == older.id
        seawall.close("git-server")
        for handle in (newer, other):
            handle.result(5)
        with pytest.raises(CallCancelled, match="replaced"):
            older.result(1)
        assert sorted(request.json for request in service.requests) == [2, 3]

    def test_held_while_the_service_is_down_and_delivered_when_it_is_back(
        self, seawall: Harness, client: ResilientServiceClient, service: CountingService
    ) -> None:
        service.stop()
        with pytest.raises(requests.ConnectionError):
            client.get("/ready")
        handles = [client.enqueue("POST", f"/snapshot/{n}") for n in range(5)]
        assert {handle.status() for handle in handles} == {"held"}
        service.start()
        seawall.advance(61)
        for handle in handles:
            assert handle.result(5).status_code == 200
        assert client.state.value == "closed"

    def test_skipped_while_the_breaker_is_open(
        self, seawall: Harness, client: ResilientServiceClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        seawall.open("git-server")
        handle = client.enqueue("POST", "/snapshot/42", on_open="skip")
        assert "[Git Server] Circuit breaker OPEN - skipping background call" in caplog.messages
        assert handle.done()
        with pytest.raises(ServiceUnavailable):
            handle.result(1)

    def test_an_expired_call_is_a_dead_letter_with_its_reason(
        self, seawall: Harness, client: ResilientServiceClient
    ) -> None:
        seawall.open("git-server")
        handle = client.enqueue("POST", "/snapshot/42", expires_in=30)
        seawall.advance(31)
        seawall.close("git-server")
        with pytest.raises(CallFailed) as caught:
            handle.result(5)
        assert caught.value.reason == "expired"
        letters = runtimes.current().engine.queue.dead_letters("git-server.background")
        assert [(letter.id, letter.reason) for letter in letters] == [(handle.id, "expired")]

    def test_a_failed_round_is_followed_by_the_next(self, seawall: Harness, service: CountingService) -> None:
        service.script("*", Answer(500), Answer(500), Answer(500), Answer(201))
        client = ResilientServiceClient(service.url, "Git Server", max_retries=3)
        handle = client.enqueue("POST", "/snapshot/42")
        wait_until(lambda: handle.status() == "due")
        assert [attempt.outcome for attempt in handle.attempts()] == ["Server error 500"] * 3
        seawall.advance(61)
        assert handle.result(5).status_code == 201

    def test_rounds_used_up_make_a_dead_letter(self, seawall: Harness, service: CountingService) -> None:
        service.script("*", Answer(500))
        client = ResilientServiceClient(service.url, "Git Server", max_retries=2)
        handle = client.enqueue("POST", "/snapshot/42", rounds=1)
        with pytest.raises(CallFailed) as caught:
            handle.result(5)
        assert (caught.value.reason, service.count(), handle.status()) == ("rounds used up", 2, "failed")

    def test_a_result_that_nobody_asked_to_keep(self, seawall: Harness, client: ResilientServiceClient) -> None:
        handle = client.enqueue("POST", "/snapshot/42", keep_result=0)
        seawall.drain()
        assert handle.status() == "succeeded"
        with pytest.raises(ResultExpired):
            handle.result(1)

    def test_several_threads_may_wait_for_one_result(
        self, client: ResilientServiceClient, service: CountingService
    ) -> None:
        release = threading.Event()
        service.script("*", Answer(hold=release))
        handle = client.enqueue("POST", "/slow")
        same = [client.handle(handle.id) for _ in range(4)]
        with ThreadPoolExecutor(5) as pool:
            impatient = pool.submit(client.handle(handle.id).result, 0.05)
            waiting = [pool.submit(one.result, 5) for one in same]
            assert isinstance(impatient.exception(5), DeadlineExceeded)
            release.set()
            assert [future.result(5).status_code for future in waiting] == [200] * 4

    def test_many_at_once_answer_one_by_one(self, client: ResilientServiceClient) -> None:
        answers = client.enqueue_many(
            [("POST", "/a"), ("POST", "/b", {"json": {1, 2}}), ("POST", "//elsewhere"), ("PUT", "/c", {"delay": 60})]
        )
        first, unserialisable, elsewhere, delayed = answers
        assert isinstance(unserialisable, TypeError)
        assert isinstance(elsewhere, ValueError)
        assert first.result(5).status_code == 200  # type: ignore[union-attr]
        assert delayed.status() == "due"  # type: ignore[union-attr]


class TestBreakers:
    def test_clients_without_a_name_have_breakers_of_their_own(
        self, seawall: Harness, service: CountingService
    ) -> None:
        service.script("*", Answer(500))
        one, two = (ResilientServiceClient(service.url, max_retries=1, failure_threshold=1) for _ in range(2))
        with pytest.raises(requests.HTTPError):
            one.get("/ready")
        assert (one.state.value, two.state.value) == ("open", "closed")
        assert one.key != two.key

    def test_clients_of_one_name_share_theirs(self, seawall: Harness, service: CountingService) -> None:
        service.script("*", Answer(500))
        one, two = (ResilientServiceClient(service.url, "Git", 1, failure_threshold=1) for _ in range(2))
        with pytest.raises(requests.HTTPError):
            one.get("/ready")
        assert two.state.value == "open"
        with pytest.raises(ServiceUnavailable):
            two.get("/ready")

    def test_a_client_made_in_every_request_costs_no_threads(self, seawall: Harness, service: CountingService) -> None:
        """The guide says not to do it; it must not bring the process down either."""

        def route() -> str:
            client = ResilientServiceClient(service.url, max_retries=1, failure_threshold=1)
            with pytest.raises(requests.HTTPError):
                client.get("/ready")
            assert client.state.value == "open"
            return client.key

        service.script("*", Answer(500))
        first = route()
        threads = threading.active_count()
        assert {route() for _ in range(20)} == {first}
        assert threading.active_count() <= threads + 2


class TestDeclaredAgain:
    """A re-run notebook cell."""

    def test_the_same_origin_again_the_last_one_holds(
        self, seawall: Harness, service: CountingService, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "seawall")
        older = ResilientServiceClient(service.url, "Git Server", max_retries=1)
        older.get("/ready")
        newer = ResilientServiceClient(
            service.url, "Git Server", max_retries=1, failure_threshold=1, recovery_timeout=9
        )
        assert "[Git Server] declared again with other settings; the newer ones hold" in caplog.messages
        assert older.get_status()["failure_threshold"] == newer.get_status()["failure_threshold"] == 1
        service.script("*", Answer(500))
        with pytest.raises(requests.HTTPError):
            older.get("/ready")
        assert newer.state.value == "open"
        assert 8 < newer.get_status()["retry_after"] <= 9

    def test_the_same_cell_again_changes_nothing(
        self, seawall: Harness, service: CountingService, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "seawall")
        for _ in range(3):
            ResilientServiceClient(service.url, "Git Server").get("/ready")
        assert "declared again" not in caplog.text
        assert service.count() == 3

    def test_another_origin_is_an_error(self, seawall: Harness) -> None:
        ResilientServiceClient("http://git:6005", "Git Server")
        with pytest.raises(ConfigurationError, match=r"http://git:6005.*http://other:6005"):
            ResilientServiceClient("http://other:6005", "Git Server")

    def test_a_named_client_is_the_declared_one(self, seawall: Harness, service: CountingService) -> None:
        ResilientServiceClient(service.url, "Git Server")
        assert ResilientServiceClient.named("git-server").get("/ready").status_code == 200
        with pytest.raises(ConfigurationError, match="git-server"):
            ResilientServiceClient.named("gti-server")


@pytest.mark.usefixtures("plain_runtime")
class TestThreads:
    def test_32_threads_at_once_for_the_first_time(self, service: CountingService) -> None:
        client = ResilientServiceClient(service.url, "Git Server")
        service.script("*", lambda request: Answer(200, {"path": request.path}))

        def ask(number: int) -> None:
            for turn in range(3):
                path = f"/{number}/{turn}"
                assert client.get(path).json() == {"path": path}

        run_together([lambda number=number: ask(number) for number in range(32)])  # type: ignore[misc]
        assert service.count() == 96

    def test_32_anonymous_clients_at_once(self, service: CountingService) -> None:
        clients: list[ResilientServiceClient] = []
        run_together([lambda: clients.append(ResilientServiceClient(service.url)) for _ in range(32)])
        assert len({client.key for client in clients}) == 32


def test_memory_mode_is_an_error_where_a_broker_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEAWALL_REQUIRE_BROKER", "1")
    before = runtimes.replace(None)
    try:
        with pytest.raises(ConfigurationError, match="SEAWALL_REQUIRE_BROKER"):
            ResilientServiceClient("http://git:6005", "Git Server")
    finally:
        runtimes.replace(before)


def test_one_warning_says_that_nothing_is_durable(
    plain_runtime: runtimes.Runtime, service: CountingService, caplog: pytest.LogCaptureFixture
) -> None:
    client = ResilientServiceClient(service.url, "Git Server")
    for _ in range(3):
        client.get("/ready")
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "SEAWALL_BROKER_URL" in warnings[0]
