"""A caller's chat completion request to a `Query`, and a query to what goes upstream.

Requests keep their own bytes: what goes upstream is the caller's JSON with only `model`, `models`, `stream`
(with its options) and `manyminds` changed, so that fields unknown to us survive.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec.structs import replace

from manyminds.errors import InvalidRequestError
from manyminds.types import Limits, Message, Query, Sampling

__all__ = [
    "at_temperature",
    "capped",
    "embedding_body",
    "onward_body",
    "parse_limits",
    "parse_request",
    "read_body",
    "request_body",
    "rewritten",
]

_Read = TypeVar("_Read")

_MOST_TOKENS = 2**31 - 1
_SEEDS = 2**63  # upstreams take 64 bits
_Tokens = Annotated[int, msgspec.Meta(ge=0, le=_MOST_TOKENS)]


class _Limits(msgspec.Struct, forbid_unknown_fields=True):
    """The request's `manyminds` object, see docs/api.md."""

    policy: str | None = None
    panel: int | None = None
    include: list[str] = []
    exclude: list[str] = []
    require: list[str] = []
    weights: dict[str, float] = {}
    purpose: Annotated[str, msgspec.Meta(max_length=64)] = ""
    budget_usd: float | None = None
    deadline_s: float | None = None
    quorum: int | None = None
    strategy: str | None = None
    topic: str = ""
    grounded: bool = False
    explain: bool | Literal["full"] = False
    watch: bool = False
    epsilon: float | None = None
    delta: float | None = None
    candidates: list[str] = []
    cache: Literal["off", "refresh"] | None = None


class _Part(msgspec.Struct):
    """A part of a message's content; what is in images and the like is not looked at."""

    type: str
    text: Any = None


class _Turn(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Format(msgspec.Struct):
    type: str | None = None


class _Request(msgspec.Struct):
    """What we read of a chat completion request; the rest stays in the raw bytes."""

    messages: list[_Turn]
    model: str | None = None
    models: list[str] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=-_SEEDS, le=_SEEDS - 1)] | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    logprobs: bool | None = None
    tools: list[msgspec.Raw] | None = None
    functions: list[msgspec.Raw] | None = None
    response_format: _Format | None = None
    manyminds: msgspec.Raw = msgspec.Raw()


_SCANNED_BYTES = 100_000
_MOST_MODELS = 8
_MOST_CANDIDATES = 26  # as many as there are letters
_STRATEGIES = ("vote", "select", "fuse", "race", "pass")
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_IMAGES = ("image_url", "input_image")
_STRUCTURED = ("json_object", "json_schema")
_NOTHING: frozenset[str] = frozenset()
_ABSENT = msgspec.Raw()
_UNLIMITED = Limits()
_AS_IT_LIKES = Sampling()
_SET_NOTHING = (None, None, None, None, (), 1)  # of the fields of `Sampling`
_request = msgspec.json.Decoder(_Request)
_limits = msgspec.json.Decoder(_Limits)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


def parse_request(raw: bytes, request_id: str = "", made: Callable[..., Query] = Query) -> Query:
    """A chat completion request to a query, which is `made` of the fields of `Query` by name.

    Raises: InvalidRequestError, whose `param` names the field.
    """
    try:
        raw.decode()  # what we do not read is relayed, and must be text
        request = _request.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_finite(raw) or _invalid(error) from None
    if not request.messages:
        raise InvalidRequestError("`messages` is empty: send at least one message.", param="messages")
    demands: set[str] = set()
    messages = tuple([_message(turn, i, demands) for i, turn in enumerate(request.messages)])
    _add_demands(request, demands)
    model, fallbacks = _models(request)
    limits = _UNLIMITED if request.manyminds == _ABSENT else parse_limits(request.manyminds)
    if limits.grounded:
        demands.add("citations")
    options = request.stream_options
    return made(
        messages=messages,
        model=model,
        fallbacks=fallbacks,
        stream=request.stream is True,
        sampling=_sampling(request),
        limits=limits,
        demands=frozenset(demands) if demands else _NOTHING,
        include_usage=options is not None and options.include_usage is True,
        request_id=request_id,
        raw=raw,
    )


def read_body(raw: bytes, decoder: "msgspec.json.Decoder[_Read]") -> tuple[_Read, dict[str, msgspec.Raw]]:
    """A request's body: what `decoder` reads of it, and all of its fields in the bytes they came in.

    Raises: InvalidRequestError, whose `param` names the field as the caller wrote it.
    """
    try:
        raw.decode()  # fields that are not ours are never decoded, yet everything must be text
        return decoder.decode(raw), _object.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_finite(raw) or _invalid(error) from None


def _invalid(error: Exception, prefix: str = "") -> InvalidRequestError:
    """A decoding error with the field it names: msgspec ends such messages with " - at `$.path`"."""
    text = str(error)
    what, _, path = text.partition(" - at `$")
    path = path.rstrip("`").lstrip(".").replace("[...]", "")
    if " field `" in what:  # "Object missing required field `role` - at `$.messages[0]`"
        path = f"{path}.{what.split('`')[1]}".lstrip(".")
    param = ".".join(part for part in (prefix, path) if part) or None
    if isinstance(error, msgspec.ValidationError):
        where = f"`{param}`: " if param else "the body: "
    else:
        where = "the body is not valid JSON: "
    return InvalidRequestError(f"{where}{what:.300}.", param=param)


def _not_finite(raw: bytes) -> InvalidRequestError | None:
    """Python's own clients write NaN and Infinity, which JSON lacks: names the field that holds one.

    Linear. A large body would hold up everybody else, and is only told what JSON lacks.
    """
    if len(raw) > _SCANNED_BYTES:
        if b"NaN" not in raw and b"Infinity" not in raw:
            return None
        return InvalidRequestError("the body is not valid JSON, which has no NaN and no Infinity.")
    try:
        path = _path_of_not_finite(json.loads(raw))
    except (ValueError, RecursionError):
        return None
    if path is None:
        return None
    path = path.removeprefix(".")[:200]
    where = f"`{path}`" if path else "the body"
    return InvalidRequestError(f"{where} must be a finite number, not NaN or Infinity.", param=path or None)


def _path_of_not_finite(value: Any) -> str | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else ""
    steps: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        steps = ((f".{key}", inner) for key, inner in value.items())
    elif isinstance(value, list):
        steps = ((f"[{i}]", inner) for i, inner in enumerate(value))
    for step, inner in steps:
        below = _path_of_not_finite(inner)
        if below is not None:
            return step + below
    return None


def _models(request: _Request) -> tuple[str, tuple[str, ...]]:
    """Whom to ask first, and who follows in order, each once."""
    if request.model is not None and not request.models:
        return request.model, ()
    first, models = () if request.model is None else (request.model,), request.models or ()
    names = list(dict.fromkeys([*first, *models]))
    if not names:
        raise InvalidRequestError("`model` is missing: send `auto` or an expert's name.", param="model")
    if len(models) > _MOST_MODELS:
        message = f"`models` has {len(models)} names: send at most {_MOST_MODELS}."
        raise InvalidRequestError(message, param="models")
    return names[0], tuple(names[1:])


def _message(turn: _Turn, i: int, demands: set[str]) -> Message:
    """The i-th message; adds what it demands of an expert."""
    role, content = turn.role, turn.content
    if role not in _ROLES:
        raise _wrong(f"messages[{i}].role", f"must be one of {', '.join(_ROLES)}")
    if role in ("tool", "function") or turn.tool_calls:
        demands.add("tools")
    if isinstance(content, str):
        return Message(role, content)
    if content is None:
        if role != "assistant":
            raise _wrong(f"messages[{i}].content", "is missing")
        return Message(role, "")
    texts = []
    for j, part in enumerate(content):
        if part.type == "text":
            if not isinstance(part.text, str):
                raise _wrong(f"messages[{i}].content[{j}].text", "must be the text of this part")
            texts.append(part.text)
        elif part.type in _IMAGES:
            demands.add("image")
    return Message(role, "\n".join(texts))


def _wrong(param: str, why: str) -> InvalidRequestError:
    return InvalidRequestError(f"`{param}` {why}.", param=param)


def _add_demands(request: _Request, demands: set[str]) -> None:
    if request.tools or request.functions:
        demands.add("tools")
    if request.response_format is not None and request.response_format.type in _STRUCTURED:
        demands.add("json_schema")
    if request.logprobs:
        demands.add("logprobs")


def _sampling(request: _Request) -> Sampling:
    most = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    stop = request.stop
    stops = () if not stop else (stop,) if isinstance(stop, str) else tuple(stop)
    asked = (most, request.temperature, request.top_p, request.seed, stops, request.n or 1)
    return _AS_IT_LIKES if asked == _SET_NOTHING else Sampling(*asked)


def parse_limits(raw: msgspec.Raw) -> Limits:
    """The request's `manyminds` object. Raises: InvalidRequestError."""
    try:
        limits = _limits.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _invalid(error, "manyminds") from None
    _check("manyminds.panel", limits.panel, low=1, high=1000)
    _check("manyminds.quorum", limits.quorum, low=1, high=1000)
    _check("manyminds.budget_usd", limits.budget_usd, low=0)
    _check("manyminds.deadline_s", limits.deadline_s, low=0.001, high=86_400)
    _check("manyminds.epsilon", limits.epsilon, low=0.001, high=100)
    _check("manyminds.delta", limits.delta, low=1e-12, high=0.1)
    if len(limits.candidates) > _MOST_CANDIDATES or not all(text.strip() for text in limits.candidates):
        message = f"`manyminds.candidates` must be up to {_MOST_CANDIDATES} texts, none of them empty."
        raise InvalidRequestError(message, param="manyminds.candidates")
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
        require=tuple(limits.require),
        weights=limits.weights,
        purpose=limits.purpose,
        budget_usd=limits.budget_usd,
        deadline_s=limits.deadline_s,
        quorum=limits.quorum,
        strategy=limits.strategy,  # type: ignore[arg-type]  # checked just above
        topic=limits.topic,
        grounded=limits.grounded,
        explain=limits.explain,
        watch=limits.watch,
        epsilon=limits.epsilon,
        delta=limits.delta,
        candidates=tuple(dict.fromkeys(limits.candidates)),
        cache=limits.cache,
    )


def _check(param: str, value: float | None, *, low: float, high: float = math.inf) -> None:
    """Refuses a number outside [low, high]."""
    if value is not None and not low <= value <= high:
        bounds = f"from {low} to {high}" if math.isfinite(high) else f"of at least {low}"
        raise InvalidRequestError(f"`{param}` must be a number {bounds}, not {str(value)[:40]}.", param=param)


def request_body(query: Query, model: str, *, whole: bool = False) -> bytes:
    """The JSON to send upstream, for a stream with usage, or for an answer in one piece.

    The caller's own fields go through as the bytes they came in.
    """
    fields: dict[str, Any] = _object.decode(query.raw) if query.raw else _fields_of(query)
    fields.pop("manyminds", None)
    fields.pop("models", None)
    fields["model"] = model
    fields["stream"] = not whole
    if whole:
        fields.pop("stream_options", None)
    else:
        fields["stream_options"] = {"include_usage": True}
    return _encode(fields)


def onward_body(query: Query, model: str) -> bytes:
    """The JSON to send to another network: with what of its limits holds there, too."""
    body = request_body(query, model)
    if not query.limits.grounded:
        return body
    fields: dict[str, Any] = _object.decode(body)
    return _encode(fields | {"manyminds": {"grounded": True}})


def embedding_body(query: Query, model: str) -> bytes:
    """The JSON to send upstream for vectors: the caller's own, for that model."""
    fields: dict[str, Any] = _object.decode(query.raw)
    fields.pop("manyminds", None)
    return _encode(fields | {"model": model})


def rewritten(query: Query, messages: Sequence[Message]) -> Query:
    """The same request with other messages, for one answer. The caller's other fields stay as they came."""
    raw = query.raw
    if raw:
        fields: dict[str, Any] = _object.decode(raw)
        fields.pop("n", None)
        raw = _encode(fields | {"messages": _written(messages)})
    return replace(query, messages=tuple(messages), sampling=replace(query.sampling, n=1), raw=raw)


def at_temperature(query: Query, temperature: float) -> Query:
    """The same request with this temperature. The caller's other fields stay as they came."""
    raw = query.raw and _encode(_object.decode(query.raw) | {"temperature": temperature})
    return replace(query, sampling=replace(query.sampling, temperature=temperature), raw=raw)


def capped(query: Query, tokens: int) -> Query:
    """The same request for an answer of so many tokens at most. Other fields stay as the caller sent them."""
    sampling = query.sampling
    each = max(1, tokens // sampling.n)
    if sampling.max_tokens is not None and sampling.max_tokens <= each:
        return query
    raw = query.raw
    if raw:
        fields: dict[str, Any] = _object.decode(raw)
        named = "max_completion_tokens" if "max_completion_tokens" in fields else "max_tokens"
        raw = _encode(fields | {named: each})
    return replace(query, sampling=replace(sampling, max_tokens=each), raw=raw)


def _written(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.text} for message in messages]


def _fields_of(query: Query) -> dict[str, Any]:
    """The fields of a query that was made here, not parsed."""
    sampling = query.sampling
    fields: dict[str, Any] = {"messages": _written(query.messages)}
    known = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
        "n": sampling.n if sampling.n > 1 else None,
        "grammar": sampling.grammar or None,
    }
    return fields | {name: value for name, value in known.items() if value is not None}
