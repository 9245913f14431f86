"""What a service can do wrong, and what the caller hears of it."""

from __future__ import annotations

import gzip
import os
import threading
import tracemalloc
import zlib

import pytest
import requests
from requests.exceptions import ChunkedEncodingError, ContentDecodingError

from seawall.actors.failures import may_have_been_sent
from seawall.actors.token import TokenSource
from seawall.errors import ResponseTooLarge
from tests.support.loopback import Loopback, Peer, always, answer, call_to, once, transport_to

TOKEN = "tok-3f1c"

NO_ANSWER = {
    "early close": b"",
    "garbage": b"\x00\x01garbage\xff\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "half a status line": b"HTTP/1.1 2",
    "a status of letters": b"HTTP/1.1 abc OK\r\n\r\n",
    "a status out of range": b"HTTP/1.1 1000 OK\r\n\r\n",
    "an endless header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    "too many headers": b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 200 + b"\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
}

BROKEN_BODY = {
    "a body that ends early": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    "no chunk at all": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a chunk size of letters": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n",
    "a chunk that ends early": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc",
    "no last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    "an endless chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 70_000,
}


@pytest.mark.parametrize("data", NO_ANSWER.values(), ids=NO_ANSWER.keys())
def test_what_is_no_answer_is_a_connection_error(data: bytes) -> None:
    with Loopback(once(data)) as server:
        transport = transport_to(server.url, token=TokenSource(value=TOKEN))
        with pytest.raises(requests.ConnectionError) as caught:
            transport.send(call_to(transport, "POST", "/query?secret=1"))
        transport.close()
    assert type(caught.value) is requests.ConnectionError
    assert may_have_been_sent(caught.value)
    shown = f"{caught.value!r} {caught.value} {caught.value.request.headers} {caught.value.__cause__}"
    assert TOKEN not in shown
    assert "secret=1" not in shown


@pytest.mark.parametrize("data", BROKEN_BODY.values(), ids=BROKEN_BODY.keys())
def test_a_broken_body_is_requests_own_error(data: bytes) -> None:
    with Loopback(once(data)) as server:
        transport = transport_to(server.url)
        with pytest.raises(ChunkedEncodingError) as caught:
            transport.send(call_to(transport))
        transport.close()
    assert may_have_been_sent(caught.value)


def test_a_body_that_cannot_be_decoded() -> None:
    with Loopback(once(answer(b"not gzip", headers="Content-Encoding: gzip\r\n"))) as server:
        transport = transport_to(server.url)
        with pytest.raises(ContentDecodingError):
            transport.send(call_to(transport))
        transport.close()


def test_a_compressed_body_is_decoded() -> None:
    packed = gzip.compress(b"hello" * 100)
    with Loopback(once(answer(packed, headers="Content-Encoding: gzip\r\n"))) as server:
        transport = transport_to(server.url)
        assert transport.send(call_to(transport)).content == b"hello" * 100
        transport.close()


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    megabyte = bytes(1024 * 1024)
    return b"".join([*(packer.compress(megabyte) for _ in range(size)), packer.flush()])


def test_a_gzip_bomb_costs_no_more_than_the_cap() -> None:
    cap = 1024 * 1024
    with Loopback(always(answer(bomb(64), headers="Content-Encoding: gzip\r\n"))) as server:
        transport = transport_to(server.url, max_response_bytes=cap)
        tracemalloc.start()
        try:
            with pytest.raises(ResponseTooLarge, match="cap of 1048576 bytes") as caught:
                transport.send(call_to(transport))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            transport.close()
    assert peak < 4 * cap
    assert caught.value.service == "Chroma Server"
    assert may_have_been_sent(caught.value)


def test_a_body_of_exactly_the_cap_passes_and_one_byte_more_does_not() -> None:
    with Loopback(always(lambda seen: answer(bytes(int(seen.target[1:]))))) as server:
        transport = transport_to(server.url, max_response_bytes=1000)
        assert len(transport.send(call_to(transport, target="/1000")).content) == 1000
        with pytest.raises(ResponseTooLarge):
            transport.send(call_to(transport, target="/1001"))
        transport.close()


def test_a_body_that_announces_too_much_is_not_waited_for() -> None:
    def announces(peer: Peer) -> None:
        peer.read()
        peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nx")
        peer.ended.wait(5)

    with Loopback(announces) as server:
        transport = transport_to(server.url, max_response_bytes=1000)
        with pytest.raises(ResponseTooLarge):
            transport.send(call_to(transport, timeout=1.0))
        transport.close()


def test_an_endless_body_ends_at_the_cap() -> None:
    def endless(peer: Peer) -> None:
        peer.read()
        peer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                peer.sock.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        except OSError:
            return

    with Loopback(endless) as server:
        transport = transport_to(server.url, max_response_bytes=100_000)
        with pytest.raises(ResponseTooLarge):
            transport.send(call_to(transport))
        transport.close()


class StaleKeepAlive:
    """Answers the first request of its first connection, and closes it when the second one has arrived."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def __call__(self, peer: Peer) -> None:
        if peer.number > 1:
            return always(answer(b"anew"))(peer)
        peer.read()
        peer.write(answer(b"first"))
        peer.read()
        peer.sock.close()
        self.closed.set()
        return None


@pytest.mark.parametrize(("method", "resend"), [("GET", False), ("DELETE", False), ("POST", True)])
def test_a_kept_connection_that_died_is_replaced_in_silence(method: str, resend: bool) -> None:
    with Loopback(StaleKeepAlive()) as server:
        transport = transport_to(server.url)
        assert transport.send(call_to(transport)).content == b"first"
        assert transport.send(call_to(transport, method, resend=resend, body=b"x")).content == b"anew"
        transport.close()
    assert server.connections == 2


def test_the_replacement_of_a_dead_connection_is_not_another_dead_one() -> None:
    both = threading.Barrier(2)

    def dies_after_one(peer: Peer) -> None:
        if peer.number > 2:
            return always(answer(b"anew"))(peer)
        peer.read()
        both.wait(5)
        peer.write(answer())
        peer.read()
        return None

    with Loopback(dies_after_one) as server:
        transport = transport_to(server.url)
        pair = [threading.Thread(target=transport.send, args=(call_to(transport),)) for _ in range(2)]
        for thread in pair:
            thread.start()
        for thread in pair:
            thread.join(5)
        assert transport.send(call_to(transport)).content == b"anew"
        transport.close()
    assert server.connections == 3


def test_a_kept_connection_that_the_service_closed_is_not_even_tried() -> None:
    with Loopback(once(answer())) as server:
        transport = transport_to(server.url)
        transport.send(call_to(transport))
        server._threads[0].join(5)
        transport.send(call_to(transport, "POST", resend=False))
        transport.close()
    assert [seen.connection for seen in server.seen] == [1, 2]


def test_a_new_connection_that_dies_is_not_replaced() -> None:
    with Loopback(once(b"")) as server:
        transport = transport_to(server.url)
        with pytest.raises(requests.ConnectionError):
            transport.send(call_to(transport))
        transport.close()
    assert server.connections == 1


def test_a_kept_connection_that_dies_in_the_middle_of_an_answer_is_not_replaced() -> None:
    def half(peer: Peer) -> None:
        peer.read()
        peer.write(answer())
        peer.read()
        peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")

    with Loopback(half) as server:
        transport = transport_to(server.url)
        transport.send(call_to(transport))
        with pytest.raises(ChunkedEncodingError):
            transport.send(call_to(transport))
        transport.close()
    assert server.connections == 1


def test_connections_and_descriptors_are_given_back() -> None:
    """After failures of every kind the process has as many descriptors as before."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("counts descriptors in /proc")
    with Loopback(
        lambda peer: once(NO_ANSWER["garbage"] if peer.number % 2 else BROKEN_BODY["no last chunk"])(peer)
    ) as server:
        before = len(os.listdir("/proc/self/fd"))
        transport = transport_to(server.url)
        for _ in range(10):
            with pytest.raises(requests.RequestException):
                transport.send(call_to(transport))
        transport.close()
        for thread in server._threads:
            thread.join(5)
        assert len(os.listdir("/proc/self/fd")) <= before
