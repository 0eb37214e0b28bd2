"""A node that runs is administered over HTTP: experts are paused, resumed, added, probed, removed."""

import http.client
import json
import shutil
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_probe import FIRST, QUESTION, configure, learnt
from tests.e2e.node import Served, served, wait_until
from tests.e2e.test_reload import ask, models
from tests.e2e.test_workers import said as log_of

__all__ = ["learnt"]

KEY = "sk-never-shown"


class Scripted(ThreadingHTTPServer):
    """Lists models, and says "B" to everything, or what is in `texts` by model, while it is not held."""

    daemon_threads = True

    def __init__(self, *models: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.models = models
        self.texts: dict[str, str] = {}
        self.keys: list[str] = []
        self.answers = threading.Semaphore(0)
        self.holds = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Scripted

    def do_GET(self) -> None:
        self.server.keys.append(self.headers.get("authorization", ""))
        self._say(
            {"object": "list", "data": [{"id": name, "object": "model"} for name in self.server.models]}
        )

    def do_POST(self) -> None:
        wanted = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.server.holds:
            self.server.answers.acquire(timeout=60)
        said = self.server.texts.get(wanted["model"], "B")
        if wanted.get("stream"):
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": wanted["model"]}
            for delta, finish in (({"role": "assistant", "content": said}, None), ({}, "stop")):
                choice = {"index": 0, "delta": delta, "finish_reason": finish}
                self.wfile.write(b"data: " + json.dumps(chunk | {"choices": [choice]}).encode() + b"\n\n")
            self.wfile.write(b"data: [DONE]\n\n")
            self.close_connection = True
            return
        message = {"role": "assistant", "content": said}
        self._say(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": wanted["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
            }
        )

    def _say(self, fields: dict[str, Any]) -> None:
        body = json.dumps(fields).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def scripted(*models: str) -> Iterator[Scripted]:
    with Scripted(*models) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.02,))
        thread.start()
        yield made
        made.holds = False
        made.answers.release(1000)
        made.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path, learnt: Path) -> Path:
    configure(tmp_path, learnt / "toy", *FIRST)
    shutil.copytree(learnt / "home", tmp_path / "home")
    return tmp_path


def panel(node: Served, **limits: Any) -> set[str]:
    messages = [{"role": "user", "content": QUESTION}]
    status, reply = ask(node, "max", messages=messages, manyminds={"cache": "off", **limits})
    assert status == 200, reply
    return {entry["expert"] for entry in reply["manyminds"]["panel"]}


def named(node: Served, name: str) -> Any:
    return ask(node, name, messages=[{"role": "user", "content": QUESTION}])


def post(node: Served, path: str, **fields: Any) -> tuple[int, Any]:
    status, body = ask(node, "", path=f"admin/{path}", **fields)
    return status, body


@contextmanager
def adding(node: Served, **fields: Any) -> Iterator[Iterator[Any]]:
    """The events of an expert that is being added, up to [DONE]; leaving the block leaves the node."""
    place = urllib.parse.urlsplit(node.url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=120)
    connection.request("POST", "/v1/admin/add", json.dumps(fields))
    reply = connection.getresponse()
    assert reply.status == 200, reply.read()

    def events() -> Iterator[Any]:
        for line in reply:
            if line.startswith(b"data: "):
                text = line.removeprefix(b"data: ").strip()
                if text == b"[DONE]":
                    return
                yield json.loads(text)
        raise AssertionError("it ended without a word")

    try:
        yield events()
    finally:
        reply.close()
        connection.close()


def added(node: Served, **fields: Any) -> list[Any]:
    with adding(node, **fields) as events:
        return list(events)


@pytest.mark.parametrize("workers", [1, 2])
def test_who_is_paused_is_asked_by_nobody_until_it_is_resumed(folder: Path, workers: int) -> None:
    with served(folder, "--workers", str(workers), tier="none") as node:
        assert panel(node) == set(FIRST)
        assert post(node, "pause", name="a") == (200, {"name": "a", "paused": True})
        assert post(node, "pause", name="a") == (200, {"name": "a", "paused": True})
        assert wait_until(lambda: all(named(node, "a")[0] == 503 for _ in range(16)))  # of all workers
        assert "a" not in panel(node)
        status, refused = named(node, "a")
        assert (status, refused["error"]["code"]) == (503, "expert_paused")
        assert "manyminds experts resume a" in refused["error"]["message"]
        assert models(node) >= {"b", "c"}
        assert "a" not in models(node)
        for shown in ("/v1/experts", "/v1/admin/experts"):
            cards = {card["name"]: card["paused"] for card in node.get(shown)["data"]}
            assert cards == {"a": True, "b": False, "c": False}
        status, unknown = post(node, "pause", name="aa")
        assert (status, "Did you mean a" in unknown["error"]["message"]) == (404, True)
        assert post(node, "resume", name="a") == (200, {"name": "a", "paused": False})
        assert wait_until(lambda: all(named(node, "a")[0] == 200 for _ in range(16)))
        assert panel(node) == set(FIRST)
    assert "Traceback" not in log_of(folder)


def test_one_is_added_without_probing_and_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", KEY)
    with scripted("tiny", "big") as server, served(folder, tier="none") as node:
        which, wrong = added(node, url=server.url)
        assert which == {"event": "models", "models": ["big", "tiny"]}
        assert wrong["event"] == "error"
        assert "2 models" in wrong["message"]
        fields = {"model": "tiny", "name": "newcomer", "key_env": "SOME_API_KEY", "probe": False}
        assert added(node, url=server.url, **fields) == [{"event": "added", "name": "newcomer"}]
        assert server.keys[-1] == f"Bearer {KEY}"
        assert wait_until(lambda: "newcomer" in models(node))
        assert named(node, "newcomer")[0] == 200
        (taken,) = added(node, url=server.url, **fields)
        assert taken["event"] == "error"
        assert "is taken" in taken["message"]
        (own,) = added(node, url=node.url, probe=False)
        assert "this node itself" in own["message"]
        for wrong_fields, param in (
            ({"url": "file:///etc/passwd"}, "url"),
            ({"url": str(folder / "manyminds.toml")}, "url"),
            ({"url": "--documents=/etc"}, "url"),
            ({"url": server.url, "key_env": "HOME"}, "key_env"),
            ({"url": server.url, "probes": 1}, None),
            ({"url": server.url, "documents": "/etc"}, None),
            ({"url": server.url, "name": "a\nb"}, None),
        ):
            status, refused = post(node, "add", **wrong_fields)
            assert (status, refused["error"]["param"]) == (400, param), wrong_fields
        (odd,) = added(node, url=server.url, model="--help", name="--documents=/etc", probe=False)
        assert odd["event"] == "error"
        status, gone = post(node, "remove", name="newcomer")
        assert (status, [row["name"] for row in gone["removed"]]) == (200, ["newcomer"])
        assert gone["removed"][0]["where"] == "added"
        assert wait_until(lambda: named(node, "newcomer")[0] == 404)
        assert post(node, "remove", name="nobody")[0] == 404
        assert KEY not in log_of(folder) + (folder / "home" / "experts.toml").read_text()
    assert "Traceback" not in log_of(folder)


def test_a_newcomer_is_probed_while_others_are_answered_and_the_client_may_leave(folder: Path) -> None:
    with scripted("tiny") as server, served(folder, tier="none") as node:
        server.holds = True
        with adding(node, url=server.url, name="newcomer") as events:
            assert next(events) == {"event": "added", "name": "newcomer"}
            assert next(events) == {"event": "probing", "asked": 0, "of": 64}
            status, refused = post(node, "add", url=server.url, name="another")
            assert (status, "one at a time" in refused["error"]["message"]) == (429, True)
            assert post(node, "remove", name="b")[0] == 429
            assert panel(node, exclude=["newcomer"]) == set(FIRST)
            server.answers.release(3)
            while next(events)["asked"] < 3:
                pass
        assert wait_until(lambda: post(node, "remove", name="nobody")[0] == 404)  # nothing is under way
        server.holds = False
        assert wait_until(lambda: "newcomer" in models(node))
        assert named(node, "newcomer")[0] == 200
        assert post(node, "remove", name="newcomer")[0] == 200
        *probing, probed = added(node, url=server.url, name="second", probes=8)
        assert probing[0] == {"event": "added", "name": "second"}
        assert [event["asked"] for event in probing[1:]] == sorted({e["asked"] for e in probing[1:]})
        assert (probed["event"], probed["result"]["name"]) == ("probed", "second")
        assert probed["result"]["sorts"][0]["what"] == "keep"
    assert "Traceback" not in log_of(folder)
