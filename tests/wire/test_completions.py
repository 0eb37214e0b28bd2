import json
from collections.abc import Sequence
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import Completion

from manyminds.errors import CutError, GarbageError, InvalidRequestError, ManymindsError
from manyminds.types import Chunk, Query, Report, Usage
from manyminds.wire.completions import COMPLETIONS
from manyminds.wire.events import parse_chunk
from manyminds.wire.requests import request_body

REPORT = Report("r1", "auto", "vote", (), 1.0, 0.7, (), 0.0003, -0.1)
DONE = b"data: [DONE]\n\n"

texts = st.text(max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(texts, v, max_size=3), max_leaves=8
)


def raw(fields: Any) -> bytes:
    return json.dumps(fields).encode()


def asked(**fields: Any) -> Query:
    return COMPLETIONS.parse(raw({"model": "auto", "prompt": "Once"} | fields), "r1")


def piece(text: str = "", finish: str | None = None, index: int = 0, **more: Any) -> Chunk:
    choice = {"index": index, "delta": {"content": text}, "finish_reason": finish} | more
    chunk = parse_chunk(raw({"id": "up", "model": "m1", "system_fingerprint": "fp", "choices": [choice]}))
    return Chunk(chunk.text, finish, Usage(3, 4) if finish else None, chunk.raw)


def last(text: str = "", finish: str = "stop") -> Chunk:
    return Chunk(text, finish, Usage(3, 4), report=REPORT)


def streamed(chunks: Sequence[Chunk], query: Query | None = None) -> list[dict[str, Any]]:
    reply = COMPLETIONS.reply(query or asked())
    events = b"".join(reply.events(chunk) for chunk in chunks)
    assert events.endswith(DONE)
    return [
        json.loads(e.removeprefix("data: ")) for e in events.removesuffix(DONE).decode().split("\n\n")[:-1]
    ]


def whole(chunks: Sequence[Chunk], query: Query | None = None) -> Any:
    body = COMPLETIONS.reply(query or asked()).whole(chunks)
    Completion.model_validate_json(body, strict=True)
    return json.loads(body)


# --- requests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["Once", ["Once"]])
def test_a_prompt_is_one_message(prompt: Any) -> None:
    query = asked(prompt=prompt, echo=False, best_of=1, suffix=None, logprobs=None, tools=[])
    assert json.loads(query.raw) == {"model": "auto", "messages": [{"role": "user", "content": "Once"}]}
    assert (query.question, query.sampling.max_tokens, query.request_id) == ("Once", None, "r1")


def test_settings_go_on() -> None:
    fields = {
        "max_tokens": 5,
        "n": 2,
        "stop": ["."],
        "seed": 7,
        "temperature": 0.3,
        "x_vendor": {"a": 10**30},
    }
    limits = {"stream": True, "stream_options": {"include_usage": True}, "manyminds": {"panel": 3}}
    query = asked(**fields, **limits)
    body = json.loads(query.raw)
    assert {name: body[name] for name in fields} == fields
    assert (query.sampling.n, query.include_usage, query.stream, query.limits.panel) == (2, True, True, 3)


@pytest.mark.parametrize("n", [0, 5])
def test_log_probabilities_are_asked_for(n: int) -> None:
    query = asked(logprobs=n)
    assert query.demands == {"logprobs"}
    body = json.loads(query.raw)
    assert (body["logprobs"], body["top_logprobs"]) == (True, n)


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": None}, "prompt", "missing"),
    ({"prompt": []}, "prompt", "missing"),
    ({"prompt": [1, 2]}, "prompt", "must be text"),
    ({"prompt": [[1, 2], [3]]}, "prompt", "must be text"),
    ({"prompt": ["a", "b"]}, "prompt", "2 prompts"),
    ({"prompt": [{}]}, "prompt", "must be text"),
    ({"prompt": 5}, "prompt", "got `int`"),
    ({"model": None}, "model", "missing"),
    ({"echo": True, "logprobs": 1}, "logprobs", "echoed prompt"),
    ({"echo": "yes"}, "echo", "got `str`"),
    ({"suffix": 5}, "suffix", "got `int`"),
    ({"best_of": 2}, "best_of", "not supported"),
    ({"tools": [{}]}, "tools", "chat/completions"),
    ({"logprobs": 21}, "logprobs", "20"),
    ({"logprobs": True}, "logprobs", "got `bool`"),
    ({"max_tokens": -1}, "max_tokens", ">= 0"),
    ({"stream_options": 5}, "stream_options", "got `int`"),
    ({"x": float("inf")}, "x", "finite"),
]


@pytest.mark.parametrize(("fields", "param", "why"), WRONG)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str, why: str) -> None:
    with pytest.raises(InvalidRequestError, match=why) as caught:
        asked(**fields)
    assert caught.value.param == param
    status, body = COMPLETIONS.refuse(caught.value, "r1")
    assert (status, json.loads(body)["error"]["param"]) == (400, param)


@given(texts, texts.filter(bool))
def test_a_gap_is_put_into_words(before: str, behind: str) -> None:
    """Experts continue a conversation: they are told what to fill."""
    system, user = asked(prompt=before, suffix=behind).messages
    assert system.role == "system"
    gap = user.text.removeprefix(before).removesuffix(behind)
    assert user.text == before + gap + behind
    assert gap
    assert gap in system.text
    assert len(asked(prompt=before, suffix="").messages) == 1


def test_a_missing_model_is_named() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        COMPLETIONS.parse(b'{"prompt":"a"}', "r1")
    assert caught.value.param == "model"


known = st.sampled_from(sorted({param for _, param, _ in WRONG} | {"stream", "n", "stop", "manyminds"}))


@settings(max_examples=300)
@given(
    st.binary(max_size=40)
    | values.map(raw)
    | st.dictionaries(known, values, max_size=3).map(lambda found: raw({"model": "m", "prompt": "a"} | found))
)
def test_any_request_is_read_or_refused(body: bytes) -> None:
    try:
        query = COMPLETIONS.parse(body, "r1")
    except InvalidRequestError as error:
        refused = error
    else:
        assert json.loads(request_body(query, "m"))["model"] == "m"
        return
    assert json.loads(COMPLETIONS.refuse(refused, "r1")[1])["error"]["param"] == refused.param
    assert not (refused.param or "").startswith("messages")


# --- replies ---------------------------------------------------------------------------------------


def test_the_fields_of_a_completion() -> None:
    reply = whole([Chunk("upon "), last("a time")])
    assert reply.pop("created") > 0
    assert reply.pop("manyminds")["policy"] == "auto"
    assert reply == {
        "id": "cmpl-r1",
        "object": "text_completion",
        "model": "auto",
        "choices": [{"index": 0, "text": "upon a time", "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }


@given(st.lists(st.tuples(texts, st.booleans()), max_size=6), st.booleans())
def test_a_completion_is_its_stream_in_one_piece(parts: list[tuple[str, bool]], usage: bool) -> None:
    chunks = [piece(text) if relayed else Chunk(text) for text, relayed in parts]
    events = streamed([*chunks, last()], asked(stream_options={"include_usage": usage}))
    assert all(choice["text"] is not None for event in events for choice in event["choices"])
    assert {(event["id"], event["object"]) for event in events} == {("cmpl-r1", "text_completion")}
    told = "".join(choice["text"] for event in events for choice in event["choices"])
    (choice,) = whole([*chunks, last()])["choices"]
    assert choice["text"] == told == "".join(text for text, _ in parts)
    assert ("usage" in events[-1], events[-1]["choices"] == []) == (usage, usage)
    assert ["manyminds" in event for event in events] == [False] * (len(events) - 1) + [True]


def test_what_experts_add_goes_on() -> None:
    for event in [*streamed([piece("a"), piece("b", "length")]), whole([piece("a"), piece("b", "length")])]:
        assert (event["model"], event["system_fingerprint"]) == ("m1", "fp")


def test_choices_stay_apart() -> None:
    chunks = [piece("x", index=1), piece("a"), piece("y", "length", index=1), piece("b", "stop")]
    told = [(c["index"], c["text"], c["finish_reason"]) for c in whole(chunks, asked(n=2))["choices"]]
    assert told == [(0, "ab", "stop"), (1, "xy", "length")]
    events = streamed([*chunks[:2], piece("y", index=1), chunks[-1]])
    assert [(c["index"], c["text"]) for e in events for c in e["choices"]] == [
        (1, "x"),
        (0, "a"),
        (1, "y"),
        (0, "b"),
    ]


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=5), st.integers(0, 1))
def test_log_probabilities_have_their_legacy_shape(tokens: list[str], n: int) -> None:
    chunks = []
    for token in tokens:
        top = [{"token": token, "logprob": -0.3, "bytes": None}][:n]
        told = {"token": token, "logprob": -0.3, "bytes": None, "top_logprobs": top}
        chunks.append(piece(token, logprobs={"content": [told], "refusal": None}))
    chunks.append(last())
    (choice,) = whole(chunks)["choices"]
    offsets = [len("".join(tokens[:i])) for i in range(len(tokens))]
    assert choice["logprobs"] == {
        "tokens": tokens,
        "token_logprobs": [-0.3] * len(tokens),
        "top_logprobs": [{token: -0.3} for token in tokens] if n else None,
        "text_offset": offsets,
    }
    events = [event["choices"][0]["logprobs"] for event in streamed(chunks)]
    assert [event["text_offset"] for event in events if event] == [[offset] for offset in offsets]


def test_an_entire_completion_is_translated() -> None:
    choices = [
        {"index": i, "message": {"content": text}, "finish_reason": "stop"} for i, text in enumerate("ab")
    ]
    chat = raw({"id": "up", "object": "chat.completion", "choices": choices, "system_fingerprint": "fp"})
    reply = whole([Chunk("a", "stop", Usage(3, 4), chat, whole=True, report=REPORT)])
    assert [choice["text"] for choice in reply["choices"]] == ["a", "b"]
    assert (reply["id"], reply["object"], reply["system_fingerprint"]) == ("cmpl-r1", "text_completion", "fp")
    assert reply["usage"]["total_tokens"] == 7
    assert reply["manyminds"]["policy"] == "auto"


def test_a_refusal_is_text() -> None:
    refused = piece(delta={"refusal": "I can't."})
    assert whole([refused, last()])["choices"][0]["text"] == "I can't."


choices = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(0, 3),
        "delta": st.none() | st.dictionaries(st.sampled_from(["content", "refusal", "x"]), texts | values),
        "logprobs": st.none() | values,
        "finish_reason": st.none() | texts,
    },
)


@settings(max_examples=300)
@given(st.lists(choices, max_size=3).map(lambda found: raw({"choices": found, "x": 1})) | values.map(raw))
def test_any_event_is_told_or_garbage(event: bytes) -> None:
    try:
        events = streamed([Chunk(raw=event), last()])
    except GarbageError:
        return
    for told in events:
        assert told["object"] == "text_completion"
        assert all(isinstance(choice["text"], str) for choice in told["choices"])


@settings(max_examples=300)
@given(st.lists(choices, max_size=3).map(lambda found: raw({"choices": found, "x": 1})) | values.map(raw))
def test_any_entire_completion_is_translated_or_garbage(chat: bytes) -> None:
    try:
        body = COMPLETIONS.reply(asked()).whole([Chunk("", "stop", Usage(), chat, whole=True)])
    except GarbageError:
        return
    assert json.loads(body)["choices"]


# --- the official client ---------------------------------------------------------------------------


def client(chunks: Sequence[Chunk], error: ManymindsError | None = None) -> openai.OpenAI:
    def answer(request: httpx2.Request) -> httpx2.Response:
        query = COMPLETIONS.parse(request.content, "r1")
        reply = COMPLETIONS.reply(query)
        if not query.stream:
            headers = {"content-type": "application/json"}
            return httpx2.Response(200, content=reply.whole(chunks), headers=headers)
        body = b"".join(reply.events(chunk) for chunk in chunks) + (reply.failed(error) if error else b"")
        return httpx2.Response(200, content=body, headers={"content-type": "text/event-stream"})

    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    return openai.OpenAI(base_url="http://node/v1", api_key="k", max_retries=0, http_client=transport)


def test_the_client_gets_a_completion() -> None:
    with client([Chunk("upon "), last("a time")]) as node:
        assert node.completions.create(model="auto", prompt="Once").choices[0].text == "upon a time"


def test_the_client_streams() -> None:
    options: Any = {"include_usage": True}
    with client([piece("upon "), last("a time")]) as node:
        told = list(node.completions.create(model="auto", prompt="Once", stream=True, stream_options=options))
    assert "".join(choice.text for event in told for choice in event.choices) == "upon a time"
    assert told[-1].usage is not None
    assert told[-1].usage.total_tokens == 7


def test_a_cut_stream_fails_at_the_client() -> None:
    with client([Chunk("upon")], CutError("a's stream ended.")) as node:
        stream = node.completions.create(model="auto", prompt="Once", stream=True)
        assert next(stream).choices[0].text == "upon"
        with pytest.raises(openai.APIError, match="a's stream ended"):
            next(stream)


# --- the prompt again ------------------------------------------------------------------------------


@given(texts, st.lists(st.tuples(st.integers(0, 2), texts), max_size=6))
def test_an_echo_begins_each_choice_once(prompt: str, said: list[tuple[int, str]]) -> None:
    query = asked(prompt=prompt, echo=True)
    chunks = [piece(text, index=index, finish_reason="stop") for index, text in said]
    events = streamed([*chunks, last()], query)
    heard: dict[int, str] = {0: ""}
    for event in events:
        for choice in event["choices"]:
            heard[choice["index"]] = heard.get(choice["index"], "") + choice["text"]
    spoken = {index: "".join(text for i, text in said if i == index) for index, _ in [(0, ""), *said]}
    assert heard == {index: prompt + text for index, text in spoken.items()}
    reply = whole([*chunks, last()], query)
    assert {choice["index"]: choice["text"] for choice in reply["choices"]} == heard


def test_offsets_count_from_the_echo() -> None:
    token = {"token": "ab", "logprob": -0.5, "bytes": None, "top_logprobs": []}
    chunk = piece("ab", logprobs={"content": [token]})
    (first, *_) = streamed([chunk, last()], asked(prompt="Once", echo=True, logprobs=0))
    assert first["choices"][0]["text"] == "Onceab"
    assert first["choices"][0]["logprobs"]["text_offset"] == [4]


def test_without_an_echo_the_prompt_is_not_repeated() -> None:
    assert streamed([Chunk("a"), last()], asked(echo=False))[0]["choices"][0]["text"] == "a"
