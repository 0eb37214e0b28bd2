"""The real process, and clients of all kinds that are none."""

import json
import random
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.node import Served, served, wait_until
from tests.e2e.test_edge import Endless, address, closed, exchange
from tests.web.line import raw, replies, request
from tests.web.test_framing import REFUSED, SMUGGLING

CHAT = "/v1/chat/completions"
CLOSE = "connection: close"
MODELS = request("GET", "/v1/models")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("http")


@pytest.fixture(scope="module")
def endless() -> Iterator[Endless]:
    with Endless() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


def configured(folder: Path, endless: Endless) -> None:
    url = f"http://127.0.0.1:{endless.server_address[1]}/v1"
    toml = f'[[expert]]\nname = "a"\nkind = "openai"\nurl = "{url}"\nmodel = "m"\n'
    (folder / "manyminds.toml").write_text(f"[server]\nmax_body_mb = 1.0\n{toml}")


@pytest.fixture(scope="module")
def node(folder: Path, endless: Endless) -> Iterator[Served]:
    configured(folder, endless)
    with served(folder, "--tier", "none") as running:
        yield running
        assert running.get("/health/live") == {"status": "live"}
    assert "Traceback" not in (folder / "serve.log").read_text()


def asking(text: str, **more: object) -> bytes:
    body = {"model": "a", "messages": [{"role": "user", "content": text}]} | more
    return request("POST", CHAT, json.dumps(body).encode())


def memory_mb(node: Served) -> float:
    pages = int(Path(f"/proc/{node.pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_request_is_refused(node: Served, what: str) -> None:
    (got,) = replies(exchange(node, REFUSED[what]))
    assert (got.status, got.ends) == (400, True)
    assert json.loads(got.body)["error"]["code"] == "invalid_request"
    assert len(got.headers["x-request-id"]) > 20


@pytest.mark.parametrize("shape", SMUGGLING)
def test_no_request_is_smuggled(node: Served, shape: str) -> None:
    data = SMUGGLING[shape].replace(b"POST /echo", b"POST " + CHAT.encode())
    data = data.replace(b"/smuggled", b"/v1/models")
    found = replies(exchange(node, data))
    assert [(got.status, got.ends) for got in found] == [(400, True)]


def test_noise_is_refused(node: Served) -> None:
    noise = random.Random(1)
    for size in (1, 100, 10_000, 1_000_000):
        with socket.create_connection(address(node), timeout=20) as client:
            client.sendall(noise.randbytes(size) + b"\r\n\r\n")
            assert client.recv(20).startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (raw(f"POST {CHAT} HTTP/1.1", "host: localhost", "content-length: 20000000"), 413),
        (raw(f"POST {CHAT} HTTP/1.1", "host: localhost", "transfer-encoding: chunked", b"1312d00\r\n"), 413),
        (raw("POST /v1/models HTTP/1.1", "host: localhost", "content-length: 20000000"), 405),
        (raw(f"POST {CHAT} HTTP/1.1", "host: evil.example", "content-length: 20000000"), 403),
    ],
)
def test_a_refusal_reaches_who_is_still_sending(node: Served, head: bytes, status: int) -> None:
    with socket.create_connection(address(node), timeout=20) as client:
        client.sendall(head + b" " * 20_000_000)
        found = b""
        while piece := client.recv(65536):
            found += piece
    (got,) = replies(found)
    assert (got.status, got.ends, got.whole) == (status, True, True)


# --- who leaves, or stays -------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [asking("wait"), asking("begin", stream=True)], ids=["whole", "stream"])
@pytest.mark.parametrize("half", [False, True], ids=["close", "half"])
def test_who_leaves_is_answered_no_more(node: Served, endless: Endless, body: bytes, half: bool) -> None:
    """Who closes its own direction is taken to have left: nobody could tell it from one that has."""
    asked = endless.asked
    with socket.create_connection(address(node), timeout=20) as client:
        client.sendall(body)
        assert wait_until(lambda: endless.asked > asked)
        if half:
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
    assert wait_until(lambda: in_flight(node) == 0)


def in_flight(node: Served) -> float:
    found = exchange(node, request("GET", "/metrics", None, CLOSE)).decode()
    (line,) = [line for line in found.splitlines() if line.startswith("manyminds_in_flight ")]
    return float(line.split()[1])


def test_a_reply_that_is_there_reaches_who_sends_no_more(node: Served) -> None:
    with socket.create_connection(address(node), timeout=20) as client:
        client.sendall(MODELS)
        client.shutdown(socket.SHUT_WR)
        found = b""
        while piece := client.recv(65536):
            found += piece
    assert [got.status for got in replies(found)] == [200]


def test_who_asks_and_never_reads_takes_no_memory(node: Served) -> None:
    """The node stops reading what it could not answer."""
    before = memory_mb(node)
    asked = request("GET", "/metrics", None, "x: " + "y" * 8000)
    clients = [socket.create_connection(address(node)) for _ in range(8)]
    for client in clients:
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            for _ in range(3000):
                client.sendall(asked * 4)
    assert memory_mb(node) - before < 30
    assert node.get("/health/live") == {"status": "live"}
    for client in clients:
        client.close()


def test_a_crowd_of_idle_clients_is_no_trouble(node: Served) -> None:
    crowd = [socket.create_connection(address(node), timeout=20) for _ in range(1500)]
    for client in crowd[::100]:
        client.sendall(MODELS)
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    assert node.get("/health/live") == {"status": "live"}
    for client in crowd:
        client.close()


def test_an_end_waits_for_no_idle_client(endless: Endless, tmp_path: Path) -> None:
    configured(tmp_path, endless)
    with served(tmp_path, "--tier", "none") as node:
        idle, begun, kept = [socket.create_connection(address(node), timeout=9) for _ in range(3)]
        begun.sendall(MODELS[:-2])
        kept.sendall(MODELS)
        assert kept.recv(65536).startswith(b"HTTP/1.1 200")
        node.process.send_signal(signal.SIGTERM)
        for client in (idle, begun, kept):
            assert client.recv(65536) == b""
            client.close()
        assert node.process.wait(timeout=9) == 0
        assert closed(node)
    assert "Traceback" not in (tmp_path / "serve.log").read_text()
