"""For Django: `path("v1/api/status/services", seawall.contrib.django.status)` in `urlpatterns`."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from seawall.contrib.status import declared_status

__all__ = ["status"]


@require_safe  # type: ignore[untyped-decorator]  # Django comes without types
def status(request: HttpRequest) -> JsonResponse:
    """The breaker of every declared service, by its key."""
    return JsonResponse(declared_status())
