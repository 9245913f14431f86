"""The fixture `seawall` that ships for users' own tests."""

from __future__ import annotations

import builtins
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import redis
import requests
import requests_mock
import responses

from seawall import ResilientServiceClient, ServiceUnavailable, snapshot
from seawall import runtime as runtimes
from seawall.schedules import registry as schedules
from seawall.testing import Harness
from tests.support.house import no_services

pytest_plugins = ["pytester"]

URL = "http://chroma:6003"


@pytest.fixture
def chroma(seawall: Harness) -> ResilientServiceClient:
    return ResilientServiceClient(URL, "Chroma Server", key="chroma", failure_threshold=2, max_retries=2)


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """A patched `requests.request` that answers with one and the same object."""
    mock = MagicMock(return_value=MagicMock(status_code=200))
    monkeypatch.setattr(requests, "request", mock)
    return mock


class TestForcesMemoryMode:
    def test_whatever_the_environment_says(
        self, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, redis_url: str, answered: MagicMock
    ) -> None:
        monkeypatch.setenv("SEAWALL_BROKER_URL", redis_url)
        monkeypatch.setenv("SEAWALL_REQUIRE_BROKER", "1")
        request.getfixturevalue("seawall")
        assert ResilientServiceClient(URL, "Chroma Server").get("/ready") is answered.return_value
        with redis.Redis.from_url(redis_url) as server:
            assert server.keys() == []

    def test_a_client_made_before_follows(self, request: pytest.FixtureRequest, answered: MagicMock) -> None:
        with no_services():
            client = ResilientServiceClient(URL, "Made Before")
            harness = request.getfixturevalue("seawall")
            client.get("/ready")
            assert [call.service for call in harness.sent] == ["made-before"]

    def test_the_runtime_before_comes_back(self, pytester: pytest.Pytester) -> None:
        pytester.makepyfile(
            """
            from seawall import runtime as runtimes

            before = runtimes.current()

            def test_inside(seawall):
                assert runtimes.current() is not before

            def test_outside():
                assert runtimes.current() is before
            """
        )
        pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


class TestFreshState:
    """Two tests of one session share nothing but what the application's modules have declared."""

    def test_in_a_separate_run(self, pytester: pytest.Pytester) -> None:
        pytester.makepyfile(
            app="""
            from seawall import ResilientServiceClient

            git = ResilientServiceClient("http://git:6005", "Git Server", failure_threshold=1, max_retries=1)

            def save(project):
                git.snapshot(project)
            """,
            test_app="""
            import pytest, requests, responses, app
            from seawall import ResilientServiceClient, ServiceUnavailable

            @responses.activate
            def test_the_breaker_opens(seawall):
                responses.get("http://git:6005/ready", status=500)
                with pytest.raises(requests.HTTPError):
                    app.git.get("/ready")
                assert app.git.state.value == "open"
                app.save("42")
                ResilientServiceClient("http://late:1", "Late", key="late")

            @responses.activate
            def test_the_next_test_knows_nothing_of_it(seawall):
                assert app.git.state.value == "closed"
                assert seawall.sent == []
                responses.post("http://git:6005/snapshot/7")
                app.save("7")
                seawall.drain()
                assert [call.path for call in seawall.sent] == ["/snapshot/7"]
                assert seawall.sent[0].json == {"message": "Auto-save"}

            def test_a_service_of_another_test_is_gone(seawall):
                with pytest.raises(ValueError, match="git-server"):
                    ResilientServiceClient.named("late")
            """,
        )
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"]
        done = subprocess.run(command, cwd=pytester.path, capture_output=True, text=True)
        assert "3 passed" in done.stdout, done.stdout + done.stderr

    def test_no_thread_is_left_at_work(self, request: pytest.FixtureRequest, answered: MagicMock) -> None:
        request.getfixturevalue("seawall")
        ResilientServiceClient(URL, "Chroma Server").get("/ready")
        house = runtimes.current().house
        assert house is not None
        runtimes.current().close()
        assert house.worker.busy() == 0


class TestNoBackoff:
    def test_attempts_follow_each_other(self, seawall: Harness) -> None:
        client = ResilientServiceClient(URL, key="slow", max_retries=2, backoff=60)
        with responses.RequestsMock() as mock:
            mock.get(f"{URL}/ready", status=500)
            mock.get(f"{URL}/ready", json={"ready": True})
            assert client.get("/ready", deadline=10).json() == {"ready": True}
        assert [call.path for call in seawall.sent] == ["/ready", "/ready"]


class TestSent:
    def test_every_attempt_with_what_it_carried(
        self, seawall: Harness, chroma: ResilientServiceClient, answered: MagicMock
    ) -> None:
        chroma.post("/query?limit=5", json={"q": "x"}, headers={"X-Request-Id": "7"})
        chroma.fire("PUT", "/index", data=b"raw")
        seawall.drain()
        query, index = seawall.sent
        assert (query.service, query.method, query.path, query.target) == ("chroma", "POST", "/query", "/query?limit=5")
        assert (query.json, query.headers["X-Request-Id"], query.waited) == ({"q": "x"}, "7", True)
        assert (index.method, index.body, index.waited) == ("PUT", b"raw", False)


class TestBreakersByHand:
    def test_open_refuses_callers(self, seawall: Harness, chroma: ResilientServiceClient, answered: MagicMock) -> None:
        seawall.open("chroma")
        assert chroma.state.value == "open"
        with pytest.raises(ServiceUnavailable):
            chroma.get("/ready")
        assert seawall.sent == []

    def test_open_holds_background_calls_until_close(
        self, seawall: Harness, chroma: ResilientServiceClient, answered: MagicMock
    ) -> None:
        seawall.open("chroma")
        handle = chroma.enqueue("POST", "/add")
        seawall.drain()
        assert (handle.status(), seawall.sent) == ("held", [])
        seawall.close("chroma")
        seawall.drain()
        assert handle.result(1) is answered.return_value

    def test_no_time_lets_go_of_it(self, seawall: Harness, chroma: ResilientServiceClient, answered: MagicMock) -> None:
        seawall.open("chroma")
        chroma.fire("POST", "/add")
        seawall.advance(3600)
        seawall.drain()
        assert (chroma.state.value, seawall.sent) == ("open", [])

    def test_an_unknown_service_is_named(self, seawall: Harness, chroma: ResilientServiceClient) -> None:
        with pytest.raises(ValueError, match=r"'chrome' is not declared here; declared: .*chroma"):
            seawall.open("chrome")


class TestAdvance:
    def opened(self, client: ResilientServiceClient, answered: MagicMock) -> None:
        answered.side_effect = builtins.ConnectionError("down")
        for _ in range(2):
            with pytest.raises(builtins.ConnectionError):
                client.get("/ready")
        assert client.state.value == "open"
        answered.side_effect = None

    def test_ends_the_timer_of_a_breaker(
        self, seawall: Harness, chroma: ResilientServiceClient, answered: MagicMock
    ) -> None:
        self.opened(chroma, answered)
        seawall.advance(50)  # real seconds count as well
        assert chroma.state.value == "open"
        seawall.advance(11)
        assert chroma.state.value == "half_open"
        chroma.get("/ready")
        assert chroma.state.value == "closed"

    def test_sends_a_held_call_as_the_trial(
        self, seawall: Harness, chroma: ResilientServiceClient, answered: MagicMock
    ) -> None:
        self.opened(chroma, answered)
        handles = [chroma.enqueue("POST", f"/add/{n}") for n in range(3)]
        seawall.advance(61)
        seawall.drain()
        assert [handle.status() for handle in handles] == ["succeeded"] * 3
        assert chroma.state.value == "closed"

    def test_makes_delayed_calls_due(
        self, seawall: Harness, chroma: ResilientServiceClient, answered: MagicMock
    ) -> None:
        handle = chroma.enqueue("POST", "/later", delay=60)
        seawall.drain()
        assert handle.status() == "due"
        seawall.advance(61)
        seawall.drain()
        assert handle.status() == "succeeded"

    def test_expires_what_waited_too_long(
        self, seawall: Harness, chroma: ResilientServiceClient, answered: MagicMock
    ) -> None:
        seawall.open("chroma")
        handle = chroma.enqueue("POST", "/add", expires_in=60)
        seawall.advance(61)
        seawall.close("chroma")
        seawall.drain()
        assert (handle.status(), seawall.sent) == ("expired", [])


class TestDrain:
    def test_waits_for_what_runs(self, seawall: Harness, chroma: ResilientServiceClient, answered: MagicMock) -> None:
        release = threading.Event()
        answered.side_effect = lambda *_, **__: release.wait(5) and answered.return_value
        chroma.fire("POST", "/slow")
        with pytest.raises(TimeoutError, match="1 call"):
            seawall.drain(0.05)
        release.set()
        seawall.drain()

    def test_with_nothing_to_do_returns_at_once(self, seawall: Harness) -> None:
        seawall.drain(0)


class TestOtherLibraries:
    @responses.activate
    def test_responses(self, chroma: ResilientServiceClient) -> None:
        responses.post(f"{URL}/query", json={"ids": [1]}, status=201)
        answer = chroma.post("/query", json={"q": "x"})
        assert (answer.status_code, answer.json()) == (201, {"ids": [1]})
        assert responses.calls[0].request.body == b'{"q": "x"}'

    @responses.activate
    def test_responses_errors_come_back_as_the_very_object(self, chroma: ResilientServiceClient) -> None:
        error = requests.ConnectionError("as told")
        responses.get(f"{URL}/ready", body=error)
        with pytest.raises(requests.ConnectionError) as caught:
            chroma.get("/ready")
        assert caught.value is error

    def test_requests_mock(self, chroma: ResilientServiceClient) -> None:
        with requests_mock.Mocker() as mock:
            mock.get(f"{URL}/ready", json={"ready": True})
            assert chroma.get("/ready").json() == {"ready": True}
            mock.get(f"{URL}/ready", exc=requests.ConnectTimeout)
            with pytest.raises(requests.ConnectTimeout):
                chroma.get("/ready")

    def test_a_patched_function_gets_the_callers_own_keywords(
        self, chroma: ResilientServiceClient, answered: MagicMock
    ) -> None:
        """And the very objects come back: a mock as the response, a builtin error as the error."""
        payload: dict[str, Any] = {"q": "x"}
        assert chroma.post("/query", json=payload, timeout=3) is answered.return_value
        (method, url), keywords = answered.call_args
        assert (method, url) == ("POST", f"{URL}/query")
        assert keywords["json"] is payload
        assert keywords["timeout"] == 3
        answered.side_effect = error = builtins.ConnectionError("down")
        with pytest.raises(builtins.ConnectionError) as caught:
            chroma.get("/ready")
        assert caught.value is error

    def test_a_snapshot_can_be_watched(self, seawall: Harness, answered: MagicMock) -> None:
        git = ResilientServiceClient("http://git:6005", "Git Server")
        snapshot(git, "42", "before the change")
        seawall.drain()
        assert [(call.path, call.json) for call in seawall.sent] == [("/snapshot/42", {"message": "before the change"})]


def test_the_plugin_is_declared_for_pytest() -> None:
    """Installing Seawall is all it takes; pyproject.toml names the module."""
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text()
    assert '[project.entry-points.pytest11]\nseawall = "seawall.testing"' in text


def test_an_application_that_declares_schedules_is_imported_without_a_broker(seawall: Harness) -> None:
    client = ResilientServiceClient("http://127.0.0.1:9", key="scheduled")
    client.schedule("nightly", "POST", "/snapshot", every=3600)
    assert [schedule.name for schedule in schedules.all()] == ["nightly"]
    schedules.restore([])
