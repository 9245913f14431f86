"""One process's connections to a service, and the two ways of using them: straight, or through requests."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import requests

from seawall.actors.adapter import Adapter
from seawall.actors.answer import Answer
from seawall.actors.body import read_body
from seawall.actors.outgoing import Outgoing
from seawall.actors.plain_http import request_head
from seawall.actors.swap import swap
from seawall.actors.wire import Exchange

__all__ = ["Lines"]

#: The shortest time handed to a socket; 0 would mean something else.
_LEAST_TIMEOUT = 0.001


class Lines:
    """Kept connections, and what the environment said of proxies and certificates when they were made.

    With `trust_env`, that is read once, here. A netrc file is never read. With `by_session` a request goes through
    `requests.Session.send`, where requests-mock waits; `responses` finds it too. Otherwise it goes straight to a
    connection, or through requests' adapter where there is a proxy on the way.
    """

    def __init__(self, base: str, connections: int, *, trust_env: bool, by_session: bool) -> None:
        self.pid = os.getpid()
        self._adapter = Adapter(connections)
        self._by_session = by_session
        self._proxies: dict[str, str] = {}
        self._verify: bool | str = True
        if trust_env:
            found = requests.Session().merge_environment_settings(base, {}, None, None, None)
            self._proxies, self._verify = dict(found["proxies"]), found["verify"] or True

    def send(
        self, request: Outgoing, secrets: Mapping[str, str], exchange: Exchange, connect: float, cap: int, service: str
    ) -> requests.Response:
        """The whole answer; redirects are not followed. `connect` is in seconds, `cap` in decoded bytes.

        Raises ResponseTooLarge, and what requests, urllib3, http.client and sockets raise.
        """
        if self._by_session or self._proxies:
            return self._through_requests(request, secrets, exchange, connect, cap, service)
        return self._straight(request, secrets, exchange, connect, cap, service)

    def _straight(
        self, request: Outgoing, secrets: Mapping[str, str], exchange: Exchange, connect: float, cap: int, service: str
    ) -> Answer:
        pool, host, target = self._address(request.url)
        head = request_head(request.method, target, [("Host", host), *request.fields.values(), *secrets.items()])
        line = pool._get_conn()
        try:
            exchange.begins(reused=line.sock is not None)
            if line.sock is None:
                line.timeout = connect
                line.connect()
            answered = swap(line, request.method, head + (request.body or b""), exchange, cap, service)
        except BaseException:
            line.close()
            raise
        if not answered.keeps:
            line.close()
        pool._put_conn(line)
        return Answer(
            status=answered.status,
            reason=answered.reason,
            url=request.url,
            fields=answered.fields,
            body=answered.body,
            seconds=answered.seconds,
            request=request.prepared,
        )

    def _address(self, url: str) -> tuple[Any, str, str]:
        """The pool of the URL's origin, the host as its header has it, and the target."""
        scheme_end = url.index("://") + 3
        path = url.find("/", scheme_end)
        pool = self._adapter.pool_of(url[:path], self._verify)
        return pool, url[scheme_end:path], url[path:]

    def _through_requests(
        self, request: Outgoing, secrets: Mapping[str, str], exchange: Exchange, connect: float, cap: int, service: str
    ) -> requests.Response:
        secret = request.prepared(secrets)
        left = exchange.limit.remaining or _LEAST_TIMEOUT
        options: dict[str, Any] = {"stream": True, "verify": self._verify, "proxies": self._proxies}
        options["timeout"] = (min(connect, left), left)
        started = time.perf_counter()
        if self._by_session:
            session = _BareSession()
            session.mount("http://", self._adapter)
            session.mount("https://", self._adapter)
            response = session.send(secret, allow_redirects=False, **options)
        else:
            response = self._adapter.send(secret, **options)
            response.elapsed = timedelta(seconds=time.perf_counter() - started)
        response.request = request.prepared()
        read_body(response, exchange.limit, cap, service)
        return response

    def close(self) -> None:
        self._adapter.close()


class _BareSession(requests.Session):
    """A session for one request: no environment, no cookies of other calls, no redirects of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False

    def resolve_redirects(self, *args: Any, **options: Any) -> Iterator[requests.Response]:
        """None: requests would read a redirect's whole body here, however large."""
        return iter(())
