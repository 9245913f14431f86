"""What a service answered, complete: a `requests.Response` that makes of itself only what it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from http.client import HTTPMessage
from typing import Any

import requests
from requests.cookies import MockRequest, MockResponse, RequestsCookieJar
from requests.structures import CaseInsensitiveDict

__all__ = ["Answer", "Fields", "cookies_of", "headers_of"]

#: Header lines as they came, names and values.
Fields = tuple[tuple[str, str], ...]


def headers_of(fields: Fields) -> CaseInsensitiveDict[str]:
    """Lines of the same name become one, with commas, as in requests."""
    headers: CaseInsensitiveDict[str] = CaseInsensitiveDict()
    for name, value in fields:
        known = headers.get(name)
        headers[name] = value if known is None else f"{known}, {value}"
    return headers


def cookies_of(fields: Fields, url: str) -> RequestsCookieJar:
    """By the rules of requests itself: domain, path, expiry and all."""
    jar = RequestsCookieJar()
    lines = [value for name, value in fields if name.lower() == "set-cookie"]
    if not lines:
        return jar
    message = HTTPMessage()
    for line in lines:
        message.add_header("Set-Cookie", line)
    try:
        request = requests.Request("GET", url).prepare()
    except requests.RequestException:
        return jar
    jar.extract_cookies(MockResponse(message), MockRequest(request))  # type: ignore[arg-type]
    return jar


class _Lazy:
    """An attribute that is made when it is first asked for; it may be set like any other."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._make(instance)
        return value


class Answer(requests.Response):
    """A worker sends most answers on as they are: it needs no cookie jar, no dictionary of headers, no request."""

    headers = _Lazy(lambda answer: headers_of(answer.fields))
    cookies = _Lazy(lambda answer: cookies_of(answer.fields, answer.url))
    encoding = _Lazy(lambda answer: requests.utils.get_encoding_from_headers(answer.headers))
    request = _Lazy(lambda answer: answer._make_request())

    def __init__(
        self,
        *,
        status: int,
        reason: str,
        url: str,
        fields: Fields,
        body: bytes,
        seconds: float,
        request: Callable[[], requests.PreparedRequest],
    ) -> None:
        """`seconds` from the request to the answer's head. `requests.Response`'s own __init__ makes what is lazy here."""
        self.status_code = status
        self.reason = reason
        self.url = url
        self.fields = fields
        self.elapsed = timedelta(seconds=seconds)
        self.history = []
        self.raw = None
        self._content = body
        self._content_consumed = True
        self._next = None
        self._make_request = request
