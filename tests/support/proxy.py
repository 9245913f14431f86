"""A TCP proxy on loopback between a program and its server, for what happens to connections on the way."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Self

__all__ = ["Proxy"]

#: Bytes that are passed on at a time.
CHUNK = 65536
#: Closing a socket with this option resets its connection instead of ending it in good order.
_RESET = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class _Pair:
    """One connection: the program's end of it and the server's."""

    client: socket.socket
    server: socket.socket
    lost: threading.Event = field(default_factory=threading.Event)
    """The server has forgotten the connection; the program does not know."""
    pumps: int = 2
    """Threads that still read one of the two."""


class Proxy:
    """Forwards connections to `host:port`, or to a unix socket's path; use it as a context.

    - `swallow` is set: the server's answers are dropped on their way
    - `passing` is cleared: nothing comes through, new connections neither; what was on its way arrives once it is set again
    - `refusing` is set: new connections are reset
    - `delay`: seconds that whatever passes takes in each direction
    """

    def __init__(self, host: str, port: int = 0) -> None:
        """Without a port, `host` is the path of a unix socket."""
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.swallow = threading.Event()
        self.refusing = threading.Event()
        self.passing = threading.Event()
        self.passing.set()
        self.delay = 0.0
        self._pairs: set[_Pair] = set()
        self._lock = threading.Lock()
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._closed = True
        self.passing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes whoever accepts
        self._listener.close()
        self.cut()

    def cut(self, *, reset: bool = False) -> None:
        """End every connection there is, by a reset where asked for."""
        for pair in self._take_pairs():
            for one in (pair.client, pair.server):
                with contextlib.suppress(OSError):
                    if reset:
                        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    one.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)
                one.close()

    def lose(self) -> None:
        """Leave every connection half-open: the server's end is gone, the program's stays silent for as long as it likes."""
        for pair in self._take_pairs():
            pair.lost.set()
            with contextlib.suppress(OSError):
                pair.server.shutdown(socket.SHUT_RDWR)

    def _take_pairs(self) -> set[_Pair]:
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        return pairs

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                continue
            threading.Thread(target=self._open, args=(client,), daemon=True).start()

    def _open(self, client: socket.socket) -> None:
        self.passing.wait()
        try:
            if self.refusing.is_set() or self._closed:
                raise ConnectionRefusedError
            server = self._connect()
        except OSError:
            with contextlib.suppress(OSError):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            return
        pair = _Pair(client, server)
        with self._lock:
            self._pairs.add(pair)
        for one in (client, server):
            with contextlib.suppress(OSError):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=self._answers, args=(pair,), daemon=True).start()
        self._requests(pair)

    def _connect(self) -> socket.socket:
        host, port = self._target
        if port:
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(host)
        except OSError:
            server.close()
            raise
        return server

    def _requests(self, pair: _Pair) -> None:
        """From the program to its server, until one of them ends it; a lost connection's words go nowhere."""
        with contextlib.suppress(OSError):
            while data := pair.client.recv(CHUNK):
                self._travel()
                if not pair.lost.is_set():
                    with contextlib.suppress(BrokenPipeError):
                        pair.server.sendall(data)
        self._end(pair)

    def _answers(self, pair: _Pair) -> None:
        with contextlib.suppress(OSError):
            while data := pair.server.recv(CHUNK):
                self._travel()
                pair.client.sendall(self._answer_passes(data))
        self._end(pair)

    def _answer_passes(self, data: bytes) -> bytes:
        """What comes through of the server's words."""
        return b"" if self.swallow.is_set() else data

    def _travel(self) -> None:
        self.passing.wait()
        if self.delay:
            time.sleep(self.delay)

    def _end(self, pair: _Pair) -> None:
        """A pump has ended: it wakes the one that reads the other side, and the last one clears up."""
        with self._lock:
            self._pairs.discard(pair)
            pair.pumps -= 1
            last = not pair.pumps
        for one in (pair.client, pair.server):
            with contextlib.suppress(OSError):
                if last:
                    one.close()
                elif not pair.lost.is_set():
                    one.shutdown(socket.SHUT_RDWR)
