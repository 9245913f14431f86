"""Answers of all forms that HTTP/1.1 allows, on a connection that is kept."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import pytest
import requests

from tests.support.loopback import Loopback, Peer, always, answer, call_to, transport_to

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n"
OK_IN_CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
ZIPPED = gzip.compress(b"zipped " * 100)


def zipped() -> bytes:
    return answer(ZIPPED, headers="Content-Encoding: gzip\r\n")


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (answer(b"plain"), b"plain"),
        (answer(b""), b""),
        (answer(b"x" * 300_000), b"x" * 300_000),
        (CHUNKED, b"abcdefg"),
        (zipped(), b"zipped " * 100),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"after 100"), b"after 100"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer(b"after 103"), b"after 103"),
        (b"HTTP/1.1 200 OK\r\nX: folded\r\n line\r\nContent-Length: 4\r\n\r\nfold", b"fold"),
    ],
    ids=["plain", "empty", "large", "chunked", "zipped", "no content", "continue", "early hints", "folded"],
)
def test_is_read_whole_and_its_connection_kept(data: bytes, body: bytes) -> None:
    with Loopback(always(data)) as server:
        transport = transport_to(server.url)
        assert [transport.send(call_to(transport)).content for _ in range(3)] == [body] * 3
        transport.close()
    assert server.connections == 1


@pytest.mark.parametrize("data", [answer(b"slow"), CHUNKED], ids=["plain", "chunked"])
def test_in_the_smallest_pieces(data: bytes) -> None:
    def dribble(peer: Peer) -> None:
        while peer.read() is not None:
            for number in range(len(data)):
                peer.write(data[number : number + 1])

    with Loopback(dribble) as server:
        transport = transport_to(server.url)
        assert [len(transport.send(call_to(transport)).content) for _ in range(2)] == [4 if b"slow" in data else 7] * 2
        transport.close()
    assert server.connections == 1


@pytest.mark.parametrize(
    "data",
    [
        answer(b"ok") + b"more than announced",
        OK_IN_CHUNKS + b"more than announced",
        OK_IN_CHUNKS + answer(b"forged") * 2000,
        answer(gzip.compress(b"ok"), headers="Content-Encoding: gzip\r\n") + answer(b"forged"),
        answer(b"ok", headers="Connection: close\r\n"),
        answer(b"ok", headers="Connection: close\r\nConnection: keep-alive\r\n"),
    ],
    ids=["more than announced", "after chunks", "far more", "after gzip", "it says so", "it says so and the contrary"],
)
def test_a_connection_that_cannot_be_trusted_is_not_used_again(data: bytes) -> None:
    with Loopback(always(data)) as server:
        transport = transport_to(server.url)
        assert [transport.send(call_to(transport)).content for _ in range(3)] == [b"ok"] * 3
        transport.close()
    assert server.connections == 3


def test_interim_answers_without_an_end_are_none() -> None:
    def flood(peer: Peer) -> None:
        peer.read()
        peer.write(b"HTTP/1.1 102 Processing\r\n\r\n" * 1000)

    with Loopback(flood) as server:
        transport = transport_to(server.url)
        with pytest.raises(requests.ConnectionError, match="interim answers"):
            transport.send(call_to(transport))
        transport.close()


def test_it_looks_like_an_answer_of_requests() -> None:
    headers = "Content-Type: application/json; charset=utf-8\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2; Path=/\r\nX-Twice: 1\r\nX-Twice: 2\r\n"
    with Loopback(always(answer(b'{"n": 1}', headers=headers))) as server:
        transport = transport_to(server.url)
        ours = transport.send(call_to(transport, target="/query?a=1"))
        theirs = requests.get(f"{server.url}/query?a=1", timeout=5)
        transport.close()
    for attribute in (
        "status_code",
        "reason",
        "url",
        "encoding",
        "headers",
        "content",
        "text",
        "ok",
        "history",
        "links",
    ):
        assert getattr(ours, attribute) == getattr(theirs, attribute), attribute
    assert ours.json() == theirs.json()
    assert ours.cookies.get_dict() == theirs.cookies.get_dict() == {"a": "1", "b": "2"}
    assert isinstance(ours, requests.Response)
    assert ours.elapsed.total_seconds() > 0
    assert (ours.request.method, ours.request.url) == (theirs.request.method, theirs.request.url)


def _error_of(send: Callable[[], object]) -> str:
    with pytest.raises(requests.ConnectionError) as caught:
        send()
    return str(caught.value)


def test_what_is_wrong_is_said_in_few_words() -> None:
    with Loopback(always(b"HTTP/1.1 abc\r\n\r\n")) as server:
        transport = transport_to(server.url)
        assert "does not start with a status line" in _error_of(lambda: transport.send(call_to(transport)))
        transport.close()
