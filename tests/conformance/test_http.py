"""Case 40: HTTP itself, byte by byte."""

import http.client
import io
import json
import re
import socket

import pytest

from tests.conformance.edge import MODES, Mode, address, data, post, request, send, text
from tests.conformance.upstream import Upstream, says
from tests.e2e.node import Served
from tests.e2e.test_edge import exchange

PIECES = ("Cats", " purr", ".")
CLOSE = "connection: close"


class _Received:
    """What `http.client` reads instead of a socket."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self._raw)


def replies(raw: bytes) -> list[tuple[http.client.HTTPResponse, bytes]]:
    """The replies that lie one behind the other."""
    found = []
    heads = [match.start() for match in re.finditer(rb"HTTP/1\.[01] \d\d\d ", raw)]
    for at, end in zip(heads, [*heads[1:], len(raw)], strict=True):
        reply = http.client.HTTPResponse(_Received(raw[at:end]))  # type: ignore[arg-type]
        reply.begin()
        found.append((reply, reply.read()))
    return found


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/auto", "/health/live", "/v1/experts"])
def test_40_head_has_no_body(node: Served, path: str) -> None:
    raw = exchange(node, f"HEAD {path} HTTP/1.1\r\nhost: localhost\r\n{CLOSE}\r\n\r\n".encode())
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert body == b""
    whole = send(node, "GET", path)
    assert f"content-length: {len(whole.body)}".encode() in head


def test_40_head_of_what_answers_is_not_allowed(node: Served) -> None:
    assert send(node, "HEAD", "/v1/chat/completions").status == 405


@pytest.mark.parametrize(("path", "method"), [("/v1/chat/completions", "GET"), ("/v1/models", "DELETE")])
def test_40_what_is_not_allowed_says_what_is(node: Served, path: str, method: str) -> None:
    got = send(node, method, path)
    assert got.status == 405
    assert got.headers["allow"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/v1/messages"])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example"])
def test_40_preflights_of_other_sites_are_refused(node: Served, path: str, origin: str) -> None:
    got = send(
        node,
        "OPTIONS",
        path,
        origin=origin,
        access_control_request_method="POST",
        access_control_request_headers="content-type",
    )
    assert got.status == 403
    assert "another site" in got.error["message"]
    assert not [name for name in got.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_40_http_1_0_is_understood(node: Served, upstream: Upstream, mode: Mode, stream: bool) -> None:
    """The end of the reply is that of the connection: nothing in HTTP/1.0 is chunked."""
    upstream.play(says(*PIECES))
    raw = exchange(node, request(mode.body(stream=stream)).replace(b"HTTP/1.1", b"HTTP/1.0"))
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b" 200 OK" in head
    assert b"transfer-encoding" not in head.lower()
    said = text(data(body)) if stream else json.loads(body)["choices"][0]["message"]["content"]
    assert said == "Cats purr."


def test_40_requests_in_a_row_are_answered_in_order(node: Served, upstream: Upstream, mode: Mode) -> None:
    upstream.play(says(*PIECES), b=says("from b"))
    parts = [
        request(mode.body(stream=True)),
        request({"model": "b", "messages": [{"role": "user", "content": "Hi"}]}),
        b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n",
        request({"model": "nobody", "messages": [{"role": "user", "content": "Hi"}]}),
        request(mode.body(), CLOSE),
    ]
    found = replies(exchange(node, b"".join(parts)))
    assert [reply.status for reply, _ in found] == [200, 200, 200, 404, 200]
    assert text(data(found[0][1])) == "Cats purr."
    assert json.loads(found[1][1])["choices"][0]["message"]["content"] == "from b"
    assert json.loads(found[4][1])["choices"][0]["message"]["content"] == "Cats purr."


def test_40_a_body_is_asked_for(node: Served, upstream: Upstream, mode: Mode) -> None:
    upstream.play(says(*PIECES))
    head, _, body = request(mode.body(), "expect: 100-continue", CLOSE).partition(b"\r\n\r\n")
    with socket.create_connection(address(node), timeout=20) as client:
        client.sendall(head + b"\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        client.sendall(body)
        received = b""
        while piece := client.recv(65536):
            received += piece
    ((reply, content),) = replies(received)
    assert reply.status == 200
    assert json.loads(content)["choices"][0]["message"]["content"] == "Cats purr."


def test_40_a_body_too_large_is_not_asked_for(node: Served) -> None:
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", "expect: 100-continue"]
    head = "\r\n".join([*lines, "content-length: 99999999", CLOSE, "", ""]).encode()
    with socket.create_connection(address(node), timeout=20) as client:
        client.sendall(head)
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("size", [1, 13, 100_000])
def test_40_a_body_may_come_in_chunks(node: Served, upstream: Upstream, mode: Mode, size: int) -> None:
    upstream.play(says(*PIECES))
    body = json.dumps(mode.body(stream=True)).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n"
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    framed = b"".join(b"%x;x=y\r\n%s\r\n" % (len(piece), piece) for piece in chunks)
    raw = exchange(node, f"{head}{CLOSE}\r\n\r\n".encode() + framed + b"0\r\n\r\n")
    ((reply, content),) = replies(raw)
    assert (reply.status, text(data(content))) == (200, "Cats purr.")
    assert len({asked.raw for asked in upstream.asked}) == len(mode.asks)  # one body each, by its model


def test_40_a_chunked_body_has_its_limit(node: Served) -> None:
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", "transfer-encoding: chunked"]
    head = "\r\n".join([*lines, CLOSE, "", ""])
    with socket.create_connection(address(node), timeout=20) as client:
        client.sendall(head.encode())
        try:
            for _ in range(12):
                client.sendall(b"%x\r\n%s\r\n" % (1_000_000, b" " * 1_000_000))
        except ConnectionError:
            pass  # refused while we send, which is as good
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("name", MODES)
def test_40_streams_are_never_compressed(node: Served, upstream: Upstream, name: str) -> None:
    upstream.play(says(*PIECES))
    got = post(node, MODES[name].body(stream=True), accept_encoding="gzip, br, zstd, deflate")
    assert "content-encoding" not in got.headers
    assert got.headers["content-type"].startswith("text/event-stream")
    assert got.headers["cache-control"] == "no-cache"
    assert text(data(got.body)) == "Cats purr."
    assert not any("accept-encoding: gzip" in asked.head for asked in upstream.asked)


@pytest.mark.parametrize(
    "raw",
    [
        b"NONSENSE\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_40_what_is_no_http_is_refused(node: Served, raw: bytes) -> None:
    assert exchange(node, raw).startswith(b"HTTP/1.1 4")
    assert node.get("/health/live") == {"status": "live"}
