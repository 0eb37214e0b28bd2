"""A node behind nginx, set up as docs/deployment.md says: streams pass it word by word."""

import getpass
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tests.e2e.node import served, wait_until
from tests.experts.upstream import delta

PAGE = Path(__file__).resolve().parents[2] / "docs/deployment.md"


class Hesitant(ThreadingHTTPServer):
    """Says one word, another when told to, and ends when it is over."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hesitant)
        self.more, self.over = Event(), Event()


class _Hesitant(BaseHTTPRequestHandler):
    server: Hesitant

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b"data: " + delta("first ") + b"\n\n")
        self.server.more.wait()
        self.wfile.write(b"data: " + delta("second ") + b"\n\n")
        self.server.over.wait()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hesitant() -> Iterator[Hesitant]:
    with Hesitant() as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.more.set()
        server.over.set()
        server.shutdown()
        thread.join()


@contextmanager
def proxied(url: str, folder: Path) -> Iterator[int]:
    """nginx with the page's `location` before a node, until the block ends: its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    page = PAGE.read_text(encoding="utf-8")
    (location,) = re.findall(r"^```nginx\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    settings = folder / "nginx.conf"
    settings.write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; user {getpass.getuser()}; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n"
        f"server {{ listen 127.0.0.1:{port};\n{location.replace('http://127.0.0.1:8000', url)} }} }}\n"
    )
    with (folder / "nginx.log").open("wb") as log:
        process = subprocess.Popen(["nginx", "-e", "stderr", "-c", str(settings)], stdout=log, stderr=log)
    try:
        assert wait_until(lambda: process.poll() is not None or listens(port))
        assert process.poll() is None, (folder / "nginx.log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(timeout=20)


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def test_a_stream_passes_the_proxy_word_by_word(hesitant: Hesitant, tmp_path: Path) -> None:
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    url = f"http://127.0.0.1:{hesitant.server_port}/v1"
    (tmp_path / "manyminds.toml").write_text(f'[[expert]]\nname = "a"\nurl = "{url}"\n')
    with served(tmp_path, "--tier", "none") as node, proxied(node.url.removesuffix("/v1"), tmp_path) as port:
        connection = HTTPConnection("127.0.0.1", port, timeout=8)  # less than a stream's signs of life
        body = {"model": "a", "stream": True, "messages": [{"role": "user", "content": "begin"}]}
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        reply = connection.getresponse()
        assert b"first" in reply.readline()
        hesitant.more.set()
        assert b"second" in reply.readline() + reply.readline()  # while its expert still says no more
        connection.close()
