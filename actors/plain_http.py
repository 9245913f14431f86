"""The plain case of HTTP/1.1 (RFC 9112), as bytes and without I/O: a request, and an answer whose head tells its length.

Whatever is not plain, an answer in chunks or compressed, one that ends with its connection, odd or broken ones, is read
by http.client and urllib3 instead; they are right about more, and slower.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from requests.exceptions import InvalidHeader

from seawall.actors.answer import Fields

__all__ = ["HEAD_END", "Head", "plain_head", "request_head"]

HEAD_END = b"\r\n\r\n"
#: Header lines of an answer at the most, as in http.client.
MAX_FIELDS = 100
#: Digits of a length that can be meant; Python itself refuses to read a few thousand of them.
_MOST_DIGITS = 18

_STATUS_LINE = re.compile(r"HTTP/1\.1 ([2-5][0-9]{2})(?: ([^\r\n]*))?")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
#: Fields that say more about the answer's end than its length, or about a body that is to be decoded.
_NOT_PLAIN = frozenset({"transfer-encoding", "content-encoding", "upgrade"})
_BODILESS = frozenset({204, 304})


class Head(NamedTuple):
    """`length` is how many bytes of body follow; `keeps` whether the connection may be used again after them."""

    status: int
    reason: str
    fields: Fields
    length: int
    keeps: bool


def request_head(method: str, target: str, fields: Iterable[tuple[str, str]]) -> bytes:
    """The request up to its body. Raises InvalidHeader for what would not stay the one line that it is."""
    lines = [f"{method} {target} HTTP/1.1"]
    for name, value in fields:
        if not _is_token(name):
            raise InvalidHeader(f"{name!r} is no name of a header")
        lines.append(f"{name}: {value}")
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1 or "\0" in text:
        raise InvalidHeader("a header of the call holds control characters")
    try:
        return text.encode("latin-1") + HEAD_END
    except UnicodeEncodeError:
        raise InvalidHeader("a header of the call holds characters that HTTP cannot carry") from None


def plain_head(data: bytes, method: str) -> Head | None:
    """The head of an answer to `method`, given without its HEAD_END; None when it is not plain.

    >>> plain_head(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2", "GET")
    Head(status=200, reason='OK', fields=(('Content-Length', '2'),), length=2, keeps=True)
    """
    first, *lines = data.decode("latin-1").split("\r\n")
    found = _STATUS_LINE.fullmatch(first)
    if found is None or len(lines) > MAX_FIELDS or data.count(b"\n") != len(lines) or data.count(b"\r") != len(lines):
        return None
    status, length, keeps, fields = int(found[1]), -1, True, []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _is_token(name):
            return None
        value = value.strip(" \t")
        fields.append((name, value))
        role = _lower(name)
        if role in _NOT_PLAIN:
            return None
        if role == "content-length":
            if length >= 0 or not (value.isascii() and value.isdigit()) or len(value) > _MOST_DIGITS:
                return None
            length = int(value)
        elif role == "connection":
            keeps = keeps and value.lower() == "keep-alive"
    if method == "HEAD" or status in _BODILESS:
        length = 0
    return Head(status, found[2] or "", tuple(fields), length, keeps) if length >= 0 else None


@lru_cache(maxsize=1024)
def _is_token(name: str) -> bool:
    return _TOKEN.fullmatch(name) is not None


@lru_cache(maxsize=1024)
def _lower(name: str) -> str:
    return name.lower()
