"""Spans of the calls of an application that has OpenTelemetry set up: over a broker, without it, in memory."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest
import requests
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from seawall import ResilientServiceClient, ServiceUnavailable, snapshot
from seawall import runtime as runtimes
from seawall.actors.record import Call, Progress, decode_call, decode_progress, encode
from seawall.actors.service import queue_names
from seawall.logs import JsonFormatter
from seawall.settings import load_settings
from seawall.supervisor.breaker import ForceOpen
from tests.support import Answer, CountingService, wait_until
from tests.support.house import RemoteHouse, caller, no_services


class Traces:
    """What the application's exporter has got."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("application")

    def of(self, kind: SpanKind, count: int = 1) -> list[ReadableSpan]:
        """The ended spans of a kind in their order, once there are so many."""

        def found() -> list[ReadableSpan]:
            return [span for span in self._exporter.get_finished_spans() if span.kind is kind]

        wait_until(lambda: len(found()) >= count, message=f"{count} spans of {kind} do not come")
        return found()

    def one(self, kind: SpanKind) -> ReadableSpan:
        (span,) = self.of(kind)
        return span

    @property
    def none(self) -> bool:
        return not self._exporter.get_finished_spans()


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traces]:
    """As `trace.set_tracer_provider`, which works once in a process only."""
    traces = Traces()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", traces.provider)
    yield traces
    traces.provider.shutdown()


@pytest.fixture
def client(calling: runtimes.Runtime, service: CountingService) -> ResilientServiceClient:
    return ResilientServiceClient(service.url, "Chroma Server", key="chroma", max_retries=2)


def context_in(headers: object) -> tuple[int, int]:
    """Trace and span of a `traceparent`."""
    version, trace_id, span_id, _ = headers["traceparent"].split("-")  # type: ignore[index]
    assert version == "00"
    return int(trace_id, 16), int(span_id, 16)


def ids(span: ReadableSpan) -> tuple[int, int]:
    return span.context.trace_id, span.context.span_id


def parent(span: ReadableSpan) -> tuple[int, int] | None:
    return None if span.parent is None else (span.parent.trace_id, span.parent.span_id)


class TestWaitedFor:
    def test_the_trace_leads_from_the_application_to_the_service(
        self, client: ResilientServiceClient, house: RemoteHouse, service: CountingService, traces: Traces
    ) -> None:
        with traces.tracer.start_as_current_span("handler") as handler:
            client.get("/query", params={"secret": "k-12345"})
        (request,) = service.requests
        sent, attempt, http = traces.one(SpanKind.PRODUCER), traces.one(SpanKind.CONSUMER), traces.one(SpanKind.CLIENT)
        assert parent(sent) == (handler.context.trace_id, handler.context.span_id)
        assert parent(attempt) == ids(sent)
        assert parent(http) == ids(attempt)
        assert context_in(request.headers) == ids(http)
        assert [(link.context.trace_id, link.context.span_id) for link in attempt.links] == [ids(sent)]
        assert sent.end_time >= attempt.end_time, "the caller's span ends with the answer"

    def test_names_and_attributes_are_those_of_the_conventions(
        self, client: ResilientServiceClient, house: RemoteHouse, service: CountingService, traces: Traces
    ) -> None:
        service.script("/query", Answer(404))
        client.post("/query", params={"secret": "k-12345"}, json={"secret": "k-12345"})
        sent, attempt, http = traces.one(SpanKind.PRODUCER), traces.one(SpanKind.CONSUMER), traces.one(SpanKind.CLIENT)
        id, queue = service.requests[0].headers["idempotency-key"], "chroma.waited"
        about = {
            "messaging.system": "seawall",
            "messaging.destination.name": queue,
            "messaging.message.id": id,
            "seawall.service": "chroma",
            "http.request.method": "POST",
            "url.path": "/query",
            "http.response.status_code": 404,
        }
        server = {"server.address": "127.0.0.1", "server.port": service.port}
        assert (sent.name, attempt.name, http.name) == (f"send {queue}", f"process {queue}", "POST")
        assert dict(sent.attributes) == about | {"messaging.operation.name": "send", "messaging.operation.type": "send"}
        assert dict(attempt.attributes) == about | server | {
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "seawall.attempt": 1,
            "seawall.round": 1,
        }
        assert dict(http.attributes) == server | {
            "http.request.method": "POST",
            "url.full": f"{service.url}/query",
            "http.response.status_code": 404,
            "error.type": "404",
        }
        statuses = [span.status.status_code for span in (sent, attempt, http)]
        assert statuses == [StatusCode.UNSET, StatusCode.UNSET, StatusCode.ERROR], "a 404 is an answer, no failure"

    def test_each_attempt_has_a_span(
        self, client: ResilientServiceClient, house: RemoteHouse, service: CountingService, traces: Traces
    ) -> None:
        service.script("/query", Answer(503), Answer(hang_up=True))
        with pytest.raises(requests.ConnectionError):
            client.post("/query")
        first, second = traces.of(SpanKind.CONSUMER, 2)
        sent = traces.one(SpanKind.PRODUCER)
        assert [span.attributes["seawall.attempt"] for span in (first, second)] == [1, 2]
        assert parent(first) == parent(second) == ids(sent)
        assert [span.attributes["error.type"] for span in (first, second, sent)] == [
            "503",
            "requests.exceptions.ConnectionError",
            "requests.exceptions.ConnectionError",
        ]
        assert not any(span.events or span.status.description for span in (first, second, sent)), "texts are not noted"

    def test_a_refused_call_has_a_span_that_says_so(self, client: ResilientServiceClient, traces: Traces) -> None:
        client._view().by_hand(ForceOpen())
        with pytest.raises(ServiceUnavailable):
            client.get("/query")
        sent = traces.one(SpanKind.PRODUCER)
        assert sent.attributes["error.type"] == "seawall.errors.ServiceUnavailable"
        assert sent.status.status_code is StatusCode.ERROR


class TestBackground:
    def test_the_callers_span_ends_when_the_call_is_queued(
        self, client: ResilientServiceClient, redis_url: str, service: CountingService, traces: Traces
    ) -> None:
        with traces.tracer.start_as_current_span("handler") as handler:
            client.fire("POST", "/jobs")
            snapshot(client, "p7")
            client.enqueue("PUT", "/jobs/7")
        sent = traces.of(SpanKind.PRODUCER)
        assert [span.attributes["url.path"] for span in sent] == ["/jobs", "/snapshot/p7", "/jobs/7"]
        assert {parent(span) for span in sent} == {(handler.context.trace_id, handler.context.span_id)}
        with RemoteHouse(redis_url):
            attempts = traces.of(SpanKind.CONSUMER, 3)
        assert {parent(span) for span in attempts} == {ids(span) for span in sent}
        assert {context_in(request.headers)[0] for request in service.requests} == {handler.context.trace_id}

    def test_many_calls_share_the_span_that_queued_them(
        self, client: ResilientServiceClient, house: RemoteHouse, service: CountingService, traces: Traces
    ) -> None:
        client.enqueue_many([("POST", f"/jobs/{number}") for number in range(3)])
        attempts, sent = traces.of(SpanKind.CONSUMER, 3), traces.one(SpanKind.PRODUCER)
        assert sent.attributes["messaging.batch.message_count"] == 3
        assert {parent(span) for span in attempts} == {ids(sent)}

    def test_a_dead_letter_sent_again_is_linked_to_the_original(
        self,
        client: ResilientServiceClient,
        calling: runtimes.Runtime,
        house: RemoteHouse,
        traces: Traces,
        service: CountingService,
    ) -> None:
        service.script("/jobs", Answer(500), Answer(500), Answer(503), Answer(200))
        handle = client.enqueue("POST", "/jobs", rounds=1)
        wait_until(lambda: handle.status() == "failed")
        assert calling.engine.queue.replay(queue_names("chroma")[1], handle.id, 60)
        *_, third, fourth = traces.of(SpanKind.CONSUMER, 4)
        sent = traces.one(SpanKind.PRODUCER)
        assert [span.attributes["seawall.replays"] for span in (third, fourth)] == [1, 1]
        for span in (third, fourth):
            assert span.parent is None
            assert [link.context.span_id for link in span.links] == [sent.context.span_id]


class TestWhereNoWorkerIs:
    def test_a_call_made_by_its_caller_while_the_broker_is_away(self, service: CountingService, traces: Traces) -> None:
        with caller("redis://127.0.0.1:1/0"):
            ResilientServiceClient(service.url, key="chroma").get("/query")
        sent, attempt, http = traces.one(SpanKind.PRODUCER), traces.one(SpanKind.CONSUMER), traces.one(SpanKind.CLIENT)
        assert (parent(attempt), parent(http)) == (ids(sent), ids(attempt))
        assert context_in(service.requests[0].headers) == ids(http)

    def test_a_call_in_memory_mode(self, service: CountingService, traces: Traces) -> None:
        runtime = runtimes.Runtime(load_settings())
        before = runtimes.replace(runtime)
        try:
            with no_services():
                ResilientServiceClient(service.url, key="chroma").get("/query")
        finally:
            runtimes.replace(before)
            runtime.close()
        assert parent(traces.one(SpanKind.CONSUMER)) == ids(traces.one(SpanKind.PRODUCER))
        assert context_in(service.requests[0].headers) == ids(traces.one(SpanKind.CLIENT))


class TestWithoutAProvider:
    OWN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    def test_the_applications_own_header_is_left_alone(
        self, client: ResilientServiceClient, house: RemoteHouse, service: CountingService
    ) -> None:
        client.get("/query", headers={"traceparent": self.OWN})
        client.get("/query")
        given, bare = service.requests
        assert given.headers["traceparent"] == self.OWN
        assert "traceparent" not in bare.headers

    def test_a_worker_that_does_not_trace_hands_the_callers_context_on(
        self,
        client: ResilientServiceClient,
        redis_url: str,
        traces: Traces,
        service: CountingService,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        client.enqueue("POST", "/jobs")
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
        with RemoteHouse(redis_url):
            (request,) = service.wait_for(1)
        assert context_in(request.headers) == ids(traces.one(SpanKind.PRODUCER))

    def test_nothing_is_imported(self) -> None:
        """Its absence is played by refusing the import: redis-py itself takes what is installed."""
        text = """
import sys
from importlib.abc import MetaPathFinder
class Refuse(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "opentelemetry":
            raise ModuleNotFoundError("not installed here", name=name)
sys.meta_path.insert(0, Refuse())
from seawall import ResilientServiceClient
import http.server, threading
class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = ResilientServiceClient(f"http://127.0.0.1:{server.server_port}", key="x")
assert client.get("/").status_code == 200
assert client.enqueue("GET", "/").result(5).status_code == 200
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
print("none")
"""
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() == "none", done.stderr


class TestRecords:
    """Releases before this one have no `trace` and no `replays`."""

    def test_an_older_worker_reads_a_traced_call(self) -> None:
        fields = [
            (f.name, f.type, f.default) for f in msgspec.structs.fields(Call) if f.name != "trace" and not f.required
        ]
        required = [(f.name, f.type) for f in msgspec.structs.fields(Call) if f.required]
        older = msgspec.defstruct("Call", [*required, *fields], kw_only=True, omit_defaults=True)
        call = Call(id="1", service="s", origin="http://x", method="GET", target="/", trace=("00-1-2-01", "a=b"))
        assert msgspec.msgpack.decode(encode(call), type=older).target == "/"

    def test_a_call_of_an_older_client_has_no_trace(self) -> None:
        call = Call(id="1", service="s", origin="http://x", method="GET", target="/")
        assert b"trace" not in encode(call)
        assert decode_call(encode(call)).trace == ()
        assert decode_progress(encode(Progress(attempt=1))).replays == 0


def test_a_json_log_line_names_the_current_span(traces: Traces) -> None:
    record = logging.makeLogRecord({"name": "seawall.chroma", "msg": "hello", "levelno": logging.INFO})
    with traces.tracer.start_as_current_span("handler") as span:
        line = json.loads(JsonFormatter().format(record))
    context = span.get_span_context()
    assert (int(line["trace_id"], 16), int(line["span_id"], 16)) == (context.trace_id, context.span_id)
    assert len(line["trace_id"]) == 32
    assert "trace_id" not in json.loads(JsonFormatter().format(record))
