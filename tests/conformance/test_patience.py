"""Cases 26 and 42: a node with little patience, and one that is told to end."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.edge import MODES, Stream, address, configured, data, post, text
from tests.conformance.upstream import Gate, Play, Upstream, chunk, says, streams
from tests.e2e.node import Served, served, wait_until
from tests.e2e.test_edge import closed
from tests.experts.upstream import Act

pytestmark = pytest.mark.usefixtures("healed")

HI = [{"role": "user", "content": "Hi"}]
STOP = chunk("a", {}, "stop")
WORD = chunk("a", {"role": "assistant", "content": "Cats"})


@pytest.fixture(scope="module")
def node(network: Upstream, folder: Path) -> Iterator[Served]:
    configured(folder, network, policy="first_token_s = 0.6\nidle_s = 0.4")
    with served(folder, "--tier", "none") as running:
        yield running


STALLS: dict[str, Play] = {
    "slow_headers": lambda body: [Act.HANG],
    "no_first_token": streams(Act.HANG),
    "only_a_role": streams(chunk("a", {"role": "assistant", "content": ""}), Act.HANG),
}


@pytest.mark.parametrize("stall", STALLS)
def test_26_no_first_token_is_a_timeout(node: Served, upstream: Upstream, stall: str) -> None:
    upstream.play(STALLS[stall])
    got = post(node, {"model": "a", "messages": HI, "stream": True})
    assert (got.status, got.error["code"], got.error["type"]) == (504, "expert_slow", "timeout_error")
    assert wait_until(lambda: all(asked.left for asked in upstream.asked))


@pytest.mark.parametrize(
    ("stall", "strategy"), [("slow_headers", "select"), ("no_first_token", "race"), ("only_a_role", "race")]
)
def test_26_a_panel_goes_on_without_who_stalls(
    node: Served, upstream: Upstream, stall: str, strategy: str
) -> None:
    upstream.play(STALLS[stall], plain=says("I was in reserve."))
    body = {"model": "auto", "messages": HI, "stream": True, "manyminds": {"strategy": strategy}}
    got = post(node, body)
    assert text(data(got.body)) == "I was in reserve."
    status = {e["expert"]: e["status"] for e in data(got.body)[-2]["manyminds"]["panel"]}
    assert status == {"a": "failed", "b": "failed", "c": "failed", "plain": "ok"}


@pytest.mark.parametrize("name", ["pass_through", "race"])
def test_26_a_stall_in_the_midst_is_an_error_event(node: Served, upstream: Upstream, name: str) -> None:
    upstream.play(streams(WORD, WORD, Act.HANG))
    *events, error = data(post(node, MODES[name].body(stream=True)).body)
    assert text(events) == "CatsCats"
    assert error["error"]["code"] == "expert_slow"
    assert not any(c["finish_reason"] for event in events for c in event["choices"])


def test_26_a_stall_in_the_midst_is_no_answer(node: Served, upstream: Upstream) -> None:
    upstream.play(streams(WORD, Act.HANG), b=says("All is well."))
    got = post(node, {"model": "auto", "messages": HI})
    assert got.json["choices"][0]["message"]["content"] == "All is well."
    assert {e["expert"]: e["status"] for e in got.json["manyminds"]["panel"]}["a"] == "cut"


# --- 42: the end -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_42_a_signal_lets_streams_end(network: Upstream, tmp_path: Path, number: signal.Signals) -> None:
    """Of each mode one stream is open; no new connection is taken, and what is open ends as it should."""
    configured(tmp_path, network)
    gate, asked = Gate(), {}
    network.play(streams(WORD, gate, chunk("a", {"content": " purr."}), STOP, done=True))
    with served(tmp_path, "--tier", "none") as node, ExitStack() as stack:
        bodies: dict[str, Any] = {name: mode.body(stream=True) for name, mode in MODES.items()}
        replies = {name: stack.enter_context(Stream(node, body)) for name, body in bodies.items()}
        for name in ("pass_through", "race"):
            asked[name] = replies[name].event()
        assert wait_until(lambda: len(network.asked) == 7)
        node.process.send_signal(number)
        assert wait_until(lambda: closed(node)), address(node)
        gate.open()
        for reply in replies.values():
            *events, done = reply.events()
            assert done == b"data: [DONE]"
            assert any(b" purr." in event for event in events)
        assert node.process.wait(timeout=20) == 0
    assert "Traceback" not in (tmp_path / "serve.log").read_text()
