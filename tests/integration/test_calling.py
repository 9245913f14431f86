"""Waited-for calls over a broker, seen from the caller: answers, deadlines, refusals."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pytest
import redis
import requests

from seawall import DeadlineExceeded, NoWorker, OutcomeUnknown, ResilientServiceClient, ServiceUnavailable, State
from seawall import runtime as runtimes
from seawall.actors.engine import Engine, engine_from_url
from seawall.actors.queue_store import Done, Group, Want
from seawall.actors.record import decode_call
from seawall.actors.replies import Outcome
from seawall.actors.service import queue_names
from seawall.actors.views import Views
from seawall.calling import admit, default_deadline
from seawall.supervisor.breaker import ForceOpen
from tests.integration.stores import answer
from tests.support import Answer, CountingService, wait_until
from tests.support.house import RemoteHouse

pytestmark = pytest.mark.usefixtures("calling")


@pytest.fixture
def client(house: RemoteHouse, service: CountingService) -> ResilientServiceClient:
    return ResilientServiceClient(service.url, "Chroma Server", key="chroma", max_retries=1, failure_threshold=3)


class TestAnswers:
    def test_a_real_response_comes_back(self, client: ResilientServiceClient, service: CountingService) -> None:
        service.script(
            "/query",
            Answer(201, {"ids": [1]}, headers={"X-Trace": "7", "Set-Cookie": "seen=yes; Path=/"}),
        )
        response = client.post("/query", json={"q": "ä"}, params={"n": 5})
        assert isinstance(response, requests.Response)
        assert (response.status_code, response.reason, response.ok) == (201, "Created", True)
        assert (response.json(), response.text) == ({"ids": [1]}, '{"ids": [1]}')
        assert response.headers["x-trace"] == "7"
        assert response.cookies["seen"] == "yes"
        assert response.url == f"{service.url}/query?n=5"
        assert 0 < response.elapsed.total_seconds() < 5
        assert (response.request.method, response.request.url) == ("POST", response.url)
        assert response.request.headers["Content-Type"] == "application/json"

    @pytest.mark.parametrize("verb", ["get", "post", "put", "patch", "delete", "head", "options"])
    def test_every_verb_arrives(self, client: ResilientServiceClient, service: CountingService, verb: str) -> None:
        assert getattr(client, verb)("/thing").status_code == 200
        assert [request.method for request in service.requests] == [verb.upper()]

    @pytest.mark.parametrize("status", [400, 401, 404, 409, 422])
    def test_a_client_error_is_an_answer(
        self, client: ResilientServiceClient, service: CountingService, status: int
    ) -> None:
        service.script("*", Answer(status, {"error": "no"}))
        response = client.get("/thing")
        assert (response.status_code, response.json(), service.count()) == (status, {"error": "no"}, 1)
        assert client.get_status()["consecutive_failures"] == 0

    @pytest.mark.parametrize("status", [408, 429])
    def test_being_too_slow_or_asking_too_much_is_neutral(
        self, client: ResilientServiceClient, service: CountingService, status: int
    ) -> None:
        """Tried again, then an answer; it neither counts as a failure nor ends a streak of them."""
        client = ResilientServiceClient(service.url, "Chroma Server", 2, key="chroma", failure_threshold=2)
        service.script("*", Answer(500), Answer(500), Answer(status))
        with pytest.raises(requests.HTTPError):
            client.get("/thing")
        assert client.get("/thing").status_code == status
        assert service.count() == 4
        assert client.get_status()["consecutive_failures"] == 1

    def test_the_error_of_the_last_attempt_comes_back(
        self, client: ResilientServiceClient, service: CountingService
    ) -> None:
        service.script("*", Answer(503, {"error": "busy"}))
        with pytest.raises(requests.HTTPError) as answered:
            client.get("/thing")
        assert answered.value.response.json() == {"error": "busy"}
        service.script("*", Answer(hang_up=True))
        with pytest.raises(requests.ConnectionError):
            client.get("/thing")


class TestDeadlines:
    def test_no_worker_is_said_within_two_seconds(self, calling: runtimes.Runtime, service: CountingService) -> None:
        client = ResilientServiceClient(service.url, "Chroma Server", key="chroma")
        started = time.monotonic()
        with pytest.raises(NoWorker, match=r"'chroma\.waited'") as caught:
            client.get("/ready")
        assert time.monotonic() - started < 2
        assert isinstance(caught.value, requests.Timeout)
        counts = calling.engine.queue.counts(queue_names("chroma"))
        assert (counts[0].ready, counts[0].leased) == (0, 0), "no worker that comes later sends it"

    def test_a_worker_of_other_services_is_no_worker(
        self, client: ResilientServiceClient, house: RemoteHouse, service: CountingService
    ) -> None:
        runtimes.registry.forget_listener(house._declared)
        with pytest.raises(NoWorker, match=r"'git\.waited'"):
            ResilientServiceClient(service.url, "Git Server", key="git").get("/ready")
        assert client.get("/ready").status_code == 200

    def test_the_caller_gets_a_timeout(self, client: ResilientServiceClient, service: CountingService) -> None:
        release = threading.Event()
        service.script("*", Answer(hold=release))
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="may still be carried out") as caught:
            client.get("/slow", deadline=0.2)
        assert time.monotonic() - started < 1
        assert isinstance(caught.value, requests.Timeout)
        assert isinstance(caught.value, TimeoutError)
        release.set()

    def test_a_call_past_its_deadline_never_starts(self, house: RemoteHouse, service: CountingService) -> None:
        client = ResilientServiceClient(service.url, "Chroma Server", 1, concurrency=1)
        release = threading.Event()
        service.script("/slow", Answer(hold=release))
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(client.get, "/slow")
            service.wait_for(1)
            with pytest.raises(DeadlineExceeded, match="was not sent and never will be"):
                client.get("/late", deadline=0.1)
            release.set()
            assert slow.result(5).status_code == 200
        assert client.get("/after").status_code == 200
        assert [request.path for request in service.requests] == ["/slow", "/after"]

    def test_no_further_attempt_is_made_after_it(self, redis_url: str, service: CountingService) -> None:
        service.script("*", Answer(500))
        client = ResilientServiceClient(service.url, "Chroma Server", backoff=30)
        with RemoteHouse(redis_url, backoff=1.0), pytest.raises(DeadlineExceeded, match=r"1 attempt\(s\) had failed"):
            client.get("/thing", deadline=0.3)
        assert service.count() == 1

    @pytest.mark.parametrize("deadline", [0, -1])
    def test_it_must_be_positive(self, client: ResilientServiceClient, deadline: float) -> None:
        with pytest.raises(ValueError, match="deadline"):
            client.get("/ready", deadline=deadline)

    def test_by_default_it_covers_attempts_backoffs_and_the_queue(self) -> None:
        service = ResilientServiceClient("http://chroma:6003", "Chroma Server", jitter=0).service
        assert default_deadline(service, 3, 10.0) == 3 * 10 + (1 + 2) + 10


class TestOpening:
    """When the breaker opens, the callers of this process that wait are answered at once."""

    def test_those_in_the_queue_are_refused_and_never_sent(self, house: RemoteHouse, service: CountingService) -> None:
        client = ResilientServiceClient(service.url, "Chroma Server", 1, failure_threshold=1, concurrency=1)
        release = threading.Event()
        service.script("/first", Answer(500, hold=release))
        with ThreadPoolExecutor(11) as pool:
            first = pool.submit(client.get, "/first")
            service.wait_for(1)
            waiting = [pool.submit(client.get, f"/{number}") for number in range(10)]
            wait_until(lambda: self.queued() == 10)
            release.set()
            opened = time.monotonic()
            errors = [future.exception(5) for future in waiting]
            assert time.monotonic() - opened < 1
            assert isinstance(first.exception(5), requests.HTTPError)
        assert all(isinstance(error, ServiceUnavailable) for error in errors)
        assert all(50 < error.retry_after <= 60 for error in errors)  # type: ignore[union-attr]
        assert service.count() == 1

    def test_one_that_waits_for_its_next_attempt_learns_what_happened(
        self, redis_url: str, service: CountingService
    ) -> None:
        service.script("*", Answer(500))
        client = ResilientServiceClient(service.url, "Chroma Server", key="chroma", backoff=30)
        with RemoteHouse(redis_url, backoff=1.0) as house, ThreadPoolExecutor(1) as pool:
            future = pool.submit(client.get, "/thing")
            wait_until(lambda: runtimes.current().engine.queue.counts(["chroma.waited"])[0].due == 1)
            view = house._view("chroma")
            assert view is not None
            view.by_hand(ForceOpen())
            error = future.exception(2)
        assert isinstance(error, ServiceUnavailable)
        assert "Server error 500" in str(error.__cause__)

    @staticmethod
    def queued() -> int:
        return runtimes.current().engine.queue.counts(["chroma-server.waited"])[0].ready


class Mortal:
    """A worker that takes a call, may have sent it, and dies. Its lease is short, so that nobody has to wait for that."""

    def __init__(self, url: str, key: str) -> None:
        self._engine = engine_from_url(url, lease=0.2)
        self._queue = queue_names(key)[0]
        self._engine.queue.beat("mortal", b"{}", [self._queue], [])

    def die_of_a_call(self) -> None:
        """And have the call back in its queue."""
        group = Group(1, (Want(self._queue, "", 1),))
        wait_until(lambda: self._engine.queue.fetch([group]).deliveries)
        wait_until(lambda: self._engine.queue.sweep(self._queue)[0])

    def open_the_breaker(self, client: ResilientServiceClient) -> None:
        views = Views(self._engine.breakers, grace=0)
        views.of(client.service).by_hand(ForceOpen())

    def close(self) -> None:
        self._engine.close()


class TestAfterADeath:
    """A call whose worker died may have been carried out: nobody who takes it back says that it was not sent."""

    @pytest.fixture
    def mortal(self, redis_url: str) -> Iterator[Mortal]:
        mortal = Mortal(redis_url, "billing")
        yield mortal
        mortal.close()

    @staticmethod
    def client(idempotency: Literal["trust", "none"]) -> ResilientServiceClient:
        return ResilientServiceClient("http://127.0.0.1:9", "Billing", key="billing", idempotency=idempotency)

    def test_when_its_deadline_passes(self, mortal: Mortal) -> None:
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(self.client("none").post, "/pay", deadline=2)
            mortal.die_of_a_call()
            error = call.exception(5)
        assert isinstance(error, DeadlineExceeded)
        assert "may have been carried out, because a worker died with it" in str(error)

    def test_when_the_breaker_opens_and_a_repetition_would_do_harm(self, mortal: Mortal) -> None:
        client = self.client("none")
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(client.post, "/pay")
            mortal.die_of_a_call()
            mortal.open_the_breaker(client)
            with pytest.raises(OutcomeUnknown, match="POST /pay may have been carried out: its worker died"):
                call.result(5)

    def test_when_the_breaker_opens_and_it_may_be_repeated(self, mortal: Mortal) -> None:
        client = self.client("trust")
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(client.post, "/pay")
            mortal.die_of_a_call()
            mortal.open_the_breaker(client)
            error = call.exception(5)
        assert isinstance(error, ServiceUnavailable)
        assert isinstance(error.__cause__, OutcomeUnknown)


class TestReadYourOwnWrites:
    def test_the_state_is_right_on_the_line_after_the_third_failure(
        self, client: ResilientServiceClient, calling: runtimes.Runtime, service: CountingService
    ) -> None:
        service.script("*", Answer(500))
        assert client.state is State.CLOSED
        calling.engine.breakers.close()  # deaf to announcements: replies alone have to do
        for _ in range(3):
            with pytest.raises(requests.HTTPError):
                client.get("/thing")
        assert client.state.value == "open"

    def test_another_process_learns_it_by_announcement(
        self, client: ResilientServiceClient, redis_url: str, service: CountingService
    ) -> None:
        service.script("*", Answer(500))
        other = runtimes.Runtime(runtimes.current().settings)
        try:
            elsewhere = other.views.of(client.service)
            assert elsewhere.state is State.CLOSED
            for _ in range(3):
                with pytest.raises(requests.HTTPError):
                    client.get("/thing")
            wait_until(lambda: elsewhere.state is State.OPEN)
            before = runtimes.replace(other)
            with pytest.raises(ServiceUnavailable):
                client.get("/thing")
            runtimes.replace(before)
        finally:
            other.close()
        assert service.count() == 3


class TestCosts:
    """What a process costs its broker, however much it does."""

    CALLERS = 1000

    def test_a_thousand_waiting_callers_have_three_connections(
        self, calling: runtimes.Runtime, redis_url: str, service: CountingService
    ) -> None:
        worker = engine_from_url(redis_url)
        queues = queue_names("chroma-server")

        def all_wait() -> bool:
            worker.queue.beat("w", b"{}", queues, [])  # however long a busy machine takes for so many
            return worker.queue.counts(queues)[0].ready == self.CALLERS

        assert not all_wait()
        before = self._connections(worker)
        client = ResilientServiceClient(service.url, "Chroma Server", concurrency=8)
        with ThreadPoolExecutor(self.CALLERS) as pool:
            calls = [pool.submit(client.get, f"/{number}", deadline=60) for number in range(self.CALLERS)]
            wait_until(all_wait, 30)
            assert self._connections(worker) - before <= 3
            self._answer_all(worker, queues[0])
            assert {call.result(30).status_code for call in calls} == {200}
        worker.close()

    def _answer_all(self, worker: Engine, queue: str) -> None:
        response = answer()
        while found := worker.queue.fetch([Group(100, (Want(queue, "", 100),))]).deliveries:
            for delivery in found:
                reply_to = decode_call(delivery.payload).reply_to
                worker.queue.settle(delivery, Done(Outcome(response=response), reply_to))

    @staticmethod
    def _connections(worker: Engine) -> int:
        assert worker.link is not None
        listed: bytes = worker.link.command("CLIENT", "LIST")
        return listed.count(b"\n")

    def test_a_breaker_is_asked_without_the_broker(
        self, house: RemoteHouse, redis_url: str, service: CountingService
    ) -> None:
        """Neither an admission nor a refusal is a round trip, and a success in good times writes nothing."""
        client = ResilientServiceClient(service.url, "Chroma Server", 1, failure_threshold=1, health_path="/health")
        service.script("/health", Answer(500))
        runtime = runtimes.current()
        view = runtime.views.of(client.service)
        with redis.Redis.from_url(redis_url) as inside:
            started = time.time()
            before = self._commands(inside)
            for _ in range(200):
                assert admit(runtime, client.service, "id") is False
                view.succeeded(started, view.generation)
            assert self._commands(inside) - before < 50  # heartbeats go on
            view.by_hand(ForceOpen())
            before = self._commands(inside)
            for _ in range(200):
                with pytest.raises(ServiceUnavailable):
                    client.get("/thing")
            assert self._commands(inside) - before < 50
        assert service.count("/thing") == 0

    @staticmethod
    def _commands(inside: redis.Redis) -> int:
        return int(inside.info("stats")["total_commands_processed"])
