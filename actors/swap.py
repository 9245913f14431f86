"""One request and its answer on one connection, within the exchange's time and the service's cap.

The plain case is read straight from the socket, every wait bounded by the time that is left. All else goes through
http.client and urllib3, with the deadline's watcher at the socket.
"""

from __future__ import annotations

import http.client
import io
import ssl
import time
from typing import Any, NamedTuple

from urllib3 import HTTPHeaderDict, HTTPResponse

from seawall.actors.answer import Fields
from seawall.actors.deadline import Deadline
from seawall.actors.decoding import decode_in_time
from seawall.actors.plain_http import HEAD_END, Head, plain_head
from seawall.actors.wire import Exchange, Line
from seawall.errors import ResponseTooLarge

__all__ = ["Answered", "swap"]

#: Bytes read at a time.
_CHUNK = 64 * 1024
#: Bytes of an answer's head up to which it is looked for in one piece.
_LONGEST_HEAD = 64 * 1024
#: Bytes of one line, as in http.client.
_LONGEST_LINE = 64 * 1024
#: Interim answers (1xx) before the real one; more are no answer.
_MOST_INTERIMS = 16
#: The shortest time handed to a socket; 0 would make it non-blocking.
_AT_ONCE = 0.001


class Answered(NamedTuple):
    """`seconds` from the request to the answer's head; `keeps` whether the connection may be used again."""

    status: int
    reason: str
    fields: Fields
    body: bytes
    seconds: float
    keeps: bool


def swap(line: Line, method: str, request: bytes, exchange: Exchange, cap: int, service: str) -> Answered:
    """Send `request`, head and body, on a connected line and read the whole answer.

    Raises ResponseTooLarge for more than `cap` decoded bytes, and whatever sockets, http.client and urllib3 raise; the
    line is to be closed then.
    """
    started = time.perf_counter()
    sock = line.sock
    exchange.sent = True
    if len(request) > _CHUNK and isinstance(sock, ssl.SSLSocket):
        line.guard(exchange)  # its sendall has no limit for the whole
    line.allow(exchange.limit.remaining or _AT_ONCE)
    sock.sendall(request)
    data, end = b"", -1
    while end < 0 and len(data) <= _LONGEST_HEAD:
        _allow_a_read(line, exchange)
        piece = sock.recv(_CHUNK)
        if not piece:
            break
        data += piece
        end = data.find(HEAD_END, max(0, len(data) - len(piece) - len(HEAD_END)))
    if not data:
        raise http.client.RemoteDisconnected("Remote end closed connection without response")
    seconds = time.perf_counter() - started
    head = plain_head(data[:end], method) if end >= 0 else None
    if head is None:
        return _read_otherwise(line, method, data, exchange, cap, service, seconds)
    exchange.answered = True
    body, clean = _body(line, head, data[end + len(HEAD_END) :], exchange, cap, service)
    return Answered(head.status, head.reason, head.fields, body, seconds, head.keeps and clean)


def _allow_a_read(line: Line, exchange: Exchange) -> None:
    """Raises TimeoutError when the time is over: a byte now and then would make any wait, however short, a successful one."""
    left = exchange.limit.remaining
    if left <= 0:
        raise TimeoutError("the answer was not complete in time")
    line.allow(left)


def _body(line: Line, head: Head, start: bytes, exchange: Exchange, cap: int, service: str) -> tuple[bytes, bool]:
    """The body, and whether nothing came behind it."""
    if head.length > cap:
        raise ResponseTooLarge(f"[{service}] the response is over the cap of {cap} bytes", service=service)
    if len(start) >= head.length:
        return start[: head.length], len(start) == head.length
    with io.BytesIO() as body:  # an error has its memory back at once, whoever keeps the traceback
        body.write(start)
        while (missing := head.length - body.tell()) > 0:
            _allow_a_read(line, exchange)
            # One byte more than the end: what comes behind it must not begin the next answer.
            piece = line.sock.recv(missing + 1 if missing <= _CHUNK else _CHUNK)
            if not piece:
                raise http.client.IncompleteRead(body.getvalue(), missing)
            body.write(piece)
        clean = missing == 0
        body.truncate(head.length)
        return body.getvalue(), clean


def _read_otherwise(
    line: Line, method: str, data: bytes, exchange: Exchange, cap: int, service: str, seconds: float
) -> Answered:
    line.guard(exchange)
    line.allow(exchange.limit.remaining or _AT_ONCE)
    rest = _Rest(line.sock, data, exchange.limit)
    parsed = _final_answer(rest, method)
    response = HTTPResponse(
        body=parsed,
        headers=HTTPHeaderDict(parsed.msg.items()),
        status=parsed.status,
        version=parsed.version,
        reason=parsed.reason,
        preload_content=False,
        original_response=parsed,
        request_method=method,
    )
    exchange.answered = True
    decode_in_time(response, exchange.limit)
    with io.BytesIO() as body:
        for chunk in response.stream(_CHUNK, decode_content=True):
            if body.tell() + len(chunk) > cap:
                raise ResponseTooLarge(f"[{service}] the response is over the cap of {cap} bytes", service=service)
            body.write(chunk)
        if exchange.limit.passed:  # the end of a connection is the end of some bodies, even when the deadline cut it
            raise TimeoutError("the body was not complete in time")
        content = body.getvalue()
    fields = tuple(response.headers.iteritems())
    keeps = not parsed.will_close and rest.is_used_up()
    return Answered(parsed.status, parsed.reason, fields, content, seconds, keeps)


def _final_answer(rest: _Rest, method: str) -> http.client.HTTPResponse:
    for _ in range(_MOST_INTERIMS):
        parsed = http.client.HTTPResponse(rest, method=method)  # type: ignore[arg-type]  # it only asks for makefile
        parsed.begin()
        if parsed.status >= 200 or parsed.status == http.client.SWITCHING_PROTOCOLS:
            return parsed
    raise http.client.BadStatusLine(f"{_MOST_INTERIMS} interim answers and no real one")


class _Rest(io.RawIOBase):
    """What has been read of a socket already, and then the rest of it, in the form in which http.client wants a socket."""

    def __init__(self, sock: Any, data: bytes, limit: Deadline) -> None:
        self._sock = sock
        self._limit = limit
        self._data = memoryview(data)
        self._file = _File(self)
        self._ended = False

    def makefile(self, mode: str) -> Any:
        return self._file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._data:
            if self._limit.passed:  # what lies in the system's buffer outlives the connection, and may be a lot of work
                raise TimeoutError("the answer was not complete in time")
            return 0 if self._ended else int(self._sock.recv_into(buffer))
        size = min(len(buffer), len(self._data))
        buffer[:size] = self._data[:size]
        self._data = self._data[size:]
        return size

    def is_used_up(self) -> bool:
        """Whether nothing came behind the answer, which a next one would be taken for. Ends the reading, waits for nothing."""
        self._ended = True
        return not self._data and not self._file.peek(1)


class _File(io.BufferedReader):
    """Stays open when an answer is at its end: another one may follow, and what is left is looked at."""

    def close(self) -> None: ...

    def readline(self, size: int | None = -1, /) -> bytes:
        """As always, but a line without an end, such as a chunk's size, is not collected for ever."""
        if size is not None and size >= 0:
            return super().readline(size)
        line = super().readline(_LONGEST_LINE + 1)
        if len(line) > _LONGEST_LINE:
            raise http.client.LineTooLong("a line")
        return line
