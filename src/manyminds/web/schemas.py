"""What bodies may hold, as JSON Schema: from the structs that read them, and from what is checked besides.

Knows no endpoint. Fields that only go on to the experts are not described: nobody here looks at them.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from manyminds.private import PRIVATE
from manyminds.router.policy import POLICIES
from manyminds.web.markdown import LONGEST
from manyminds.wire import completions, embeddings, messages, requests, responses

__all__ = ["Schema", "either", "listed", "record", "refer", "request_schemas"]

Schema = dict[str, Any]

_STRING: Final[Schema] = {"type": "string"}
_NULL: Final[Schema] = {"type": "null"}
_OBJECT: Final[Schema] = {"type": "object"}
_THOUGHTS: Final = ("thinking", "redacted_thinking")


def request_schemas() -> dict[str, Schema]:
    """Schemas of all bodies, and of what they refer to, by name."""
    return {
        "Limits": _limits(),
        "ChatMessage": _chat_message(),
        "ChatCompletionRequest": _chat(),
        "CompletionRequest": _completion(),
        "EmbeddingRequest": _embedding(),
        "FeedbackRequest": record({"request_id": _STRING, "correct": _between(0, 1)}),
        "MarkdownRequest": record({"text": _STRING | {"maxLength": LONGEST}}),
        "MessageTurn": _turn(),
        "MessageRequest": _message(),
        "TokenCountRequest": _token_count(),
        "ResponseItem": _item(),
        "ResponseRequest": _response(),
    }


# --- words of JSON Schema --------------------------------------------------------------------------


def refer(name: str) -> Schema:
    """The schema of that name, among the document's components."""
    return {"$ref": f"#/components/schemas/{name}"}


def either(*schemas: Schema) -> Schema:
    """One of these at least."""
    return {"anyOf": list(schemas)}


def listed(items: Schema, **more: int) -> Schema:
    """A list of such items."""
    return {"type": "array", "items": items, **more}


def record(fields: dict[str, Schema], required: Sequence[str] | None = None) -> Schema:
    """An object with these fields, all of them required unless it is said which; others are let through."""
    needed = list(fields) if required is None else list(required)
    return {"type": "object", "properties": fields} | ({"required": needed} if needed else {})


def _between(low: float, high: float, kind: str = "number") -> Schema:
    return {"type": kind, "minimum": low, "maximum": high}


def _kind(
    name: str, fields: dict[str, Schema] | None = None, more: dict[str, Schema] | None = None
) -> Schema:
    """An object whose `type` is `name`, with these fields, and more that may be left out."""
    needed = {"type": {"const": name}} | (fields or {})
    return record(needed | (more or {}), list(needed))


def _maybe(schema: Schema) -> Schema:
    return either(schema, _NULL)


def _other_than(*kinds: str) -> Schema:
    """An object of another `type` than these."""
    return record({"type": {"not": {"enum": list(kinds)}}}, [])


def _choice_needs_tools(choice: Schema) -> Schema:
    """Where such a `tool_choice` is made, there are tools to choose from."""
    return {
        "if": {"required": ["tool_choice"], "properties": {"tool_choice": choice}},
        "then": {"required": ["tools"], "properties": {"tools": {"type": "array", "minItems": 1}}},
    }


# --- what structs say ------------------------------------------------------------------------------


def _fields(struct: type[msgspec.Struct], **said: Schema | None) -> dict[str, Schema]:
    """The fields of a struct by what it says of them, or by what is `said` here; None leaves one out."""
    known = {field.name: field.type for field in msgspec.structs.fields(struct)}
    unknown = said.keys() - known.keys()
    assert not unknown, f"{struct.__qualname__} reads no {', '.join(sorted(unknown))}"
    found = {name: _read(kind) for name, kind in known.items() if name not in said}
    return found | {name: schema for name, schema in said.items() if schema is not None}


def _read(kind: Any) -> Schema:
    """The schema of a type, with those of the structs in it in their places. No struct may hold itself."""
    schema = msgspec.json.schema(kind)
    nested = schema.pop("$defs", {})

    def placed(value: Any) -> Any:
        if isinstance(value, list):
            return [placed(one) for one in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return placed(nested[value["$ref"].rpartition("/")[2]])
        return {
            key: placed(one) for key, one in value.items() if key not in ("title", "default", "description")
        }

    found: Schema = placed(schema)
    return found


def _limits() -> Schema:
    fields = _fields(
        requests._Limits,
        policy=_maybe({"enum": [*POLICIES, PRIVATE]}),
        panel=_maybe(_between(1, 1000, "integer")),
        quorum=_maybe(_between(1, 1000, "integer")),
        weights={"type": "object", "additionalProperties": _between(0, 1000)},
        budget_usd=_maybe({"type": "number", "minimum": 0}),
        deadline_s=_maybe(_between(0.001, 86_400)),
        strategy=_maybe({"enum": list(requests._STRATEGIES)}),
        epsilon=_maybe(_between(0.001, 100)),
        delta=_maybe(_between(1e-12, 0.1)),
        candidates=listed({"type": "string", "pattern": r"\S"}, maxItems=26),
    )
    return record(fields, []) | {"additionalProperties": False}


# --- OpenAI's --------------------------------------------------------------------------------------


def _chat_message() -> Schema:
    other = {"type": "string", "not": {"const": "text"}}
    part = either(_kind("text", {"text": _STRING}), record({"type": other}))
    content = either(_STRING, listed(part))
    fields = _fields(
        requests._Turn, content=content, role={"enum": [r for r in requests._ROLES if r != "assistant"]}
    )
    assistant = {"content": _maybe(content), "role": {"const": "assistant"}}
    return either(record(fields, ["role", "content"]), record(fields | assistant, ["role"]))


def _chat_fields() -> dict[str, Schema]:
    return _fields(
        requests._Request,
        messages=listed(refer("ChatMessage"), minItems=1),
        models=_maybe(listed(_STRING, maxItems=requests._MOST_MODELS)),
        manyminds=refer("Limits"),
    )


_WITH_A_MODEL: Final[Schema] = {
    "anyOf": [
        {"required": ["model"], "properties": {"model": _STRING}},
        {"required": ["models"], "properties": {"models": listed(_STRING, minItems=1)}},
    ]
}


def _chat() -> Schema:
    return record(_chat_fields(), ["messages"]) | _WITH_A_MODEL


def _completion() -> Schema:
    own = _fields(
        completions._Request,
        prompt=either(_STRING, listed(_STRING, minItems=1, maxItems=1)),
        best_of=_maybe({"type": "integer", "maximum": 1}),
        tools=None,
    )
    chat = {name: schema for name, schema in _chat_fields().items() if name not in ("messages", "tools")}
    # Nobody knows the log-probabilities of a prompt that is echoed.
    unknown: dict[str, Schema] = {"echo": {"const": True}, "logprobs": {"type": "integer", "minimum": 1}}
    return record(chat | own, ["prompt"]) | _WITH_A_MODEL | {"not": record(unknown)}


def _embedding() -> Schema:
    text = {"type": "string", "minLength": 1}
    texts = listed(text, minItems=1, maxItems=embeddings._MOST_INPUTS)
    more = {"description": "An expert may take what this node's own encoder does not, such as tokens."}
    return record(_fields(embeddings._Request, input=either(text, texts) | more), ["model", "input"])


# --- OpenAI's Responses ----------------------------------------------------------------------------


def _item() -> Schema:
    text = _kind("input_text", {"text": _STRING})
    image = _kind("input_image", {"image_url": _STRING}, {"detail": _maybe(_STRING)})
    said = either(_kind("output_text", {"text": _STRING}), text, _kind("refusal", {"refusal": _STRING}))
    call_id = {"call_id": _STRING}

    def message(roles: list[str], part: Schema) -> Schema:
        kind = {"enum": ["message", None]}
        content = either(_STRING, listed(part))
        return record({"type": kind, "role": {"enum": roles}, "content": content}, ["role", "content"])

    return either(
        message(["user"], either(text, image)),
        message(["system", "developer"], text),
        message(["assistant"], said),
        _kind("function_call", call_id | {"name": _STRING, "arguments": _STRING}),
        _kind("function_call_output", call_id | {"output": either(_STRING, listed(text))}),
        _kind("reasoning"),
    )


def _response() -> Schema:
    chat = _chat_fields()
    described = {
        "description": _maybe(_STRING),
        "parameters": _maybe(_OBJECT),
        "strict": _maybe({"type": "boolean"}),
    }
    json_schema = {"name": _STRING, "schema": _OBJECT}
    strict = {name: described[name] for name in ("description", "strict")}
    form = either(_kind("text"), _kind("json_object"), _kind("json_schema", json_schema, strict), _NULL)
    choice, needing_tools = _tool_choice()
    own = _fields(
        responses._Request,
        input=either(_STRING, listed(refer("ResponseItem")) | {"contains": _other_than("reasoning")}, _NULL),
        text=_maybe(record({"format": form, "verbosity": _maybe(_STRING)}, [])),
        tools=_maybe(listed(_kind("function", {"name": _STRING}, described))),
        tool_choice=choice,
        reasoning=_maybe(record({"effort": _maybe(_STRING)}, [])),
        n={"enum": [1, None]},
        background={"enum": [False, None]},
        previous_response_id=_NULL,
        conversation=_NULL,
        prompt=_NULL,
        **{name: chat[name] for name in ("models", "temperature", "top_p")},
    )
    more = {name: chat[name] for name in ("stream", "seed", "stop", "manyminds")}
    return record(own | more, []) | _choice_needs_tools(needing_tools)


def _tool_choice() -> tuple[Schema, Schema]:
    """Any choice, and what those have in common that need tools."""
    function = _kind("function", {"name": _STRING})
    one_of = {"mode": {"const": "required"}, "tools": listed(function, minItems=1)}
    any_of = {"mode": {"enum": ["auto", "none", None]}, "tools": _maybe(listed(function))}
    allowed = either(_kind("allowed_tools", one_of), _kind("allowed_tools", None, any_of))
    some = record({"tools": {"type": "array", "minItems": 1}})
    choice = either({"enum": ["auto", "none", "required", None]}, function, allowed)
    return choice, either({"const": "required"}, function, some)


# --- Anthropic's -----------------------------------------------------------------------------------


def _texts() -> Schema:
    return either(_STRING, listed(_kind("text", {"text": _STRING})))


def _turn() -> Schema:
    text = _kind("text", {"text": _STRING})
    source = either(_kind("url", {"url": _STRING}), record({"media_type": _STRING, "data": _STRING}))
    result = _kind("tool_result", {"tool_use_id": _STRING}, {"content": _maybe(_texts())})
    call = _kind("tool_use", {"id": _STRING, "name": _STRING, "input": _OBJECT})
    thought = record({"type": {"enum": list(_THOUGHTS)}})

    def turn(role: str, *blocks: Schema) -> Schema:
        content = either(_STRING, listed(either(*blocks)))
        return record({"role": {"const": role}, "content": content})

    return either(
        turn("user", text, _kind("image", {"source": source}), result),
        turn("assistant", text, call, thought),
        turn("system", text),
    )


def _message_fields() -> dict[str, Schema]:
    name = {"name": _STRING}
    tool = record(
        name | {"input_schema": _OBJECT, "type": {"enum": ["custom", None]}}, ["name", "input_schema"]
    )
    form = _maybe(_kind("json_schema", {"schema": _OBJECT}))
    said = either(_STRING, {"type": "array", "contains": _other_than(*_THOUGHTS)})  # thoughts are left out
    own = _fields(
        messages._Request,
        messages=listed(refer("MessageTurn")) | {"contains": record({"content": said})},
        system=_maybe(_texts()),
        tools=_maybe(listed(tool)),
        tool_choice=either(record({"type": {"enum": ["auto", "any", "none"]}}), _kind("tool", name), _NULL),
        metadata=_maybe(record({"user_id": _maybe(_STRING)}, [])),
        output_config=_maybe(record({"format": form}, [])),
        output_format=form,
        container=None,
        mcp_servers=None,
    )
    return own | {name: _chat_fields()[name] for name in ("model", "models")}


def _message() -> Schema:
    chat = {name: _chat_fields()[name] for name in ("stream", "seed", "manyminds", "temperature", "top_p")}
    most = {"max_tokens": _between(0, requests._MOST_TOKENS, "integer")}
    fields = _message_fields() | chat | most
    return record(fields, ["messages", "max_tokens"]) | _WITH_A_MODEL | _choice_needs_tools(_OBJECT)


def _token_count() -> Schema:
    return record(_message_fields(), ["messages"]) | _WITH_A_MODEL | _choice_needs_tools(_OBJECT)
