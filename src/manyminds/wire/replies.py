"""Chunks to what a caller gets: events of a stream, or one whole completion.

Answers are relayed as they came wherever an expert spoke this format; `written` makes the JSON where none
came.
"""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from manyminds.errors import GarbageError, ManymindsError
from manyminds.types import Chunk, Query, Report, Usage

__all__ = ["completion", "error_body", "event", "relayed", "report_object", "stream_end", "written"]

_OURS = b'"manyminds"'
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


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
    tail = {key: value for key, value in fields.items() if key not in ("choices", "manyminds")}
    tail |= {"choices": [], "usage": _usage_object(last.usage)}
    return [_encode(fields) if had_usage else finish, _encode(tail | extra)]


def relayed(chunk: Chunk) -> bytes:
    """The whole completion that an expert sent, as it came, with the report added.

    Raises: GarbageError where there already is a field of that name that cannot be replaced.
    """
    raw = chunk.raw.rstrip()
    if chunk.report is None:
        return raw
    report = _encode(chunk.report)
    if _OURS not in raw:
        return b"".join([raw[:-1], b',"manyminds":', report, b"}"])
    try:  # it is such a network itself
        return _encode(dict(_object.decode(raw)) | {"manyminds": msgspec.Raw(report)})
    except (msgspec.MsgspecError, RecursionError) as error:
        raise GarbageError(f"The expert's reply cannot be relayed: {error}.") from None


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
    said = _joined_objects(event.get("delta") for event in events)
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
