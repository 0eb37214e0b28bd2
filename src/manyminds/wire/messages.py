"""Anthropic's messages to OpenAI's chat completions and back. Knows no socket and no expert.

What a chat completion cannot say is refused where the answer would be about something else (documents,
Anthropic's own tools), and left out where it only steers their platform (caching, thinking).
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from manyminds.errors import GarbageError, InvalidRequestError, ManymindsError
from manyminds.types import Chunk, Query, Usage
from manyminds.wire.dialect import Dialect
from manyminds.wire.replies import completion, event, report_object
from manyminds.wire.requests import parse_request
from manyminds.wire.said import Function, Said, ToolCall

__all__ = ["MESSAGES", "count_tokens"]


class _Request(msgspec.Struct):
    """What chat completions lack or have in another shape."""

    messages: list[Any]
    system: str | list[Any] | None = None
    tools: list[Any] | None = None
    tool_choice: dict[str, Any] | None = None
    stop_sequences: list[str] | None = None
    metadata: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    output_format: dict[str, Any] | None = None
    container: Any = None
    mcp_servers: Any = None


_LEFT_OUT = {
    *_Request.__struct_fields__,
    *("cache_control", "context_management", "diagnostics", "inference_geo", "service_tier", "speed"),
    *("thinking", "user_profile_id", "workspace_id"),  # what only Anthropic's servers know
    *("logprobs", "n", "stream_options", "top_logprobs"),  # what a message has no place for
}
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_OVERLOADED = 529  # the status by which Anthropic's clients know a 503
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
_request = msgspec.json.Decoder(_Request)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


def count_tokens(raw: bytes) -> bytes:
    """The reply to `POST /v1/messages/count_tokens`.

    An estimate, `Query.estimated_tokens`, of the messages' text: tokenizers differ between experts.

    Raises: InvalidRequestError, whose `param` names the field.
    """
    return _encode({"input_tokens": parse_request(_chat(raw)).estimated_tokens})


def _parse(raw: bytes, request_id: str) -> Query:
    query = parse_request(_chat(raw), request_id)
    if query.sampling.max_tokens is None:
        raise _wrong("max_tokens", "is missing: say how long the answer may be")
    return query


def _wrong(where: str, what: str) -> InvalidRequestError:
    return InvalidRequestError(f"`{where}` {what}.", param=where)


def _chat(raw: bytes) -> bytes:
    """The body as a chat completion request; fields that are not Anthropic's stay as they came."""
    try:
        raw.decode()
        request, fields = _request.decode(raw), _object.decode(raw)
        chat: dict[str, Any] = {name: value for name, value in fields.items() if name not in _LEFT_OUT}
        return _encode(chat | _messages(request) | _tools(request) | _output(request))
    except _UNREADABLE as error:
        parse_request(raw)  # names the field of what is wrong in both formats
        what, _, path = str(error).partition(" - at `$.")
        where = path.partition("[")[0].rstrip("`")
        message = f"{f'`{where}`' if where else 'the body'} cannot be read: {what:.300}."
        raise InvalidRequestError(message, param=where or None) from None


def _messages(request: _Request) -> dict[str, Any]:
    system = _text(request.system, "system")
    messages = [{"role": "system", "content": system}] if system else []
    for i, turn in enumerate(request.messages):
        match turn:
            case {"role": "system", "content": str() | list() as content}:
                messages.append({"role": "system", "content": _text(content, f"messages[{i}].content")})
            case {"role": "user" | "assistant" as role, "content": str(content)}:
                messages.append({"role": role, "content": content})
            case {"role": "user" | "assistant" as role, "content": [*blocks]}:
                messages += _turn(role, blocks, f"messages[{i}].content")
            case {"role": "user" | "assistant" | "system"}:
                raise _wrong(f"messages[{i}].content", "must be text or a list of blocks")
            case _:
                raise _wrong(f"messages[{i}].role", "must be user, assistant or system")
    return {"messages": messages}


def _turn(role: str, blocks: list[Any], where: str) -> list[dict[str, Any]]:
    """One turn's messages: the tool results first, which must follow their calls; none if nothing is left."""
    parts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    messages: list[dict[str, Any]] = []
    for i, block in enumerate(blocks):
        match role, block:
            case _, {"type": "text", "text": str(text)}:
                parts.append({"type": "text", "text": text})
            case "user", {"type": "image", "source": {"type": "url", "url": str(url)}}:
                parts.append({"type": "image_url", "image_url": {"url": url}})
            case "user", {"type": "image", "source": {"media_type": str(kind), "data": str(data)}}:
                parts.append({"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}})
            case "user", {"type": "tool_result", "tool_use_id": str(call)}:
                said = _text(block.get("content"), f"{where}[{i}].content")
                said = f"Error: {said}" if block.get("is_error") else said
                messages.append({"role": "tool", "tool_call_id": call, "content": said})
            case "assistant", {"type": "tool_use", "id": str(call), "name": str(name), "input": dict(given)}:
                function = {"name": name, "arguments": _encode(given).decode()}
                calls.append({"id": call, "type": "function", "function": function})
            case "assistant", {"type": "thinking" | "redacted_thinking"}:
                pass  # signed for the model that thought it
            case _:
                known = "text, image (base64 or url) or tool_result" if role == "user" else "text or tool_use"
                raise _unsupported(block, f"{where}[{i}]", known)
    if not parts and not calls:
        return messages
    message: dict[str, Any] = {"role": role, "content": parts or None}
    if parts and all(part["type"] == "text" for part in parts):  # not all servers know parts
        message["content"] = "\n".join(part["text"] for part in parts)
    return [*messages, message | ({"tool_calls": calls} if calls else {})]


def _unsupported(block: Any, where: str, known: str) -> InvalidRequestError:
    kind = block.get("type") if isinstance(block, dict) else None
    return _wrong(where, f"is of type {kind!r:.80}: send {known}, with all the fields of such a block")


def _text(content: Any, where: str) -> str:
    """Text, or text blocks joined."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise _wrong(where, "must be text or a list of text blocks")
    for i, block in enumerate(content):
        if (
            not isinstance(block, dict)
            or block.get("type") != "text"
            or not isinstance(block.get("text"), str)
        ):
            raise _unsupported(block, f"{where}[{i}]", "text")
    return "\n".join(block["text"] for block in content)


def _tools(request: _Request) -> dict[str, Any]:
    chat: dict[str, Any] = {}
    for i, tool in enumerate(request.tools or ()):
        match tool:
            case {"name": str(name), "input_schema": dict(schema)} if tool.get("type") in (None, "custom"):
                more = {k: tool[k] for k in ("description", "strict") if tool.get(k) is not None}
                function = {"name": name, "parameters": schema} | more
                chat.setdefault("tools", []).append({"type": "function", "function": function})
            case _:
                raise _wrong(f"tools[{i}]", "must be a custom tool, with `name` and `input_schema`")
    if request.mcp_servers or request.container:
        where = "mcp_servers" if request.mcp_servers else "container"
        raise _wrong(where, "is not supported: nothing runs on Anthropic's servers here")
    if request.tool_choice is None:
        return chat
    if not chat:
        raise _wrong("tool_choice", "needs `tools` to choose from")
    match request.tool_choice:
        case {"type": "auto" | "any" | "none" as kind}:
            chat["tool_choice"] = "required" if kind == "any" else kind
        case {"type": "tool", "name": str(name)}:
            chat["tool_choice"] = {"type": "function", "function": {"name": name}}
        case _:
            raise _wrong("tool_choice", "must be of type auto, any or none, or of type tool with a `name`")
    serial = {"parallel_tool_calls": False} if request.tool_choice.get("disable_parallel_tool_use") else {}
    return chat | serial


def _output(request: _Request) -> dict[str, Any]:
    """For whom, where to end, and in which format."""
    chat: dict[str, Any] = {"stop": request.stop_sequences} if request.stop_sequences else {}
    user = (request.metadata or {}).get("user_id")
    if not isinstance(user, str | None):
        raise _wrong("metadata.user_id", "must be text")
    if user is not None:
        chat["user"] = user
    config = request.output_config or {}
    form = config.get("format")
    where = "output_format" if form is None else "output_config.format"
    match request.output_format if form is None else form:
        case None:
            return chat
        case {"type": "json_schema", "schema": dict(schema)}:
            named = {"name": "answer", "schema": schema, "strict": True}
            return chat | {"response_format": {"type": "json_schema", "json_schema": named}}
        case _:
            raise _wrong(where, "must be of type json_schema, with a `schema`")


class _Choice(msgspec.Struct):
    index: int = 0
    delta: Said | None = None
    message: Said | None = None
    finish_reason: str | None = None
    stop_reason: Any = None  # vLLM's: the stop sequence that ended the answer


class _Completion(msgspec.Struct):
    choices: list[_Choice] = []


_completion = msgspec.json.Decoder(_Completion)


def _first_choice(raw: bytes) -> _Choice:
    try:
        choices = _completion.decode(raw).choices
    except _UNREADABLE as error:
        raise GarbageError(f"The expert's answer is no chat completion: {error}.") from None
    return next((choice for choice in choices if choice.index == 0), _Choice())


def _is_object(arguments: str) -> bool:
    try:
        return _object.decode(arguments) is not None
    except _UNREADABLE:
        return False


def _check_call(name: str, arguments: str) -> None:
    if not name or (arguments and not _is_object(arguments)):
        raise GarbageError(f"The expert called the tool {name!r:.80} with arguments that are no JSON object.")


@dataclass(slots=True)
class _Pieces:
    """A tool call as it comes."""

    id: str = ""
    names: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    sent: int = 0  # of the arguments
    begun: bool = False

    def add(self, piece: ToolCall) -> None:
        function = piece.function or Function()
        self.id = self.id or piece.id or ""
        if function.name and not self.begun:
            self.names.append(function.name)
        elif function.name and function.name != "".join(self.names):
            raise GarbageError("The expert went on with a tool's name after its arguments had begun.")
        if function.arguments:
            self.arguments.append(function.arguments)


class _Blocks:
    """The content blocks of a stream, one after another: they must not interleave.

    Text goes out as it comes, then the calls in the order in which they began. A call ends when the next
    one begins and its arguments are whole, else with the stream; what comes behind it waits until then.
    """

    def __init__(self, request_id: str) -> None:
        self.calls: dict[int, _Pieces] = {}  # by index
        self._request_id = request_id
        self._waiting: deque[_Pieces] = deque()  # the first may have begun
        self._behind: list[str] = []  # text that came behind a call
        self._highest = -1
        self._count = 0
        self._open = False

    def text(self, text: str) -> Iterator[bytes]:
        if self.calls:
            self._behind.append(text)
        elif text:
            if not self._open:
                yield from self._begin({"type": "text", "text": ""})
            yield self._delta({"type": "text_delta", "text": text})

    def call(self, piece: ToolCall) -> Iterator[bytes]:
        index = piece.index
        if index is None:  # then an id begins a call, as in `completion`
            index = self._highest + 1 if piece.id else max(self._highest, 0)
        self._highest = max(self._highest, index)
        call = self.calls.get(index)
        if call is None:
            call = self.calls[index] = _Pieces()
            last = self._waiting[0] if len(self._waiting) == 1 else None  # looked at once: linear in all
            if last and last.begun and _is_object("".join(last.arguments)):
                self._waiting.popleft()
            self._waiting.append(call)
        call.add(piece)
        if call is self._waiting[0] and call.id and call.names and call.arguments:
            yield from self._write(call)

    def end(self, *, cut: bool) -> Iterator[bytes]:
        """What has waited. Raises: GarbageError where a call is not whole, unless the length limit cut it."""
        for call in self.calls.values():
            if not cut:
                _check_call("".join(call.names), "".join(call.arguments))
        for call in self._waiting:
            if call.names:
                yield from self._write(call)
        behind = "".join(self._behind)
        if behind:
            yield from self._begin({"type": "text", "text": ""})
            yield self._delta({"type": "text_delta", "text": behind})
        yield from self._stop()

    def _write(self, call: _Pieces) -> Iterator[bytes]:
        """What of a call has not been written."""
        if not call.begun:
            call.begun = True
            made = call.id or f"toolu_{self._request_id}_{self._count}"
            name = "".join(call.names)
            yield from self._begin({"type": "tool_use", "id": made, "name": name, "input": {}})
        partial = "".join(call.arguments[call.sent :])
        call.sent = len(call.arguments)
        if partial:
            yield self._delta({"type": "input_json_delta", "partial_json": partial})

    def _begin(self, block: dict[str, Any]) -> Iterator[bytes]:
        yield from self._stop()
        self._open = True
        yield _event("content_block_start", index=self._count, content_block=block)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", index=self._count, delta=delta)

    def _stop(self) -> Iterator[bytes]:
        if self._open:
            self._open = False
            yield _event("content_block_stop", index=self._count)
            self._count += 1


class _Reply:
    """One message; see `wire.dialect.Reply`."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._blocks = _Blocks(query.request_id)
        self._begun = False
        self._refused = False
        self._finish: _Choice | None = None  # of the choice that counts

    def whole(self, chunks: Sequence[Chunk]) -> bytes:
        """A call that the length limit cut is left out."""
        query, last = self._query, chunks[-1]
        choice = _first_choice(last.raw if last.whole else completion(chunks, query, query.model))
        if choice.message is None:
            raise GarbageError("The expert's answer has no message.")
        text, calls = choice.message.text, choice.message.tool_calls or []
        content: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
        for call in calls:
            function = call.function or Function()
            name, arguments = function.name or "", function.arguments or ""
            if choice.finish_reason == "length" and not (name and _is_object(arguments)):
                continue
            _check_call(name, arguments)
            made = call.id or f"toolu_{query.request_id}_{len(content)}"
            given = msgspec.Raw(arguments.encode() or b"{}")
            content.append({"type": "tool_use", "id": made, "name": name, "input": given})
        stop = self._stop(choice, called=bool(calls), refused=bool(choice.message.refusal))
        return _encode(self._message(content, last.usage) | stop | _report(last))

    def events(self, chunk: Chunk) -> bytes:
        return b"".join(self._events(chunk))

    def failed(self, error: ManymindsError) -> bytes:
        return _event("error", error=_error(error))

    def _events(self, chunk: Chunk) -> Iterator[bytes]:
        if not self._begun:
            self._begun = True
            unknown = {"stop_reason": None, "stop_sequence": None}
            yield _event("message_start", message=self._message([], None) | unknown)
        written = _Choice(delta=Said(chunk.text), finish_reason=chunk.finish_reason)
        choice = _first_choice(chunk.raw) if chunk.raw else written
        said = choice.delta or Said()
        self._refused |= bool(said.refusal)
        yield from self._blocks.text(said.text)
        for piece in said.tool_calls or ():
            yield from self._blocks.call(piece)
        if choice.finish_reason is not None:
            self._finish = choice
        if chunk.finish_reason is not None:
            finish = self._finish or written
            yield from self._blocks.end(cut=finish.finish_reason == "length")
            stop = self._stop(finish, called=bool(self._blocks.calls), refused=self._refused)
            yield _event("message_delta", delta=stop, usage=self._usage(chunk.usage), **_report(chunk))
            yield _event("message_stop")

    def _message(self, content: list[dict[str, Any]], usage: Usage | None) -> dict[str, Any]:
        head = {"id": f"msg_{self._query.request_id}", "type": "message", "role": "assistant"}
        return head | {"model": self._query.model, "content": content, "usage": self._usage(usage)}

    def _usage(self, usage: Usage | None) -> dict[str, int]:
        """Estimated where it is not known, as at the start of a stream."""
        usage = usage or Usage(self._query.estimated_tokens)
        return {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens}

    def _stop(self, choice: _Choice, *, called: bool, refused: bool) -> dict[str, str | None]:
        sequence = None
        if refused or choice.finish_reason == "content_filter":
            reason = "refusal"
        elif choice.finish_reason == "length":
            reason = "max_tokens"
        elif called:  # some servers say "stop" then
            reason = "tool_use"
        elif choice.stop_reason in self._query.sampling.stop:
            reason, sequence = "stop_sequence", choice.stop_reason
        else:
            reason = "end_turn"
        return {"stop_reason": reason, "stop_sequence": sequence}


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: " + kind.encode() + b"\n" + event(_encode({"type": kind} | fields))


def _report(last: Chunk) -> dict[str, Any]:
    return {"manyminds": report_object(last.report)} if last.report else {}


def _error(error: ManymindsError) -> dict[str, str]:
    other = "invalid_request_error" if error.status < 500 else "api_error"
    return {"type": _ERROR_TYPES.get(error.status, other), "message": error.message}


def _refuse(error: ManymindsError, request_id: str) -> tuple[int, bytes]:
    body = _encode({"type": "error", "error": _error(error), "request_id": request_id})
    return _OVERLOADED if error.status == 503 else error.status, body


MESSAGES = Dialect(parse=_parse, reply=_Reply, refuse=_refuse)
