"""Cases 1 to 6 and 11 to 17: chat completions, whole and streamed."""

import base64
import json
from typing import Any

import openai
import pytest

from tests.conformance.edge import Mode, data, post, text
from tests.conformance.upstream import USAGE, Upstream, chunk, says, speaks
from tests.e2e.node import Served
from tests.experts.upstream import plain, sse

PIECES = ("Cats", " purr", " because", " \N{PURSE}é", "\n\n", '"so"', " they", " can.")
WHOLE = "".join(PIECES)
HEAD = {"id", "object", "created", "model", "service_tier", "system_fingerprint"}


def of_one_model(events: list[Any]) -> dict[str, Any]:
    """The fields that all events of one stream share."""
    heads = [{key: event.get(key) for key in HEAD} for event in events if event != "[DONE]"]
    assert all(found == heads[0] for found in heads), "the events are not of one stream"
    return heads[0]


# --- 1 to 6 ------------------------------------------------------------------------------------------------


def test_01_whole_reply_has_every_field(node: Served, upstream: Upstream, mode: Mode) -> None:
    upstream.play(says(*PIECES))
    reply = post(node, mode.body()).json
    assert {*HEAD, "choices", "usage"} <= reply.keys()
    assert (reply["id"], reply["object"], reply["created"]) == (
        "chatcmpl-a",
        "chat.completion",
        1_700_000_097,
    )
    (choice,) = reply["choices"]
    assert (choice["index"], choice["finish_reason"]) == (0, "stop")
    assert {key: value for key, value in choice.items() if value is None} == {"logprobs": None}
    message = choice["message"]
    assert (message["role"], message["content"], message["refusal"]) == ("assistant", WHOLE, None)
    assert {key: reply["usage"][key] for key in USAGE} == USAGE


def test_01_fields_that_an_upstream_leaves_out_are_there(
    node: Served, upstream: Upstream, mode: Mode
) -> None:
    def sparing(body: dict[str, Any]) -> list[bytes]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        if not body["stream"]:
            choice["message"] = {"role": "assistant", "content": "Hi"}
            return [plain(json.dumps({"choices": [choice]}).encode())]
        return sse(
            json.dumps({"choices": [choice | {"delta": {"role": "assistant", "content": "Hi"}}]}).encode()
        )

    upstream.play(sparing)
    reply = post(node, mode.body()).json
    assert {"id", "object", "created", "model", "choices", "usage"} <= reply.keys()
    (choice,) = reply["choices"]
    assert choice["logprobs"] is None
    assert choice["message"]["refusal"] is None


def test_02_deltas_make_the_whole_text(client: openai.OpenAI, upstream: Upstream, live: Mode) -> None:
    upstream.play(says(*PIECES))
    whole = client.chat.completions.create(**live.asking()).choices[0].message.content
    chunks = list(client.chat.completions.create(**live.asking(), stream=True))
    streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert streamed == whole == WHOLE


def test_02_official_helper_gathers_the_whole_message(
    client: openai.OpenAI, upstream: Upstream, live: Mode
) -> None:
    upstream.play(says(*PIECES))
    with client.chat.completions.stream(**live.asking()) as stream:
        events = list(stream)
        gathered = stream.get_final_completion()
    assert "".join(event.delta for event in events if event.type == "content.delta") == WHOLE
    assert [event.content for event in events if event.type == "content.done"] == [WHOLE]
    assert gathered.choices[0].message.content == WHOLE
    assert gathered.choices[0].message.role == "assistant"


def test_03_role_is_in_the_first_delta_only(node: Served, upstream: Upstream, live: Mode) -> None:
    upstream.play(says(*PIECES))
    *events, done = data(post(node, live.body(stream=True)).body)
    assert done == "[DONE]"
    roles = [choice["delta"].get("role") for event in events for choice in event["choices"]]
    assert roles == ["assistant"] + [None] * (len(roles) - 1)
    of_one_model(events)


def test_03_a_role_that_an_upstream_repeats_is_said_once(
    client: openai.OpenAI, upstream: Upstream, live: Mode
) -> None:
    repeated = [{"role": "assistant", "content": piece} for piece in PIECES]
    upstream.play(speaks(repeated, {"content": WHOLE}))
    with client.chat.completions.stream(**live.asking()) as stream:
        message = stream.get_final_completion().choices[0].message
    assert (message.role, message.content) == ("assistant", WHOLE)


def test_03_what_an_upstream_leaves_out_of_its_events_is_there(
    client: openai.OpenAI, node: Served, upstream: Upstream, live: Mode
) -> None:
    """Without `object` and `index` OpenAI's helper raises; without a role it makes a message of nobody."""

    def sparing(body: dict[str, Any]) -> list[bytes]:
        said = [{"delta": {"content": piece}} for piece in PIECES]
        finish: dict[str, Any] = {"delta": {}, "finish_reason": "stop"}
        return sse(*(json.dumps({"choices": [choice]}).encode() for choice in (*said, finish)))

    upstream.play(sparing)
    with client.chat.completions.stream(**live.asking()) as stream:
        message = stream.get_final_completion().choices[0].message
    assert (message.role, message.content) == ("assistant", WHOLE)
    *events, _ = data(post(node, live.body(stream=True)).body)
    roles = [choice["delta"].get("role") for event in events for choice in event["choices"]]
    assert roles == ["assistant"] + [None] * (len(roles) - 1)
    assert len({(event["id"], event["created"], event["model"], event["object"]) for event in events}) == 1


def test_04_usage_chunk_only_when_asked(node: Served, upstream: Upstream, live: Mode) -> None:
    upstream.play(says(*PIECES))
    for options in ({}, {"stream_options": None}, {"stream_options": {"include_usage": False}}):
        *events, _ = data(post(node, live.body(stream=True, **options)).body)
        assert all(event["choices"] for event in events)
        assert not any(event.get("usage") for event in events)
        assert events[-1]["choices"][0]["finish_reason"] == "stop"
    asked = live.body(stream=True, stream_options={"include_usage": True})
    *events, last, _ = data(post(node, asked).body)
    assert last["choices"] == []
    assert {key: last["usage"][key] for key in USAGE} == USAGE
    assert not any(event.get("usage") for event in events)
    assert [event["choices"][0]["finish_reason"] for event in events][-1] == "stop"
    assert text([*events, last]) == WHOLE


def test_04_usage_chunk_is_of_the_same_stream(node: Served, upstream: Upstream, live: Mode) -> None:
    upstream.play(says(*PIECES))
    *events, _ = data(post(node, live.body(stream=True, stream_options={"include_usage": True})).body)
    assert of_one_model(events)["id"]


def test_05_usage_is_asked_of_upstream_in_any_case(node: Served, upstream: Upstream, live: Mode) -> None:
    upstream.play(says(*PIECES))
    *events, _ = data(post(node, live.body(stream=True)).body)
    assert {str(asked.body["stream_options"]) for asked in upstream.asked} == {"{'include_usage': True}"}
    assert events[-1]["manyminds"]["panel"][0]["status"] == "ok"
    assert not any(event.get("usage") for event in events)


def test_05_usage_in_every_event_is_not_let_through(node: Served, upstream: Upstream, live: Mode) -> None:
    upstream.play(says(*PIECES, usage=USAGE))
    *events, _ = data(post(node, live.body(stream=True)).body)
    assert text(events) == WHOLE
    assert not any(event.get("usage") for event in events)
    *events, last, _ = data(post(node, live.body(stream=True, stream_options={"include_usage": True})).body)
    assert not any(event.get("usage") for event in events)
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], USAGE["total_tokens"])


def test_06_several_choices_keep_their_indices(
    client: openai.OpenAI, node: Served, upstream: Upstream, mode: Mode
) -> None:
    def both(body: dict[str, Any]) -> list[bytes]:
        if not body["stream"]:
            message = {"role": "assistant", "refusal": None}
            choices = [
                {
                    "index": i,
                    "message": message | {"content": said},
                    "finish_reason": "stop",
                    "logprobs": None,
                }
                for i, said in enumerate(("left", "right"))
            ]
            head = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
            return [plain(json.dumps(head | {"choices": choices, "usage": USAGE}).encode())]
        said = [("le", 0), ("ri", 1), ("ft", 0), ("ght", 1)]
        opened = [chunk("a", {"role": "assistant", "content": ""}, index=i) for i in (0, 1)]
        deltas = [chunk("a", {"content": piece}, index=i) for piece, i in said]
        return sse(*opened, *deltas, chunk("a", {}, "stop", index=1), chunk("a", {}, "length", index=0))

    upstream.play(both)
    reply = client.chat.completions.create(**mode.asking(n=2))
    assert [(c.index, c.message.content) for c in reply.choices] == [(0, "left"), (1, "right")]
    *events, _ = data(post(node, mode.body(n=2, stream=True)).body)
    assert [text(events, index) for index in (0, 1)] == ["left", "right"]
    ends = [(c["index"], c["finish_reason"]) for e in events for c in e["choices"] if c["finish_reason"]]
    assert sorted(ends) == [(0, "length"), (1, "stop")]
    assert {asked.body["n"] for asked in upstream.asked} == {2}


# --- 11 to 17 ----------------------------------------------------------------------------------------------


def test_11_refusal(client: openai.OpenAI, upstream: Upstream, live: Mode) -> None:
    said = "I cannot help with that."
    upstream.play(speaks([{"refusal": said[:8]}, {"refusal": said[8:]}], {"refusal": said}))
    message = client.chat.completions.create(**live.asking()).choices[0].message
    assert (message.refusal, message.content or None) == (said, None)
    with client.chat.completions.stream(**live.asking()) as stream:
        kinds = [event.type for event in stream]
        gathered = stream.get_final_completion().choices[0].message
    assert (gathered.refusal, gathered.content or None) == (said, None)
    assert kinds.count("refusal.delta") == 2


def test_11_a_refusal_has_no_content(client: openai.OpenAI, upstream: Upstream, mode: Mode) -> None:
    upstream.play(speaks([{"refusal": "No."}], {"refusal": "No."}))
    message = client.chat.completions.create(**mode.asking()).choices[0].message
    assert (message.refusal, message.content) == ("No.", None)


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_11_finish_reason(client: openai.OpenAI, upstream: Upstream, live: Mode, finish: str) -> None:
    upstream.play(says("Cats purr because", finish=finish))
    reply = client.chat.completions.create(**live.asking())
    assert reply.choices[0].finish_reason == finish
    chunks = list(client.chat.completions.create(**live.asking(), stream=True))
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == [
        finish
    ]


def tokens(*pieces: str) -> list[dict[str, Any]]:
    def token(piece: str) -> dict[str, Any]:
        return {"token": piece, "logprob": -0.1, "bytes": list(piece.encode())}

    return [{"content": [token(piece) | {"top_logprobs": [token(piece), token("x")]}]} for piece in pieces]


def test_12_logprobs(client: openai.OpenAI, upstream: Upstream, live: Mode) -> None:
    upstream.play(says(*PIECES, logprobs=tokens(*PIECES)))
    asking = live.asking(logprobs=True, top_logprobs=2)
    choice = client.chat.completions.create(**asking).choices[0]
    assert choice.logprobs is not None
    assert [token.token for token in choice.logprobs.content or ()] == list(PIECES)
    assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content or ())
    streamed: list[Any] = []
    for event in client.chat.completions.create(**asking, stream=True):
        for part in event.choices:
            streamed += (part.logprobs and part.logprobs.content) or []
    assert [token.token for token in streamed] == list(PIECES)
    assert {(asked.body["logprobs"], asked.body["top_logprobs"]) for asked in upstream.asked} == {(True, 2)}


def test_13_seed_and_fingerprint(client: openai.OpenAI, upstream: Upstream, live: Mode) -> None:
    upstream.play(says("Purr."))
    reply = client.chat.completions.create(**live.asking(seed=42))
    assert reply.system_fingerprint == f"fp_{reply.id[-1]}"
    for event in client.chat.completions.create(**live.asking(seed=42), stream=True):
        assert event.system_fingerprint == f"fp_{event.id[-1]}"
    assert {asked.body["seed"] for asked in upstream.asked} == {42}


def test_14_an_image_of_five_megabytes_arrives(client: openai.OpenAI, upstream: Upstream, mode: Mode) -> None:
    url = "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 15_000).decode()
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": url, "detail": "high"}},
    ]
    assert len(url) > 5_000_000
    upstream.play(says("A cat."), b=says("Two dogs at sea."), c=says("Nothing but a red lorry."))
    reply = client.chat.completions.create(**mode.asking(parts))
    assert reply.choices[0].message.content == "A cat."
    assert upstream.models == sorted(mode.asks)
    assert all(asked.body["messages"][0]["content"] == parts for asked in upstream.asked)


def test_15_unknown_fields_are_kept_both_ways(node: Served, upstream: Upstream, live: Mode) -> None:
    asked = {"reasoning_effort": "low", "top_k": 7, "vendor": {"ünï": [None, 1e-7, 12345678901234567890]}}
    said: dict[str, Any] = {"citations": ["https://example.org"], "vendor": {"deep": [1.50, None]}}
    deltas = [{"reasoning_content": "Well, "}, {"reasoning_content": "now."}, {"content": "Purr."}]
    upstream.play(speaks(deltas, {"reasoning_content": "Well, now.", "content": "Purr."}, **said))
    reply = post(node, live.body(**asked)).json
    assert {key: reply[key] for key in said} == said
    assert reply["choices"][0]["message"]["reasoning_content"] == "Well, now."
    *events, _ = data(post(node, live.body(**asked, stream=True)).body)
    assert all({key: event[key] for key in said} == said for event in events)
    thought = [c["delta"].get("reasoning_content") for event in events for c in event["choices"]]
    assert "".join(filter(None, thought)) == "Well, now."
    assert all({key: seen.body[key] for key in asked} == asked for seen in upstream.asked)
    assert not any("manyminds" in seen.body for seen in upstream.asked)


def test_15_unknown_fields_reach_the_fuser(node: Served, upstream: Upstream) -> None:
    upstream.play(says("From {model}."))
    body = {
        "model": "auto",
        "messages": [{"role": "user", "content": "Why?"}],
        "manyminds": {"strategy": "fuse"},
    }
    reply = post(node, body | {"reasoning_effort": "low", "max_completion_tokens": 99}).json
    assert [entry["method"] for entry in reply["manyminds"]["panel"]].count("fuse") == 1
    assert {asked.body.get("reasoning_effort") for asked in upstream.asked} == {"low"}
    assert {asked.body.get("max_completion_tokens") for asked in upstream.asked} == {99}


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_16_a_limit_of_tokens_keeps_its_name(node: Served, upstream: Upstream, live: Mode, name: str) -> None:
    upstream.play(says("Purr."))
    other = {"max_tokens", "max_completion_tokens"} - {name}
    for more in ({}, {"stream": True}):
        assert post(node, live.body(**{name: 64}, **more)).status == 200
    assert {asked.body[name] for asked in upstream.asked} == {64}
    assert not any(other & asked.body.keys() for asked in upstream.asked)


BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9},
    "/v1/responses": {"input": "Hi"},
}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("names", [{"model": "a", "models": ["b", "a"]}, {"models": ["a", "b"]}])
def test_17_the_first_of_ordered_models_is_asked(
    node: Served, upstream: Upstream, path: str, names: dict[str, Any]
) -> None:
    """Upstream hears of nobody else: a server that knows `models` would ask others in our place."""
    upstream.play(says("Purr."))
    for more in ({}, {"stream": True}):
        assert post(node, BODIES[path] | names | more, path).status == 200
    assert upstream.models == ["a", "a"]
    assert not any("models" in asked.body for asked in upstream.asked)


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("models", ["a", ["a", 5], [f"m{i}" for i in range(9)]])
def test_17_what_is_no_list_of_models_is_refused(node: Served, path: str, models: Any) -> None:
    got = post(node, BODIES[path] | {"models": models}, path)
    assert got.status == 400
    assert "`models" in got.error["message"]
