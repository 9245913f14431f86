"""What the four services share: routes, JSON in and out, the internal token, failing on purpose, counting.

    POST /admin/fail?seconds=20    answer 500 to everything else for that long, /health included; 0 ends it
    GET  /admin/requests           requests by Idempotency-Key: {"keys": {key: [received, delivered]}, ...}
    GET  /health                   200 while the service works; needs no token

No sockets here: `App.answer` turns a Request into an Answer, `serving` does the rest.
"""

from __future__ import annotations

import hmac
import json
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

from examples.caudex.servers.fields import Problem, whole_number
from examples.caudex.servers.tally import Tally

__all__ = ["Answer", "App", "Request", "Route", "route"]

#: Seconds that one call of /admin/fail may ask for.
LONGEST_FAILURE = 3600
#: Characters of an Idempotency-Key.
LONGEST_KEY = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request; `params` are the named parts of its path, `headers` have lower-case names."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    params: Mapping[str, str] = field(default_factory=dict)

    @property
    def idempotency_key(self) -> str:
        key = self.headers.get("idempotency-key", "")
        if len(key) > LONGEST_KEY or not key.isprintable():
            raise Problem(400, f"Idempotency-Key must be at most {LONGEST_KEY} printable characters")
        return key

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; an empty body is an empty object. Problem 400 for anything else."""
        try:
            value = json.loads(self.body or b"{}")
        except (ValueError, RecursionError):
            raise Problem(400, "the body is not JSON") from None
        if not isinstance(value, dict):
            raise Problem(400, "the body must be a JSON object")
        return value


@dataclass(frozen=True, slots=True)
class Answer:
    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    pattern: re.Pattern[str]
    handler: Callable[[Request], Answer]


def route(method: str, path: str, handler: Callable[[Request], Answer]) -> Route:
    """A route; `{name}` in the path stands for one part of it, found in `request.params`."""
    return Route(method, re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", path)), handler)


class App:
    """A service as a function from requests to answers. Safe to call from many threads."""

    def __init__(
        self,
        name: str,
        routes: Sequence[Route],
        *,
        tally: Tally,
        token: str = "",
        token_header: str = "X-Internal-Token",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._routes = list(routes)
        self._tally = tally
        self._token = token
        self._token_header = token_header.lower()
        self._monotonic = monotonic
        self._failing_until = 0.0
        self._admin = [
            route("POST", "/admin/fail", self._fail),
            route("GET", "/admin/requests", lambda _: Answer(tally.report())),
        ]

    def answer(self, request: Request) -> Answer:
        """Never raises: what goes wrong becomes an answer with an "error"."""
        try:
            return self._answer(request)
        except Problem as problem:
            return Answer({"error": str(problem)}, problem.status)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            return Answer({"error": "internal error"}, 500)

    def _answer(self, request: Request) -> Answer:
        if request.path == "/health":
            return self._failure() or Answer({"status": "ok", "service": self.name})
        self._check_token(request)
        if request.path.startswith("/admin/"):
            return _dispatch(self._admin, request)
        return self._counted(request)

    def _counted(self, request: Request) -> Answer:
        key = request.idempotency_key
        try:
            answer = self._failure() or _dispatch(self._routes, request)
        except Exception as error:
            if key:
                self._tally.add(key, error.status if isinstance(error, Problem) else 500)
            raise
        if key:
            self._tally.add(key, answer.status)
        return answer

    def _check_token(self, request: Request) -> None:
        given = request.headers.get(self._token_header, "")
        if self._token and not hmac.compare_digest(given.encode(), self._token.encode()):
            raise Problem(401, "the internal token is missing or wrong")

    def _failure(self) -> Answer | None:
        if self._monotonic() < self._failing_until:
            return Answer({"error": f"{self.name} fails on purpose"}, 500)
        return None

    def _fail(self, request: Request) -> Answer:
        seconds = whole_number(request.query, "seconds", low=0, high=LONGEST_FAILURE)
        self._failing_until = self._monotonic() + seconds
        return Answer({"failing_for": seconds})


def _dispatch(routes: Sequence[Route], request: Request) -> Answer:
    matches = [(found, match) for found in routes if (match := found.pattern.fullmatch(request.path))]
    for found, match in matches:
        if found.method == request.method:
            params = {name: unquote(part) for name, part in match.groupdict().items()}
            return found.handler(replace(request, params=params))
    if matches:
        return Answer({"error": "wrong method"}, 405, {"Allow": ", ".join(found.method for found, _ in matches)})
    raise Problem(404, "no such path")
