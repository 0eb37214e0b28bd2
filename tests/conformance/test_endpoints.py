"""Cases 34 to 38: the other endpoints, each by its official client."""

import base64
import json
import struct
from typing import Any

import anthropic
import openai
import pydantic
import pytest

from tests.conformance.edge import PANEL, Mode, data, post, send
from tests.conformance.test_errors import cut, failing
from tests.conformance.test_tools import FUNCTIONS, calling
from tests.conformance.upstream import USAGE, Upstream, says, speaks
from tests.e2e.node import Served
from tests.pulled import ENCODER, needs_encoder

PIECES = ("Cats", " purr", " because", " they", " can \N{CAT FACE}.")
WHOLE = "".join(PIECES)
TEXTS = ["Why do cats purr?", "Because they can.", "\N{CAT FACE}"]


# --- 34: embeddings, by this node's own encoder ------------------------------------------------------------


@needs_encoder
def test_34_embeddings_in_base64_and_as_numbers_are_the_same(
    client: openai.OpenAI, lenient: openai.OpenAI, node: Served
) -> None:
    default = lenient.embeddings.create(model="auto", input=TEXTS)  # for which the client asks base64
    numbers = client.embeddings.create(model=ENCODER, input=TEXTS, encoding_format="float")
    assert [e.index for e in default.data] == [0, 1, 2]
    for packed, plain in zip(default.data, numbers.data, strict=True):
        assert packed.embedding == pytest.approx(plain.embedding, abs=1e-7)
    assert all(len(e.embedding) == 384 for e in numbers.data)
    assert default.usage.total_tokens == default.usage.prompt_tokens > 0
    raw = post(node, {"model": "auto", "input": TEXTS[0], "encoding_format": "base64"}, "/v1/embeddings").json
    coded = base64.b64decode(raw["data"][0]["embedding"])
    assert struct.unpack("<384f", coded) == pytest.approx(numbers.data[0].embedding, abs=1e-7)


@needs_encoder
def test_34_fewer_dimensions_make_unit_vectors(lenient: openai.OpenAI) -> None:
    (found,) = lenient.embeddings.create(model="auto", input="Why?", dimensions=64).data
    assert len(found.embedding) == 64
    assert sum(x * x for x in found.embedding) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(openai.BadRequestError) as caught:
        lenient.embeddings.create(model="auto", input="Why?", dimensions=385)
    assert caught.value.param == "dimensions"


@pytest.mark.parametrize("tokens", [[1, 2, 3], [[1, 2], [3]]])
def test_34_tokens_are_refused_with_a_reason(client: openai.OpenAI, tokens: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="send text") as caught:
        client.embeddings.create(model="auto", input=tokens)
    assert caught.value.param == "input"


# --- 35: models --------------------------------------------------------------------------------------------


def test_35_models_are_policies_and_experts(client: openai.OpenAI, node: Served) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["auto", "max", "cheap", "fast", "private", "a", "b", "c", "down", "plain"]
    for name in names:
        model = client.models.retrieve(name)
        assert (model.id, model.object) == (name, "model")
        assert model.created > 1_700_000_000
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nobody/else")
    assert caught.value.code == "model_not_found"
    with anthropic.Anthropic(base_url=node.url.removesuffix("/v1"), api_key="any") as claude:
        assert [model.id for model in claude.models.list()] == names


# --- 36: text completions ----------------------------------------------------------------------------------


def prompt(mode: Mode, **more: Any) -> dict[str, Any]:
    return {"model": mode.model, "prompt": "Why do cats purr?", "extra_body": dict(mode.more)} | more


def test_36_text_is_never_null(
    client: openai.OpenAI, lenient: openai.OpenAI, node: Served, upstream: Upstream, live: Mode
) -> None:
    upstream.play(says(*PIECES))
    reply = client.completions.create(**prompt(live, max_tokens=9))
    assert (reply.choices[0].text, reply.choices[0].finish_reason) == (WHOLE, "stop")
    assert reply.usage is not None
    assert reply.usage.total_tokens == USAGE["total_tokens"]
    chunks = list(lenient.completions.create(**prompt(live), stream=True))
    assert "".join(c.choices[0].text for c in chunks) == WHOLE
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert len({c.id for c in chunks}) == 1
    body = {"model": live.model, "prompt": "Why?", "stream": True, "stream_options": {"include_usage": True}}
    *events, last, done = data(post(node, body | dict(live.more), "/v1/completions").body)
    assert done == "[DONE]"
    assert all(isinstance(choice["text"], str) for event in events for choice in event["choices"])
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], USAGE["total_tokens"])
    sent = {str(asked.body["messages"]) for asked in upstream.asked}
    assert sent == {str([{"role": "user", "content": text}]) for text in ("Why do cats purr?", "Why?")}


def test_36_a_cut_is_an_error(lenient: openai.OpenAI, upstream: Upstream) -> None:
    upstream.play(cut("Cats"))
    with pytest.raises(openai.APIError, match="broke off"):
        list(lenient.completions.create(model="a", prompt="Why?", stream=True))


# --- 37: responses -----------------------------------------------------------------------------------------


def replying(mode: Mode, **more: Any) -> dict[str, Any]:
    return {"model": mode.model, "input": "Why do cats purr?", "extra_body": dict(mode.more)} | more


def test_37_events_come_in_order(client: openai.OpenAI, upstream: Upstream, live: Mode) -> None:
    upstream.play(says(*PIECES))
    events = list(client.responses.create(**replying(live), stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    middle = ["output_text.delta"] * len(PIECES)
    first = ["created", "in_progress", "output_item.added", "content_part.added"]
    last = ["output_text.done", "content_part.done", "output_item.done", "completed"]
    assert kinds == [*first, *middle, *last]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == WHOLE
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == WHOLE
    assert events[-1].response.usage is not None
    assert events[-1].response.usage.input_tokens_details.cached_tokens == 0
    whole = client.responses.create(**replying(live))
    assert (whole.output_text, whole.status) == (WHOLE, "completed")
    with client.responses.stream(**replying(live)) as stream:
        list(stream)
        assert stream.get_final_response().output_text == WHOLE


class Cat(pydantic.BaseModel):
    name: str
    lives: int


def test_37_a_schema_is_parsed(client: openai.OpenAI, upstream: Upstream, mode: Mode) -> None:
    upstream.play(says('{"name": "Tom",', ' "lives": 9}'))
    parsed = client.responses.parse(**replying(mode), text_format=Cat)
    assert parsed.output_parsed == Cat(name="Tom", lives=9)
    with client.responses.stream(**replying(mode), text_format=Cat) as stream:
        list(stream)
        assert stream.get_final_response().output_parsed == Cat(name="Tom", lives=9)


def test_37_tools_are_called_and_answered(client: openai.OpenAI, upstream: Upstream, live: Mode) -> None:
    upstream.play(calling())
    tools = [{"type": "function", "name": n, "parameters": {"type": "object"}} for n, _ in FUNCTIONS]
    reply = client.responses.create(**replying(live, tools=tools))
    made = [item for item in reply.output if item.type == "function_call"]
    assert [(call.name, call.arguments) for call in made] == list(FUNCTIONS)
    with client.responses.stream(**replying(live, tools=tools)) as stream:
        kinds = [event.type for event in stream]
        streamed = [item for item in stream.get_final_response().output if item.type == "function_call"]
    assert [(call.name, call.arguments) for call in streamed] == list(FUNCTIONS)
    assert kinds.count("response.function_call_arguments.done") == 2
    upstream.play(says("It is warm."))
    turns: list[Any] = [{"role": "user", "content": "How is it?"}]
    turns += [item.model_dump(exclude_none=True) for item in reply.output]
    turns += [{"type": "function_call_output", "call_id": call.call_id, "output": "warm"} for call in made]
    again = client.responses.create(**replying(live, tools=tools) | {"input": turns})
    assert again.output_text == "It is warm."
    sent = upstream.asked[-1].body["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in sent[1]["tool_calls"]] == [m["tool_call_id"] for m in sent[2:]]


def test_37_what_is_not_kept_is_refused(client: openai.OpenAI, node: Served) -> None:
    for more in ({"previous_response_id": "resp_1"}, {"background": True}, {"conversation": "conv_1"}):
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(model="a", input="Hi", **more)
        assert caught.value.param in more
    assert send(node, "GET", "/v1/responses/resp_1").status == 404


def test_37_a_cut_is_no_completed_response(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.play(cut("Cats"))
    with pytest.raises(openai.APIError, match="broke off"):
        list(client.responses.create(model="a", input="Why?", stream=True))
    upstream.play(says("Cats", finish="length"))
    reply = client.responses.create(model="a", input="Why?")
    assert (reply.status, reply.incomplete_details and reply.incomplete_details.reason) == (
        "incomplete",
        "max_output_tokens",
    )


# --- 38: messages ------------------------------------------------------------------------------------------


def saying(mode: Mode, **more: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": "Why do cats purr?"}]
    return {"model": mode.model, "messages": turns, "max_tokens": 64, "extra_body": dict(mode.more)} | more


def test_38_whole_and_streamed_messages(
    claude: anthropic.Anthropic, node: Served, upstream: Upstream, live: Mode
) -> None:
    upstream.play(says(*PIECES))
    message = claude.messages.create(**saying(live, system="Be brief.", stop_sequences=["END"]))
    assert [block.to_dict()["text"] for block in message.content] == [WHOLE]
    assert (message.stop_reason, message.role, message.type) == ("end_turn", "assistant", "message")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (11, 7)
    with claude.messages.stream(**saying(live)) as stream:
        assert "".join(stream.text_stream) == WHOLE
        assert stream.get_final_message().usage.output_tokens == 7
    first = upstream.asked[0].body
    assert first["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (first["max_tokens"], first["stop"]) == (64, ["END"])
    body = {k: v for k, v in saying(live).items() if k != "extra_body"} | dict(live.more)
    kinds = [e["type"] for e in data(post(node, body | {"stream": True}, "/v1/messages").body)]
    start, stop = (
        ["message_start", "content_block_start"],
        ["content_block_stop", "message_delta", "message_stop"],
    )
    assert kinds == [*start, *["content_block_delta"] * len(PIECES), *stop]


def test_38_tools(claude: anthropic.Anthropic, upstream: Upstream, live: Mode) -> None:
    upstream.play(calling())
    tools = [{"name": name, "input_schema": {"type": "object"}} for name, _ in FUNCTIONS]
    message = claude.messages.create(**saying(live, tools=tools, tool_choice={"type": "any"}))
    expected = [(name, json.loads(arguments)) for name, arguments in FUNCTIONS]
    assert message.stop_reason == "tool_use"
    assert [(b.name, b.input) for b in message.content if b.type == "tool_use"] == expected
    with claude.messages.stream(**saying(live, tools=tools)) as stream:
        list(stream)
        final = stream.get_final_message()
    assert [(b.name, b.input) for b in final.content if b.type == "tool_use"] == expected
    assert final.stop_reason == "tool_use"
    made = [block for block in message.content if block.type == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": block.id, "content": "warm"} for block in made]
    upstream.play(says("It is warm."))
    turns = [
        {"role": "user", "content": "How is it?"},
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in made]},
        {"role": "user", "content": results},
    ]
    claude.messages.create(**saying(live, tools=tools) | {"messages": turns})
    assert [m["role"] for m in upstream.asked[-1].body["messages"]] == ["user", "assistant", "tool", "tool"]


def test_38_a_refusal_is_a_stop_reason(claude: anthropic.Anthropic, upstream: Upstream, mode: Mode) -> None:
    upstream.play(speaks([{"refusal": "No."}], {"refusal": "No."}))
    assert claude.messages.create(**saying(mode)).stop_reason == "refusal"
    upstream.play(says("Cats", finish="length"))
    assert claude.messages.create(**saying(mode)).stop_reason == "max_tokens"


def test_38_tokens_are_counted(claude: anthropic.Anthropic) -> None:
    turns: Any = [{"role": "user", "content": "Why do cats purr?"}]
    assert claude.messages.count_tokens(model="auto", messages=turns).input_tokens == 9


def test_38_errors_are_the_clients_own(
    claude: anthropic.Anthropic, node: Served, upstream: Upstream, mode: Mode
) -> None:
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(**saying(mode) | {"model": "nobody"})
    with pytest.raises(anthropic.BadRequestError):
        claude.messages.create(**saying(mode) | {"extra_body": {"temperature": -1}})
    upstream.play(failing("500 Oops", "out of luck"))
    with pytest.raises(anthropic.OverloadedError, match="out of luck"):
        claude.messages.create(**saying(mode))
    got = post(node, {"messages": []}, "/v1/messages")
    assert got.json.keys() == {"type", "error", "request_id"}
    assert (got.json["type"], sorted(got.error)) == ("error", ["message", "type"])
    assert got.headers["x-request-id"] == got.json["request_id"]


def test_38_the_clients_know_the_request_id(
    claude: anthropic.Anthropic, upstream: Upstream, mode: Mode
) -> None:
    upstream.play(says("Purr."))
    assert claude.messages.create(**saying(mode))._request_id
    with claude.messages.stream(**saying(mode)) as stream:
        assert stream.request_id
    with pytest.raises(anthropic.NotFoundError) as caught:
        claude.messages.create(**saying(mode) | {"model": "nobody"})
    assert caught.value.request_id


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_38_errors_at_the_door_have_the_same_shape(node: Served, path: str) -> None:
    for got in (
        send(node, "GET", path),
        send(node, "POST", path, b"{}", origin="https://evil.example"),
    ):
        assert got.json["type"] == "error"


def test_38_a_cut_is_an_error_event(claude: anthropic.Anthropic, upstream: Upstream) -> None:
    upstream.play(cut("Cats"))
    with (
        pytest.raises(anthropic.APIStatusError, match="broke off"),
        claude.messages.stream(
            model="a", messages=[{"role": "user", "content": "Hi"}], max_tokens=9
        ) as stream,
    ):
        list(stream)
    assert PANEL[0] in upstream.models
