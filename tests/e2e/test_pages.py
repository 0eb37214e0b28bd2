"""The pages for people who begin, followed as they are written; only addresses are another's."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from manyminds import catalog
from manyminds.experts.documents import DECLINED
from tests.e2e.node import borrowed, need, served, wait_until
from tests.e2e.test_documents import TRAVEL
from tests.e2e.test_federation import proxied
from tests.e2e.test_keys import REPLY
from tests.e2e.test_network import Nodes, ask, expert, manyminds, seen
from tests.e2e.test_owners import ask as ask_with
from tests.pulled import ENCODER, HOME, lend
from tests.pulled import need as need_models
from tests.test_docs import DOCS, blocks, text
from tests.web.test_tls import made

SERVED = "http://127.0.0.1:8000/v1"  # what pages call a node of this machine
NO_MODELS = {"MANYMINDS_LOCAL_TIER": "none"}


class Provider(ThreadingHTTPServer):
    """Lists one model and says 43 to everything; keeps the keys that it was shown."""

    daemon_threads = True

    def __init__(self, model: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model = model
        self.keys: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        self._says({"object": "list", "data": [{"id": self.server.model, "object": "model"}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not asked.get("stream"):
            return self._says(REPLY)
        piece = {"index": 0, "delta": {"role": "assistant", "content": "43"}, "finish_reason": "stop"}
        event = json.dumps(REPLY | {"choices": [piece]})
        return self._says(f"data: {event}\n\ndata: [DONE]\n\n", "text/event-stream")

    def _says(self, body: Any, kind: str = "application/json") -> None:
        self.server.keys.append((self.command, self.headers.get("authorization", "")))
        self.send_response(200)
        self.send_header("content-type", kind)
        self.end_headers()
        self.wfile.write((body if isinstance(body, str) else json.dumps(body)).encode())

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def provider(model: str) -> Iterator[Provider]:
    with Provider(model) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def written(page: str, language: str) -> list[str]:
    return blocks(text(DOCS / page), language)


def run(folder: Path, line: str, env: dict[str, str] | None = None) -> str:
    """What a line that begins with `manyminds` prints, talk included."""
    environ = os.environ | {"MANYMINDS_HOME": str(folder / "home")} | NO_MODELS | (env or {})
    words = [sys.executable, "-m", *shlex.split(line)]
    ended = subprocess.run(words, capture_output=True, env=environ, cwd=folder, text=True)
    assert ended.returncode == 0, f"{line}\n{ended.stdout}{ended.stderr}"
    return ended.stdout + ended.stderr


def test_start(tmp_path: Path) -> None:
    """`make ask` and `make serve` are `manyminds ask` and `manyminds serve`: see tests/test_docs.py."""
    need()
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    page = "start.md"
    first, _, curl = written(page, "sh")
    question = re.fullmatch(r'make ask Q="(.*)"\n', first)
    assert question
    borrowed(tmp_path)
    said = run(tmp_path, shlex.join(["manyminds", "ask", question[1]]), {"MANYMINDS_LOCAL_TIER": "starter"})
    (shown,) = written(page, "text")
    answer, _, columns = (line.split() for line in shown.splitlines()[:3])
    assert answer == said.splitlines()[0].split()
    assert columns in [line.split() for line in said.splitlines()]
    with served(tmp_path) as node:
        called = subprocess.run(
            ["bash", "-c", curl.replace(SERVED, node.url)], capture_output=True, check=True, text=True
        )
        reply = json.loads(called.stdout)
        assert reply["choices"][0]["message"]["content"]
        assert reply["manyminds"]["policy"] == "auto"
        (python,) = written(page, "python")
        called = subprocess.run(
            [sys.executable, "-c", python.replace(SERVED, node.url)], capture_output=True, text=True
        )
        assert called.returncode == 0, called.stderr
        assert called.stdout.splitlines()[0]
        asked = re.findall(r"^(\S+) ok \S+$", called.stdout, flags=re.MULTILINE)
        known = {card["name"] for card in node.get("/v1/experts")["data"]}
        assert asked
        assert {name.partition(":")[0] for name in asked} <= known
        *_, last = called.stdout.splitlines()
        assert {name.partition(":")[0] for name in asked} >= {last.split()[0].partition(":")[0]}
        assert 0 < float(last.split()[1]) <= 1


def test_my_keys(tmp_path: Path) -> None:
    export, discover, add, asks = written("howto/keys.md", "sh")[0].splitlines()
    set_, _, value = export.removeprefix("export ").partition("=")
    env = {set_: value.strip('"')}
    with provider("openai/gpt-5") as there:
        assert set_ in run(tmp_path, discover, env)
        run(tmp_path, re.sub(r"https://\S+", there.url, add), env)
        assert run(tmp_path, asks, env).startswith("43\n")
        assert ("POST", f"Bearer {env[set_]}") in there.keys
    kept = (tmp_path / "home/experts.toml").read_text()
    assert set_ in kept
    assert env[set_] not in kept


def test_my_ollama(tmp_path: Path) -> None:
    discover, add, asks, listed = written("howto/ollama.md", "sh")[0].splitlines()
    with provider("qwen2.5:7b") as there:
        run(tmp_path, discover)
        run(tmp_path, re.sub(r"http://\S+", there.url, add))
        assert run(tmp_path, asks).startswith("43\n")
        assert "qwen" in run(tmp_path, listed)
        (toml,) = written("howto/ollama.md", "toml")
        (tmp_path / "manyminds.toml").write_text(toml.replace("http://127.0.0.1:11434/v1", there.url))
        assert "qwen" in run(tmp_path, "manyminds experts remove qwen")
        shutil.rmtree(tmp_path / "home")
        assert run(tmp_path, asks).startswith("43\n")


def test_my_own_model_on_my_terms(tmp_path: Path) -> None:
    need_models("smollm2-135m")
    weights = catalog.path_of(HOME, catalog.find("smollm2-135m").files[0])
    (tmp_path / "house.gguf").symlink_to(weights)
    first, last = written("howto/terms.md", "sh")
    add, key, serve = first.splitlines()
    run(tmp_path, add)
    secret = json.loads(run(tmp_path, f"{key} --json"))["key"]
    assert serve == "manyminds serve"
    body = json.loads(written("howto/terms.md", "json")[0])
    with served(tmp_path, tier="none", env=NO_MODELS) as node:
        status, reply = ask_with(node.url, secret, body | {"max_tokens": 4})
        assert status == 200, reply
        assert [owed["source"] for owed in reply["manyminds"]["attribution"]] == ["ann"]
        status, reply = ask_with(node.url, secret, body | {"manyminds": {"purpose": "ads"}})
        assert (status, "ann" in json.dumps(reply)) == (403, True)
    used, back = last.splitlines()
    (row,) = json.loads(run(tmp_path, f"{used} --json"))
    assert (row["source"], [use["purpose"] for use in row["purposes"]]) == ("ann", ["research"])
    run(tmp_path, back)
    assert json.loads(run(tmp_path, "manyminds experts list --json"))["experts"] == []


def test_my_documents(tmp_path: Path) -> None:
    need_models(ENCODER)
    lend(tmp_path / "home", ENCODER)
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers/travel.md").write_text(TRAVEL)
    first, last = written("howto/documents.md", "sh")
    add, asks, index = first.splitlines()
    run(tmp_path, add)
    assert "seven years" in run(tmp_path, asks)
    with served(tmp_path, tier="none", env=NO_MODELS) as node:
        reply = ask(node, json.loads(written("howto/documents.md", "json")[0]))
        (cited,) = reply["manyminds"]["citations"][:1]
        assert (cited["source"], cited["document"], "seven years" in cited["quote"]) == (
            *("ann", "travel.md"),
            True,
        )
    (tmp_path / "papers/travel.md").write_text(TRAVEL.replace("seven", "nine"))
    run(tmp_path, index)
    assert "nine years" in run(tmp_path, asks)
    one, every = last.splitlines()
    run(tmp_path, one)
    assert DECLINED in run(tmp_path, asks)
    run(tmp_path, every)
    assert json.loads(run(tmp_path, "manyminds experts list --json"))["experts"] == []


def test_two_offices(tmp_path: Path) -> None:
    (toml,) = written("howto/offices.md", "toml")
    at_oslo, at_bergen, settle = written("howto/offices.md", "sh")
    cert, key = made(tmp_path, "proxy")
    env = {"SSL_CERT_FILE": str(cert)}
    with provider("house") as there, ExitStack() as stack:
        nodes = Nodes(tmp_path, stack)
        oslo = nodes.start("oslo", toml, env)
        bergen = nodes.start("bergen", toml.replace("oslo", "bergen") + expert("house", there.url), env)
        urls = {}
        for name, node in (("oslo", oslo), ("bergen", bergen)):
            before = node.url.removesuffix("/v1")
            urls[name] = stack.enter_context(proxied(before, tmp_path / f"nginx-{name}", cert, key))
        for here, block in (("oslo", at_oslo), ("bergen", at_bergen)):
            line = block.strip()
            for name, url in urls.items():
                line = line.replace(f"https://{name}.example.org", url)
            manyminds(tmp_path / here, *shlex.split(line)[1:], env=env)
        assert wait_until(lambda: "bergen" in seen(oslo)), nodes.said("oslo")
        body = json.loads(written("howto/offices.md", "json")[0])
        assert wait_until(lambda: "choices" in ask(oslo, body)), (nodes.said("oslo"), nodes.said("bergen"))
        assert ask(oslo, body)["choices"][0]["message"]["content"].strip() == "43"
        settled, receipts = (shlex.split(line)[1:] for line in settle.splitlines())
        for here, other, role in (("oslo", "bergen", "asked"), ("bergen", "oslo", "answered")):
            assert other in json.dumps(manyminds(tmp_path / here, *settled))
            assert {row["role"] for row in manyminds(tmp_path / here, *receipts)} == {role}
        assert manyminds(tmp_path / "oslo", "federate", "--remove", "bergen")
        assert wait_until(lambda: "bergen" not in seen(oslo))
