"""A process's mailbox in Redis: one stream and one connection, however many callers wait; one of them reads for all.

A reply is not taken out of the stream before it has arrived here, so a connection that breaks loses none.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
import uuid
from collections.abc import Iterable
from typing import Any

from redis.exceptions import RedisError, ResponseError

from seawall.actors.record import Malformed, decode_reply
from seawall.actors.replies import LocalWaiter, Outcome, Waiters, from_reply
from seawall.errors import BrokerRefused, BrokerUnavailable
from seawall.redis_link import RedisLink
from seawall.refusals import told

__all__ = ["RedisMailbox"]

logger = logging.getLogger("seawall.replies")

#: Seconds that one blocking read lasts, and beyond them without an answer, after which the connection counts as dead.
READ_SECONDS, DEAD_AFTER = 2, 2.0
#: Replies read at once.
BATCH = 100
#: Seconds that a read takes in any case once something is there: what has arrived is read, even when its reader's time is over.
LEAST_SECONDS = 0.1
#: Seconds between attempts to reach the server again.
RETRY_SECONDS = 0.1


class RedisMailbox:
    """A thread that waits reads replies, its own and the others', until its own is there; then another one does."""

    def __init__(self, link: RedisLink, namespace: str) -> None:
        self._link = link
        self._address = uuid.uuid4().hex
        self._key = f"{namespace}:mail:{self._address}"
        self._waiters = Waiters()
        self._line = _ReadLine(link, self._key)
        self._door = threading.Lock()
        """Guards the three below."""
        self._reader: _RedisWaiter | None = None
        self._reading_thread = 0
        self._closed = False
        self._warned = False

    @property
    def address(self) -> str:
        return self._address

    @property
    def mark(self) -> str:
        return self._line.mark

    def expect(self, id: str, *, service: str = "", request: Any = None) -> LocalWaiter:
        return self._waiters.add(id, lambda: _RedisWaiter(self, service, request))

    def forget(self, id: str) -> None:
        self._waiters.leave(id)

    def waiting(self) -> int:
        return len(self._waiters)

    def close(self) -> None:
        """Send everybody home without an answer, and let go of the connection. Safe twice."""
        with self._door:
            self._closed = True
            if self._reader is None:
                self._line.close()
            else:
                self._line.poke()  # the reader lets go of it
        for waiter in self._waiters.all():
            waiter.call_all()

    def wait_for(self, waiter: _RedisWaiter, timeout: float) -> None:
        """Return when the waiter has its outcome, after `timeout` seconds, or when the mailbox closes."""
        ends = time.monotonic() + timeout
        while waiter.outcome is None and not self._closed and (left := ends - time.monotonic()) > 0:
            with self._door:
                seat = waiter.sit_down() if self._reader is not None else None
                reads = self._reader is None
                if reads:
                    self._reader, self._reading_thread = waiter, threading.get_ident()
            if reads:
                self._read_until(waiter, ends)
            elif seat is not None:
                seat.acquire(timeout=min(left, threading.TIMEOUT_MAX))
                waiter.stand_up(seat)
        if self._reader is None:
            self._call_a_reader()

    def _call_a_reader(self) -> None:
        """Whoever leaves sees to it that somebody reads: it may itself have been called to, when its patience was over.
        Others may wait for the same call as it did."""
        with self._door:
            if self._reader is None and not self._closed:
                any(other.call_one() for other in self._waiters.all())

    def answered(self, waiter: _RedisWaiter) -> None:
        """The waiter has its outcome, perhaps from elsewhere than from this mailbox: then wake its thread, should it read."""
        if self._reader is waiter and self._reading_thread != threading.get_ident():
            self._line.poke()

    def _read_until(self, waiter: _RedisWaiter, ends: float) -> None:
        try:
            while waiter.outcome is None and not self._closed and (left := ends - time.monotonic()) > 0:
                try:
                    for payload in self._line.read(left):
                        self._deliver(payload)
                except (BrokerUnavailable, RedisError, OSError) as error:
                    self._note(error)
                    self._line.drop()
                    self._line.sleep(min(left, RETRY_SECONDS))
        finally:
            with self._door:
                self._reader = None
                if self._closed:
                    self._line.close()

    def _note(self, error: Exception) -> None:
        """A server that is away comes back. One that does not let us read leaves callers without their answers: say it once."""
        refuses = isinstance(error, (BrokerRefused, ResponseError)) and not self._warned
        self._warned = self._warned or refuses
        logger.log(logging.WARNING if refuses else logging.DEBUG, "replies cannot be read: %s", told(error))

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


class _RedisWaiter(LocalWaiter):
    """A caller that may read for all."""

    __slots__ = ("_mailbox",)

    def __init__(self, mailbox: RedisMailbox, service: str, request: Any) -> None:
        super().__init__(service, request)
        self._mailbox = mailbox

    def wait(self, timeout: float) -> Outcome | None:
        self._mailbox.wait_for(self, timeout)
        return self.outcome

    def answer(self, outcome: Outcome) -> None:
        super().answer(outcome)
        self._mailbox.answered(self)


class _ReadLine:
    """The connection on which the stream is read. Used by one thread at a time; poke() by any."""

    def __init__(self, link: RedisLink, key: str) -> None:
        self._link = link
        self._key = key
        self._read_up_to = "0-0"
        self._connection: Any = None
        self._asked_at: float | None = None
        """Monotonic time of the question that is under way."""
        self._wakes, self._pokes = os.pipe()
        os.set_blocking(self._wakes, False)
        os.set_blocking(self._pokes, False)
        self._poll = select.poll()
        self._poll.register(self._wakes, select.POLLIN)
        self._socket: int | None = None

    @property
    def mark(self) -> str:
        """The smallest id that has not been read; empty when nothing was."""
        milliseconds, _, sequence = self._read_up_to.partition("-")
        return f"{milliseconds}-{int(sequence) + 1}" if milliseconds != "0" else ""

    def read(self, timeout: float) -> Iterable[bytes]:
        """Replies that are there or come within `timeout` seconds; none after a poke. Raises redis-py's errors."""
        ends = time.monotonic() + timeout
        if self._asked_at is None:
            self._ask(max(LEAST_SECONDS, timeout))
        assert self._asked_at is not None
        patience = self._asked_at + READ_SECONDS + DEAD_AFTER - time.monotonic()
        ready = {file for file, _ in self._poll.poll(max(0.0, min(timeout, patience)) * 1000)}
        if self._wakes in ready:
            self._drain()
        if self._socket in ready:
            self._connection._sock.settimeout(max(LEAST_SECONDS, ends - time.monotonic()))  # it may stop halfway
            return self._answer()
        if patience <= 0:
            raise OSError("no answer to a blocking read in time")
        return ()

    def _ask(self, patience: float) -> None:
        if self._connection is None:
            self._connection = self._link.connect(answer_timeout=min(patience, READ_SECONDS + DEAD_AFTER))
            self._socket = self._connection._sock.fileno()
            self._poll.register(self._socket, select.POLLIN)
        milliseconds = READ_SECONDS * 1000
        self._connection.send_command(
            "XREAD", "COUNT", BATCH, "BLOCK", milliseconds, "STREAMS", self._key, self._read_up_to, check_health=False
        )
        self._asked_at = time.monotonic()

    def _answer(self) -> list[bytes]:
        found = self._connection.read_response()
        self._asked_at = None
        # After a silence from the start again: a server whose clock was set back counts from an earlier time.
        entries = found[0][1] if found else []
        self._read_up_to = entries[-1][0].decode() if entries else "0-0"
        return [fields[1] for _, fields in entries]

    def sleep(self, seconds: float) -> None:
        """Until a poke, at most."""
        self._poll.poll(seconds * 1000)
        self._drain()

    def poke(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._pokes, b"x")

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakes, 1024)

    def drop(self) -> None:
        """The connection is no good. What it was about to bring comes over the next one."""
        connection, self._connection, self._asked_at = self._connection, None, None
        self._read_up_to = "0-0"  # the next server may be another one
        if self._socket is not None:
            self._poll.unregister(self._socket)
            self._socket = None
        if connection is not None:
            connection.disconnect()

    def close(self) -> None:
        self.drop()
        for file in (self._wakes, self._pokes):
            if file >= 0:
                os.close(file)
        self._wakes = self._pokes = -1
