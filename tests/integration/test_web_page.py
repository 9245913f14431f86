"""The page's addresses as programs and browsers use them: login, actions, the stream, the metrics."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from seawall import ResilientServiceClient
from tests.integration.web_process import TOKEN, Web, bearer, running
from tests.support import Answer, CountingService, PrivateRedis, wait_until
from tests.support.house import RemoteHouse, caller

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@pytest.fixture(scope="module")
def guarded(redis_server: PrivateRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with running(redis_server, tmp_path_factory.mktemp("guarded"), SEAWALL_WEB_TOKEN=TOKEN) as web:
        yield web


def post(web: Web, path: str, body: Any = None, **headers: str) -> requests.Response:
    return requests.post(f"{web.url}/v1/api/{path}", json={} if body is None else body, headers=headers, timeout=10)


def log_in(web: Web, **form: str) -> requests.Response:
    return requests.post(f"{web.url}/login", data=form, allow_redirects=False, timeout=10)


class TestLogin:
    def test_a_browser_is_led_to_the_login_and_a_program_is_told(self, guarded: Web) -> None:
        led = requests.get(guarded.url, headers={"Accept": "text/html"}, allow_redirects=False, timeout=10)
        assert (led.status_code, led.headers["Location"]) == (303, "/login")
        assert guarded.get("/").status_code == 401
        form = guarded.get("/login")
        assert form.status_code == 200
        assert form.headers["Content-Security-Policy"] == PAGE_POLICY
        assert guarded.get("/static/page.css").status_code == 200
        for hidden in ("/events", "/metrics", "/v1/api/dead", "/static/../v1/api/status", "/login/"):
            assert guarded.get(hidden).status_code in (401, 404), hidden

    def test_the_cookie_opens_everything_and_names_the_person(self, guarded: Web, redis_url: str) -> None:
        let_in = log_in(guarded, name="Ada", token=TOKEN)
        assert (let_in.status_code, let_in.headers["Location"]) == (303, "/")
        flags = let_in.headers["Set-Cookie"].lower()
        assert "httponly" in flags
        assert "samesite=lax" in flags
        assert "max-age=43200" in flags
        assert "secure" not in flags
        with caller(redis_url) as runtime, RemoteHouse(redis_url, supervised=False):
            ResilientServiceClient("http://127.0.0.1:9", "Mail", key="mail")
            wait_until(lambda: "mail" in str(runtime.engine.queue.queues()))
            answer = requests.post(
                f"{guarded.url}/v1/api/services/mail/open", json={}, cookies=let_in.cookies, timeout=10
            )
            assert answer.json() == {"service": "mail", "done": "open"}
            page = requests.get(guarded.url, cookies=let_in.cookies, timeout=10).text
            assert "Mail is shut off by hand" in page
            assert '<td data-label="Who">Ada</td>' in page

    def test_behind_https_the_cookie_is_secure(self, guarded: Web) -> None:
        answer = requests.post(
            f"{guarded.url}/login",
            data={"token": TOKEN},
            headers={"X-Forwarded-Proto": "https"},
            allow_redirects=False,
            timeout=10,
        )
        assert "secure" in answer.headers["Set-Cookie"].lower()

    @pytest.mark.parametrize("cookie", ["", "x", "1.2.3", "99999999999..", "\xe9"])
    def test_a_forged_cookie_opens_nothing(self, guarded: Web, cookie: str) -> None:
        name = f"seawall-{guarded.url.rpartition(':')[2]}"
        assert guarded.get("/v1/api/status", Cookie=f"{name}={cookie}".encode("latin-1")).status_code == 401

    @pytest.mark.parametrize(
        "foreign", ['prefs={"theme":"dark"}', "a=b c", "x/y=1", "n=\xe9", "=", ";;", "seawall=x", "seawall-1=x"]
    )
    def test_cookies_of_other_ports_lock_nobody_out(self, guarded: Web, redis_url: str, foreign: str) -> None:
        name, value = log_in(guarded, token=TOKEN).headers["Set-Cookie"].partition(";")[0].split("=", 1)
        assert name == f"seawall-{guarded.url.rpartition(':')[2]}"
        for cookie in (f"{foreign}; {name}={value}", f"{name}={value}; {foreign}"):
            assert guarded.get("/v1/api/status", Cookie=cookie.encode("latin-1")).status_code == 200, cookie

    def test_several_cookie_headers_are_one(self, guarded: Web, redis_url: str) -> None:
        cookie = log_in(guarded, token=TOKEN).headers["Set-Cookie"].partition(";")[0]
        connection = http.client.HTTPConnection(guarded.url.removeprefix("http://"), timeout=10)
        with contextlib.closing(connection):
            connection.putrequest("GET", "/v1/api/status")
            for header in ("theme=dark", cookie):
                connection.putheader("Cookie", header)
            connection.endheaders()
            assert connection.getresponse().status == 200

    def test_other_sites_cannot_log_in_or_act(self, guarded: Web) -> None:
        foreign = {"Origin": "http://evil.example"}
        assert (
            requests.post(f"{guarded.url}/login", data={"token": TOKEN}, headers=foreign, timeout=10).status_code == 403
        )
        assert post(guarded, "services/mail/open", **foreign, **bearer(TOKEN)).status_code == 403

    def test_logging_out_takes_the_cookie_away(self, guarded: Web) -> None:
        out = requests.post(f"{guarded.url}/logout", allow_redirects=False, timeout=10)
        assert (out.status_code, out.headers["Location"]) == (303, "/login")
        assert "Max-Age=0" in out.headers["Set-Cookie"]

    def test_wrong_tokens_are_counted(self, redis_server: PrivateRedis, tmp_path: Path) -> None:
        with running(redis_server, tmp_path, SEAWALL_WEB_TOKEN=TOKEN) as web:
            assert log_in(web, token="x" * 20_000).status_code == 413
            assert [log_in(web, token="wrong").status_code for _ in range(6)] == [401] * 5 + [429]
            assert log_in(web, token=TOKEN).status_code == 429
            assert web.get("/v1/api/status", **bearer(TOKEN)).status_code == 200  # programs do not guess here

    def test_nobody_chooses_the_address_that_counts(self, redis_server: PrivateRedis, tmp_path: Path) -> None:
        def guess(number: int) -> int:
            claimed = {"X-Forwarded-For": f"192.0.2.{number}"}
            return requests.post(f"{web.url}/login", data={"token": "x"}, headers=claimed, timeout=10).status_code

        with running(redis_server, tmp_path, SEAWALL_WEB_TOKEN=TOKEN) as web:
            assert [guess(number) for number in range(6)] == [401] * 5 + [429]

    def test_without_a_token_there_is_nothing_to_log_in_to(self, web: Web) -> None:
        answer = requests.get(f"{web.url}/login", allow_redirects=False, timeout=10)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/")
        page = web.get("/")
        assert page.headers["Content-Security-Policy"] == PAGE_POLICY
        assert "Log out" not in page.text


class TestActions:
    @pytest.mark.parametrize(
        ("path", "body", "status", "sign"),
        [
            ("services/nobody/open", {}, 404, "no service 'nobody' is known"),
            ("services/nobody/pause", {}, 404, "no service 'nobody' is known"),
            ("services/mail/explode", {}, 404, "not to explode"),
            ("services/mail/open", [], 400, "a JSON object"),
            ("dead/replay", {}, 400, '"ids"'),
            ("dead/purge", {}, 400, '"ids"'),
            ("dead/purge", {"ids": []}, 400, "empty"),
            ("dead/purge", {"ids": [1]}, 400, "texts"),
            ("dead/purge", {"service": 7}, 400, "texts"),
            ("dead/replay/stop", {}, 409, "no replay"),
            ("dead/replay", {"service": "mail\nEve: purge"}, 400, "no key"),
            ("dead/purge", {"service": "mail", "reason": "poison\nEve"}, 400, "none of expired"),
            ("dead/purge", {"ids": ["a\nEve"]}, 400, "no id"),
        ],
    )
    def test_mistakes(self, web: Web, path: str, body: Any, status: int, sign: str) -> None:
        answer = post(web, path, body)
        assert answer.status_code == status
        assert sign in answer.json()["error"]

    def test_lists_are_of_services_and_reasons_that_can_be(self, web: Web) -> None:
        for path in ("/?service=a%0Ab", "/?reason=x", "/v1/api/dead?service=A", "/v1/api/dead?reason=x"):
            assert web.get(path).status_code == 400, path
        assert web.get("/?service=mail&reason=no+actor").status_code == 200

    def test_a_broker_that_refuses_is_told_of(self, own_redis: PrivateRedis, tmp_path: Path) -> None:
        with own_redis.client() as client, running(own_redis, tmp_path) as web:
            client.set("seawall:queues", "no set")
            answer = web.get("/v1/api/dead")
            assert (answer.status_code, "WRONGTYPE" in answer.json()["error"]) == (503, True)
            answer = post(web, "dead/purge", {"service": "mail"})
            assert (answer.status_code, "WRONGTYPE" in answer.json()["error"]) == (503, True)
            assert "WRONGTYPE" in web.get("/").text

    def test_a_form_is_no_action(self, web: Web) -> None:
        answer = requests.post(f"{web.url}/v1/api/dead/purge", data={"service": ""}, timeout=10)
        assert answer.status_code == 415
        big = requests.post(
            f"{web.url}/v1/api/dead/purge",
            data=b"[" * 300_000,
            headers={"Content-Type": "application/json"},
            timeout=10,
        )
        assert big.status_code == 413

    def test_dead_letters_are_listed_replayed_and_purged(
        self, web: Web, redis_url: str, service: CountingService
    ) -> None:
        service.script("*", Answer(500))
        with caller(redis_url), RemoteHouse(redis_url, supervised=False):
            git = ResilientServiceClient(
                service.url, "Git", key="git", max_retries=1, failure_threshold=100, allow_headers=["Authorization"]
            )
            for number in range(3):
                git.enqueue("POST", f"/add/{number}?q=s3cret", rounds=1, headers={"Authorization": "s3cret"})
            wait_until(lambda: len(web.get("/v1/api/dead?service=git").json()["letters"]) == 3)
            assert web.get("/v1/api/dead?service=git&reason=poison").json() == {"letters": [], "more": False}
            found = web.get("/v1/api/dead").json()["letters"]
            assert {letter["path"] for letter in found} == {"/add/0", "/add/1", "/add/2"}
            assert found[0]["attempts"][0]["outcome"] == "Server error 500"
            assert "s3cret" not in json.dumps(found) + web.get("/").text
            assert post(web, "dead/purge", {"ids": [found[0]["id"]]}).json() == {"purged": 1}
            service.script("*", Answer())
            started = post(web, "dead/replay", {"service": "git", "reason": "rounds used up"})
            assert (started.status_code, started.json()["replay"]["who"]) == (202, "someone at 127.0.0.1")
            wait_until(lambda: web.get("/v1/api/dead/replay").json()["replay"]["state"] == "done")
            assert web.get("/v1/api/dead/replay").json()["replay"]["queued"] == 2
            assert web.get("/v1/api/dead").json()["letters"] == []


class TestStream:
    def test_it_ends_with_its_session(self, guarded: Web, redis_url: str) -> None:
        cookies = log_in(guarded, token=TOKEN).cookies
        stream = requests.get(f"{guarded.url}/events", cookies=cookies, stream=True, timeout=10)
        lines = stream.iter_lines(decode_unicode=True)
        next(line for line in lines if line.startswith("data: {"))
        others = requests.get(
            f"{guarded.url}/events", cookies=log_in(guarded, token=TOKEN).cookies, stream=True, timeout=10
        )
        requests.post(f"{guarded.url}/logout", cookies=cookies, timeout=10)
        list(itertools.islice(lines, 10))  # at the next beat
        assert next(lines, None) is None
        assert requests.get(f"{guarded.url}/events", cookies=cookies, timeout=10).status_code == 401
        beat = next(line for line in others.iter_lines(decode_unicode=True) if line.startswith("event"))
        assert beat == "event: beat"  # that of another browser goes on
        others.close()

    def test_it_ends_with_a_changed_token(self, redis_server: PrivateRedis, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text(TOKEN)
        with running(redis_server, tmp_path, SEAWALL_WEB_TOKEN_FILE=str(file)) as web:
            stream = requests.get(f"{web.url}/events", headers=bearer(TOKEN), stream=True, timeout=10)
            lines = stream.iter_lines(decode_unicode=True)
            next(line for line in lines if line.startswith("data: {"))
            file.write_text("another")
            list(itertools.islice(lines, 10))
            assert next(lines, None) is None

    def test_everything_comes_first_and_sigterm_ends_it(self, own_redis: PrivateRedis, tmp_path: Path) -> None:
        with running(own_redis, tmp_path) as web:
            stream = requests.get(f"{web.url}/events", stream=True, timeout=10)
            assert stream.headers["Content-Type"].startswith("text/event-stream")
            assert stream.headers["Cache-Control"] == "no-store"
            lines = stream.iter_lines(decode_unicode=True)
            data = next(line for line in lines if line.startswith("data: {"))
            assert set(json.loads(data[6:])["parts"]) >= {"headline", "fleet", "audit"}
            assert next(line for line in lines if line.startswith("event")) == "event: beat"
            began = time.monotonic()
            assert web.end(signal.SIGTERM) == 0
            assert time.monotonic() - began < 4
            list(lines)  # it was ended, not cut


def test_metrics_are_prometheus_text(web: Web, redis_url: str) -> None:
    from prometheus_client import CONTENT_TYPE_LATEST

    answer = web.get("/metrics")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, CONTENT_TYPE_LATEST)
    assert "seawall_workers 0.0" in answer.text


def test_a_broker_that_is_away_is_said(own_redis: PrivateRedis, tmp_path: Path) -> None:
    with running(own_redis, tmp_path) as web:
        assert "No supervisor leads" in web.get("/").text
        own_redis.kill()
        wait_until(lambda: web.get("/metrics").status_code == 503, 10)
        wait_until(lambda: "No contact with the broker" in web.get("/").text, 10)
        assert post(web, "services/mail/open").status_code == 503
        wait_until(lambda: web.get("/v1/api/dead").status_code == 503)  # what was read before is good for a second
