"""One trace through real processes: an application, a worker and a service, each with what it was given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.harness import START_SECONDS, Fleet
from tests.support import CountingService, wait_until

#: What a user's module does to have a process traced; its spans go into a file of the process.
TRACED = """
import os
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
_out = open(f"spans-{os.getpid()}.json", "a", buffering=1)
_line = lambda span: span.to_json(indent=None) + "\\n"
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=_out, formatter=_line)))
"""

CALLS = """
import patient, services
from opentelemetry import trace
with trace.get_tracer("application").start_as_current_span("handler"):
    services.shop.get("/waited")
    services.shop.fire("POST", "/fired")
"""

Span = dict[str, Any]


@pytest.fixture
def fleet(tmp_path: Path, redis_url: str, service: CountingService) -> Iterator[Fleet]:
    environ = {"SEAWALL_LOG_FORMAT": "json"}
    with Fleet(tmp_path, redis_url, {"shop": {"url": service.url}}, environ=environ) as fleet:
        module = fleet.folder / "services.py"
        module.write_text(TRACED + module.read_text())
        yield fleet


def spans(fleet: Fleet) -> list[Span]:
    lines = [line for path in sorted(fleet.folder.glob("spans-*.json")) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def test_one_trace_from_the_application_to_the_service(fleet: Fleet, service: CountingService) -> None:
    (worker,) = fleet.start(workers=1)
    assert fleet.script(CALLS).wait(START_SECONDS) == 0
    service.wait_for(1, path="/fired")
    wait_until(lambda: len(spans(fleet)) == 7, message="a handler, and of each call three spans")
    found = spans(fleet)
    (handler,) = [span for span in found if span["name"] == "handler"]
    by_id = {span["context"]["span_id"]: span for span in found}
    assert {span["context"]["trace_id"] for span in found} == {handler["context"]["trace_id"]}
    for path, queue in (("/waited", "shop.waited"), ("/fired", "shop.background")):
        (request,) = service.matching(path)
        version, trace_id, span_id, _ = request.headers["traceparent"].split("-")
        http = by_id[f"0x{span_id}"]
        attempt = by_id[http["parent_id"]]
        sent = by_id[attempt["parent_id"]]
        assert (version, f"0x{trace_id}") == ("00", handler["context"]["trace_id"])
        kinds = [span["kind"] for span in (sent, attempt, http)]
        assert kinds == ["SpanKind.PRODUCER", "SpanKind.CONSUMER", "SpanKind.CLIENT"]
        assert (sent["name"], attempt["name"]) == (f"send {queue}", f"process {queue}")
        assert sent["parent_id"] == handler["context"]["span_id"]
    logged = [json.loads(line) for line in worker.expect('"attempt"', count=4)]  # a call's beginning and its end
    assert {f"0x{line['trace_id']}" for line in logged} == {handler["context"]["trace_id"]}
    assert {f"0x{line['span_id']}" for line in logged} == {
        span["context"]["span_id"] for span in found if span["kind"] == "SpanKind.CONSUMER"
    }
