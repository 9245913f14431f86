"""What a background call may ask for, over a broker and in memory: time, one for many, retry manners, a fallback."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import requests

from seawall import QueueFull, ResilientServiceClient, ServiceUnavailable
from seawall import runtime as runtimes
from seawall.supervisor.breaker import ForceClose, ForceOpen
from tests.support import Answer, CountingService, wait_until
from tests.support.house import RemoteHouse, caller


@pytest.fixture(params=["memory", "redis"])
def making(request: pytest.FixtureRequest, service: CountingService) -> Iterator[Any]:
    """Makes a client of the service `files`, with workers behind it."""

    def make(**more: Any) -> ResilientServiceClient:
        options = {"max_retries": 2, "failure_threshold": 50, "backoff": 0.01, "jitter": 0.0, **more}
        return ResilientServiceClient(service.url, "Files", key="files", **options)

    if request.param == "memory":
        with caller("memory://"):
            yield make
        return
    url = request.getfixturevalue("redis_url")
    with caller(url):
        house: list[RemoteHouse] = []

        def with_workers(**more: Any) -> ResilientServiceClient:
            client = make(**more)
            if not house:
                house.append(RemoteHouse(url, backoff=1.0).__enter__())
            return client

        yield with_workers
        for one in house:
            one.__exit__(None, None, None)


def counted(what: str) -> int:
    house = runtimes.current()
    house.engine.tally.flush()
    return house.engine.queue.tally().get(("files", what), 0)


class TestTime:
    def test_not_before_a_moment(self, making: Any, service: CountingService) -> None:
        client = making()
        moment = datetime.now(UTC) + timedelta(seconds=0.3)
        handle = client.enqueue("POST", "/job", not_before=moment)
        status = handle.status()
        assert status == "due"
        assert status.due_at == pytest.approx(moment.timestamp(), abs=0.1)
        handle.result(5)
        assert time.time() >= moment.timestamp() - 0.01

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"not_before": datetime(2030, 1, 1)}, "time zone"),
            ({"not_before": time.time() + 7200, "expires_in": 60}, "expire"),
            ({"delay": 60, "expires_in": 60}, "expire"),
            ({"delay": 25 * 3600}, "expire"),
            ({"dedupe": "k", "dedupe_window": 0}, "dedupe_window"),
            ({"retry_on": [200]}, "200"),
            ({"retry_on": ["tiemout"]}, "tiemout"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, making: Any, options: dict[str, Any], words: str) -> None:
        with pytest.raises(ValueError, match=words):
            making().enqueue("POST", "/job", **options)

    @pytest.mark.parametrize("options", [{"not_before": "noon"}, {"dedupe": 7}, {"retry_on": 503}], ids=repr)
    def test_what_has_the_wrong_type_is_refused(self, making: Any, options: dict[str, Any]) -> None:
        with pytest.raises(TypeError):
            making().fire("POST", "/job", **options)


class TestDedupe:
    def test_the_first_calls_handle_comes_back(self, making: Any, service: CountingService) -> None:
        client = making()
        first = client.enqueue("POST", "/pay", json={"n": 1}, dedupe="invoice-7")
        again = client.enqueue("POST", "/pay", json={"n": 2}, dedupe="invoice-7")
        assert (again.id, again.deduped, first.deduped) == (first.id, True, False)
        assert again.result(5).status_code == 200
        client.fire("POST", "/pay", json={"n": 3}, dedupe="invoice-7")
        client.enqueue("POST", "/pay", json={"n": 4}, dedupe="invoice-8").result(5)
        assert [request.json["n"] for request in service.requests] == [1, 4]
        assert counted("deduped") == 2


class TestSkip:
    def test_is_counted(self, making: Any, service: CountingService) -> None:
        client = making()
        runtimes.current().views.of(client.service).by_hand(ForceOpen())
        handle = client.enqueue("POST", "/job", on_open="skip")
        assert (handle.status(), handle.status().over) == ("skipped", True)
        assert counted("skipped") == 1
        assert service.count() == 0


class TestRetryAfter:
    @pytest.mark.parametrize("status", [429, 503])
    def test_holds_the_whole_background_queue(self, making: Any, service: CountingService, status: int) -> None:
        client = making(max_retries=3)
        service.script("/busy", Answer(status, headers={"Retry-After": "1"}), Answer())
        first = client.enqueue("POST", "/busy")
        service.wait_for(1)
        asked = time.monotonic()
        wait_until(lambda: first.status() == "due")
        others = [client.enqueue("POST", f"/other/{number}") for number in range(3)]
        assert client.get("/waited").status_code == 200, "callers who wait are not held"
        for handle in [first, *others]:
            handle.result(5)
        arrived = [request.at for request in service.requests if request.path.startswith(("/other", "/busy"))][1:]
        assert len(arrived) == 4
        assert min(arrived) - asked > 0.8

    def test_may_be_a_date(self, making: Any, service: CountingService) -> None:
        client = making()
        date = datetime.now(UTC) + timedelta(seconds=2)
        service.script("*", Answer(503, headers={"Retry-After": format_datetime(date, usegmt=True)}), Answer())
        first = client.enqueue("POST", "/busy")
        wait_until(lambda: first.status() == "due")
        assert first.status().due_at == pytest.approx(date.timestamp(), abs=1.1)


class TestRetryOn:
    @pytest.mark.parametrize(("retry_on", "attempts"), [([503], 1), ([500], 2), (["timeout"], 1), ([], 2)])
    def test_says_which_answers_are_asked_for_again(
        self, making: Any, service: CountingService, retry_on: list[Any], attempts: int
    ) -> None:
        service.script("*", Answer(500))
        client = making()
        with pytest.raises(requests.HTTPError):
            client.get("/x", retry_on=retry_on)
        assert service.count() == attempts

    def test_may_name_an_answer_that_is_no_failure_else(self, making: Any, service: CountingService) -> None:
        service.script("*", Answer(409), Answer(200))
        assert making(retry_on=[409]).get("/x").status_code == 200
        service.script("*", Answer(409))
        assert making(retry_on=[409]).get("/x").status_code == 409, "after its last attempt an answer is an answer"
        assert service.count() == 4

    def test_names_errors_by_their_classes(self, making: Any, service: CountingService) -> None:
        service.script("*", Answer(hang_up=True))
        with pytest.raises(requests.ConnectionError):
            making().get("/x", retry_on=[requests.Timeout])
        assert service.count() == 1
        with pytest.raises(requests.ConnectionError):
            making().get("/x", retry_on=[requests.ConnectionError])
        assert service.count() == 3

    def test_is_of_a_call_before_it_is_of_its_service(self, making: Any, service: CountingService) -> None:
        service.script("*", Answer(500), Answer(500), Answer(200))
        assert making(retry_on=[503], max_retries=3).enqueue("POST", "/x", retry_on=[500]).result(5).ok


class TestFallback:
    def test_a_value_or_a_function_of_the_exception(
        self, making: Any, service: CountingService, caplog: pytest.LogCaptureFixture
    ) -> None:
        service.script("*", Answer(500))
        client = making(max_retries=1)
        with caplog.at_level(logging.WARNING, "seawall.files"):
            assert client.get("/x", fallback=None) is None
        assert "the fallback is used" in caplog.text
        seen: list[Exception] = []
        assert client.get("/x", fallback=lambda error: seen.append(error) or "cached") == "cached"
        assert isinstance(seen[0], requests.HTTPError)
        runtimes.current().views.of(client.service).by_hand(ForceOpen())
        assert client.get("/x", fallback=lambda error: type(error)) is ServiceUnavailable
        runtimes.current().views.of(client.service).by_hand(ForceClose())

    def test_hides_no_mistake_and_no_success(self, making: Any, service: CountingService) -> None:
        client = making()
        assert client.get("/x", fallback="cached").status_code == 200
        with pytest.raises(ValueError, match="leaves"):
            client.get("/../../etc", fallback="cached")
        with pytest.raises(TypeError):
            client.get("/x", fallbak="cached")


class TestCaps:
    def test_a_queue_that_is_full_says_which_cap(
        self, making: Any, service: CountingService, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = making(queue_cap_bytes=3900, queue_cap=4)
        runtimes.current().views.of(client.service).by_hand(ForceOpen())
        client.enqueue("POST", "/job", data=b"x" * 2000)
        with pytest.raises(QueueFull, match="3900 bytes"):
            client.enqueue("POST", "/job", data=b"x" * 2000)
        for _ in range(3):
            client.enqueue("POST", "/job")
        with pytest.raises(QueueFull, match="4 calls"):
            client.enqueue("POST", "/job")
        client.fire("POST", "/job")
        assert "was not queued (1 so far)" in caplog.text
        assert counted("unqueued") == 1

    def test_max_in_flight_bounds_waited_for_and_background_calls_together(
        self, making: Any, service: CountingService
    ) -> None:
        client = making(max_in_flight=2, concurrency=6)
        service.script("*", Answer(delay=0.02))
        handles = [client.enqueue("POST", f"/job/{number}") for number in range(10)]
        assert [client.get(f"/{number}").status_code for number in range(5)] == [200] * 5
        for handle in handles:
            handle.result(5)
        assert (service.peak, service.count()) == (2, 15)


class TestStatus:
    def test_of_calls_in_every_place(self, making: Any, service: CountingService) -> None:
        client = making(max_retries=1)
        service.script("/bad", Answer(500))
        failed = client.enqueue("POST", "/bad", rounds=1)
        assert wait_until(lambda: failed.done()) is True
        assert (failed.status(), failed.status().reason) == ("failed", "rounds used up")
        assert [attempt.outcome for attempt in failed.attempts()] == ["Server error 500"]
        later = client.enqueue("POST", "/later", delay=60)
        assert (later.status(), later.status().over) == ("due", False)
        assert later.status().due_at == pytest.approx(time.time() + 60, abs=1)
        assert later.cancel()
        assert later.status() == "cancelled"
        runtimes.current().views.of(client.service).by_hand(ForceOpen())
        held = client.enqueue("POST", "/held", expires_in=0.2)
        assert held.status() == "held"
        runtimes.current().views.of(client.service).by_hand(ForceClose())
        assert wait_until(lambda: held.done()) is True


class TestRetryBudget:
    def test_ends_a_waited_for_call_and_makes_a_background_call_wait_for_its_round(
        self, redis_url: str, service: CountingService, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caller(redis_url), RemoteHouse(redis_url):
            client = ResilientServiceClient(
                service.url, "Files", key="files", max_retries=3, backoff=0.001, breaker=False, recovery_timeout=60
            )
            service.script("*", Answer(500))
            with caplog.at_level(logging.WARNING, "seawall.files"):
                for number in range(8):
                    with pytest.raises(requests.HTTPError):
                        client.get(f"/{number}")
            assert service.count() == 8 + 10
            assert "Retry budget used up (10 retries of 6 calls in the last minute)" in caplog.text
            handle = client.enqueue("POST", "/job")
            wait_until(lambda: handle.status() == "due")
            due_at = handle.status().due_at
            assert due_at is not None
            assert due_at > time.time() + 50
            assert service.count() == 8 + 10 + 1
            wait_until(lambda: counted("retries_denied") >= 3)  # the worker adds them once a second
