import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from manyminds.errors import UnavailableError
from manyminds.experts.scripted import Script, Scripted
from manyminds.ratings import Rated, Rating, Ratings, Section
from manyminds.router.policy import POLICIES
from manyminds.types import Card, Chunk, Expert, Query
from manyminds.web.app import App, Edge
from tests.clock import run
from tests.network import Records, network, scripted
from tests.web.client import Reply, call

CHAT = "/v1/chat/completions"
DOWN = UnavailableError("b is down.")


def app(
    *experts: Expert, ready: bool = True, records: Records | None = None, max_body_bytes: int = 10_000_000
) -> Any:
    gateway = network(*experts, records=records)
    edge = Edge(gateway, POLICIES, lambda: [e.card for e in experts], lambda: ready, max_body_bytes)
    return App(edge)


def post(application: Any, fields: Any, **more: Any) -> Reply:
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return run(call(application, "POST", CHAT, body, **more))


def request(text: str = "What is 17 + 26?", **more: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": text}]} | more


def events(reply: Reply) -> list[Any]:
    lines = [line for line in reply.body.decode().split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    return [line[6:] if line == "data: [DONE]" else json.loads(line[6:]) for line in lines]


def test_plain_reply_has_every_field() -> None:
    reply = post(app(scripted("a", Script(text="It is 43."))), request())
    body = json.loads(reply.body)
    assert reply.status == 200
    assert set(body) == {"id", "object", "created", "model", "choices", "usage", "manyminds"}
    assert body["object"] == "chat.completion"
    (choice,) = body["choices"]
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "content": "It is 43.", "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert body["manyminds"]["request_id"] == reply.headers["x-request-id"]


def test_stream_says_the_same_as_the_plain_reply() -> None:
    application = app(scripted("a", Script(text="It is 43.")))
    found = events(post(application, request(stream=True)))
    assert found[-1] == "[DONE]"
    chunks = found[:-1]
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    deltas = [c["choices"][0]["delta"] for c in chunks]
    assert "".join(d.get("content") or "" for d in deltas) == "It is 43."
    assert [d.get("role") for d in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
    assert [c["choices"][0]["finish_reason"] for c in chunks][-1] == "stop"
    assert "usage" not in chunks[-1]
    assert chunks[-1]["manyminds"]["strategy"] == "vote"


def test_usage_comes_only_when_asked_and_last() -> None:
    application = app(scripted("a", Script(text="It is 43.")))
    found = events(post(application, request(stream=True, stream_options={"include_usage": True})))
    assert found[-2]["choices"] == []
    assert found[-2]["usage"]["total_tokens"] > 0
    assert "manyminds" in found[-2]
    assert "manyminds" not in found[-3]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        (b"{", 400, None),
        (b"[]", 400, None),
        ({"messages": [{"role": "user", "content": "Hi"}]}, 400, "model"),
        (request(model="nobody"), 404, "model"),
        (request(model=7), 400, "model"),
        ({"model": "auto", "messages": []}, 400, "messages"),
        ({"model": "auto", "messages": "Hi"}, 400, "messages"),
        ({"model": "auto", "messages": [{"role": "user"}]}, 400, "messages[0].content"),
        ({"model": "auto", "messages": [{"role": "cat", "content": "Hi"}]}, 400, "messages[0].role"),
        (request(max_tokens="many"), 400, "max_tokens"),
        (request(temperature=9), 400, "temperature"),
        (request(manyminds={"deadline_s": -1}), 400, "manyminds.deadline_s"),
        (request(manyminds={"weights": {"a": float("nan")}}), 400, "manyminds.weights.a"),
        (request(manyminds={"weights": {"a": -1}}), 400, "manyminds.weights.a"),
        (request(manyminds={"policy": "best"}), 400, "manyminds.policy"),
        (request(manyminds={"polcy": "max"}), 400, "manyminds.polcy"),
        (request(manyminds={"strategy": "guess"}), 400, "manyminds.strategy"),
        (request(manyminds={"include": ["nobody"]}), 422, "manyminds.include"),
        (request(tools=[{"type": "function", "function": {"name": "f"}}]), 422, "tools"),
        (request("word " * 1_000_000), 422, "messages"),
    ],
)
def test_bad_input_names_its_field(fields: Any, status: int, param: str | None) -> None:
    reply = post(app(scripted("a", Script(text="43"))), fields)
    error = json.loads(reply.body)["error"]
    assert (reply.status, error["param"]) == (status, param)
    assert set(error) == {"message", "type", "param", "code"}
    if param:
        assert param.split(".")[-1].split("[")[0] in error["message"] or status == 422


def test_a_body_over_the_limit_is_refused_with_or_without_a_length() -> None:
    application = app(scripted("a", Script()), max_body_bytes=1000)
    assert post(application, request("x" * 2000)).status == 413
    assert post(application, b"{}", headers={"content-length": "99999"}).status == 413


def test_all_failing_is_503_in_openai_shape() -> None:
    application = app(scripted("a", Script(fail_before=UnavailableError("a is down."))))
    for stream in (False, True):
        reply = post(application, request(stream=stream))
        assert reply.status == 503
        assert "a is down" in json.loads(reply.body)["error"]["message"]


def test_a_cut_after_the_first_byte_is_an_error_event_and_no_stop() -> None:
    application = app(scripted("a", Script(text="one two three four", cut_after=2)))
    found = events(post(application, request(model="a", stream=True)))
    assert found[-1]["error"]["code"] == "expert_cut"
    assert "[DONE]" not in found
    assert all(c["choices"][0]["finish_reason"] is None for c in found[:-1])


def test_an_unexpected_failure_tells_no_secret() -> None:
    class Broken(Records):
        def record(self, *_: object) -> None:
            raise RuntimeError("s3cret")

    reply = post(app(scripted("a", Script(text="43")), records=Broken()), request())
    assert reply.status == 500
    assert b"s3cret" not in reply.body


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_cancels_the_calls(stream: bool) -> None:
    expert = scripted("a", Script(text="a " * 500, per_chunk_s=1.0))
    post(app(expert), request("Why?", stream=stream), gone_after_s=3.0)
    assert expert.cancelled == 1


ENDING = "This node is ending: ask again soon."


def test_a_node_that_ends_says_so_before_the_first_byte() -> None:
    for stream in (False, True):
        expert = scripted("a", Script(text="a b", first_token_s=50.0))
        reply = post(app(expert), request("Why?", stream=stream), ended_after_s=3.0)
        assert (reply.status, json.loads(reply.body)["error"]["message"]) == (503, ENDING)
        assert expert.cancelled == 1


def test_a_node_that_ends_says_so_in_the_stream() -> None:
    expert = scripted("a", Script(text="a " * 500, per_chunk_s=1.0))
    found = events(post(app(expert), request(model="a", stream=True), ended_after_s=3.5))
    assert len(found) > 1
    assert found[-1]["error"]["message"] == ENDING
    assert all("error" not in chunk for chunk in found[:-1])
    assert expert.cancelled == 1


def test_a_node_that_ends_says_so_to_who_still_sends() -> None:
    assert post(app(scripted("a", Script())), request(), pause_s=30.0, ended_after_s=3.0).status == 503


def test_a_sender_that_pauses_too_long_is_cut() -> None:
    application = app(scripted("a", Script(text="43")))
    assert post(application, request(), pause_s=59.0).status == 200
    reply = post(application, request(), pause_s=61.0)
    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (408, "request_timeout")
    assert reply.headers["connection"] == "close"
    assert "x-should-retry" not in reply.headers


class Failing(Scripted):
    """Raises what nobody expects, where it is cancelled."""

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        try:
            await asyncio.sleep(50.0)
            yield Chunk("never")
        finally:
            raise RuntimeError("s3cret")

    async def complete(self, query: Query) -> Sequence[Chunk]:
        return [chunk async for chunk in self.stream(query)]


def test_a_failure_after_the_client_left_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    expert = Failing(Card("a", "scripted"), Script())
    edge = Edge(expert, POLICIES, lambda: [expert.card], lambda: True, 1_000_000)
    reply = post(App(edge), request(), gone_after_s=3.0)
    assert b"s3cret" not in reply.body
    assert "RuntimeError: s3cret" in caplog.text


def test_half_a_character_in_an_error_does_not_keep_it_from_being_told() -> None:
    failing = scripted("a", Script(fail_before=UnavailableError("\ud800 is down.")))
    reply = post(app(failing), request(model="a"))
    assert (reply.status, json.loads(reply.body)["error"]["message"]) == (503, "? is down.")


def test_what_would_fail_again_is_not_to_be_sent_again() -> None:
    application = app(scripted("a", Script(refuse=True)), scripted("b", Script(fail_before=DOWN)))
    asked = {name: post(application, request(model=name)) for name in ("a", "b", "nobody")}
    found = {name: reply.headers.get("x-should-retry") for name, reply in asked.items()}
    assert found == {"a": "false", "b": None, "nobody": "false"}
    lost = run(call(application, "GET", "/nothing"))
    assert lost.headers["x-should-retry"] == "false"


def test_no_path_is_redirected() -> None:
    reply = run(call(app(scripted("a", Script())), "POST", CHAT + "/", b"{}", headers={"host": "localhost"}))
    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (404, "not_found")


def test_models_and_health() -> None:
    application = app(scripted("a", Script()), ready=False)

    def get(path: str, method: str = "GET") -> Reply:
        return run(call(application, method, path))

    listed = json.loads(get("/v1/models").body)["data"]
    assert [m["id"] for m in listed] == [*POLICIES, "a"]
    assert json.loads(get("/v1/models/a").body)["owned_by"] == "a"
    assert get("/v1/models/b").status == 404
    assert get("/health/live").status == 200
    assert get("/health/ready").status == 503
    assert json.loads(get("/nothing").body)["error"]["code"] == "not_found"
    wrong = get(CHAT)
    assert (wrong.status, json.loads(wrong.body)["error"]["code"]) == (405, "method_not_allowed")


def test_experts_are_shown_with_what_was_measured() -> None:
    async def rated() -> list[Rated]:
        ratings = Ratings(week=Rating(calls=3, uptime=1.0, sections=(Section("law", 0.5, 2),)))
        return [Rated("a", "openai", offers=frozenset({"tools", "n"}), ratings=ratings, drifted_utc="then")]

    edge = Edge(network(), POLICIES, list, lambda: True, 1_000, rated=rated)
    reply = run(call(App(edge), "GET", "/v1/experts"))
    (shown,) = json.loads(reply.body)["data"]
    assert (shown["name"], shown["offers"], shown["drifted_utc"]) == ("a", ["n", "tools"], "then")
    assert shown["ratings"]["week"]["sections"] == [{"section": "law", "accuracy": 0.5, "graded": 2}]
    assert shown["ratings"]["hour"]["calls"] == 0
    assert shown["ratings"]["hour"]["uptime"] is None
