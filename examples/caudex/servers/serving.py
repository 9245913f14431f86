"""The HTTP side of a service: keep-alive connections on a thread each, a clean end on SIGTERM."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from urllib.parse import parse_qsl, urlsplit

from examples.caudex.addresses import SERVICES, internal_token
from examples.caudex.servers.base import Answer, App, Request, Route
from examples.caudex.servers.fields import Problem
from examples.caudex.servers.tally import Tally
from examples.caudex.stopping import StopSignals

__all__ = ["STOP_POLL", "HttpServer", "arguments", "main", "wait_for_end"]

#: Bytes of a request body.
LONGEST_BODY = 2 * 1024 * 1024
#: Seconds that running requests get to finish once a stop was asked for.
DRAIN_SECONDS = 3.0
#: Connections that may wait to be accepted: a whole fleet of workers connects at once after an outage.
BACKLOG = 256
#: Seconds between looks at the stop flag of the accepting thread.
STOP_POLL = 0.05

EXIT_OK = 0
EXIT_CANNOT_START = 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HttpServer

    def _serve(self) -> None:
        with self.server.request_running():
            self._send(self._answer())

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve

    def _answer(self) -> Answer:
        try:
            body = self._body()
        except Problem as problem:
            self.close_connection = True  # what follows on this connection is the unread body
            return Answer({"error": str(problem)}, problem.status)
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        method = "GET" if self.command == "HEAD" else self.command
        query = dict(parse_qsl(url.query))
        return self.server.app.answer(Request(method=method, path=url.path, query=query, headers=headers, body=body))

    def _body(self) -> bytes:
        if "Transfer-Encoding" in self.headers:
            raise Problem(411, "send the body with a Content-Length")
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal():
            raise Problem(400, "Content-Length is not a number")
        if len(length) > 12 or int(length) > LONGEST_BODY:
            raise Problem(413, f"the body is over {LONGEST_BODY} bytes")
        return self.rfile.read(int(length))

    def _send(self, answer: Answer) -> None:
        data = json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.server.ending:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: paths and queries are the users'."""


class HttpServer(ThreadingHTTPServer):
    """An App on a port of this machine. `stop` ends it once running requests are answered."""

    daemon_threads = True
    request_queue_size = BACKLOG

    def __init__(self, app: App, port: int) -> None:
        self.app = app
        self.ending = False
        self._running = 0
        self._changed = threading.Condition()
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        """As TCPServer binds: http.server's own also asks the resolver for this machine's name, which may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.port

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, args=(STOP_POLL,), name="accept", daemon=True).start()

    def stop(self) -> None:
        self.ending = True
        self.shutdown()
        self.server_close()
        with self._changed:
            self._changed.wait_for(lambda: self._running == 0, timeout=DRAIN_SECONDS)

    @contextmanager
    def request_running(self) -> Iterator[None]:
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._changed:
            self._running += change
            self._changed.notify_all()

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """A caller that hangs up is no error of ours; anything else is shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def arguments(name: str, port: int, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """`--port`, `--data` and `--with-parent`, the same for every program of this example."""
    parser = argparse.ArgumentParser(prog=name, description=f"Caudex's {name}, on 127.0.0.1")
    parser.add_argument("--port", type=_port, default=port, help=f"port, 0 for any free one (default {port})")
    parser.add_argument("--data", type=Path, required=True, help="folder for its data, made if missing")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input is closed")
    parsed = parser.parse_args(argv)
    parsed.data.mkdir(parents=True, exist_ok=True)
    return parsed


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number from 0 to 65535")
    return int(text)


def wait_for_end(name: str, port: int, stop: StopSignals, *, with_parent: bool) -> None:
    """Say where the program listens, on one line of standard output, and wait until it shall end."""
    print(f"{name} is listening on http://127.0.0.1:{port}", flush=True)
    stop.wait(others=[sys.stdin] if with_parent else [])


def main(name: str, build: Callable[[Path], list[Route]], argv: Sequence[str] | None = None) -> int:
    """Run one service until SIGTERM or ctrl-C. `build` makes its routes from its data folder."""
    options = arguments(name, SERVICES[name], argv)
    with StopSignals() as stop:
        try:
            header, token = internal_token(os.environ)
            tally = Tally(options.data / f"{name}.requests")
            app = App(name, build(options.data), tally=tally, token=token, token_header=header)
            server = HttpServer(app, options.port)
        except OSError as error:
            print(f"{name} cannot start on port {options.port}: {error}", file=sys.stderr)
            return EXIT_CANNOT_START
        server.start()
        wait_for_end(name, server.port, stop, with_parent=options.with_parent)
        server.stop()
    return EXIT_OK
