"""The guide: a monitoring endpoint shows the breakers."""

from __future__ import annotations

import json
import time

import flask
import pytest
import requests

from tests.guide.conftest import MakeClient
from tests.support import Answer, CountingService

FIELDS = {
    "service",
    "key",
    "state",
    "consecutive_failures",
    "failure_threshold",
    "recovery_timeout",
    "opened_at",
    "retry_after",
    "last_error",
    "as_of",
}


def test_the_status_of_a_healthy_service(make_client: MakeClient) -> None:
    client = make_client("Chroma Server", failure_threshold=7, recovery_timeout=30)
    client.get("/ready")
    status = client.get_status()
    assert status.keys() == FIELDS
    assert (status["service"], status["key"], status["state"]) == ("Chroma Server", "chroma-server", "closed")
    assert (status["consecutive_failures"], status["failure_threshold"], status["recovery_timeout"]) == (0, 7, 30)
    assert (status["opened_at"], status["retry_after"], status["last_error"]) == (None, 0, None)
    assert abs(status["as_of"] - time.time()) < 5


def test_the_status_of_a_service_that_is_down(make_client: MakeClient, service: CountingService) -> None:
    service.script("*", Answer(500))
    client = make_client(failure_threshold=2, max_retries=1)
    for _ in range(2):
        with pytest.raises(requests.HTTPError):
            client.get("/ready")
    status = client.get_status()
    assert (status["state"], status["consecutive_failures"]) == ("open", 2)
    assert abs(status["opened_at"] - time.time()) < 5
    assert 55 < status["retry_after"] <= 60
    assert status["last_error"] == "Server error 500"


def test_the_endpoint_answers_with_json(make_client: MakeClient) -> None:
    clients = {name: make_client(f"{name.title()} Server") for name in ("chroma", "git")}
    app = flask.Flask(__name__)

    @app.get("/status")
    def status() -> flask.Response:
        return flask.jsonify({name: client.get_status() for name, client in clients.items()})

    answer = app.test_client().get("/status")
    assert answer.status_code == 200
    assert {name: shown["state"] for name, shown in answer.get_json().items()} == {"chroma": "closed", "git": "closed"}


def test_the_status_is_plain_data(make_client: MakeClient, service: CountingService) -> None:
    service.script("*", Answer(500))
    client = make_client(failure_threshold=1, max_retries=1)
    before = client.get_status()
    with pytest.raises(requests.HTTPError):
        client.get("/ready")
    for status in (before, client.get_status()):
        assert json.loads(json.dumps(status)) == status


def test_asking_for_the_status_sends_nothing(make_client: MakeClient, service: CountingService) -> None:
    make_client().get_status()
    assert service.count() == 0
