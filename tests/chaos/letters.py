"""What a call carries and what its answer must say: both follow from the call's number, so that anybody can check them."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

__all__ = ["answer_to", "body_of", "digest", "number_in"]

#: Bytes of filling in a body, at most: some bodies take several reads.
MOST_FILLING = 20_000


def body_of(number: str) -> bytes:
    """The body of the POST with this number; short ones are more frequent, as in life."""
    dice = random.Random(number)
    filling = "".join(dice.choices("abcdefgh", k=int(MOST_FILLING ** dice.random())))
    return json.dumps({"number": number, "filling": filling}).encode()


def digest(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()[:16]


def answer_to(service: str, path: str, body: bytes) -> dict[str, Any]:
    """The service's answer; it fills as much as the request did."""
    return {"service": service, "path": path, "sum": digest(body), "filling": "z" * len(body)}


def number_in(path: str) -> str:
    """`/post/client-1.2.17` -> `client-1.2.17`"""
    return path.rpartition("/")[2]
