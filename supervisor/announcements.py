"""One thread that listens to a Redis channel, notices when it can hear nothing, and finds its way back."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from seawall.errors import BrokerUnavailable
from seawall.redis_link import RedisLink

__all__ = ["AnnouncementReader"]

#: Seconds between two looks at whether to stop; a message is read the moment it arrives.
LOOK_EVERY = 0.25
#: Seconds of silence after which the server is asked for a sign of life.
PING_EVERY = 2.0
#: Seconds that the server may take for that sign, or for any answer.
ANSWER_TIMEOUT = 0.9
#: Seconds between two readings of the server's clock.
ASK_TIME_EVERY = 60.0
#: Seconds before the first and before every later try to connect again; the wait doubles in between.
FIRST_BACKOFF, LAST_BACKOFF = 0.05, 0.5

logger = logging.getLogger(__name__)


class AnnouncementReader:
    """Delivers a channel's messages to its listeners, on a daemon thread that `add` starts.

    After every (re)connection it calls each listener's `reconnected`, because messages may have been missed; likewise at
    the first sign of life after `doubt`. Listeners that raise are logged and kept. An outage is logged when it starts
    and when it ends, with its length.
    """

    def __init__(self, link: RedisLink, channel: str, ask_the_time: Callable[[], None]) -> None:
        self._link = link
        self._channel = channel
        self._ask_the_time = ask_the_time
        self._listeners: list[tuple[Callable[[bytes], None], Callable[[], None] | None]] = []
        self._stopping = threading.Event()
        self._in_doubt = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="seawall-announcements", daemon=True)
        self._connection: Any = None
        self._lost_at: float | None = None
        self.heard_at: float | None = None
        """Monotonic time of the last sign of life on the subscribed connection; None before the first."""

    def add(self, received: Callable[[bytes], None], reconnected: Callable[[], None] | None = None) -> None:
        """Deliver to these from now on; starts the thread if it does not run yet."""
        self._listeners = [*self._listeners, (received, reconnected)]
        if not self._thread.is_alive() and not self._stopping.is_set():
            self._thread.start()

    def doubt(self) -> None:
        """Another connection to the server has failed: ask for a sign of life soon, this one may look well."""
        self._in_doubt.set()

    def stop(self) -> None:
        """End the thread. Safe to call twice, and from a listener."""
        self._stopping.set()
        sock = getattr(self._connection, "_sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # it need not wait for its next look
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(ANSWER_TIMEOUT + LOOK_EVERY)

    def _listen(self) -> None:
        backoff = FIRST_BACKOFF
        while not self._stopping.is_set():
            try:
                connection = self._subscribed()
                backoff = FIRST_BACKOFF
                self._deliver(connection)
            except (BrokerUnavailable, RedisError, OSError) as error:
                self._note_loss(error)
                self._stopping.wait(backoff)
                backoff = min(2 * backoff, LAST_BACKOFF)

    def _subscribed(self) -> Any:
        connection = self._link.connect(answer_timeout=ANSWER_TIMEOUT)
        try:
            connection.send_command("SUBSCRIBE", self._channel)
            connection.read_response()
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def _deliver(self, connection: Any) -> None:
        """Read until told to stop or the connection fails; a listener's catching up comes first."""
        self._connection = connection
        try:
            self._note_return()
            self._catch_up()
            asked_at = time.monotonic()
            while not self._stopping.is_set():
                self._read_for(connection, PING_EVERY)
                if time.monotonic() - asked_at > ASK_TIME_EVERY:
                    asked_at = time.monotonic()
                    self._ask_the_time()
        finally:
            self._connection = None
            connection.disconnect()

    def _read_for(self, connection: Any, seconds: float) -> None:
        """Deliver what arrives; after that long a silence, demand a sign of life."""
        silent_since = time.monotonic()
        while not connection.can_read(timeout=LOOK_EVERY):
            if self._stopping.is_set():
                return
            if self._in_doubt.is_set() or time.monotonic() - silent_since >= seconds:
                connection.send_command("PING", check_health=False)
                break
        answer = connection.read_response()
        self.heard_at = time.monotonic()
        if answer[0] == b"message":
            self._tell_all("announced", lambda listener: listener[0](answer[2]))
        elif self._in_doubt.is_set():
            self._catch_up()

    def _catch_up(self) -> None:
        self._in_doubt.clear()
        self._tell_all("reconnected", lambda listener: listener[1] and listener[1]())

    def _tell_all(self, what: str, tell: Callable[[Any], object]) -> None:
        for listener in self._listeners:
            try:
                tell(listener)
            except Exception:
                logger.exception("A listener of %s failed when it was told: %s", self._channel, what)

    def _note_loss(self, error: Exception) -> None:
        if self._lost_at is None and not self._stopping.is_set():
            self._lost_at = time.monotonic()
            logger.warning("Breaker announcements are lost, the local view goes on: %s", error)

    def _note_return(self) -> None:
        self.heard_at = time.monotonic()
        if self._lost_at is not None:
            logger.warning("Breaker announcements are back after %.1f s", self.heard_at - self._lost_at)
            self._lost_at = None
