"""Requests that have ended, as OpenTelemetry spans: one for the request, and below it one for each call.

Knows no prompt, no answer and no key. Attributes follow OpenTelemetry's semantic conventions for HTTP and for
generative AI; `manyminds.*` says what they have no word for.

A span is made of plain values once its request has ended, and put into the bounded queue of OpenTelemetry's
batch processor, whose thread sends it. Where that is too slow or nobody listens, spans are lost, and nothing
waits.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from threading import Thread
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit

import msgspec

from manyminds.errors import ConfigError
from manyminds.types import Answer, Card, PanelEntry, Report
from manyminds.web.answering import Reply

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.trace import SpanContext, SpanKind, TraceState

__all__ = ["Look", "Spans", "open_spans"]

log = logging.getLogger(__name__)

Look: TypeAlias = Callable[[str], tuple[Card, str] | None]
"""An expert's card, and its base URL or nothing; None where it has left."""

_Values: TypeAlias = Mapping[str, str | int | float | tuple[str, ...] | None]

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_WAITING: Final = 10_000  # requests whose panel is known and whose reply has not ended
_SHOWN: Final = 200  # characters of a value
_QUIET_S: Final = 60.0  # between two lines of the log about what OpenTelemetry has to say
_LAST_S: Final = 3.0  # for what has not been sent when the node ends
_FAILED: Final = ("failed", "cut", "late")
_NANO: Final = 10**9


def open_spans(environ: Mapping[str, str], version: str, look: Look) -> "Spans | None":
    """What OpenTelemetry's environment variables ask for: None unless they name an endpoint to send to.

    `environ` decides whether and where; the library reads all else from the process's own environment.

    Raises: ConfigError where they ask for what is not installed or not spoken.
    """
    named = next((name for name in _ENDPOINTS if environ.get(name)), None)
    off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if named is None or off or environ.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(
            f"{named} asks for OpenTelemetry's spans, and {error.name} is not installed: "
            "`pip install 'manyminds[otel]'`, or unset the variable."
        ) from None
    if urlsplit(environ[named]).scheme not in ("http", "https"):
        raise ConfigError(f"{named} must be a URL such as http://127.0.0.1:4318.")
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        raise ConfigError(
            f"Spans are sent as http/protobuf, not as {protocol!r:.40}: unset {' and '.join(_PROTOCOLS)}, "
            f"and let {named} name the collector's port for HTTP, which is usually 4318."
        )
    talk = _Sparse()
    resource = Resource.create()
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "manyminds", "service.version": version}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    return Spans(provider, BatchSpanProcessor(OTLPSpanExporter()), look, talk=talk)


class Spans:
    """Turns requests into spans. All but the sending in one thread, that of the event loop.

    Args:
        provider: whose sampler, ids and resource the spans have.
        processor: takes whole spans; must not wait.
        look: finds the expert of a name.
        clock: what the gateway measures by, in seconds.
        talk: carries the library's own complaints, for as long as this is open.
    """

    def __init__(
        self,
        provider: "TracerProvider",
        processor: "SpanProcessor",
        look: Look,
        clock: Callable[[], float] = time.perf_counter,
        talk: logging.Handler | None = None,
    ) -> None:
        from opentelemetry.context import Context
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._sdk = _Sdk()
        self._nowhere = Context()
        self._provider = provider
        self._processor = processor
        self._look = look
        self._clock = clock
        self._talk = talk
        self._scope = InstrumentationScope("manyminds")
        self._propagator = TraceContextTextMapPropagator()
        self._open: dict[str, tuple[Report, Sequence[Answer], int, float]] = {}
        self._library = logging.getLogger("opentelemetry")
        if talk is not None:
            self._library.addHandler(talk)
            self._library.propagate = False

    def record(self, report: Report, answers: Sequence[Answer]) -> None:
        """Notes a request's calls, as `gateway.Record` is told them, until `seen` is told of its end."""
        self._open[report.request_id] = report, answers, time.time_ns(), self._clock()
        if len(self._open) > _WAITING:
            del self._open[next(iter(self._open))]

    def seen(self, path: str, reply: Reply, traceparent: str = "", tracestate: str = "") -> None:
        """Makes the spans of a request that has ended; see `answering.Seen`.

        `traceparent` and `tracestate` are the caller's headers of W3C Trace Context: these spans become part
        of its trace, and under the default sampler it decides whether they are kept.
        """
        ended_ns = time.time_ns()
        found = self._open.pop(reply.request_id, None)
        caller = self._nowhere
        if traceparent:
            carrier = {"traceparent": traceparent, "tracestate": tracestate}
            caller = self._propagator.extract(carrier, caller)
        above = self._sdk.current(caller).get_span_context()
        trace_id = above.trace_id if above.is_valid else self._provider.id_generator.generate_trace_id()
        name, kinds = f"POST {path}", self._sdk.kinds
        about = {"http.request.method": "POST", "http.route": path}
        sampled = self._provider.sampler.should_sample(caller, trace_id, name, kinds.SERVER, about)
        if sampled.decision is not self._sdk.kept:
            return
        mine = self._new(trace_id, sampled.trace_state)
        if found is not None:
            self._put_calls(mine, *found[1:], found[0].panel)
        attributes = _of_request(path, reply, found[0] if found is not None else None)
        began_ns, parent = ended_ns - round(reply.seconds * _NANO), above if above.is_valid else None
        self._put(name, mine, parent, kinds.SERVER, attributes, began_ns, ended_ns, _went_wrong(reply))

    def _put_calls(
        self,
        request: "SpanContext",
        answers: Sequence[Answer],
        now_ns: int,
        clock_s: float,
        panel: Sequence[PanelEntry],
    ) -> None:
        """`now_ns` and `clock_s` are one moment, after all calls."""
        for answer, entry in zip(answers, panel, strict=True):
            began_ns = ended_ns = now_ns
            if answer.began_s is not None:
                began_ns -= max(0, round((clock_s - answer.began_s) * _NANO))
                ended_ns = min(now_ns, began_ns + round(answer.seconds * _NANO))
            known = self._look(answer.expert)
            kind = self._sdk.kinds.CLIENT if known is not None and known[1] else self._sdk.kinds.INTERNAL
            attributes, went_wrong = _of_call(answer, entry, known), answer.status in _FAILED
            name = f"{attributes['gen_ai.operation.name']} {attributes['gen_ai.request.model']}"
            mine = self._new(request.trace_id, request.trace_state)
            self._put(name, mine, request, kind, attributes, began_ns, ended_ns, went_wrong)

    def _new(self, trace_id: int, state: "TraceState | None") -> "SpanContext":
        span_id = self._provider.id_generator.generate_span_id()
        return self._sdk.context(trace_id, span_id, False, self._sdk.sampled, state)

    def _put(
        self,
        name: str,
        context: "SpanContext",
        parent: "SpanContext | None",
        kind: "SpanKind",
        attributes: _Values,
        began_ns: int,
        ended_ns: int,
        went_wrong: bool,
    ) -> None:
        """Made whole, not started and ended: that takes forty times as long, and this is in the loop."""
        span = self._sdk.span(
            name,
            context,
            parent,
            self._provider.resource,
            attributes,
            kind=kind,
            status=self._sdk.wrong if went_wrong else self._sdk.unset,
            start_time=began_ns,
            end_time=ended_ns,
            instrumentation_scope=self._scope,
        )
        self._processor.on_end(span)

    def close(self) -> None:
        """Sends what is left, and waits for it: three seconds at most."""
        # The processor's own end waits for half a minute; its thread is a daemon, so it may be left at that.
        closing = Thread(target=self._processor.shutdown, name="spans end", daemon=True)
        closing.start()
        closing.join(_LAST_S)
        if closing.is_alive():  # what it complains of still goes to `talk`
            log.warning("The spans of the last requests were not sent: nobody took them in time.")
        elif self._talk is not None:
            self._library.removeHandler(self._talk)
            self._library.propagate = True


class _Sdk:
    """What the library has for every span: looked up once, for it is loaded only where it is wanted."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.trace.sampling import Decision
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
        from opentelemetry.trace import get_current_span as current

        self.span, self.context, self.kinds = ReadableSpan, SpanContext, SpanKind
        self.current = current
        self.kept, self.sampled = Decision.RECORD_AND_SAMPLE, TraceFlags(TraceFlags.SAMPLED)
        self.wrong, self.unset = Status(StatusCode.ERROR), Status(StatusCode.UNSET)


class _Sparse(logging.Handler):
    """Says what a library complains of in our own log, and no more than a line a minute of it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._again_s = -float("inf")

    def emit(self, record: logging.LogRecord) -> None:
        if (now := self._clock()) >= self._again_s:
            self._again_s = now + _QUIET_S
            log.warning("OpenTelemetry, once a minute at most: %.400s", record.getMessage())


# --- attributes ------------------------------------------------------------------------------------
# https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server
# https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/#inference


def _of_request(path: str, reply: Reply, report: Report | None) -> _Values:
    status = reply.status
    wrong = str(status) if isinstance(status, str) or status >= 500 else None
    key, query = reply.key, reply.query
    values: dict[str, str | int | float | tuple[str, ...] | None] = {
        "http.request.method": "POST",
        "http.route": path,
        "url.path": path,
        "http.response.status_code": 200 if status == "cut" else status if isinstance(status, int) else None,
        "error.type": wrong,
        "manyminds.request_id": reply.request_id,
        "manyminds.key_id": key.id if key is not None else None,
        "manyminds.model": _text(query.model) if query is not None else None,
        "manyminds.stream": query.stream if query is not None else None,
        "manyminds.first_byte_s": reply.first_byte_s,
    }
    if report is not None:
        values |= {
            "manyminds.policy": report.policy,
            "manyminds.strategy": report.strategy,
            "manyminds.panel": len(report.panel),
            "manyminds.agreement": report.agreement,
            "manyminds.probability": report.probability,
            "manyminds.cost_usd": report.cost_usd,
            "manyminds.saved_usd": report.saved_usd,
        }
    return _clean(values)


def _went_wrong(reply: Reply) -> bool:
    """A client that leaves has not been failed."""
    return reply.status == "cut" or (isinstance(reply.status, int) and reply.status >= 500)


def _of_call(answer: Answer, entry: PanelEntry, known: tuple[Card, str] | None) -> _Values:
    card, url = known or (None, "")
    host, port = _address(url)
    first, last = (answer.chunks[0], answer.chunks[-1]) if answer.chunks else (None, None)
    finish = _text(last.finish_reason) if last is not None else None
    usage, heard = answer.usage, answer.status != "failed"
    return _clean(
        {
            "gen_ai.operation.name": "embeddings" if card and "embeddings" in card.offers else "chat",
            "gen_ai.provider.name": "openai" if card is not None and card.kind == "openai" else "manyminds",
            "gen_ai.request.model": card.model if card is not None and card.model else answer.expert,
            "gen_ai.response.model": _text(_named(first.raw)) if first is not None else None,
            "gen_ai.response.finish_reasons": (finish,) if finish is not None else None,
            "gen_ai.response.time_to_first_chunk": answer.ttft_s,
            "gen_ai.usage.input_tokens": usage.prompt_tokens if heard else None,
            "gen_ai.usage.output_tokens": usage.completion_tokens if heard else None,
            "server.address": host,
            "server.port": port,
            "error.type": _error(answer),
            "manyminds.expert": answer.expert,
            "manyminds.source": answer.source,
            "manyminds.stage": answer.stage,
            "manyminds.method": answer.method,
            "manyminds.status": answer.status,
            "manyminds.weight": entry.weight,
            "manyminds.correct_probability": entry.correct_probability,
            "manyminds.cost_usd": answer.usage.cost_usd,
        }
    )


def _error(answer: Answer) -> str | None:
    if answer.status not in _FAILED:
        return None
    return answer.error.code if answer.error is not None else answer.status


class _Named(msgspec.Struct):
    model: str | None = None


def _named(raw: bytes) -> str | None:
    """The model that an expert says it is."""
    try:
        return msgspec.json.decode(raw, type=_Named).model if raw else None
    except msgspec.DecodeError:
        return None


@lru_cache(maxsize=256)
def _address(url: str) -> tuple[str | None, int | None]:
    """Host and port of a URL that the configuration has checked, or of none; never its user or password."""
    parts = urlsplit(url)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.hostname, parts.port or usual


def _clean(values: _Values) -> _Values:
    """Without what is not known."""
    return {name: value for name, value in values.items() if value is not None}


def _text(value: str | None) -> str | None:
    """What a caller or an expert said, as protobuf takes it: what it refuses costs all spans of a batch."""
    if value is None:
        return None
    short = value if len(value) <= _SHOWN else value[: _SHOWN - 1] + "…"
    return short if short.isascii() else short.encode("utf-8", "backslashreplace").decode()
