"""Who may ask the web process for what, and the headers under which it answers. An ASGI application around another one."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable, Collection, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from seawall.supervisor.page.session import Sessions, cookie_in, same_word

__all__ = ["STILL_TRUSTED", "TRUSTED", "WHO", "Guard"]

logger = logging.getLogger("seawall.web")

#: The scope's entry that tells an application whether whoever asks may know more than that something is wrong.
TRUSTED = "seawall.trusted"
#: The scope's entry with a callable that says whether that is still so: answers that go on for hours look at it.
STILL_TRUSTED = "seawall.still_trusted"
#: The scope's entry with the name that a person gave at login; empty for programs and for those who gave none.
WHO = "seawall.who"
#: Methods that change nothing (RFC 9110, 9.2.1).
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
#: What is no page is data for programs: no browser shall keep, frame, guess at, run or pass on any of it.
_STRICT: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
#: A page may run our own script, style and pictures, and talk to us; its forms say where they come from, to us alone.
_PAGE = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
}


class Guard:
    """Lets these through, and answers everybody else itself:

    - everybody, on the `open_paths`;
    - everybody who does not come from another site, on the `entrances`: paths, and folders that end with a slash;
    - with a token: who sends it as `Authorization: Bearer <token>`, or has a cookie of `sessions`;
    - without one and `only_here`: who calls this machine by a name of its own. A page of another site, whose name was made
      to lead here, names itself in its Host header;
    - without one and not `only_here`: everybody.

    What changes something must moreover not come from a page of another origin; without a token, where names are not looked at
    otherwise, nor from one whose name was made to lead here. `token` answers the token, is asked each time,
    and may raise: then nobody is let through. `host` is a further name for this machine.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        open_paths: Collection[str] = (),
        entrances: Collection[str] = (),
        token: Callable[[], str] | None = None,
        sessions: Sessions | None = None,
        only_here: bool = True,
        host: str = "",
    ) -> None:
        self._app = app
        self._open = frozenset(open_paths)
        self._entrances = frozenset(entrances)
        self._token = token
        self._sessions = sessions or (Sessions(token) if token is not None else None)
        self._only_here = only_here and token is None
        self._host = host.lower()
        self._is_readable = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        refusal, who = self._stranger(scope["method"], headers), ""
        if refusal is None and self._token is not None and not self._is_entrance(scope["path"]):
            refusal, who = self._unknown(self._token, headers)
        if refusal is not None and not (scope["path"] in self._open and scope["method"] in _SAFE):
            await _answer(refusal, scope, headers)(scope, receive, _strict(send))
            return

        def still_trusted() -> bool:
            return self._token is None or self._unknown(self._token, headers)[0] is None

        entries = {TRUSTED: refusal is None, WHO: who, STILL_TRUSTED: still_trusted}
        await self._app({**scope, **entries}, receive, _strict(send))

    def _is_entrance(self, path: str) -> bool:
        return path in self._entrances or path[: path.rfind("/") + 1] in self._entrances

    def _stranger(self, method: str, headers: Headers) -> JSONResponse | None:
        """The answer to who comes from elsewhere, whatever token there is."""
        if self._only_here and not self._is_here(headers.get("host", "")):
            return _no(421, "without a token only this machine is served, under a name of its own such as localhost")
        if method not in _SAFE and not _is_own_page(headers):
            return _no(403, "this comes from a page of another site")
        if method not in _SAFE and self._token is None and "origin" in headers and not self._is_ours(headers["host"]):
            return _no(
                403,
                "without a token nothing is changed by a page under this name, which may be another site's: "
                "use this machine's address or own name, or set SEAWALL_WEB_TOKEN",
            )
        return None

    def _unknown(self, ask: Callable[[], str], headers: Headers) -> tuple[JSONResponse | None, str]:
        """The answer to who has neither token nor cookie; None and a name for who has one."""
        assert self._sessions is not None
        try:
            token, was_readable, self._is_readable = ask(), self._is_readable, True
            who = self._sessions.who(_cookie(headers)) if "authorization" not in headers else None
        except Exception as error:
            if self._is_readable:
                logger.error("nobody is let in: %s", error)
            self._is_readable = False
            return _no(503, "the token to compare with cannot be read"), ""
        if not was_readable:
            logger.warning("the token can be read again")
        given = headers.getlist("authorization")
        scheme, _, word = (given[0] if len(given) == 1 else "").partition(" ")
        if who is not None or (scheme.lower() == "bearer" and same_word(word.strip(), token)):
            return None, who or ""
        text = (
            "this needs the web process's token: Authorization: Bearer TOKEN, or a browser that is logged in at /login"
        )
        return _no(401, text, {"WWW-Authenticate": 'Bearer realm="seawall"'}), ""

    def _is_here(self, host: str) -> bool:
        """Whether a Host header names this machine; a client that sends none is no browser."""
        name = _name_of(host)
        if name in ("", "localhost", self._host) or name.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    def _is_ours(self, host: str) -> bool:
        """Whether no other site can have this name: an address, a name without dots, or one of this machine."""
        name = _name_of(host)
        if self._is_here(host) or "." not in name or name == socket.gethostname().lower():
            return True
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return False


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() and not host.endswith("]") else host
    return name.strip("[]").lower().removesuffix(".")


def _is_own_page(headers: Headers) -> bool:
    """Browsers say where a write comes from; programs need not."""
    origin = headers.get("origin")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    return origin is None or origin.partition("://")[2].lower() == headers.get("host", "").lower() != ""


def _cookie(headers: Headers) -> str:
    return cookie_in(headers.getlist("cookie"), headers.get("host", ""))


def _answer(refusal: JSONResponse, scope: Scope, headers: Headers) -> Response:
    """A person who opens the page is led to the login; everybody else is told."""
    wants_page = scope["method"] == "GET" and "text/html" in headers.get("accept", "")
    return RedirectResponse("/login", 303) if refusal.status_code == 401 and wants_page else refusal


def _strict(send: Send) -> Send:
    async def strict(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            is_page = headers.get("content-type", "").startswith("text/html")
            for name, value in {**_STRICT, **(_PAGE if is_page else {})}.items():
                headers[name] = value
        await send(message)

    return strict


def _no(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": text}, status, headers=dict(headers or {}))
