import json
from collections.abc import Sequence
from typing import Any

import httpx2
import openai
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent

from manyminds.errors import CutError, GarbageError, InvalidRequestError, ManymindsError, RateLimitError
from manyminds.types import Chunk, Query, Report, Usage
from manyminds.wire.events import parse_chunk
from manyminds.wire.responses import RESPONSES
from tests.changed import replace

REPORT = Report("r1", "auto", "vote", (), 1.0, 0.7, (), 0.0003, -0.1)
ADDED = ["response.created", "response.in_progress", "response.output_item.added"]
TEXT_BEGUN = [*ADDED, "response.content_part.added"]
TEXT_DONE = ["response.output_text.done", "response.content_part.done", "response.output_item.done"]
CALL_DONE = ["response.function_call_arguments.done", "response.output_item.done"]
strict_event: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(ResponseStreamEvent)

TOOL = {"type": "function", "name": "add", "parameters": {"type": "object", "x": 10**30}, "strict": True}
texts = st.text(max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(texts, v, max_size=3), max_leaves=8
)


def raw(fields: Any) -> bytes:
    return json.dumps(fields).encode()


def asked(**fields: Any) -> Query:
    return RESPONSES.parse(raw({"input": "Why?"} | fields), "r1")


def piece(finish: str | None = None, logprobs: Any = None, **delta: Any) -> Chunk:
    """What an expert streams."""
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
    chunk = parse_chunk(raw({"id": "up", "object": "chat.completion.chunk", "choices": [choice]}))
    return Chunk(chunk.text, finish, Usage(3, 4) if finish else None, chunk.raw)


def call(index: int, text: str, **more: Any) -> Chunk:
    function = {"name": "add", "arguments": text} if more else {"arguments": text}
    return piece(tool_calls=[{"index": index, "function": function} | more])


def last(finish: str = "stop", text: str = "") -> Chunk:
    return Chunk(text, finish, Usage(3, 4), report=REPORT)


def streamed(chunks: Sequence[Chunk], query: Query | None = None) -> list[dict[str, Any]]:
    """The data of the events, each checked by the client's own types."""
    reply = RESPONSES.reply(query or asked())
    return read(b"".join(reply.events(chunk) for chunk in chunks))


def read(events: bytes) -> list[dict[str, Any]]:
    found = []
    for one in events.decode().split("\n\n")[:-1]:
        kind, data = one.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert kind == f"event: {found[-1]['type']}"
        strict_event.validate_json(data.removeprefix("data: "), strict=True)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def whole(chunks: Sequence[Chunk], query: Query | None = None) -> Response:
    return Response.model_validate_json(RESPONSES.reply(query or asked()).whole(chunks), strict=True)


def kinds(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def client(chunks: Sequence[Chunk], error: ManymindsError | None = None) -> openai.OpenAI:
    """The official client; what it asks is parsed, and answered with these chunks."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        try:
            query = RESPONSES.parse(request.content, "r1")
        except InvalidRequestError as refused:
            status, body = RESPONSES.refuse(refused, "r1")
            return httpx2.Response(status, content=body, headers={"content-type": "application/json"})
        reply = RESPONSES.reply(query)
        if not query.stream:
            headers = {"content-type": "application/json"}
            return httpx2.Response(200, content=reply.whole(chunks), headers=headers)
        body = b"".join(reply.events(chunk) for chunk in chunks) + (reply.failed(error) if error else b"")
        return httpx2.Response(200, content=body, headers={"content-type": "text/event-stream"})

    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    return openai.OpenAI(base_url="http://node/v1", api_key="k", max_retries=0, http_client=transport)


def test_a_text_is_told_in_order() -> None:
    events = streamed(
        [piece(role="assistant", content=""), piece(content="B) "), piece(content="42"), last()]
    )
    deltas = ["response.output_text.delta"] * 2
    assert kinds(events) == [*TEXT_BEGUN, *deltas, *TEXT_DONE, "response.completed"]
    assert events[-1]["response"]["manyminds"]["policy"] == "auto"
    assert [event["response"]["status"] for event in (events[0], events[-1])] == ["in_progress", "completed"]
    told = {(event["item_id"], event["output_index"], event["content_index"]) for event in events[3:-2]}
    assert told == {("msg_r1_0", 0, 0)}


def test_function_calls_are_told_in_order() -> None:
    chunks = [
        piece(content="Wait."),
        call(0, "", id="c0", type="function"),
        call(0, '{"a":'),
        call(1, "", id="c1", type="function"),
        call(0, "1}"),
        call(1, "{}"),
        last("tool_calls"),
    ]
    events = streamed(chunks)
    delta, item = "response.function_call_arguments.delta", "response.output_item.added"
    text = [*TEXT_BEGUN, "response.output_text.delta", *TEXT_DONE]
    calls = [item, delta, item, delta, delta, *CALL_DONE, *CALL_DONE]
    assert kinds(events) == [*text, *calls, "response.completed"]
    output = whole(chunks).output
    assert [(o.call_id, o.name, o.arguments) for o in output if o.type == "function_call"] == [
        ("c0", "add", '{"a":1}'),
        ("c1", "add", "{}"),
    ]
    assert [o["type"] for o in events[-1]["response"]["output"]] == [
        "message",
        "function_call",
        "function_call",
    ]


def test_a_refusal_is_told_in_order() -> None:
    events = streamed([piece(refusal="I "), piece(refusal="can't."), last()])
    told = ["response.refusal.delta", "response.refusal.delta", "response.refusal.done"]
    ended = ["response.content_part.done", "response.output_item.done", "response.completed"]
    assert kinds(events) == [*TEXT_BEGUN, *told, *ended]
    (part,) = events[-1]["response"]["output"][0]["content"]
    assert part == {"type": "refusal", "refusal": "I can't."}


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_unfinished_answer_is_incomplete(finish: str, reason: str) -> None:
    events = streamed([Chunk("B"), last(finish)])
    assert kinds(events)[-1] == "response.incomplete"
    response = whole([Chunk("B"), last(finish)])
    assert (response.status, response.output[0].status) == ("incomplete", "incomplete")  # type: ignore[union-attr]
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == reason


def test_no_text_is_an_empty_message() -> None:
    assert kinds(streamed([last()])) == [*TEXT_BEGUN, *TEXT_DONE, "response.completed"]
    assert (whole([last()]).output_text, len(whole([last()]).output)) == ("", 1)


def test_text_behind_a_call_is_a_message_of_its_own() -> None:
    chunks = [call(0, "{}", id="c"), piece(content="Done."), last()]
    assert [item["type"] for item in streamed(chunks)[-1]["response"]["output"]] == [
        "function_call",
        "message",
    ]
    assert whole(chunks).output_text == "Done."


def test_calls_with_the_same_id_are_kept_apart() -> None:
    """The official client refuses a response with two calls of one id."""
    chunks = [call(0, "{}", id="call"), call(1, "{}", id="call"), call(2, "{}", id=""), last("tool_calls")]
    with client(chunks) as node, node.responses.stream(input="Why?", model="auto") as stream:
        output = stream.get_final_response().output
    assert len({item.call_id for item in output if item.type == "function_call"}) == 3


@given(st.lists(texts, max_size=6), st.lists(st.booleans(), min_size=6, max_size=6))
def test_a_response_is_its_stream_in_one_piece(parts: list[str], relayed: list[bool]) -> None:
    chunks = [piece(content=part) if r else Chunk(part) for part, r in zip(parts, relayed, strict=False)]
    events = streamed([*chunks, last()])
    assert "".join(e["delta"] for e in events if e["type"].endswith(".delta")) == "".join(parts)
    response = json.loads(RESPONSES.reply(asked()).whole([*chunks, last()]))
    assert whole([*chunks, last()]).output_text == "".join(parts)
    assert without_time(response) == without_time(events[-1]["response"])


def without_time(response: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in response.items() if not name.endswith("_at")}


def test_an_entire_completion_is_translated() -> None:
    said = {
        "role": "assistant",
        "content": "B",
        "tool_calls": [
            {"id": i, "type": "function", "function": {"name": "f", "arguments": i}} for i in "ab"
        ],
    }
    choice = {"index": 0, "message": said, "finish_reason": "tool_calls", "logprobs": None}
    chat = raw({"id": "up", "choices": [choice], "usage": {"prompt_tokens": 1}})
    response = whole([Chunk("B", "tool_calls", Usage(3, 4), chat, whole=True, report=REPORT)])
    assert response.output_text == "B"
    assert [o.arguments for o in response.output if o.type == "function_call"] == ["a", "b"]
    assert response.model_extra is not None
    assert response.model_extra["manyminds"]["policy"] == "auto"


def test_log_probabilities_are_translated() -> None:
    top = {"token": "é", "logprob": -0.1, "bytes": None}
    token = top | {"top_logprobs": [top]}
    chunks = [piece(content="é", logprobs={"content": [token]}), piece(logprobs={"content": [token]}), last()]
    events = streamed(chunks)
    shown = {"token": "é", "logprob": -0.1, "bytes": [195, 169], "top_logprobs": []}
    (part,) = events[-1]["response"]["output"][0]["content"]
    assert part["logprobs"] == [shown | {"top_logprobs": [shown]}] * 2
    assert [len(e["logprobs"]) for e in events if e["type"] == "response.output_text.delta"] == [1, 1]


def test_what_was_asked_is_repeated() -> None:
    body = (
        b'{"input":"x","instructions":"i","text":{"format":{"type":\n"json_object"}},"tools":[\r\n%s],'
        % raw(TOOL)
    )
    query = RESPONSES.parse(body + b'"reasoning":{\n"effort":"low"},"temperature":0.3,"model":"m"}', "r1")
    response = whole([last()], query)
    assert (response.instructions, response.temperature, response.top_p) == ("i", 0.3, None)
    assert (response.tool_choice, response.parallel_tool_calls, response.model) == ("auto", True, "m")
    assert [tool.type for tool in response.tools] == ["function"]
    assert streamed([last()], query)[0]["response"]["text"] == {"format": {"type": "json_object"}}


def test_a_changed_query_is_still_repeated() -> None:
    assert whole([last()], replace(asked(instructions="i"), request_id="r2")).instructions == "i"


def test_the_fields_of_a_response() -> None:
    response = json.loads(RESPONSES.reply(asked(store=True)).whole([Chunk("B"), last()]))
    part = {"type": "output_text", "text": "B", "annotations": [], "logprobs": []}
    item = {
        "id": "msg_r1_0",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }
    assert response.pop("created_at") <= response.pop("completed_at")
    assert response.pop("manyminds")["request_id"] == "r1"
    assert response == {
        "id": "resp_r1",
        "object": "response",
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "model": "auto",
        "output": [item],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": None,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 3,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 4,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 7,
        },
    }


deltas = st.fixed_dictionaries(
    {},
    optional={
        "content": st.none() | texts | values,
        "refusal": st.none() | texts | values,
        "tool_calls": st.none()
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "index": st.none() | st.integers(-1, 3),
                    "id": st.none() | texts,
                    "function": st.none()
                    | st.fixed_dictionaries({}, optional={"name": texts, "arguments": texts | values}),
                },
            ),
            max_size=3,
        ),
        "x": values,
    },
)
choices = st.fixed_dictionaries(
    {}, optional={"delta": deltas, "message": deltas, "logprobs": values, "x": values}
)


@settings(max_examples=300)
@given(st.lists(st.lists(choices, max_size=2).map(lambda c: raw({"choices": c, "x": 1})) | values.map(raw)))
def test_any_event_is_told_or_garbage(events: list[bytes]) -> None:
    chunks = [Chunk(raw=event) for event in events] + [last()]
    try:
        told = streamed(chunks)
    except GarbageError:
        with pytest.raises(GarbageError):
            whole(chunks)
        return
    assert told[-1]["type"] == "response.completed"
    assert without_time(told[-1]["response"]) == without_time(
        json.loads(RESPONSES.reply(asked()).whole(chunks))
    )


def test_no_choice_is_garbage() -> None:
    with pytest.raises(GarbageError, match="without choices"):
        whole([Chunk("", "stop", Usage(), b'{"choices":[]}', whole=True)])


# --- the official client ---------------------------------------------------------------------------


def test_the_client_gets_a_response() -> None:
    with client([Chunk("B) "), last(text="42")]) as node:
        response = node.responses.create(input="Why?", max_output_tokens=9)
    assert (response.output_text, response.status, response.store) == ("B) 42", "completed", False)  # type: ignore[attr-defined]
    assert response.usage is not None
    assert response.usage.total_tokens == 7


def test_the_client_streams() -> None:
    with client([Chunk("B) "), last(text="42")]) as node:
        told = list(node.responses.create(input="Why?", model="auto", stream=True))
    assert told[-1].type == "response.completed"
    assert "".join(event.delta for event in told if event.type == "response.output_text.delta") == "B) 42"


class Answer(pydantic.BaseModel):
    letter: str


def test_the_client_parses() -> None:
    with client([Chunk('{"letter":'), last(text='"B"}')]) as node:
        assert node.responses.parse(input="Why?", model="m", text_format=Answer).output_parsed == Answer(
            letter="B"
        )
        with node.responses.stream(input="Why?", model="m", text_format=Answer) as stream:
            assert stream.get_final_response().output_parsed == Answer(letter="B")


class Add(pydantic.BaseModel):
    a: int


def test_the_client_accumulates_tool_calls() -> None:
    chunks = [Chunk("Hm"), call(0, '{"a"', id="c0"), call(1, '{"a":2', id="c1"), call(0, ":1}"), call(1, "}")]
    tool = openai.pydantic_function_tool(Add, name="add")["function"]
    given_tool: Any = {"type": "function", "name": "add", "parameters": tool["parameters"], "strict": True}
    with (
        client([*chunks, last("tool_calls")]) as node,
        node.responses.stream(input="Add.", model="m", tools=[given_tool]) as stream,
    ):
        output = stream.get_final_response().output
    found = [item.parsed_arguments for item in output if item.type == "function_call"]
    assert found == [{"a": 1}, {"a": 2}]


def test_the_client_sends_back_what_it_got() -> None:
    """An answer's items are the next request's input."""
    with client([Chunk("Hm"), call(0, "{}", id="c0"), last("tool_calls")]) as node:
        output = node.responses.create(input="Add.", model="m").output
    items = [item.model_dump(mode="json") for item in output]
    items.append({"type": "function_call_output", "call_id": "c0", "output": "3"})
    turns = json.loads(asked(input=items).raw)["messages"]
    assert [turn["role"] for turn in turns] == ["assistant", "tool"]
    assert turns[0]["content"] == "Hm"


def test_the_client_is_told_what_is_wrong() -> None:
    with client([]) as node, pytest.raises(openai.BadRequestError) as caught:
        node.responses.create(input="Why?", previous_response_id="resp_1")
    assert caught.value.param == "previous_response_id"


@pytest.mark.parametrize("begun", [[], [Chunk("B")], [call(0, "{", id="c")]])
def test_a_cut_stream_fails_at_the_client(begun: list[Chunk]) -> None:
    error = CutError("a's stream ended.")
    told: list[Any] = []
    with client(begun, error) as node, pytest.raises(openai.APIError, match="a's stream ended") as caught:
        told.extend(node.responses.create(input="Why?", model="m", stream=True))
    assert told[-1].type == "response.failed"
    assert told[-1].response.status == "failed"
    assert [item.status for item in told[-1].response.output] == ["incomplete"] * len(begun)
    assert caught.value.code == "expert_cut"
    with (
        client(begun, error) as node,
        node.responses.stream(input="Why?", model="m") as stream,
        pytest.raises(openai.APIError, match="a's stream ended"),
    ):
        stream.get_final_response()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CutError("cut"), "server_error"),
        (RateLimitError("many"), "rate_limit_exceeded"),
        (InvalidRequestError("no"), "invalid_prompt"),
    ],
)
def test_a_failure_is_the_last_that_is_told(error: ManymindsError, code: str) -> None:
    reply = RESPONSES.reply(asked())
    events = read(reply.events(Chunk("B")) + reply.failed(error))
    assert kinds(events)[-2:] == ["response.failed", "error"]
    assert events[-2]["response"]["error"] == {"code": code, "message": error.message}
    assert events[-1]["error"]["code"] == events[-1]["code"] == error.code
