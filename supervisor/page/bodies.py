"""Reading what a request brings, as far as it is small enough."""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from seawall.supervisor.page.desk import REASONS, Wanted

__all__ = ["asked_for", "read_body", "read_object", "wanted_of"]

#: What can name a service, and the longest id of a call that is taken.
_KEY = re.compile(r"[a-z][a-z0-9-]{0,62}")
LONGEST_ID = 200
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


def asked_for(request: Request) -> Wanted:
    """Which dead letters a request's query means. Raises HTTPException 400."""
    return wanted_of(request.query_params.get("service", ""), request.query_params.get("reason", ""))


def wanted_of(service: str, reason: str, ids: tuple[str, ...] = ()) -> Wanted:
    """What is said of these stands in log lines and in the audit list. Raises HTTPException 400 for what can name nothing."""
    if service and not _KEY.fullmatch(service):
        raise HTTPException(400, "service is no key of a service")
    if reason and reason not in REASONS:
        raise HTTPException(400, f"reason is none of {', '.join(REASONS)}")
    if not all(id.isprintable() and 0 < len(id) <= LONGEST_ID for id in ids):
        raise HTTPException(400, "ids has what is no id of a call")
    return Wanted(service, reason, ids)
