"""From a client's arguments to a Service, with every mistake named."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any
from urllib.parse import urlsplit

from seawall.actors.reasons import retry_rules
from seawall.actors.service import Service, check_key, origin_of, service_key, split_timeout
from seawall.errors import ConfigurationError

__all__ = ["make_service"]

logger = logging.getLogger("seawall")

_MORE = frozenset(field.name for field in fields(Service)) - {"name", "signing"}


def make_service(
    base_url: str,
    service_name: str | None = None,
    *,
    key: str | None = None,
    max_retries: int,
    timeout: Any,
    allow_headers: Iterable[str] = (),
    retry_on: Iterable[int | str | type[BaseException]] = (),
    own_key: Callable[[str, str], str] | None = None,
    **more: Any,
) -> Service:
    """The declared service. `own_key(key, origin)` makes a key of its own for a service without a name (memory mode).

    Raises ConfigurationError (a ValueError), ValueError or TypeError.
    """
    if not isinstance(base_url, str):
        raise TypeError(f"base_url must be a string such as 'http://chroma:6003', not {type(base_url).__name__}")
    base_url = _without_placeholder(base_url)
    origin = origin_of(base_url)
    name = service_name or urlsplit(base_url).netloc.rpartition("@")[2]
    if key is None:
        key = service_key(name)
        if service_name is None and own_key is not None:
            key = own_key(key, origin)
    _check_numbers(max_retries, more)
    unknown = sorted(set(more) - _MORE)
    if unknown:
        near = difflib.get_close_matches(unknown[0], _MORE, 1)
        raise TypeError(f"unknown setting {unknown[0]!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return Service(
        key=check_key(key),
        name=name,
        base_url=base_url,
        max_retries=max_retries,
        timeout=split_timeout(timeout),
        allow_headers=frozenset(header.lower() for header in allow_headers),
        retry_on=retry_rules(retry_on),
        **more,
    )


def _without_placeholder(base_url: str) -> str:
    """The guide prints `http://service:port` for any URL; its lines shall run as they are printed."""
    if not base_url.endswith(":port"):
        return base_url
    logger.warning("base_url %r holds a placeholder instead of a port number; the scheme's own port is used", base_url)
    return base_url.removesuffix(":port")


def _check_numbers(max_retries: Any, more: dict[str, Any]) -> None:
    if isinstance(max_retries, bool) or not isinstance(max_retries, int):
        raise TypeError(f"max_retries must be a whole number, not {type(max_retries).__name__}")
    if max_retries < 1:
        raise ValueError(f"max_retries={max_retries}: it counts attempts, so 1 means a single try; give at least 1")
    counts = (
        "failure_threshold",
        "concurrency",
        "max_request_bytes",
        "max_response_bytes",
        "queue_cap",
        "queue_cap_bytes",
    )
    for name, least in (*((name, 1) for name in counts), ("max_in_flight", 0)):
        value = more.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    for name in ("slow_start", "retry_budget"):
        value = more.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise ValueError(f"{name} must be a number of at least 0, not {value!r}")
    for name in ("recovery_timeout", "expires_in"):
        if not _positive(more.get(name, 1)):
            raise ValueError(f"{name} must be a positive number of seconds, not {more[name]!r}")
    for name in ("jitter", "backoff"):
        value = more.get(name, 0)
        if not isinstance(value, (int, float)) or value < 0 or (name == "jitter" and value > 0.1):
            raise ValueError(f"{name}={value!r}: jitter is a share from 0 to 0.1, backoff seconds of at least 0")
    for name, choices in (("idempotency", ("trust", "none")), ("when_broker_down", ("run", "raise"))):
        if more.get(name, choices[0]) not in choices:
            raise ConfigurationError(f"{name} must be {choices[0]!r} or {choices[1]!r}, not {more[name]!r}")


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")
