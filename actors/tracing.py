"""Traces by OpenTelemetry, in applications that have set them up; in all others nothing is imported and nothing is done.

A call is a PRODUCER span `send <queue>`, which ends with the answer of a waited-for call, and else when it is queued. Each
attempt is a CONSUMER span `process <queue>`, a child of it wherever it runs, and in it the request is a CLIENT span, whose
context the service gets as `traceparent`. On the queue the context is the call's `trace`. Names and attributes are those of
OpenTelemetry's conventions for messaging and HTTP. Queries, headers and bodies are never among them, nor texts of errors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import requests

from seawall.actors.outgoing import FieldsByName, by_name
from seawall.actors.queue_store import Delivery
from seawall.actors.reasons import judge_status, ruled
from seawall.actors.record import Call
from seawall.actors.redact import path_only
from seawall.actors.service import queue_names

__all__ = ["attempting", "carried", "current_ids", "sending", "sending_many", "trace_headers", "traced"]

#: The fields of W3C Trace Context, in the order in which a call's `trace` has their values.
_HEADERS = ("traceparent", "tracestate")
#: Methods that the conventions name; any other is `_OTHER`.
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"})
_OTHER = "_OTHER"
_PORTS = {"http": 80, "https": 443}


class Span:
    """The current span while its block runs; this one, when nobody traces."""

    __slots__ = ()

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def answered(self, response: Any, failed: Callable[[int], bool] = lambda status: False) -> None:
        """The service's answer, or a test's mock; `failed` says of a status whether it is an error here."""

    def failed(self, error: BaseException) -> None:
        """What ended it. Its kind is noted, not its text."""

    def is_for(self, id: str) -> None:
        """The call's id."""


class _Recorded(Span):
    __slots__ = ("_span", "_token", "_tracer")

    def __init__(self, tracer: _Tracer, span: Any) -> None:
        self._tracer = tracer
        self._span = span

    def __enter__(self) -> Span:
        self._token = self._tracer.context.attach(self._tracer.api.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tracer.context.detach(self._token)
        if error is not None:
            self.failed(error)
        self._span.end()

    def answered(self, response: Any, failed: Callable[[int], bool] = lambda status: False) -> None:
        status = getattr(response, "status_code", None)
        if isinstance(status, int):
            self._span.set_attribute("http.response.status_code", status)
            if failed(status):
                self._fail(str(status))

    def failed(self, error: BaseException) -> None:
        if isinstance(error, requests.HTTPError) and error.response is not None:
            self.answered(error.response, lambda status: True)
        else:
            self._fail(f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins."))

    def is_for(self, id: str) -> None:
        self._span.set_attribute("messaging.message.id", id)

    def _fail(self, kind: str) -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(self._tracer.api.Status(self._tracer.api.StatusCode.ERROR))


class _Tracer:
    """OpenTelemetry, once the application has set it up with this provider."""

    def __init__(self, api: Any, provider: Any) -> None:
        from opentelemetry import context
        from opentelemetry.trace.propagation import tracecontext

        self.api, self.context = api, context
        self._tracer = provider.get_tracer("seawall")
        self._w3c = tracecontext.TraceContextTextMapPropagator()

    def span(self, name: str, kind: str, attributes: dict[str, Any], **more: Any) -> _Recorded:
        kind = getattr(self.api.SpanKind, kind)
        return _Recorded(self, self._tracer.start_span(name, kind=kind, attributes=attributes, **more))

    def carried(self) -> tuple[str, ...]:
        carrier: dict[str, str] = {}
        self._w3c.inject(carrier)
        return tuple(carrier[name] for name in _HEADERS if name in carrier)

    def context_of(self, call: Call) -> Any:
        """The context that a call brought along; an empty one for a call without."""
        return self._w3c.extract(dict(zip(_HEADERS, call.trace, strict=False)), self.context.Context())


_NOBODY = Span()
_MISSING = object()
#: What the API had as its provider when it was last asked, and what that is good for.
_known: tuple[Any, _Tracer | None] = (_NOBODY, None)


def _tracer() -> _Tracer | None:
    """None until the application has set up a tracer provider. It imports OpenTelemetry to do so; nothing here does.

    The API is asked again only when its provider is another one: asking costs more than all the rest, and other libraries
    import it in applications that do not trace.
    """
    global _known
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    known, kept = _known, getattr(api, "_TRACER_PROVIDER", _MISSING)
    if kept is not known[0] or kept is _MISSING:
        provider = api.get_tracer_provider()
        idle = isinstance(provider, (api.ProxyTracerProvider, api.NoOpTracerProvider))
        known = _known = (kept, None if idle else _Tracer(api, provider))
    return known[1]


def sending(service: str, method: str, path: str, *, waited: bool = False) -> Span:
    """The span of putting a call on its queue; the whole of a waited-for call."""
    tracer = _tracer()
    if tracer is None:
        return _NOBODY
    queue = queue_names(service)[0 if waited else 1]
    attributes = _messaging("send", service, queue) | _request(method, path)
    return tracer.span(f"send {queue}", "PRODUCER", attributes)


def sending_many(service: str, count: int) -> Span:
    """The one span of putting `count` background calls on their queue; each of them carries its context."""
    tracer = _tracer()
    if tracer is None:
        return _NOBODY
    queue = queue_names(service)[1]
    attributes = _messaging("send", service, queue) | {"messaging.batch.message_count": count}
    return tracer.span(f"send {queue}", "PRODUCER", attributes)


def carried() -> tuple[str, ...]:
    """The current span for a call's `trace`; empty when nobody traces."""
    tracer = _tracer()
    return () if tracer is None else tracer.carried()


def attempting(delivery: Delivery, call: Call) -> Span:
    """The span of one attempt. That of a dead letter sent again begins a trace of its own, with a link to the call's."""
    tracer = _tracer()
    if tracer is None:
        return _NOBODY
    progress, parent = delivery.progress, tracer.context_of(call)
    attributes = _messaging("process", call.service, delivery.queue) | _request(call.method, call.target)
    attributes |= _server(call.origin)
    attributes |= {
        "messaging.message.id": call.id,
        "seawall.attempt": progress.attempt + 1,
        "seawall.round": progress.round + 1,
    }
    sender = tracer.api.get_current_span(parent).get_span_context()
    links = [tracer.api.Link(sender)] if sender.is_valid else []
    if progress.replays:
        attributes["seawall.replays"] = progress.replays
        parent = tracer.context.Context()
    return tracer.span(f"process {delivery.queue}", "CONSUMER", attributes, context=parent, links=links)


def traced(send: Callable[..., Any]) -> Callable[..., Any]:
    """`send` with a span for each request; what comes of it is noted on the attempt's span too."""

    def traced_send(call: Call, *, original: dict[str, Any] | None = None) -> Any:
        tracer = _tracer()
        return send(call, original=original) if tracer is None else _send_traced(tracer, send, call, original)

    return traced_send


def _send_traced(tracer: _Tracer, send: Callable[..., Any], call: Call, original: dict[str, Any] | None) -> Any:
    attempt = _Recorded(tracer, tracer.api.get_current_span())
    method = _known_method(call.method)
    attributes = {"http.request.method": method, "url.full": call.origin + path_only(call.target)} | _server(
        call.origin
    )
    with tracer.span(method if method != _OTHER else "HTTP", "CLIENT", attributes) as request:
        try:
            response = send(call, original=original)
        except BaseException as error:
            attempt.failed(error)
            raise
        request.answered(response, lambda status: status >= 400)
        attempt.answered(response, lambda status: not ruled(judge_status(status, None), call.retry_on, status, None).ok)
    return response


def trace_headers(call: Call) -> FieldsByName:
    """Header lines for the request: the current span, or what the call brought along to a process that does not trace."""
    values = carried() or call.trace
    return by_name(zip(_HEADERS, values, strict=False)) if values else {}


def current_ids() -> dict[str, str]:
    """`trace_id` and `span_id` of the current span as 32 and 16 hexadecimal digits, for log lines; empty without one."""
    tracer = _tracer()
    if tracer is None:
        return {}
    span = tracer.api.get_current_span().get_span_context()
    return {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"} if span.is_valid else {}


def _messaging(operation: str, service: str, queue: str) -> dict[str, Any]:
    return {
        "messaging.system": "seawall",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": queue,
        "seawall.service": service,
    }


def _request(method: str, path: str) -> dict[str, Any]:
    return {"http.request.method": _known_method(method), "url.path": path_only(str(path))}


def _known_method(method: str) -> str:
    return method if method in _METHODS else _OTHER


@lru_cache(maxsize=256)
def _server(origin: str) -> dict[str, Any]:
    parts = urlsplit(origin)
    return {"server.address": parts.hostname or "", "server.port": parts.port or _PORTS.get(parts.scheme, 0)}
