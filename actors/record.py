"""What travels on a queue: the call, its progress, and its reply; versioned, and readable by the releases around ours.

All three are MessagePack maps. A reader ignores fields that it does not know and fills in those that are missing,
so release N and N-1 understand each other; `v` is raised only for a change that an older reader would get wrong, and
a worker leaves such a record for a newer one. A record holds data only: no code names, no credentials, no token.
"""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec

from seawall.supervisor.breaker import Record

__all__ = [
    "RECORD_VERSION",
    "Attempt",
    "Call",
    "Malformed",
    "Progress",
    "Reply",
    "TooNew",
    "decode_call",
    "decode_progress",
    "decode_reply",
    "encode",
    "new_call_id",
]

#: The newest record that this release writes and reads.
RECORD_VERSION = 1

#: Attempts that a call's progress remembers; older ones are forgotten first, so that a record stays small.
HISTORY_LENGTH = 50


class Malformed(ValueError):
    """The bytes are not a call record."""


class TooNew(ValueError):
    """The record was written by a release that this one cannot follow."""


class Call(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One outbound call, prepared by its caller. It never changes; what happens to it is its Progress.

    `target` is path and query as they go on the wire. Durations are seconds.
    """

    id: str
    service: str
    origin: str
    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    waited: bool = False
    max_attempts: int = 3
    connect_timeout: float = 10.0
    timeout: float = 10.0
    redirects: bool = True
    resend: bool = True
    """May be sent again when it may already have left the socket (`idempotency`)."""
    reply_to: str = ""
    """The mailbox of the process that waits; empty when nobody does."""
    on_open: str = "hold"
    keep_result: float = 0.0
    retry_on: tuple[int | str, ...] = ()
    """Statuses and names of errors (`reasons.RETRY_NAMES`) after which an attempt is repeated; empty for the usual ones."""
    rounds: int = 0
    """Rounds before the call is given up; 0 means until it expires."""
    trial: bool = False
    """The caller took the breaker's trial for this call: a single attempt, let through whatever the state."""
    trace: tuple[str, ...] = ()
    """The caller's span, for the worker's to be children of: W3C's `traceparent`, and `tracestate` if there is one."""
    created: float = 0.0
    """The caller's wall clock, for people to read; nothing is decided by it."""
    v: int = RECORD_VERSION


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """One attempt as it is remembered: server time in seconds, what came of it, seconds it took."""

    at: float
    outcome: str
    took: float


class Progress(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How far a call has come. `attempt` counts those of the running round that failed, `round` the rounds that did.

    `replays` says how often it was a dead letter, after attempts, that was sent again.
    """

    attempt: int = 0
    round: int = 0
    replays: int = 0
    history: tuple[Attempt, ...] = ()
    v: int = RECORD_VERSION

    def failed_attempt(self, attempt: Attempt) -> Progress:
        return Progress(attempt=self.attempt + 1, round=self.round, replays=self.replays, history=self._with(attempt))

    def failed_round(self, attempt: Attempt) -> Progress:
        return Progress(attempt=0, round=self.round + 1, replays=self.replays, history=self._with(attempt))

    def _with(self, attempt: Attempt) -> tuple[Attempt, ...]:
        return (*self.history, attempt)[-HISTORY_LENGTH:]


class Reply(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What came of a call: a response (`status` set) or an error (`error` set), and the breaker as it was then."""

    id: str
    status: int = 0
    reason: str = ""
    url: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    elapsed: float = 0.0
    attempts: int = 0
    error: str = ""
    """The error's name in the table of `replies`; the response's fields are set too for an HTTPError."""
    message: str = ""
    retry_after: float = 0.0
    detail: str = ""
    cause: Reply | None = None
    breaker: Record | None = None
    v: int = RECORD_VERSION


_encoder = msgspec.msgpack.Encoder()
_call_decoder = msgspec.msgpack.Decoder(Call)
_progress_decoder = msgspec.msgpack.Decoder(Progress)
_reply_decoder = msgspec.msgpack.Decoder(Reply)
_version_decoder = msgspec.msgpack.Decoder(dict[str, Any])


def encode(record: Call | Progress | Reply) -> bytes:
    return _encoder.encode(record)


def decode_call(payload: bytes) -> Call:
    """Raises TooNew for a later version, Malformed for anything that is no call."""
    try:
        call = _call_decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        if _version(payload) > RECORD_VERSION:
            raise TooNew(f"record version {_version(payload)}, this release reads up to {RECORD_VERSION}") from None
        raise Malformed(str(error)) from None
    if call.v > RECORD_VERSION:
        raise TooNew(f"record version {call.v}, this release reads up to {RECORD_VERSION}")
    return call


def decode_progress(payload: bytes | None) -> Progress:
    """A call's progress; a fresh one where there is none yet or it cannot be read."""
    if not payload:
        return Progress()
    try:
        return _progress_decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Progress()


def decode_reply(payload: bytes) -> Reply:
    """Raises Malformed for anything that is no reply."""
    try:
        return _reply_decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(str(error)) from None


def _version(payload: bytes) -> int:
    try:
        version = _version_decoder.decode(payload).get("v", 0)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return 0
    return version if isinstance(version, int) else 0


def new_call_id() -> str:
    """A time-ordered random id (UUID version 7, RFC 9562): unique without asking anyone, and sortable by age."""
    time_ms, random = f"{time.time_ns() // 1_000_000:012x}", os.urandom(10).hex()
    variant = "89ab"[int(random[3], 16) & 3]
    return f"{time_ms[:8]}-{time_ms[8:12]}-7{random[:3]}-{variant}{random[4:7]}-{random[7:19]}"
