"""The breaker store of a fleet: records in Redis or Valkey, swapped by one small script on the server's clock."""

from __future__ import annotations

import logging
import threading
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from seawall.errors import BrokerUnavailable
from seawall.redis_link import Argument, RedisLink, load_script
from seawall.supervisor.announcements import AnnouncementReader
from seawall.supervisor.breaker import Record, State
from seawall.supervisor.server_clock import ServerClock
from seawall.supervisor.store import CLOCK_TOLERANCE, Announced, Reconnected, Swap

__all__ = ["RedisStore"]

_SCRIPT = load_script("seawall.supervisor", "breaker")
_decoder = msgspec.msgpack.Decoder(Record)

logger = logging.getLogger(__name__)


class RedisStore:
    """Records under `namespace` on the link's server; `lua/breaker.lua` documents the keys.

    The link may be shared with others and is not closed here. The first `subscribe` starts a thread with a
    connection of its own. Nothing of it survives a fork: build a new store, over a new link, in the child.
    """

    def __init__(self, link: RedisLink, namespace: str = "seawall") -> None:
        self._link = link
        self._namespace = namespace
        self._clock = ServerClock()
        self._lock = threading.Lock()
        self._reader: AnnouncementReader | None = None
        self._closed = False

    def read(self, key: str) -> tuple[Record | None, float]:
        now, version, payload = self._run("read", key)
        return _decoded(key, version, payload), now

    def read_all(self) -> dict[str, Record]:
        _, *fields = self._run("read_all")
        found: dict[str, Record] = {}
        for key, version, payload in zip(*[iter(fields)] * 3, strict=True):
            record = _decoded(key.decode(), version, payload)
            if record is not None:
                found[key.decode()] = record
        return found

    def swap(self, key: str, expected_version: int, record: Record, assumed_now: float) -> Swap:
        stored = msgspec.structs.replace(record, version=expected_version + 1)
        tolerance = CLOCK_TOLERANCE + self._clock.uncertainty
        payload = msgspec.msgpack.encode(stored)
        now, ok, *current = self._run(
            *("swap", key, expected_version, repr(assumed_now), tolerance, record.state, record.trial, payload),
            *_slow_start(record),
            *(record.last_error, int(record.forced)),
        )
        if ok:
            return Swap(True, stored, now)
        return Swap(False, _decoded(key, *current) or Record(), now)

    def now(self) -> float:
        return self._clock.now()

    def confirmed_at(self) -> float:
        reader = self._reader
        heard = reader.heard_at if reader else None
        return 0.0 if heard is None else self._clock.now() - (self._clock.monotonic() - heard)

    def subscribe(self, announced: Announced, reconnected: Reconnected | None = None) -> None:
        with self._lock:
            if self._closed:
                return
            if self._reader is None:
                self._reader = AnnouncementReader(self._link, f"{self._namespace}:breakers", self._ask_the_time)
            self._reader.add(lambda payload: _announce(payload, announced), reconnected)

    def close(self) -> None:
        """Nothing is announced any more, to nobody that comes later either. Reading and swapping go on with the link."""
        with self._lock:
            self._closed = True
            reader, self._reader = self._reader, None
        if reader is not None:
            reader.stop()

    def _ask_the_time(self) -> None:
        """Learn the server's time in a quiet hour: a host that slept, or whose clock was set, finds it out here."""
        self._run("read", "")

    def _run(self, command: str, *args: Argument) -> list[Any]:
        """The script's answer, its first element the server's time as a number."""
        sent = self._clock.monotonic()
        try:
            now, *answer = self._link.run(_SCRIPT, command, self._namespace, *args)
        except (BrokerUnavailable, ResponseError) as error:
            if self._reader is not None:
                self._reader.doubt()
            if isinstance(error, BrokerUnavailable):
                raise
            raise BrokerUnavailable(f"the broker refused a breaker command: {error}", written=False) from error
        self._clock.heard(float(now), sent, self._clock.monotonic())
        return [float(now), *answer]


def _slow_start(record: Record) -> tuple[int, int]:
    """When the breaker recovered, and for how long the queue's fetch script then starts slowly, in ms."""
    recovered = record.state is State.CLOSED and record.recovered_at > 0
    return (int(record.recovered_at * 1000), int(record.slow_start * 1000)) if recovered else (0, 0)


def _announce(payload: bytes, announced: Announced) -> None:
    key, _, encoded = payload.partition(b" ")
    try:
        record = _decoder.decode(encoded)
    except msgspec.MsgspecError as error:
        logger.warning("A breaker announcement cannot be read and is ignored: %s", error)
        return
    announced(key.decode("utf-8", "replace"), record)


def _decoded(key: str, version: bytes | None, payload: bytes | None) -> Record | None:
    """The stored record. One that cannot be read counts as closed, under its version, and is overwritten in time."""
    if version is None:
        return None
    try:
        record = _decoder.decode(payload or b"")
    except msgspec.MsgspecError as error:
        logger.warning("The breaker record of %s cannot be read and counts as closed: %s", key, error)
        record = Record()
    return msgspec.structs.replace(record, version=int(version))
