"""A real HTTP/1.1 service on loopback that remembers every request and answers as a test tells it to."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Answer", "CountingService", "Request"]


@dataclass(frozen=True)
class Request:
    """One request as it arrived. `path` has no query; `at` is the monotonic time of its arrival."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    at: float
    connection: int
    """Number of the connection, counted from 1: equal numbers mean a kept-alive connection."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What to do with a request: wait for `hold` and `delay` seconds, then answer, or hang up."""

    status: int = 200
    body: bytes | str | dict[str, Any] | list[Any] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    hold: threading.Event | None = None
    hang_up: bool = False
    """Close the connection without answering."""
    drip: float = 0.0
    """Seconds between single bytes of the body."""

    def encoded(self) -> tuple[bytes, str]:
        """The body and its content type."""
        if isinstance(self.body, bytes):
            return self.body, "application/octet-stream"
        if isinstance(self.body, str):
            return self.body.encode(), "text/plain; charset=utf-8"
        return json.dumps(self.body).encode(), "application/json"


Script = Answer | Callable[[Request], Answer]


class CountingService:
    """A threaded server on a free port of 127.0.0.1; a context manager that starts and stops it.

    Without a script every path answers 200 with an empty body.

    >>> with CountingService() as service:
    ...     service.script("/ready", Answer(500), Answer(200))    # the last one repeats
    ...     service.url.startswith("http://127.0.0.1:")
    True
    """

    def __init__(self) -> None:
        self._scripts: dict[tuple[str, str], list[Script]] = {}
        self._changed = threading.Condition()
        self._requests: list[Request] = []
        self._active = 0
        self._closing = threading.Event()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._placeholder: socket.socket | None = None
        self.port = 0
        self.peak = 0
        """The most requests that were in progress at once."""
        self.connections = 0
        """How many connections were accepted."""

    def __enter__(self) -> CountingService:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[Request]:
        """Everything that arrived so far, oldest first."""
        with self._changed:
            return list(self._requests)

    @property
    def active(self) -> int:
        """How many requests are in progress."""
        with self._changed:
            return self._active

    def count(self, path: str | None = None, *, method: str | None = None) -> int:
        """How many requests arrived, all or those of one path or method."""
        return len(self.matching(path, method=method))

    def matching(self, path: str | None = None, *, method: str | None = None) -> list[Request]:
        """The requests of one path or method."""
        return [r for r in self.requests if path in (None, r.path) and method in (None, r.method)]

    def clear(self) -> None:
        """Forget the requests; scripts stay."""
        with self._changed:
            self._requests.clear()

    def wait_for(self, count: int = 1, *, path: str | None = None, timeout: float = 20.0) -> list[Request]:
        """The requests, as soon as there are `count` of them. Fails the test when they do not arrive in time."""
        with self._changed:
            arrived = self._changed.wait_for(
                lambda: len([r for r in self._requests if path in (None, r.path)]) >= count, timeout
            )
            found = [r for r in self._requests if path in (None, r.path)]
        if not arrived:
            raise AssertionError(f"{len(found)} of {count} requests arrived within {timeout} s: {found}")
        return found

    def forget(self) -> None:
        """Forget the requests and the scripts."""
        with self._changed:
            self._requests.clear()
            self._scripts.clear()

    def script(self, path: str, *answers: Script, method: str = "*") -> None:
        """Answer a path (`*` for every other one) with these in turn; the last one repeats."""
        with self._changed:
            self._scripts[method, path] = list(answers or (Answer(),))

    def start(self) -> None:
        """Listen; after `stop` on the same port as before."""
        if self._server is not None:
            return
        self._closing = threading.Event()
        server = _Server(self, self.port, self._closing)
        if self._placeholder is not None:
            self._placeholder.close()
            self._placeholder = None
        server.server_activate()
        self.port = server.server_address[1]
        self._server = server
        self._thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="counting-service", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Refuse connections and cut the open ones, as a killed service would. The port stays ours."""
        self._stop(keep_port=True)

    def _stop(self, *, keep_port: bool) -> None:
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        self._closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
        if keep_port:
            self._placeholder = _bound(self.port)
        server.cut()
        self._server = self._thread = None

    def close(self) -> None:
        """Stop for good."""
        self._stop(keep_port=False)
        if self._placeholder is not None:
            self._placeholder.close()
            self._placeholder = None

    def _accepted(self) -> int:
        with self._changed:
            self.connections += 1
            return self.connections

    def _arrived(self, request: Request) -> Answer:
        with self._changed:
            self._requests.append(request)
            self._active += 1
            self.peak = max(self.peak, self._active)
            answer = self._next(request)
            self._changed.notify_all()
        return answer if isinstance(answer, Answer) else answer(request)

    def _next(self, request: Request) -> Script:
        for key in ((request.method, request.path), ("*", request.path), (request.method, "*"), ("*", "*")):
            answers = self._scripts.get(key)
            if answers:
                return answers.pop(0) if len(answers) > 1 else answers[0]
        return Answer()

    def _left(self) -> None:
        with self._changed:
            self._active -= 1
            self._changed.notify_all()


def _bound(port: int) -> socket.socket:
    """A socket that holds the port without listening: connecting to it is refused."""
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", port))
    return held


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, owner: CountingService, port: int, closing: threading.Event) -> None:
        self.owner = owner
        self.closing = closing
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler, bind_and_activate=False)
        self.server_bind()

    def server_bind(self) -> None:
        """As HTTPServer's, without looking up the host's name, which can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        """End every open connection."""
        with self._lock:
            still_open = list(self._open)
        for connection in still_open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.number = self.server.owner._accepted()

    def _serve(self) -> None:
        owner = self.server.owner
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self._body(headers)
        request = Request(self.command, path, query, headers, body, time.monotonic(), self.number)
        self.inside = True
        try:
            self._answer(owner._arrived(request))
        finally:
            self._leave()

    def _leave(self) -> None:
        """The request is no longer in progress: known before its last byte is, after which the next one may come."""
        if self.inside:
            self.inside = False
            self.server.owner._left()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _serve

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return b"".join(iter(self._chunk, b""))
        return self.rfile.read(int(headers.get("content-length", 0)))

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0], 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def _answer(self, answer: Answer) -> None:
        closing = self.server.closing
        while answer.hold is not None and not answer.hold.wait(0.02) and not closing.is_set():
            pass
        if answer.delay:
            closing.wait(answer.delay)
        if answer.hang_up or closing.is_set():
            self.close_connection = True
            return
        body, content_type = answer.encoded()
        head = {"Content-Type": content_type, "Content-Length": str(len(body)), **answer.headers}
        lines = [f"HTTP/1.1 {answer.status} {self.responses.get(answer.status, ('Status',))[0]}"]
        lines += [f"{name}: {value}" for name, value in head.items()]
        self._write("\r\n".join([*lines, "", ""]).encode("latin-1"), b"" if self.command == "HEAD" else body, answer)

    def _write(self, head: bytes, body: bytes, answer: Answer) -> None:
        if not answer.drip:
            self._leave()
            self.wfile.write(head + body)
            return
        self.wfile.write(head)
        for index in range(len(body)):
            if self.server.closing.wait(answer.drip):
                return
            self.wfile.write(body[index : index + 1])

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read `requests`, not a log."""
