"""What experts leave out of their answers, or say twice: what a caller gets all the same."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from manyminds.errors import GarbageError
from manyminds.types import Chunk, Query, Usage
from manyminds.wire import CHAT, parse_chunk, parse_completion
from manyminds.wire.gaps import Gaps
from tests.test_wire import REPORT, asked, texts, values

HEAD = {"id": "up", "object": "chat.completion.chunk", "created": 7, "model": "m1"}
DONE = "data: [DONE]"
extras = st.dictionaries(st.sampled_from(["x_a", "x_b"]), values, max_size=2)


def raw(fields: Any) -> bytes:
    return json.dumps(fields).encode()


def sent(events: Sequence[bytes], query: Query | None = None) -> list[Any]:
    """What a caller gets of these events, of which the last finishes."""
    reply = CHAT.reply(query or asked())
    chunks = [parse_chunk(data) for data in events]
    chunks[-1] = Chunk(chunks[-1].text, "stop", Usage(3, 4), chunks[-1].raw, report=REPORT)
    *lines, last = b"".join(reply.events(chunk) for chunk in chunks).decode().strip().split("\n\n")
    assert last == DONE
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def piece(delta: Any, index: int = 0, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return HEAD | {"choices": [choice]} | more


# --- events ----------------------------------------------------------------------------------------


@given(st.data(), st.lists(texts, min_size=1, max_size=5), extras)
def test_every_event_is_one_that_clients_know(
    draw: st.DataObject, parts: list[str], extra: dict[str, Any]
) -> None:
    """Whatever an expert leaves out, or repeats: the text stays, and so does what is not ours."""
    lacking = draw.draw(st.sets(st.sampled_from([*HEAD, "index", "logprobs", "finish_reason"])))
    events = []
    for text in (*parts, None):
        delta: dict[str, Any] = {} if text is None else {"content": text}
        delta |= draw.draw(st.sampled_from([{}, {"role": "assistant"}, {"role": None}]))
        event = piece(delta, finish=None if text is not None else "stop") | extra
        for name in lacking:
            holder = event if name in HEAD else event["choices"][0]
            if name != "finish_reason" or text is not None:
                del holder[name]
        events.append(raw(event))
    found = sent(events)
    for event in found:
        ChatCompletionChunk.model_validate(event, strict=True)
        assert {name: event[name] for name in extra} == extra
    said = [choice for event in found for choice in event["choices"]]
    assert "".join(choice["delta"].get("content") or "" for choice in said) == "".join(parts)
    assert [choice["delta"].get("role") for choice in said] == ["assistant"] + [None] * len(parts)
    assert [choice["finish_reason"] for choice in said] == [None] * len(parts) + ["stop"]


@given(st.lists(texts, min_size=1, max_size=4), st.sampled_from([None, 0, 1]))
def test_what_is_complete_is_relayed_byte_by_byte(parts: list[str], indent: int | None) -> None:
    deltas: list[Any] = [{"role": "assistant", "content": ""}, *({"content": part} for part in parts)]
    for delta in deltas:
        data = json.dumps(piece(delta), indent=indent, ensure_ascii=False).encode().replace(b"\n", b" ")
        reply = CHAT.reply(asked())
        reply.events(parse_chunk(raw(piece({"role": "assistant", "content": ""}))))
        if "role" not in delta:
            assert reply.events(parse_chunk(data)) == b"data: " + data + b"\n\n"


def test_a_word_that_reads_like_a_field_is_only_a_word() -> None:
    words = ["role", '"role"', '{"role":"assistant"}', "tool_calls", '\\"role\\":', '"usage"']
    found = sent([raw(piece({"role": "assistant"})), *(raw(piece({"content": word})) for word in words)])
    said = [event["choices"][0]["delta"].get("content") for event in found]
    assert said == [None, *words]


def test_each_choice_says_its_role_once() -> None:
    both = {"role": "assistant", "content": "x"}
    events = [piece(both), piece(both, 1), piece(both), piece(both, 1), piece({}, finish="stop")]
    deltas = [event["choices"][0]["delta"] for event in sent([raw(event) for event in events])]
    assert deltas == [both, both, {"content": "x"}, {"content": "x"}, {}]


def test_events_without_an_index_count_their_choices() -> None:
    event = HEAD | {"choices": [{"delta": {"content": "l"}}, {"delta": {"content": "r"}}]}
    (first,) = sent([raw(event)])
    assert [choice["index"] for choice in first["choices"]] == [0, 1]


def test_a_finish_without_a_delta_gets_one() -> None:
    finish = HEAD | {"choices": [{"index": 0, "finish_reason": "stop"}]}
    *_, last = sent([raw(piece({"role": "assistant", "content": "a"})), raw(finish)])
    assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]


@given(st.data(), st.integers(1, 3))
def test_calls_of_tools_have_what_clients_need(draw: st.DataObject, count: int) -> None:
    """Each an index, which no other has, and its first piece a type."""
    events = [raw(piece({"role": "assistant"}))]
    for i in range(count):
        begin: dict[str, Any] = {"index": i, "id": f"c{i}", "type": "function", "function": {"name": "f"}}
        for name in draw.draw(st.sets(st.sampled_from(["index", "type"]))):
            del begin[name]
        more: dict[str, Any] = {"function": {"arguments": "{}"}}
        more |= draw.draw(st.sampled_from([{}, {"index": i}, {"type": "function", "index": i}]))
        events += [raw(piece({"tool_calls": [begin]})), raw(piece({"tool_calls": [more]}))]
    found = [event["choices"][0]["delta"]["tool_calls"][0] for event in sent(events)[1:]]
    assert [call["index"] for call in found] == [i for i in range(count) for _ in range(2)]
    assert all(call["type"] == "function" for call in found[::2])
    assert [call["id"] for call in found[::2]] == [f"c{i}" for i in range(count)]
    for event in sent(events):
        ChatCompletionChunk.model_validate(event, strict=True)


def test_what_we_write_behind_an_experts_events_is_of_the_same_stream() -> None:
    """As where the deadline cuts an answer."""
    reply = CHAT.reply(asked())
    reply.events(parse_chunk(raw(piece({"role": "assistant", "content": "a"}))))
    end = reply.events(Chunk("", "length", Usage(3, 4))).split(b"\n\n")[0]
    event = json.loads(end.removeprefix(b"data: "))
    assert {name: event[name] for name in HEAD} == HEAD
    assert event["choices"][0]["delta"] == {}


def test_what_we_write_ourselves_is_of_one_stream() -> None:
    reply = CHAT.reply(asked())
    chunks = [Chunk("a"), Chunk("b"), Chunk(finish_reason="stop", usage=Usage(1, 2))]
    lines = b"".join(map(reply.events, chunks)).decode().split("\n\n")[:3]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert [event["choices"][0]["delta"] for event in events] == [
        {"role": "assistant", "content": "a"},
        {"content": "b"},
        {},
    ]
    assert len({(event["id"], event["created"]) for event in events}) == 1


# --- usage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("include_usage", [False, True])
def test_usage_in_every_event_comes_once_and_only_when_asked(include_usage: bool) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    events = [piece({"role": "assistant", "content": "a"}), piece({"content": "b"}), piece({}, finish="stop")]
    query = asked(stream=True, stream_options={"include_usage": include_usage})
    found = sent([raw(event | {"usage": usage, "x": 1.50}) for event in events], query)
    assert all("usage" not in event for event in found[:3])
    assert [event["usage"]["total_tokens"] for event in found[3:]] == [7] * include_usage
    assert all(event["x"] == 1.5 for event in found)


@given(st.integers(0, 10**9), extras)
def test_usage_is_read_and_left_out(tokens: int, extra: dict[str, Any]) -> None:
    event = piece({"content": "a"}) | extra
    chunk = parse_chunk(raw(event | {"usage": {"completion_tokens": tokens}}))
    assert chunk.usage == Usage(0, tokens)
    assert json.loads(chunk.raw) == event


def test_no_usage_is_no_reason_to_write_an_event_again() -> None:
    data = raw(piece({"content": "a"}, usage=None))
    assert parse_chunk(data).raw == data


# --- whole completions -----------------------------------------------------------------------------


def whole(*choices: dict[str, Any], **fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Hi", "refusal": None}
    full = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    head = HEAD | {"object": "chat.completion", "usage": usage}
    return head | {"choices": list(choices) or [full]} | fields


def relayed(data: bytes, *, report: bool = True) -> bytes:
    chunk = parse_completion(data)
    found = Chunk(chunk.text, chunk.finish_reason, chunk.usage or Usage(1, 1), chunk.raw, True)
    with_report = Chunk(found.text, found.finish_reason, found.usage, found.raw, True, report=REPORT)
    return CHAT.reply(asked()).whole([with_report if report else found])


@given(st.data(), extras, st.sampled_from([None, "stop", "length"]))
def test_a_whole_reply_has_all_fields(draw: st.DataObject, extra: dict[str, Any], finish: str | None) -> None:
    message = {"role": "assistant", "content": "Hi", "refusal": None, "x": [1.10]}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    reply = whole(choice) | extra
    places: list[dict[str, Any]] = [reply, choice, message]
    needed = [*HEAD, "usage"], ["index", "logprobs", "finish_reason"], ["role", "refusal"]
    for place, names in zip(places, needed, strict=True):
        for name in draw.draw(st.sets(st.sampled_from(names))):
            if draw.draw(st.booleans()) or name in ("index", "object"):
                del place[name]
            else:
                place[name] = None
    found = json.loads(relayed(raw(reply)))
    ChatCompletion.model_validate(found, strict=True)
    assert found["manyminds"]["policy"] == "auto"
    (made,) = found["choices"]
    assert made["message"] == {"role": "assistant", "content": "Hi", "refusal": None, "x": [1.10]}
    assert (made["index"], made["logprobs"]) == (0, None)
    assert made["finish_reason"] == (choice.get("finish_reason") or "stop")
    assert {"total_tokens", "prompt_tokens"} <= found["usage"].keys()
    for name, value in reply.items():
        if name != "choices" and value is not None:
            assert found[name] == value


def test_a_complete_reply_is_relayed_byte_by_byte() -> None:
    data = json.dumps(whole(), indent=1).replace("7", "7.0e0", 1).encode()
    data = data.replace(b"7.0e0", b"7") + b"\n"
    assert relayed(data, report=False) == data.rstrip()
    assert relayed(data).startswith(data.rstrip()[:-1] + b',"manyminds":{')


def test_a_total_that_is_missing_is_counted() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "x_details": {"cached": 1}}
    assert json.loads(relayed(raw(whole(usage=usage))))["usage"] == usage | {"total_tokens": 7}


@pytest.mark.parametrize("sparse", [False, True])
def test_the_report_of_a_network_upstream_is_replaced(sparse: bool) -> None:
    reply = whole(manyminds={"policy": "theirs"})
    if sparse:
        del reply["object"]
    assert json.loads(relayed(raw(reply)))["manyminds"]["policy"] == "auto"


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices":[{"message":{"content":"a"}}],"\\ud800":1}',
        b'{"choices":[{"message":{"content":"a","\\ud800":1}}]}',
    ],
)
def test_what_cannot_be_completed_is_garbage(data: bytes) -> None:
    with pytest.raises(GarbageError):
        relayed(data)


@pytest.mark.parametrize(
    "data",
    [b'{"choices":[{"delta":{},"\\ud800":1}]}', b'{"choices":[],"\\ud800":1}', b"[]", b'{"choices":5}'],
)
def test_an_event_that_cannot_be_filled_is_garbage(data: bytes) -> None:
    with pytest.raises(GarbageError):
        Gaps(dict(HEAD)).filled(data)
