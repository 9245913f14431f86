"""The web process's answers: the page, the status of every service, and health. What it knows comes from a desk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from seawall.errors import BrokerUnavailable
from seawall.supervisor.page.actions import action_routes
from seawall.supervisor.page.board import LOOK_SECONDS, Board
from seawall.supervisor.page.desk import Desk
from seawall.supervisor.page.lately import Lately
from seawall.supervisor.page.login import login_routes
from seawall.supervisor.page.routes import STATIC, page_routes
from seawall.supervisor.page.session import Sessions
from seawall.supervisor.web_guard import TRUSTED

__all__ = ["ENTRANCES", "OPEN_PATHS", "make_app"]

#: The media type of health answers (draft-inadarei-api-health-check).
HEALTH_TYPE = "application/health+json"
#: What health checks ask for; they have no token.
OPEN_PATHS = ("/healthz", "/readyz")
#: What a browser needs before it is logged in.
ENTRANCES = ("/login", "/logout", STATIC)

#: Answers the fleet in the documented form of `seawall status --json`. Raises BrokerUnavailable.
ReadFleet = Callable[[], dict[str, Any]]
#: What readiness looks at: each a status, and what is wrong.
Checks = dict[str, dict[str, str]]


def make_app(desk: Desk, board: Board, sessions: Sessions | None = None) -> Starlette:
    """The application:

    - `GET /`: the page, kept up to date by `GET /events`; its buttons are POSTs below `/v1/api/`
    - `GET /metrics`: the numbers for Prometheus
    - `GET /v1/api/status/services`: every service's breaker and queues, by key
    - `GET /v1/api/status`: the same with workers, supervisors and the leader
    - `GET /healthz`: this process runs
    - `GET /readyz`: broker reachable, a supervisor leads, at least one worker; 503 with what is missing otherwise. It is open
      to everybody, so that its answer is shared for a second
    - `/login` and `/logout`: where browsers get and lose their session

    While the broker is away what is below `/v1/api/` and `/metrics` answer 503, the page says so. Mistakes are `{"error": ...}`.
    Who may ask is for a `Guard` to decide, with `sessions` for browsers; whom it does not trust learns from `/readyz` what is
    missing, and nothing about where it is.
    """

    read_fleet = desk.fleet
    readiness = Lately[None, Checks](lambda _: _readiness(read_fleet), lambda: LOOK_SECONDS)

    async def services(request: Request) -> JSONResponse:
        return await _answer(lambda: read_fleet()["services"])

    async def fleet(request: Request) -> JSONResponse:
        return await _answer(read_fleet)

    async def ready(request: Request) -> JSONResponse:
        checks = await readiness.get(None)
        if not request.scope.get(TRUSTED, True) and "output" in checks["broker"]:
            checks = checks | {"broker": {"status": "fail", "output": "the broker is away"}}
        passes = all(check["status"] == "pass" for check in checks.values())
        body = {"status": "pass" if passes else "fail", "checks": checks}
        return JSONResponse(body, 200 if passes else 503, media_type=HEALTH_TYPE)

    async def healthy(request: Request) -> JSONResponse:
        return JSONResponse({"status": "pass"}, media_type=HEALTH_TYPE)

    return Starlette(
        routes=[
            Route("/v1/api/status/services", services),
            Route("/v1/api/status", fleet),
            Route("/healthz", healthy),
            Route("/readyz", ready),
            *page_routes(board, with_login=sessions is not None),
            *action_routes(desk, board),
            *login_routes(sessions),
        ],
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )


async def _answer(read: Callable[[], Any]) -> JSONResponse:
    """The answer, or 503 with the reason while the broker is away. The broker is asked off the event loop."""
    try:
        return JSONResponse(await run_in_threadpool(read))
    except BrokerUnavailable as error:
        return JSONResponse({"error": str(error)}, 503)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=dict(error.headers or {}))


async def _failed(request: Request, error: Exception) -> JSONResponse:
    """Nobody expected it: uvicorn logs its traceback, the caller learns no more than this."""
    return JSONResponse({"error": "internal error"}, 500)


def _readiness(read_fleet: ReadFleet) -> Checks:
    try:
        fleet = read_fleet()
    except BrokerUnavailable as error:
        return {"broker": {"status": "fail", "output": str(error)}}
    leads, workers = bool(fleet["leader"]), len(fleet["workers"])
    return {
        "broker": {"status": "pass"},
        "supervisor": {"status": "pass"} if leads else {"status": "fail", "output": "no supervisor leads"},
        "workers": {"status": "pass"} if workers else {"status": "fail", "output": "no worker runs"},
    }
