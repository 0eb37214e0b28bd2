"""Five nodes as real processes: one that only asks, three of one network, and behind one of these another.

asker --- seed, quick          one network, joined through the seed
  |
 hub (by HTTP) --- deep        a network of two, which the asker knows as one
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tests.e2e.node import Served, served, wait_until
from tests.experts.upstream import delta

pytest.importorskip("zenoh", reason="needs Zenoh: pip install 'manyminds[net]'")

QUESTION = "Which of these is a prime number?\nA) 21\nB) 23\nC) 25\nD) 27"


class Model(ThreadingHTTPServer):
    """An OpenAI-compatible server that says so many words; at the second it waits until it may go on."""

    daemon_threads = True

    def __init__(self, words: str, *, waits: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Model)
        self.words = words.split()
        self.asked, self.more = Event(), Event()
        if not waits:
            self.more.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Model(BaseHTTPRequestHandler):
    server: Model

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        words = self.server.words
        self.send_response(200)
        usage = {"prompt_tokens": 20, "completion_tokens": len(words), "total_tokens": 20 + len(words)}
        if not asked.get("stream"):
            message = {"role": "assistant", "content": " ".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps({"choices": [choice], "usage": usage}).encode())
            return
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for i, word in enumerate(words):
            if i == 1:
                self.server.asked.set()
                self.server.more.wait()
            with suppress(BrokenPipeError, ConnectionResetError):  # its node was killed
                self.wfile.write(b"data: " + delta(f"{word} ") + b"\n\n")
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage}
        with suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n")

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def model(words: str, *, waits: bool = False) -> Iterator[Model]:
    with Model(words, waits=waits) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.more.set()
            server.shutdown()
            thread.join()


def free_port() -> int:
    """One below those that the system gives to whoever asks for any: nobody else gets it meanwhile."""
    while True:
        port = secrets.randbelow(12_000) + 20_000
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def expert(name: str, url: str) -> str:
    return f'[[expert]]\nname = "{name}"\nurl = "{url}"\nsource = "{name}\'s owner"\naccuracy = 0.7\n'


def manyminds(folder: Path, *words: str, env: dict[str, str] | None = None) -> Any:
    environ = os.environ | {"MANYMINDS_HOME": str(folder / "home")} | (env or {})
    command = [sys.executable, "-m", "manyminds", *words, "--json"]
    ended = subprocess.run(command, capture_output=True, env=environ, cwd=folder, text=True)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


class Nodes:
    """Starts nodes in folders of their own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack

    def start(self, name: str, toml: str, env: dict[str, str] | None = None) -> Served:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "manyminds.toml").write_text(f'{toml}[local]\ntier = "none"\n')
        quiet = {"MANYMINDS_NETWORK_CANARIES": "0"}  # questions that nobody asked
        return self._stack.enter_context(served(folder, tier="none", env=quiet | (env or {})))

    def said(self, name: str) -> str:
        return (self.folder / name / "serve.log").read_text()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield Nodes(tmp_path, stack)


def seen(node: Served) -> set[str]:
    """The experts of a node, by name."""
    return {expert["name"] for expert in node.get("/v1/experts")["data"]}


def ask(node: Served, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{node.url}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            found: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        found = json.load(error)
    return found


def test_five_nodes_answer_and_lose_one_in_the_midst(tmp_path: Path, nodes: Nodes) -> None:
    inner, outer = free_port(), free_port()
    with (
        model("The answer is B) 23") as right,
        model("The answer is B) 23") as deep,
        model("The answer is A) 21", waits=True) as slow,
    ):
        nodes.start(
            "deep",
            expert("thinker", deep.url) + f'[network]\nname = "deep"\nlisten = "tcp/127.0.0.1:{inner}"\n',
        )
        hub = nodes.start(
            "hub",
            f'[network]\nname = "hub"\njoin = ["tcp/127.0.0.1:{inner}"]\nanswers = "listed"\n'
            "price_in_usd_per_m = 1.0\nprice_out_usd_per_m = 10.0\n",
        )
        nodes.start(
            "seed",
            expert("steady", right.url) + f'[network]\nname = "seed"\nlisten = "tcp/127.0.0.1:{outer}"\n',
        )
        quick = nodes.start(
            "quick",
            expert("hasty", slow.url) + f'[network]\nname = "quick"\njoin = ["tcp/127.0.0.1:{outer}"]\n',
        )
        asker = nodes.start("asker", f'[network]\nname = "asker"\njoin = ["tcp/127.0.0.1:{outer}"]\n')

        agreed = manyminds(
            tmp_path / "asker", "federate", hub.url.removesuffix("/v1"), "--pay-usd", "1", "--name", "hub"
        )
        manyminds(tmp_path / "hub", "federate", agreed["own_id"], "--name", "asker", "--owe-usd", "1")
        assert wait_until(lambda: seen(asker) == {"seed", "quick", "hub"}), nodes.said("asker")
        assert wait_until(lambda: "deep" in seen(hub)), nodes.said("hub")
        assert wait_until(lambda: "was read anew" in nodes.said("hub"))

        def kill() -> None:
            slow.asked.wait()
            os.kill(quick.pid, signal.SIGKILL)

        killer = Thread(target=kill)
        killer.start()
        body = {
            "model": "max",
            "messages": [{"role": "user", "content": QUESTION}],
            "max_tokens": 50,
            "manyminds": {"panel": 3, "strategy": "vote", "cache": "off"},
        }
        began = time.monotonic()
        reply = ask(asker, body)
        assert time.monotonic() - began < 20
        killer.join()

        assert "B) 23" in reply["choices"][0]["message"]["content"]
        panel = {entry["expert"]: entry for entry in reply["manyminds"]["panel"]}
        assert panel["seed"]["status"] == panel["hub"]["status"] == "ok", panel
        assert panel["quick"]["status"] in ("cut", "failed", "cancelled"), panel
        assert panel["hub"]["cost_usd"] > 0 == panel["seed"]["cost_usd"]
        assert wait_until(lambda: seen(asker) == {"seed", "hub"}), nodes.said("asker")

        _owner_sees(asker, panel["hub"]["cost_usd"])
        _receipts_agree(tmp_path, reply, panel["hub"]["cost_usd"])
    for name in ("asker", "seed", "hub", "deep"):
        assert "Traceback" not in nodes.said(name)


def _owner_sees(node: Served, price_usd: float) -> None:
    """Who is here, on which way, and what is owed to whom."""

    def shown() -> dict[str, Any]:
        peers = node.get("/v1/admin/network")["peers"]
        return {peer["name"]: peer for peer in peers if peer["up"]}

    assert wait_until(lambda: shown()["hub"]["owed_to_it_usd"] > 0)
    peers = shown()
    assert {name: peer["transport"] for name, peer in peers.items()} == {"seed": "zenoh", "hub": "https"}
    assert peers["hub"]["owed_to_it_usd"] == pytest.approx(price_usd, rel=1e-6)
    assert (peers["hub"]["deeds"], peers["seed"]["experts"]) == ({"kept": 1}, 1)
    own = node.get("/v1/admin/network")["node"]
    assert (own["name"], len(own["id"]) > 20) == ("asker", True)


def _receipts_agree(folder: Path, reply: dict[str, Any], price_usd: float) -> None:
    """What both sides wrote down: the asker's receipts, the hub's, and those of the node behind it."""
    request = reply["manyminds"]["request_id"]
    asked = manyminds(folder / "asker", "ledger", "receipts", "--request", request)
    assert len(asked) == 2
    assert all(one["countersigned"] and one["role"] == "asked" for one in asked)

    def both() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = manyminds(folder / "hub", "ledger", "receipts")
        return [row for row in rows if row["countersigned"]]

    assert wait_until(lambda: len(both()) == 2)
    (to_asker,) = [one for one in both() if one["role"] == "answered"]
    (from_deep,) = [one for one in both() if one["role"] == "asked"]
    (of_hub,) = [one for one in asked if one["ask"] == to_asker["ask"]]
    assert of_hub["document"] == to_asker["document"]
    assert to_asker["request_id"] == from_deep["request_id"]
    assert of_hub["price_usd"] == pytest.approx(price_usd, rel=1e-6)

    kept = folder / "receipts.json"
    kept.write_text(json.dumps(asked))
    checked = manyminds(folder / "asker", "verify", str(kept))
    assert [one["problem"] for one in checked] == [None, None]
    (owed,) = [one for one in manyminds(folder / "asker", "ledger", "settle") if one["peer"] == "hub"]
    (due,) = [one for one in manyminds(folder / "hub", "ledger", "settle") if one["peer"] == "asker"]
    assert owed["asked_usd"] == due["answered_usd"] > 0
    (row,) = [one for one in manyminds(folder / "hub", "ledger", "show") if one["policy"] == "max"]
    assert [call["expert"] for call in row["calls"]] == ["deep"]
