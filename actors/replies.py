"""What came of a call, as its caller sees it, and how that travels.

An Outcome holds the very response or exception. Where caller and worker are two processes it crosses as a Reply: data
only, from which the caller's side builds a real `requests.Response` or the exception of the attempt.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import requests

from seawall import errors
from seawall.actors.answer import Answer, cookies_of, headers_of
from seawall.actors.record import Reply
from seawall.supervisor.breaker import Record

__all__ = ["LocalWaiter", "Mailbox", "Outcome", "Waiters", "from_reply", "given_up", "taken_back", "to_reply"]


@dataclass(slots=True, eq=False)
class Outcome:
    """A response, or the error of the last attempt; and the breaker's record at that moment, for the caller's own view."""

    response: Any = None
    error: BaseException | None = None
    attempts: int = 0
    breaker: Record | None = None


class LocalWaiter:
    """What a call's caller waits for; several threads may. Safe for threads."""

    __slots__ = ("_door", "_seats", "callers", "outcome", "request", "service")

    def __init__(self, service: str = "", request: Any = None) -> None:
        self.callers = 0
        self.service = service
        self.request = request
        self.outcome: Outcome | None = None
        self._door = threading.Lock()
        self._seats: list[threading.Lock] = []

    def wait(self, timeout: float) -> Outcome | None:
        """The outcome, or None after `timeout` seconds."""
        seat = self.sit_down()
        if seat is not None:
            seat.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX)))
            self.stand_up(seat)
        return self.outcome

    def answer(self, outcome: Outcome) -> None:
        """The first outcome counts."""
        with self._door:
            if self.outcome is not None:
                return
            self.outcome = outcome
        self.call_all()

    def sit_down(self) -> threading.Lock | None:
        """A place at which to wait: it can be acquired when there is something to do. None when the outcome is there."""
        with self._door:
            if self.outcome is not None:
                return None
            seat = threading.Lock()
            seat.acquire()
            self._seats.append(seat)
            return seat

    def stand_up(self, seat: threading.Lock) -> None:
        with self._door:
            if seat in self._seats:
                self._seats.remove(seat)

    def call_one(self) -> bool:
        """Wake one of the threads that wait here. False when none does."""
        with self._door:
            if not self._seats:
                return False
            self._seats.pop().release()
            return True

    def call_all(self) -> None:
        while self.call_one():
            pass


class Waiters:
    """Who waits at a mailbox, by call. Threads that wait for the same call share a waiter. Safe for threads."""

    def __init__(self) -> None:
        self._waiters: dict[str, LocalWaiter] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiters)

    def add(self, id: str, make: Callable[[], LocalWaiter]) -> LocalWaiter:
        with self._lock:
            waiter = self._waiters.get(id)
            if waiter is None:
                waiter = self._waiters[id] = make()
            waiter.callers += 1
            return waiter

    def leave(self, id: str) -> None:
        """One of the call's waiting threads goes away."""
        with self._lock:
            waiter = self._waiters.get(id)
            if waiter is None:
                return
            waiter.callers -= 1
            if waiter.callers == 0:
                del self._waiters[id]

    def take(self, id: str) -> LocalWaiter | None:
        """The call's waiter, to be answered."""
        with self._lock:
            return self._waiters.pop(id, None)

    def all(self) -> list[LocalWaiter]:
        with self._lock:
            return list(self._waiters.values())

    def clear(self) -> None:
        with self._lock:
            self._waiters.clear()


class Mailbox(Protocol):
    """Where a process receives what came of the calls that it waits for."""

    @property
    def address(self) -> str: ...

    @property
    def mark(self) -> str:
        """How far it was read, for the store to take out what lies before; empty for nothing."""
        ...

    def expect(self, id: str, *, service: str = "", request: Any = None) -> LocalWaiter: ...

    def forget(self, id: str) -> None: ...

    def close(self) -> None: ...


#: The errors that cross, by the names that they cross under. An unknown name becomes its fallback, never code.
_ERRORS: dict[str, type[requests.RequestException]] = {
    "http": requests.HTTPError,
    "connect-timeout": requests.ConnectTimeout,
    "read-timeout": requests.ReadTimeout,
    "timeout": requests.Timeout,
    "ssl": requests.exceptions.SSLError,
    "proxy": requests.exceptions.ProxyError,
    "outcome-unknown": errors.OutcomeUnknown,
    "connection": requests.ConnectionError,
    "chunked": requests.exceptions.ChunkedEncodingError,
    "decoding": requests.exceptions.ContentDecodingError,
    "redirects": requests.TooManyRedirects,
    "invalid-url": requests.exceptions.InvalidURL,
    "invalid-schema": requests.exceptions.InvalidSchema,
    "too-large": errors.ResponseTooLarge,
    "token": errors.TokenUnavailable,
    "local": errors.LocalResourceError,
    "cancelled": errors.CallCancelled,
    "deadline": errors.DeadlineExceeded,
    "result-expired": errors.ResultExpired,
    "request": requests.RequestException,
}
_NAMES = {kind: name for name, kind in _ERRORS.items()}


def given_up(service: str, reason: str) -> errors.CallFailed:
    """The error of a call that lies in the dead letters."""
    text = f"[{service}] the call was given up ({reason}); it lies in the dead letters"
    return errors.CallFailed(text, service=service, reason=reason)


def taken_back(service: str, deaths: int) -> errors.CallCancelled:
    """The error of a background call that was cancelled, after so many workers had died with it."""
    text = "; a worker had died with it, so it may have been carried out" if deaths else " before it started"
    return errors.CallCancelled(f"[{service}] the call was cancelled{text}", service=service)


def to_reply(id: str, outcome: Outcome) -> Reply:
    """The outcome as data. Raises nothing: an error without a name of its own crosses as its nearest ancestor."""
    fields: dict[str, Any] = {"attempts": outcome.attempts, "breaker": outcome.breaker}
    error = outcome.error
    response = outcome.response
    if error is not None:
        fields |= _error_fields(error)
        response = getattr(error, "response", None)
    if isinstance(response, requests.Response):
        fields |= _response_fields(response)
    return Reply(id=id, **fields)


def _error_fields(error: BaseException) -> dict[str, Any]:
    fields: dict[str, Any] = {"message": _text(error)}
    if isinstance(error, errors.ServiceUnavailable):
        cause = error.__cause__
        return fields | {
            "error": "unavailable",
            "retry_after": error.retry_after,
            "cause": to_reply("", Outcome(error=cause)) if isinstance(cause, Exception) else None,
        }
    if isinstance(error, errors.CallFailed):
        return fields | {"error": "dead", "detail": error.reason}
    for kind in type(error).__mro__:
        if kind in _NAMES:
            return fields | {"error": _NAMES[kind]}
    return fields | {"error": "request", "message": f"{type(error).__name__}: {_text(error)}"}


def _response_fields(response: requests.Response) -> dict[str, Any]:
    return {
        "status": response.status_code,
        "reason": _text(response.reason or ""),
        "url": _text(response.url or ""),
        "headers": tuple(_header_items(response)),
        "body": response.content or b"",
        "elapsed": response.elapsed.total_seconds(),
    }


def _header_items(response: requests.Response) -> list[tuple[str, str]]:
    """Header lines one by one, so that two cookies stay two."""
    if isinstance(response, Answer):
        return [(_text(name), _text(value)) for name, value in response.fields]
    raw = getattr(response.raw, "headers", None)
    source = raw if hasattr(raw, "iteritems") else None
    lines = source.iteritems() if source is not None else response.headers.items()
    return [(_text(name), _text(value)) for name, value in lines]


def _text(value: Any) -> str:
    """Text that can be encoded: an error may quote a file name or a header with bytes that are no characters."""
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return text.encode("utf-8", "backslashreplace").decode()


def from_reply(reply: Reply, *, service: str, method: str = "", request: Any = None) -> Outcome:
    """The outcome that a reply stands for; `service` is the readable name for errors."""
    response = _response(reply, request) if reply.status else None
    error = _error(reply, service, response)
    return Outcome(
        response=None if error is not None else response,
        error=error,
        attempts=reply.attempts,
        breaker=reply.breaker,
    )


def _response(reply: Reply, request: Any) -> requests.Response:
    response = requests.Response()
    response.status_code = reply.status
    response.reason = reply.reason
    response.url = reply.url
    response.headers = headers_of(reply.headers)
    response.encoding = requests.utils.get_encoding_from_headers(response.headers)
    response.elapsed = timedelta(seconds=reply.elapsed)
    response._content = reply.body
    response._content_consumed = True  # type: ignore[attr-defined]
    response.request = request
    if any(name.lower() == "set-cookie" for name, _ in reply.headers):
        response.cookies = cookies_of(reply.headers, reply.url)
    return response


def _error(reply: Reply, service: str, response: requests.Response | None) -> Exception | None:
    if not reply.error:
        return None
    if reply.error == "unavailable":
        unavailable = errors.ServiceUnavailable(reply.message, service=service, retry_after=reply.retry_after)
        if reply.cause is not None:
            unavailable.__cause__ = from_reply(reply.cause, service=service).error
        return unavailable
    if reply.error == "dead":
        failed = given_up(service, reply.detail)
        return errors.CallFailed(reply.message, service=service, reason=reply.detail) if reply.message else failed
    if reply.error == "cancelled":
        return errors.CallCancelled(
            reply.message or f"[{service}] the call was {reply.detail} before it started", service=service
        )
    kind = _ERRORS.get(reply.error, requests.RequestException)
    if issubclass(kind, errors.SeawallError):
        return kind(reply.message, service=service)
    return kind(reply.message, response=response) if response is not None else kind(reply.message)
