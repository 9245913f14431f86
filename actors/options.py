"""The keywords of a call: those of `requests` that a queue can carry, and what to do instead of the others."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from http.cookiejar import CookieJar
from typing import Any, Literal, TypeAlias, TypedDict

__all__ = ["BackgroundCallOptions", "CallOptions", "EnqueueOptions", "Headers", "WaitOptions", "check_options"]

Params: TypeAlias = Mapping[str, Any] | Sequence[tuple[str, Any]] | str | bytes
Data: TypeAlias = Mapping[str, Any] | Sequence[tuple[str, Any]] | str | bytes | bytearray | memoryview
Files: TypeAlias = Mapping[str, Any] | Sequence[tuple[str, Any]]
Headers: TypeAlias = Mapping[str, str | bytes | None]


class CallOptions(TypedDict, total=False):
    """requests' own keywords, with requests' own meaning, for `Unpack`.

    `timeout` bounds the attempt's whole time in seconds; `(connect, read)` gives connect and connect + read.
    `files` are read when the call is made. `cookies` need the service to list Cookie in `allow_headers`.
    """

    params: Params | None
    data: Data | None
    json: Any
    headers: Headers | None
    cookies: Mapping[str, str] | CookieJar | None
    files: Files | None
    timeout: float | tuple[float, float]
    allow_redirects: bool


class WaitOptions(CallOptions, total=False):
    """What a waited-for call takes besides.

    `deadline` is seconds for all of it, queue and attempts and backoffs. `retry_on` lists the statuses and errors after
    which an attempt is repeated. `fallback` is returned instead of raising: a value, or a function of the exception.
    """

    deadline: float | None
    retry_on: Iterable[int | str | type[BaseException]]
    fallback: Any


class BackgroundCallOptions(CallOptions, total=False):
    """What a background call takes besides; `ResilientServiceClient.enqueue` says what each of them means."""

    delay: float
    not_before: float | datetime
    expires_in: float | None
    coalesce: str
    dedupe: str
    dedupe_window: float
    on_open: Literal["hold", "skip"]
    rounds: int
    retry_on: Iterable[int | str | type[BaseException]]


class EnqueueOptions(BackgroundCallOptions, total=False):
    """And one whose handle is kept: `keep_result`, seconds for which its result can be asked for."""

    keep_result: float


_KNOWN = frozenset(CallOptions.__annotations__)

#: What is no keyword of requests, and taken by some verbs: for the hint at a slip of the pen.
_OURS = frozenset(WaitOptions.__annotations__) | frozenset(EnqueueOptions.__annotations__)

#: What a queue cannot carry: the values that change nothing, and what to do instead of the others.
_REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "stream": ((False,), "the answer comes back whole; leave it out, and fetch large files without a queue"),
    "hooks": ((), "a function cannot travel; call it on the response that comes back"),
    "cert": ((), "a client certificate stays off the queue; put a TLS proxy between the workers and the service"),
    "proxies": ((), "create the client with trust_env=True and set HTTP_PROXY and HTTPS_PROXY where workers run"),
    "verify": ((True,), "create the client with trust_env=True and set REQUESTS_CA_BUNDLE where workers run"),
    "auth": (
        (),
        "put user and password into the client's base_url, or list 'Authorization' in its allow_headers and send that header",
    ),
}


def check_options(options: Mapping[str, Any]) -> None:
    """Raises TypeError for a keyword that is unknown or that a queue cannot carry. Default values pass."""
    for name, value in options.items():
        if name in _KNOWN:
            continue
        if name not in _REFUSED:
            raise TypeError(f"unexpected keyword argument {name!r}{_nearest(name)}")
        harmless, instead = _REFUSED[name]
        if value is not None and value not in harmless and not _is_empty(value):
            raise TypeError(f"{name}= cannot be queued: {instead}")
    _check_data(options.get("data"))


def _is_empty(value: object) -> bool:
    return isinstance(value, (Mapping, tuple, list)) and not value


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, sorted(_KNOWN | _OURS), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _check_data(data: object) -> None:
    if data is None or isinstance(data, (str, bytes, bytearray, memoryview, list, tuple, Mapping)):
        return
    if hasattr(data, "read"):
        raise TypeError(
            "data= cannot be an open file: the call is sent later, by another process; use data=file.read()"
        )
    if hasattr(data, "__iter__"):
        raise TypeError(
            "data= cannot be an iterator: the call is sent later, maybe more than once; use data=b''.join(parts)"
        )
    raise TypeError(f"data= must be bytes, str, a mapping or a list of pairs, not {type(data).__name__}")
