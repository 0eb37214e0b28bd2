"""Cases 28, 29, 32 and 33: what happens while an answer is on its way."""

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.edge import MODES, Mode, Stream, address, configured, data, post, request, text
from tests.conformance.upstream import Gate, Play, Upstream, chunk, says, streams
from tests.e2e.node import Served, served, wait_until
from tests.experts.upstream import Act

STOP = chunk("a", {}, "stop")
HI = [{"role": "user", "content": "Hi"}]


def word(text: str) -> bytes:
    return chunk("a", {"role": "assistant", "content": text})


HANGS: Play = lambda body: [Act.HANG]  # noqa: E731


@pytest.fixture(scope="module")
def node(network: Upstream, folder: Path) -> Iterator[Served]:
    configured(folder, network, policy="first_token_s = 200\ndeadline_s = 300")
    with served(folder, "--tier", "none") as running:
        yield running
    assert "Traceback" not in (folder / "serve.log").read_text()


@pytest.fixture(scope="module", autouse=True)
def silent(network: Upstream, node: Served) -> Iterator[dict[str, tuple[Stream, Gate]]]:
    """For each mode a stream that has been asked for, and the gate before its first word."""
    gates = {name: Gate() for name in MODES}
    network.play(lambda body: streams(gates[body["user"]], word("At last."), STOP, done=True)(body))
    with ExitStack() as stack:
        replies = {
            name: stack.enter_context(Stream(node, mode.body(stream=True, user=name)))
            for name, mode in MODES.items()
        }
        assert wait_until(lambda: len(network.asked) == 7)
        yield {name: (reply, gates[name]) for name, reply in replies.items()}


# --- 28: a deadline ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strategy", "stream"), [("select", True), ("vote", False), ("fuse", True)])
def test_28_at_the_deadline_those_that_answered_count(
    node: Served, upstream: Upstream, strategy: str, stream: bool
) -> None:
    upstream.play(HANGS, b=says("Because they like it."), c=says("Nobody knows it yet."))
    limits = {"strategy": strategy, "deadline_s": 1.6}  # longer than who was late before is taken to need
    got = post(node, {"model": "auto", "messages": HI, "stream": stream, "manyminds": limits})
    assert got.status == 200
    said = text(data(got.body)) if stream else got.json["choices"][0]["message"]["content"]
    report = data(got.body)[-2]["manyminds"] if stream else got.json["manyminds"]
    assert said in ("Because they like it.", "Nobody knows it yet.")
    status = {entry["expert"]: entry["status"] for entry in report["panel"]}
    assert status == {"a": "late", "b": "ok", "c": "ok"}


def test_28_a_quorum_does_not_wait(node: Served, upstream: Upstream) -> None:
    upstream.play(HANGS, b=says("Because they like it."), c=says("Nobody knows it yet."))
    got = post(node, {"model": "auto", "messages": HI, "manyminds": {"quorum": 2, "strategy": "vote"}})
    status = {entry["expert"]: entry["status"] for entry in got.json["manyminds"]["panel"]}
    assert status == {"a": "cancelled", "b": "ok", "c": "ok"}
    assert wait_until(lambda: all(asked.ended for asked in upstream.asked))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_28_without_any_answer_the_deadline_is_told(
    node: Served, upstream: Upstream, live: Mode, stream: bool
) -> None:
    upstream.play(HANGS)
    limits = dict(live.more.get("manyminds", {})) | {"deadline_s": 0.3}
    got = post(node, live.body(stream=stream, manyminds=limits))
    assert (got.status, got.error["code"]) == (504, "deadline_exceeded")
    assert wait_until(lambda: all(asked.left for asked in upstream.asked))


# --- 29: a client that leaves ------------------------------------------------------------------------------


def check_cancelled(node: Served, upstream: Upstream, mode: Mode, sent: bytes, received: bytes) -> None:
    """All upstreams lose their client when ours leaves, after it has seen `received`."""
    with socket.create_connection(address(node), timeout=20) as client:
        client.sendall(sent)
        assert wait_until(lambda: upstream.models == sorted(mode.asks))
        seen = b""
        while received not in seen:
            seen += client.recv(65536)
        assert not any(asked.left for asked in upstream.asked)
    assert wait_until(lambda: all(asked.left for asked in upstream.asked)), "somebody was left at work"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_29_who_leaves_before_the_first_word_cancels_all(
    node: Served, upstream: Upstream, live: Mode, stream: bool
) -> None:
    upstream.play(HANGS)
    check_cancelled(node, upstream, live, request(live.body(stream=stream)), b"")


@pytest.mark.parametrize("name", ["pass_through", "fan_out"])
def test_29_who_leaves_in_the_midst_cancels_all(node: Served, upstream: Upstream, name: str) -> None:
    upstream.play(streams(word("Cats"), word(" purr"), Act.HANG))
    seen = b"purr" if name == "pass_through" else b""
    check_cancelled(node, upstream, MODES[name], request(MODES[name].body(stream=True)), seen)


def test_29_the_losers_of_a_race_are_cancelled_at_once(node: Served, upstream: Upstream) -> None:
    gate = Gate()
    upstream.play(HANGS, b=streams(word("Cats"), word(" purr."), gate, STOP, done=True))
    with Stream(node, MODES["race"].body(stream=True)) as reply:
        assert b"Cats" in reply.event()
        others = {asked.model: asked for asked in upstream.asked}
        assert wait_until(lambda: others["a"].left and others["c"].left)
        gate.open()
        assert list(reply.events())[-1] == b"data: [DONE]"


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", "/v1/completions"])
def test_29_other_formats_cancel_too(node: Served, upstream: Upstream, mode: Mode, path: str) -> None:
    upstream.play(HANGS)
    body = {"/v1/responses": {"input": "Hi"}, "/v1/completions": {"prompt": "Hi"}}.get(
        path, {"messages": HI, "max_tokens": 9}
    )
    sent = request({"model": mode.model, "stream": True} | body, path=path)
    check_cancelled(node, upstream, mode, sent, b"")


# --- 33: as it comes, and not faster than it is read -------------------------------------------------------


@pytest.mark.parametrize("name", ["pass_through", "race"])
def test_33_each_word_comes_before_the_next_is_said(node: Served, upstream: Upstream, name: str) -> None:
    words = ["Cats", " purr", " when", " happy"]
    gates = [Gate() for _ in words]
    parts = [part for said, gate in zip(words, gates, strict=True) for part in (word(said), gate)]
    upstream.play(HANGS, a=streams(*parts, STOP, done=True))
    with Stream(node, MODES[name].body(stream=True)) as reply:
        for said, gate in zip(words, gates, strict=True):
            assert json.loads(reply.event()[6:])["choices"][0]["delta"]["content"] == said
            gate.open()
        *_, done = reply.events()
    assert done == b"data: [DONE]"


def resident_mb(pid: int) -> float:
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * 4096 / 1e6


@pytest.mark.parametrize("name", ["pass_through", "race"])
def test_33_a_client_that_does_not_read_stops_its_expert(node: Served, upstream: Upstream, name: str) -> None:
    """What has been taken of an endless answer is bounded, and so is the node's memory."""
    upstream.play(streams(*[word("x" * 10_000)] * 20_000))
    before = resident_mb(node.pid)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(address(node))
        client.sendall(request(MODES[name].body(stream=True)))

        def still() -> bool:
            sent = sum(asked.sent for asked in upstream.asked)
            return sent > 100_000 and not wait_until(
                lambda: sum(asked.sent for asked in upstream.asked) > sent, budget_s=0.2
            )

        assert wait_until(still)
        assert all(asked.sent < 100_000_000 for asked in upstream.asked)
        assert resident_mb(node.pid) < before + 60
        client.settimeout(20)
        received: list[bytes] = []
        while piece := client.recv(1_000_000):
            received.append(piece)
            if b"0\r\n\r\n" in piece[-5:]:
                break
    body = b"".join(received)
    assert b'"code":"expert_garbage"' in body  # it passed the limit of one answer
    assert b"[DONE]" not in body
    assert wait_until(lambda: all(asked.ended for asked in upstream.asked))


def test_33_readers_do_not_wait_for_each_other(node: Served, upstream: Upstream) -> None:
    """One that hangs does not hold up the other."""
    gate = Gate()
    upstream.play(streams(word("slow"), gate, STOP, done=True), b=says("quick"))
    with Stream(node, MODES["pass_through"].body(stream=True)) as slow:
        assert b"slow" in slow.event()
        replies: list[Any] = []
        threads = [
            threading.Thread(target=lambda: replies.append(post(node, {"model": "b", "messages": HI})))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [got.json["choices"][0]["message"]["content"] for got in replies] == ["quick"] * 20
        gate.open()
        assert list(slow.events())[-1] == b"data: [DONE]"


# --- 32: signs of life, last because they take ten seconds -------------------------------------------------


@pytest.mark.parametrize("name", MODES)
def test_32_a_comment_says_that_the_node_is_alive(
    silent: Mapping[str, tuple[Stream, Gate]], name: str
) -> None:
    reply, gate = silent[name]
    first = reply.event()
    assert first.startswith(b":")
    assert b"\n" not in first
    gate.open()
    *events, done = (event for event in reply.events() if not event.startswith(b":"))
    assert text([json.loads(event[6:]) for event in events]) == "At last."
    assert done == b"data: [DONE]"
