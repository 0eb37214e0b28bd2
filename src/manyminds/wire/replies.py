"""Chunks to what a caller gets: events of a stream, or one whole completion.

Answers are relayed as they came wherever an expert spoke this format and left out nothing that OpenAI's
schema requires; `written` makes the JSON where none came.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from manyminds.errors import GarbageError, ManymindsError
from manyminds.types import Chunk, Event, Query, Report, Usage
from manyminds.wire.gaps import fill

__all__ = [
    "completion",
    "ending",
    "error_body",
    "event",
    "head_of",
    "made",
    "relayed",
    "report_object",
    "stream_end",
    "told",
    "written",
]

_OURS = b'"manyminds"'
_NULL = msgspec.Raw(b"null")
_UNREADABLE = (msgspec.MsgspecError, RecursionError)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_optional = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_objects = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_encode = msgspec.json.Encoder().encode


def head_of(query: Query, model: str, kind: str) -> dict[str, Any]:
    """The fields with which a reply or an event begins, where no expert said others."""
    return {"id": f"chatcmpl-{query.request_id}", "object": kind, "created": int(time.time()), "model": model}


def made(chunk: Chunk, head: Mapping[str, Any], *, first: bool) -> bytes:
    """The JSON of an event, made from a chunk's text behind `head`. The `first` names the role."""
    delta: dict[str, Any] = {"role": "assistant"} if first else {}
    if chunk.text or first:
        delta["content"] = chunk.text
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": chunk.finish_reason}
    return _encode({**head, "choices": [choice]})


def told(happened: Event, head: Mapping[str, Any]) -> bytes:
    """The JSON of an event that is no part of the answer: it has no choice."""
    return _encode({**head, "choices": (), "manyminds": happened})


def written(chunk: Chunk, query: Query, model: str, *, first: bool = False) -> bytes:
    """A chunk's JSON: the expert's own where there is one, else made from its text."""
    return chunk.raw or made(chunk, head_of(query, model, "chat.completion.chunk"), first=first)


def event(data: bytes) -> bytes:
    """One server-sent event."""
    return b"data: " + data + b"\n\n"


def stream_end(last: Chunk, query: Query, model: str, *, first: bool = False) -> list[bytes]:
    """The JSON of a stream's last events: the finish, and the usage where it was asked for."""
    return ending(written(last, query, model, first=first), last, query)


def ending(finish: bytes, last: Chunk, query: Query) -> list[bytes]:
    """A stream's last events, of which `finish` is the first. The report rides in the very last one.

    Usage that an expert put into its finish is taken out: we ask for it in any case, and the caller has it
    once, if at all.
    """
    extra = {"manyminds": report_object(last.report)} if last.report else {}
    fields: dict[str, Any] = _object.decode(finish)
    had_usage = fields.pop("usage", _NULL) != _NULL
    if not query.include_usage:
        return [_encode(fields | extra) if had_usage or extra else finish]
    tail = {key: value for key, value in fields.items() if key not in ("choices", "manyminds")}
    tail |= {"choices": [], "usage": _usage_object(last.usage)}
    return [_encode(fields) if had_usage else finish, _encode(tail | extra)]


# --- whole completions -----------------------------------------------------------------------------


class _Message(msgspec.Struct):
    role: str
    content: msgspec.Raw
    refusal: msgspec.Raw


class _Choice(msgspec.Struct):
    index: int
    message: _Message
    logprobs: msgspec.Raw
    finish_reason: str


class _Counts(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class _Complete(msgspec.Struct):
    """A chat completion with all that OpenAI's schema requires."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[_Choice]
    usage: _Counts


_complete = msgspec.json.Decoder(_Complete)


def relayed(chunk: Chunk, query: Query) -> bytes:
    """The whole completion that an expert sent, with the report added; else as it came, if it is complete.

    Raises: GarbageError where it cannot be completed, or has a field of the report's name that cannot be
        replaced.
    """
    raw = chunk.raw.rstrip()
    report = b"" if chunk.report is None else _encode(chunk.report)
    try:
        try:
            _complete.decode(raw)
        except msgspec.ValidationError:
            fields = _completed(raw, chunk, query)
        else:
            if not report:
                return raw
            if _OURS not in raw:
                return b"".join([raw[:-1], b',"manyminds":', report, b"}"])
            fields = _object.decode(raw)  # it is such a network itself
        return _encode(fields | ({"manyminds": msgspec.Raw(report)} if report else {}))
    except _UNREADABLE as error:
        raise GarbageError(f"The expert's reply cannot be relayed: {error}.") from None


def _completed(raw: bytes, chunk: Chunk, query: Query) -> dict[str, Any]:
    """What an expert sent, with what it left out."""
    fields: dict[str, Any] = _object.decode(raw)
    choices: list[dict[str, Any]] = _objects.decode(fields["choices"])
    for i, choice in enumerate(choices):
        choice["message"] = message = _object.decode(choice["message"])
        fill(message, {"role": "assistant", "content": None, "refusal": None})
        fill(choice, {"index": i, "logprobs": None, "finish_reason": chunk.finish_reason})
    usage: dict[str, Any] = _optional.decode(fields.get("usage", _NULL)) or {}
    fill(usage, _usage_object(chunk.usage))
    fill(fields, head_of(query, query.model, "chat.completion"))
    return fields | {"object": "chat.completion", "choices": choices, "usage": usage}


def completion(chunks: Sequence[Chunk], query: Query, model: str) -> bytes:
    """A whole chat completion out of a stream's chunks: text, tool calls, log-probabilities, n choices.

    Raises: GarbageError when fields that are not ours cannot be read or written again.
    """
    try:
        return _encode(_whole(chunks, query, model))
    except _UNREADABLE as error:
        raise GarbageError(f"The expert's events do not make one answer: {error}.") from None


def _whole(chunks: Sequence[Chunk], query: Query, model: str) -> dict[str, Any]:
    head = head_of(query, model, "chat.completion")
    ours = frozenset(head)
    choices: dict[int, list[dict[str, Any]]] = {}
    for number, chunk in enumerate(chunks):
        fields = msgspec.json.decode(written(chunk, query, model, first=number == 0))
        for choice in fields.pop("choices"):
            choices.setdefault(choice.get("index", 0), []).append(choice)
        for name, value in fields.items():
            if name not in ("object", "usage", "timings") and (value is not None or name not in ours):
                head[name] = value
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
    deltas = [event.get("delta") or {} for event in events]
    calls = [call for delta in deltas for call in delta.pop("tool_calls", None) or ()]
    said = _joined_objects(deltas)
    if calls:
        said["tool_calls"] = _joined_calls(calls)
    if said.get("content") == "" and (said.get("tool_calls") or said.get("refusal")):
        said["content"] = None  # it opened with no word, and no word followed
    logprobs = _joined_objects(event.get("logprobs") for event in events)
    return rest | {
        "index": index,
        "message": message | said,
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
    highest = -1
    for event in events:
        index = event.pop("index", None)
        if index is None:
            index = highest + 1 if event.get("id") else max(highest, 0)
        highest = max(highest, index)
        calls.setdefault(index, []).append(event)
    whole = [_joined_objects(calls[index]) for index in sorted(calls)]
    return [{"id": None, "type": "function", "function": {}} | call for call in whole]


def _usage_object(usage: Usage | None) -> dict[str, int]:
    usage = usage or Usage()
    total = usage.prompt_tokens + usage.completion_tokens
    counts = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
    return counts | {"total_tokens": total}


def report_object(report: Report) -> dict[str, Any]:
    """The reply's `manyminds` object. Of a private answer it says no more than what that may tell."""
    if report.privacy is not msgspec.UNSET:
        privacy = msgspec.to_builtins(report.privacy)
        return {"request_id": report.request_id, "policy": report.policy, "privacy": privacy}
    found: dict[str, Any] = msgspec.to_builtins(report)
    return found


def error_body(error: ManymindsError) -> bytes:
    """An error in OpenAI's shape."""
    return _encode(error.body())
