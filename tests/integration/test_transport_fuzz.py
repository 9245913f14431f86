"""Broken answers of every kind: the outcome is a response or requests' own error, in time, and nothing is left behind."""

from __future__ import annotations

import gzip
import http.client
import io
import itertools
import os
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from urllib3 import HTTPHeaderDict, HTTPResponse

from seawall.actors.answer import headers_of
from seawall.actors.deadline import until
from seawall.actors.decoding import decode_in_time
from seawall.actors.transport import Transport
from seawall.errors import ResponseTooLarge
from tests.support.loopback import call_to, transport_to

#: Seconds that an attempt may take, and by which it may be late on a busy machine.
LIMIT, SLACK = 0.08, 0.5
#: Seconds for an attempt that is to have all the time it needs.
PATIENCE = 2.0
#: Decoded bytes that an answer may have.
CAP = 64 * 1024
METHODS = ("GET", "HEAD", "POST")

Pieces = list[bytes]


@dataclass
class Script:
    """What the service sends for a request: pieces, `pause` seconds apart, and then its end, or silence."""

    pieces: Pieces
    pause: float = 0.0
    hangs: bool = False

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)


class Scripted:
    """A service that does as its script says on each connection; one thread, a connection at a time."""

    def __init__(self) -> None:
        self.script = Script([])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, name="scripted-service", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with sock:
                sock.settimeout(5)
                try:
                    while self._read_request(sock):
                        script = self.script
                        for piece in script.pieces:
                            sock.sendall(piece)
                            if script.pause:
                                time.sleep(script.pause)
                        if not script.hangs:
                            break
                except OSError:
                    continue

    @staticmethod
    def _read_request(sock: socket.socket) -> bool:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = sock.recv(65536)
            if not piece:
                return False
            data += piece
        return True


@pytest.fixture(scope="module")
def service() -> Iterator[Scripted]:
    running = Scripted()
    yield running
    running.close()


def reference(data: bytes, method: str) -> tuple[int, dict[str, str], bytes] | None:
    """What http.client and urllib3 make of these bytes and the connection's end; None for an error."""

    class Wire:
        file = io.BufferedReader(io.BytesIO(data))  # type: ignore[arg-type]

        def makefile(self, mode: str) -> Any:
            return self.file

    try:
        for _ in range(16):
            parsed = http.client.HTTPResponse(Wire(), method=method)  # type: ignore[arg-type]
            parsed.begin()
            if parsed.status >= 200 or parsed.status == 101:
                break
            parsed.fp = None  # type: ignore[assignment]
        else:
            return None
        fields = HTTPHeaderDict(parsed.msg.items())
        response = HTTPResponse(
            body=parsed,
            headers=fields,
            status=parsed.status,
            version=parsed.version,
            preload_content=False,
            original_response=parsed,
            request_method=method,
        )
        decode_in_time(response, until(1))  # urllib3 decodes some streams for ever
        body = b"".join(response.stream(65536, decode_content=True))
    except Exception:
        return None
    return parsed.status, _stripped(headers_of(tuple(fields.iteritems()))), body


def _stripped(headers: Any) -> dict[str, str]:
    """By name; http.client keeps the blanks at a line's end, which mean nothing (RFC 9110, 5.5)."""
    return {name.lower(): ",".join(part.strip() for part in value.split(",")) for name, value in headers.items()}


# What a service may send


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


def _chunks(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


TOKENS = st.sampled_from(["X-A", "Set-Cookie", "Content-Type", "x", "Connection", "Trailer", "ETag", "Location"])
VALUES = st.one_of(
    st.sampled_from(
        [
            "",
            "close",
            "keep-alive",
            "Keep-Alive, x",
            "text/plain",
            "a=1; Path=/",
            " spaced ",
            "\xe9\xff",
            "\x0b\x0c\x85",
        ]
    ),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=12),
)
FIELDS = st.tuples(TOKENS, VALUES).map(lambda field: f"{field[0]}: {field[1]}\r\n".encode("latin-1"))
ODD_FIELDS = st.sampled_from(
    [
        b"X: folded\r\n line\r\n",
        b"X : space before\r\n",
        b": no name\r\n",
        b"no colon\r\n",
        b"X: bare newline\n",
        b"X: bare\rreturn\r\n",
        b"X: nul\x00\r\n",
        b"X: " + b"y" * 3000 + b"\r\n",
        b"X: 1\r\n" * 120,
        b"Content-Length: 5\r\n",
        b"Content-Length: 7\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: +3\r\n",
        b"Content-Length: 3, 3\r\n",
        b"Content-Length: 3, 4\r\n",
        b"Content-Length: " + b"9" * 5000 + b"\r\n",
        b"Content-Length: \xb2\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Content-Encoding: deflate\r\n",
        b"Content-Encoding: br, gzip, nonsense\r\n",
        b"Connection: close\r\n",
        b"Connection: close\r\nConnection: keep-alive\r\n",
        b"Upgrade: h2c\r\n",
    ]
)
STATUS_LINES = st.one_of(
    st.sampled_from([b"HTTP/1.1 200 OK\r\n"] * 6),
    st.integers(100, 999).map(lambda status: b"HTTP/1.1 %d Something\r\n" % status),
    st.sampled_from(
        [
            b"HTTP/1.0 200 OK\r\n",
            b"HTTP/1.1 200\r\n",
            b"HTTP/1.1 204 No Content\r\n",
            b"HTTP/1.1 304 Not Modified\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\n",
            b"HTTP/1.1 301 Moved\r\n",
            b"HTTP/1.1 503 \xff\xfe\r\n",
            b"HTTP/2 200 OK\r\n",
            b"HTTP/0.9 200 OK\r\n",
            b"HTTP/1.1  200 OK\r\n",
            b"HTTP/1.1 20 OK\r\n",
            b"HTTP/1.1 -200 OK\r\n",
            b"HTTP/1.1 \xb2\xb2\xb2 OK\r\n",
            b"http/1.1 200 OK\r\n",
            b"ICY 200 OK\r\n",
            b"HTTP/1.1 200 OK\n",
            b"\r\nHTTP/1.1 200 OK\r\n",
            b"<html>\r\n",
            b"",
        ]
    ),
)
INTERIMS = st.sampled_from(
    [b""] * 6
    + [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3,
        b"HTTP/1.1 102 Processing\r\n\r\n" * 40,
    ]
)
PLAIN_BODIES = st.one_of(st.binary(max_size=40), st.sampled_from([b"", b"x" * 5000, bytes(CAP), bytes(CAP + 1)]))


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Framing fields and a body, mostly fitting each other."""
    plain = draw(PLAIN_BODIES)
    kind = draw(st.sampled_from(["length", "length", "wrong length", "chunked", "end", "gzip", "gzip chunked", "bomb"]))
    event(kind)
    if kind == "length":
        return b"Content-Length: %d\r\n" % len(plain), plain
    if kind == "wrong length":
        return b"Content-Length: %d\r\n" % draw(st.integers(0, 60)), plain
    if kind == "chunked":
        return b"Transfer-Encoding: chunked\r\n", _chunks(plain, draw(st.integers(1, 9)) * 100)
    if kind == "end":
        return draw(st.sampled_from([b"", b"Connection: close\r\n"])), plain
    packed = _gzip(bytes(CAP * 8)) if kind == "bomb" else _gzip(plain)
    packed = draw(
        st.sampled_from([packed, packed, packed[:-3], packed[:11], b"not gzip", packed + b"more", packed * 2])
    )
    if kind == "gzip chunked":
        return b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", _chunks(packed, 700)
    return b"Content-Encoding: gzip\r\nContent-Length: %d\r\n" % len(packed), packed


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """An answer, or what was one before something happened to it."""
    framing, body = draw(bodies())
    fields = draw(st.lists(st.one_of(FIELDS, FIELDS, ODD_FIELDS), max_size=3))
    lines = draw(st.permutations([framing, *fields]))
    data = draw(INTERIMS) + draw(STATUS_LINES) + b"".join(lines) + b"\r\n" + body
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        data = draw(damages(data))
    return data


@st.composite
def damages(draw: st.DrawFn, data: bytes) -> bytes:
    at = draw(st.integers(0, min(len(data), 400)))
    match draw(st.sampled_from(["cut", "flip", "insert", "twice", "drop"])):
        case "cut":
            return data[:at]
        case "flip":
            return data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
        case "insert":
            return data[:at] + draw(st.sampled_from([b"\r\n", b"\n", b"\r", b"\0", b" ", b";", b"\xff"])) + data[at:]
        case "twice":
            return data + data
        case _:
            return data[:at] + data[at + draw(st.integers(1, 20)) :]


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    data = draw(answers())
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    edges = [0, *cuts, len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(edges) if end > start]
    hangs = draw(st.sampled_from([False] * 11 + [True]))
    if draw(st.integers(0, 30)) == 0:  # a slow drip: far more than there is time for
        event("drip")
        return Script([data[at : at + 1] for at in range(min(len(data), 60))], pause=0.01, hangs=True)
    return Script(pieces, hangs=hangs)


def attempt(
    transport: Transport, method: str, limit: float, slack: float = SLACK
) -> requests.Response | requests.RequestException:
    """One call's outcome. Anything that is neither fails the test."""
    began = time.monotonic()
    try:
        return transport.send(call_to(transport, method, timeout=limit, connect_timeout=limit, redirects=False))
    except requests.RequestException as error:
        return error
    finally:
        assert time.monotonic() - began < limit + slack


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


#: `FUZZ_EXAMPLES=5000 make test` looks longer.
FUZZ = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "200")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@FUZZ
@given(scripts(), st.sampled_from(METHODS), st.sampled_from([False, False, False, True]))
def test_whatever_comes_the_outcome_is_a_response_or_requests_own_error_in_time(
    service: Scripted, script: Script, method: str, session_mode: bool
) -> None:
    service.script = script
    before = _descriptors()
    transport = transport_to(service.url, max_response_bytes=CAP, session_mode=session_mode)
    try:
        outcome = attempt(transport, method, LIMIT)
    finally:
        transport.close()
    event(type(outcome).__name__)
    if isinstance(outcome, requests.Response):
        assert len(outcome.content) <= CAP
    assert len([thread for thread in threading.enumerate() if thread.name == "seawall-deadlines"]) <= 1
    assert _descriptors() <= before + 2, "the other side's end, and that of the connection after it"


@FUZZ
@given(answers(), st.sampled_from(METHODS))
@example(b"HTTP/1.1 200 OK\r\nConnection: close\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", "GET")
@example(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nok", "GET")
def test_an_answer_means_what_http_client_and_urllib3_say(service: Scripted, data: bytes, method: str) -> None:
    """Never accepted where they refuse, and never with another status, header or body."""
    service.script = Script([data])
    transport = transport_to(service.url, max_response_bytes=CAP)
    try:
        ours = attempt(transport, method, PATIENCE)
    finally:
        transport.close()
    theirs = reference(data, method)
    if isinstance(ours, requests.Response):
        assert theirs is not None
        assert (ours.status_code, _stripped(ours.headers), ours.content) == theirs
    elif not isinstance(ours, ResponseTooLarge):
        assert theirs is None, f"{ours!r}, but it can be read"
    else:
        assert theirs is None or len(theirs[2]) > CAP or _announces_too_much(data)


def _announces_too_much(data: bytes) -> bool:
    """An answer that says it is too large is not read to its end, which may never come."""
    return any(line.lower().startswith(b"content-length") for line in data.split(b"\n"))


@FUZZ
@given(answers(), st.sampled_from(METHODS))
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + bytes(65536 + 2), "GET")
@example((b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + bytes(65536)) * 2, "GET")
def test_the_call_after_it_gets_its_own_answer(service: Scripted, data: bytes, method: str) -> None:
    """What came behind an answer is not taken for the next one."""
    own = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Own: 1\r\n\r\nmine"
    transport = transport_to(service.url, max_response_bytes=CAP)
    try:
        service.script = Script([data], hangs=True)
        attempt(transport, method, LIMIT)
        service.script = Script([own])
        outcome = attempt(transport, "GET", PATIENCE)
        assert isinstance(outcome, requests.Response)
        assert (outcome.status_code, outcome.headers.get("X-Own"), outcome.content) == (200, "1", b"mine")
    finally:
        transport.close()


# Compressed bodies that urllib3 alone does not come to an end with

#: What decodes to nothing and ends where a decoder is at its limit, twice. The inner encoding ignores all but its empty beginning.
NOTHING = _gzip(b"") + bytes(64 * 1024 - len(_gzip(b"")))
ENDLESS = {
    "members that end at a limit": (b"gzip", _gzip(bytes(64 * 1024)) * 2, bytes(128 * 1024)),
    "members that come to nothing": (b"gzip, gzip", _gzip(NOTHING) * 2, b""),
}


@pytest.mark.parametrize("way", ["straight", "session", "proxy"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
@pytest.mark.parametrize(("encoding", "packed", "body"), ENDLESS.values(), ids=ENDLESS.keys())
def test_decoding_comes_to_an_end(
    service: Scripted,
    encoding: bytes,
    packed: bytes,
    body: bytes,
    chunked: bool,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(packed)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\n%s\r\n\r\n" % (encoding, framing)
    service.script = Script([head + (_chunks(packed, 100) if chunked else packed)])
    if way == "proxy":
        monkeypatch.setenv("http_proxy", service.url)
    url = "http://chroma.test" if way == "proxy" else service.url
    transport = transport_to(url, session_mode=way == "session", trust_env=way == "proxy")
    try:
        outcome = attempt(transport, "GET", PATIENCE)
    finally:
        transport.close()
    assert isinstance(outcome, requests.Response)
    assert outcome.content == body


# Floods: more than anybody should keep

MEGABYTE = 1024 * 1024
#: Seconds of lateness where every allocation is counted, which takes many times as long.
COUNTED = 3.0


def _flood(head: bytes, unit: bytes) -> Callable[[socket.socket], None]:
    block = unit * max(1, 65536 // len(unit))

    def send(sock: socket.socket) -> None:
        sock.sendall(head)
        while True:
            sock.sendall(block)

    return send


def _nested(levels: int) -> bytes:
    data = bytes(8 * MEGABYTE)
    for _ in range(levels):
        data = _gzip(data)
    return data


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
FLOODS = {
    "status line": _flood(b"HTTP/1.1 200 ", b"x"),
    "header": _flood(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "headers": _flood(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "folded header": _flood(b"HTTP/1.1 200 OK\r\nX: y\r\n", b" y\r\n"),
    "interim answers": _flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "interim headers": _flood(b"HTTP/1.1 100 Continue\r\n", b"X: y\r\n"),
    "empty lines": _flood(b"", b"\r\n"),
    "body": _flood(b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    "chunk size": _flood(CHUNKED, b"0"),
    "chunk extension": _flood(CHUNKED + b"1;", b"x"),
    "one-byte chunks": _flood(CHUNKED, b"1\r\nx\r\n"),
    "trailers": _flood(CHUNKED + b"0\r\n", b"X: y\r\n"),
    "trailer": _flood(CHUNKED + b"0\r\nX: ", b"y"),
    "bomb in chunks": lambda sock: sock.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n" + _chunks(_nested(1), 4096)
    ),
    "bomb in a bomb": lambda sock: sock.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\nContent-Length: 100000\r\n\r\n" + _nested(2)
    ),
    "deflate bomb": lambda sock: sock.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\n\r\n" + zlib.compress(bytes(8 * MEGABYTE))
    ),
}


@pytest.mark.parametrize("session_mode", [False, True], ids=["straight", "session"])
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_costs_little_memory_and_no_more_than_its_time(
    flood: Callable[[socket.socket], None], session_mode: bool
) -> None:
    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(65536)
            sock.settimeout(1)  # an end that was cut off with a full buffer is not always told to the other one
            try:
                flood(sock)
                sock.recv(1)
            except OSError:
                return

    flood_once = getattr(flood, "__name__", "") == "<lambda>"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        transport = transport_to(
            f"http://127.0.0.1:{listener.getsockname()[1]}", max_response_bytes=CAP, session_mode=session_mode
        )
        if flood_once:
            _nested(1)  # what the service makes is made before anything is counted
        tracemalloc.start()
        try:
            thread.start()
            outcome = attempt(transport, "GET", LIMIT, slack=COUNTED)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            transport.close()
        thread.join(5)
    assert isinstance(outcome, requests.RequestException)
    assert not thread.is_alive()
    assert peak < (20 if flood_once else 4) * MEGABYTE
