"""What went wrong on the wire, as an error of requests or of Seawall: the one place where lower errors are translated.

The errors that come out have short texts without a query, carry the request without its secrets, and say whether
the request may have left this process.
"""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
from collections.abc import Iterator

import requests
from requests.exceptions import ChunkedEncodingError, ContentDecodingError, InvalidHeader
from urllib3.exceptions import ConnectTimeoutError, DecodeError, NewConnectionError
from urllib3.exceptions import HTTPError as Urllib3Error

from seawall.actors.redact import path_only
from seawall.actors.service import Service
from seawall.actors.wire import Exchange
from seawall.errors import LocalResourceError, SeawallError

__all__ = ["WIRE_ERRORS", "died_unanswered", "mark_sent", "may_have_been_sent", "translated"]

#: Everything that sending a request can raise for a reason outside the program.
WIRE_ERRORS = (
    requests.RequestException,
    Urllib3Error,
    http.client.HTTPException,
    OSError,
    ValueError,
    MemoryError,
)

#: This process or this machine is short of something; the service has nothing to do with it.
_LOCAL_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
#: Layers of wrapping that are looked through; requests over urllib3 over http.client has about five.
_DEPTH = 12
#: Characters of a reason; what a broken server sends may be long.
_LONGEST_REASON = 200
#: The attribute under which an error remembers whether its request may have left.
_MARK = "may_have_been_sent"


def may_have_been_sent(error: BaseException) -> bool:
    """Whether any byte of the request may have left this process before the error. True where nobody knows.

    An error that came from a test's patched function carries no mark and counts as unknown, so as True.
    """
    return bool(getattr(error, _MARK, True))


def mark_sent(error: BaseException, sent: bool) -> None:
    setattr(error, _MARK, sent)


def translated(
    error: BaseException, exchange: Exchange, service: Service, request: requests.PreparedRequest, timeout: float
) -> Exception:
    """The error to raise instead. Its cause is the innermost one, whose text holds no address."""
    found = _renamed(error, exchange, service, request, timeout)
    mark_sent(found, exchange.sent)
    return found


def _renamed(
    error: BaseException, exchange: Exchange, service: Service, request: requests.PreparedRequest, timeout: float
) -> Exception:
    if isinstance(error, (SeawallError, requests.TooManyRedirects)):
        error.request = request
        return error
    what = f"[{service.name}] {request.method} {path_only(request.url or '')}"
    local = next((inner for inner in _layers(error) if _is_local(inner)), None)
    if local is not None:
        return _caused(LocalResourceError(f"{what}: no resources: {local}", service=service.name), local)
    # urllib3's errors of a refused connection and of an unknown name are timeouts by inheritance only.
    slow = isinstance(error, ConnectTimeoutError) and not isinstance(error, NewConnectionError)
    if slow or exchange.limit.passed or isinstance(error, requests.Timeout):
        if slow or exchange.connecting or isinstance(error, requests.ConnectTimeout):
            return requests.ConnectTimeout(f"{what}: no connection in time", request=request)
        return requests.ReadTimeout(f"{what}: no complete answer within {timeout:g} s", request=request)
    root = _root(error)
    return _caused(_kind(error, exchange)(f"{what}: {_reason(root)}", request=request), root)


def _kind(error: BaseException, exchange: Exchange) -> type[requests.RequestException]:
    """The class of the error to raise: requests' own, or ConnectionError for what escaped from below it."""
    if isinstance(error, InvalidHeader) and exchange.sent:
        # urllib3's word for an answer with contradicting lengths; the request was in order.
        return requests.ConnectionError
    if isinstance(error, requests.RequestException):
        return type(error)
    if exchange.connecting and any(isinstance(layer, (ssl.SSLError, ssl.CertificateError)) for layer in _layers(error)):
        return requests.exceptions.SSLError
    if isinstance(error, DecodeError):
        return ContentDecodingError
    if isinstance(error, ValueError) and not exchange.sent:
        # http.client refuses to write a header or a method with control characters.
        return InvalidHeader
    return ChunkedEncodingError if exchange.answered else requests.ConnectionError


def _caused(error: Exception, root: BaseException) -> Exception:
    error.__cause__ = root
    return error


def died_unanswered(error: BaseException, exchange: Exchange) -> bool:
    """Whether the connection ended before any byte of an answer, and not because the time was over."""
    if exchange.answered or exchange.limit.passed or isinstance(error, requests.Timeout):
        return False
    return isinstance(_root(error), (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError))


def _layers(error: BaseException) -> Iterator[BaseException]:
    """The error and what it wraps, outermost first: by argument, by `reason`, by cause."""
    inner: BaseException | None = error
    for _ in range(_DEPTH):
        if inner is None:
            return
        yield inner
        wrapped = [getattr(inner, "reason", None), *reversed(inner.args), inner.__cause__]
        inner = next((each for each in wrapped if isinstance(each, BaseException)), None)


def _root(error: BaseException) -> BaseException:
    *_, root = _layers(error)
    return root


def _is_local(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    # A resolver's errors have numbers of their own.
    return isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno in _LOCAL_ERRNOS


def _reason(root: BaseException) -> str:
    if isinstance(root, OSError) and root.strerror and root.errno:
        return str(root.strerror)[:_LONGEST_REASON]
    if isinstance(root, http.client.BadStatusLine) and not isinstance(root, http.client.RemoteDisconnected):
        return f"the answer does not start with a status line: {root}"[:_LONGEST_REASON]
    return (str(root) or type(root).__name__)[:_LONGEST_REASON]
