"""The guide's status endpoint in applications of real frameworks, with the broker there and away."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import flask
import pytest
import requests
import uvicorn
from starlette.applications import Starlette

from seawall import ResilientServiceClient
from seawall import runtime as runtimes
from seawall.contrib.flask import status as blueprint
from seawall.contrib.starlette import status as route
from seawall.contrib.status import declared_status
from seawall.runtime import Runtime
from seawall.settings import load_settings
from tests.support import wait_until
from tests.support.house import caller

PATH = "/v1/api/status/services"
AWAY = "redis://127.0.0.1:1/0"

DJANGO = """
import json, sys
from django.conf import settings
from django.urls import path
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["testserver"], SECRET_KEY="x")
import django; django.setup()
from seawall import ResilientServiceClient
from seawall.contrib.django import status
urlpatterns = [path("v1/api/status/services", status)]
git = ResilientServiceClient("http://127.0.0.1:9", service_name="Git Server", key="git")
from django.test import Client
answer = Client().get("/v1/api/status/services")
assert Client().post("/v1/api/status/services").status_code == 405
assert answer.json()["git"]["service"] == git.get_status()["service"]
print(json.dumps([answer.status_code, answer["Content-Type"], answer.json()]))
"""


@pytest.fixture(params=["there", "away"])
def client(request: pytest.FixtureRequest, redis_url: str) -> Iterator[ResilientServiceClient]:
    with caller(redis_url if request.param == "there" else AWAY):
        for number in range(20):
            ResilientServiceClient("http://127.0.0.1:9", key=f"service-{number:02}")
        yield ResilientServiceClient("http://127.0.0.1:9", service_name="Git Server", key="git")


def check(body: dict[str, dict[str, object]], client: ResilientServiceClient) -> None:
    """Every declared service, as its client sees it; only the moment of looking is another one."""
    assert len(body) == 21
    ours, theirs = client.get_status(), body["git"]
    assert {**theirs, "as_of": 0} == {**ours, "as_of": 0}
    assert (theirs["service"], theirs["state"]) == ("Git Server", "closed")


def test_the_webhook_of_alerts_is_none_of_the_applications_services() -> None:
    with caller(AWAY):
        Runtime(load_settings({"broker_url": AWAY, "alerts_webhook": "http://127.0.0.1:9/hook"})).close()
        assert runtimes.registry.find("seawall-alerts") is not None
        ResilientServiceClient("http://127.0.0.1:9", key="git")
        assert list(declared_status()) == ["git"]


def test_flask(client: ResilientServiceClient) -> None:
    app = flask.Flask(__name__)
    app.register_blueprint(blueprint)
    started = time.monotonic()
    answer = app.test_client().get(PATH)
    assert time.monotonic() - started < 5, "it waits for all of them together, and not 0.5 s for each"
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    check(answer.get_json(), client)


def test_starlette(client: ResilientServiceClient) -> None:
    """On a real server: its own test client needs another HTTP client."""
    app = Starlette()
    app.router.routes.append(route)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        answer = requests.get(f"http://127.0.0.1:{port}{PATH}", timeout=5)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        check(answer.json(), client)
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.mark.parametrize("away", [False, True])
def test_django(redis_url: str, away: bool) -> None:
    """In a process of its own: Django is configured once."""
    done = subprocess.run(
        [sys.executable, "-c", DJANGO],
        capture_output=True,
        text=True,
        timeout=60,
        env={"SEAWALL_BROKER_URL": AWAY if away else redis_url, "PATH": "", "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    code, kind, body = json.loads(done.stdout)
    assert (code, kind, list(body)) == (200, "application/json", ["git"])
    assert (body["git"]["service"], body["git"]["state"]) == ("Git Server", "closed")


def test_frameworks_are_imported_only_where_they_are_used() -> None:
    text = """
import sys
import seawall, seawall.contrib, seawall.contrib.status, seawall.cli.main
assert not {"flask", "django"} & set(sys.modules), sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_each_is_short() -> None:
    from seawall.contrib import django, flask, starlette

    for module in (django, flask, starlette):
        with open(module.__file__) as file:
            assert len(file.readlines()) < 30, module.__name__
