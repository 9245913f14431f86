"""What is known of a service: who it is, how long to wait for it, when to give it up."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal
from urllib.parse import urlsplit

from seawall.actors.signing import Signing
from seawall.errors import ConfigurationError
from seawall.supervisor.breaker_events import DEFAULT_SLOW_START

__all__ = ["Service", "origin_of", "queue_names", "service_key", "service_of_queue", "split_timeout"]

#: Attempts of one call (or one round of a background call), as in the guide's "attempt 1/3".
DEFAULT_MAX_RETRIES = 3
#: Seconds that one attempt may take in all, as in the guide.
DEFAULT_TIMEOUT = 10.0
#: Consecutive failed calls that open the breaker, as in the guide.
DEFAULT_FAILURE_THRESHOLD = 5
#: Seconds the breaker stays open before a trial, as in the guide.
DEFAULT_RECOVERY_TIMEOUT = 60.0
#: Calls of one service running at once in one worker process.
DEFAULT_CONCURRENCY = 8
#: Bytes of a request body; a queue is not a file store.
DEFAULT_MAX_REQUEST_BYTES = 1024 * 1024
#: Decoded bytes of a response body.
DEFAULT_MAX_RESPONSE_BYTES = 10 * 1024 * 1024
#: Seconds a background call may wait in all before it becomes a dead letter.
DEFAULT_EXPIRES_IN = 24 * 3600.0
#: Calls that one service's background queue may hold.
DEFAULT_QUEUE_CAP = 100_000
#: Bytes of the payloads that one service's background queue may hold.
DEFAULT_QUEUE_CAP_BYTES = 256 * 1024 * 1024
#: Retries that a worker process makes of a service's calls, as a share of the calls of the last minute.
DEFAULT_RETRY_BUDGET = 0.2
#: Share by which a backoff may be lengthened at random, so that callers do not retry in step.
DEFAULT_JITTER = 0.1
#: Seconds that a service may make its callers wait by Retry-After.
RETRY_AFTER_CAP = 300.0

WAITED = "waited"
BACKGROUND = "background"

_UNSAFE = re.compile(r"[^a-z0-9]+")
_KEY = re.compile(r"[a-z][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A declared service. `base_url` may hold credentials: it stays in the process that declared it.

    `timeout` is (connect, total): seconds to connect, and seconds for the whole attempt, drip included.
    `max_in_flight` bounds its calls in flight in the whole fleet, 0 does not. `retry_on` is empty for the usual rules.
    """

    key: str
    name: str
    base_url: str
    max_retries: int = DEFAULT_MAX_RETRIES
    timeout: tuple[float, float] = (DEFAULT_TIMEOUT, DEFAULT_TIMEOUT)
    failure_threshold: int = DEFAULT_FAILURE_THRESHOLD
    recovery_timeout: float = DEFAULT_RECOVERY_TIMEOUT
    health_path: str | None = None
    concurrency: int = DEFAULT_CONCURRENCY
    idempotency: Literal["trust", "none"] = "trust"
    allow_headers: frozenset[str] = field(default_factory=frozenset)
    max_request_bytes: int = DEFAULT_MAX_REQUEST_BYTES
    max_response_bytes: int = DEFAULT_MAX_RESPONSE_BYTES
    jitter: float = DEFAULT_JITTER
    backoff: float = 1.0
    when_broker_down: Literal["run", "raise"] = "run"
    expires_in: float = DEFAULT_EXPIRES_IN
    queue_cap: int = DEFAULT_QUEUE_CAP
    queue_cap_bytes: int = DEFAULT_QUEUE_CAP_BYTES
    max_in_flight: int = 0
    slow_start: float = DEFAULT_SLOW_START
    retry_on: tuple[int | str, ...] = ()
    retry_budget: float = DEFAULT_RETRY_BUDGET
    breaker: bool = True
    trust_env: bool = False
    internal_token: bool = True
    """Whether the internal token is sent; not to a host that is somebody else's."""
    signing: Signing | None = field(default=None, repr=False, compare=False)
    """Signs the requests, where the receiver wants that. It stays in the process, as credentials do."""
    target: str | None = field(default=None, repr=False)
    """Path and query to ask for instead of a call's own, where they are a secret. It stays in the process, too."""

    @property
    def origin(self) -> str:
        """Scheme, host and port, without credentials: what a queued call names as its destination."""
        return origin_of(self.base_url)

    @property
    def base_path(self) -> str:
        """The base URL's path without a trailing slash; empty for a bare origin."""
        return _base_path(self.base_url)

    @property
    def logger_name(self) -> str:
        return f"seawall.{self.key}"


@lru_cache(maxsize=1024)
def origin_of(url: str) -> str:
    """`http://user:pw@Host:80/x` -> `http://host:80`; the default port is always written out.

    Raises ConfigurationError for anything that is not an http or https URL with a host.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"base_url {_shown(url)!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError(
            f"base_url {_shown(url)!r} must start with http:// or https:// and name a host, such as http://chroma:6003"
        )
    if parts.query or parts.fragment:
        raise ConfigurationError(f"base_url {_shown(url)!r} must not hold a query or a fragment")
    literal = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{literal.lower()}:{port or (443 if parts.scheme == 'https' else 80)}"


@lru_cache(maxsize=1024)
def _base_path(url: str) -> str:
    return urlsplit(url).path.rstrip("/")


def _shown(url: str) -> str:
    """The URL without its credentials, for messages."""
    return re.sub(r"//.*@", "//***@", str(url))


def service_key(text: str) -> str:
    """A slug of a name: `Chroma Server` -> `chroma-server`; a short hash marks names that had to be cut or changed much.

    >>> service_key("Chroma Server")
    'chroma-server'
    """
    slug = _UNSAFE.sub("-", text.lower()).strip("-")
    if _KEY.fullmatch(slug):
        return slug
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"s-{slug[:40]}-{digest}".replace("--", "-")


def check_key(key: str) -> str:
    """The key itself, if it can name a queue. Raises ConfigurationError."""
    if not _KEY.fullmatch(key):
        raise ConfigurationError(
            f"key {key!r} must be lower-case letters, digits and dashes, start with a letter and have at most 63 characters"
        )
    return key


@lru_cache(maxsize=1024)
def queue_names(key: str) -> tuple[str, str]:
    """The service's two queues, waited-for first."""
    return f"{key}.{WAITED}", f"{key}.{BACKGROUND}"


def service_of_queue(queue: str) -> str:
    """`chroma.background` -> `chroma`; empty for a queue that belongs to no service."""
    key, _, kind = queue.rpartition(".")
    return key if kind in (WAITED, BACKGROUND) else ""


def split_timeout(timeout: object) -> tuple[float, float]:
    """A `timeout=` of the guide or of requests as (connect, total) in seconds.

    A number bounds the attempt's total time; `(connect, read)` gives connect and connect + read.
    Raises TypeError for None and ValueError for a number that is not positive.
    """
    if timeout is None:
        raise TypeError("timeout=None would wait for ever; give seconds, such as timeout=10")
    if isinstance(timeout, tuple):
        if len(timeout) != 2 or any(part is None for part in timeout):
            raise TypeError("timeout must be seconds or (connect, read) in seconds, both given")
        connect, read = (_positive(part) for part in timeout)
        return connect, connect + read
    total = _positive(timeout)
    return total, total


def _positive(seconds: object) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"timeout must be seconds or (connect, read) in seconds, not {type(seconds).__name__}")
    if not 0 < seconds < float("inf"):
        raise ValueError(f"timeout must be a positive number of seconds, not {seconds}")
    return float(seconds)
