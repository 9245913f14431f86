"""Reading a response's body: all of it, within the deadline, and never more than the cap."""

from __future__ import annotations

import io

import requests
from urllib3 import HTTPResponse

from seawall.actors.deadline import Deadline
from seawall.actors.decoding import decode_in_time
from seawall.errors import ResponseTooLarge

__all__ = ["read_body"]

#: Decoded bytes asked for at a time; what a compressed body may cost beyond the cap.
_CHUNK = 64 * 1024


def read_body(response: requests.Response, limit: Deadline, cap: int, service: str) -> None:
    """Fill `response.content`. The connection goes back to its pool, or is closed on the way out of an error.

    Raises ResponseTooLarge when more than `cap` bytes come out of decoding, requests.ReadTimeout when the time is
    over, and requests' own errors for a body that breaks off or cannot be decoded.
    """
    if response.raw is None or response._content_consumed:  # type: ignore[attr-defined]  # missing in the stubs
        return
    try:
        response._content = _read(response, limit, cap, service)
    except BaseException:
        response.close()
        raise
    response._content_consumed = True  # type: ignore[attr-defined]


def _read(response: requests.Response, limit: Deadline, cap: int, service: str) -> bytes:
    if _announced(response) > cap:
        raise _too_large(cap, service)
    if isinstance(response.raw, HTTPResponse):  # a test library's may be something else
        decode_in_time(response.raw, limit)
    with io.BytesIO() as body:  # an error has its memory back at once, whoever keeps the traceback
        for chunk in response.iter_content(_CHUNK):
            if body.tell() + len(chunk) > cap:
                raise _too_large(cap, service)
            body.write(chunk)
            if limit.passed:  # what lies in the system's buffer outlives the connection, and may be a lot of work
                raise requests.ReadTimeout("the body was not complete in time")
        # Without a length the end of a connection is the end of the body, even when the deadline cut it.
        if limit.passed:
            raise requests.ReadTimeout("the body was not complete in time")
        return body.getvalue()


def _announced(response: requests.Response) -> int:
    """The bytes that are to come on the wire, where the response says so and they are not compressed."""
    length = getattr(response.raw, "length_remaining", None)
    if "content-encoding" in response.headers or not isinstance(length, int):
        return 0
    return length


def _too_large(cap: int, service: str) -> ResponseTooLarge:
    return ResponseTooLarge(f"[{service}] the response is over the cap of {cap} bytes", service=service)
