"""A response of OpenAI's Responses being written: its output items, and the events that tell of them.

Knows what experts stream, not what was asked.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec

from manyminds.errors import GarbageError, ManymindsError
from manyminds.types import Chunk, Query, Usage
from manyminds.wire.replies import event, report_object
from manyminds.wire.said import Function, Said, ToolCall

__all__ = ["ResponseReply"]

_encode = msgspec.json.Encoder().encode
_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")  # the caller's own JSON may go over several lines


class _Token(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list["_Token"] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _Choice(msgspec.Struct):
    """A choice of a chat completion, or of an event of its stream."""

    index: int = 0
    delta: Said | None = None
    message: Said | None = None
    logprobs: _Logprobs | None = None


class _Chat(msgspec.Struct):
    choices: list[_Choice] = []


_chat = msgspec.json.Decoder(_Chat)
_Status: TypeAlias = Literal["in_progress", "completed", "incomplete"]
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


@dataclass(slots=True)
class _Written:
    """One part of a message: text or a refusal."""

    kind: Literal["output_text", "refusal"]
    pieces: list[str] = field(default_factory=list)
    tokens: list[dict[str, Any]] = field(default_factory=list)

    def object(self) -> dict[str, Any]:
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": "".join(self.pieces)}
        text = "".join(self.pieces)
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": self.tokens}


@dataclass(slots=True)
class _Message:
    id: str
    place: int  # among the output items
    status: _Status = "in_progress"
    parts: list[_Written] = field(default_factory=list)

    def object(self) -> dict[str, Any]:
        content = [part.object() for part in self.parts]
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "status": self.status,
            "content": content,
        }


@dataclass(slots=True)
class _Call:
    id: str
    place: int
    call_id: str
    name: str
    status: _Status = "in_progress"
    pieces: list[str] = field(default_factory=list)

    def object(self) -> dict[str, Any]:
        said = {"call_id": self.call_id, "name": self.name, "arguments": "".join(self.pieces)}
        return {"id": self.id, "type": "function_call", "status": self.status, **said}


class ResponseReply:
    """A response being written. Whole or streamed, it is made by the same steps.

    `repeated` are the fields of the response that say what was asked.
    """

    def __init__(self, query: Query, repeated: Mapping[str, Any]) -> None:
        self._id = query.request_id
        self._events: list[bytes] = []
        self._sequence = 0
        self._output: list[_Message | _Call] = []
        self._message: _Message | None = None  # the one being written
        self._calls: dict[int, _Call] = {}  # by the expert's own index; open until the end
        self._highest = -1  # of these indices
        self._call_ids: set[str] = set()
        self._response: dict[str, Any] = {
            "id": f"resp_{query.request_id}",
            "object": "response",
            "created_at": int(time.time()),
            "completed_at": None,
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": query.model,
            "output": [],
            "previous_response_id": None,
            "store": False,
            "truncation": "disabled",
            "usage": None,
            **repeated,
        }

    def whole(self, chunks: Sequence[Chunk]) -> bytes:
        for chunk in chunks:
            self._add(chunk)
        return _encode(self._response)

    def events(self, chunk: Chunk) -> bytes:
        self._add(chunk)
        return self._flush()

    def failed(self, error: ManymindsError) -> bytes:
        self._begin()
        code = "rate_limit_exceeded" if error.status == 429 else "server_error"
        code = "invalid_prompt" if error.type == "invalid_request_error" else code
        for item in self._output:
            item.status = "incomplete" if item.status == "in_progress" else item.status
        self._emit(
            "response.failed", response=self._now("failed", error={"code": code, "message": error.message})
        )
        # Of a failed response clients make no exception, but of an event with `error`.
        said = {"code": error.code, "message": error.message, "param": error.param}
        self._emit("error", **said, **error.body())
        return self._flush()

    def _flush(self) -> bytes:
        events, self._events = self._events, []
        return b"".join(events)

    def _emit(self, kind: str, **said: Any) -> None:
        data = _encode({"type": kind, "sequence_number": self._sequence} | said)
        self._events.append(b"event: " + kind.encode() + b"\n" + event(data.translate(_ONE_LINE)))
        self._sequence += 1

    def _now(self, status: str, **changed: Any) -> dict[str, Any]:
        output = [item.object() for item in self._output]
        self._response |= {"status": status, "output": output, **changed}
        return self._response

    def _begin(self) -> None:
        if not self._sequence:
            self._emit("response.created", response=self._response)
            self._emit("response.in_progress", response=self._response)

    def _add(self, chunk: Chunk) -> None:
        self._begin()
        choice = _choice(chunk)
        said = choice.delta or choice.message or Said()
        tokens = [_token(token) for token in (choice.logprobs and choice.logprobs.content) or ()]
        # Tokens of a tool call are no text; a token without text may be a piece of a character.
        loose = tokens and not (self._calls or said.tool_calls or said.refusal)
        if said.content or loose:
            self._say("output_text", said.content or "", tokens)
        if said.refusal:
            self._say("refusal", said.refusal, [])
        for call in said.tool_calls or ():
            self._call(call, begins=call.id is not None or choice.message is not None)
        if chunk.finish_reason is not None:
            self._finish(chunk, chunk.finish_reason)

    def _finish(self, last: Chunk, finish_reason: str) -> None:
        if not self._output:
            self._part("output_text")
        reason = _INCOMPLETE.get(finish_reason)
        status: _Status = "incomplete" if reason else "completed"
        for item in self._output:
            if item.status == "in_progress":
                self._close(item, status)
        ended = {"incomplete_details": {"reason": reason}} if reason else {"completed_at": int(time.time())}
        report = {"manyminds": report_object(last.report)} if last.report else {}
        response = self._now(status, usage=_usage_object(last.usage), **ended, **report)
        self._emit(f"response.{status}", response=response)

    # --- output items ---

    def _say(self, kind: Literal["output_text", "refusal"], text: str, tokens: list[dict[str, Any]]) -> None:
        message, part = self._part(kind)
        part.pieces.append(text)
        part.tokens += tokens
        logprobs = {"logprobs": tokens} if kind == "output_text" else {}
        self._emit(f"response.{kind}.delta", **_where(message), delta=text, **logprobs)

    def _part(self, kind: Literal["output_text", "refusal"]) -> tuple[_Message, _Written]:
        """The part being written, begun where there is none of that kind."""
        message = self._message
        if message is None:
            place = len(self._output)
            message = self._message = _Message(f"msg_{self._id}_{place}", place)
            self._open(message)
        if not message.parts or message.parts[-1].kind != kind:
            self._close_part(message)
            message.parts.append(_Written(kind))
            self._emit("response.content_part.added", **_where(message), part=message.parts[-1].object())
        return message, message.parts[-1]

    def _call(self, piece: ToolCall, *, begins: bool) -> None:
        """A piece of a tool call. Without an index, one that `begins` is a call of its own."""
        index = piece.index
        if index is None:
            index = self._highest + 1 if begins else max(self._highest, 0)
        if index not in self._calls:
            self._calls[index] = self._new_call(piece)
            self._highest = max(self._highest, index)
        call, function = self._calls[index], piece.function or Function()
        call.name = call.name or function.name or ""
        if function.arguments:
            call.pieces.append(function.arguments)
            where = {"item_id": call.id, "output_index": call.place}
            self._emit("response.function_call_arguments.delta", **where, delta=function.arguments)

    def _new_call(self, piece: ToolCall) -> _Call:
        if self._message:
            self._close(self._message, "completed")
            self._message = None
        place = len(self._output)
        call_id = piece.id if piece.id and piece.id not in self._call_ids else f"call_{self._id}_{place}"
        self._call_ids.add(call_id)
        name = (piece.function and piece.function.name) or ""
        call = _Call(f"fc_{self._id}_{place}", place, call_id, name)
        self._open(call)
        return call

    def _open(self, item: _Message | _Call) -> None:
        self._output.append(item)
        self._emit("response.output_item.added", output_index=item.place, item=item.object())

    def _close_part(self, message: _Message) -> None:
        if message.parts:
            part = message.parts[-1].object()
            said = {name: value for name, value in part.items() if name in ("text", "refusal", "logprobs")}
            self._emit(f"response.{part['type']}.done", **_where(message), **said)
            self._emit("response.content_part.done", **_where(message), part=part)

    def _close(self, item: _Message | _Call, status: _Status) -> None:
        item.status = status
        if isinstance(item, _Message):
            self._close_part(item)
        else:
            where = {"item_id": item.id, "output_index": item.place}
            said = {"name": item.name, "arguments": "".join(item.pieces)}
            self._emit("response.function_call_arguments.done", **where, **said)
        self._emit("response.output_item.done", output_index=item.place, item=item.object())


def _where(message: _Message) -> dict[str, Any]:
    part = max(len(message.parts) - 1, 0)
    return {"item_id": message.id, "output_index": message.place, "content_index": part}


def _choice(chunk: Chunk) -> _Choice:
    """What a chunk says. Raises: GarbageError where its JSON is no chat completion's."""
    if not chunk.raw:
        return _Choice(delta=Said(chunk.text))
    try:
        choices = _chat.decode(chunk.raw).choices
    except (msgspec.DecodeError, RecursionError) as error:
        raise GarbageError(f"no chat completion: {error!s:.300}") from None
    if chunk.whole and not choices:
        raise GarbageError("a chat completion without choices")
    other = choices[0] if chunk.whole else _Choice()
    return next((choice for choice in choices if choice.index == 0), other)


def _token(token: _Token) -> dict[str, Any]:
    said = {"token": token.token, "logprob": token.logprob}
    return said | {
        "bytes": list(token.token.encode()) if token.bytes is None else token.bytes,
        "top_logprobs": [_token(top) for top in token.top_logprobs or ()],
    }


def _usage_object(usage: Usage | None) -> dict[str, Any]:
    usage = usage or Usage()
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
