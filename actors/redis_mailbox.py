"""A process's mailbox in Redis: one list, one reader thread, one connection, however many callers wait."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from typing import Any

from redis.exceptions import RedisError

from seawall.actors.record import Malformed, decode_reply
from seawall.actors.replies import LocalWaiter, Outcome, Waiters, from_reply
from seawall.errors import BrokerUnavailable
from seawall.redis_link import RedisLink

__all__ = ["RedisMailbox"]

logger = logging.getLogger("seawall.replies")

#: Seconds that one blocking read lasts, and that an unused mailbox is still read: an idle process asks nothing.
READ_SECONDS = 2
LINGER_SECONDS = 20.0
#: Replies fetched at once after the first.
BATCH = 100
#: Seconds between attempts to reach the server again.
RETRY_SECONDS = 0.1


class RedisMailbox:
    """Replies arrive as they are pushed; those that came while the server was away are read when it is back."""

    def __init__(self, link: RedisLink, namespace: str) -> None:
        self._link = link
        self._address = uuid.uuid4().hex
        self._key = f"{namespace}:mail:{self._address}"
        self._waiters = Waiters()
        self._wanted = threading.Condition()
        self._idle_since = time.monotonic()
        self._thread: threading.Thread | None = None
        self._connection: Any = None
        self._closed = False
        self._awake = False

    @property
    def address(self) -> str:
        return self._address

    def expect(self, id: str, *, service: str = "", request: Any = None) -> LocalWaiter:
        waiter = self._waiters.add(id, service, request)
        if not self._awake:
            with self._wanted:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._read_for_ever, name="seawall-replies", daemon=True)
                    self._thread.start()
                self._wanted.notify()
        return waiter

    def forget(self, id: str) -> None:
        self._waiters.leave(id)
        if not self._waiters:
            self._idle_since = time.monotonic()

    def waiting(self) -> int:
        return len(self._waiters)

    def close(self) -> None:
        with self._wanted:
            self._closed = True
            self._wanted.notify()
        thread, connection = self._thread, self._connection
        if connection is not None:
            _interrupt(connection)
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)

    def _read_for_ever(self) -> None:
        while self._sleep_until_wanted():
            try:
                self._read_once()
            except (BrokerUnavailable, RedisError, OSError) as error:
                self._drop()
                if not self._closed:
                    logger.debug("mailbox: %s", error)
                    time.sleep(RETRY_SECONDS)
        self._drop()

    def _sleep_until_wanted(self) -> bool:
        with self._wanted:
            while not self._closed and not self._waiters and time.monotonic() - self._idle_since > LINGER_SECONDS:
                self._awake = False
                if not self._waiters:  # asked again: expect() looks at _awake after it has added its waiter
                    self._wanted.wait()
                self._idle_since = time.monotonic()
            self._awake = True
            return not self._closed

    def _read_once(self) -> None:
        if self._connection is None:
            self._connection = self._link.connect(answer_timeout=READ_SECONDS + 2)
        connection = self._connection
        connection.send_command("BLPOP", self._key, READ_SECONDS)
        answer = connection.read_response()
        if answer is None:
            return
        self._deliver(answer[1])
        if len(self._waiters) > 1:
            connection.send_command("LPOP", self._key, BATCH)
            for payload in connection.read_response() or ():
                self._deliver(payload)

    def _deliver(self, payload: bytes) -> None:
        try:
            reply = decode_reply(payload)
        except Malformed as error:
            logger.error("dropped a reply that cannot be read: %s", error)
            return
        waiter = self._waiters.take(reply.id)
        if waiter is None:
            logger.debug("nobody waits for the reply to call %s any more", reply.id)
            return
        try:
            waiter.answer(from_reply(reply, service=waiter.service, request=waiter.request))
        except Exception as error:
            logger.exception("the reply to call %s cannot be understood", reply.id)
            waiter.answer(Outcome(error=error))
        if not self._waiters:
            self._idle_since = time.monotonic()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()


def _interrupt(connection: Any) -> None:
    """End a blocking read from outside."""
    import socket

    sock = getattr(connection, "_sock", None)
    if sock is not None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return
