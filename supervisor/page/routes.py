"""The page itself, its stream, its files, and the metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from importlib.resources import files

from prometheus_client import CONTENT_TYPE_LATEST
from redis.exceptions import ResponseError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from seawall.errors import BrokerUnavailable, ConfigurationError
from seawall.refusals import told
from seawall.supervisor.page.board import Board, Letters
from seawall.supervisor.page.bodies import asked_for
from seawall.supervisor.page.desk import REASONS, Wanted
from seawall.supervisor.page.render import render_template
from seawall.supervisor.web_guard import STILL_TRUSTED, WHO

__all__ = ["STATIC", "page_routes"]

#: Where the page's own files lie; they hold nothing to hide.
STATIC = "/static/"

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


def page_routes(board: Board, *, with_login: bool) -> list[Route]:
    assets = {
        one.name: (one.read_bytes(), _TYPES[one.name.rpartition(".")[2]])
        for one in files("seawall.supervisor").joinpath("static").iterdir()
        if one.name.rpartition(".")[2] in _TYPES
    }

    async def page(request: Request) -> HTMLResponse:
        shown = await board.shown()
        wanted = asked_for(request)
        letters, more, trouble = await _letters(board, wanted)
        text = render_template(
            "page.html",
            parts=shown.parts,
            order=shown.order,
            letters=letters,
            more=more,
            trouble=trouble,
            wanted=wanted,
            keys=[name.removeprefix("service-") for name in shown.order],
            reasons=REASONS,
            who=request.scope.get(WHO, ""),
            with_login=with_login,
        )
        return HTMLResponse(text)

    async def events(request: Request) -> Response:
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        if not board.has_room:
            raise HTTPException(503, "too many streams are open", {"Retry-After": "10"})
        stream = _stream(
            board, request.headers.get("last-event-id", ""), request.scope.get(STILL_TRUSTED, lambda: True)
        )
        return StreamingResponse(stream, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    async def asset(request: Request) -> Response:
        found = assets.get(request.path_params["name"])
        if found is None:
            raise HTTPException(404)
        return Response(found[0], media_type=found[1])

    async def metrics(request: Request) -> Response:
        try:
            return Response(await board.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})
        except BrokerUnavailable as error:
            return PlainTextResponse(f"# {error}\n", 503)

    return [
        Route("/", page),
        Route("/events", events),
        Route("/metrics", metrics),
        Route(STATIC + "{name}", asset),
    ]


async def _stream(board: Board, last_id: str, still_trusted: Callable[[], bool]) -> AsyncIterator[bytes]:
    """It ends with its session; the browser asks again, and is told to log in."""
    yield b"retry: 2000\n\n"
    async with aclosing(board.follow(last_id)) as messages:
        async for message in messages:
            if not still_trusted():
                return
            yield message


async def _letters(board: Board, wanted: Wanted) -> tuple[Letters, bool, str]:
    """Those to show, whether there are more, and why there are none."""
    try:
        return *await board.letters(wanted), ""
    except BrokerUnavailable:
        return [], False, "The list cannot be read while the broker is away."
    except ConfigurationError as error:
        return [], False, str(error)
    except ResponseError as error:
        return [], False, f"the broker refused a command: {told(error)}"
