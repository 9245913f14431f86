"""Why an attempt failed, in a few words for people, and what that means for the breaker and the next attempt.

One table for the errors of `requests`; the words never hold a query, a header or a body.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import requests

from seawall.errors import (
    DeadlineExceeded,
    LocalResourceError,
    OutcomeUnknown,
    RequestTooLarge,
    ResponseTooLarge,
    TokenUnavailable,
)

__all__ = ["RETRY_NAMES", "Verdict", "judge_error", "judge_status", "plain_words", "retry_rules", "ruled"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`failure` counts for the breaker; `retry` allows another attempt; `text` is the log line's middle part."""

    text: str
    failure: bool
    retry: bool
    ok: bool = False
    retry_after: float | None = None


#: Statuses that say nothing about the service's health: the caller was too slow, or asked too much.
NEUTRAL_STATUSES = frozenset({408, 429})

_OK = Verdict("", failure=False, retry=False, ok=True)


def judge_status(status: Any, retry_after: float | None) -> Verdict:
    """What a response's status means. Anything that is not an int (a test's mock) is a success."""
    if not isinstance(status, int) or (status < 500 and status not in NEUTRAL_STATUSES):
        return _OK
    if status in NEUTRAL_STATUSES:
        return Verdict(f"Answer {status}", failure=False, retry=True, retry_after=retry_after)
    return Verdict(f"Server error {status}", failure=True, retry=True, retry_after=retry_after)


#: Later rows never win over earlier ones: a ConnectTimeout is a ConnectionError too.
_TABLE: tuple[tuple[type[BaseException], str, bool, bool], ...] = (
    # error, words, counts as a failure of the service, may be tried again
    (TokenUnavailable, "Secret unavailable", False, False),
    (LocalResourceError, "No local resources", False, True),
    (ResponseTooLarge, "Response too large", False, False),
    (RequestTooLarge, "Request too large", False, False),
    (OutcomeUnknown, "Outcome unknown", True, False),
    (DeadlineExceeded, "Deadline passed", False, False),
    (requests.exceptions.SSLError, "TLS failure", True, False),
    (requests.Timeout, "Timeout", True, True),
    (TimeoutError, "Timeout", True, True),
    (requests.ConnectionError, "Connection failed", True, True),
    (requests.exceptions.ChunkedEncodingError, "Connection failed", True, True),
    (requests.exceptions.ContentDecodingError, "Unreadable response", True, True),
    (requests.TooManyRedirects, "Too many redirects", True, False),
    (requests.exceptions.InvalidURL, "Invalid URL", False, False),
    (requests.RequestException, "Request failed", True, True),
    (OSError, "Connection failed", True, True),
)


def judge_error(error: BaseException) -> Verdict | None:
    """What an exception means; None for one that no attempt should raise (a bug, not an outage)."""
    for kind, words, failure, retry in _TABLE:
        if isinstance(error, kind):
            return Verdict(words, failure=failure, retry=retry)
    return None


#: The errors that `retry_on` may name, as they travel: no code names come from the wire. A name holds for subclasses too.
RETRY_NAMES = MappingProxyType(
    {
        "timeout": requests.Timeout,
        "connect-timeout": requests.ConnectTimeout,
        "read-timeout": requests.ReadTimeout,
        "connection": requests.ConnectionError,
        "tls": requests.exceptions.SSLError,
        "truncated": requests.exceptions.ChunkedEncodingError,
        "unreadable": requests.exceptions.ContentDecodingError,
        "any": requests.RequestException,
    }
)


def retry_rules(rules: Iterable[object]) -> tuple[int | str, ...]:
    """What a `retry_on=` holds, in the form in which it travels: statuses from 400 to 599, and names of errors.

    An exception of `requests` is given by its class or its name here. Raises TypeError or ValueError.

    >>> retry_rules([503, requests.Timeout, "connection"])
    (503, 'timeout', 'connection')
    """
    if isinstance(rules, (str, bytes, int, type)):
        raise TypeError(f"retry_on must be a list of statuses and errors, such as [503, 'timeout'], not {rules!r}")
    return tuple(_rule(one) for one in rules)


def _rule(one: object) -> int | str:
    if isinstance(one, int) and not isinstance(one, bool):
        if 400 <= one <= 599:
            return one
        raise ValueError(f"retry_on: {one} is no status from 400 to 599")
    known = {kind: name for name, kind in RETRY_NAMES.items()}
    if isinstance(one, type) and one in known:
        return known[one]
    if isinstance(one, str) and one in RETRY_NAMES:
        return one
    shown = one.__name__ if isinstance(one, type) else repr(one)
    raise ValueError(f"retry_on: {shown} is neither a status nor one of {', '.join(RETRY_NAMES)} (or their classes)")


def ruled(verdict: Verdict, rules: tuple[int | str, ...], status: object, error: BaseException | None) -> Verdict:
    """The verdict under a `retry_on`: it alone says whether the attempt may be repeated. Without rules as it was.

    An answer that counts as a success, such as 409, is none any more if it is to be repeated.
    """
    if not rules:
        return verdict
    if error is None:
        named = status in rules
    else:
        named = any(isinstance(error, kind) for name, kind in RETRY_NAMES.items() if name in rules)
    if verdict.ok:
        return Verdict(f"Answer {status}", failure=False, retry=True) if named else verdict
    return replace(verdict, retry=named)


_URL_TAIL = re.compile(r"(\?|#)[^\s'\")]*")
#: What the transport's errors begin with, and the log line already says: `[Chroma Server] GET http://chroma/x: `.
_WHOSE = re.compile(r"^\[[^\]]*\] [A-Z]+ \S+: ")
_CREDENTIALS = re.compile(r"//[^/@\s]*@")


def plain_words(error: BaseException) -> str:
    """The innermost reason: `Connection refused` rather than three nested reprs with the URL in them.

    Of a token or a key that cannot be had, which one it is, and its file.
    """
    seen: set[int] = set()
    inner: BaseException | None = None if isinstance(error, TokenUnavailable) else error
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        if isinstance(inner, OSError) and isinstance(inner.errno, int) and inner.errno in errno.errorcode:
            return os.strerror(inner.errno)
        nested = next((arg for arg in inner.args if isinstance(arg, BaseException)), None)
        inner = nested or getattr(inner, "reason", None) or inner.__cause__ or inner.__context__
        if not isinstance(inner, BaseException):
            inner = None
    text = " ".join(_URL_TAIL.sub("", _CREDENTIALS.sub("//***@", _WHOSE.sub("", str(error)))).split())
    return (text or type(error).__name__)[:200]
