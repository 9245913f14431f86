"""How an idle fetcher sleeps: one blocking pop on the wake lists of its queues, and a pipe for everything local.

Timers run on this side: the server's own are as coarse as its `hz`. A lost token costs a slow poll, never a stuck call.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Any

from redis.exceptions import OutOfMemoryError, RedisError

from seawall.errors import BrokerUnavailable
from seawall.redis_link import RedisLink

__all__ = ["WakeLine"]

#: Seconds after which the server ends a blocking pop: the slow poll, and proof that the connection lives. Without a
#: supervisor it is also how long a dead worker's calls go unnoticed beyond their lease, so it is short.
POLL_SECONDS = 2
#: Seconds beyond that without an answer, after which the connection counts as dead.
DEAD_AFTER = 2.0


class WakeLine:
    """Used by one fetcher thread; only poke() may be called from others."""

    def __init__(self, link: RedisLink, prefix: str) -> None:
        self._link = link
        self._prefix = prefix
        self._own_list = f"{prefix}wake:{uuid.uuid4().hex}"
        self._connection: Any = None
        self._armed: tuple[str, ...] = ()
        self._armed_at = 0.0
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._poked = False
        self._lock = threading.Lock()

    def wait(self, queues: Sequence[str], timeout: float | None) -> None:
        """Sleep until a token, a poke, or `timeout` seconds. Raises BrokerUnavailable when the server is away."""
        try:
            self._wait(tuple(queues), timeout)
        except (RedisError, OSError) as error:
            self._disarm()
            raise BrokerUnavailable(f"lost the broker while waiting for work: {error}") from error

    def _wait(self, queues: tuple[str, ...], timeout: float | None) -> None:
        if self._drain_pokes():
            return
        if queues and self._arm(queues):
            return
        sock = self._connection._sock if self._connection is not None else None
        with selectors.DefaultSelector() as selector:
            selector.register(self._reader, selectors.EVENT_READ)
            if sock is not None and self._armed:
                selector.register(sock, selectors.EVENT_READ)
            limit = self._patience(timeout)
            ready = selector.select(limit)
        self._drain_pokes()
        if self._armed and any(key.fileobj is sock for key, _ in ready):
            self._keep_or_pass_on(self._take_answer(), queues)
        elif self._armed and not ready and time.monotonic() - self._armed_at > POLL_SECONDS + DEAD_AFTER:
            raise OSError("no answer to a blocking pop in time")

    def _patience(self, timeout: float | None) -> float:
        left = self._armed_at + POLL_SECONDS + DEAD_AFTER + 0.1 - time.monotonic() if self._armed else POLL_SECONDS
        return max(0.0, left if timeout is None else min(left, timeout))

    def _arm(self, queues: tuple[str, ...]) -> bool:
        """Have a blocking pop on these queues under way. True when a token came in while an older one was ended."""
        if self._armed == queues:
            return False
        woken = self._armed != () and self._end_pop(queues)
        if self._connection is None:
            self._connection = self._link.connect(answer_timeout=POLL_SECONDS + DEAD_AFTER)
        self._connection.send_command("BLPOP", self._own_list, *map(self._wake_list, queues), POLL_SECONDS)
        self._armed, self._armed_at = queues, time.monotonic()
        return woken

    def _wake_list(self, queue: str) -> str:
        return f"{self._prefix}q:{queue}:wake"

    def _end_pop(self, queues: tuple[str, ...]) -> bool:
        """End the pop that is under way. True when it had a token for one of these queues."""
        try:
            self._link.command("LPUSH", self._own_list, "1")
        except OutOfMemoryError:
            self._disarm()
            return True  # a token may have been lost with the connection: look
        token = self._take_answer()
        if token:
            self._link.command("DEL", self._own_list)
        return self._keep_or_pass_on(token, queues)

    def _take_answer(self) -> str:
        """Read what ended the pop: a queue's wake list, or empty."""
        answer = self._connection.read_response()
        self._armed = ()
        name = answer[0].decode() if answer is not None else ""
        return "" if name == self._own_list else name

    def _keep_or_pass_on(self, token: str, queues: tuple[str, ...]) -> bool:
        """True for a token of one of these queues. Another one is for a fetcher that has room for that queue."""
        if not token or token in map(self._wake_list, queues):
            return bool(token)
        with contextlib.suppress(OutOfMemoryError):
            self._link.command("LPUSH", token, "1")
        return False

    def _disarm(self) -> None:
        connection, self._connection, self._armed = self._connection, None, ()
        if connection is not None:
            connection.disconnect()

    def rest(self) -> None:
        """The fetcher stops: let go of the connection, so that the next token wakes somebody else."""
        try:
            if self._armed:
                self._end_pop(())
        except (RedisError, OSError):
            pass  # away: the server ends the pop with the connection
        finally:
            self._disarm()

    def poke(self) -> None:
        """Wake the sleeper. Pokes before it wakes count as one."""
        with self._lock:
            if self._poked or self._writer < 0:
                return
            self._poked = True
            os.write(self._writer, b"x")

    def _drain_pokes(self) -> bool:
        with self._lock:
            if not self._poked:
                return False
            self._poked = False
            os.read(self._reader, 16)
            return True

    def close(self) -> None:
        """Let go of the connection and the pipe. Safe twice."""
        self._disarm()
        with self._lock:
            if self._writer >= 0:
                os.close(self._reader)
                os.close(self._writer)
                self._reader = self._writer = -1
