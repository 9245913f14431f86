"""What the buttons do, as an API: each a POST with a JSON object, and each noted with who did it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from redis.exceptions import ResponseError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from seawall.errors import BrokerUnavailable, ConfigurationError
from seawall.refusals import told
from seawall.supervisor.page.board import Board
from seawall.supervisor.page.bodies import asked_for, read_object, wanted_of
from seawall.supervisor.page.desk import Desk, Wanted
from seawall.supervisor.page.replays import RATE, Replay
from seawall.supervisor.web_guard import WHO

__all__ = ["action_routes"]

logger = logging.getLogger("seawall.web")

VERBS = ("open", "close", "reset", "pause", "resume")


def action_routes(desk: Desk, board: Board) -> list[Route]:
    """Broker away: 503. A service that cannot be meant: 404. A replay while one runs: 409."""

    async def act(request: Request) -> JSONResponse:
        key, verb = request.path_params["key"], request.path_params["verb"]
        if verb not in VERBS:
            raise HTTPException(404, f"a service can be told to {', '.join(VERBS)}; not to {verb}")
        await read_object(request)
        await _do(desk.act, verb, key)
        await _note(desk, request, verb, key)
        board.poke()
        return JSONResponse({"service": key, "done": verb})

    async def letters(request: Request) -> JSONResponse:
        wanted = asked_for(request)
        with _told():
            found, more = await board.letters(wanted)
        return JSONResponse({"letters": found, "more": more})

    async def replay(request: Request) -> JSONResponse:
        wanted = _wanted(await read_object(request))
        await _do(desk.letters, wanted, 1)  # tells whether the broker is there, and whether the service is known
        if not board.replays.start(wanted, _who(request)):
            if board.replays.closed:
                raise HTTPException(503, "the web process is ending; ask the next one")
            raise HTTPException(409, "a replay is under way; wait for its end, or stop it")
        await _note(desk, request, "replay", wanted.service, f"{wanted}, {RATE:g} a second")
        return JSONResponse(_shown(board.replays.latest), 202)

    async def how_far(request: Request) -> JSONResponse:
        return JSONResponse(_shown(board.replays.latest))

    async def stop(request: Request) -> JSONResponse:
        await read_object(request)
        if not board.replays.stop():
            raise HTTPException(409, "no replay is under way")
        await _note(desk, request, "stop replay", "")
        return JSONResponse(_shown(board.replays.latest))

    async def purge(request: Request) -> JSONResponse:
        wanted = _wanted(await read_object(request))
        number = await _do(desk.purge, wanted)
        await _note(desk, request, "purge", wanted.service, f"{wanted}: {number} forgotten")
        board.poke()
        return JSONResponse({"purged": number})

    return [
        Route("/v1/api/services/{key}/{verb}", act, methods=["POST"]),
        Route("/v1/api/dead", letters),
        Route("/v1/api/dead/replay", how_far),
        Route("/v1/api/dead/replay", replay, methods=["POST"]),
        Route("/v1/api/dead/replay/stop", stop, methods=["POST"]),
        Route("/v1/api/dead/purge", purge, methods=["POST"]),
    ]


async def _do(function: Any, *arguments: Any) -> Any:
    """Call it on a thread; its errors as answers."""
    with _told():
        return await run_in_threadpool(function, *arguments)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except BrokerUnavailable as error:
        raise HTTPException(503, str(error)) from error
    except ResponseError as error:
        raise HTTPException(503, f"the broker refused a command: {told(error)}") from error
    except ConfigurationError as error:
        raise HTTPException(404, str(error)) from error


async def _note(desk: Desk, request: Request, what: str, service: str, detail: str = "") -> None:
    """What was done is done: that it could not be noted is only logged."""
    who = _who(request)
    logger.info("%s: %s", who, " ".join(part for part in (what, service, detail) if part))
    with contextlib.suppress(BrokerUnavailable, ResponseError):
        await run_in_threadpool(desk.note, who, what, service, detail)


def _who(request: Request) -> str:
    return request.scope.get(WHO) or f"someone at {request.client.host if request.client else 'an unknown address'}"


def _wanted(given: dict[str, Any]) -> Wanted:
    """Which letters are meant; all of them only for who says so."""
    service, reason, ids = given.get("service") or "", given.get("reason") or "", given.get("ids") or []
    if not (isinstance(service, str) and isinstance(reason, str) and isinstance(ids, list)):
        raise HTTPException(400, "service and reason are texts, ids is a list of texts")
    if not all(isinstance(id, str) for id in ids):
        raise HTTPException(400, "ids is a list of texts")
    if not {"service", "reason", "ids"} & given.keys():
        raise HTTPException(400, 'name "ids", or a "service" and a "reason"; empty ones mean any')
    if "ids" in given and not ids:
        raise HTTPException(400, '"ids" is empty')
    return wanted_of(service, reason, tuple(ids))


def _shown(replay: Replay | None) -> dict[str, Any]:
    if replay is None:
        return {"replay": None}
    done = replay.progress
    state = "running" if not replay.ended else "failed" if replay.trouble else "stopped" if replay.stopped else "done"
    counts = {"total": done.total, "queued": done.queued, "gone": done.gone, "empty": done.empty}
    return {
        "replay": {"state": state, "what": str(replay.wanted), "who": replay.who, "error": replay.trouble, **counts}
    }
