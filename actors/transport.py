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
from requests.models import REDIRECT_STATI

from seawall.actors.answer import Answer
from seawall.actors.deadline import until
from seawall.actors.failures import WIRE_ERRORS, died_unanswered, mark_sent, translated
from seawall.actors.lines import Lines
from seawall.actors.outgoing import FieldsByName, Outgoing, by_name
from seawall.actors.patched import is_patched, send_patched
from seawall.actors.paths import base_of
from seawall.actors.record import Call
from seawall.actors.redact import path_only
from seawall.actors.redirects import MAX_REDIRECTS, follow_up
from seawall.actors.service import Service
from seawall.actors.token import TokenSource
from seawall.actors.tracing import trace_headers
from seawall.actors.wire import Exchange
from seawall.errors import TokenUnavailable

__all__ = ["IDEMPOTENT", "OriginMismatch", "Transport"]

#: Methods that may be sent again when it is not known whether they were sent (RFC 9110, 9.2.2).
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})

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
        self._token = token if service.internal_token else None
        self._session_mode = session_mode
        self._log = logging.getLogger(service.logger_name)
        self._base, _ = base_of(service.origin, service.base_path)
        self._credentials = _basic_credentials(service.base_url)
        self._never_the_calls = {"host", "transfer-encoding", *((token.header.lower(),) if token is not None else ())}
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
        request = self._outgoing(call)
        exchange = Exchange(until(call.timeout), alone=not _repeatable(call))
        try:
            with exchange.limit, exchange:
                response = self._through_redirects(call, request, secrets, exchange)
        except WIRE_ERRORS as error:
            shown = self._shown(call, request).prepared()
            if self._session_mode and not exchange.touched:
                _hide_secrets(error, shown)
                raise
            failure = translated(error, exchange, self.service, shown, call.timeout)
        else:
            if self.service.target is not None:
                response.url, response.history = self._base + call.target, []
                _forget_location(response)
            return response
        try:
            raise failure
        finally:
            del failure  # its traceback has this frame: with its body, it would lie about until a collection

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
            signed = self.service.signing.headers(call.body) if self.service.signing is not None else {}
        except (OriginMismatch, TokenUnavailable) as error:
            mark_sent(error, False)
            raise
        own = {name.lower() for name, _ in call.headers} if self._credentials else ()
        secrets = {name: value for name, value in self._credentials.items() if name.lower() not in own}
        return secrets | signed | dict((token,) if token is not None else ())

    def _shown(self, call: Call, request: Outgoing) -> Outgoing:
        """The request as errors and logs may have it."""
        return request if self.service.target is None else request._replace(url=self._base + call.target)

    def _outgoing(self, call: Call) -> Outgoing:
        fields = _standard_fields() | by_name(call.headers) | trace_headers(call)
        for name in self._never_the_calls:
            fields.pop(name, None)
        if call.body is not None:
            fields["content-length"] = ("Content-Length", str(len(call.body)))
        elif "content-length" in fields:
            fields["content-length"] = ("Content-Length", "0")
        return Outgoing(call.method, self._base + (self.service.target or call.target), fields, call.body)

    def _through_redirects(
        self, call: Call, request: Outgoing, secrets: Mapping[str, str], exchange: Exchange
    ) -> requests.Response:
        history: list[requests.Response] = []
        while True:
            response = self._sent(call, request, secrets, exchange)
            response.history = history
            if not (call.redirects and response.status_code in REDIRECT_STATI and response.is_redirect):
                return response
            following = self._following(call, response)
            if following is None:
                return response
            if len(history) == MAX_REDIRECTS:
                raise requests.TooManyRedirects(f"Exceeded {MAX_REDIRECTS} redirects.", response=response)
            history = [*history, response]
            request = Outgoing.of(following)

    def _following(self, call: Call, response: requests.Response) -> requests.PreparedRequest | None:
        """The request that a redirect asks for; None where it is not followed."""
        following = follow_up(response.request, response)
        if following is None:
            self._log.warning(
                "[%s] %s %s answered %d with a redirect to another origin, %s: not followed",
                self.service.name,
                response.request.method,
                path_only(call.target),
                response.status_code,
                path_only(response.headers["location"]) if self.service.target is None else "which is not told",
            )
        return following

    def _sent(self, call: Call, request: Outgoing, secrets: Mapping[str, str], exchange: Exchange) -> requests.Response:
        """Send it, and once more where a kept connection turns out to have been closed by the other side."""
        try:
            return self._once(call, request, secrets, exchange)
        except WIRE_ERRORS as error:
            if not (exchange.reused and died_unanswered(error, exchange)):
                raise
        self._log.debug("[%s] a kept connection was closed; sending on a new one", self.service.name)
        exchange.alone = True
        return self._once(call, request, secrets, exchange)

    def _once(self, call: Call, request: Outgoing, secrets: Mapping[str, str], exchange: Exchange) -> requests.Response:
        cap, name = self.service.max_response_bytes, self.service.name
        return self._own_lines().send(request, secrets, exchange, call.connect_timeout, cap, name)

    def _own_lines(self) -> Lines:
        """This process's connections. Two threads that make them at once only waste one of the two.

        No lock, since a fork may happen while another thread holds it. A parent's connections are dropped by the
        child without a word on the wire: closing a copied descriptor does not end the connection.
        """
        lines = self._lines
        if lines is None or lines.pid != os.getpid():
            service = self.service
            lines = self._lines = Lines(
                self._base, service.concurrency, trust_env=service.trust_env, by_session=self._session_mode
            )
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
def _standard_fields() -> FieldsByName:
    """What goes along where the caller did not say: as requests does, but only encodings that the standard library
    decodes in bounded memory.
    """
    return by_name(
        (
            ("User-Agent", _user_agent()),
            ("Accept", "*/*"),
            ("Accept-Encoding", "gzip, deflate"),
            ("Connection", "keep-alive"),
        )
    )


def _user_agent() -> str:
    try:
        return f"seawall/{metadata.version('seawall')}"
    except metadata.PackageNotFoundError:
        return "seawall"


def _forget_location(response: requests.Response) -> None:
    """Where it wanted to lead may hold what only this process shall know."""
    if isinstance(response, Answer):
        response.fields = tuple(field for field in response.fields if field[0].lower() != "location")
    for headers in (response.headers, getattr(response.raw, "headers", {})):
        headers.pop("location", None)
