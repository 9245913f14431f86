"""Memory mode under a test's `patch("requests.request")`: the patched function gets what its author expects."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import requests

from seawall.actors.record import Call
from seawall.actors.service import Service

__all__ = ["is_mocked", "is_patched", "send_patched"]

_IDEMPOTENCY_KEY = "idempotency-key"


def is_patched() -> bool:
    """Whether somebody put another function in the place of `requests.request`."""
    return requests.request is not requests.api.request


def is_mocked() -> bool:
    """Whether that function is a mock: a test's doing, while a plain function may be anybody's instrumentation."""
    mock = sys.modules.get("unittest.mock")
    return mock is not None and isinstance(requests.request, mock.NonCallableMock)


def send_patched(
    service: Service, base: str, call: Call, original: Mapping[str, Any] | None, secrets: Mapping[str, str]
) -> Any:
    """What the patched function returns for the caller's own keywords, as the very object; its errors pass too."""
    if original is None:
        keywords: dict[str, Any] = {"data": call.body, "headers": dict(call.headers), "allow_redirects": call.redirects}
    else:
        keywords = dict(original)
    url = keywords.pop("url", base + call.target)
    keywords["headers"] = _headers(keywords.get("headers"), call, secrets)
    keywords.setdefault("timeout", _timeout(service))
    return requests.request(call.method, url, **keywords)  # noqa: S113 - it is among the keywords


def _headers(own: Mapping[str, Any] | None, call: Call, secrets: Mapping[str, str]) -> dict[str, Any]:
    """The caller's headers as they were written, the call's idempotency key, the token and the credentials."""
    added = {name: value for name, value in call.headers if name.lower() == _IDEMPOTENCY_KEY} | dict(secrets)
    replaced = {name.lower() for name in added}
    kept = {name: value for name, value in (own or {}).items() if _text(name).lower() not in replaced}
    return kept | added


def _text(name: str | bytes) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else name


def _timeout(service: Service) -> float | tuple[float, float]:
    connect, total = service.timeout
    return total if connect == total else (connect, total - connect)
