"""Redirects stay with the service: no body and no token ever goes to another origin."""

from __future__ import annotations

import logging
import threading

import pytest
import requests

from seawall.actors.redirects import follow_up, public_url
from seawall.actors.token import TokenSource
from tests.support.loopback import Loopback, Seen, always, answer, call_to, transport_to

TOKEN = "tok-3f1c"


def redirect(location: str, status: int = 302, more: str = "") -> bytes:
    return answer(b"elsewhere", status=f"{status} Moved", headers=f"Location: {location}\r\n{more}")


def redirecting(location: str, status: int = 302, more: str = "") -> Loopback:
    """Redirects everything but /there, which says how it was asked."""

    def respond(request: Seen) -> bytes:
        if request.target.startswith("/there"):
            return answer(f"{request.method} {request.body.decode()}".encode())
        return redirect(location, status, more)

    return Loopback(always(respond))


@pytest.mark.parametrize(
    ("method", "status", "arrives"),
    [
        ("GET", 301, "GET "),
        ("POST", 301, "GET "),
        ("PUT", 301, "PUT "),
        ("POST", 302, "GET "),
        ("PUT", 303, "GET "),
        ("POST", 307, "POST data"),
        ("PATCH", 308, "PATCH data"),
    ],
)
def test_on_the_own_origin_it_is_followed_as_requests_does(method: str, status: int, arrives: str) -> None:
    with redirecting("/there?x=1", status) as server:
        transport = transport_to(server.url, token=TokenSource(value=TOKEN))
        body = None if method == "GET" else b"data"
        headers = (("Content-Type", "text/plain"), ("X-Mine", "1"))
        response = transport.send(call_to(transport, method, "/here", headers=headers, body=body))
        transport.close()

    assert response.text == arrives
    assert response.url == f"{server.url}/there?x=1"
    assert [(hop.status_code, hop.url, hop.content) for hop in response.history] == [
        (status, f"{server.url}/here", b"elsewhere")
    ]
    last = server.seen[-1]
    assert last.headers["x-internal-token"] == TOKEN
    assert last.headers["x-mine"] == "1"
    assert ("content-type" in last.headers) == (arrives.endswith("data"))
    assert "transfer-encoding" not in last.headers
    assert all("X-Internal-Token" not in hop.request.headers for hop in (response, *response.history))
    assert server.connections == 1


def test_an_absolute_address_of_the_own_origin_is_followed() -> None:
    server = redirecting("")
    with server:
        server._handle = always(
            lambda seen: answer(b"there") if seen.target == "/there" else redirect(f"{server.url}/there#part")
        )
        transport = transport_to(server.url)
        response = transport.send(call_to(transport))
        transport.close()
    assert (response.content, response.url) == (b"there", f"{server.url}/there")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_another_origin_sees_nothing(status: int, caplog: pytest.LogCaptureFixture) -> None:
    with Loopback(always(answer())) as sink, redirecting(f"{sink.url}/take?it=all", status) as server:
        transport = transport_to(server.url, token=TokenSource(value=TOKEN))
        with caplog.at_level(logging.WARNING, "seawall.chroma"):
            response = transport.send(call_to(transport, "POST", "/here?q=1", body=b"secret"))
        transport.close()

    assert sink.connections == 0
    assert (response.status_code, response.content, response.history) == (status, b"elsewhere", [])
    assert response.headers["location"] == f"{sink.url}/take?it=all"
    assert caplog.messages == [
        f"[Chroma Server] POST /here answered {status} with a redirect to another origin, {sink.url}/take: not followed"
    ]


@pytest.mark.parametrize(
    "location",
    [
        "//127.0.0.2:{port}/x",
        "http://localhost:{port}/x",
        "https://127.0.0.1:{port}/x",
        "http://127.0.0.1/x",
        "http://127.0.0.1:{port}@localhost/x",
        "http://127.0.0.1:{port}\\@localhost/x",
        "ftp://127.0.0.1:{port}/x",
        "http://[bad/x",
        "javascript:alert(1)",
        "http://\xe9:{port}/x",
    ],
)
def test_addresses_that_only_look_like_the_own_origin(location: str) -> None:
    server = redirecting("")
    with server:
        server._handle = always(redirect(location.format(port=server.port)).decode().encode("latin-1"))
        transport = transport_to(server.url)
        response = transport.send(call_to(transport))
        transport.close()
    assert (response.status_code, len(server.seen)) == (302, 1)


def test_credentials_in_a_location_are_not_used() -> None:
    server = redirecting("")
    with server:
        own = server.url.replace("//", "//ann:pw@")
        server._handle = always(lambda seen: answer() if seen.target == "/there" else redirect(f"{own}/there"))
        transport = transport_to(server.url)
        response = transport.send(call_to(transport))
        transport.close()
    assert response.url == f"{server.url}/there"
    assert "authorization" not in server.seen[-1].headers


def test_a_call_that_does_not_want_redirects_gets_the_answer_itself() -> None:
    with redirecting("/there") as server:
        transport = transport_to(server.url)
        response = transport.send(call_to(transport, redirects=False))
        transport.close()
    assert (response.status_code, len(server.seen)) == (302, 1)


def test_the_eleventh_redirect_is_one_too_many() -> None:
    with Loopback(always(lambda seen: redirect(f"/{int(seen.target[1:]) + 1}"))) as server:
        transport = transport_to(server.url)
        with pytest.raises(requests.TooManyRedirects) as caught:
            transport.send(call_to(transport, target="/0"))
        transport.close()
    assert len(server.seen) == 11
    assert caught.value.response is not None
    assert len(caught.value.response.history) == 10


def test_a_cookie_set_on_the_way_goes_along_and_is_forgotten_afterwards() -> None:
    with redirecting("/there", more="Set-Cookie: session=s1; Path=/\r\n") as server:
        transport = transport_to(server.url, allow_headers=frozenset({"Cookie"}))
        transport.send(call_to(transport, headers=(("Cookie", "mine=1"),)))
        transport.send(call_to(transport, target="/there"))
        transport.close()
    assert [seen.headers.get("cookie") for seen in server.seen] == ["mine=1", "mine=1; session=s1", None]


def test_all_hops_share_one_deadline() -> None:
    def crawl(request: Seen) -> bytes:
        waiting.wait(0.08)
        return redirect("/on")

    waiting = threading.Event()
    with Loopback(always(crawl)) as server:
        transport = transport_to(server.url)
        with pytest.raises(requests.ReadTimeout):
            transport.send(call_to(transport, timeout=0.2))
        transport.close()
    assert 2 <= len(server.seen) <= 3


@pytest.mark.parametrize(
    ("origin", "location", "goes_to"),
    [
        ("http://chroma:80", "https://chroma/x", "https://chroma/x"),
        ("http://chroma:80", "https://CHROMA:443/x", "https://chroma/x"),
        ("http://chroma:80", "https://chroma:8443/x", None),
        ("http://chroma:6003", "https://chroma/x", None),
        ("https://chroma:443", "http://chroma/x", None),
        ("https://chroma:443", "/x", "https://chroma/x"),
        ("http://[::1]:80", "https://[::1]/x", "https://[::1]/x"),
    ],
)
def test_the_https_twin_is_allowed_and_the_way_back_is_not(origin: str, location: str, goes_to: str | None) -> None:
    request = requests.Request("GET", f"{public_url(origin)}/query").prepare()
    response = requests.Response()
    response.status_code = 301
    response.headers["location"] = location
    following = follow_up(request, response)
    assert (following.url if following else None) == goes_to
