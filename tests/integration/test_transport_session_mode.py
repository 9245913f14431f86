"""Memory mode: the usual test libraries and a patched `requests.request` take the wire's place."""

from __future__ import annotations

import time
from unittest.mock import MagicMock, patch

import pytest
import requests
import requests_mock
import responses

from seawall.actors.failures import may_have_been_sent
from seawall.actors.prepare import prepare
from seawall.actors.record import Call
from seawall.actors.token import TokenSource
from seawall.actors.transport import OriginMismatch, Transport
from seawall.errors import ResponseTooLarge, TokenUnavailable
from tests.support.loopback import Loopback, always, answer, call_to, service_at, transport_to

TOKEN = "tok-3f1c"
URL = "http://chroma.test:6003/api"


def ready(
    method: str = "POST", path: str = "/query", url: str = URL, **options: object
) -> tuple[Call, dict[str, object]]:
    """A call as the client makes it, with the caller's own keywords."""
    service = service_at(url)
    prepared = prepare(service, method, path, options, call_id="c-1")
    call = Call(
        id="c-1",
        service=service.key,
        origin=service.origin,
        method=prepared.method,
        target=prepared.target,
        headers=prepared.headers,
        body=prepared.body,
        timeout=prepared.timeout,
        connect_timeout=prepared.connect_timeout,
    )
    return call, prepared.original


def in_session_mode(url: str = URL, **settings: object) -> Transport:
    return transport_to(url, token=TokenSource(value=TOKEN), session_mode=True, **settings)


def test_a_patched_function_gets_the_callers_own_keywords() -> None:
    call, original = ready(
        json={"n": 1}, params={"q": "x"}, headers={"X-Mine": "1", "x-internal-token": "old"}, timeout=3
    )
    with patch("requests.request") as request:
        response = in_session_mode().send(call, original=original)
    assert response is request.return_value
    request.assert_called_once_with(
        "POST",
        f"{URL}/query",
        json={"n": 1},
        params={"q": "x"},
        headers={"X-Mine": "1", "Idempotency-Key": "c-1", "X-Internal-Token": TOKEN},
        timeout=3,
    )


def test_a_patched_function_gets_the_clients_timeout_where_the_call_has_none() -> None:
    call, original = ready("GET")
    with patch("requests.request") as request:
        transport_to(URL, session_mode=True, timeout=(2.0, 7.0)).send(call, original=original)
    request.assert_called_once_with("GET", f"{URL}/query", headers={}, timeout=(2.0, 5.0))


def test_a_call_without_its_callers_keywords_reaches_a_patched_function_too() -> None:
    call, _ = ready(data=b"x", params={"q": "1"})
    with patch("requests.request") as request:
        in_session_mode().send(call)
    (method, url), keywords = request.call_args
    assert (method, url, keywords["data"]) == ("POST", f"{URL}/query?q=1", b"x")


@pytest.mark.parametrize("error", [ConnectionError("Service down"), requests.ReadTimeout("slow"), KeyError("bug")])
def test_an_error_of_a_patched_function_is_the_very_object(error: Exception) -> None:
    call, original = ready()
    with patch("requests.request", side_effect=error), pytest.raises(type(error)) as caught:
        in_session_mode().send(call, original=original)
    assert caught.value is error
    assert may_have_been_sent(error)


def test_whatever_a_patched_function_returns_is_the_very_object() -> None:
    call, original = ready()
    for value in (MagicMock(status_code=503), None, "text"):
        with patch("requests.request", return_value=value):
            assert in_session_mode().send(call, original=original) is value


def test_a_patch_does_not_excuse_a_missing_token_or_a_wrong_origin() -> None:
    call, original = ready()
    with patch("requests.request") as request:
        with pytest.raises(TokenUnavailable):
            transport_to(URL, token=TokenSource(value=""), session_mode=True).send(call, original=original)
        with pytest.raises(OriginMismatch):
            in_session_mode("http://other.test").send(call, original=original)
    request.assert_not_called()


def test_a_worker_does_not_look_for_patches() -> None:
    with Loopback(always(answer())) as server, patch("requests.request") as request:
        transport = transport_to(server.url)
        assert transport.send(call_to(transport)).content == b"ok"
        transport.close()
    request.assert_not_called()


@responses.activate
def test_responses() -> None:
    responses.post(f"{URL}/query", json={"found": 2}, status=201, headers={"X-Its": "1"})
    call, original = ready(json={"n": 1}, params={"q": "x"})
    response = in_session_mode().send(call, original=original)
    assert (response.status_code, response.json(), response.headers["X-Its"]) == (201, {"found": 2}, "1")
    sent = responses.calls[0].request
    assert (sent.url, sent.body) == (f"{URL}/query?q=x", b'{"n": 1}')
    assert sent.headers["Idempotency-Key"] == "c-1"
    assert sent.headers["X-Internal-Token"] == TOKEN
    assert "X-Internal-Token" not in response.request.headers


@responses.activate
def test_responses_on_the_default_port() -> None:
    responses.get("http://chroma.test/query", body="ok")
    call, original = ready("GET", url="http://chroma.test")
    assert in_session_mode("http://chroma.test").send(call, original=original).text == "ok"


@responses.activate
def test_an_error_of_responses_is_the_very_object() -> None:
    for error in (requests.ConnectionError("down"), ConnectionResetError("reset"), RuntimeError("odd")):
        responses.upsert(responses.POST, f"{URL}/query", body=error)
        call, original = ready()
        with pytest.raises(type(error)) as caught:
            in_session_mode().send(call, original=original)
        assert caught.value is error
        assert may_have_been_sent(error)


@responses.activate
def test_a_call_that_responses_does_not_know_shows_no_token() -> None:
    call, original = ready()
    with pytest.raises(requests.ConnectionError, match="doesn't match any registered mock") as caught:
        in_session_mode().send(call, original=original)
    assert caught.value.request is not None
    assert "X-Internal-Token" not in caught.value.request.headers


@responses.activate
def test_responses_redirects_on_the_own_origin_only() -> None:
    responses.get(f"{URL}/query", status=302, headers={"Location": "/there"})
    responses.get("http://chroma.test:6003/there", status=302, headers={"Location": "http://evil.test/"})
    call, original = ready("GET")
    response = in_session_mode().send(call, original=original)
    assert (response.url, [hop.url for hop in response.history]) == ("http://chroma.test:6003/there", [f"{URL}/query"])


def test_requests_mock() -> None:
    call, original = ready(data="text", params={"q": "x"})
    with requests_mock.Mocker() as mocker:
        mocker.post(f"{URL}/query", json={"found": 2}, status_code=503)
        response = in_session_mode().send(call, original=original)
    assert (response.status_code, response.json()) == (503, {"found": 2})
    assert mocker.last_request.qs == {"q": ["x"]}
    assert mocker.last_request.text == "text"
    assert mocker.last_request.headers["X-Internal-Token"] == TOKEN
    assert "X-Internal-Token" not in response.request.headers


def test_an_error_of_requests_mock_is_the_very_object() -> None:
    call, original = ready()
    error = requests.ConnectTimeout("slow")
    with requests_mock.Mocker() as mocker:
        mocker.post(f"{URL}/query", exc=error)
        with pytest.raises(requests.ConnectTimeout) as caught:
            in_session_mode().send(call, original=original)
    assert caught.value is error


def test_the_cap_holds_for_test_libraries_too() -> None:
    call, original = ready()
    with requests_mock.Mocker() as mocker:
        mocker.post(f"{URL}/query", content=bytes(200))
        with pytest.raises(ResponseTooLarge):
            in_session_mode(max_response_bytes=100).send(call, original=original)


def test_without_a_patch_it_goes_over_the_wire_with_deadline_and_kept_connections() -> None:
    def slow_third(request: object) -> bytes:
        if len(server.seen) == 3:
            server._ended.wait(5)
        return answer()

    with Loopback(always(slow_third)) as server:
        transport = in_session_mode(server.url)
        for _ in range(2):
            response = transport.send(call_to(transport))
            assert "X-Internal-Token" not in response.request.headers
        started = time.monotonic()
        with pytest.raises(requests.ReadTimeout):
            transport.send(call_to(transport, timeout=0.1))
        assert time.monotonic() - started < 0.4
        transport.close()
    assert server.connections == 1
    assert server.seen[0].headers["user-agent"].startswith("seawall/")


def test_cookies_of_one_call_are_not_sent_with_the_next() -> None:
    with Loopback(always(answer(headers="Set-Cookie: session=s1; Path=/\r\n"))) as server:
        transport = in_session_mode(server.url)
        assert transport.send(call_to(transport)).cookies["session"] == "s1"
        transport.send(call_to(transport))
        transport.close()
    assert "cookie" not in server.seen[1].headers
