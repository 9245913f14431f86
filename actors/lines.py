"""One process's connections to a service, and the two ways of using them: straight, or through a requests.Session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from time import perf_counter
from typing import Any

import requests

from seawall.actors.adapter import Adapter

__all__ = ["Lines"]


class Lines:
    """Kept connections, and what the environment said of proxies and certificates when they were made.

    With `trust_env`, that is read once, here. A netrc file is never read.
    """

    def __init__(self, base: str, connections: int, *, trust_env: bool) -> None:
        self.pid = os.getpid()
        self._adapter = Adapter(connections)
        self._proxies: dict[str, str] = {}
        self._verify: bool | str = True
        if trust_env:
            found = requests.Session().merge_environment_settings(base, {}, None, None, None)
            self._proxies, self._verify = dict(found["proxies"]), found["verify"] or True

    def send(
        self, request: requests.PreparedRequest, timeout: tuple[float, float], *, by_session: bool
    ) -> requests.Response:
        """The answer's head, with its body still to be read. Redirects are not followed.

        `by_session` goes through `requests.Session.send`, where requests-mock waits; `responses` finds both ways.
        """
        if by_session:
            session = _BareSession()
            session.mount("http://", self._adapter)
            session.mount("https://", self._adapter)
            return session.send(
                request, stream=True, timeout=timeout, verify=self._verify, proxies=self._proxies, allow_redirects=False
            )
        started = perf_counter()
        response = self._adapter.send(request, stream=True, timeout=timeout, verify=self._verify, proxies=self._proxies)
        response.elapsed = timedelta(seconds=perf_counter() - started)
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
