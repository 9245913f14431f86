"""The `[services.KEY]` tables of `seawall.toml`: their keys, and reading them. A leaf module.

    [services.chroma]
    url = "${CHROMA_SERVER_URL:-http://chroma:6003}"
    name = "Chroma Server"
    timeout = 15

`${NAME}` and `${NAME:-default}` in a `url` are replaced from the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from seawall.kinds import (
    Kind,
    Problem,
    choice,
    expand,
    flag,
    names,
    nearest,
    number,
    numbers_and_names,
    seconds,
    seconds_or_pair,
    text,
    whole,
)

__all__ = ["SERVICE_KEYS", "ServiceKey", "ServiceTable", "read_services"]


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """What one key of a table may hold, and what it means."""

    kind: Kind
    help: str


@dataclass(frozen=True, slots=True)
class ServiceTable:
    """One table, its values checked for their types only; `source` is the file it came from."""

    key: str
    values: Mapping[str, Any]
    source: str


_COUNT = whole(1)

#: Every key of a table, in the order of the documentation.
SERVICE_KEYS: Mapping[str, ServiceKey] = MappingProxyType(
    {
        "url": ServiceKey(text("a URL"), "Base URL of the service; required."),
        "name": ServiceKey(text("a name"), "What people read in logs and errors; by default the key."),
        "max_retries": ServiceKey(_COUNT, "Attempts of one call, or of one round of a background call."),
        "timeout": ServiceKey(
            seconds_or_pair(), "Seconds that one attempt may take in all; `[connect, read]` bounds the two."
        ),
        "failure_threshold": ServiceKey(_COUNT, "Consecutive failed calls that open the breaker."),
        "recovery_timeout": ServiceKey(seconds(), "Seconds that the breaker stays open before a trial."),
        "health_path": ServiceKey(
            text("a path", pattern="/.*", like="a path that starts with /"), "Path that a trial asks for with GET."
        ),
        "concurrency": ServiceKey(_COUNT, "Calls of the service that run at once in one worker process."),
        "idempotency": ServiceKey(
            choice("trust", "none"),
            "`trust`: the service honours Idempotency-Key. `none`: what may have been sent is not sent again.",
        ),
        "allow_headers": ServiceKey(names("header names"), "Headers such as Authorization that calls may carry."),
        "max_request_bytes": ServiceKey(whole(0), "Bytes of a request body, at most."),
        "max_response_bytes": ServiceKey(whole(0), "Bytes of a decoded response body, at most."),
        "backoff": ServiceKey(seconds(zero=True), "Seconds before the second attempt; doubled before each later one."),
        "jitter": ServiceKey(
            number(0, 0.1, "a share from 0 to 0.1"), "Share by which a backoff may be lengthened at random."
        ),
        "when_broker_down": ServiceKey(
            choice("run", "raise"), "A waiting call while the broker is away: run it in the caller, or raise."
        ),
        "expires_in": ServiceKey(seconds(), "Seconds that a background call may wait before it is given up."),
        "queue_cap": ServiceKey(_COUNT, "Calls that the background queue holds, at most."),
        "queue_cap_bytes": ServiceKey(_COUNT, "Bytes of payloads that the background queue holds, at most."),
        "max_in_flight": ServiceKey(
            whole(0), "Calls of the service in flight in the whole fleet, at most; 0 is no bound."
        ),
        "slow_start": ServiceKey(
            seconds(zero=True),
            "Seconds after a recovery in which the background calls in flight grow from 1 to normal.",
        ),
        "retry_on": ServiceKey(
            numbers_and_names("statuses and names of errors"),
            "After which an attempt is repeated: statuses, `timeout`, `connection` and others; by default what may pass.",
        ),
        "retry_budget": ServiceKey(
            number(0, 1000, "a share of at least 0"),
            "Retries of a worker process in a minute, as a share of its calls; ten are made in any case.",
        ),
        "breaker": ServiceKey(flag(), "`false`: the service has no breaker."),
        "trust_env": ServiceKey(flag(), "Use the proxies and the netrc of the worker's environment."),
        "internal_token": ServiceKey(flag(), "`false`: the internal token is not sent, for a host that is not yours."),
    }
)


def read_services(
    value: object, source: str, environ: Mapping[str, str]
) -> tuple[tuple[ServiceTable, ...], list[Problem]]:
    """The tables under `services`, and everything that is wrong with them."""
    if not isinstance(value, dict):
        return (), [Problem("error", f"{source}: services", "must be tables, such as [services.chroma] with a url")]
    tables: list[ServiceTable] = []
    found: list[Problem] = []
    for key, table in value.items():
        values, wrong = _read_table(f"{source}: services.{key}", table, environ)
        tables.append(ServiceTable(key, MappingProxyType(values), source))
        found += wrong
    return tuple(tables), found


def _read_table(where: str, table: object, environ: Mapping[str, str]) -> tuple[dict[str, Any], list[Problem]]:
    if not isinstance(table, dict):
        return {}, [Problem("error", where, "must be a table with a url")]
    values: dict[str, Any] = {}
    found: list[Problem] = []
    for key, given in table.items():
        known = SERVICE_KEYS.get(key)
        if known is None:
            found.append(Problem("error", f"{where}.{key}", f"is not a key of a service{nearest(key, SERVICE_KEYS)}"))
            continue
        try:
            value = known.kind.check(given)
            values[key] = expand(value, environ) if key == "url" else value
        except ValueError as error:
            found.append(Problem("error", f"{where}.{key}", str(error)))
    if "url" not in table:
        found.append(Problem("error", where, "has no url"))
    return values, found
