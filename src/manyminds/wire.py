"""OpenAI JSON to and from the types. Knows no socket and no expert.

Requests keep their own bytes: what goes upstream is the caller's JSON with only `model`, `stream` and
`manyminds` changed, so that fields unknown to us survive. Answers are relayed as they came wherever an
expert spoke this format; `written` makes the JSON where none came.
"""

import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

import msgspec

from manyminds.errors import GarbageError, InvalidRequestError, ManymindsError
from manyminds.types import Chunk, Limits, Message, Query, Report, Sampling, Usage

__all__ = [
    "Events",
    "completion",
    "error_body",
    "error_text",
    "event",
    "parse_chunk",
    "parse_request",
    "report_object",
    "request_body",
    "stream_end",
    "written",
]


class _Limits(msgspec.Struct, forbid_unknown_fields=True):
    """The request's `manyminds` object, as DESIGN.md section 14 lists it."""

    policy: str | None = None
    panel: int | None = None
    include: list[str] = []
    exclude: list[str] = []
    weights: dict[str, float] = {}
    budget_usd: float | None = None
    deadline_s: float | None = None
    quorum: int | None = None
    strategy: str | None = None
    explain: bool = False


class _Request(msgspec.Struct):
    """What we read of a chat completion request; the rest stays in the raw bytes."""

    model: str
    messages: list[dict[str, Any]]
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    logprobs: bool | None = None
    tools: list[Any] | None = None
    response_format: dict[str, Any] | None = None
    manyminds: msgspec.Raw = msgspec.Raw(b"{}")


_MOST_TOKENS = 2**31 - 1
_SEEDS = 2**63  # upstreams take 64 bits
_STRATEGIES = ("vote", "select", "fuse", "race", "pass")
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_request = msgspec.json.Decoder(_Request)
_limits = msgspec.json.Decoder(_Limits)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


# --- requests --------------------------------------------------------------------------------------


def parse_request(raw: bytes, request_id: str = "") -> Query:
    """A chat completion request to a query.

    Raises: InvalidRequestError, whose `param` names the field.
    """
    try:
        raw.decode()  # fields that are not ours are never decoded, yet everything must be text
        request = _request.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_finite(raw) or _invalid(error) from None
    messages = tuple(_message(m, f"messages[{i}]") for i, m in enumerate(request.messages))
    if not messages:
        raise InvalidRequestError("`messages` is empty: send at least one message.", param="messages")
    return Query(
        messages=messages,
        model=request.model,
        stream=bool(request.stream),
        sampling=_sampling(request),
        limits=_parse_limits(request.manyminds),
        demands=_demands(request),
        include_usage=bool((request.stream_options or {}).get("include_usage")),
        request_id=request_id,
        raw=raw,
    )


def _invalid(error: Exception, prefix: str = "") -> InvalidRequestError:
    """A decoding error with the field it names: msgspec ends such messages with " - at `$.path`"."""
    text = str(error)
    what, _, path = text.partition(" - at `$")
    path = path.rstrip("`").lstrip(".").replace("[...]", "")
    if not path and " field `" in what:  # "Object missing required field `model`"
        path = what.split("`")[1]
    param = ".".join(part for part in (prefix, path) if part) or None
    if isinstance(error, msgspec.ValidationError):
        where = f"`{param}`: " if param else "the body: "
    else:
        where = "the body is not valid JSON: "
    return InvalidRequestError(f"{where}{what:.300}.", param=param)


def _not_finite(raw: bytes) -> InvalidRequestError | None:
    """Python's own clients write NaN and Infinity, which JSON lacks: names the field that holds one."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    trail = [("", value)]
    while trail:
        path, value = trail.pop()
        if isinstance(value, float) and not math.isfinite(value):
            where = f"`{path}`" if path else "the body"
            return InvalidRequestError(f"{where} must be a finite number, not {value}.", param=path or None)
        if isinstance(value, dict):
            trail += [(f"{path}.{key}".lstrip("."), inner) for key, inner in value.items()]
        elif isinstance(value, list):
            trail += [(f"{path}[{i}]", inner) for i, inner in enumerate(value)]
    return None


def _message(fields: dict[str, Any], where: str) -> Message:
    role = fields.get("role")
    if role not in _ROLES:
        raise InvalidRequestError(
            f"`{where}.role` must be one of {', '.join(_ROLES)}.", param=f"{where}.role"
        )
    content = fields.get("content")
    if content is None:
        if role != "assistant":
            raise InvalidRequestError(f"`{where}.content` is missing.", param=f"{where}.content")
        return Message(role, "")
    if isinstance(content, str):
        return Message(role, content)
    if not isinstance(content, list):
        raise InvalidRequestError(
            f"`{where}.content` must be text or a list of parts.", param=f"{where}.content"
        )
    texts = []
    for part in content:
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise InvalidRequestError(
                f"`{where}.content` has a part without a type.", param=f"{where}.content"
            )
        text = part.get("text")
        if part["type"] == "text":
            if not isinstance(text, str):
                raise InvalidRequestError(
                    f"`{where}.content`: a text part needs `text`.", param=f"{where}.content"
                )
            texts.append(text)
    return Message(role, "\n".join(texts))


def _sampling(request: _Request) -> Sampling:
    _check("max_completion_tokens", request.max_completion_tokens, low=1, high=_MOST_TOKENS)
    _check("max_tokens", request.max_tokens, low=1, high=_MOST_TOKENS)
    max_tokens = request.max_completion_tokens or request.max_tokens
    _check("seed", request.seed, low=-_SEEDS, high=_SEEDS - 1)
    _check("n", request.n, low=1, high=128)
    _check("temperature", request.temperature, low=0, high=2)
    _check("top_p", request.top_p, low=0, high=1)
    stop = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())
    return Sampling(max_tokens, request.temperature, request.top_p, request.seed, stop, request.n or 1)


def _parse_limits(raw: msgspec.Raw) -> Limits:
    try:
        limits = _limits.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _invalid(error, "manyminds") from None
    _check("manyminds.panel", limits.panel, low=1, high=1000)
    _check("manyminds.quorum", limits.quorum, low=1, high=1000)
    _check("manyminds.budget_usd", limits.budget_usd, low=0)
    _check("manyminds.deadline_s", limits.deadline_s, low=0.001, high=86_400)
    for name, weight in limits.weights.items():
        _check(f"manyminds.weights.{name}", weight, low=0, high=1000)
    if limits.strategy is not None and limits.strategy not in _STRATEGIES:
        message = (
            f"`manyminds.strategy` must be one of {', '.join(_STRATEGIES)}, not {limits.strategy!r:.80}."
        )
        raise InvalidRequestError(message, param="manyminds.strategy")
    return Limits(
        policy=limits.policy,
        panel=limits.panel,
        include=tuple(limits.include),
        exclude=tuple(limits.exclude),
        weights=limits.weights,
        budget_usd=limits.budget_usd,
        deadline_s=limits.deadline_s,
        quorum=limits.quorum,
        strategy=limits.strategy,  # type: ignore[arg-type]  # checked just above
        explain=limits.explain,
    )


def _check(param: str, value: float | None, *, low: float, high: float = math.inf) -> None:
    """Refuses a number outside [low, high]."""
    if value is not None and not low <= value <= high:
        bounds = f"from {low} to {high}" if math.isfinite(high) else f"of at least {low}"
        raise InvalidRequestError(f"`{param}` must be a number {bounds}, not {str(value)[:40]}.", param=param)


def _demands(request: _Request) -> frozenset[str]:
    images = any(
        part.get("type") in ("image_url", "input_image")
        for message in request.messages
        if isinstance(message.get("content"), list)
        for part in message["content"]
    )
    tooled = any(m.get("tool_calls") or m.get("role") in ("tool", "function") for m in request.messages)
    structured = (request.response_format or {}).get("type") in ("json_object", "json_schema")
    found = {
        "tools": bool(request.tools) or tooled,
        "json_schema": structured,
        "image": images,
        "logprobs": bool(request.logprobs),
    }
    return frozenset(name for name, present in found.items() if present)


def request_body(query: Query, model: str) -> bytes:
    """The JSON to send upstream: always a stream, always with usage.

    The caller's own fields go through as the bytes they came in.
    """
    fields: dict[str, Any] = dict(_object.decode(query.raw)) if query.raw else _fields_of(query)
    fields.pop("manyminds", None)
    fields["model"] = model
    fields["stream"] = True
    fields["stream_options"] = {"include_usage": True}
    return _encode(fields)


def _fields_of(query: Query) -> dict[str, Any]:
    """The fields of a query that was made here, not parsed."""
    sampling = query.sampling
    fields: dict[str, Any] = {"messages": [{"role": m.role, "content": m.text} for m in query.messages]}
    known = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
        "n": sampling.n if sampling.n > 1 else None,
    }
    return fields | {name: value for name, value in known.items() if value is not None}


# --- answers from upstream -------------------------------------------------------------------------


_Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
_Index = Annotated[int, msgspec.Meta(ge=0, le=1000)]
_Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class _Usage(msgspec.Struct):
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0


class _Timings(msgspec.Struct):
    prompt_ms: _Milliseconds = 0.0
    predicted_ms: _Milliseconds = 0.0


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: _Index | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    index: _Index = 0
    delta: _Delta | None = None
    logprobs: dict[str, list[Any] | None] | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    timings: _Timings | None = None
    error: Any = None


_chunk = msgspec.json.Decoder(_Chunk)
_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")  # line ends between tokens would end the line of an event


def parse_chunk(raw: bytes) -> Chunk:
    """One streamed event of a chat completion.

    `usage.cpu_s` holds the compute seconds that llama.cpp reports (per thread), else 0.

    Raises: GarbageError when it is not one; its message carries an upstream `error` object's text.
    """
    try:
        raw.decode()  # what we do not read is relayed, and must be text
        chunk = _chunk.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise GarbageError(f"no chat completion chunk: {error}") from None
    if chunk.error is not None:
        raise GarbageError(f"an error: {error_text(raw)}")
    first = next((c for c in chunk.choices if c.index == 0), None)
    timings = chunk.timings or _Timings()
    usage = None
    if chunk.usage:
        cpu_s = (timings.prompt_ms + timings.predicted_ms) / 1000
        usage = Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens, cpu_s)
    if not chunk.choices:
        return Chunk(usage=usage)
    text = (first.delta.content or "") if first and first.delta else ""
    finish_reason = next((c.finish_reason for c in chunk.choices if c.finish_reason), None)
    return Chunk(text, finish_reason, usage, raw.translate(_ONE_LINE))


class Events:
    """Splits a byte stream into the data of its server-sent events.

    Takes CR LF, comments, a missing space after the colon and data over several lines; an event or a
    line over `limit_bytes` is garbage. Linear in what is fed, however it is cut.
    """

    def __init__(self, limit_bytes: int = 4_000_000) -> None:
        self._rest = bytearray()  # a line that has not ended
        self._data: list[bytes] = []
        self._size = 0
        self._limit_bytes = limit_bytes

    def feed(self, received: bytes) -> Iterator[bytes]:
        """The data of every event that `received` completes. Raises: GarbageError past the limit."""
        *ended, rest = received.split(b"\n")
        for piece in ended:
            self._add(piece)
            line = bytes(self._rest).removesuffix(b"\r")
            self._rest.clear()
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
                self._size += len(line)
            elif not line and self._data:
                data = b"\n".join(self._data)
                self._data, self._size = [], 0
                if data:
                    yield data
        self._add(rest)

    def _add(self, piece: bytes) -> None:
        self._rest += piece
        if self._size + len(self._rest) > self._limit_bytes:
            raise GarbageError(f"an event of more than {self._limit_bytes} bytes")


def error_text(raw: bytes, limit: int = 2000) -> str:
    """The message of an error body in OpenAI's shape, or the start of whatever it is, on one line."""
    try:
        inner = msgspec.json.decode(raw)["error"]
        text = str(inner["message"] if isinstance(inner, dict) else inner)
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError, ValueError):
        text = raw[: 4 * limit].decode("utf-8", "replace")
    shown = "".join(c if c.isprintable() else " " for c in text[: 4 * limit])  # no terminal's control codes
    return " ".join(shown.split())[:limit]


# --- answers to the caller -------------------------------------------------------------------------


def written(chunk: Chunk, query: Query, model: str, *, first: bool = False) -> bytes:
    """A chunk's JSON: the expert's own where there is one, else made from its text."""
    if chunk.raw:
        return chunk.raw
    delta: dict[str, Any] = {"role": "assistant"} if first else {}
    if chunk.text or first:
        delta["content"] = chunk.text
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": chunk.finish_reason}
    return _encode(_head(query, model, "chat.completion.chunk") | {"choices": [choice]})


def _head(query: Query, model: str, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{query.request_id}", "object": kind, "created": int(time.time()), "model": model}


def event(data: bytes) -> bytes:
    """One server-sent event."""
    return b"data: " + data + b"\n\n"


def stream_end(last: Chunk, query: Query, model: str, *, first: bool = False) -> list[bytes]:
    """The JSON of a stream's last events: the finish, and the usage where it was asked for.

    The report rides in the very last one. Usage that an expert put into its finish is taken out: we ask
    for it in any case, and the caller has it once, if at all.
    """
    finish = written(last, query, model, first=first)
    extra = {"manyminds": report_object(last.report)} if last.report else {}
    fields: dict[str, Any] = dict(_object.decode(finish))
    had_usage = fields.pop("usage", None) is not None
    if not query.include_usage:
        return [_encode(fields | extra) if had_usage or extra else finish]
    tail = _head(query, model, "chat.completion.chunk") | {"choices": [], "usage": _usage_object(last.usage)}
    return [_encode(fields) if had_usage else finish, _encode(tail | extra)]


def completion(chunks: Sequence[Chunk], query: Query, model: str) -> bytes:
    """A whole chat completion out of a stream's chunks: text, tool calls, log-probabilities, n choices.

    Raises: GarbageError when fields that are not ours cannot be read or written again.
    """
    try:
        return _encode(_whole(chunks, query, model))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise GarbageError(f"The expert's events do not make one answer: {error}.") from None


def _whole(chunks: Sequence[Chunk], query: Query, model: str) -> dict[str, Any]:
    head = _head(query, model, "chat.completion")
    choices: dict[int, list[dict[str, Any]]] = {}
    for number, chunk in enumerate(chunks):
        fields = msgspec.json.decode(written(chunk, query, model, first=number == 0))
        for choice in fields.pop("choices"):
            choices.setdefault(choice.get("index", 0), []).append(choice)
        head |= {k: v for k, v in fields.items() if k not in ("object", "usage", "timings")}
    last = chunks[-1]
    head["choices"] = [_whole_choice(index, choices[index]) for index in sorted(choices)]
    head["usage"] = _usage_object(last.usage)
    if last.report:
        head["manyminds"] = report_object(last.report)
    return head


def _whole_choice(index: int, events: list[dict[str, Any]]) -> dict[str, Any]:
    """One choice out of its share of the events; of fields that are not ours the last stands."""
    rest = {key: value for event in events for key, value in event.items() if value is not None}
    rest.pop("delta", None)
    message = {"role": "assistant", "content": None, "refusal": None}
    logprobs = _joined_objects(event.get("logprobs") for event in events)
    return rest | {
        "index": index,
        "message": message | _joined_objects(event.get("delta") for event in events),
        "logprobs": {"content": None, "refusal": None} | logprobs if logprobs else None,
        "finish_reason": rest.get("finish_reason"),
    }


_REPEATED = ("id", "index", "role", "type")  # said again, not continued


def _joined_objects(objects: Iterable[dict[str, Any] | None]) -> dict[str, Any]:
    """Objects that continue each other as one, key by key; null adds nothing. Linear in their size."""
    gathered: dict[str, list[Any]] = {}
    for found in objects:
        for key, value in (found or {}).items():
            if value is not None:
                gathered.setdefault(key, []).append(value)
    return {key: _joined(key, values) for key, values in gathered.items()}


def _joined(key: str, values: list[Any]) -> Any:
    """Text is continued, lists too, objects key by key; of anything else the last stands."""
    if key == "tool_calls":
        return _joined_calls([call for value in values for call in value])
    if key in _REPEATED:
        return values[-1]
    if all(isinstance(value, str) for value in values):
        return "".join(values)
    if all(isinstance(value, list) for value in values):
        return [entry for value in values for entry in value]
    if all(isinstance(value, dict) for value in values):
        return _joined_objects(values)
    return values[-1]


def _joined_calls(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tool calls out of their pieces, by index. Without one, a piece with an id begins a call."""
    calls: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        index = event.pop("index", None)
        if index is None:
            index = max(calls, default=-1) + 1 if event.get("id") else max(calls, default=0)
        calls.setdefault(index, []).append(event)
    whole = [_joined_objects(calls[index]) for index in sorted(calls)]
    return [{"id": None, "type": "function", "function": {}} | call for call in whole]


def _usage_object(usage: Usage | None) -> dict[str, int]:
    usage = usage or Usage()
    total = usage.prompt_tokens + usage.completion_tokens
    counts = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
    return counts | {"total_tokens": total}


def report_object(report: Report) -> dict[str, Any]:
    """The reply's `manyminds` object."""
    found: dict[str, Any] = msgspec.to_builtins(report)
    return found


def error_body(error: ManymindsError) -> bytes:
    """An error in OpenAI's shape."""
    return _encode(error.body())
