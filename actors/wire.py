"""Connections that know the attempt they serve: its deadline, and how far it came on the wire."""

from __future__ import annotations

import queue
import select
import socket
import threading
import time
from collections import deque
from types import TracebackType
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ClosedPoolError, ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError

from seawall.actors.deadline import Deadline, until
from seawall.actors.dial import dial

__all__ = ["POOLS", "Exchange", "Line"]

#: Seconds after which an unused connection is not trusted any more: load balancers forget an idle one after 60 s or
#: more, often without a word, and what is sent on it then vanishes.
MAX_IDLE = 50.0
#: Seconds for which a connection that was just used is taken as it is: looking at it costs a system call, in which
#: another thread gets the interpreter. No service closes an idle one so soon without having said so.
TRUSTED = 0.5
#: Seconds by which a socket's own limit may be off.
SLACK = 0.001
#: Seconds for a socket whose time is over; 0 would make it non-blocking.
_AT_ONCE = 0.001


class _Local(threading.local):
    exchange: Exchange | None = None


_local = _Local()


class Exchange:
    """What is known of the running attempt on the wire. As a context it is the thread's current one.

    `touched`: one of our connections took part (a test's fake adapter has none). `connecting`: it has not been
    established. `sent`: bytes of a request may have left. `reused`, `answered`: of the latest request.
    `alone`: it must not be sent twice, so it gets a connection of its own, which cannot be a dead one.
    """

    __slots__ = ("_outer", "alone", "answered", "connecting", "limit", "reused", "sent", "touched")

    def __init__(self, limit: Deadline, *, alone: bool = False) -> None:
        self.limit = limit
        self.alone = alone
        self.touched = self.connecting = self.sent = self.reused = self.answered = False
        self._outer: Exchange | None = None

    def __enter__(self) -> Exchange:
        self._outer, _local.exchange = _local.exchange, self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _local.exchange = self._outer

    def begins(self, *, reused: bool) -> None:
        """A request starts on a connection that is new, or was used before."""
        self.touched = True
        self.reused = reused
        self.answered = False


class Line(HTTPConnection):
    """A connection that reports to the thread's exchange and obeys its deadline."""

    _fresh = False
    _dialling: Deadline | None = None
    _news: select.poll | None = None
    idle_since = 0.0
    _allowed: float | None = None
    """Seconds that the socket waits, as far as it was set here."""

    def allow(self, seconds: float) -> None:
        """Have the socket wait so long at the most, give or take a millisecond: setting it is a system call."""
        if self._allowed is None or not -SLACK <= seconds - self._allowed <= SLACK:
            self._allowed = seconds
            self.sock.settimeout(seconds)

    def is_doubtful(self) -> bool:
        """It was unused for long, or something came on it meanwhile: its end, or what nobody asked for."""
        idle = time.monotonic() - self.idle_since
        if idle < TRUSTED:
            return False
        if self._news is None:
            self._news = select.poll()
            self._news.register(self.sock, select.POLLIN)
        return idle > MAX_IDLE or bool(self._news.poll(0))

    def close(self) -> None:
        self._news = self._allowed = None
        super().close()

    def connect(self) -> None:
        exchange = _local.exchange
        if exchange is None:
            super().connect()
            return
        exchange.touched = exchange.connecting = True
        sent_before = exchange.sent
        limit = until(min(_seconds(self.timeout), exchange.limit.remaining))
        with limit:
            self._dialling = limit
            try:
                super().connect()
            except (OSError, HTTPError) as error:
                if limit.passed:
                    raise ConnectTimeoutError(self, f"no connection to {self.host} in time") from error
                raise
            finally:
                self._dialling = None
                # A proxy's CONNECT goes through send() too, but holds nothing of the request.
                exchange.sent = sent_before
        exchange.connecting = False
        self.guard(exchange)
        # The time to connect is over; what is sent now has the attempt's whole time.
        self.sock.settimeout(exchange.limit.remaining or _AT_ONCE)
        self._fresh = True

    def _new_conn(self) -> socket.socket:
        limit = self._dialling
        if limit is None:
            return super()._new_conn()
        try:
            sock = dial(self._dns_host, int(self.port or self.default_port), limit, self.socket_options or ())
            # TLS takes the descriptor over to another object; a duplicate reaches the connection all the same.
            with sock.dup() as duplicate:
                limit.guard(duplicate)
            sock.settimeout(limit.remaining or _AT_ONCE)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, str(error)) from error
        except OSError as error:
            raise NewConnectionError(self, f"Failed to establish a new connection: {error}") from error
        return sock

    def request(self, *args: Any, **options: Any) -> None:
        exchange = _local.exchange
        if exchange is not None:
            exchange.begins(reused=self.sock is not None and not self._fresh)
            if exchange.reused:
                self.guard(exchange)
        self._fresh = False
        super().request(*args, **options)
        self._fresh = False

    def send(self, data: Any) -> None:
        exchange = _local.exchange
        if exchange is not None:
            if self.sock is None and self.auto_open:
                self.connect()
            exchange.sent = True
        super().send(data)

    def guard(self, exchange: Exchange) -> None:
        """Have the connection shut down when the exchange's time is over, whatever it is doing then."""
        exchange.limit.guard(_plain(self.sock))

    def getresponse(self) -> Any:
        response = super().getresponse()
        if _local.exchange is not None:
            _local.exchange.answered = True
        return response


class _TlsLine(Line, HTTPSConnection):
    """The same over TLS."""


def _seconds(timeout: Any) -> float:
    return float("inf") if timeout is None else float(timeout)


def _plain(sock: Any) -> socket.socket:
    """The real socket under TLS inside TLS, which urllib3 wraps in an object of its own."""
    while not isinstance(sock, socket.socket):
        sock = sock.socket
    return sock


class _Shelf:
    """The unused connections of a pool, the last used on top.

    Without a lock, since a deque's own steps are atomic: a lock held by another thread at the moment of a fork
    would stay locked in the child for ever.
    """

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._items: deque[Any] = deque()

    def get(self, block: bool = False, timeout: float | None = None) -> Any:
        try:
            return self._items.pop()
        except IndexError:
            raise queue.Empty from None

    def put(self, item: Any, block: bool = False) -> None:
        if item is None:
            return  # a placeholder for a connection to come; an empty shelf does as well
        if len(self._items) >= self._maxsize:
            raise queue.Full
        self._items.append(item)

    def qsize(self) -> int:
        return len(self._items)


class _Pool(urllib3.HTTPConnectionPool):
    """Connections to one origin. One that goes back is out of its deadline's reach before another thread gets it."""

    ConnectionCls = Line
    QueueCls = _Shelf  # type: ignore[assignment]  # urllib3 uses only the three methods above

    def _get_conn(self, timeout: float | None = None) -> Any:
        if self.pool is None:
            raise ClosedPoolError(self, "Pool is closed.")
        try:
            line: Line = self.pool.get()
        except queue.Empty:
            return self._new_conn()
        exchange = _local.exchange
        alone = exchange is not None and exchange.alone
        if line.sock is not None and (alone or line.is_doubtful()):
            line.close()
        return line

    def _put_conn(self, conn: Any) -> None:
        exchange = _local.exchange
        if exchange is not None:
            exchange.limit.release()
        if conn is None:
            return
        conn.idle_since = time.monotonic()
        try:
            if self.pool is None:
                raise queue.Full
            self.pool.put(conn, block=False)
        except queue.Full:
            # More threads than `concurrency`, or the transport was closed meanwhile: nothing to warn of.
            conn.close()


class _TlsPool(_Pool, urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsLine


#: urllib3's pools by scheme, made of these connections.
POOLS: dict[str, type[urllib3.HTTPConnectionPool]] = {"http": _Pool, "https": _TlsPool}
