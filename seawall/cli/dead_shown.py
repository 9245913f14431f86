"""One dead letter as people read it, and its request's body for whoever asks for it by name."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from seawall.actors.queue_store import DeadLetter
from seawall.actors.record import Malformed, TooNew, decode_call
from seawall.cli.tables import duration

__all__ = ["described", "with_body"]


def with_body(letter: DeadLetter, details: dict[str, Any]) -> dict[str, Any]:
    """The details with the request's `body` as text, or as `body_base64` where it is none."""
    request = details.get("request")
    if request is None:
        return details
    try:
        body = decode_call(letter.payload).body or b""
    except (Malformed, TooNew):
        return details
    try:
        shown = {"body": body.decode()}
    except UnicodeDecodeError:
        shown = {"body_base64": base64.b64encode(body).decode()}
    return details | {"request": request | shown}


def described(shown: dict[str, Any], now: float | None = None) -> str:
    """The letter's row and details in lines; times in words and in UTC."""
    return "\n".join(_lines(shown, time.time() if now is None else now))


def _lines(shown: dict[str, Any], now: float) -> Iterator[str]:
    request = shown["request"]
    yield f"{shown['id']}  {shown['service']}"
    yield f"died      {_moment(shown['died_at'], now)}: {shown['reason']}"
    if request is None:
        yield f"request   cannot be read: {shown.get('unreadable', '')}"
    else:
        yield f"request   {shown['method']} {shown['path']} at {request['origin']}, body of {request['body_bytes']} bytes"
        for name, value in request["headers"].items():
            yield f"          {name}: {value}"
    yield f"attempts  {len(shown['attempts']) or 'none'}, in {shown['rounds']} failed round{'' if shown['rounds'] == 1 else 's'}"
    for attempt in shown["attempts"]:
        yield f"          {_moment(attempt['at'], now)}: {attempt['outcome']}, after {_took(attempt['took'])}"
    if request is not None and (body := request.get("body", request.get("body_base64"))) is not None:
        yield f"body{'' if 'body' in request else ' in base64'}"
        yield body


def _took(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _moment(at: float, now: float) -> str:
    return f"{duration(now - at)} ago ({datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC)"
