"""The guide: three patterns of handling errors, and both exceptions."""

from __future__ import annotations

from collections.abc import Callable

import flask
import pytest
import requests

from seawall import ResilientServiceClient, ServiceUnavailable
from tests.guide.conftest import MakeClient
from tests.support import Answer, CountingService

Break = Callable[[ResilientServiceClient], None]


@pytest.fixture(params=["open breaker", "server errors", "connection refused"])
def broken(request: pytest.FixtureRequest, make_client: MakeClient, service: CountingService) -> ResilientServiceClient:
    """A client of a service in trouble."""
    client = make_client(failure_threshold=1 if request.param == "open breaker" else 99, max_retries=1)
    if request.param == "connection refused":
        service.stop()
    else:
        service.script("*", Answer(500))
    if request.param == "open breaker":
        with pytest.raises(requests.HTTPError):
            client.get("/ready")
    return client


def test_fail_open_falls_back(broken: ResilientServiceClient) -> None:
    try:
        results = broken.post("/query", json={"query_texts": ["x"]}).json()
    except (ServiceUnavailable, requests.RequestException):
        results = {"source": "fallback"}
    assert results == {"source": "fallback"}


def test_fail_closed_answers_with_an_error(broken: ResilientServiceClient) -> None:
    app = flask.Flask(__name__)

    @app.post("/charge")
    def charge() -> tuple[dict[str, str], int]:
        try:
            broken.post("/deduct_cost", json={"amount": 100}).raise_for_status()
        except ServiceUnavailable:
            return {"error": "unavailable"}, 503
        except requests.RequestException:
            return {"error": "failed"}, 503
        return {}, 200

    answer = app.test_client().post("/charge")
    expected = "unavailable" if broken.state.value == "open" else "failed"
    assert (answer.status_code, answer.get_json()) == (503, {"error": expected})


def test_best_effort_goes_on(broken: ResilientServiceClient) -> None:
    try:
        broken.post("/snapshot/42", json={"message": "Auto-save"})
    except ServiceUnavailable:
        done = "skipped"
    except requests.RequestException:
        done = "failed"
    assert done == ("skipped" if broken.state.value == "open" else "failed")


def test_service_unavailable_is_a_requests_exception() -> None:
    assert issubclass(ServiceUnavailable, requests.RequestException)


def test_fail_closed_sees_a_client_error(make_client: MakeClient, service: CountingService) -> None:
    service.script("*", Answer(402, {"error": "no funds"}))
    with pytest.raises(requests.RequestException) as caught:
        make_client().post("/deduct_cost", json={"amount": 100}).raise_for_status()
    assert not isinstance(caught.value, ServiceUnavailable)
    assert caught.value.response is not None
    assert caught.value.response.json() == {"error": "no funds"}


def test_operations_in_a_chain_fall_back_one_by_one(service: CountingService, mode: str) -> None:
    """Search, answer, save: each goes on without the service that is down."""
    with CountingService() as files:
        search = ResilientServiceClient(service.url, "Chroma Server", 1)
        save = ResilientServiceClient(files.url, "Filesystem Server", 1)
        service.script("/query", Answer(503))

        try:
            context = search.post("/query", json={}).json()
        except (ServiceUnavailable, requests.RequestException):
            context = "basic"
        saved = save.post("/save_file", json={"content": context})

    assert (saved.status_code, files.requests[0].json) == (200, {"content": "basic"})


def test_one_services_failures_open_no_other_breaker(service: CountingService, mode: str) -> None:
    with CountingService() as git:
        git.script("*", Answer(500))
        down = ResilientServiceClient(git.url, "Git Server", 1, failure_threshold=1)
        up = ResilientServiceClient(service.url, "Chroma Server", 1, failure_threshold=1)
        with pytest.raises(requests.HTTPError):
            down.get("/ready")
        assert up.get("/ready").status_code == 200
        assert (down.state.value, up.state.value) == ("open", "closed")
