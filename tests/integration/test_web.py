"""The web process: its answers, with everything there, with something missing, and with the broker away."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from seawall import ResilientServiceClient
from seawall.runtime import registry
from seawall.supervising import make_supervisor
from seawall.supervisor.breaker import ForceOpen
from tests.support import CountingService, PrivateRedis, wait_until
from tests.support.house import RemoteHouse, caller

#: What `get_status()` of the guide's clients has.
STATUS = {
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


@dataclass
class Web:
    process: subprocess.Popen[str]
    url: str

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=10)

    def readiness(self) -> dict[str, str]:
        """What is missing, by check."""
        checks = self.get("/readyz").json()["checks"]
        return {name: check["output"] for name, check in checks.items() if check["status"] == "fail"}

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)


@contextmanager
def running(broker: PrivateRedis, folder: Path) -> Iterator[Web]:
    """A web process on a free port."""
    command = [sys.executable, "-m", "seawall", "web", "--port", "0", "--broker-url", broker.url]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            yield Web(process, process.stderr.readline().split()[-1])
        finally:
            process.kill()


@pytest.fixture(scope="module")
def shared(redis_server: PrivateRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with running(redis_server, tmp_path_factory.mktemp("web")) as web:
        yield web


@pytest.fixture
def web(shared: Web, redis_url: str) -> Web:
    """One that several tests ask; its broker is empty."""
    return shared


@pytest.fixture
def own_web(own_redis: PrivateRedis, tmp_path: Path) -> Iterator[Web]:
    """One to be rude to."""
    with running(own_redis, tmp_path) as web:
        yield web


def test_status_is_the_guides_endpoint(web: Web, redis_url: str, service: CountingService) -> None:
    with caller(redis_url) as runtime:
        chroma = ResilientServiceClient(service.url, "Chroma Server", key="chroma", failure_threshold=4)
        ResilientServiceClient(service.url, "Git Server", key="git")
        with RemoteHouse(redis_url):
            chroma.get("/ready")
            answer = web.get("/v1/api/status/services")
            assert answer.status_code == 200
            assert answer.headers["Content-Type"] == "application/json"
            assert answer.headers["Cache-Control"] == "no-store"
            lines = answer.json()
            assert list(lines) == ["chroma", "git"]
            assert set(lines["chroma"]) >= STATUS
            own = chroma.get_status()
            assert {name: lines["chroma"][name] for name in STATUS - {"as_of"}} == {
                name: own[name] for name in STATUS - {"as_of"}
            }
            runtime.views.of(registry.get("git")).by_hand(ForceOpen())
            git = web.get("/v1/api/status/services").json()["git"]
            assert (git["state"], git["forced"]) == ("open", True)
            whole = web.get("/v1/api/status").json()
            assert (len(whole["workers"]), whole["supervisors"], whole["leader"]) == (1, [], None)


def test_readiness_names_what_is_missing(web: Web, redis_url: str, service: CountingService) -> None:
    assert web.get("/readyz").status_code == 503
    assert web.readiness() == {"supervisor": "no supervisor leads", "workers": "no worker runs"}
    with caller(redis_url) as runtime:
        ResilientServiceClient(service.url, key="chroma")
        supervisor = make_supervisor(runtime, registry)
        supervisor.start()
        try:
            wait_until(lambda: web.readiness() == {"workers": "no worker runs"})
            with RemoteHouse(redis_url):
                ready = web.get("/readyz")
                assert (ready.status_code, ready.json()["status"]) == (200, "pass")
                assert ready.headers["Content-Type"] == "application/health+json"
        finally:
            supervisor.stop(1.0)


def test_broker_that_is_away_is_503_in_json_and_its_return_needs_no_restart(
    own_web: Web, own_redis: PrivateRedis
) -> None:
    assert own_web.get("/v1/api/status/services").json() == {}
    own_redis.kill()
    for path in ("/v1/api/status/services", "/v1/api/status"):
        answer = own_web.get(path)
        assert answer.status_code == 503
        assert "cannot be reached" in answer.json()["error"]
    assert own_web.get("/readyz").status_code == 503
    assert "cannot be reached" in own_web.readiness()["broker"]
    assert own_web.get("/healthz").json() == {"status": "pass"}
    own_redis.restart()
    assert own_web.get("/v1/api/status/services").status_code == 200


def test_unknown_paths_and_wrong_methods_are_answered_in_json(web: Web) -> None:
    assert (web.get("/nothing").status_code, web.get("/nothing").json()) == (404, {"error": "Not Found"})
    wrong = requests.post(f"{web.url}/healthz", timeout=10)
    assert (wrong.status_code, wrong.json()) == (405, {"error": "Method Not Allowed"})
    assert requests.head(f"{web.url}/healthz", timeout=10).status_code == 200


def test_ctrl_c_ends_it_cleanly_with_a_connection_open(own_web: Web) -> None:
    with requests.Session() as kept_open:
        kept_open.get(f"{own_web.url}/healthz", timeout=10)
        assert own_web.end(signal.SIGINT) == 0
    assert own_web.process.stderr is not None
    assert own_web.process.stderr.read() == ""


def test_hangup_starts_it_afresh_as_the_same_process_and_sigterm_ends_it(own_web: Web) -> None:
    own_web.process.send_signal(signal.SIGHUP)
    assert own_web.process.stderr is not None
    own_web.url = own_web.process.stderr.readline().split()[-1]
    assert own_web.get("/healthz").json() == {"status": "pass"}
    assert own_web.end(signal.SIGTERM) == 0
    assert own_web.process.stderr.read() == ""


def test_taken_port_is_named(web: Web, redis_url: str, tmp_path: Path) -> None:
    port = web.url.rpartition(":")[2]
    command = [sys.executable, "-m", "seawall", "web", "--port", port, "--broker-url", redis_url]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert done.returncode == 78
    assert done.stderr == (
        f"seawall: the web process cannot listen on 127.0.0.1:{port}: Address already in use; "
        "name another port with --port or SEAWALL_WEB_PORT, 0 for any\n"
    )


def test_answers_can_be_read_by_machines_alone(web: Web) -> None:
    for path in ("/v1/api/status", "/healthz", "/readyz", "/nothing"):
        json.loads(web.get(path).text)
        assert web.get(path).headers["X-Content-Type-Options"] == "nosniff"
        assert "server" not in web.get(path).headers
