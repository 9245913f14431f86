"""Sends one attempt of a prepared call: credentials added, redirects on the own origin, everything within its time.

Statuses are the caller's business: whatever the service answers comes back as a response.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import Any

import requests
from requests.hooks import default_hooks
from requests.structures import CaseInsensitiveDict

from seawall.actors.body import read_body
from seawall.actors.deadline import until
from seawall.actors.failures import WIRE_ERRORS, died_unanswered, mark_sent, translated
from seawall.actors.lines import Lines
from seawall.actors.patched import is_patched, send_patched
from seawall.actors.paths import base_of
from seawall.actors.record import Call
from seawall.actors.redact import path_only
from seawall.actors.redirects import MAX_REDIRECTS, follow_up
from seawall.actors.service import Service
from seawall.actors.token import TokenSource
from seawall.actors.wire import Exchange
from seawall.errors import TokenUnavailable

__all__ = ["IDEMPOTENT", "OriginMismatch", "Transport"]

#: Methods that may be sent again when it is not known whether they were sent (RFC 9110, 9.2.2).
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
#: What is asked for where the caller did not say: as requests does, but only encodings that the standard library
#: decodes in bounded memory.
_ACCEPT = {"Accept": "*/*", "Accept-Encoding": "gzip, deflate", "Connection": "keep-alive"}
#: The shortest time handed to a socket; 0 would mean something else.
_LEAST_TIMEOUT = 0.001

#: Path and query as they go on the wire: quoted already.
_TARGET = re.compile(r"/[\x21-\x7e]*")


class OriginMismatch(ValueError):
    """The call is addressed to another origin than the service's, or to no proper path on it; it is not sent."""


class Transport:
    """Sends the calls of one service from this process; shared by its threads, rebuilt by itself after a fork.

    `session_mode` is memory mode's: a patched `requests.request` is called in place of the wire, and the rest goes
    through `requests.Session.send`, where test libraries wait for it.
    """

    def __init__(self, service: Service, token: TokenSource | None, *, session_mode: bool = False) -> None:
        self.service = service
        self._token = token
        self._session_mode = session_mode
        self._log = logging.getLogger(service.logger_name)
        self._base, _ = base_of(service.origin, service.base_path)
        self._credentials = _basic_credentials(service.base_url)
        self._lines: Lines | None = None

    def __repr__(self) -> str:
        return f"Transport({self.service.key!r}, {self.service.origin!r})"

    def send(self, call: Call, *, original: Mapping[str, Any] | None = None) -> requests.Response:
        """One attempt. The answer is complete, whatever its status.

        Raises OriginMismatch for a call that is not this service's. Everything else it raises is a
        requests.RequestException: requests' own errors of the wire, ResponseTooLarge, TokenUnavailable,
        LocalResourceError; `may_have_been_sent` tells whether bytes may have left. In session mode the responses
        and the errors of patched functions and fake adapters pass as the very objects.
        """
        secrets = self._checked_secrets(call)
        if self._session_mode and is_patched():
            response: requests.Response = send_patched(self.service, self._base, call, original, secrets)
            return response
        request = self._request(call)
        exchange = Exchange(until(call.timeout), alone=not _repeatable(call))
        try:
            with exchange.limit, exchange:
                return self._through_redirects(call, request, secrets, exchange)
        except WIRE_ERRORS as error:
            if self._session_mode and not exchange.touched:
                _hide_secrets(error, request)
                raise
            failure = translated(error, exchange, self.service, request, call.timeout)
        raise failure

    def close(self) -> None:
        """Close the unused connections; those in use are closed after their call. Sending again opens new ones."""
        lines, self._lines = self._lines, None
        if lines is not None and lines.pid == os.getpid():
            lines.close()

    def _checked_secrets(self, call: Call) -> dict[str, str]:
        """The headers that only this process may know. Raises OriginMismatch or TokenUnavailable."""
        try:
            if call.origin != self.service.origin or not _TARGET.fullmatch(call.target):
                where = f"{call.origin}, {path_only(call.target)!r}"
                raise OriginMismatch(
                    f"[{self.service.name}] a call for {where} does not belong to {self.service.origin}"
                )
            token = self._token.header_value() if self._token is not None else None
        except (OriginMismatch, TokenUnavailable) as error:
            mark_sent(error, False)
            raise
        own = {name.lower() for name, _ in call.headers}
        secrets = {name: value for name, value in self._credentials.items() if name.lower() not in own}
        return secrets | dict((token,) if token is not None else ())

    def _request(self, call: Call) -> requests.PreparedRequest:
        """The request as anybody may see it: without token and credentials."""
        request = requests.PreparedRequest()
        request.method, request.url, request.body = call.method, self._base + call.target, call.body
        headers = CaseInsensitiveDict({"User-Agent": _user_agent(), **_ACCEPT})
        headers.update(call.headers)
        for name in ("Host", "Transfer-Encoding", self._token.header if self._token is not None else ""):
            headers.pop(name, None)
        if call.body is not None:
            headers["Content-Length"] = str(len(call.body))
        request.headers = headers
        request.hooks = default_hooks()
        return request

    def _through_redirects(
        self, call: Call, request: requests.PreparedRequest, secrets: Mapping[str, str], exchange: Exchange
    ) -> requests.Response:
        history: list[requests.Response] = []
        while True:
            response = self._answer(call, request, secrets, exchange)
            response.history = history
            following = self._following(call, request, response)
            if following is None:
                return response
            if len(history) == MAX_REDIRECTS:
                raise requests.TooManyRedirects(f"Exceeded {MAX_REDIRECTS} redirects.", response=response)
            history = [*history, response]
            request = following

    def _following(
        self, call: Call, request: requests.PreparedRequest, response: requests.Response
    ) -> requests.PreparedRequest | None:
        if not call.redirects or not response.is_redirect:
            return None
        following = follow_up(request, response)
        if following is None:
            self._log.warning(
                "[%s] %s %s answered %d with a redirect to another origin, %s: not followed",
                self.service.name,
                request.method,
                path_only(call.target),
                response.status_code,
                path_only(response.headers["location"]),
            )
        return following

    def _answer(
        self, call: Call, request: requests.PreparedRequest, secrets: Mapping[str, str], exchange: Exchange
    ) -> requests.Response:
        secret = request.copy()
        secret.headers.update(secrets)
        response = self._sent(call, secret, exchange)
        response.request = request
        read_body(response, exchange.limit, self.service.max_response_bytes, self.service.name)
        return response

    def _sent(self, call: Call, request: requests.PreparedRequest, exchange: Exchange) -> requests.Response:
        """Send it, and once more where a kept connection turns out to have been closed by the other side."""
        try:
            return self._once(call, request, exchange)
        except requests.ConnectionError as error:
            if not (exchange.reused and died_unanswered(error, exchange)):
                raise
        self._log.debug("[%s] a kept connection was closed; sending on a new one", self.service.name)
        exchange.alone = True
        return self._once(call, request, exchange)

    def _once(self, call: Call, request: requests.PreparedRequest, exchange: Exchange) -> requests.Response:
        left = exchange.limit.remaining or _LEAST_TIMEOUT
        timeout = (min(call.connect_timeout, left), left)
        return self._own_lines().send(request, timeout, by_session=self._session_mode)

    def _own_lines(self) -> Lines:
        """This process's connections. Two threads that make them at once only waste one of the two.

        No lock, since a fork may happen while another thread holds it. A parent's connections are dropped by the
        child without a word on the wire: closing a copied descriptor does not end the connection.
        """
        lines = self._lines
        if lines is None or lines.pid != os.getpid():
            lines = self._lines = Lines(self._base, self.service.concurrency, trust_env=self.service.trust_env)
        return lines


def _repeatable(call: Call) -> bool:
    return call.resend or call.method in IDEMPOTENT


def _basic_credentials(base_url: str) -> dict[str, str]:
    """The Authorization header that a base URL's user and password ask for."""
    headers = requests.Request("GET", base_url).prepare().headers
    return {"Authorization": headers["Authorization"]} if "Authorization" in headers else {}


def _hide_secrets(error: BaseException, request: requests.PreparedRequest) -> None:
    """A test library's error stays the very object, but its request is the one that anybody may see."""
    if isinstance(error, requests.RequestException) and error.request is not None:
        error.request = request


@cache
def _user_agent() -> str:
    try:
        return f"seawall/{metadata.version('seawall')}"
    except metadata.PackageNotFoundError:
        return "seawall"
