"""What is no request, or one that somebody in front may have read otherwise, or one that is too large."""

from collections.abc import Callable

import pytest

from tests.web.line import HOST, Site, bodies, chunked, raw, request, talk

GET = request()
REFUSED = {
    "no host": raw("GET / HTTP/1.1"),
    "two hosts": raw("GET / HTTP/1.1", HOST, HOST),
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/0.9 with a head": raw("GET / HTTP/0.9", HOST),
    "HTTP/2.0": raw("GET / HTTP/2.0", HOST),
    "HTTP/1.2": raw("GET / HTTP/1.2", HOST),
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("16030100a5010000a10303") + bytes(160),
    "lower case": raw("get / HTTP/1.1", HOST),
    "unknown method": raw("BREW / HTTP/1.1", HOST),
    "CONNECT": raw("CONNECT localhost:1 HTTP/1.1", HOST),
    "CONNECT upgraded": raw("CONNECT localhost:1 HTTP/1.1", HOST, "upgrade: x", "connection: upgrade"),
    "no target": raw("GET  HTTP/1.1", HOST),
    "a space in the target": raw("GET /a b HTTP/1.1", HOST),
    "bytes in the target": raw("GET /\xff\xfe HTTP/1.1", HOST),
    "NUL in the target": raw("GET /\0 HTTP/1.1", HOST),
    "half an address": raw("GET http:// HTTP/1.1", HOST),
    "no address": raw("GET localhost HTTP/1.1", HOST),
    "NUL in a header": raw("GET / HTTP/1.1", HOST, "x: a\0b"),
    "a bare LF": b"GET / HTTP/1.1\nhost: localhost\n\n",
    "a bare LF in a header": raw("GET / HTTP/1.1", HOST, "x: 1\ny: 2"),
    "a bare CR in a header": raw("GET / HTTP/1.1", HOST, "x: 1\ry: 2"),
    "a folded line": raw("GET / HTTP/1.1", HOST, "x: 1", " 2"),
    "a folded first line": raw("GET / HTTP/1.1", " " + HOST),
    "a space before the colon": raw("GET / HTTP/1.1", "host : localhost"),
    "a header without a colon": raw("GET / HTTP/1.1", HOST, "x"),
    "a header without a name": raw("GET / HTTP/1.1", HOST, ": x"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("pieces", [1, 7])
def test_what_is_no_request_is_refused(what: str, pieces: int) -> None:
    site, data = Site(), REFUSED[what]
    size = -(-len(data) // pieces)
    found, line = talk(*(data[i : i + size] for i in range(0, len(data), size)), site=site, for_s=5)
    assert [(got.status, got.ends) for got in found] == [(400, True)]
    assert line.ended, "the client is not told that this was all"
    assert site.paths == []


# --- requests in requests -------------------------------------------------------------------------------

LENGTHS = ["+1", "-1", "1, 1", "1 1", "0x1", "1e0", "1_0", "", "99999999999999999999", "\xb2"]
CODINGS = [
    *("identity", "xchunked", "gzip, chunked", "chunked, gzip", "chunked, identity", "chunked, chunked"),
    *('"chunked"', "\x0bchunked", "chunked;q=1", "chunked\0", ""),
]
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n"
POST = "POST /echo HTTP/1.1"
CHUNKED = "transfer-encoding: chunked"
END = b"0\r\n\r\n" + SMUGGLED
HEADS = {
    "CL.TE": raw(POST, HOST, "content-length: 6", CHUNKED, END),
    "TE.CL": raw(POST, HOST, CHUNKED, "content-length: 3", b"1\r\nG\r\n" + END),
    "CL.CL": raw(POST, HOST, "content-length: 0", "content-length: 44", SMUGGLED),
    "CL.CL alike": raw(POST, HOST, "content-length: 1", "content-length: 1", b"x" + SMUGGLED),
    "TE.TE": raw(POST, HOST, CHUNKED, "transfer-encoding: x", END),
    "TE twice": raw(POST, HOST, CHUNKED, CHUNKED, END),
    "TE before a space": raw(POST, HOST, "transfer-encoding : chunked", END),
    "TE folded": raw(POST, HOST, "transfer-encoding:", " chunked", END),
    "CL folded": raw(POST, HOST, "content-length: 1", " 1", b"x" + SMUGGLED),
    "TE in HTTP/1.0": raw("POST /echo HTTP/1.0", "connection: keep-alive", CHUNKED, END),
    "TE behind LF": raw(POST, HOST, "x: y\ntransfer-encoding: chunked", END),
    "CL behind CR": raw(POST, HOST, "x: y\rcontent-length: 44", SMUGGLED),
    **{f"CL {it!r}": raw(POST, HOST, f"content-length: {it}", b"x" + SMUGGLED) for it in LENGTHS},
    **{f"TE {it!r}": raw(POST, HOST, f"transfer-encoding: {it}", END) for it in CODINGS},
}
CHUNKS = {
    "LF": b"1\nG\n0\n\n",
    "a space": b"1 \r\nG\r\n0\r\n\r\n",
    "0x": b"0x0\r\n\r\n",
    "too large a size": b"f" * 17 + b"\r\nG\r\n0\r\n\r\n",
    "a size below 0": b"-1\r\nG\r\n0\r\n\r\n",
    "no size": b"\r\n\r\n",
    "more than its size": b"1\r\nGG\r\n0\r\n\r\n",
    "LF in an extension": b"1;x\nG\r\nG\r\n0\r\n\r\n",
    "CL in a trailer": b"0\r\ncontent-length: 44\r\n\r\n",
    "TE in a trailer": b"0\r\ntransfer-encoding: chunked\r\n\r\n",
}
SMUGGLING = HEADS | {what: raw(POST, HOST, CHUNKED, chunks + SMUGGLED) for what, chunks in CHUNKS.items()}


@pytest.mark.parametrize("shape", SMUGGLING)
@pytest.mark.parametrize("size", [10_000, 60, 1])
def test_no_request_is_smuggled(shape: str, size: int) -> None:
    """What a proxy in front may have read otherwise is refused, and nothing behind it is read."""
    site, data = Site(), SMUGGLING[shape]
    found, _ = talk(GET, *(data[i : i + size] for i in range(0, len(data), size)), site=site, for_s=5)
    assert [(got.status, got.ends) for got in found] == [(200, False), (400, True)]
    assert site.paths in (["/"], ["/", "/echo"])


def test_what_follows_a_close_is_not_read() -> None:
    site = Site()
    found, _ = talk(raw("GET / HTTP/1.0", SMUGGLED), site=site, for_s=5)
    assert [(got.status, got.ends) for got in found] == [(200, True)]
    assert site.paths == ["/"]


def test_what_looks_like_a_request_in_a_body_is_a_body() -> None:
    data = request("GET", "/a", SMUGGLED) + chunked([SMUGGLED[:20], SMUGGLED[20:]]) + GET
    found, _ = talk(data)
    assert bodies(found) == ["GET /a", SMUGGLED.decode(), "GET /"]


def test_trailers_are_no_headers() -> None:
    site = Site()
    trailers = b"authorization: Bearer x\r\nhost: evil\r\nexpect: 100-continue\r\nx: 1\r\n"
    found, _ = talk(chunked([b"a"], "x: 0", trailers=trailers) + GET, site=site)
    assert bodies(found) == ["a", "GET /"]
    assert site.asked[0].headers == {b"host": b"localhost", b"transfer-encoding": b"chunked", b"x": b"0"}


# --- too much -------------------------------------------------------------------------------------------


def lines(count: int, name: Callable[[int], str]) -> bytes:
    return raw("GET / HTTP/1.1", HOST, *(f"{name(i)}: 1" for i in range(count - 1)))


TOO_MUCH = {
    "129 headers": lines(129, lambda i: f"x{i}"),
    "129 times one header": lines(129, lambda i: "x"),
    "a long header": raw("GET / HTTP/1.1", HOST, "x: " + "y" * 120_000),
    "a long name": raw("GET / HTTP/1.1", HOST, "x" * 120_000 + ": y"),
    "long headers": raw("GET / HTTP/1.1", HOST, *(f"x{i}: " + "y" * 900 for i in range(100))),
    "a long URL": raw("GET /" + "x" * 120_000 + " HTTP/1.1", HOST),
    "a long query": raw("GET /?" + "x" * 120_000 + " HTTP/1.1", HOST),
    "a long first line": b"GET /" + b"x" * 200_000,
    "an endless header": b"GET / HTTP/1.1\r\nx: " + b"y" * 200_000,
    "blank lines": b"\r\n" * 50_000,
}


@pytest.mark.parametrize("what", TOO_MUCH)
@pytest.mark.parametrize("size", [1_000_000, 60_000, 999])
def test_a_head_too_large_is_refused(what: str, size: int) -> None:
    site, data = Site(), TOO_MUCH[what]
    found, _ = talk(GET, *(data[i : i + size] for i in range(0, len(data), size)), site=site, for_s=5)
    assert [(got.status, got.ends) for got in found] == [(200, False), (431, True)]
    assert site.paths == ["/"]


BODIES_TOO_MUCH = {
    "a long chunk extension": b"1;" + b"x" * 120_000 + b"\r\nG\r\n0\r\n\r\n",
    "a long chunk size": b"0" * 120_000 + b"1\r\nG\r\n0\r\n\r\n",
    "a long trailer": b"0\r\nx: " + b"y" * 120_000 + b"\r\n\r\n",
    "many trailers": b"0\r\n" + b"".join(b"x%d: y\r\n" % i for i in range(200)) + b"\r\n",
    "one trailer many times": b"0\r\n" + b"x: y\r\n" * 200 + b"\r\n",
}


@pytest.mark.parametrize("what", BODIES_TOO_MUCH)
@pytest.mark.parametrize("size", [1_000_000, 999])
def test_what_frames_a_body_has_its_limit(what: str, size: int) -> None:
    data = raw(POST, HOST, CHUNKED, BODIES_TOO_MUCH[what])
    found, _ = talk(GET, *(data[i : i + size] for i in range(0, len(data), size)), for_s=5)
    assert [(got.status, got.ends) for got in found] == [(200, False), (431, True)]


LARGE = {
    "128 headers": lines(128, lambda i: f"x{i}"),
    "60 kB": raw("GET / HTTP/1.1", HOST, "x: " + "y" * 60_000),
}


@pytest.mark.parametrize("what", LARGE)
def test_a_large_head_is_read(what: str) -> None:
    found, _ = talk(LARGE[what] * 2)
    assert [got.status for got in found] == [200, 200]
