import json
import string
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyminds.errors import GarbageError, InvalidRequestError, SlowError
from manyminds.types import Attribution, Chunk, Message, PanelEntry, Query, Report, Sampling, Usage
from manyminds.wire import (
    completion,
    error_body,
    error_text,
    parse_chunk,
    parse_request,
    request_body,
    stream_end,
    written,
)

REPORT = Report(
    request_id="r1",
    policy="auto",
    strategy="vote",
    panel=(PanelEntry("a", "alice", 0.3, "B) 42", 0.7, 0.1, 0.2, 0.0003, "ok"),),
    agreement=1.0,
    probability=0.7,
    attribution=(Attribution("alice", 0.1, 1.0),),
    cost_usd=0.0003,
    saved_usd=-0.1,
)

texts = st.text(max_size=40)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, width=32) | texts
)
values = st.recursive(
    scalars.filter(lambda v: not isinstance(v, float) or abs(v) != float("inf")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
names = st.text(string.ascii_lowercase, min_size=1, max_size=12).map(lambda name: f"x_{name}")


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": "Why?"}]} | fields


def raw(fields: Any) -> bytes:
    return json.dumps(fields).encode()


def asked(**fields: Any) -> Query:
    return parse_request(raw(chat(**fields)), "r1")


# --- requests --------------------------------------------------------------------------------------

messages: st.SearchStrategy[tuple[Any, Message]] = st.one_of(
    st.tuples(st.sampled_from(["system", "developer", "user", "assistant", "tool"]), texts).map(
        lambda pair: ({"role": pair[0], "content": pair[1]}, Message(*pair))
    ),
    st.lists(texts, max_size=3).map(
        lambda parts: (
            {"role": "user", "content": [{"type": "text", "text": part} for part in parts]},
            Message("user", "\n".join(parts)),
        )
    ),
    st.just(({"role": "assistant", "content": None, "tool_calls": [{}]}, Message("assistant", ""))),
)
samplings = st.builds(
    Sampling,
    max_tokens=st.none() | st.integers(1, 10**6),
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1),
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    stop=st.lists(texts, max_size=4).map(tuple),
    n=st.integers(1, 8),
)


@given(st.lists(messages, min_size=1, max_size=4), samplings, st.booleans(), st.text(min_size=1))
def test_a_request_says_what_was_meant(
    turns: list[tuple[Any, Message]], sampling: Sampling, stream: bool, model: str
) -> None:
    fields = {name: getattr(sampling, name) for name in ("max_tokens", "temperature", "top_p", "seed", "n")}
    body = chat(model=model, messages=[turn for turn, _ in turns], stream=stream, stop=list(sampling.stop))
    query = parse_request(raw(body | fields), "r1")
    assert query.messages == tuple(message for _, message in turns)
    assert query.sampling == sampling
    assert (query.model, query.stream, query.request_id) == (model, stream, "r1")


@given(samplings, texts)
def test_a_query_made_here_survives_the_wire(sampling: Sampling, text: str) -> None:
    query = Query((Message("system", "Be brief."), Message("user", text)), sampling=sampling)
    there = parse_request(request_body(query, "m"))
    assert there.messages == query.messages
    assert there.sampling == sampling
    assert (there.model, there.stream, there.include_usage) == ("m", True, True)


@given(st.dictionaries(names, values, max_size=5), values, st.sampled_from([None, 0, 2]), st.booleans())
def test_unknown_fields_keep_their_bytes(
    extra: dict[str, Any], deep: Any, indent: int | None, stream: bool
) -> None:
    message = {"role": "user", "content": "Why?", "x_deep": deep}
    body = chat(messages=[message], manyminds={"panel": 3}, stream=stream) | extra
    body = {key: body[key] for key in sorted(body, reverse=True)}
    query = parse_request(json.dumps(body, indent=indent).encode())
    sent = request_body(query, "upstream", whole=not stream)
    there = json.loads(sent)
    assert "manyminds" not in there
    assert there.pop("stream_options", None) == ({"include_usage": True} if stream else None)
    assert there == {k: v for k, v in body.items() if k != "manyminds"} | {"model": "upstream"}
    for key, value in (extra | {"messages": [message]}).items():
        written_so = json.dumps(value, indent=indent).replace("\n", "\n" + " " * (indent or 0))
        assert written_so.encode() in sent, key


def test_numbers_beyond_floats_keep_their_digits() -> None:
    body = b'{"model":"a","messages":[{"role":"user","content":"x"}],"x":1.10000000000000000001,"y":1e5}'
    sent = request_body(parse_request(body), "m")
    assert b'"x":1.10000000000000000001,"y":1e5' in sent


def test_limits_are_read() -> None:
    given_limits = {
        "policy": "max",
        "panel": 3,
        "include": ["a"],
        "exclude": ["b", "c"],
        "weights": {"a": 0.1, "b": 0},
        "budget_usd": 0.05,
        "deadline_s": 1.5,
        "quorum": 2,
        "strategy": "fuse",
        "topic": "law",
        "explain": True,
    }
    limits = asked(manyminds=given_limits).limits
    assert {name: getattr(limits, name) for name in given_limits} == given_limits | {
        "include": ("a",),
        "exclude": ("b", "c"),
    }
    assert asked().limits.topic == ""


@pytest.mark.parametrize(
    ("fields", "demand"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"messages": [{"role": "tool", "content": "4", "tool_call_id": "c"}]}, "tools"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, "tools"),
        ({"response_format": {"type": "json_schema"}}, "json_schema"),
        ({"response_format": {"type": "json_object"}}, "json_schema"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "image"),
        ({"logprobs": True}, "logprobs"),
        ({"functions": [{"name": "f"}]}, "tools"),
    ],
)
def test_demands_are_seen(fields: dict[str, Any], demand: str) -> None:
    assert asked(**fields).demands == {demand}


def test_a_plain_request_demands_nothing() -> None:
    plain = {"tools": [], "logprobs": False, "response_format": {"type": "text"}, "stream_options": None}
    query = asked(**plain)
    assert query.demands == frozenset()
    assert not query.include_usage


def user(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


WRONG = [
    ({"model": None}, "model"),
    ({"model": 5}, "model"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [5]}, "messages[0]"),
    ({"messages": [{"role": "user", "content": "x"}, {"content": "x"}]}, "messages[1].role"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
    (user(None), "messages[0].content"),
    (user(5), "messages[0].content"),
    (user(["x"]), "messages[0].content[0]"),
    (user([{"text": "x"}]), "messages[0].content[0].type"),
    (user([{"type": "text"}]), "messages[0].content[0].text"),
    (user([{"type": "text", "text": 5}]), "messages[0].content[0].text"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": True}, "stream_options"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": 10**400}, "max_tokens"),
    ({"max_completion_tokens": -1}, "max_completion_tokens"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": float("nan")}, "temperature"),
    ({"top_p": 1.1}, "top_p"),
    ({"top_p": float("inf")}, "top_p"),
    ({"seed": 10**30}, "seed"),
    ({"seed": 10**400}, "seed"),
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"stop": [1]}, "stop[0]"),
    ({"tools": {}}, "tools"),
    ({"response_format": "json"}, "response_format"),
    ({"x_unknown": [1, {"y": float("nan")}]}, "x_unknown[1].y"),
    ({"manyminds": []}, "manyminds"),
    ({"manyminds": {"pannel": 3}}, "manyminds.pannel"),
    ({"manyminds": {"panel": 0}}, "manyminds.panel"),
    ({"manyminds": {"panel": "three"}}, "manyminds.panel"),
    ({"manyminds": {"quorum": -1}}, "manyminds.quorum"),
    ({"manyminds": {"budget_usd": -0.01}}, "manyminds.budget_usd"),
    ({"manyminds": {"deadline_s": 0}}, "manyminds.deadline_s"),
    ({"manyminds": {"weights": {"a": -1}}}, "manyminds.weights.a"),
    ({"manyminds": {"weights": {"a": "x"}}}, "manyminds.weights"),
    ({"manyminds": {"include": "a"}}, "manyminds.include"),
    ({"manyminds": {"strategy": "guess"}}, "manyminds.strategy"),
    ({"manyminds": {"budget_usd": float("inf")}}, "manyminds.budget_usd"),
]


@pytest.mark.parametrize(
    ("fields", "param"), WRONG, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        asked(**fields)
    assert caught.value.param == param
    assert param in caught.value.message
    assert len(caught.value.message) < 500


def test_a_missing_model_is_named() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_request(b'{"messages":[{"role":"user","content":"x"}]}')
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"NaN",
        b"\xff\xfe",
        b'{"model":"a","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"a","messages":[{"role":"user","content":"x"}],"x":"\xff"}',
        b'{"model":"a","messages":[{"role":"user","content":"x"}],"\xff":1}',
        b'{"model":"a","messages":[{"role":"user","content":"x"}],"manyminds":{"policy":"\xff"}}',
        b'{"model":"a","messages":[{"role":"user","content":"x"}],"x":' + b"[" * 10**5 + b"]" * 10**5 + b"}",
        b'{"model":"a","messages":' + b'[{"a":' * 10**5,
    ],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="body"):
        parse_request(body)


def test_a_large_body_is_not_searched_for_what_is_not_json() -> None:
    body = b'{"model":"a","messages":[{"role":"user","content":"x"}],"x":[' + b"[0]," * 30_000 + b"NaN]}"
    with pytest.raises(InvalidRequestError, match="no NaN and no Infinity") as caught:
        parse_request(body)
    assert caught.value.param is None


def test_naming_what_is_not_json_takes_no_more_memory_than_the_body() -> None:
    body = raw({"k" * 50_000: [*[0] * 15_000, float("nan")]})
    tracemalloc.start()
    with pytest.raises(InvalidRequestError) as caught:
        parse_request(body)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.param == "k" * 200
    assert peak_bytes < 10_000_000


# --- what arrives is anything ----------------------------------------------------------------------

FULL = chat(
    stream=True,
    stop=["a"],
    n=2,
    tools=[{"type": "function", "function": {"name": "f"}}],
    response_format={"type": "json_object"},
    manyminds={"panel": 3, "weights": {"a": 0.1}, "strategy": "vote"},
)
CHUNK = {
    "id": "c",
    "object": "chat.completion.chunk",
    "choices": [
        {
            "index": 0,
            "delta": {
                "role": "assistant",
                "content": "é",
                "tool_calls": [{"index": 0, "id": "t", "type": "function", "function": {"arguments": "{"}}],
                "function_call": {"name": "f", "arguments": "{"},
            },
            "logprobs": {"content": [{"token": "é", "logprob": -0.1}]},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    "timings": {"prompt_ms": 0.1, "predicted_ms": 0.2},
}


@st.composite
def damaged(draw: st.DrawFn, fields: dict[str, Any]) -> bytes:
    """The object with one value anywhere replaced, its JSON with a few bytes changed."""
    whole = json.loads(json.dumps(fields))
    place, key = whole, draw(st.sampled_from(sorted(whole)))
    while isinstance(place[key], dict | list) and place[key] and draw(st.integers(0, 4)):
        place = place[key]
        key = draw(st.sampled_from(range(len(place)) if isinstance(place, list) else sorted(place)))
    odd = st.sampled_from(
        [-1, 10**30, 10**400, 1e308, float("nan"), float("inf"), "", [], {}, [[]], {"": None}]
    )
    place[key] = draw(odd | values)
    body = bytearray(json.dumps(whole, ensure_ascii=draw(st.booleans())).encode())
    for _ in range(draw(st.integers(0, 2))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body)


@settings(max_examples=300)
@given(st.binary(max_size=60) | damaged(FULL))
def test_any_request_is_read_or_refused(body: bytes) -> None:
    try:
        query = parse_request(body)
    except InvalidRequestError as error:
        error_body(error)
        return
    assert json.loads(request_body(query, "m"))["stream"] is True
    assert json.loads(request_body(query, "m", whole=True))["stream"] is False
    assert query.messages
    "".join(message.text for message in query.messages).encode()


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=60) | damaged(CHUNK), min_size=1, max_size=3))
def test_any_event_is_read_or_garbage(events: list[bytes]) -> None:
    """What is read can be relayed and made whole, or is garbage at the latest then."""
    try:
        chunks = [parse_chunk(data) for data in events]
        whole = completion(chunks, asked(), "m")
    except GarbageError:
        return
    json.loads(whole)
    for chunk in chunks:
        assert not {b"\n"[0], b"\r"[0]} & set(chunk.raw)
        chunk.text.encode()


@given(st.binary(max_size=60) | damaged({"error": {"message": "no"}}) | damaged({"error": "no"}))
def test_any_error_body_becomes_one_line(body: bytes) -> None:
    text = error_text(body)
    assert text.isprintable()
    assert len(text) <= 2000


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error":{"message":"too  many\\nrequests"}}', "too many requests"),
        (b'{"error":"model not found"}', "model not found"),
        (b'{"detail":"nope"}', '{"detail":"nope"}'),
        (b"<html>\x1b[31m502</html>", "<html> [31m502</html>"),
        (b'{"error":' + b"[" * 10**5, '{"error":' + "[" * 1991),
        (b"", ""),
    ],
)
def test_error_bodies_are_read(body: bytes, text: str) -> None:
    assert error_text(body) == text


# --- chunks ----------------------------------------------------------------------------------------


def delta(index: int = 0, finish: str | None = None, logprobs: Any = None, **fields: Any) -> bytes:
    choice = {"index": index, "delta": fields, "logprobs": logprobs, "finish_reason": finish}
    return raw(
        {"id": "up", "object": "chat.completion.chunk", "choices": [choice], "system_fingerprint": "fp"}
    )


def whole(*events: bytes, usage: Usage | None = None, **fields: Any) -> Any:
    """The completion of a stream with these events."""
    chunks = [parse_chunk(data) for data in events]
    chunks.append(Chunk(finish_reason="stop", usage=usage, raw=delta(finish="stop")))
    return json.loads(completion(chunks, asked(**fields), "auto"))


def test_a_chunk_is_relayed_on_one_line() -> None:
    data = b'{"choices":[{"index":0,\r\n"delta":{"content":"a"},\r"x":1}]}'
    chunk = parse_chunk(data)
    assert (chunk.text, chunk.raw) == ("a", data.replace(b"\r", b" ").replace(b"\n", b" "))


def test_usage_is_read_with_the_time_it_took() -> None:
    chunk = parse_chunk(
        b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5},'
        b'"timings":{"prompt_ms":100.1,"predicted_ms":200.2}}'
    )
    assert chunk.usage is not None
    assert (chunk.usage.prompt_tokens, chunk.usage.completion_tokens) == (3, 5)
    assert chunk.usage.cpu_s == pytest.approx(0.3003)


def test_the_text_is_the_first_choice() -> None:
    assert parse_chunk(delta(1, content="b")).text == ""
    assert parse_chunk(delta(0, content="a")).text == "a"
    assert parse_chunk(delta(1, finish="length")).finish_reason == "length"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[DONE]",
        b"{}x",
        b'{"choices":5}',
        b'{"choices":[{"index":-1}]}',
        b'{"choices":[{"delta":{"content":["a"]}}]}',
        b'{"choices":[{"delta":{"tool_calls":{}}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":{}}}]}}]}',
        b'{"choices":[{"logprobs":[]}]}',
        b'{"choices":[],"usage":{"prompt_tokens":-1}}',
        b'{"choices":[],"usage":{"completion_tokens":1000000000000}}',
        b'{"choices":[],"usage":{},"timings":{"prompt_ms":-1}}',
        b'{"choices":[{"delta":{"content":"a","x":"\xff"}}]}',
        b'{"choices":[{"delta":{"content":"\\udc00"}}]}',
        b'{"error":{"message":"overloaded"}}',
        b'{"error":"overloaded"}',
    ],
)
def test_garbage_is_named_so(data: bytes) -> None:
    with pytest.raises(GarbageError, match="overloaded" if b"error" in data else "chunk"):
        parse_chunk(data)


# --- replies ---------------------------------------------------------------------------------------


@given(st.lists(texts, min_size=1, max_size=6), st.booleans())
def test_a_completion_is_its_stream_in_one_piece(parts: list[str], relayed: bool) -> None:
    """Conformance case 2, for events that were relayed and for those we write ourselves."""
    query = asked()
    chunks = [parse_chunk(delta(content=part)) if relayed else Chunk(part) for part in parts]
    chunks.append(
        Chunk(finish_reason="stop", usage=Usage(3, 4), raw=delta(finish="stop") if relayed else b"")
    )
    events = [written(chunk, query, "auto", first=i == 0) for i, chunk in enumerate(chunks[:-1])]
    events += stream_end(chunks[-1], query, "auto")
    streamed = "".join(parse_chunk(data).text for data in events)
    reply = json.loads(completion(chunks, query, "auto"))
    (choice,) = reply["choices"]
    assert choice["message"] == {"role": "assistant", "content": "".join(parts), "refusal": None}
    assert streamed == "".join(parts)
    assert (choice["index"], choice["logprobs"], choice["finish_reason"]) == (0, None, "stop")
    assert reply["object"] == "chat.completion"
    assert reply["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert {"id", "created", "model"} <= reply.keys()


def test_the_role_is_only_in_the_first_event() -> None:
    deltas = [
        json.loads(written(Chunk("a"), asked(), "auto", first=first))["choices"][0]["delta"]
        for first in (True, False)
    ]
    assert deltas == [{"role": "assistant", "content": "a"}, {"content": "a"}]


@given(st.lists(texts, min_size=2, max_size=3), st.data())
def test_tool_calls_are_joined_wherever_they_were_cut(arguments: list[str], draw: st.DataObject) -> None:
    """Conformance cases 7 and 8: index, id, type and name first, arguments split anywhere and interleaved."""
    events = []
    for index, whole_text in enumerate(arguments):
        call = {
            "index": index,
            "id": f"c{index}",
            "type": "function",
            "function": {"name": "f", "arguments": ""},
        }
        pieces = [p.decode("utf-32") for p in cut_text(draw, whole_text)]
        events.append([call, *({"index": index, "function": {"arguments": piece}} for piece in pieces)])
    order = draw.draw(st.permutations([i for i, calls in enumerate(events) for _ in calls]))
    reply = whole(*(delta(tool_calls=[events[i].pop(0)]) for i in order))
    assert reply["choices"][0]["message"]["tool_calls"] == [
        {"id": f"c{i}", "type": "function", "function": {"name": "f", "arguments": text}}
        for i, text in enumerate(arguments)
    ]


def cut_text(draw: st.DataObject, text: str) -> list[bytes]:
    places = sorted(draw.draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[a:b].encode("utf-32") for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def test_tool_calls_without_an_index_begin_with_their_id() -> None:
    pieces = [{"id": "a", "function": {"name": "f", "arguments": "{"}}, {"function": {"arguments": "}"}}]
    reply = whole(*(delta(tool_calls=[piece]) for piece in (*pieces, {"id": "b", "function": {"name": "g"}})))
    assert reply["choices"][0]["message"]["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "b", "type": "function", "function": {"name": "g"}},
    ]


def test_choices_stay_apart() -> None:
    reply = whole(
        delta(1, content="x"),
        delta(0, content="a"),
        delta(1, content="y", finish="length"),
        delta(0, content="b"),
        n=2,
    )
    told = [(c["index"], c["message"]["content"], c["finish_reason"]) for c in reply["choices"]]
    assert told == [(0, "ab", "stop"), (1, "xy", "length")]


def test_log_probabilities_are_strung_together() -> None:
    tokens: list[dict[str, Any]] = [
        {"token": t, "logprob": -0.3, "bytes": None, "top_logprobs": []} for t in "abc"
    ]
    reply = whole(
        delta(content="ab", logprobs={"content": tokens[:2], "refusal": None}),
        delta(content="c", logprobs={"content": tokens[2:]}),
    )
    assert reply["choices"][0]["logprobs"] == {"content": tokens, "refusal": None}


def test_fields_that_are_not_ours_survive() -> None:
    """Conformance cases 11, 13 and 15: refusals, fingerprints, and what vendors add."""
    reply = whole(
        delta(refusal="I ", reasoning_content="Hm", function_call={"name": "f", "arguments": "{"}),
        delta(refusal="can't", reasoning_content="m.", function_call={"arguments": "}"}, x=[1]),
        delta(x=[2], reasoning_content=None),
    )
    message = reply["choices"][0]["message"]
    assert (message["refusal"], message["reasoning_content"], message["x"]) == ("I can't", "Hmm.", [1, 2])
    assert message["function_call"] == {"name": "f", "arguments": "{}"}
    assert (reply["id"], reply["system_fingerprint"]) == ("up", "fp")


@pytest.mark.parametrize("own", [{}, {"usage": {"prompt_tokens": 9}}])
@pytest.mark.parametrize("report", [None, REPORT])
def test_a_stream_ends_with_what_was_asked_for(report: Report | None, own: dict[str, Any]) -> None:
    """Conformance cases 4 and 5: the usage comes once, only when asked, with `choices: []`."""
    last = Chunk("", "stop", Usage(3, 4), raw(json.loads(delta(finish="stop")) | own), report=report)
    (finish,) = [json.loads(e) for e in stream_end(last, asked(), "auto")]
    asking = asked(stream_options={"include_usage": True})
    first, tail = [json.loads(e) for e in stream_end(last, asking, "auto")]
    assert first == json.loads(delta(finish="stop"))
    assert tail["choices"] == []
    assert tail["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert "usage" not in finish
    assert {k: v for k, v in finish.items() if k != "manyminds"} == first
    assert ("manyminds" in finish, "manyminds" in tail) == (bool(report), bool(report))
    if report:
        assert finish["manyminds"] == tail["manyminds"]
        assert finish["manyminds"]["panel"][0]["source"] == "alice"


def test_a_finish_is_relayed_untouched_where_nothing_is_added() -> None:
    odd = b'{ "choices": [ {"index":0, "finish_reason":"stop", "delta":{} } ] }'
    assert stream_end(Chunk("", "stop", Usage(), odd), asked(), "auto") == [odd]


def test_a_completion_has_the_report() -> None:
    reply = json.loads(completion([Chunk("a", "stop", Usage(1, 1), report=REPORT)], asked(), "auto"))
    assert reply["manyminds"]["policy"] == "auto"


@pytest.mark.parametrize("odd", [b"1" + b"0" * 5000, b"1e999"])
def test_what_cannot_be_written_again_is_garbage(odd: bytes) -> None:
    chunk = parse_chunk(b'{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}],"x":' + odd + b"}")
    with pytest.raises(GarbageError, match="one answer"):
        completion([chunk], asked(), "auto")


def test_errors_have_the_shape_that_clients_know() -> None:
    body = json.loads(error_body(SlowError("a sent nothing within 5 s.")))
    assert body == {
        "error": {
            "message": "a sent nothing within 5 s.",
            "type": "timeout_error",
            "param": None,
            "code": "expert_slow",
        }
    }
