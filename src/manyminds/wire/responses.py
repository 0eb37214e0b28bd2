"""OpenAI's Responses: their JSON to and from chat completions'. Knows no socket and no expert.

A response is one list of output items, messages and function calls. Nothing is kept: a conversation comes
whole with every request.
"""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import msgspec

from manyminds.errors import InvalidRequestError, ManymindsError
from manyminds.types import Query
from manyminds.wire.dialect import Dialect, Reply
from manyminds.wire.items import ResponseReply
from manyminds.wire.replies import error_body
from manyminds.wire.requests import parse_request, read_body

__all__ = ["RESPONSES"]

_encode = msgspec.json.Encoder().encode
_NULL = msgspec.Raw(b"null")


class _Asked(Query, frozen=True, eq=False):
    """A query that remembers what its response repeats."""

    repeated: Mapping[str, Any] = msgspec.field(default_factory=dict)


class _Part(msgspec.Struct):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None


class _Item(msgspec.Struct):
    type: str | None = None
    role: str | None = None
    content: str | list[_Part] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[_Part] | None = None


class _Format(msgspec.Struct, omit_defaults=True):
    type: str
    name: str | None = None
    schema: dict[str, msgspec.Raw] | None = None
    description: str | None = None
    strict: bool | None = None


class _Text(msgspec.Struct):
    format: _Format | None = None
    verbosity: str | None = None


class _Tool(msgspec.Struct):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, msgspec.Raw] | None = None
    strict: bool | None = None


class _ToolChoice(msgspec.Struct):
    type: str
    name: str | None = None
    mode: str | None = None
    tools: list["_ToolChoice"] | None = None


class _Reasoning(msgspec.Struct):
    effort: str | None = None


class _Request(msgspec.Struct):
    """What we read of a request for a response; the rest goes on as it is."""

    input: str | list[_Item] | None = None
    model: str | None = None
    models: list[str] | None = None
    instructions: str | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    text: _Text | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | _ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning: _Reasoning | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: msgspec.Raw = _NULL
    conversation: msgspec.Raw = _NULL
    prompt: msgspec.Raw = _NULL


_request = msgspec.json.Decoder(_Request)
_GO_ON = {"model", "models", "metadata", "temperature", "top_p"}
_ONLY_HERE = frozenset(_Request.__struct_fields__) - _GO_ON | {
    *("access_programs", "background_options", "context_management", "image", "max_tool_calls"),
    *("messages", "moderation", "stream_options", "truncation"),
}


def _parse(raw: bytes, request_id: str) -> Query:
    request, given = read_body(raw, _request)
    _check_supported(request)
    chat: dict[str, Any] = {name: value for name, value in given.items() if name not in _ONLY_HERE}
    if request.model is None and not request.models:
        chat["model"] = "auto"
    chat["messages"] = _messages(request)
    made = partial(_Asked, repeated=_repeated(request, given))
    return parse_request(_encode(chat | _settings(request) | _tools(request)), request_id, made)


def _wrong(param: str, why: str) -> InvalidRequestError:
    return InvalidRequestError(f"`{param}` {why}", param=param)


def _check_supported(request: _Request) -> None:
    for name in ("previous_response_id", "conversation"):
        if bytes(getattr(request, name)) != b"null":
            raise _wrong(
                name, "is not supported: this node keeps no conversations. Send all of it in `input`."
            )
    if bytes(request.prompt) != b"null":
        raise _wrong(
            "prompt", "is not supported: this node keeps no prompts. Send the text in `instructions`."
        )
    if request.background:
        raise _wrong(
            "background", "is not supported: this node keeps no responses. Read this one as it comes."
        )
    if request.n is not None and request.n != 1:
        raise _wrong("n", "is not supported: a response holds one answer. Send as many requests.")


def _messages(request: _Request) -> list[dict[str, Any]]:
    """The conversation. In OpenAI's schema the input may be missing: then it is an empty text."""
    messages: list[dict[str, Any]] = []
    if request.input is None or isinstance(request.input, str):
        messages.append({"role": "user", "content": request.input or ""})
    else:
        for i, item in enumerate(request.input):
            _add_item(messages, item, f"input[{i}]")
    if not messages:
        raise _wrong("input", "is empty: send a text or at least one message.")
    if request.instructions:
        messages.insert(0, {"role": "system", "content": request.instructions})
    return messages


def _add_item(messages: list[dict[str, Any]], item: _Item, where: str) -> None:
    """Adds an item to the messages. A model's reasoning is its own: no chat message has a place for it."""
    if item.type in (None, "message"):
        messages.append(_message(item, where))
    elif item.type == "function_call":
        call_id, name = _needed(item.call_id, f"{where}.call_id"), _needed(item.name, f"{where}.name")
        function = {"name": name, "arguments": _needed(item.arguments, f"{where}.arguments")}
        if not messages or messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant", "content": None})
        calls = messages[-1].setdefault("tool_calls", [])  # calls of one turn stay in one message
        calls.append({"id": call_id, "type": "function", "function": function})
    elif item.type == "function_call_output":
        call_id = _needed(item.call_id, f"{where}.call_id")
        output = _content(item.output, f"{where}.output", ("input_text",))
        messages.append({"role": "tool", "tool_call_id": call_id, "content": output})
    elif item.type == "item_reference":
        raise _wrong(
            f"{where}.type", "is item_reference, but this node keeps no items: send the item itself."
        )
    elif item.type != "reasoning":
        supported = "message, function_call, function_call_output and reasoning"
        raise _wrong(f"{where}.type", f"is {item.type!r:.80}; supported are {supported}.")


def _needed(value: str | None, where: str) -> str:
    if value is None:
        raise _wrong(where, "is missing.")
    return value


_PARTS = {
    "user": ("input_text", "input_image"),
    "system": ("input_text",),
    "developer": ("input_text",),
    "assistant": ("output_text", "input_text", "refusal"),
}


def _message(item: _Item, where: str) -> dict[str, Any]:
    if item.role not in _PARTS:
        raise _wrong(f"{where}.role", f"must be one of {', '.join(_PARTS)}.")
    content = _content(item.content, f"{where}.content", _PARTS[item.role])
    if item.role != "assistant":
        return {"role": item.role, "content": content}
    parts = item.content if isinstance(item.content, list) else []
    refusal = "".join(part.refusal or "" for part in parts if part.type == "refusal")
    return {"role": "assistant", "content": content or None} | ({"refusal": refusal} if refusal else {})


def _content(given: str | list[_Part] | None, where: str, kinds: tuple[str, ...]) -> Any:
    """Content as chat completions have it: text where it is one text, else parts."""
    if given is None:
        raise _wrong(where, "is missing.")
    if isinstance(given, str):
        return given
    parts: list[dict[str, Any]] = []
    for i, part in enumerate(given):
        if part.type not in kinds:
            raise _wrong(f"{where}[{i}].type", f"is {part.type!r:.80}; supported here: {', '.join(kinds)}.")
        if part.type == "input_image":
            image = {"url": _needed(part.image_url, f"{where}[{i}].image_url")}
            parts.append({"type": "image_url", "image_url": image | _said(detail=part.detail)})
        elif part.type == "refusal":
            _needed(part.refusal, f"{where}[{i}].refusal")
        else:
            parts.append({"type": "text", "text": _needed(part.text, f"{where}[{i}].text")})
    if len(parts) == 1 and "text" in parts[0]:
        return parts[0]["text"]
    return parts


def _said(**given: Any) -> dict[str, Any]:
    """The fields that the caller gave."""
    return {name: value for name, value in given.items() if value is not None}


def _settings(request: _Request) -> dict[str, Any]:
    # Ollama and LM Studio know no `max_completion_tokens`, and would go on without any limit.
    chat = _said(max_tokens=request.max_output_tokens)
    if request.reasoning:
        chat |= _said(reasoning_effort=request.reasoning.effort)
    if request.top_logprobs or "message.output_text.logprobs" in (request.include or ()):
        chat |= {"logprobs": True, "top_logprobs": request.top_logprobs or 0}
    if request.text is None:
        return chat
    chat |= _said(verbosity=request.text.verbosity)
    form = request.text.format
    if form and form.type == "json_schema":
        schema = {
            "name": _needed(form.name, "text.format.name"),
            "schema": form.schema,
            **_said(description=form.description, strict=form.strict),
        }
        if form.schema is None:
            raise _wrong("text.format.schema", "is missing.")
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form and form.type == "json_object":
        chat["response_format"] = {"type": "json_object"}
    elif form and form.type != "text":
        raise _wrong("text.format.type", "must be one of text, json_object, json_schema.")
    return chat


def _tools(request: _Request) -> dict[str, Any]:
    """Tools and their choice. Where only some are allowed the others are left out: all experts know that."""
    tools: dict[str, dict[str, Any]] = {}
    for i, tool in enumerate(request.tools or ()):
        if tool.type != "function":
            why = f"is {tool.type!r:.80}, which no expert here has: only functions are supported."
            raise _wrong(f"tools[{i}].type", why)
        name = _needed(tool.name, f"tools[{i}].name")
        given = _said(description=tool.description, parameters=tool.parameters, strict=tool.strict)
        tools[name] = {"type": "function", "function": {"name": name} | given}
    choice = request.tool_choice
    if isinstance(choice, _ToolChoice) and choice.type == "allowed_tools":
        allowed = choice.tools or []
        names = {_tool_named(one, tools, f"tool_choice.tools[{i}]") for i, one in enumerate(allowed)}
        tools = {name: tool for name, tool in tools.items() if name in names}
        choice = choice.mode
    if isinstance(choice, _ToolChoice):
        name = _tool_named(choice, tools, "tool_choice")
        return _offered(request, tools) | {"tool_choice": {"type": "function", "function": {"name": name}}}
    if choice not in (None, "auto", "none", "required"):
        raise _wrong("tool_choice", "must be auto, none, required, a function or allowed_tools.")
    if choice == "required" and not tools:
        raise _wrong("tool_choice", "is required, but there is no tool to choose: send `tools`.")
    return _offered(request, tools) | (_said(tool_choice=choice) if tools else {})


def _offered(request: _Request, tools: Mapping[str, Any]) -> dict[str, Any]:
    if not tools:
        return {}
    return {"tools": list(tools.values())} | _said(parallel_tool_calls=request.parallel_tool_calls)


def _tool_named(choice: _ToolChoice, tools: Mapping[str, Any], where: str) -> str:
    if choice.type != "function":
        raise _wrong(f"{where}.type", f"is {choice.type!r:.80}: only functions are supported.")
    if choice.name is None or choice.name not in tools:
        raise _wrong(f"{where}.name", f"is {choice.name!r:.80}, which is not among `tools`.")
    return choice.name


def _repeated(request: _Request, given: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
    """What the response says of its request. Null is a default that only the expert knows."""
    form = request.text.format if request.text else None
    text = {"format": form or {"type": "text"}} | _said(verbosity=request.text and request.text.verbosity)
    return {
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata or {},
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "reasoning": given["reasoning"] if request.reasoning else {"effort": None, "summary": None},
        "temperature": request.temperature,
        "text": text,
        "tool_choice": "auto" if request.tool_choice is None else given["tool_choice"],
        "tools": given["tools"] if request.tools else [],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": request.top_p,
    }


def _reply(query: Query) -> Reply:
    return ResponseReply(query, query.repeated if isinstance(query, _Asked) else {})


def _refuse(error: ManymindsError, request_id: str) -> tuple[int, bytes]:
    return error.status, error_body(error)


RESPONSES = Dialect(parse=_parse, reply=_reply, refuse=_refuse)
