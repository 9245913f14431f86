"""For Starlette and FastAPI: `app.router.routes.append(seawall.contrib.starlette.status)`.

Answers `GET /v1/api/status/services`.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from seawall.contrib.status import PATH, declared_status

__all__ = ["status"]


def services(request: Request) -> JSONResponse:
    """The breaker of every declared service, by its key. No coroutine, so that it never holds up the event loop."""
    return JSONResponse(declared_status())


status = Route(PATH, services)
