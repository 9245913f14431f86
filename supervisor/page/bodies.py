"""Reading what a request brings, as far as it is small enough."""

from __future__ import annotations

import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

__all__ = ["read_body", "read_object"]

#: Bytes of a request for an action.
LARGEST_JSON = 256 * 1024


async def read_body(request: Request, largest: int) -> bytes:
    """Raises HTTPException 413 for more than `largest` bytes."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > largest:
            raise HTTPException(413, f"the request is larger than {largest} bytes")
    return bytes(body)


async def read_object(request: Request) -> dict[str, Any]:
    """A JSON object. Raises HTTPException for what is none, or does not say that it is one: a form of another site cannot."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "this takes JSON: Content-Type: application/json")
    try:
        found = json.loads(await read_body(request, LARGEST_JSON) or b"{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise HTTPException(400, "this takes a JSON object")
    return found
