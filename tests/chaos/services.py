"""A service of the chaos run, as a process: `python -m tests.chaos.services KEY PORT FOLDER`.

It notes each request in `<key>.visits` before it answers, and answers as the file `<key>.mode` says at that moment:

    ok       200, with what `letters.answer_to` says
    error    500
    flaky    every third request 503, every seventh cut off without an answer
    slow     200, after 0.3 s to 1.5 s
    hang     no answer, until the mode changes or the client hangs up
    garbage  something that is no HTTP, or an answer that ends or changes in its middle
    drip     200, with seconds between the bytes
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.chaos.ledger import Ledger
from tests.chaos.letters import answer_to, digest
from tests.chaos.life import end_with_parent

__all__ = ["HANG_SECONDS"]

#: Seconds after which a request that hangs is cut off, far beyond any timeout here.
HANG_SECONDS = 20.0
#: Seconds between two looks at whether a hanging service goes on.
LOOK_EVERY = 0.05
#: Answers of a service that has lost its mind; `{}` stands for a sound one.
GARBAGE = (
    b"\x00\xff\x16\x03\x01 no HTTP at all\r\n\r\n",
    b"HTTP/1.1 two hundred OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\nContent-Type: application/json\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
    b"",
)


class Service(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, key: str, port: int, folder: Path) -> None:
        self.key = key
        self.visits = Ledger(folder / f"{key}.visits")
        self.mode_file = folder / f"{key}.mode"
        self.numbers = itertools.count(1)
        self.lock = threading.Lock()
        self.active = 0
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        """As HTTPServer's, without looking up the host's name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    @property
    def mode(self) -> str:
        with contextlib.suppress(OSError):
            return self.mode_file.read_text()
        return "ok"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients come and go."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Service

    def _serve(self) -> None:
        service = self.server
        self.arrived = time.monotonic()
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with service.lock:
            service.active += 1
            self.active, self.number = service.active, next(service.numbers)
        try:
            getattr(self, f"_{service.mode}", self._ok)()
        finally:
            with service.lock:
                service.active -= 1

    do_GET = do_POST = _serve

    def _ok(self) -> None:
        self._note(200)
        self._answer(200, self._sound())

    def _error(self) -> None:
        self._note(500)
        self._answer(500, b"broken")

    def _flaky(self) -> None:
        if self.number % 3 == 0:
            self._note(503)
            self._answer(503, b"busy")
        elif self.number % 7 == 0:
            self._note(0)
            self.close_connection = True
        else:
            self._ok()

    def _slow(self) -> None:
        time.sleep(random.uniform(0.3, 1.5))
        self._ok()

    def _hang(self) -> None:
        self._note(0)
        while self.server.mode == "hang" and time.monotonic() < self.arrived + HANG_SECONDS:
            time.sleep(LOOK_EVERY)
        self.close_connection = True

    def _garbage(self) -> None:
        self._note(0)
        self.wfile.write(random.choice(GARBAGE).replace(b"{}", self._sound()))
        self.close_connection = True

    def _drip(self) -> None:
        self._note(200)
        body = self._sound()
        self.wfile.write(self._head(200, body))
        for position in range(0, len(body), max(1, len(body) // 8)):
            self.wfile.write(body[position : position + max(1, len(body) // 8)])
            time.sleep(random.uniform(0.02, 0.6))

    def _note(self, status: int) -> None:
        key = self.headers.get("Idempotency-Key", "")
        self.server.visits.write(self.arrived, self.command, self.path, key, digest(self.body), self.active, status)

    def _sound(self) -> bytes:
        return json.dumps(answer_to(self.server.key, self.path, self.body)).encode()

    def _answer(self, status: int, body: bytes) -> None:
        self.wfile.write(self._head(status, body) + body)

    @staticmethod
    def _head(status: int, body: bytes) -> bytes:
        head = f"HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode()

    def log_message(self, format: str, *args: Any) -> None:
        """The ledger is what counts."""


def main() -> None:
    end_with_parent(lambda: os._exit(0))
    key, port, folder = sys.argv[1:]
    Service(key, int(port), Path(folder)).serve_forever(poll_interval=0.5)


if __name__ == "__main__":
    main()
