"""Follows every breaker as the server announces it, past all proxies, and notes when trials began."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from seawall.supervisor.breaker import Record, State

__all__ = ["Breakers", "Followed", "Trial"]

#: Seconds between two tries to reach the server while it is away, and without a message before it is asked.
RETRY, SILENCE = 0.02, 0.2
#: Seconds that a server may stand still.
PATIENCE = 30.0

_decoder = msgspec.msgpack.Decoder(Record)


@dataclass(frozen=True)
class Trial:
    """One trial of a service: when it began by its record, on the server's clock, and when that was announced here."""

    service: str
    id: str
    began: float
    heard: float
    """Not a number where nobody listened when it was announced."""
    alone: bool
    """No earlier trial had its lease, when this one began."""


@dataclass
class Followed:
    """What was heard of one breaker."""

    trials: list[Trial] = field(default_factory=list)
    opened: int = 0
    missed: int = 0
    """Versions that nobody could hear, because the server died in between: what they said is not known."""
    went_back: int = 0
    """How often a lower version was read than had been announced: the server has forgotten what it had said."""
    last: Record = field(default_factory=Record)
    running: Trial | None = None
    until: float = 0.0

    def hear(self, service: str, record: Record, heard: float) -> None:
        if record.version <= self.last.version:
            return
        missed = record.version - self.last.version - 1 if self.last.version else 0
        self.missed += missed
        self.opened += record.state is not State.CLOSED and self.last.state is State.CLOSED
        if record.trial and record.trial != self.last.trial:
            self._trial(service, record, heard, missed)
        elif not record.trial:
            self.running = None
        self.last = record

    def _trial(self, service: str, record: Record, heard: float, missed: int) -> None:
        began = record.trial_until - record.trial_lease
        alone = self.running is None or began >= self.until or missed > 0
        self.running, self.until = Trial(service, record.trial, began, heard, alone), record.trial_until
        self.trials.append(self.running)


class Breakers:
    """Listens on a thread of its own from `start` to `stop`."""

    def __init__(self, url: str, namespace: str) -> None:
        self._url = url
        self._namespace = namespace
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="chaos-breakers", daemon=True)
        self.followed: dict[str, Followed] = {}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> Mapping[str, Followed]:
        self._stopping.set()
        self._thread.join()
        return self.followed

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._client() as client, client.pubsub() as channel:
                    channel.subscribe(f"{self._namespace}:breakers")
                    channel.get_message(timeout=RETRY)
                    self._read_all(client)
                    while not self._stopping.is_set():
                        message = channel.get_message(timeout=SILENCE)
                        if message is not None and message["type"] == "message":
                            key, _, payload = message["data"].partition(b" ")
                            self._of(key.decode()).hear(key.decode(), _decoder.decode(payload), time.time())
            except (RedisError, OSError):
                time.sleep(RETRY)

    def _client(self) -> redis.Redis:
        return redis.Redis.from_url(self._url, socket_timeout=PATIENCE, retry=Retry(NoBackoff(), 0))

    def _read_all(self, client: redis.Redis) -> None:
        """What was said while nobody listened."""
        for key in client.smembers(f"{self._namespace}:breaker-keys"):
            record = _decoder.decode(client.hget(f"{self._namespace}:breaker:{key.decode()}", "rec"))
            followed = self._of(key.decode())
            followed.went_back += record.version < followed.last.version
            followed.hear(key.decode(), record, math.nan)

    def _of(self, service: str) -> Followed:
        return self.followed.setdefault(service, Followed())
