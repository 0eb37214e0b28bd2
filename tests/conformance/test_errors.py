"""Cases 18 to 25 and 27: what is said when something is wrong."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.conformance.edge import Mode, configured, data, post, send, text
from tests.conformance.upstream import Gate, Play, Upstream, chunk, says, streams
from tests.e2e.node import Served, served, wait_until
from tests.experts.upstream import Act, plain

pytestmark = pytest.mark.usefixtures("healed")

ANSWERING = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"]
HI = [{"role": "user", "content": "Hi"}]


def failing(status: str, message: str = "so it is", headers: str = "") -> Play:
    body = json.dumps({"error": {"message": message, "type": "t", "param": None, "code": "c"}}).encode()
    return lambda _: [plain(body, status, headers=headers)]


# --- 18 and 19: the request is wrong -----------------------------------------------------------------------


@pytest.mark.parametrize("path", [*ANSWERING, "/v1/embeddings"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"hi"', b'{"model": "a", "x": "\xff"}', b"[" * 100_000])
def test_18_what_is_no_json_object_is_refused(node: Served, path: str, body: bytes) -> None:
    got = send(node, "POST", path, body, content_type="application/json")
    assert got.status == 400
    assert got.error["type"] == "invalid_request_error"
    assert got.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", {"messages": HI}, "model"),
        ("/v1/chat/completions", {"model": "a"}, "messages"),
        ("/v1/chat/completions", {"model": None, "messages": HI}, "model"),
        ("/v1/chat/completions", {"model": "a", "messages": []}, "messages"),
        ("/v1/chat/completions", {"model": "a", "messages": HI, "temperature": 3}, "temperature"),
        ("/v1/chat/completions", {"model": "a", "messages": HI, "n": 0}, "n"),
        ("/v1/chat/completions", {"model": "a", "messages": [{"role": "cat"}]}, "messages[0].role"),
        ("/v1/completions", {"prompt": "Hi"}, "model"),
        ("/v1/completions", {"model": "a"}, "prompt"),
        ("/v1/responses", {"model": "a", "input": []}, "input"),
        ("/v1/embeddings", {"input": "Hi"}, "model"),
        ("/v1/embeddings", {"model": "auto"}, "input"),
    ],
)
def test_18_the_field_that_is_wrong_is_named(
    node: Served, path: str, body: dict[str, Any], param: str
) -> None:
    got = post(node, body, path)
    assert (got.status, got.error["param"], got.error["code"]) == (400, param, "invalid_request")
    assert {"message", "type", "param", "code"} == got.error.keys()


def test_18_a_wrong_request_is_an_error_of_its_own(client: openai.OpenAI, mode: Mode) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(**mode.asking(temperature=-1))


def test_19_a_page_of_another_site_is_forbidden(node: Served, mode: Mode) -> None:
    got = post(node, mode.body(), origin="https://evil.example")
    assert (got.status, got.error["code"]) == (403, "forbidden")
    got = post(node, mode.body(), host="evil.example")
    assert (got.status, got.error["code"]) == (403, "forbidden")


def test_19_an_unknown_model_is_not_found(client: openai.OpenAI, node: Served) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "Hi"}])
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    got = post(node, {"model": "nobody", "messages": HI, "stream": True})
    assert (got.status, got.error["code"]) == (404, "model_not_found")
    assert send(node, "POST", "/v1/nowhere", b"{}").error["code"] == "not_found"
    assert send(node, "GET", "/v1/chat/completions").status == 405


@pytest.mark.parametrize("path", [*ANSWERING, "/v1/embeddings"])
def test_19_too_large_a_body_is_refused(node: Served, path: str) -> None:
    got = send(node, "POST", path, b"x" * 10_000_001)
    assert (got.status, got.error["type"].startswith(("invalid", "request_too"))) == (413, True)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"n": 2}, "n"),
    ],
)
@pytest.mark.parametrize("model", ["plain", "auto"])
def test_19_what_no_expert_offers_is_unprocessable(
    client: openai.OpenAI, model: str, more: dict[str, Any], param: str
) -> None:
    included = {"manyminds": {"include": ["plain", "down"]}} if model == "auto" else {}
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Hi"}], extra_body=included, **more
        )
    assert (caught.value.code, caught.value.param) == ("no_expert", param)


# --- 20 to 22: upstream says no ----------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_20_when_to_come_back_is_passed_on(node: Served, upstream: Upstream, stream: bool) -> None:
    upstream.play(failing("429 Too Many Requests", "slow down", "retry-after: 7\r\n"))
    got = post(node, {"model": "a", "messages": HI, "stream": stream})
    assert got.status == 503
    assert "slow down" in got.error["message"]
    assert got.headers["retry-after"] == "7"


def test_20_the_soonest_of_several_is_passed_on(node: Served, upstream: Upstream) -> None:
    busy = "429 Too Many Requests"
    waits = {m: failing(busy, headers=f"retry-after: {s}\r\n") for m, s in (("a", 50), ("b", 5), ("c", 9))}
    upstream.play(failing(busy, headers="retry-after: 90\r\n"), **waits)
    got = post(node, {"model": "auto", "messages": HI, "manyminds": {"exclude": ["down"]}})
    assert (got.status, got.error["code"]) == (503, "all_experts_failed")
    assert got.headers["retry-after"] == "5"


def test_20_one_that_is_busy_does_not_matter_to_a_panel(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.play(says("Purr."), a=failing("429 Too Many Requests", headers="retry-after: 7\r\n"))
    reply = client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "Hi"}])
    assert reply.choices[0].message.content == "Purr."
    panel = {e["expert"]: e["status"] for e in (reply.model_extra or {})["manyminds"]["panel"]}
    assert panel["a"] == "failed"


@pytest.mark.parametrize("status", [500, 502, 503, 504, 529])
def test_21_trouble_upstream_is_an_error_of_its_own(
    client: openai.OpenAI, upstream: Upstream, mode: Mode, status: int
) -> None:
    upstream.play(failing(f"{status} Oops", "out of luck"))
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError, match="out of luck") as caught:
            client.chat.completions.create(**mode.asking(stream=stream))
        assert caught.value.status_code == 503
    assert set(upstream.models) >= set(mode.asks)


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_21_what_an_expert_refuses_is_the_callers_fault(
    client: openai.OpenAI, upstream: Upstream, mode: Mode, status: int
) -> None:
    upstream.play(failing(f"{status} No", "top_k is too high"))
    extra = {"manyminds": {"exclude": ["down"]}} if mode.name == "fan_out" else {}
    with pytest.raises(openai.BadRequestError, match="top_k is too high") as caught:
        client.chat.completions.create(**mode.asking(extra_body=extra))
    assert caught.value.code == "expert_refused"


def test_21_an_expert_that_is_down(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="down", messages=[{"role": "user", "content": "Hi"}])
    assert (caught.value.status_code, caught.value.code) == (503, "expert_unavailable")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("GET", "/v1/models/auto"),
        ("GET", "/v1/models/nobody"),
        ("GET", "/v1/experts"),
        ("GET", "/health/live"),
        ("GET", "/health/ready"),
        ("GET", "/nowhere"),
        ("GET", "/v1/completions"),
        ("HEAD", "/v1/models"),
        ("OPTIONS", "/v1/models"),
        *(("POST", path) for path in [*ANSWERING, "/v1/embeddings", "/v1/messages/count_tokens"]),
    ],
)
def test_22_every_reply_has_a_request_id(node: Served, method: str, path: str) -> None:
    first, second = (send(node, method, path, b"{}" if method == "POST" else None) for _ in "12")
    assert re.fullmatch(r"[0-9a-f]{24}", first.headers["x-request-id"])
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


def test_22_the_id_is_the_reports(node: Served, upstream: Upstream, live: Mode) -> None:
    upstream.play(says("Purr."))
    got = post(node, live.body())
    assert got.headers["x-request-id"] == got.json["manyminds"]["request_id"]
    got = post(node, live.body(stream=True))
    assert got.headers["x-request-id"] == data(got.body)[-2]["manyminds"]["request_id"]


def test_22_a_wrong_key_upstream_is_not_retried_by_callers(network: Upstream, tmp_path: Path) -> None:
    """The node's owner must mend it. A node of its own, since it may well not ask again."""
    configured(tmp_path, network)
    network.play(failing("401 Unauthorized", "bad key"))
    with served(tmp_path, "--tier", "none") as node:
        alone = post(node, {"model": "b", "messages": HI})
        panel = post(node, {"model": "auto", "messages": HI, "manyminds": {"include": ["a", "c"]}})
    assert (alone.status, panel.status) == (503, 503)
    assert [got.headers.get("x-should-retry") for got in (alone, panel)] == ["false", "false"]


def test_22_what_the_node_itself_tried_again_is_not_retried_by_callers(
    node: Served, upstream: Upstream
) -> None:
    """The panel failed, and then its reserve."""
    upstream.play(failing("500 Oops"))
    got = post(node, {"model": "auto", "messages": HI})
    assert set(upstream.models) == {"a", "b", "c", "plain"}
    assert got.error["code"] == "all_experts_failed"
    assert got.headers.get("x-should-retry") == "false"


# --- 23 to 25 and 27: upstream breaks off ------------------------------------------------------------------


def cut(*pieces: str, act: Act = Act.RESET) -> Play:
    """A stream that breaks off after these pieces. It is one, also where none was asked for."""
    opened = [chunk("a", {"role": "assistant", "content": ""})] if pieces else []
    return streams(*opened, *(chunk("a", {"content": piece}) for piece in pieces), act)


ERROR = b'{"error": {"message": "the GPU is on fire", "type": "server_error", "param": null, "code": "hot"}}'
BROKEN: dict[str, Play] = {
    "reset": lambda body: [Act.RESET],
    "closed": lambda body: [Act.CLOSE],
    "reset_after_head": cut(),
    "closed_after_head": cut(act=Act.CLOSE),
    "empty": streams(done=True),
    "garbage": streams(b"{nonsense"),
    "not_utf8": streams(b'{"choices": [{"delta": {"content": "\xff"}}]}'),
    "html": lambda body: [plain(b"<html>Bad gateway</html>", kind="text/html")],
    "error_with_200": lambda body: [plain(ERROR)],
    "error_event": streams(ERROR),
    "list": lambda body: [plain(b"[]")],
    "no_choices": lambda body: [plain(b'{"choices": []}')],
}


@pytest.fixture(params=BROKEN)
def broken(request: pytest.FixtureRequest) -> Play:
    return BROKEN[request.param]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_23_27_before_the_first_word_another_expert_takes_over(
    node: Served, upstream: Upstream, broken: Play, stream: bool
) -> None:
    for strategy in ("select", "race", "fuse"):
        upstream.play(broken, b=says("All is well."))
        body = {"model": "auto", "messages": HI, "stream": stream, "manyminds": {"strategy": strategy}}
        got = post(node, body)
        assert got.status == 200
        if stream:
            *events, last, done = data(got.body)
            assert (text([*events, last]), done) == ("All is well.", "[DONE]")
        else:
            last = got.json
            assert last["choices"][0]["message"]["content"] == "All is well."
        panel = {entry["expert"]: entry["status"] for entry in last["manyminds"]["panel"]}
        assert panel["b"] == "ok"
        assert {panel["a"], panel["c"]} <= {"failed", "cancelled"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_23_where_the_whole_panel_breaks_off_the_reserve_takes_over(
    node: Served, upstream: Upstream, broken: Play, stream: bool
) -> None:
    upstream.play(broken, plain=says("I am still here."))
    got = post(node, {"model": "auto", "messages": HI, "stream": stream})
    assert got.status == 200
    said = text(data(got.body)) if stream else got.json["choices"][0]["message"]["content"]
    assert said == "I am still here."


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_23_27_an_expert_asked_by_name_has_no_stand_in(
    node: Served, upstream: Upstream, broken: Play, stream: bool
) -> None:
    upstream.play(broken)
    got = post(node, {"model": "a", "messages": HI, "stream": stream})
    assert got.status == 502
    assert got.error["code"] in ("expert_cut", "expert_garbage")
    assert got.headers["content-type"] == "application/json"


@pytest.mark.parametrize("act", [Act.RESET, Act.CLOSE])
@pytest.mark.parametrize("name", ["pass_through", "race", "fuse"])
def test_24_a_cut_after_the_first_word_is_an_error_event(
    client: openai.OpenAI, node: Served, upstream: Upstream, name: str, act: Act
) -> None:
    """Never a made-up finish."""
    body: dict[str, Any] = {
        "model": "a" if name == "pass_through" else "auto",
        "messages": HI,
        "stream": True,
    }
    body |= {} if name == "pass_through" else {"manyminds": {"strategy": name}}
    broken = cut("Cats", " purr", act=act)

    def play(asked: dict[str, Any]) -> Any:
        fused = len(asked["messages"]) > 1 or name != "fuse"
        return (
            broken(asked)
            if fused
            else says(f"A draft of {asked['model']}: {len(asked['model']) * 'mew '}.")(asked)
        )

    drafts = {"b": says("Because they are happy.")} if name == "fuse" else {}
    upstream.play(play, **drafts)
    got = post(node, body)
    *events, last = data(got.body)
    assert got.status == 200
    assert text(events) == "Cats purr"
    assert not any(c["finish_reason"] for event in events for c in event["choices"])
    assert last["error"].keys() == {"message", "type", "param", "code"}
    assert last["error"]["code"] == "expert_cut"
    with pytest.raises(openai.APIError, match=re.escape(last["error"]["message"])):
        list(client.post("/chat/completions", body=body, cast_to=object, stream=True, stream_cls=STREAM))


STREAM = openai.Stream[openai.types.chat.ChatCompletionChunk]


@pytest.mark.parametrize("act", [Act.RESET, Act.CLOSE])
def test_24_half_an_answer_is_not_released_where_there_is_a_whole_one(
    node: Served, upstream: Upstream, act: Act
) -> None:
    """The whole ones come when the node has seen the cut: else it is not waited for."""
    gate, whole = Gate(), says("All is well.")
    upstream.play(lambda body: [gate, *whole(body)], a=cut("Cats", " purr", act=act))
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(post, node, {"model": "auto", "messages": HI, "stream": True})
        assert wait_until(lambda: [asked.model for asked in upstream.asked if asked.ended] == ["a"])
        assert node.get("/health/live")  # what came before is read by then
        gate.open()
        events = data(asking.result().body)
    assert text(events) == "All is well."
    assert {e["expert"]: e["status"] for e in events[-2]["manyminds"]["panel"]}["a"] == "cut"


@pytest.mark.parametrize("mode", ["pass_through", "fan_out"], indirect=True)
def test_24_half_an_answer_is_no_whole_one(node: Served, upstream: Upstream, mode: Mode) -> None:
    upstream.play(cut("Cats", " purr"))
    got = post(node, mode.body())
    assert got.status in (502, 503)
    assert "broke off" in got.error["message"]


@pytest.mark.parametrize("name", ["pass_through", "race"])
@pytest.mark.parametrize("last", [ERROR, b'{"error": "the GPU is on fire"}', b"{garbage"])
def test_25_an_error_event_from_upstream_is_relayed(
    node: Served, upstream: Upstream, name: str, last: bytes
) -> None:
    upstream.play(streams(chunk("a", {"role": "assistant", "content": "Cats"}), last, done=True))
    more = {} if name == "pass_through" else {"manyminds": {"strategy": "race"}}
    got = post(node, {"model": "a" if not more else "auto", "messages": HI, "stream": True} | more)
    *events, error = data(got.body)
    assert text(events) == "Cats"
    assert error["error"]["code"] == "expert_garbage"
    assert "the GPU is on fire" in error["error"]["message"] or last == b"{garbage"


def test_25_where_all_drafts_end_in_errors_so_does_the_request(node: Served, upstream: Upstream) -> None:
    upstream.play(streams(chunk("a", {"role": "assistant", "content": "Cats"}), ERROR, done=True))
    got = post(node, {"model": "auto", "messages": HI, "stream": True})
    assert got.status == 503
    assert "the GPU is on fire" in got.error["message"]
