"""Logging in and out: a browser cannot send the token as programs do, so it shows it once and gets a cookie."""

from __future__ import annotations

import asyncio
import contextlib
import math
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from seawall.supervisor.page.bodies import read_body
from seawall.supervisor.page.render import render_template
from seawall.supervisor.page.session import LIFETIME, Guesses, Sessions, cookie_in, cookie_name

__all__ = ["login_routes"]

#: Bytes of the form: a name and a token.
LARGEST_FORM = 16 * 1024
#: Seconds that a wrong token has to wait for its answer.
PENALTY = 0.5


def login_routes(sessions: Sessions | None) -> list[Route]:
    """`/login` and `/logout`. Without sessions, where no token is wanted, both lead to the page."""
    guesses = Guesses()

    async def login(request: Request) -> Response:
        if sessions is None:
            return RedirectResponse("/", 303)
        if request.method != "POST":
            return _form()
        form = parse_qs((await read_body(request, LARGEST_FORM)).decode("utf-8", "replace"))
        name, token = (form.get(field, [""])[0].strip() for field in ("name", "token"))
        address = request.client.host if request.client else ""
        if wait := guesses.wait(address):
            return _form(f"Too many wrong tokens. Try again in {math.ceil(wait)} s.", name, 429)
        try:
            accepted = sessions.accepts(token)
            cookie = sessions.issue(name) if accepted else ""
        except Exception:
            return _form("The token to compare with cannot be read; the log says why.", name, 503)
        if not accepted:
            guesses.note(address)
            await asyncio.sleep(PENALTY)
            return _form("That is not the token.", name, 401)
        response = RedirectResponse("/", 303)
        response.set_cookie(
            _cookie_name(request),
            cookie,
            max_age=LIFETIME,
            httponly=True,
            samesite="lax",  # a link from a chat finds who is logged in; what changes something must come from our own page
            secure=_is_secure(request),
        )
        return response

    async def logout(request: Request) -> Response:
        response = RedirectResponse("/login" if sessions is not None else "/", 303)
        if sessions is not None:
            with contextlib.suppress(Exception):  # without the token to compare with no cookie opens anything
                sessions.end(cookie_in(request.headers.getlist("cookie"), request.headers.get("host", "")))
        response.delete_cookie(_cookie_name(request), httponly=True, samesite="lax")
        return response

    return [Route("/login", login, methods=["GET", "POST"]), Route("/logout", logout, methods=["POST"])]


def _is_secure(request: Request) -> bool:
    """Whether the browser came by https, as a proxy before us says; whoever lies about it makes their own cookie useless."""
    return "https" in (request.url.scheme, request.headers.get("x-forwarded-proto", "").strip().lower())


def _cookie_name(request: Request) -> str:
    return cookie_name(request.headers.get("host", ""))


def _form(problem: str = "", name: str = "", status: int = 200) -> HTMLResponse:
    return HTMLResponse(render_template("login.html", problem=problem, name=name), status)
