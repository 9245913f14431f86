"""An attempt ends when its time is over, whatever the service does meanwhile."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from seawall.actors import dial
from seawall.actors.failures import may_have_been_sent
from tests.support.drip import drip_of_body, drip_of_chunks, drip_of_headers, silence
from tests.support.loopback import Loopback, Peer, always, answer, call_to, transport_to

#: Seconds that the attempts below may take, and the seconds after which they must have ended.
LIMIT, LATEST = 0.15, 0.45


@pytest.fixture(scope="module", autouse=True)
def _first_attempt_is_over() -> None:
    """What a process pays once, for its name and for the certificates it trusts, is no part of the times below."""
    with Loopback(lambda peer: None) as server:
        transport = transport_to(server.url.replace("http:", "https:"))
        with pytest.raises(requests.RequestException):
            transport.send(call_to(transport))
        transport.close()


def torrent_of_headers(peer: Peer) -> None:
    """Faster than any wait that is cut short: the next byte is always there already."""
    peer.read()
    peer.write(b"HTTP/1.1 200 OK\r\n")
    peer.drip(b"X-Drop: 1\r\n" * 5000, every=0)


def torrent_of_body(peer: Peer) -> None:
    peer.read()
    peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n")
    peer.drip(b"x" * 100, every=0)


def torrent_of_chunks(peer: Peer) -> None:
    """More than can be taken apart in the time, and so in the system's buffer when it is over."""
    peer.read()
    peer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    with contextlib.suppress(OSError):
        while not peer.ended.is_set():
            peer.sock.sendall(b"1\r\nx\r\n" * 10_000)


def body_without_length(peer: Peer) -> None:
    """Its end is the connection's end, so that cutting it must not look like a complete answer."""
    peer.read()
    peer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nsome")
    peer.ended.wait()


def endless_continue(peer: Peer) -> None:
    peer.read()
    peer.drip(b"HTTP/1.1 100 Continue\r\n\r\n", every=0.001)


def reads_nothing(peer: Peer) -> None:
    peer.ended.wait()


@pytest.mark.parametrize(
    "behaviour",
    [
        silence,
        drip_of_headers,
        drip_of_body,
        drip_of_chunks,
        torrent_of_headers,
        torrent_of_body,
        torrent_of_chunks,
        body_without_length,
        endless_continue,
    ],
    ids=lambda behaviour: behaviour.__name__,
)
def test_the_whole_attempt_is_bounded(behaviour: Callable[[Peer], None]) -> None:
    with Loopback(behaviour) as server:
        transport = transport_to(server.url)
        started = time.monotonic()
        with pytest.raises(requests.ReadTimeout, match=r"GET .*/query: no complete answer within 0.15 s") as caught:
            transport.send(call_to(transport, target="/query?secret=1", timeout=LIMIT))
        took = time.monotonic() - started
        transport.close()
    assert LIMIT - 0.01 <= took < LATEST
    assert may_have_been_sent(caught.value)


def test_a_body_that_the_service_does_not_read() -> None:
    with Loopback(reads_nothing) as server:
        transport = transport_to(server.url)
        started = time.monotonic()
        with pytest.raises(requests.ReadTimeout):
            transport.send(call_to(transport, "PUT", body=b"x" * 20_000_000, timeout=LIMIT))
        assert time.monotonic() - started < LATEST
        transport.close()


def test_the_deadline_holds_on_a_kept_connection_and_only_for_its_own_call() -> None:
    """A connection that one call gave back must not be cut by that call's deadline while another uses it."""
    release = threading.Event()

    def slow_second(peer: Peer) -> None:
        peer.read()
        peer.write(answer(b"first"))
        peer.read()
        release.wait(5)
        peer.write(answer(b"second"))

    with Loopback(slow_second) as server:
        transport = transport_to(server.url)
        assert transport.send(call_to(transport, timeout=LIMIT)).content == b"first"
        threading.Timer(LIMIT + 0.1, release.set).start()
        assert transport.send(call_to(transport, timeout=5.0)).content == b"second"
        transport.close()
    assert server.connections == 1


@pytest.mark.parametrize("behaviour", [drip_of_headers, drip_of_body])
def test_the_deadline_holds_on_a_kept_connection(behaviour: Callable[[Peer], None]) -> None:
    def good_then_bad(peer: Peer) -> None:
        peer.read()
        peer.write(answer())
        behaviour(peer)

    with Loopback(good_then_bad) as server:
        transport = transport_to(server.url)
        transport.send(call_to(transport))
        started = time.monotonic()
        with pytest.raises(requests.ReadTimeout):
            transport.send(call_to(transport, timeout=LIMIT))
        assert time.monotonic() - started < LATEST
        transport.close()
    assert server.connections == 1


def test_a_large_body_has_the_whole_time_and_not_only_the_time_to_connect() -> None:
    def reads_late(peer: Peer) -> None:
        peer.ended.wait(0.3)
        always(answer())(peer)

    with Loopback(reads_late) as server:
        transport = transport_to(server.url)
        call = call_to(transport, "PUT", body=bytes(8_000_000), connect_timeout=0.1, timeout=5.0)
        assert transport.send(call).content == b"ok"
        transport.close()
    assert len(server.seen[0].body) == 8_000_000


def test_a_proxy_that_does_not_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer to CONNECT drips in: the connection is not made in time, and nothing of the call was sent."""
    with Loopback(drip_of_headers) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        transport = transport_to("https://chroma.test", trust_env=True)
        started = time.monotonic()
        with pytest.raises(requests.ConnectTimeout) as caught:
            transport.send(call_to(transport, connect_timeout=LIMIT, timeout=5.0))
        assert time.monotonic() - started < LATEST
        transport.close()
    assert proxy.seen[0].method == "CONNECT"
    assert not may_have_been_sent(caught.value)


def test_a_connection_cut_by_its_deadline_is_not_used_again() -> None:
    def silent_once(peer: Peer) -> None:
        if peer.number == 1:
            silence(peer)
        always(answer())(peer)

    with Loopback(silent_once) as server:
        transport = transport_to(server.url)
        with pytest.raises(requests.ReadTimeout):
            transport.send(call_to(transport, timeout=0.1))
        assert transport.send(call_to(transport)).content == b"ok"
        transport.close()


def test_one_watcher_thread_serves_many_calls() -> None:
    with Loopback(silence) as server:
        transport = transport_to(server.url, concurrency=12)
        outcomes: list[str] = []

        def attempt(seconds: float) -> None:
            try:
                transport.send(call_to(transport, timeout=seconds))
            except requests.ReadTimeout:
                outcomes.append("timeout")

        threads = [threading.Thread(target=attempt, args=(0.1 + number / 100,)) for number in range(12)]
        for thread in threads:
            thread.start()
        watchers = [thread for thread in threading.enumerate() if thread.name == "seawall-deadlines"]
        for thread in threads:
            thread.join(5)
        transport.close()
    assert outcomes == ["timeout"] * 12
    assert len(watchers) == 1


@pytest.fixture
def swallowing() -> Iterator[int]:
    """A port that takes no further connection and says nothing: its backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_connecting_has_a_time_of_its_own(swallowing: int) -> None:
    transport = transport_to(f"http://127.0.0.1:{swallowing}")
    started = time.monotonic()
    with pytest.raises(requests.ConnectTimeout, match="no connection in time") as caught:
        transport.send(call_to(transport, connect_timeout=LIMIT, timeout=5.0))
    assert time.monotonic() - started < LATEST
    assert not may_have_been_sent(caught.value)


def test_an_address_that_swallows_everything_does_not_hide_a_good_one(
    swallowing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two_addresses(host: str, port: int, *rest: int) -> object:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", each)) for each in (swallowing, port)]

    with Loopback(always(answer())) as server:
        monkeypatch.setattr(dial.socket, "getaddrinfo", two_addresses)
        transport = transport_to(f"http://chroma.test:{server.port}")
        assert transport.send(call_to(transport, connect_timeout=0.3, timeout=0.3)).content == b"ok"
        transport.close()


def test_a_name_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking up a name cannot be interrupted; the call ends all the same, and a second one shares the look-up."""
    asked: list[str] = []
    answered = threading.Event()
    real = socket.getaddrinfo

    def slow(host: str, port: int, *rest: int) -> object:
        if rest[-1]:
            return real(host, port, *rest)
        asked.append(host)
        answered.wait(5)
        return real("127.0.0.1", port)

    monkeypatch.setattr(dial.socket, "getaddrinfo", slow)
    transport = transport_to("http://chroma.example:9")
    started = time.monotonic()
    for _ in range(2):
        with pytest.raises(requests.ConnectTimeout):
            transport.send(call_to(transport, timeout=0.1))
    assert time.monotonic() - started < LATEST
    assert asked == ["chroma.example"]
    lookup = threading.enumerate()
    answered.set()
    for thread in lookup:
        if thread.name == "seawall-resolver":
            thread.join(5)


def test_a_name_that_does_not_exist() -> None:
    transport = transport_to("http://no-such-host.invalid")
    with pytest.raises(requests.ConnectionError) as caught:
        transport.send(call_to(transport))
    assert isinstance(caught.value.__cause__, socket.gaierror)
    assert not may_have_been_sent(caught.value)


@pytest.mark.parametrize("host", ["a" * 70 + ".example", "a..example"])
def test_a_name_that_cannot_exist(host: str) -> None:
    transport = transport_to(f"http://{host}")
    with pytest.raises(requests.RequestException):
        transport.send(call_to(transport))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key in the same file."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    folder = tmp_path_factory.mktemp("tls")
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run(["openssl", "req", *kind, *names, *files], check=True, capture_output=True, timeout=20)
    with (folder / "both.pem").open("wb") as both:
        both.write((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return folder / "both.pem"


def over_tls(certificate: Path, handle: Callable[[Peer], None]) -> Loopback:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return Loopback(handle, wrap=lambda sock: context.wrap_socket(sock, server_side=True))


def test_tls_with_a_certificate_that_nobody_vouches_for(certificate: Path) -> None:
    with over_tls(certificate, always(answer())) as server:
        transport = transport_to(server.url.replace("http:", "https:"))
        with pytest.raises(requests.exceptions.SSLError, match="certificate verify failed") as caught:
            transport.send(call_to(transport))
        transport.close()
    assert not may_have_been_sent(caught.value)
    assert server.seen == []


def test_tls_with_a_certificate_of_ones_own(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with over_tls(certificate, always(answer())) as server:
        transport = transport_to(server.url.replace("http:", "https:"), trust_env=True)
        assert [transport.send(call_to(transport)).content for _ in range(2)] == [b"ok", b"ok"]
        transport.close()
    assert server.connections == 1


@pytest.mark.parametrize("behaviour", [silence, drip_of_headers, drip_of_body, body_without_length])
def test_the_deadline_reaches_into_tls(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, behaviour: Callable[[Peer], None]
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with over_tls(certificate, behaviour) as server:
        transport = transport_to(server.url.replace("http:", "https:"), trust_env=True)
        started = time.monotonic()
        with pytest.raises(requests.ReadTimeout):
            transport.send(call_to(transport, timeout=LIMIT))
        assert time.monotonic() - started < LATEST
        transport.close()


@pytest.mark.parametrize("behaviour", ["silence", "drip"])
def test_a_handshake_that_does_not_end_is_a_connection_that_was_not_made(behaviour: str) -> None:
    def handshake(peer: Peer) -> None:
        if behaviour == "drip":
            # The beginning of a long TLS record, a byte at a time.
            peer.write(b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb")
            peer.drip(b"\x00")
        peer.ended.wait()

    with Loopback(handshake) as server:
        transport = transport_to(server.url.replace("http:", "https:"))
        started = time.monotonic()
        with pytest.raises(requests.ConnectTimeout) as caught:
            transport.send(call_to(transport, connect_timeout=LIMIT, timeout=5.0))
        assert time.monotonic() - started < LATEST
        transport.close()
    assert not may_have_been_sent(caught.value)
