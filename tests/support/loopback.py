"""Servers on loopback whose every byte a test decides, and the call records to send to them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from seawall.actors.record import Call
from seawall.actors.service import Service
from seawall.actors.token import TokenSource
from seawall.actors.transport import Transport

#: Seconds after which a test is stuck rather than slow.
PATIENCE = 5.0


@dataclass
class Seen:
    """A request as a server read it; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""
    connection: int = 0


@dataclass
class Peer:
    """One accepted connection. `ended` is set when the server stops: handlers wait on it instead of sleeping."""

    sock: socket.socket
    number: int
    ended: threading.Event
    seen: list[Seen]
    _rest: bytes = field(default=b"")

    def read(self) -> Seen | None:
        """The next request, or None when the other side has closed."""
        while b"\r\n\r\n" not in self._rest:
            if not self._more():
                return None
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(self._rest) < length and self._more():
            pass
        body, self._rest = self._rest[:length], self._rest[length:]
        request = Seen(method, target, headers, body, self.number)
        self.seen.append(request)
        return request

    def _more(self) -> bool:
        try:
            data = self.sock.recv(65536)
        except OSError:
            return False
        self._rest += data
        return bool(data)

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.sock.sendall(data)

    def drip(self, data: bytes, every: float = 0.02) -> None:
        """A byte at a time, over and over, until the other side or the server ends."""
        with contextlib.suppress(OSError):
            while True:
                for number in range(len(data)):
                    self.sock.sendall(data[number : number + 1])
                    if self.ended.wait(every):
                        return


class Loopback:
    """A server that runs `handle(peer)` in a thread for every connection. `seen` lists the requests it read."""

    def __init__(
        self,
        handle: Callable[[Peer], None],
        *,
        host: str = "127.0.0.1",
        wrap: Callable[[socket.socket], socket.socket] | None = None,
    ) -> None:
        self._handle = handle
        self._wrap = wrap
        self.seen: list[Seen] = []
        self.connections = 0
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._socks: list[socket.socket] = []
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.port: int = self._listener.getsockname()[1]
        self.host = f"[{host}]" if ":" in host else host
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def __enter__(self) -> Loopback:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for sock in (self._listener, *self._socks):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._accepting.join(PATIENCE)
        for thread in self._threads:
            thread.join(PATIENCE)
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._socks.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            wrapped = self._wrap(sock) if self._wrap is not None else sock
            with wrapped:
                self._handle(Peer(wrapped, number, self._ended, self.seen))
        sock.close()


def answer(body: bytes = b"ok", *, status: str = "200 OK", headers: str = "") -> bytes:
    """A whole response. `headers` are further lines, each with its line end."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def always(response: bytes | Callable[[Seen], bytes]) -> Callable[[Peer], None]:
    """Answer every request of a connection with the same bytes, or with what a function makes of it."""

    def handle(peer: Peer) -> None:
        while (request := peer.read()) is not None:
            peer.write(response if isinstance(response, bytes) else response(request))

    return handle


def once(response: bytes) -> Callable[[Peer], None]:
    """Read one request, write these bytes, close."""

    def handle(peer: Peer) -> None:
        if peer.read() is not None:
            peer.write(response)

    return handle


def service_at(url: str, **settings: Any) -> Service:
    return Service(key="chroma", name="Chroma Server", base_url=url, **settings)


def transport_to(
    url: str, *, token: TokenSource | None = None, session_mode: bool = False, **settings: Any
) -> Transport:
    return Transport(service_at(url, **settings), token, session_mode=session_mode)


def call_to(transport: Transport, method: str = "GET", target: str = "/query", **fields: Any) -> Call:
    fields = {"timeout": PATIENCE, "connect_timeout": PATIENCE, **fields}
    service = transport.service
    return Call(id="c-1", service=service.key, origin=service.origin, method=method, target=target, **fields)
