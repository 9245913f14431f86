"""The web process: its answers, with everything there, with something missing, and with the broker away."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from seawall import ResilientServiceClient
from seawall.exits import Exit
from seawall.runtime import registry
from seawall.supervising import make_supervisor
from seawall.supervisor.breaker import ForceOpen
from seawall.webserver import GRACE_SECONDS
from tests.acceptance.shell import Ran, plain_environ, run
from tests.integration.web_process import TOKEN, Web, bearer, running
from tests.support import CountingService, PrivateRedis, wait_until
from tests.support.house import RemoteHouse, caller
from tests.support.proxy import Proxy

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
                # What was read before is good for a second.
                ready = wait_until(lambda: (answer := web.get("/readyz")).ok and answer)
                assert isinstance(ready, requests.Response)
                assert (ready.status_code, ready.json()["status"]) == (200, "pass")
                assert ready.headers["Content-Type"] == "application/health+json"
        finally:
            supervisor.stop(1.0)


def test_readiness_is_read_once_a_second_however_many_ask(own_web: Web, own_redis: PrivateRedis) -> None:
    def reads() -> int:
        with own_redis.client() as client:
            return sum(stats["calls"] for name, stats in client.info("commandstats").items() if "xrevrange" in name)

    assert own_web.get("/readyz").status_code == 503
    before, began = reads(), time.monotonic()
    assert before
    for _ in range(50):
        own_web.get("/readyz")
    assert reads() - before <= 2 * (1 + time.monotonic() - began)


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


STRICT = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def environ_of(url: str, **more: str) -> dict[str, str]:
    return plain_environ(SEAWALL_BROKER_URL=url, **more)


@pytest.fixture(scope="module")
def guarded(redis_server: PrivateRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """One that listens everywhere, with a token from a file."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "token").write_text(f"{TOKEN}\n")
    with running(redis_server, folder, "--host", "0.0.0.0", SEAWALL_WEB_TOKEN_FILE=str(folder / "token")) as web:
        yield web


class TestBeyondThisMachine:
    def test_all_but_health_needs_the_token(self, guarded: Web, redis_url: str) -> None:
        for path in (
            "/v1/api/status/services",
            "/v1/api/status",
            "/nothing",
            "/",
            "/healthz/",
            "/healthz/../v1/api/status",
        ):
            refused = guarded.get(path)
            assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, 'Bearer realm="seawall"'), path
            assert "Authorization: Bearer TOKEN" in refused.json()["error"]
        assert guarded.get("/v1/api/status/services", **bearer(TOKEN)).json() == {}
        assert guarded.get("/v1/api/status", **bearer(TOKEN)).status_code == 200
        assert guarded.get("/nothing", **bearer(TOKEN)).status_code == 404
        assert guarded.get("/healthz").json() == {"status": "pass"}
        assert guarded.get("/readyz").status_code == 503

    @pytest.mark.parametrize(
        "given",
        ["", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, "Bearer \xe9"],
    )
    def test_nothing_else_will_do(self, guarded: Web, given: str) -> None:
        assert guarded.get("/v1/api/status", Authorization=given.encode("latin-1")).status_code == 401

    def test_the_scheme_may_be_written_in_any_way(self, guarded: Web, redis_url: str) -> None:
        assert guarded.get("/v1/api/status", Authorization=f"bEARER  {TOKEN} ").status_code == 200

    def test_a_token_that_changes_is_read_again_and_one_that_is_gone_lets_nobody_in(
        self, guarded: Web, redis_url: str
    ) -> None:
        file = guarded.folder / "token"
        try:
            file.write_text("another")
            assert guarded.get("/v1/api/status", **bearer(TOKEN)).status_code == 401
            assert guarded.get("/v1/api/status", **bearer("another")).status_code == 200
            file.unlink()
            for token in ("another", ""):
                closed = guarded.get("/v1/api/status", **bearer(token))
                assert (closed.status_code, closed.json()) == (
                    503,
                    {"error": "the token to compare with cannot be read"},
                )
            assert guarded.get("/healthz").status_code == 200
        finally:
            file.write_text(TOKEN)
        assert guarded.get("/v1/api/status", **bearer(TOKEN)).status_code == 200

    def test_whoever_has_no_token_learns_nothing_about_the_broker(
        self, own_redis: PrivateRedis, tmp_path: Path
    ) -> None:
        with running(own_redis, tmp_path, "--host", "0.0.0.0", SEAWALL_WEB_TOKEN=TOKEN) as web:
            own_redis.kill()
            assert web.readiness() == {"broker": "the broker is away"}
            told = web.get("/readyz", **bearer(TOKEN)).json()["checks"]["broker"]["output"]
            assert "cannot be reached" in told

    def test_it_does_not_start_without_a_token(self, redis_url: str, tmp_path: Path) -> None:
        for host in ("0.0.0.0", "::"):
            refused = run("web", "--host", host, "--port", "0", folder=tmp_path, environ=environ_of(redis_url))
            assert refused == Ran(
                Exit.CONFIG,
                "",
                f"seawall: the web process is to listen on {host}, beyond this machine, and has no token: set "
                "SEAWALL_WEB_TOKEN or SEAWALL_WEB_TOKEN_FILE, or SEAWALL_WEB_OPEN=1 if everybody may read its status\n",
            )
        (tmp_path / "empty").write_text("\n")
        for file, sign in (("empty", "is empty"), ("missing", "cannot be read: No such file")):
            environ = environ_of(redis_url, SEAWALL_WEB_TOKEN_FILE=str(tmp_path / file))
            refused = run("web", "--port", "0", folder=tmp_path, environ=environ)
            assert refused.code == Exit.CONFIG
            assert sign in refused.err
            assert "the web process lets nobody in without it" in refused.err

    def test_everybody_may_ask_where_somebody_insists(self, redis_server: PrivateRedis, tmp_path: Path) -> None:
        with running(redis_server, tmp_path, "--host", "0.0.0.0", SEAWALL_WEB_OPEN="1") as web:
            assert web.get("/v1/api/status", Host="status.example").status_code == 200

    def test_where_everybody_may_ask_no_other_sites_page_may_act(
        self, redis_server: PrivateRedis, tmp_path: Path
    ) -> None:
        with running(redis_server, tmp_path, "--host", "0.0.0.0", SEAWALL_WEB_OPEN="1") as web:
            for host, status in (
                ("evil.example", 403),
                ("evil.example:8610", 403),
                ("192.0.2.7:8610", 405),
                ("[2001:db8::1]:80", 405),
                ("localhost", 405),
                ("seawall:8610", 405),
                (socket.gethostname(), 405),
            ):
                headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
                answer = requests.post(f"{web.url}/v1/api/status", headers=headers, timeout=10)
                assert answer.status_code == status, host
            program = requests.post(f"{web.url}/v1/api/status", headers={"Host": "status.example"}, timeout=10)
            assert program.status_code == 405

    def test_check_warns_of_it(self, tmp_path: Path) -> None:
        (tmp_path / "seawall.toml").write_text("web_host = '0.0.0.0'")
        told = run("check", folder=tmp_path, environ=plain_environ())
        assert "warning: SEAWALL_WEB_HOST is beyond this machine" in told.out
        assert told.code == Exit.OK
        assert "WEB_HOST" not in run("check", folder=tmp_path, environ=plain_environ(SEAWALL_WEB_TOKEN="x")).out


class TestOnThisMachine:
    def test_a_token_counts_here_too_where_there_is_one(self, redis_server: PrivateRedis, tmp_path: Path) -> None:
        with running(redis_server, tmp_path, SEAWALL_WEB_TOKEN=TOKEN) as web:
            assert web.get("/v1/api/status").status_code == 401
            assert web.get("/v1/api/status", **bearer(TOKEN)).status_code == 200

    @pytest.mark.parametrize(
        "host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.1.2.3:8610", "[::1]:1", "a.localhost"]
    )
    def test_names_of_this_machine(self, web: Web, host: str) -> None:
        assert web.get("/v1/api/status", Host=host).status_code == 200

    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:8610", "localhost.evil.example", "10.0.0.1", "[::2]", "x:y"]
    )
    def test_a_page_whose_name_was_made_to_lead_here_gets_nothing(self, web: Web, host: str) -> None:
        assert web.get("/v1/api/status", Host=host).status_code == 421
        assert web.get("/healthz", Host=host).status_code == 200

    def test_writes_of_other_sites_are_refused(self, web: Web) -> None:
        """There is nothing to write yet; whatever comes is behind this."""
        own = web.url.removeprefix("http://")
        for headers, status in (
            ({}, 405),
            ({"Origin": f"http://{own}"}, 405),
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": ""}, 403),
            ({"Origin": f"http://{own}", "Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "same-site"}, 403),
        ):
            for method in ("POST", "PUT", "DELETE", "PATCH"):
                answer = requests.request(method, f"{web.url}/v1/api/status", headers=headers, timeout=10)
                assert answer.status_code == status, (headers, method)

    def test_every_answer_has_strict_headers(self, web: Web) -> None:
        for path in ("/v1/api/status", "/v1/api/status/services", "/healthz", "/readyz", "/nothing"):
            answer = web.get(path)
            assert {name: answer.headers.get(name) for name in STRICT} == STRICT, path
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; frame-ancestors 'none'")
        assert web.get("/v1/api/status", Host="evil.example").headers["X-Frame-Options"] == "DENY"


def test_a_second_sigterm_ends_it_now(own_redis: PrivateRedis, tmp_path: Path) -> None:
    """The first one waits for open requests, and those for a broker that does not answer."""

    def asked() -> int:
        with own_redis.client() as client:
            return sum(stats["calls"] for name, stats in client.info("commandstats").items() if "eval" in name)

    with (
        Proxy(own_redis.url.removeprefix("unix://").partition("?")[0]) as proxy,
        running(own_redis, tmp_path, "--broker-url", f"redis://127.0.0.1:{proxy.port}") as web,
    ):
        assert web.get("/v1/api/status").status_code == 200
        proxy.swallow.set()
        before = asked()
        with half_sent(web):  # keeps it from ending by itself, however long the steps from here on take
            asking = threading.Thread(target=ask, args=(web,))
            asking.start()
            wait_until(lambda: asked() > before)  # so it waits for the broker
            web.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not listens(web))  # so that one was acted upon; signals that come together are one
            assert web.process.poll() is None
            began = time.monotonic()
            assert web.end(signal.SIGTERM) == Exit.CUT_OFF
            assert time.monotonic() - began < GRACE_SECONDS / 2
        asking.join(5)


@contextlib.contextmanager
def half_sent(web: Web) -> Iterator[None]:
    """A request whose body is asked for, and does not come."""
    host, _, port = web.url.removeprefix("http://").partition(":")
    head = f"POST /v1/api/dead/purge HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(head.encode())
        assert b" 100 " in sock.recv(1000)
        yield


def ask(web: Web) -> None:
    with contextlib.suppress(requests.ConnectionError):
        web.get("/v1/api/status")


def listens(web: Web) -> bool:
    host, _, port = web.url.removeprefix("http://").partition(":")
    with socket.socket() as sock:
        return sock.connect_ex((host, int(port))) == 0
