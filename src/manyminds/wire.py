"""OpenAI JSON to and from the types. Knows no socket and no expert.

Requests keep their own bytes: what goes upstream is the caller's JSON with only `model`, `stream` and
`manyminds` changed, so that fields unknown to us survive. Answers are relayed as they came wherever an
expert spoke this format; `written` makes the JSON where none came.
"""

import json
import math
import time
from collections.abc import Sequence
from typing import Any

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
    return InvalidRequestError(f"{where}{what}.", param=param)


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
            return InvalidRequestError(f"`{path}` must be a finite number, not {value}.", param=path)
        pairs = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        trail += [(f"{path}.{key}".lstrip("."), inner) for key, inner in pairs]
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
    max_tokens = request.max_completion_tokens or request.max_tokens
    _check("max_tokens", max_tokens, low=1)
    _check("n", request.n, low=1, high=128)
    _check("temperature", request.temperature, low=0, high=2)
    _check("top_p", request.top_p, low=0, high=1)
    stop = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())
    return Sampling(max_tokens, request.temperature, request.top_p, request.seed, stop, request.n or 1)


def _parse_limits(raw: msgspec.Raw) -> Limits:
    try:
        limits = _limits.decode(raw)
    except msgspec.DecodeError as error:
        raise _invalid(error, "manyminds") from None
    _check("manyminds.panel", limits.panel, low=1, high=1000)
    _check("manyminds.quorum", limits.quorum, low=1, high=1000)
    _check("manyminds.budget_usd", limits.budget_usd, low=0)
    _check("manyminds.deadline_s", limits.deadline_s, low=0.001, high=86_400)
    for name, weight in limits.weights.items():
        _check(f"manyminds.weights.{name}", weight, low=0, high=1000)
    if limits.strategy is not None and limits.strategy not in _STRATEGIES:
        message = f"`manyminds.strategy` must be one of {', '.join(_STRATEGIES)}, not {limits.strategy!r}."
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
    """Refuses a number outside [low, high], NaN and infinities."""
    if value is not None and not (low <= value <= high and math.isfinite(value)):
        bounds = f"from {low} to {high}" if math.isfinite(high) else f"of at least {low}"
        raise InvalidRequestError(f"`{param}` must be a number {bounds}, not {value}.", param=param)


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


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Timings(msgspec.Struct):
    prompt_ms: float = 0.0
    predicted_ms: float = 0.0


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    timings: _Timings | None = None
    error: Any = None


_chunk = msgspec.json.Decoder(_Chunk)


def parse_chunk(raw: bytes) -> Chunk:
    """One streamed event of a chat completion.

    `usage.cpu_s` holds the compute seconds that llama.cpp reports (per thread), else 0.

    Raises: GarbageError when it is not one; its message carries an upstream `error` object's text.
    """
    try:
        chunk = _chunk.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise GarbageError(f"not a chat completion chunk: {error}") from None
    if chunk.error is not None:
        raise GarbageError(f"the expert reported an error: {error_text(raw)}")
    first = next((c for c in chunk.choices if c.index == 0), None)
    timings = chunk.timings or _Timings()
    usage = None
    if chunk.usage:
        cpu_s = (timings.prompt_ms + timings.predicted_ms) / 1000
        usage = Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens, cpu_s)
    if not chunk.choices:
        return Chunk(usage=usage)
    text = (first.delta.content or "") if first else ""
    finish_reason = next((c.finish_reason for c in chunk.choices if c.finish_reason), None)
    return Chunk(text, finish_reason, usage, raw.replace(b"\n", b" "))


class Events:
    """Splits a byte stream into the data of its server-sent events.

    Takes CR LF, comments, a missing space after the colon and data over several lines; an event over
    `limit_bytes` is garbage.
    """

    def __init__(self, limit_bytes: int = 4_000_000) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0
        self._limit_bytes = limit_bytes

    def feed(self, received: bytes) -> list[bytes]:
        """The data of every event that `received` completes. Raises: GarbageError past the limit."""
        lines = (self._rest + received).split(b"\n")
        self._rest = lines.pop()
        found = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if not line and self._data:
                found.append(b"\n".join(self._data))
                self._data, self._size = [], 0
            elif line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
                self._size += len(line)
        if self._size + len(self._rest) > self._limit_bytes:
            raise GarbageError(f"an event of more than {self._limit_bytes} bytes")
        return found


def error_text(raw: bytes, limit: int = 300) -> str:
    """The message of an error body in OpenAI's shape, or the start of whatever it is."""
    try:
        found = msgspec.json.decode(raw)
        inner = found["error"]
        text = inner["message"] if isinstance(inner, dict) else inner
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        text = raw.decode("utf-8", "replace")
    return " ".join(str(text).split())[:limit]


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


def with_fields(raw: bytes, **fields: Any) -> bytes:
    """A JSON object with fields added or replaced; the others keep their bytes."""
    return _encode({**_object.decode(raw), **fields})


def event(data: bytes) -> bytes:
    """One server-sent event."""
    return b"data: " + data + b"\n\n"


def stream_end(last: Chunk, query: Query, model: str, *, first: bool = False) -> list[bytes]:
    """The JSON of a stream's last events: the finish, and the usage where it was asked for.

    The report rides in the very last one.
    """
    finish = written(last, query, model, first=first)
    extra = {"manyminds": report_object(last.report)} if last.report else {}
    if not query.include_usage:
        return [_with_fields(finish, extra)]
    tail = _head(query, model, "chat.completion.chunk") | {"choices": [], "usage": _usage_object(last.usage)}
    return [finish, _encode(tail | extra)]


def completion(chunks: Sequence[Chunk], query: Query, model: str) -> bytes:
    """A whole chat completion out of a stream's chunks: text, tool calls, log-probabilities, n choices."""
    choices: dict[int, dict[str, Any]] = {}
    head = _head(query, model, "chat.completion")
    for number, chunk in enumerate(chunks):
        fields = msgspec.json.decode(written(chunk, query, model, first=number == 0))
        for choice in fields.pop("choices", []):
            _merge_choice(choices.setdefault(choice.get("index", 0), {}), choice)
        head |= {k: v for k, v in fields.items() if k not in ("object", "usage", "timings")}
    last = chunks[-1]
    found = [_whole_choice(index, choices[index]) for index in sorted(choices)]
    head |= {"choices": found, "usage": _usage_object(last.usage)}
    if last.report:
        head["manyminds"] = report_object(last.report)
    return _encode(head)


def _merge_choice(choice: dict[str, Any], event: dict[str, Any]) -> None:
    """Adds one event's share of a choice to what is there. Mutates `choice`."""
    message = choice.setdefault("message", {})
    for key, value in (event.get("delta") or {}).items():
        if key == "tool_calls":
            for call in value or ():
                _merge_tool_call(message.setdefault("tool_calls", {}), call)
        elif key != "role" and isinstance(value, str) and isinstance(message.get(key), str):
            message[key] += value
        elif value is not None:
            message[key] = value
    for key, value in (event.get("logprobs") or {}).items():
        logprobs = choice.setdefault("logprobs", {"content": None, "refusal": None})
        if value is not None:
            logprobs[key] = (logprobs.get(key) or []) + value
    choice["finish_reason"] = event.get("finish_reason") or choice.get("finish_reason")


def _merge_tool_call(calls: dict[int, dict[str, Any]], event: dict[str, Any]) -> None:
    call = calls.setdefault(event.get("index", 0), {"id": None, "type": "function", "function": {}})
    call["id"] = event.get("id") or call["id"]
    for key, value in (event.get("function") or {}).items():
        call["function"][key] = call["function"].get(key, "") + (value or "")


def _whole_choice(index: int, choice: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": None, "refusal": None} | choice["message"]
    if "tool_calls" in message:
        message["tool_calls"] = [call for _, call in sorted(message["tool_calls"].items())]
    reason = choice.get("finish_reason")
    return {"index": index, "message": message, "logprobs": choice.get("logprobs"), "finish_reason": reason}


def _with_fields(raw: bytes, fields: dict[str, Any]) -> bytes:
    """A JSON object with fields added; its own keep their bytes."""
    return _encode(_object.decode(raw) | fields) if fields else raw


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
