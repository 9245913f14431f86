"""How an idle fetcher sleeps: one blocking pop on the wake lists of its queues, and a pipe for everything local.

Timers run on this side: the server's own are as coarse as its `hz`. A lost token costs a slow poll, never a stuck call.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import OutOfMemoryError, RedisError

from seawall.errors import BrokerUnavailable
from seawall.redis_link import RedisLink, load_script

__all__ = ["WakeLine"]

#: Seconds after which the server ends a blocking pop: the slow poll, and proof that the connection lives. Without a
#: supervisor it is also how long a dead worker's calls go unnoticed beyond their lease, so it is short.
POLL_SECONDS = 2
#: Seconds beyond that without an answer, after which the connection counts as dead.
DEAD_AFTER = 2.0
#: What a wake list holds besides calls that are handed over.
TOKEN = b"1"

_END_POP = load_script("seawall.actors", "endpop")

#: A queue, and what was in its wake list.
Popped = tuple[str, bytes]


class WakeLine:
    """Used by one thread at a time; only poke() may be called by any other.

    A pop stays under way between two sleeps. It may be on more queues than the next sleep is about: what it then brings
    of another queue goes back to whoever has room for it.
    """

    def __init__(self, link: RedisLink, prefix: str) -> None:
        self._link = link
        self._prefix = prefix
        self._own_list = f"{prefix}wake:{uuid.uuid4().hex}"
        self._connection: Any = None
        self._armed: frozenset[str] = frozenset()
        self._armed_at = 0.0
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._poll = select.poll()
        self._poll.register(self._reader, select.POLLIN)
        self._socket: int | None = None
        self._poked = False
        self._lock = threading.Lock()

    def wait(self, queues: Sequence[str], timeout: float | None, has_room: Callable[[str], bool]) -> Popped | None:
        """Sleep until something is in a wake list, a poke, or `timeout` seconds. Raises BrokerUnavailable."""
        try:
            popped = self._wait(frozenset(queues), timeout)
            return self._keep_or_pass_on(popped, has_room)
        except (RedisError, OSError) as error:
            self._disarm()
            raise BrokerUnavailable(f"lost the broker while waiting for work: {error}") from error

    def _wait(self, queues: frozenset[str], timeout: float | None) -> Popped | None:
        if self._drain_pokes():
            return None
        if not queues <= self._armed and (popped := self._arm(queues)):
            return popped
        ready = [file for file, _ in self._poll.poll(self._patience(timeout) * 1000)]
        self._drain_pokes()
        if self._armed and self._socket in ready:
            return self._keep_or_pass_on(self._take_answer(), queues.__contains__)
        if self._armed and not ready and time.monotonic() - self._armed_at > POLL_SECONDS + DEAD_AFTER:
            raise OSError("no answer to a blocking pop in time")
        return None

    def _patience(self, timeout: float | None) -> float:
        left = self._armed_at + POLL_SECONDS + DEAD_AFTER + 0.1 - time.monotonic() if self._armed else POLL_SECONDS
        return max(0.0, left if timeout is None else min(left, timeout))

    def _arm(self, queues: frozenset[str]) -> Popped | None:
        """Have a blocking pop on these queues under way. Answers what an older one brought that had to be ended."""
        if self._armed and (popped := self._end_pop(queues)):
            return popped
        connection = self._connected()
        connection.send_command(
            "BLPOP", self._own_list, *map(self._wake_list, sorted(queues)), POLL_SECONDS, check_health=False
        )
        self._armed, self._armed_at = queues, time.monotonic()
        return None

    def _connected(self) -> Any:
        if self._connection is None:
            self._connection = self._link.connect(answer_timeout=POLL_SECONDS + DEAD_AFTER)
            self._socket = self._connection._sock.fileno()
            self._poll.register(self._socket, select.POLLIN)
        return self._connection

    def _wake_list(self, queue: str) -> str:
        return f"{self._prefix}q:{queue}:wake"

    def _end_pop(self, queues: frozenset[str]) -> Popped | None:
        """End the pop that is under way. Answers what it had of one of these queues."""
        try:
            self._link.run(_END_POP, self._prefix, self._own_list)
        except OutOfMemoryError:
            self._disarm()  # what it brings is lost with the connection, a call until its lease ends: look
            return (min(queues), TOKEN) if queues else None
        popped = self._take_answer()
        if popped:
            self._link.command("DEL", self._own_list)
        return self._keep_or_pass_on(popped, queues.__contains__)

    def _take_answer(self) -> Popped | None:
        """Read what ended the pop: something of a queue's wake list, or nothing."""
        answer = self._connection.read_response()
        self._armed = frozenset()
        name = answer[0].decode() if answer is not None else self._own_list
        if name == self._own_list:
            return None
        return name.removeprefix(f"{self._prefix}q:").removesuffix(":wake"), answer[1]

    def _keep_or_pass_on(self, popped: Popped | None, is_wanted: Callable[[str], bool]) -> Popped | None:
        """What is of a queue that is wanted. Anything else is for a fetcher that has room for it."""
        if popped is None or is_wanted(popped[0]):
            return popped
        queue, element = popped
        with contextlib.suppress(OutOfMemoryError):
            self._link.command("RPUSH" if element == TOKEN else "LPUSH", self._wake_list(queue), element)
        return None

    def _disarm(self) -> None:
        connection, self._connection, self._armed = self._connection, None, frozenset()
        if self._socket is not None:
            self._poll.unregister(self._socket)
            self._socket = None
        if connection is not None:
            connection.disconnect()

    def rest(self) -> None:
        """The fetcher stops: let go of the connection, so that what comes next wakes somebody else."""
        try:
            if self._armed:
                self._end_pop(frozenset())
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
                self._poll.unregister(self._reader)
                os.close(self._reader)
                os.close(self._writer)
                self._reader = self._writer = -1
