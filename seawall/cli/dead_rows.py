"""A dead letter for people and programs, without its secrets; and sending one again."""

from __future__ import annotations

from typing import Any

from seawall.actors.queue_store import DeadLetter
from seawall.actors.record import Malformed, TooNew, decode_call
from seawall.actors.redact import path_only, redact_headers
from seawall.actors.service import DEFAULT_EXPIRES_IN, service_of_queue
from seawall.cli.dead_letters import Chosen
from seawall.runtime import Runtime, registry

__all__ = ["letter_details", "letter_row", "replay_letter"]


def letter_row(letter: DeadLetter) -> dict[str, Any]:
    """One line of a list."""
    row: dict[str, Any] = {
        "id": letter.id,
        "service": service_of_queue(letter.queue) or letter.queue,
        "reason": letter.reason,
        "died_at": letter.at,
        "rounds": letter.progress.round,
        "last_error": letter.progress.history[-1].outcome if letter.progress.history else None,
        "method": None,
        "path": None,
    }
    try:
        call = decode_call(letter.payload)
    except (Malformed, TooNew):
        return row
    return row | {"method": call.method, "path": path_only(call.target)}


def letter_details(letter: DeadLetter, runtime: Runtime) -> dict[str, Any]:
    """Attempts, and the request as far as it may be seen and can be read."""
    attempts = [{"at": one.at, "outcome": one.outcome, "took": one.took} for one in letter.progress.history]
    try:
        call = decode_call(letter.payload)
    except (Malformed, TooNew) as error:
        return {"attempts": attempts, "request": None, "unreadable": str(error)}
    headers = redact_headers(call.headers, token_header=runtime.settings.internal_token_header)
    request = {"origin": call.origin, "headers": dict(headers), "body_bytes": len(call.body or b"")}
    return {"attempts": attempts, "request": request}


def replay_letter(runtime: Runtime, letter: Chosen) -> bool:
    """Queue it again; False when it is gone. Its time to expire begins anew."""
    declared = registry.find(service_of_queue(letter.queue))
    expires_in = declared.expires_in if declared is not None else DEFAULT_EXPIRES_IN
    return runtime.engine.queue.replay(letter.queue, letter.id, expires_in)
