"""The real process at the edge, in front of an expert that never ends its answer."""

import http.client
import json
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.node import Served, served, wait_until
from tests.experts.upstream import delta

ENDING = "This node is ending: ask again soon."


class Endless(ThreadingHTTPServer):
    """Says one word to who asks it to begin, and then nothing."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Endless)
        self.asked = 0
        self.over = threading.Event()


class _Endless(BaseHTTPRequestHandler):
    server: Endless

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        if b"begin" in body:
            self.wfile.write(b"data: " + delta("so") + b"\n\n")
        self.server.asked += 1
        self.server.over.wait()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def endless() -> Iterator[Endless]:
    with Endless() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def node(endless: Endless, tmp_path: Path) -> Iterator[Served]:
    url = f"http://127.0.0.1:{endless.server_address[1]}/v1"
    toml = f'[[expert]]\nname = "a"\nkind = "openai"\nurl = "{url}"\nmodel = "m"\n'
    (tmp_path / "manyminds.toml").write_text(toml)
    with served(tmp_path, "--tier", "none") as running:
        yield running


def address(node: Served) -> tuple[str, int]:
    host, port = node.url.removeprefix("http://").removesuffix("/v1").split(":")
    return host, int(port)


def ask(node: Served, text: str, **more: Any) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*address(node), timeout=60)
    body = {"model": "a", "messages": [{"role": "user", "content": text}]} | more
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    reply = connection.getresponse()
    found = reply.status, reply.read()
    connection.close()
    return found


def closed(node: Served) -> bool:
    try:
        socket.create_connection(address(node)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_forced_end_is_told_to_every_caller(node: Served, endless: Endless, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        streamed = pool.submit(ask, node, "begin", stream=True)
        plain = pool.submit(ask, node, "wait")
        assert wait_until(lambda: endless.asked == 2)
        node.process.send_signal(signal.SIGINT)
        assert wait_until(lambda: closed(node))
        node.process.send_signal(signal.SIGINT)
        status, body = plain.result()
        assert (status, json.loads(body)["error"]["message"]) == (503, ENDING)
        status, body = streamed.result()
        *_, last = body.removesuffix(b"\n\n").split(b"\n\n")
        assert (status, json.loads(last[6:])["error"]["message"]) == (200, ENDING)
    assert node.process.wait(timeout=20) == 0
    assert "Traceback" not in (tmp_path / "serve.log").read_text()


def exchange(node: Served, *parts: bytes) -> bytes:
    """What comes back on one connection; the last of the requests in `parts` has to close it."""
    found = b""
    with socket.create_connection(address(node), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
        while received := connection.recv(65536):
            found += received
    return found


def offering(body: bytes, protocol: str, *more: str) -> bytes:
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", f"upgrade: {protocol}", *more]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
@pytest.mark.parametrize("cut", [1, 40, 10_000])
def test_an_offer_to_upgrade_is_ignored_and_its_body_read(node: Served, protocol: str, cut: int) -> None:
    body = b'{"model":"nobody","messages":[{"role":"user","content":"Hi"}]}'
    both = offering(body, protocol, "connection: upgrade") * 2
    both += offering(body, protocol, "connection: close, upgrade")
    found = exchange(node, *(both[i : i + cut] for i in range(0, len(both), cut)))
    assert found.count(b"HTTP/1.1 404 Not Found") == 3
    assert found.count(b"model_not_found") == 3
