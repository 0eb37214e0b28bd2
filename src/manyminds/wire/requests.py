"""A caller's chat completion request to a `Query`, and a query to what goes upstream.

Requests keep their own bytes: what goes upstream is the caller's JSON with only `model`, `stream` (with its
options) and `manyminds` changed, so that fields unknown to us survive.
"""

import json
import math
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from manyminds.errors import InvalidRequestError
from manyminds.types import Limits, Message, Query, Sampling

__all__ = ["parse_request", "read_body", "request_body"]

_Read = TypeVar("_Read")


class _Limits(msgspec.Struct, forbid_unknown_fields=True):
    """The request's `manyminds` object, see docs/api.md."""

    policy: str | None = None
    panel: int | None = None
    include: list[str] = []
    exclude: list[str] = []
    weights: dict[str, float] = {}
    budget_usd: float | None = None
    deadline_s: float | None = None
    quorum: int | None = None
    strategy: str | None = None
    topic: str = ""
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
    manyminds: msgspec.Raw = msgspec.Raw()


_SCANNED_BYTES = 100_000
_MOST_TOKENS = 2**31 - 1
_SEEDS = 2**63  # upstreams take 64 bits
_BOUNDS = (
    ("max_completion_tokens", 1, _MOST_TOKENS),
    ("max_tokens", 1, _MOST_TOKENS),
    ("seed", -_SEEDS, _SEEDS - 1),
    ("n", 1, 128),
    ("temperature", 0, 2),
    ("top_p", 0, 1),
)
_STRATEGIES = ("vote", "select", "fuse", "race", "pass")
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_IMAGES = ("image_url", "input_image")
_STRUCTURED = ("json_object", "json_schema")
_NOTHING: frozenset[str] = frozenset()
_ABSENT = msgspec.Raw()
_UNLIMITED = Limits()
_request = msgspec.json.Decoder(_Request)
_limits = msgspec.json.Decoder(_Limits)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


def parse_request(raw: bytes, request_id: str = "") -> Query:
    """A chat completion request to a query.

    Raises: InvalidRequestError, whose `param` names the field.
    """
    try:
        raw.decode()  # what we do not read is relayed, and must be text
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
    if not path and " field `" in what:  # "Object missing required field `model`"
        path = what.split("`")[1]
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
    for name, low, high in _BOUNDS:
        if (value := getattr(request, name)) is not None:
            _check(name, value, low=low, high=high)
    max_tokens = request.max_completion_tokens or request.max_tokens
    stop = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())
    return Sampling(max_tokens, request.temperature, request.top_p, request.seed, stop, request.n or 1)


def _parse_limits(raw: msgspec.Raw) -> Limits:
    if raw == _ABSENT:
        return _UNLIMITED
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
        topic=limits.topic,
        explain=limits.explain,
    )


def _check(param: str, value: float | None, *, low: float, high: float = math.inf) -> None:
    """Refuses a number outside [low, high]."""
    if value is not None and not low <= value <= high:
        bounds = f"from {low} to {high}" if math.isfinite(high) else f"of at least {low}"
        raise InvalidRequestError(f"`{param}` must be a number {bounds}, not {str(value)[:40]}.", param=param)


def _demands(request: _Request) -> frozenset[str]:
    found = set()
    for message in request.messages:
        content = message.get("content")
        if isinstance(content, list) and any(p.get("type") in _IMAGES for p in content):
            found.add("image")
        if message.get("tool_calls") or message["role"] in ("tool", "function"):
            found.add("tools")
    if request.tools:
        found.add("tools")
    if request.response_format and request.response_format.get("type") in _STRUCTURED:
        found.add("json_schema")
    if request.logprobs:
        found.add("logprobs")
    return frozenset(found) if found else _NOTHING


def request_body(query: Query, model: str, *, whole: bool = False) -> bytes:
    """The JSON to send upstream, for a stream with usage, or for an answer in one piece.

    The caller's own fields go through as the bytes they came in.
    """
    fields: dict[str, Any] = dict(_object.decode(query.raw)) if query.raw else _fields_of(query)
    fields.pop("manyminds", None)
    fields["model"] = model
    fields["stream"] = not whole
    if whole:
        fields.pop("stream_options", None)
    else:
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
