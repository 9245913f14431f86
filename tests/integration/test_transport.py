"""One attempt of a call on the wire: what the service reads, and what comes back."""

from __future__ import annotations

import base64
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from seawall.actors import wire
from seawall.actors.failures import may_have_been_sent
from seawall.actors.token import TokenSource
from seawall.actors.transport import OriginMismatch
from seawall.errors import TokenUnavailable
from tests.support.loopback import Loopback, Seen, always, answer, call_to, once, transport_to

TOKEN = "tok-3f1c"


def test_the_service_reads_the_call_as_it_was_prepared() -> None:
    with Loopback(always(answer(b'{"ok": true}', headers="Content-Type: application/json\r\n"))) as server:
        transport = transport_to(server.url, token=TokenSource(value=TOKEN))
        headers = (("Content-Type", "application/json"), ("Idempotency-Key", "c-1"), ("Content-Length", "2"))
        response = transport.send(call_to(transport, "POST", "/api/query?n=5", headers=headers, body=b"{}"))
        transport.close()

    (seen,) = server.seen
    assert (seen.method, seen.target, seen.body) == ("POST", "/api/query?n=5", b"{}")
    assert seen.headers["host"] == f"127.0.0.1:{server.port}"
    assert seen.headers["idempotency-key"] == "c-1"
    assert seen.headers["x-internal-token"] == TOKEN
    assert seen.headers["user-agent"].startswith("seawall/")
    assert seen.headers["accept"] == "*/*"
    assert seen.headers["accept-encoding"] == "gzip, deflate"
    assert response.json() == {"ok": True}
    assert (response.status_code, response.reason, response.ok) == (200, "OK", True)
    assert timedelta(0) < response.elapsed < timedelta(seconds=5)
    assert response.url == f"{server.url}/api/query?n=5"


def test_headers_of_the_caller_win_over_the_defaults() -> None:
    with Loopback(always(answer())) as server:
        transport = transport_to(server.url)
        transport.send(call_to(transport, headers=(("accept", "text/csv"), ("USER-AGENT", "mine/1"))))
        transport.close()
    assert server.seen[0].headers["accept"] == "text/csv"
    assert server.seen[0].headers["user-agent"] == "mine/1"


@pytest.mark.parametrize("status", ["404 Not Found", "503 Service Unavailable", "429 Too Many Requests"])
def test_every_status_comes_back_as_a_response(status: str) -> None:
    with Loopback(always(answer(status=status))) as server:
        transport = transport_to(server.url)
        response = transport.send(call_to(transport))
        transport.close()
    assert f"{response.status_code} {response.reason}" == status


def test_calls_in_a_row_share_one_connection() -> None:
    with Loopback(always(answer())) as server:
        transport = transport_to(server.url)
        for _ in range(5):
            assert transport.send(call_to(transport)).content == b"ok"
        transport.close()
    assert server.connections == 1


def test_a_call_that_must_not_be_sent_twice_gets_a_connection_of_its_own() -> None:
    with Loopback(always(answer())) as server:
        transport = transport_to(server.url)
        transport.send(call_to(transport, "POST"))
        transport.send(call_to(transport, "POST", resend=False))
        transport.close()
    assert [seen.connection for seen in server.seen] == [1, 2]


def test_an_http_1_0_server_that_closes_after_each_answer() -> None:
    def body_until_the_end(request: Seen) -> bytes:
        return b"HTTP/1.0 200 OK\r\n\r\nhello"

    with Loopback(once(body_until_the_end(Seen("", "", {})))) as server:
        transport = transport_to(server.url)
        assert [transport.send(call_to(transport)).text for _ in range(2)] == ["hello", "hello"]
        transport.close()
    assert server.connections == 2


def test_head_has_no_body_but_its_headers() -> None:
    with Loopback(always(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")) as server:
        transport = transport_to(server.url, max_response_bytes=10)
        response = transport.send(call_to(transport, "HEAD"))
        transport.close()
    assert (response.content, response.headers["content-length"]) == (b"", "99")


def test_a_host_with_two_addresses_is_reached_by_the_one_that_answers() -> None:
    """localhost is ::1 as well as 127.0.0.1 on most machines; the server has only the latter."""
    with Loopback(always(answer())) as server:
        transport = transport_to(f"http://localhost:{server.port}")
        assert transport.send(call_to(transport)).content == b"ok"
        transport.close()


def test_ipv6() -> None:
    try:
        server = Loopback(always(answer()), host="::1")
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with server:
        transport = transport_to(server.url)
        response = transport.send(call_to(transport))
        transport.close()
    assert response.url == f"http://[::1]:{server.port}/query"


def test_credentials_of_the_base_url_are_sent_and_never_shown() -> None:
    with Loopback(always(answer())) as server:
        url = server.url.replace("//", "//ann:s%40fe@")
        transport = transport_to(url, token=TokenSource(value=TOKEN))
        response = transport.send(call_to(transport))
        transport.close()
    assert server.seen[0].headers["authorization"] == "Basic " + base64.b64encode(b"ann:s@fe").decode()
    shown = f"{response.url} {response!r} {transport!r} {dict(response.request.headers)}"
    assert "s%40fe" not in shown
    assert "s@fe" not in shown
    assert TOKEN not in shown
    assert "Authorization" not in response.request.headers


def test_an_allowed_authorization_of_the_call_wins_over_the_base_url() -> None:
    with Loopback(always(answer())) as server:
        transport = transport_to(server.url.replace("//", "//ann:safe@"))
        transport.send(call_to(transport, headers=(("authorization", "Bearer x"),)))
        transport.close()
    assert server.seen[0].headers["authorization"] == "Bearer x"


def test_a_record_does_not_decide_on_host_and_framing() -> None:
    with Loopback(always(answer())) as server:
        transport = transport_to(server.url)
        headers = (("Host", "evil"), ("Transfer-Encoding", "chunked"), ("Content-Length", "7"))
        transport.send(call_to(transport, "PUT", headers=headers, body=b"body"))
        transport.close()
    (seen,) = server.seen
    assert (seen.headers["host"], seen.body) == (f"127.0.0.1:{server.port}", b"body")
    assert (seen.headers["content-length"], seen.headers.get("transfer-encoding")) == ("4", None)


@pytest.mark.parametrize("fields", [{"headers": (("X-A", "a\r\nHost: evil"),)}, {"method": "GET\r\nX: 1"}])
def test_a_record_that_smuggles_lines_is_not_sent(fields: dict[str, Any]) -> None:
    with Loopback(always(answer())) as server:
        transport = transport_to(server.url)
        with pytest.raises(requests.exceptions.InvalidHeader) as caught:
            transport.send(call_to(transport, **fields))
        transport.close()
    assert server.seen == []
    assert not may_have_been_sent(caught.value)


def test_a_connection_that_was_not_used_for_long_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    with Loopback(always(answer())) as server:
        transport = transport_to(server.url)
        transport.send(call_to(transport))
        transport.send(call_to(transport))
        monkeypatch.setattr(wire, "TRUSTED", 0.0)
        monkeypatch.setattr(wire, "MAX_IDLE", 0.0)
        transport.send(call_to(transport))
        transport.close()
    assert [seen.connection for seen in server.seen] == [1, 1, 2]


def test_a_left_over_token_in_a_record_is_replaced() -> None:
    with Loopback(always(answer())) as server:
        transport = transport_to(server.url, token=TokenSource(value=TOKEN))
        transport.send(call_to(transport, headers=(("x-internal-token", "old"),)))
        transport.close()
    assert server.seen[0].headers["x-internal-token"] == TOKEN


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("origin", "http://evil:80"),
        ("target", "//evil/x y"),
        ("target", "@evil/x"),
        ("target", "/x\r\nHost: evil"),
        ("target", ""),
    ],
)
def test_a_call_for_somebody_else_is_not_sent(field: str, value: str) -> None:
    with Loopback(always(answer())) as server:
        transport = transport_to(server.url)
        fields = {"origin": transport.service.origin, "target": "/query", field: value}
        call = call_to(transport, target=fields["target"])
        with pytest.raises(OriginMismatch) as caught:
            transport.send(type(call)(**{name: getattr(call, name) for name in call.__struct_fields__} | fields))
        transport.close()
    assert server.connections == 0
    assert not may_have_been_sent(caught.value)


def test_without_its_token_a_call_is_not_sent(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    with Loopback(always(answer())) as server:
        transport = transport_to(server.url, token=TokenSource(file=path))
        transport.send(call_to(transport))
        path.write_text("second, longer\n")
        transport.send(call_to(transport))
        path.unlink()
        with pytest.raises(TokenUnavailable, match="token"):
            transport.send(call_to(transport))
        transport.close()
    assert [seen.headers["x-internal-token"] for seen in server.seen] == ["first", "second, longer"]


def test_a_closed_transport_opens_new_connections_when_it_sends_again() -> None:
    with Loopback(always(answer())) as server:
        transport = transport_to(server.url)
        for _ in range(2):
            transport.send(call_to(transport))
            transport.close()
            transport.close()
    assert server.connections == 2


def test_closing_lets_a_running_call_finish() -> None:
    arrived, closed = threading.Event(), threading.Event()

    def late(request: Seen) -> bytes:
        arrived.set()
        closed.wait(5)
        return answer(b"late")

    with Loopback(always(late)) as server:
        transport = transport_to(server.url)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(transport.send, call_to(transport))
            arrived.wait(5)
            transport.close()
            closed.set()
            assert running.result(5).content == b"late"


def test_a_refused_connection_says_to_whom_and_why_in_a_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    transport = transport_to(f"http://127.0.0.1:{port}", token=TokenSource(value=TOKEN))
    with pytest.raises(requests.ConnectionError) as caught:
        transport.send(call_to(transport, target="/query?secret=1"))
    assert str(caught.value) == f"[Chroma Server] GET http://127.0.0.1:{port}/query: Connection refused"
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert not may_have_been_sent(caught.value)
    assert caught.value.request is not None
    assert "X-Internal-Token" not in caught.value.request.headers
