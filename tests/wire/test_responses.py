import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyminds.errors import InvalidRequestError
from manyminds.types import Chunk, Message, Query
from manyminds.wire.requests import request_body
from manyminds.wire.responses import RESPONSES

texts = st.text(max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts


def raw(fields: Any) -> bytes:
    return json.dumps(fields).encode()


def asked(**fields: Any) -> Query:
    return RESPONSES.parse(raw({"input": "Why?"} | fields), "r1")


def sent(**fields: Any) -> dict[str, Any]:
    """What experts get."""
    body: dict[str, Any] = json.loads(asked(**fields).raw)
    return body


def test_a_text_is_one_message_to_auto() -> None:
    query = asked()
    assert json.loads(query.raw) == {"model": "auto", "messages": [{"role": "user", "content": "Why?"}]}
    assert (query.model, query.stream, query.question, query.request_id) == ("auto", False, "Why?", "r1")


def test_a_conversation_is_translated() -> None:
    url = "data:image/png;base64,AA"
    items = [
        {"role": "developer", "content": "Be kind."},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is"},
                {"type": "input_image", "image_url": url, "detail": "low"},
            ],
        },
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "see", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "see", "arguments": '{"a":1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "a cat"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "a dog"}],
        },
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "I can't."}]},
        {"role": "user", "content": "And now?"},
    ]
    query = asked(input=items, instructions="Be brief.")
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "see", "arguments": "{}"}},
        {"id": "c2", "type": "function", "function": {"name": "see", "arguments": '{"a":1}'}},
    ]
    seen = [
        {"type": "text", "text": "What is"},
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
    ]
    assert json.loads(query.raw)["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": seen},
        {"role": "assistant", "content": "Let me see.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
        {"role": "tool", "tool_call_id": "c2", "content": "a dog"},
        {"role": "assistant", "content": None, "refusal": "I can't."},
        {"role": "user", "content": "And now?"},
    ]
    assert query.demands == {"tools", "image"}


TOOL = {"type": "function", "name": "add", "parameters": {"type": "object", "x": 10**30}, "strict": True}
SCHEMA = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}


@pytest.mark.parametrize(
    ("fields", "chat"),
    [
        ({"max_output_tokens": 9}, {"max_tokens": 9}),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
        ({"reasoning": {"effort": None}}, {}),
        ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, {"verbosity": "low"}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        ({"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"top_logprobs": 0, "include": ["reasoning.encrypted_content"]}, {}),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs": True, "top_logprobs": 0}),
        ({"store": True, "truncation": "auto", "background": False, "tools": []}, {}),
        ({"previous_response_id": None, "prompt": None, "conversation": None, "n": 1}, {}),
        ({"parallel_tool_calls": True, "tool_choice": "auto", "messages": [5]}, {}),
        (
            {
                "temperature": 0.3,
                "top_p": 0.7,
                "metadata": {"a": "b"},
                "user": "u",
                "seed": 7,
                "x_vendor": [1],
            },
            {
                "temperature": 0.3,
                "top_p": 0.7,
                "metadata": {"a": "b"},
                "user": "u",
                "seed": 7,
                "x_vendor": [1],
            },
        ),
        ({"stream": True, "manyminds": {"panel": 3}}, {"stream": True, "manyminds": {"panel": 3}}),
    ],
)
def test_settings_are_translated(fields: dict[str, Any], chat: dict[str, Any]) -> None:
    assert sent(**fields) == chat | {"model": "auto", "messages": [{"role": "user", "content": "Why?"}]}


def test_what_the_router_reads_is_there() -> None:
    query = asked(
        max_output_tokens=9, stream=True, manyminds={"panel": 3}, text={"format": SCHEMA}, model="m"
    )
    assert (query.sampling.max_tokens, query.stream, query.limits.panel) == (9, True, 3)
    assert (set(query.demands), query.model) == ({"json_schema"}, "m")
    assert "manyminds" not in json.loads(request_body(query, "up"))


def test_a_schema_has_its_shape() -> None:
    form = sent(text={"format": SCHEMA})["response_format"]
    schema = {"name": "n", "schema": {"type": "object"}, "strict": True}
    assert form == {"type": "json_schema", "json_schema": schema}


def test_tools_have_their_shape() -> None:
    body = sent(tools=[TOOL], tool_choice={"type": "function", "name": "add"}, parallel_tool_calls=False)
    function = {"name": "add", "parameters": TOOL["parameters"], "strict": True}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    assert body["parallel_tool_calls"] is False
    assert asked(tools=[TOOL]).demands == {"tools"}
    assert sent(tools=[TOOL], tool_choice="required")["tool_choice"] == "required"


def test_tools_that_are_not_allowed_are_left_out() -> None:
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "add"}]}
    body = sent(tools=[{"type": "function", "name": "sub"}, TOOL], tool_choice=allowed)
    assert [tool["function"]["name"] for tool in body["tools"]] == ["add"]
    assert body["tool_choice"] == "required"


def message(content: Any, role: str = "user") -> dict[str, Any]:
    return {"input": [{"role": role, "content": content}]}


@pytest.mark.parametrize("body", [{}, {"model": None, "input": None}, {"input": ""}])
def test_what_openai_lets_out_may_be_left_out(body: dict[str, Any]) -> None:
    """Their schema requires no field at all."""
    query = RESPONSES.parse(json.dumps(body).encode(), "r1")
    assert (query.model, query.messages) == ("auto", (Message("user", ""),))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"input": []}, "input"),
    ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
    ({"input": 5}, "input"),
    ({"input": ["Why?"]}, "input[0]"),
    ({"input": [{"role": "wizard", "content": "x"}]}, "input[0].role"),
    ({"input": [{"content": "x"}]}, "input[0].role"),
    ({"input": [{"role": "user"}]}, "input[0].content"),
    (message(5), "input[0].content"),
    (message([{"text": "x"}]), "input[0].content[0].type"),
    (message([{"type": "input_text"}]), "input[0].content[0].text"),
    (message([{"type": "input_text", "text": 5}]), "input[0].content[0].text"),
    (message([{"type": "input_file", "file_id": "f"}]), "input[0].content[0].type"),
    (message([{"type": "input_image", "file_id": "f"}]), "input[0].content[0].image_url"),
    (message([{"type": "input_image", "image_url": "u"}], "system"), "input[0].content[0].type"),
    ({"input": [{"type": "function_call", "name": "f", "arguments": ""}]}, "input[0].call_id"),
    ({"input": [{"type": "function_call", "call_id": "c", "arguments": ""}]}, "input[0].name"),
    ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "input[0].arguments"),
    ({"input": [{"type": "function_call_output", "output": ""}]}, "input[0].call_id"),
    ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
    ({"input": [{"type": "item_reference", "id": "m"}]}, "input[0].type"),
    ({"input": [{"type": "computer_call"}]}, "input[0].type"),
    ({"model": 5}, "model"),
    ({"instructions": [5]}, "instructions"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"max_output_tokens": 10**400}, "max_output_tokens"),
    ({"temperature": 3}, "temperature"),
    ({"stream": "yes"}, "stream"),
    ({"top_logprobs": 21}, "top_logprobs"),
    ({"metadata": {"a": 5}}, "metadata"),
    ({"n": 2}, "n"),
    ({"background": True}, "background"),
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"conversation": {"id": "c"}}, "conversation"),
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
    ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
    ({"text": {"format": {"type": "json_schema", "name": "n", "schema": 5}}}, "text.format.schema"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tools": [TOOL, {"type": "function"}]}, "tools[1].name"),
    ({"tools": [{"type": "function", "name": "f", "parameters": 5}]}, "tools[0].parameters"),
    ({"tools": {}}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": "often"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice.name"),
    ({"tools": [TOOL], "tool_choice": {"type": "mcp"}}, "tool_choice.type"),
    (
        {
            "tools": [TOOL],
            "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]},
        },
        "tool_choice.tools[0].type",
    ),
    ({"manyminds": {"panel": 0}}, "manyminds.panel"),
    ({"x": float("nan")}, "x"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        asked(**fields)
    assert caught.value.param == param
    assert f"`{param}`" in caught.value.message


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"input":"\xff"}', b'{"input":"\\ud800"}', b'{"x":' + b"[" * 10**5],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="body"):
        RESPONSES.parse(body, "r1")


PARTS = [
    "type",
    "role",
    "content",
    "text",
    "input_text",
    "message",
    "user",
    "tools",
    "function",
    "name",
    "input",
]
known = st.sampled_from(PARTS) | texts
shapes = st.recursive(
    scalars | known,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(known, v, max_size=4),
    max_leaves=12,
)
fields_of = st.sampled_from(sorted({name for fields, _ in WRONG for name in fields} | {"stream", "include"}))


@settings(max_examples=400)
@given(
    st.binary(max_size=40)
    | shapes.map(raw)
    | st.dictionaries(fields_of, shapes, max_size=4).map(lambda found: raw({"input": "x"} | found))
)
def test_any_request_is_read_or_refused(body: bytes) -> None:
    try:
        query = RESPONSES.parse(body, "r1")
    except InvalidRequestError as error:
        refused = error
    else:
        assert json.loads(request_body(query, "m"))["model"] == "m"
        json.loads(RESPONSES.reply(query).whole([Chunk("", "stop")]))
        return
    assert json.loads(RESPONSES.refuse(refused, "r1")[1])["error"]["param"] == refused.param
    assert not (refused.param or "").startswith("messages")
