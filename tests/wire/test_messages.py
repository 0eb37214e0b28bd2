import json
from collections.abc import Iterator, Sequence
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from manyminds import errors
from manyminds.errors import GarbageError, InvalidRequestError, ManymindsError
from manyminds.types import Chunk, Query, Report, Usage
from manyminds.wire import parse_chunk, parse_completion
from manyminds.wire.messages import MESSAGES, count_tokens
from tests.changed import replace

REPORT = Report("r1", "auto", "race", (), 1.0, 0.7, (), 0.0, 0.1)
TOOL: Any = {"name": "weather", "description": "Of a town.", "input_schema": {"type": "object"}}
USAGE = Usage(11, 7)

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
inputs = st.dictionaries(
    st.text(max_size=9),
    st.integers(-(2**60), 2**60) | st.text(max_size=9) | st.floats(allow_nan=False, allow_infinity=False),
    max_size=3,
)


def body(**fields: Any) -> dict[str, Any]:
    whole = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "Why?"}]} | fields
    return {name: value for name, value in whole.items() if value is not ...}


def packed(fields: Any) -> bytes:
    return json.dumps(fields).encode()


def asked(**fields: Any) -> Query:
    return MESSAGES.parse(packed(body(**fields)), "r1")


def sent(**fields: Any) -> dict[str, Any]:
    """What experts are sent."""
    found: dict[str, Any] = json.loads(asked(**fields).raw)
    return found


def turned(*content: dict[str, Any], role: str = "user") -> list[dict[str, Any]]:
    """One turn's chat completion messages."""
    found: list[dict[str, Any]] = sent(messages=[{"role": role, "content": list(content)}])["messages"]
    return found


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


DRAWN = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
LINKED = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
USED = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"town": "Ulm"}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": [text("rain")], "is_error": True}
TURNS = [("user", [text("a"), DRAWN, LINKED]), ("assistant", [text("b"), USED]), ("user", [RESULT])]
RICH = body(
    system=[text("Be kind.")],
    messages=[{"role": role, "content": blocks} for role, blocks in TURNS],
    tools=[TOOL],
    tool_choice={"type": "tool", "name": "weather"},
    stop_sequences=["."],
    metadata={"user_id": "u"},
    output_config={"format": {"type": "json_schema", "schema": {}}},
    manyminds={"policy": "max"},
    x={"y": []},
)


def test_a_plain_request_is_a_chat_completion_request() -> None:
    same: Any = {"temperature": 0.1, "top_p": 0.9, "top_k": 5, "stream": True}
    query = asked(**same, system="Be kind.", stop_sequences=["\n\n"])
    assert (query.model, query.stream, query.request_id) == ("auto", True, "r1")
    assert (query.sampling.max_tokens, query.sampling.temperature, query.sampling.stop) == (9, 0.1, ("\n\n",))
    messages = [{"role": "system", "content": "Be kind."}, *body()["messages"]]
    assert json.loads(query.raw) == body(**same, stop=["\n\n"], messages=messages)


def test_text_blocks_are_joined_by_line_ends() -> None:
    marked = text("Be kind.") | {"cache_control": {"type": "ephemeral"}}
    turns = [{"role": "user", "content": [text("Why?")]}]
    messages = sent(system=[marked, text("Be brief.")], messages=turns)["messages"]
    assert [message["content"] for message in messages] == ["Be kind.\nBe brief.", "Why?"]
    turn = {"role": "system", "content": [text("a"), text("b")]}
    assert sent(messages=[turn])["messages"] == [{"role": "system", "content": "a\nb"}]


def test_images_are_data_urls_or_urls() -> None:
    (message,) = turned(DRAWN, text("What is it?"), LINKED)
    assert message["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ]
    assert asked(messages=[{"role": "user", "content": [DRAWN]}]).demands == {"image"}


def test_a_turn_with_tools_is_calls_and_their_results() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "x"}
    (call,) = turned(thought, text("Let me look."), USED, role="assistant")
    function = {"name": "weather", "arguments": '{"town":"Ulm"}'}
    calls = [{"id": "t1", "type": "function", "function": function}]
    assert call == {"role": "assistant", "content": "Let me look.", "tool_calls": calls}
    assert turned(USED, role="assistant")[0]["content"] is None
    thoughts = {"role": "assistant", "content": [thought, {"type": "redacted_thinking", "data": "x"}]}
    assert sent(messages=[*body()["messages"], thoughts])["messages"] == body()["messages"]
    failed = {"type": "tool_result", "tool_use_id": "t2", "content": "no such town", "is_error": True}
    found = {"type": "tool_result", "tool_use_id": "t1", "content": [text("rain"), text("4 C")]}
    assert turned(text("Here."), found, failed, {"type": "tool_result", "tool_use_id": "t3"}) == [
        {"role": "tool", "tool_call_id": "t1", "content": "rain\n4 C"},
        {"role": "tool", "tool_call_id": "t2", "content": "Error: no such town"},
        {"role": "tool", "tool_call_id": "t3", "content": ""},
        {"role": "user", "content": "Here."},
    ]


@pytest.mark.parametrize(
    ("choice", "expected", "parallel"),
    [
        ({"type": "auto"}, "auto", None),
        ({"type": "none"}, "none", None),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}, None),
    ],
)
def test_tools_and_how_they_are_chosen(choice: dict[str, Any], expected: Any, parallel: bool | None) -> None:
    chat = sent(tools=[TOOL | {"type": "custom", "cache_control": None, "strict": True}], tool_choice=choice)
    function = {"name": "weather", "description": "Of a town.", "parameters": {"type": "object"}}
    assert chat["tools"] == [{"type": "function", "function": function | {"strict": True}}]
    assert (chat["tool_choice"], chat.get("parallel_tool_calls")) == (expected, parallel)
    assert asked(tools=[TOOL]).demands == {"tools"}


@pytest.mark.parametrize("field", ["output_config", "output_format"])
def test_a_schema_is_a_response_format(field: str) -> None:
    wanted = {"type": "json_schema", "schema": {"type": "object", "additionalProperties": False}}
    fields = {field: {"format": wanted, "effort": "low"} if field == "output_config" else wanted}
    assert asked(**fields).demands == {"json_schema"}
    assert sent(**fields)["response_format"]["json_schema"]["schema"] == wanted["schema"]


def test_other_fields_pass_unless_only_anthropic_knows_them() -> None:
    fields = {"seed": 4, "vendor": {"x": [1.50, None]}, "manyminds": {"policy": "max"}}
    dropped: Any = {"thinking": {"type": "adaptive"}, "service_tier": "auto", "n": 3}
    query = asked(**fields, **dropped, metadata={"user_id": "u"})
    chat = json.loads(query.raw)
    assert {name: chat.pop(name) for name in fields} == fields
    assert chat == {"model": "auto", "max_tokens": 9, "user": "u", "messages": sent()["messages"]}
    assert query.limits.policy == "max"
    assert b'"x":[1.50,null]' in MESSAGES.parse(b'{"x":[1.50,null],' + packed(body())[1:], "").raw


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": ...}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": float("nan")}, "temperature"),
        ({"messages": ...}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": ""}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "system", "content": 3}]}, "messages[0].content"),
        ({"system": [{"type": "image"}]}, "system[0]"),
        ({"tools": [TOOL, {"type": "web_search_20250305", "name": "web_search"}]}, "tools[1]"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice"),
        ({"stop_sequences": [3]}, "stop_sequences"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format"),
        ({"mcp_servers": [{"url": "https://example.org"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
        ({"manyminds": {"panel": 0}}, "manyminds.panel"),
    ],
)
def test_errors_name_the_callers_own_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        asked(**fields)
    assert caught.value.param == param
    assert f"`{param}`" in caught.value.message


@pytest.mark.parametrize(
    ("block", "where"),
    [
        ("a", ""),
        ({"type": "text"}, ""),
        ({"type": "document", "source": {}}, ""),
        ({"type": "image", "source": {"type": "file"}}, ""),
        ({"type": "tool_use", "id": "a", "name": "b", "input": {}}, ""),
        ({"type": "tool_result", "tool_use_id": "a", "content": 3}, ".content"),
        ({"type": "tool_result", "tool_use_id": "a", "content": [{"type": "image"}]}, ".content[0]"),
    ],
)
def test_blocks_that_cannot_be_said_are_refused(block: Any, where: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        turned(text("a"), block)
    assert caught.value.param == f"messages[0].content[1]{where}"


@example(b'{"model":"a","max_tokens":1,"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
@given(st.binary(max_size=40) | values.map(lambda value: packed(value)))
def test_arbitrary_bodies_are_refused(raw: bytes) -> None:
    for read in (lambda: MESSAGES.parse(raw, "r"), lambda: count_tokens(raw)):
        with pytest.raises(InvalidRequestError):
            read()


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        yield (*path, step)
        yield from paths(inner, (*path, step))


_words = st.sampled_from(["text", "image", "tool_use", "tool_result", "thinking", "auto", "tool", "system"])


@given(st.sampled_from(list(paths(RICH))), st.just(...) | _words | values)
def test_one_wrong_value_is_borne_or_refused_by_its_field(path: tuple[Any, ...], value: Any) -> None:
    fields = inner = json.loads(json.dumps(RICH))
    for step in path[:-1]:
        inner = inner[step]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    try:
        query = MESSAGES.parse(packed(fields), "r")
    except InvalidRequestError as error:
        field = (error.param or "").partition("[")[0].partition(".")[0]
        assert field == path[0] or (field, path[0]) == ("tool_choice", "tools")
    else:
        assert len(query.messages) == len(json.loads(query.raw)["messages"])


def delta(finish: str | None = None, index: int = 0, **fields: Any) -> Chunk:
    choice = {"index": index, "delta": fields, "finish_reason": finish}
    chunk = parse_chunk(packed({"id": "up", "model": "m", "choices": [choice]}))
    return replace(chunk, usage=USAGE) if finish else chunk


def piece(index: int | None, id: str | None = None, **function: str) -> dict[str, Any]:  # noqa: A002
    fields = {"index": index, "id": id, "function": function}
    return {name: value for name, value in fields.items() if value is not None}


def called(*pieces: dict[str, Any]) -> Chunk:
    return delta(tool_calls=list(pieces))


def whole(*chunks: Chunk, query: Query | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(MESSAGES.reply(query or asked()).whole(chunks))
    return Message.model_validate(found, strict=True).model_dump(exclude_unset=True)


_events = TypeAdapter(RawMessageStreamEvent)


def written(chunks: Sequence[Chunk], query: Query | None = None) -> list[dict[str, Any]]:
    """Events of a stream, each as the client's own type allows it."""
    reply = MESSAGES.reply(query or asked())
    events = []
    for event in b"".join(map(reply.events, chunks)).decode().split("\n\n")[:-1]:
        kind, data = event.split("\n")
        fields = json.loads(data.removeprefix("data: "))
        assert kind == f"event: {fields['type']}"
        _events.validate_python(fields, strict=True)
        events.append(fields)
    return events


def streamed(*chunks: Chunk, query: Query | None = None) -> dict[str, Any]:
    """The message that a stream adds up to; its order must be lawful."""
    first, *middle, last, stop = written(chunks, query)
    assert [e["type"] for e in (first, last, stop)] == ["message_start", "message_delta", "message_stop"]
    message: dict[str, Any] = first["message"] | last.pop("delta") | last | {"type": "message"}
    cuts: list[str] = []
    is_open = False
    for event in middle:
        if event["type"] == "content_block_start":
            assert not is_open
            is_open, cuts = True, []
            message["content"].append(event["content_block"])
        elif event["type"] == "content_block_delta":
            cuts += [event["delta"].get("text", event["delta"].get("partial_json"))]
        else:
            is_open = False
            block, said = message["content"][-1], "".join(cuts)
            block |= {"text": said} if block["type"] == "text" else {"input": json.loads(said or "{}")}
        assert event["index"] == len(message["content"]) - 1
        assert is_open or event["type"] == "content_block_stop"
    assert not is_open
    return message


def cut(draw: st.DataObject, said: str) -> list[str]:
    places = sorted(draw.draw(st.lists(st.integers(0, len(said)), max_size=4)))
    return [said[a:b] for a, b in zip([0, *places], [*places, len(said)], strict=True)]


@given(st.data(), st.text(min_size=1, max_size=40), st.booleans())
def test_text_cut_anywhere_is_the_same_text(draw: st.DataObject, said: str, raw: bool) -> None:
    pieces = cut(draw, said)
    chunks = [delta(content=p) if raw else Chunk(p) for p in pieces]
    chunks.append(delta("stop") if raw else Chunk(finish_reason="stop", usage=USAGE))
    assert streamed(*chunks) == whole(*chunks)
    head = {"id": "msg_r1", "type": "message", "role": "assistant", "model": "auto", "content": [text(said)]}
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    assert whole(*chunks) == head | stop | {"usage": {"input_tokens": 11, "output_tokens": 7}}


@given(st.data(), st.lists(inputs, min_size=1, max_size=3), st.text(max_size=9))
def test_tool_calls_cut_anywhere_and_interleaved_are_the_same_calls(
    draw: st.DataObject, given_inputs: list[dict[str, Any]], said: str
) -> None:
    calls: list[list[dict[str, Any]]] = []
    for i, arguments in enumerate(given_inputs):
        pieces = [piece(i, name=p) for p in cut(draw, "weather")]
        pieces += [piece(i, arguments=p) for p in cut(draw, json.dumps(arguments))]
        pieces.insert(draw.draw(st.integers(0, len(pieces))), piece(i, f"c{i}"))
        calls.append(pieces)
    order = draw.draw(st.permutations([i for i, pieces in enumerate(calls) for _ in pieces]))
    chunks = [called(calls[i].pop(0)) for i in order]
    for words in cut(draw, said):
        chunks.insert(draw.draw(st.integers(0, len(chunks))), delta(content=words))
    chunks.append(delta("tool_calls"))
    use = {"type": "tool_use", "name": "weather"}
    expected = [use | {"id": f"c{i}", "input": arguments} for i, arguments in enumerate(given_inputs)]
    spoken = "".join(chunk.text for chunk in chunks)
    for message in (whole(*chunks), streamed(*chunks)):
        used = [block for block in message["content"] if block["type"] == "tool_use"]
        assert sorted(used, key=lambda block: block["id"]) == expected
        assert "".join(b["text"] for b in message["content"] if b["type"] == "text") == spoken
        assert message["stop_reason"] == "tool_use"


def test_a_call_goes_out_as_it_comes_and_the_next_when_it_is_whole() -> None:
    reply = MESSAGES.reply(asked())

    def kinds(chunk: Chunk) -> list[str]:
        return [line[7:] for line in reply.events(chunk).decode().split("\n") if line.startswith("event: ")]

    start, a_delta, stop = "content_block_start", "content_block_delta", "content_block_stop"
    assert kinds(delta(content="Hm")) == ["message_start", start, a_delta]
    assert kinds(called(piece(0, "a", name="f", arguments=""))) == []
    assert kinds(called(piece(0, arguments="{"))) == [stop, start, a_delta]
    assert kinds(called(piece(0, arguments="}"))) == [a_delta]
    assert kinds(called(piece(1, "b", name="g", arguments="{"))) == [stop, start, a_delta]
    assert kinds(called(piece(2, "c", name="h", arguments="{}"))) == []
    assert kinds(called(piece(1, arguments="}"))) == [a_delta]
    end = [stop, start, a_delta, stop, "message_delta", "message_stop"]
    assert kinds(delta("tool_calls")) == end


@pytest.mark.parametrize("finish", ["stop", "tool_calls"])
def test_calls_without_index_id_or_arguments(finish: str) -> None:
    chunks = [called(piece(None, "a", name="f", arguments="{")), called(piece(None, arguments="}"))]
    chunks += [called(piece(None, "b", name="g")), delta(finish)]
    bare = [called(piece(0, name="f")), delta(finish)]
    late = [called(piece(0, "a", arguments="{}")), called(piece(0, name="f")), delta(finish)]
    for shown in (whole, streamed):
        used = [{"type": "tool_use", "id": i, "name": n, "input": {}} for i, n in (("a", "f"), ("b", "g"))]
        assert shown(*chunks)["content"] == used
        assert shown(*late)["content"] == used[:1]
        assert shown(*bare)["content"] == [used[0] | {"id": "toolu_r1_0"}]
        assert shown(*bare)["stop_reason"] == "tool_use"


def test_a_call_that_the_length_cut_is_never_made_whole() -> None:
    chunks = [delta(content="Hm"), called(piece(0, "a", name="f", arguments='{"x": 1')), delta("length")]
    message = whole(*chunks)
    assert (message["content"], message["stop_reason"]) == ([text("Hm")], "max_tokens")
    partial = [e["delta"]["partial_json"] for e in written(chunks) if "partial_json" in e.get("delta", {})]
    assert partial == ['{"x": 1']
    assert written(chunks)[-2]["delta"]["stop_reason"] == "max_tokens"


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(0, "a", name="f", arguments="{")],
        [piece(0, "a", name="f", arguments="[]")],
        [piece(0, "a", arguments="{}")],
        [piece(0, "a", name="f", arguments="{}"), piece(1, "b", name="g"), piece(0, arguments="{}")],
    ],
)
def test_calls_that_make_no_sense_are_garbage(pieces: list[dict[str, Any]]) -> None:
    chunks = [*map(called, pieces), delta("tool_calls")]
    with pytest.raises(GarbageError):
        whole(*chunks)
    with pytest.raises(GarbageError):
        written(chunks)


def test_a_name_cannot_change_after_the_arguments_began() -> None:
    opening, again = called(piece(0, "a", name="f", arguments="{")), called(piece(0, name="f", arguments="}"))
    assert streamed(opening, again, delta("stop"))["content"][0]["name"] == "f"
    with pytest.raises(GarbageError, match="name"):
        written([opening, called(piece(0, name="g", arguments="}"))])


@pytest.mark.parametrize(
    ("finish", "fields", "reason"),
    [
        ("length", {"content": "a"}, "max_tokens"),
        ("content_filter", {"content": "a"}, "refusal"),
        ("stop", {"refusal": "No."}, "refusal"),
        ("tool_calls", {"content": "a"}, "end_turn"),
        ("eos", {}, "end_turn"),
    ],
)
def test_why_an_answer_ends(finish: str, fields: dict[str, Any], reason: str) -> None:
    chunks = (delta(**fields), delta(finish))
    assert streamed(*chunks) == whole(*chunks)
    assert whole(*chunks)["stop_reason"] == reason
    assert whole(*chunks)["content"] == ([text("".join(fields.values()))] if fields else [])


def test_a_stop_sequence_is_told_where_the_expert_tells_it() -> None:
    raw = {"choices": [{"delta": {}, "finish_reason": "stop", "stop_reason": "END"}]}
    last = replace(parse_chunk(packed(raw)), usage=USAGE)
    told, unasked = asked(stop_sequences=["END"]), asked(stop_sequences=["."])
    for shown in (whole, streamed):
        message = shown(delta(content="a"), last, query=told)
        assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "END")
        assert shown(delta(content="a"), last, query=unasked)["stop_reason"] == "end_turn"


def test_only_the_first_choice_counts() -> None:
    other = delta("stop", 1, content="y")
    chunks = [delta(content="a"), replace(other, finish_reason=None), delta("length")]
    assert streamed(*chunks)["content"] == whole(*chunks)["content"] == [text("a")]
    assert streamed(*chunks)["stop_reason"] == "max_tokens"


def test_a_whole_completion_is_a_message() -> None:
    function = {"name": "f", "arguments": '{"x": 1.50}'}
    message = {"role": "assistant", "content": "a", "tool_calls": [{"id": "c", "function": function}]}
    raw = packed({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    chunk = replace(parse_completion(raw), usage=USAGE, report=REPORT)
    reply = MESSAGES.reply(asked()).whole([chunk])
    assert b'"input":{"x": 1.50}' in reply  # as it came
    assert [block["type"] for block in json.loads(reply)["content"]] == ["text", "tool_use"]
    assert json.loads(reply)["manyminds"]["policy"] == "auto"
    for odd in (b'{"choices":[]}', b'{"choices":[{"message":{"tool_calls":3}}]}', b"["):
        with pytest.raises(GarbageError):
            whole(replace(chunk, raw=odd))


def test_a_stream_begins_with_an_estimate_and_ends_with_the_report() -> None:
    query, last = asked(), Chunk("a", "stop", USAGE, report=REPORT)
    start = written([last], query)[0]["message"]
    assert start["usage"] == {"input_tokens": query.estimated_tokens, "output_tokens": 0}
    assert streamed(last)["manyminds"] == whole(last)["manyminds"]
    assert whole(last)["manyminds"]["request_id"] == "r1"


class Node(httpx2.BaseTransport):
    """Answers with these chunks as the edge would; an error in them is raised in its place."""

    def __init__(self, *chunks: Chunk | ManymindsError) -> None:
        self._chunks = chunks
        self.query: Query | None = None

    def _answer(self, path: str, raw: bytes) -> bytes | Iterator[bytes]:
        if path == "/v1/messages/count_tokens":
            return count_tokens(raw)
        self.query = query = MESSAGES.parse(raw, "r1")
        reply = MESSAGES.reply(query)
        if isinstance(self._chunks[0], ManymindsError):
            raise self._chunks[0]
        if query.stream:
            return (reply.events(c) if isinstance(c, Chunk) else reply.failed(c) for c in self._chunks)
        return reply.whole([chunk for chunk in self._chunks if isinstance(chunk, Chunk)])

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            answer = self._answer(request.url.path, request.read())
        except ManymindsError as error:
            status, refused = MESSAGES.refuse(error, "r1")
            return httpx2.Response(status, headers={"content-type": "application/json"}, content=refused)
        kind = "application/json" if isinstance(answer, bytes) else "text/event-stream"
        return httpx2.Response(200, headers={"content-type": kind}, content=answer)


def client(node: Node) -> anthropic.Anthropic:
    http = httpx2.Client(transport=node)
    return anthropic.Anthropic(api_key="k", base_url="http://node", http_client=http, max_retries=0)


ASKED: Any = {"model": "auto", "max_tokens": 99, "messages": [{"role": "user", "content": "Rain in Ulm?"}]}


def test_the_client_gets_the_same_message_whole_and_streamed() -> None:
    node = Node(delta(content="Hel"), delta(content="lo."), delta("stop"))
    with client(node) as asking:
        message = asking.messages.create(**ASKED)
        with asking.messages.stream(**ASKED) as stream:
            assert "".join(stream.text_stream) == "Hello."
            assert stream.get_final_message().to_dict() == message.to_dict() | {"stop_details": None}
        assert message.usage.output_tokens == 7
        counted = asking.messages.count_tokens(model="auto", messages=ASKED["messages"])
    assert counted == MessageTokensCount(input_tokens=3 + 4)


class Town(BaseModel):
    name: str


def test_the_client_parses_what_keeps_its_schema() -> None:
    node = Node(delta(content='{"name": "Ulm"}'), delta("stop"))
    with client(node) as asking:
        assert asking.messages.parse(**ASKED, output_format=Town).parsed_output == Town(name="Ulm")
    assert node.query is not None
    assert node.query.demands == {"json_schema"}


@given(st.lists(inputs, min_size=1, max_size=3), st.text(max_size=9), st.booleans())
def test_a_conversation_with_tools_goes_round(given_inputs: list[Any], said: str, stream: bool) -> None:
    arguments = [json.dumps(fields) for fields in given_inputs]
    pieces = [piece(i, f"c{i}", name="weather", arguments=a) for i, a in enumerate(arguments)]
    node = Node(delta(content=said), called(*pieces), delta("tool_calls"))
    with client(node) as asking:
        if stream:
            with asking.messages.stream(**ASKED, tools=[TOOL]) as events:
                message: Message = events.get_final_message()
        else:
            message = asking.messages.create(**ASKED, tools=[TOOL])
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": json.dumps(block.input)}
            for block in message.content
            if block.type == "tool_use"
        ]
        more = [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
        asking.messages.create(**ASKED | {"messages": ASKED["messages"] + more}, tools=[TOOL])
    assert node.query is not None
    _, turn, *answers = json.loads(node.query.raw)["messages"]
    assert turn["content"] == (said or None)
    assert [json.loads(call["function"]["arguments"]) for call in turn["tool_calls"]] == given_inputs
    assert [call["id"] for call in turn["tool_calls"]] == [answer["tool_call_id"] for answer in answers]
    assert [json.loads(answer["content"]) for answer in answers] == given_inputs
    assert {answer["role"] for answer in answers} == {"tool"}


@pytest.mark.parametrize(
    ("error", "kind", "name"),
    [
        (InvalidRequestError("no"), anthropic.BadRequestError, "invalid_request_error"),
        (errors.UnauthorizedError("no"), anthropic.AuthenticationError, "authentication_error"),
        (errors.ForbiddenError("no"), anthropic.PermissionDeniedError, "permission_error"),
        (errors.ModelNotFoundError("no"), anthropic.NotFoundError, "not_found_error"),
        (errors.SlowRequestError("no"), anthropic.APIStatusError, "timeout_error"),
        (errors.TooLargeError("no"), anthropic.APIStatusError, "request_too_large"),
        (errors.NoExpertError("no"), anthropic.UnprocessableEntityError, "invalid_request_error"),
        (errors.RateLimitError("no"), anthropic.RateLimitError, "rate_limit_error"),
        (errors.BudgetError("no"), anthropic.RateLimitError, "rate_limit_error"),
        (ManymindsError("no"), anthropic.InternalServerError, "api_error"),
        (GarbageError("no"), anthropic.InternalServerError, "api_error"),
        (errors.UnavailableError("no"), anthropic.OverloadedError, "overloaded_error"),
        (errors.DeadlineError("no"), anthropic.GatewayTimeoutError, "timeout_error"),
    ],
)
def test_the_client_knows_the_errors(error: ManymindsError, kind: type[Exception], name: str) -> None:
    with client(Node(error)) as asking, pytest.raises(kind) as caught:
        asking.messages.create(**ASKED)
    assert isinstance(caught.value, anthropic.APIStatusError)
    inner = {"type": name, "message": "no"}
    assert caught.value.body == {"type": "error", "error": inner, "request_id": "r1"}


def test_a_stream_that_breaks_off_is_an_error_and_never_a_message() -> None:
    node = Node(delta(content="Hel"), errors.UnavailableError("a is down."))
    with client(node) as asking, pytest.raises(anthropic.APIStatusError, match="down") as caught:
        asking.messages.stream(**ASKED).__enter__().get_final_message()
    assert caught.value.type == "overloaded_error"
