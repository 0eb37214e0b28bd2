"""Spans of requests: what they say and never say, when they were, whose trace they are, and where they go."""

import asyncio
import json
import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from manyminds.errors import ConfigError, UnavailableError
from manyminds.experts.scripted import Script, Scripted
from manyminds.router.policy import POLICIES
from manyminds.types import Answer, Card, Chunk, Key, Message, PanelEntry, Query, Report, Usage
from manyminds.web import spans as module
from manyminds.web.answering import Reply
from manyminds.web.app import App, Edge
from manyminds.web.spans import Look, Spans, open_spans
from tests.clock import run
from tests.network import Records, network, scripted
from tests.web.client import call

CHAT = "/v1/chat/completions"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
WHY = [{"role": "user", "content": "Why do cats purr?"}]
NANO = 10**9


def nobody(name: str) -> None:
    return None


def remembering(look: Look = nobody, clock: Any = None) -> tuple[Spans, InMemorySpanExporter]:
    memory = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({}), shutdown_on_exit=False)
    more = {"clock": clock} if clock else {}
    return Spans(provider, SimpleSpanProcessor(memory), look, **more), memory


class Told(Records):
    """A ledger, and the spans beside it."""

    spans: Spans

    def record(self, report: Report, query: Query, answers: Any, *rest: Any) -> None:
        super().record(report, query, answers, *rest)
        self.spans.record(report, answers)


def asked(fields: dict[str, Any], *experts: Scripted, urls: Mapping[str, str] | None = None) -> Any:
    """The spans of one request: the first is its own, the others are its calls' in the order of asking."""
    cards = {expert.card.name: expert.card for expert in experts}
    records = Told()
    records.spans, memory = remembering(
        lambda name: (cards[name], (urls or {}).get(name, "")), lambda: asyncio.get_running_loop().time()
    )
    seen = records.spans.seen
    app = App(Edge(network(*experts, records=records), POLICIES, list, lambda: True, 10_000, seen=seen))
    body = {"model": "auto", "messages": [{"role": "user", "content": "PROMPT: 17 + 26?"}]} | fields
    run(call(app, "POST", CHAT, json.dumps(body).encode()))
    *calls, request = memory.get_finished_spans()
    return request, *calls


def reply(status: int | str = 200, **more: Any) -> Reply:
    fields: dict[str, Any] = {"request_id": "r1", "key": None, "query": None, "status": status}
    return Reply(**fields | {"seconds": 0.25, "first_byte_s": None, "last": Chunk()} | more)


def of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


# --- what they say ---------------------------------------------------------------------------------


def test_a_request_is_a_span_and_each_call_one_below_it() -> None:
    script = Script(text="ANSWER: 43.")
    near = Scripted(Card("near", "local", "near", "near-1b"), script)
    far = Scripted(Card("far", "openai", "alice", "far-70b", price_out_usd_per_m=1.0), script)
    url = "https://me:hunter2@api.example/v1"
    request, *calls = asked({}, near, far, urls={"far": url})
    assert (request.name, request.kind, request.parent) == (f"POST {CHAT}", SpanKind.SERVER, None)
    assert of(request)["http.response.status_code"] == 200
    assert of(request)["manyminds.policy"] == "auto"
    assert of(request)["manyminds.panel"] == 2
    assert "error.type" not in of(request)
    by_expert = {of(span)["manyminds.expert"]: span for span in calls}
    assert by_expert.keys() == {"near", "far"}
    assert {span.parent.span_id for span in calls} == {request.context.span_id}
    assert {span.context.trace_id for span in calls} == {request.context.trace_id}
    assert len({span.context.span_id for span in (request, *calls)}) == 3
    span = by_expert["far"]
    assert (span.name, span.kind) == ("chat far-70b", SpanKind.CLIENT)
    assert of(span).items() >= {
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "far-70b"),
        ("gen_ai.response.finish_reasons", ("stop",)),
        ("gen_ai.usage.output_tokens", 2),
        ("server.address", "api.example"),
        ("server.port", 443),
        ("manyminds.source", "alice"),
        ("manyminds.stage", 0),
        ("manyminds.method", "generate"),
        ("manyminds.status", "ok"),
        ("manyminds.cost_usd", 2e-6),
    }
    assert of(by_expert["near"])["gen_ai.provider.name"] == "manyminds"
    assert by_expert["near"].kind == SpanKind.INTERNAL
    assert sum(of(span)["manyminds.weight"] for span in calls) == pytest.approx(1.0)
    everything = "".join(span.to_json() for span in (request, *calls))
    assert not [word for word in ("PROMPT", "ANSWER", "hunter2") if word in everything]


def test_a_call_that_failed_says_how_and_the_request_did_not() -> None:
    down = scripted("down", Script(fail_before=UnavailableError("SECRET")))
    request, *calls = asked({}, down, scripted("up", Script(text="It is 43.")))
    by_expert = {of(span)["manyminds.expert"]: span for span in calls}
    span = by_expert["down"]
    assert span.status.status_code == StatusCode.ERROR
    assert of(span)["error.type"] == "expert_unavailable"
    assert "gen_ai.usage.output_tokens" not in of(span)
    assert "SECRET" not in span.to_json()
    assert by_expert["up"].status.status_code == request.status.status_code == StatusCode.UNSET


def test_a_request_that_nobody_answered_has_its_calls_all_the_same() -> None:
    request, *calls = asked(
        {"model": "a", "stream": True}, scripted("a", Script(text="one two three", cut_after=2))
    )
    assert [of(span)["manyminds.status"] for span in calls] == ["cut"]
    assert of(request)["error.type"] == "cut"
    assert of(request)["http.response.status_code"] == 200
    assert of(request)["manyminds.cost_usd"] > 0
    assert request.status.status_code == StatusCode.ERROR


@pytest.mark.parametrize(
    ("status", "error_type", "code"),
    [
        (200, None, StatusCode.UNSET),
        (429, None, StatusCode.UNSET),
        (503, "503", StatusCode.ERROR),
        ("gone", "gone", StatusCode.UNSET),
        ("cut", "cut", StatusCode.ERROR),
    ],
)
def test_how_a_request_ended(status: int | str, error_type: str | None, code: StatusCode) -> None:
    spans, memory = remembering()
    spans.seen(CHAT, reply(status, key=Key("key_1", "ann"), query=Query((), model="a")))
    (span,) = memory.get_finished_spans()
    assert of(span).get("error.type") == error_type
    assert span.status.status_code == code
    assert of(span)["manyminds.key_id"] == "key_1"


def test_what_is_said_can_be_sent() -> None:
    """One value that protobuf refuses would cost all spans of its batch."""
    spans, memory = remembering()
    raw = json.dumps({"model": "x" * 10_000}).encode()
    last = Chunk("", "st\ud800p", Usage(10**9, 10**9), raw)
    answer = Answer("a", "s", "ok", chunks=(last,), usage=Usage(10**9, 10**9, cost_usd=1e300))
    entry = PanelEntry("a", "", 1.0, "", None, None, 0.0, 0.0, "ok")
    spans.record(Report("r1", "auto", "vote", (entry,), None, None, (), 0.0, 0.0), [answer])
    spans.seen(CHAT, reply(query=Query((), model="m\ud800" * 1000)))
    found = memory.get_finished_spans()
    sent = encode_spans(found).SerializeToString()
    assert (len(found), len(sent) < 3000) == (2, True)


@pytest.mark.parametrize("raw", [b"", b"not JSON", b"[]", b'{"model": 7}', b'{"choices": []}'])
def test_an_expert_that_does_not_say_its_model_is_tolerated(raw: bytes) -> None:
    spans, memory = remembering()
    answer = Answer("a", "s", "ok", chunks=(Chunk(raw=raw),))
    entry = PanelEntry("a", "s", 1.0, "", None, None, 0.0, 0.0, "ok")
    spans.record(Report("r1", "auto", "vote", (entry,), None, None, (), 0.0, 0.0), [answer])
    spans.seen(CHAT, reply())
    span, _ = memory.get_finished_spans()
    assert span.name == "chat a"
    assert "gen_ai.response.model" not in of(span)


def test_a_request_whose_end_is_never_told_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAITING", 2)
    spans, memory = remembering()
    answer, entry = Answer("a", "s", "ok"), PanelEntry("a", "s", 1.0, "", None, None, 0.0, 0.0, "ok")
    for name in ("1", "2", "3"):
        spans.record(Report(name, "auto", "vote", (entry,), None, None, (), 0.0, 0.0), [answer])
    for name in ("1", "2", "3"):
        spans.seen(CHAT, reply(request_id=name))
    assert [span.name for span in memory.get_finished_spans()].count("chat a") == 2


# --- when ------------------------------------------------------------------------------------------


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / NANO


def test_calls_lie_in_time_as_they_were_made() -> None:
    quick = scripted(
        "quick", Script(text="They purr when they are content.", first_token_s=1.0), accuracy=0.7
    )
    slow = scripted("slow", Script(text="It heals bones.", first_token_s=3.0), accuracy=0.7)
    _, *calls = asked({"messages": WHY, "manyminds": {"strategy": "fuse"}}, quick, slow)
    drafts = {of(span)["manyminds.expert"]: span for span in calls if of(span)["manyminds.stage"] == 0}
    (fused,) = [span for span in calls if of(span)["manyminds.method"] == "fuse"]
    assert drafts["quick"].start_time == pytest.approx(drafts["slow"].start_time, abs=1000)
    assert seconds(drafts["quick"]) == pytest.approx(1.0)
    assert seconds(drafts["slow"]) == pytest.approx(3.0)
    assert fused.start_time == pytest.approx(drafts["slow"].end_time, abs=1000)


def test_a_request_ends_now_and_a_call_that_never_began_takes_no_time() -> None:
    spans, memory = remembering()
    answer = Answer("a", "s", "cancelled", seconds=0.0)
    entry = PanelEntry("a", "s", 1.0, "", None, None, 0.0, 0.0, "cancelled")
    spans.record(Report("r1", "auto", "vote", (entry,), None, None, (), 0.0, 0.0), [answer])
    spans.seen(CHAT, reply(seconds=0.25))
    never, request = memory.get_finished_spans()
    assert seconds(never) == 0.0
    assert seconds(request) == 0.25
    assert request.start_time is not None
    assert request.start_time <= (never.start_time or 0) <= (request.end_time or 0)


# --- whose trace -----------------------------------------------------------------------------------


def test_the_callers_trace_is_continued() -> None:
    spans, memory = remembering()
    spans.seen(CHAT, reply(), f"00-{TRACE}-{PARENT}-01", "vendor=value")
    (span,) = memory.get_finished_spans()
    assert span.parent is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert span.context.trace_state.to_header() == "vendor=value"


def test_a_caller_that_keeps_no_trace_gets_none() -> None:
    spans, memory = remembering()
    spans.seen(CHAT, reply(), f"00-{TRACE}-{PARENT}-00")
    assert memory.get_finished_spans() == ()


def test_the_sampler_of_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    spans, memory = remembering()
    spans.seen(CHAT, reply())
    assert memory.get_finished_spans() == ()


@given(st.text(max_size=80), st.text(max_size=200))
def test_a_broken_trace_begins_a_new_one(traceparent: str, tracestate: str) -> None:
    spans, memory = remembering()
    spans.seen(CHAT, reply(), traceparent, tracestate)
    (span,) = memory.get_finished_spans()
    assert span.parent is None
    assert span.context.trace_id


# --- where they go ---------------------------------------------------------------------------------


class Collector(ThreadingHTTPServer):
    """Takes what is sent as OTLP, or with `over` set only at its end, nothing."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Collector)
        self.status = 200
        self.bodies: list[bytes] = []
        self.paths: set[str] = set()
        self.over = threading.Event()
        self.over.set()

    @property
    def spans(self) -> list[Any]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [s for r in requests for whole in r.resource_spans for x in whole.scope_spans for s in x.spans]


class _Collector(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.paths.add(self.path)
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.over.wait()
        self.server.bodies.append(body)
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


def opened(monkeypatch: pytest.MonkeyPatch, port: int, **more: str) -> Spans:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", **more}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    made = open_spans(environ, "1.2", nobody)
    assert made is not None
    return made


def test_spans_reach_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as server:
        spans = opened(monkeypatch, server.server_port, OTEL_RESOURCE_ATTRIBUTES="deployment=blue")
        spans.seen(CHAT, reply())
        spans.close()
        (body,) = server.bodies
    (whole,) = ExportTraceServiceRequest.FromString(body).resource_spans
    about = {a.key: a.value.string_value for a in whole.resource.attributes}
    assert about.items() >= {
        ("service.name", "manyminds"),
        ("service.version", "1.2"),
        ("deployment", "blue"),
    }
    assert [span.name for span in server.spans] == [f"POST {CHAT}"]
    assert server.paths == {"/v1/traces"}


def test_the_service_has_the_name_that_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as server:
        spans = opened(monkeypatch, server.server_port, OTEL_SERVICE_NAME="edge-7")
        spans.seen(CHAT, reply())
        spans.close()
        (body,) = server.bodies
    assert b"edge-7" in body
    assert b"unknown_service" not in body


def test_a_collector_that_is_down_costs_one_line_and_no_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Collector) as gone:
        port = gone.server_port
    spans = opened(monkeypatch, port, OTEL_EXPORTER_OTLP_TIMEOUT="0.2", OTEL_BSP_SCHEDULE_DELAY="1")
    for number in range(5000):  # more than its queue holds
        spans.seen(CHAT, reply(request_id=str(number)))
    spans.close()
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1
    assert "OpenTelemetry, once a minute at most: " in caplog.text


def test_a_collector_that_hangs_does_not_keep_the_node_from_ending(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_LAST_S", 0.05)
    with collecting() as server:
        server.over.clear()
        spans = opened(monkeypatch, server.server_port)
        spans.seen(CHAT, reply())
        spans.close()
        assert "not sent" in caplog.text
        assert server.bodies == []
    logging.getLogger("opentelemetry").handlers.clear()
    logging.getLogger("opentelemetry").propagate = True


def test_complaints_are_heard_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = iter([0.0, 1.0, 59.9, 60.0, 61.0])
    talk = module._Sparse(lambda: next(now))
    for number in range(5):
        talk.handle(logging.LogRecord("x", logging.ERROR, "", 0, "complaint %d", (number,), None))
    assert [r.message[-11:] for r in caplog.records] == ["complaint 0", "complaint 3"]


# --- whether ---------------------------------------------------------------------------------------

SOMEWHERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        SOMEWHERE | {"OTEL_SDK_DISABLED": "true"},
        SOMEWHERE | {"OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_traced_unless_it_is_asked_for(environ: dict[str, str]) -> None:
    assert open_spans(environ, "1", nobody) is None


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT .*manyminds\[otel\]"):
        open_spans(SOMEWHERE, "1", nobody)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "localhost:4318"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        (SOMEWHERE | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "4318"),
    ],
)
def test_what_cannot_work_is_refused_at_once(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_spans(environ, "1", nobody)


def test_no_text_is_in_them() -> None:
    """A query's text is at hand when a span is made, and in none of it."""
    spans, memory = remembering()
    query = Query((Message("user", "PROMPT"),), model="a", raw=b'{"PROMPT": 1}')
    spans.seen(CHAT, reply(query=query, last=Chunk("ANSWER")))
    (span,) = memory.get_finished_spans()
    assert "PROMPT" not in span.to_json()
    assert "ANSWER" not in span.to_json()
