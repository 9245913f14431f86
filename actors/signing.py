"""Signatures of requests to foreign hosts: made by the worker that sends them, checked by whoever receives them.

    X-Seawall-Signature: t=1700000000,v1=<hex of HMAC-SHA256(key, "1700000000." + body)>

A signature is made anew for each attempt, so its time is that of the sending, however long the call has waited.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable

from seawall.actors.token import TokenSource

__all__ = ["SIGNATURE_HEADER", "Signing", "check_signature", "signature"]

#: The header that carries the signature.
SIGNATURE_HEADER = "X-Seawall-Signature"


class Signing:
    """Signs a service's requests with the key of `source`, which is read again when it changes."""

    __slots__ = ("_source", "_time")

    def __init__(self, source: TokenSource, *, wall_time: Callable[[], float] = time.time) -> None:
        self._source = source
        self._time = wall_time

    def headers(self, body: bytes | None) -> dict[str, str]:
        """The header to add, none where no key is configured. Raises TokenUnavailable for one that cannot be read."""
        found = self._source.header_value()
        return {} if found is None else {found[0]: signature(found[1], body or b"", int(self._time()))}


def signature(key: str, body: bytes, at: int) -> str:
    """The header's value for a body that is sent at this time (seconds since the epoch)."""
    return f"t={at},v1={_digest(key, body, str(at))}"


def check_signature(header: str, key: str, body: bytes, *, now: float, tolerance: float) -> None:
    """Raises ValueError that says why the header is no signature of the body, made with the key within `tolerance` seconds.

    Of several `v1=` one is enough. They are compared in a time that says nothing about the right one.
    """
    parts = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in parts if name == "t"]
    if len(times) != 1 or not times[0].isascii() or not times[0].isdigit():
        raise ValueError("the signature has no time: it must be t=<seconds>,v1=<hex>")
    wanted = _digest(key, body, times[0]).encode()
    given = [value.encode() for name, _, value in parts if name == "v1"]
    if sum(hmac.compare_digest(wanted, one) for one in given) == 0:
        raise ValueError("the signature does not match: the body was changed, or signed with another key")
    if abs(now - int(times[0])) > tolerance:
        raise ValueError(f"the signature is {abs(now - int(times[0])):.0f} s away from now, more than {tolerance:g} s")


def _digest(key: str, body: bytes, at: str) -> str:
    return hmac.new(key.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()
