"""A call made ready in its caller: what is wrong with it shows there and at once; the worker only sends.

requests' own preparation is used for address, headers and body, so that its errors are requests' own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import requests
from requests.exceptions import InvalidHeader, InvalidJSONError

from seawall.actors.options import check_options
from seawall.actors.paths import check_stays, url_of
from seawall.actors.prepare_plain import Plain, prepare_plain
from seawall.actors.redact import path_only
from seawall.actors.service import Service, split_timeout
from seawall.actors.token import DEFAULT_TOKEN_HEADER
from seawall.errors import RequestTooLarge

__all__ = ["Prepared", "prepare"]

#: Methods that get an idempotency key: the others may be repeated as they are.
_KEYED = frozenset({"POST", "PATCH"})
IDEMPOTENCY_KEY = "Idempotency-Key"
_LOWER_KEY = IDEMPOTENCY_KEY.lower()
#: Headers that hold credentials; a queue does not, unless the service allows it by name.
_CREDENTIALS = ("Authorization", "Cookie", "Proxy-Authorization")
#: Headers that belong to whoever sends.
_SENDERS_OWN = {
    "Host": "it follows from the client's base_url",
    "Transfer-Encoding": "a queued body is always sent whole, with its Content-Length",
    "Content-Length": "it follows from the body",
}
#: Bytes of path, query and headers; servers refuse more, and a queue is not a file store.
_MAX_HEAD_BYTES = 64 * 1024

_METHOD = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_UNFIT = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

#: Services, with the header, that were warned of a token in a call.
_warned: dict[tuple[str, str], object] = {}


class UnserialisableJSON(InvalidJSONError, TypeError):
    """The `json=` value holds something that JSON has no form for. Both requests' error and Python's own TypeError."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A call's request, complete but for what only the worker may know. Times are seconds.

    `target` is path and query as they go on the wire, base path included. `original` holds the caller's own keywords
    and, as `url`, the address without `params`, for memory mode under a patched `requests.request`.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | None
    connect_timeout: float
    timeout: float
    redirects: bool
    original: dict[str, Any]

    def __repr__(self) -> str:
        """Without headers, body and keywords: these may hold what nobody else is to read."""
        return f"<{self.method} {path_only(self.target)}>"


def prepare(
    service: Service,
    method: str,
    path: str,
    options: Mapping[str, Any],
    *,
    call_id: str,
    token_header: str = DEFAULT_TOKEN_HEADER,
    logger: logging.Logger | None = None,
) -> Prepared:
    """Check a call's arguments and write them as they will go on the wire.

    Raises TypeError and ValueError for wrong arguments, requests' own InvalidHeader, InvalidJSONError and InvalidURL,
    and RequestTooLarge for a body over `service.max_request_bytes`.
    """
    check_options(options)
    connect_timeout, timeout = split_timeout(options["timeout"]) if "timeout" in options else service.timeout
    made = prepare_plain(service, method, path, options, token_header)
    if made is None:
        log = logger or logging.getLogger(service.logger_name)
        made = _prepare_fully(service, method, path, options, token_header, log)
    if made.method in _KEYED and not any(name.lower() == _LOWER_KEY for name, _ in made.headers):
        made.headers.append((IDEMPOTENCY_KEY, call_id))
    prepared = Prepared(
        method=made.method,
        target=made.target,
        headers=tuple(made.headers),
        body=made.body,
        connect_timeout=connect_timeout,
        timeout=timeout,
        # requests.head() does not follow redirects either.
        redirects=bool(options.get("allow_redirects", made.method != "HEAD")),
        original={**options, "url": made.url},
    )
    _check_size(prepared, service)
    return prepared


def _prepare_fully(
    service: Service, method: str, path: str, options: Mapping[str, Any], token_header: str, logger: logging.Logger
) -> Plain:
    """By requests' own preparation, and its errors."""
    request = requests.PreparedRequest()
    request.prepare_method(_checked_method(method))
    url = url_of(service, path)
    request.prepare_url(url, options.get("params"))
    check_stays(service, request.url or "")
    request.prepare_headers(_own_headers(options.get("headers")))
    _drop_token(request, service, token_header, logger)
    _check_headers(request, service)
    _prepare_cookies(request, options.get("cookies"), service)
    body = _prepared_body(request, options)
    headers = [(str(name), _text(value)) for name, value in request.headers.items()]
    return Plain(request.method or "", url, request.path_url, headers, body)


def _checked_method(method: str) -> str:
    if not isinstance(method, str):
        raise TypeError(f"method must be a str such as 'GET', not {type(method).__name__}")
    if not _METHOD.fullmatch(method) or method.upper() == "CONNECT":
        raise ValueError(f"{method!r} is not a method that can be called")
    return method


def _own_headers(headers: Any) -> dict[str | bytes, Any]:
    """The caller's headers; None as a value leaves a header out, as in requests."""
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers must be a mapping of names to values, not {type(headers).__name__}")
    return {name: value for name, value in headers.items() if value is not None}


def _drop_token(request: requests.PreparedRequest, service: Service, token_header: str, logger: logging.Logger) -> None:
    """The guide's old calls add the token themselves; here it must not reach a queue, and the worker adds it."""
    if request.headers.pop(token_header, None) is None:
        return
    first = object()
    if _warned.setdefault((service.key, token_header), first) is first:
        logger.warning(
            "[%s] the header %s is left out of calls: the worker adds it; remove it from the call",
            service.name,
            token_header,
        )


def _check_headers(request: requests.PreparedRequest, service: Service) -> None:
    for name, reason in _SENDERS_OWN.items():
        if name in request.headers:
            raise ValueError(f"the header {name} cannot be set: {reason}")
    for name in _CREDENTIALS:
        if name in request.headers:
            _check_allowed(name, service)
    for name, value in request.headers.items():
        _check_encodable(str(name), _text(value))


def _check_allowed(name: str, service: Service) -> None:
    if name.lower() not in {allowed.lower() for allowed in service.allow_headers}:
        raise ValueError(
            f"{name} would lie in the queue in clear text; put credentials into the base_url of {service.name!r}, "
            f"or list {name!r} in its allow_headers"
        )


def _check_encodable(name: str, value: str) -> None:
    """What http.client would refuse, or change, only when it sends."""
    try:
        name.encode("ascii")
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise InvalidHeader(f"the header {name!r} holds characters that HTTP cannot carry") from None
    if _UNFIT.search(name) or _UNFIT.search(value):
        raise InvalidHeader(f"the header {name!r} holds control characters")


def _prepare_cookies(request: requests.PreparedRequest, cookies: Any, service: Service) -> None:
    if not cookies:
        return
    _check_allowed("Cookie", service)
    request.prepare_cookies(cookies)
    _check_encodable("Cookie", _text(request.headers.get("Cookie", "")))


def _prepared_body(request: requests.PreparedRequest, options: Mapping[str, Any]) -> bytes | None:
    data, json = options.get("data"), options.get("json")
    if isinstance(data, (bytearray, memoryview)):
        data = bytes(data)
    try:
        request.prepare_body(data, options.get("files"), json)
    except (TypeError, RecursionError) as error:
        if json is None or data or options.get("files"):
            raise
        raise UnserialisableJSON(error, request=request) from error
    body: Any = request.body
    return body.encode() if isinstance(body, str) else body


def _check_size(prepared: Prepared, service: Service) -> None:
    size = len(prepared.body or b"")
    if size > service.max_request_bytes:
        raise RequestTooLarge(
            f"[{service.name}] the body has {size} bytes, over the cap of {service.max_request_bytes}; "
            "send a reference to the data instead",
            service=service.name,
        )
    head = len(prepared.target) + sum(len(name) + len(value) for name, value in prepared.headers)
    if head > _MAX_HEAD_BYTES:
        raise RequestTooLarge(
            f"[{service.name}] path, query and headers have {head} bytes, over the cap of {_MAX_HEAD_BYTES}; "
            "send the data as a body",
            service=service.name,
        )


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
