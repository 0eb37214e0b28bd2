"""What a connection makes of bytes that are requests, and of those that are not quite."""

import asyncio
import gc
import re
import weakref
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.web.connection import Connection
from manyminds.web.exchange import Exchange
from tests.clock import run
from tests.web.line import Got, Line, Site, chunked, replies, request, talk

GET = request()
POST = "POST /echo HTTP/1.1"
CHUNKED = "transfer-encoding: chunked"
HOST = "host: localhost"


def raw(*lines: str | bytes) -> bytes:
    """A head of these lines, and what comes behind it where the last is bytes."""
    body = lines[-1] if isinstance(lines[-1], bytes) else b""
    return "\r\n".join([*(line for line in lines if isinstance(line, str)), "", ""]).encode("latin-1") + body


def bodies(found: Sequence[Got]) -> list[str]:
    return [got.body.decode() for got in found]


# --- any split of what is valid -------------------------------------------------------------------------

PATHS = st.sampled_from(["/a", "/echo", "/b%20c?q=1", "/stream/2", "/large/70000"])
BODIES = st.binary(max_size=40) | st.binary(min_size=1, max_size=4).map(lambda piece: piece * 9000)
OFFER = ("upgrade: h2c", "connection: upgrade")
MORE = st.sampled_from([(), ("x: 1", "X: 2"), OFFER, ("expect: 100-continue",)])
TRAILERS = st.sampled_from([b"", b"host: evil\r\nx: 3\r\n"])


class Asked:
    """A request that is right, and what is answered."""

    def __init__(self, data: bytes, said: bytes, head: bool = False) -> None:
        self.data = data
        self.said = said
        self.head = head

    def __repr__(self) -> str:
        return f"Asked({self.data[:200]!r}, {self.said[:40]!r})"


@st.composite
def asking(draw: st.DrawFn) -> Asked:
    path, more = draw(PATHS), draw(MORE)
    blank = draw(st.sampled_from([b"", b"\r\n"]))
    bare = path.partition("?")[0].replace("%20", " ")
    if draw(st.booleans()):
        method = draw(st.sampled_from(["GET", "HEAD", "DELETE"]))
        if path in ("/stream/2", "/echo", "/large/70000"):
            path = bare = "/a"
        said = f"{method} {bare}".encode()
        return Asked(blank + request(method, path, None, *more), said, method == "HEAD")
    body = draw(BODIES)
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=4)))
    if len(cuts) % 2:
        pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        asked = chunked(pieces, *more, path=path, trailers=draw(TRAILERS))
    else:
        asked = request("POST", path, body, *more)
    said_by = {"/echo": body, "/stream/2": b"0,1,end", "/large/70000": b"x" * 70000}
    return Asked(blank + asked, said_by.get(path, f"POST {bare}".encode()))


def split(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    at = sorted(cut % (len(data) + 1) for cut in cuts)
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True) if b > a]


@given(st.lists(asking(), min_size=1, max_size=12), st.lists(st.integers(0, 10**6), max_size=8))
def test_any_split_of_requests_gives_the_same_replies(asked: list[Asked], cuts: list[int]) -> None:
    heads = [number for number, one in enumerate(asked) if one.head]
    found, line = talk(*split(b"".join(one.data for one in asked), cuts), for_s=80, heads=heads)
    assert [got.status for got in found] == [200] * len(asked)
    for got, one in zip(found, asked, strict=True):
        assert not got.ends
        if one.head:
            assert (got.body, got.headers["content-length"]) == (b"", str(len(one.said)))
        else:
            assert got.whole
            assert got.body == one.said
    assert line.closed_s is not None


@given(st.lists(asking(), min_size=1, max_size=3))
def test_requests_that_come_byte_by_byte_are_answered_alike(asked: list[Asked]) -> None:
    data = b"".join(one.data for one in asked)[:5000]

    async def sent(*parts: bytes) -> list[tuple[int, bytes]]:
        line = Line(Site())
        line.feed(*parts)
        await asyncio.sleep(30)
        line.leave()
        await asyncio.sleep(1)
        heads = [number for number, one in enumerate(asked) if one.head]
        return [(got.status, got.body) for got in replies(line.sent, heads)]

    assert run(sent(data)) == run(sent(*(data[i : i + 1] for i in range(len(data)))))


# --- whatever comes -------------------------------------------------------------------------------------

SCRAPS = st.sampled_from(
    [
        *(b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"%", b"http://", b"HTTP/2.0", b"0\r\n\r\n", b"1;x\r\n"),
        *(b"f" * 17 + b"\r\n", b"GET / HTTP/1.1\r\n", b"CONNECT a:1 HTTP/1.1\r\n", b"host: b\r\n"),
        *(b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b"expect: 100-continue\r\n"),
        *(b"upgrade: x\r\nconnection: upgrade\r\n", b"connection: close\r\n", b"x" * 5000, b"y: z\r\n" * 200),
        *(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    ]
)


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """Requests of which something has become something else."""
    data = b"".join(one.data[:400] for one in draw(st.lists(asking(), max_size=3)))
    for scrap in draw(st.lists(SCRAPS | st.binary(max_size=6), max_size=4)):
        at, until = draw(st.integers(0, len(data))), draw(st.integers(0, 4))
        data = data[:at] + scrap + data[at + until :]
    return data


@given(spoilt(), st.lists(st.integers(0, 10**6), max_size=5))
def test_garbage_ends_in_a_refusal_or_a_closed_connection(data: bytes, cuts: list[int]) -> None:
    async def whole() -> tuple[Line, Site]:
        site = Site()
        line = Line(site)
        for part in split(data, cuts):
            line.feed(part)
            await asyncio.sleep(0.1)
        await asyncio.sleep(300)
        return line, site

    line, site = run(whole())
    assert line.closed_s is not None, "it was never closed"
    assert line.everyone == set()
    assert site.under_way == 0
    assert site.faults == []
    heads = [number for number, exchange in enumerate(site.asked) if exchange.method == "HEAD"]
    found = replies(line.sent, heads)
    assert all(got.status in (200, 400, 408, 413, 431) for got in found)
    assert all(got.whole and not got.ends for n, got in enumerate(found[:-1]) if n not in heads)


# --- what is understood ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        ("/a%2Fb%20%C3%A9?x=%20", "/a/b é", b"localhost"),
        ("/%ff%00", "/\ufffd\0", b"localhost"),
        ("//a", "//a", b"localhost"),
        ("/?", "/", b"localhost"),
        ("http://other:80/v1/x?y", "/v1/x", b"other"),
        ("http://other", "/", b"other"),
        ("http://other?x", "/", b"other"),
        ("HTTP://[::1]:8/a", "/a", b"[::1]"),
        ("*", "*", b"localhost"),
    ],
)
def test_targets_are_read(target: str, path: str, host: bytes) -> None:
    site = Site()
    (got,), _ = talk(request("OPTIONS", target), site=site)
    assert got.status == 200
    assert (site.paths, site.asked[0].headers[b"host"]) == ([path], host)


def test_headers_are_by_name_and_joined() -> None:
    site = Site()
    talk(request("GET", "/", None, "X-A: 1", "x-a:2", "Empty:", "wide:  \xff\t "), site=site)
    assert site.asked[0].headers == {
        b"host": b"localhost",
        b"x-a": b"1, 2",
        b"empty": b"",
        b"wide": b"\xff\t ",
    }


@pytest.mark.parametrize(
    ("head", "kept", "said"),
    [
        (["GET /a HTTP/1.1", HOST], True, None),
        (["GET /a HTTP/1.1", HOST, "connection: close"], False, "close"),
        (["GET /a HTTP/1.1", HOST, "connection: x, Close"], False, "close"),
        (["GET /a HTTP/1.0"], False, "close"),
        (["GET /a HTTP/1.0", "connection: Keep-Alive"], True, "keep-alive"),
        (["GET /stream/1 HTTP/1.0", "connection: keep-alive"], False, "close"),
        (["GET /stream/1 HTTP/1.1", HOST], True, None),
        (["POST /ignores HTTP/1.1", HOST, "content-length: 1"], False, "close"),
    ],
)
def test_a_connection_is_kept_where_both_can(head: list[str], kept: bool, said: str | None) -> None:
    found, line = talk(raw(*head), for_s=40)
    assert found[0].headers.get("connection") == said
    assert (line.closed_s is None or line.closed_s >= 40) == kept
    assert "transfer-encoding" not in found[0].headers or "1.1" in head[0]


@pytest.mark.parametrize("path", ["/a", "/large/3", "/echo"])
def test_head_is_get_without_a_body(path: str) -> None:
    found, _ = talk(request("GET", path) + request("HEAD", path) + GET, heads=[1])
    assert found[1].headers["content-length"] == found[0].headers["content-length"] or path == "/a"
    assert bodies(found)[2] == "GET /"


def test_a_refused_head_has_no_body() -> None:
    data = raw("HEAD / HTTP/1.1", HOST, *(f"x{i}: 1" for i in range(200)))
    (got,), line = talk(data, heads=[0])
    assert got.status == 431
    assert int(got.headers["content-length"]) > 0
    assert line.sent.endswith(b"\r\n\r\n")


# --- one behind the other -------------------------------------------------------------------------------


def test_requests_are_answered_in_their_order() -> None:
    site = Site()
    data = request("GET", "/sleep/5") + request("POST", "/echo", b"b") + request("GET", "/stream/2") + GET
    found, _ = talk(data, site=site, for_s=20)
    assert bodies(found) == ["5", "b", "0,1,end", "GET /"]


def test_only_one_is_answered_at_a_time() -> None:
    async def whole() -> int:
        site = Site()
        line = Line(site)
        line.feed(request("GET", "/sleep/1") * 3)
        await asyncio.sleep(0.5)
        asked = len(site.asked)
        line.leave()
        await asyncio.sleep(5)
        assert len(site.asked) == 1, "those behind were answered for nobody"
        return asked

    assert run(whole()) == 1


def test_reading_pauses_while_many_wait() -> None:
    async def whole() -> None:
        line = Line(Site())
        line.feed(request("GET", "/sleep/5"), *[request("GET", f"/{i}") for i in range(30)])
        assert line.paused
        assert len(line._unread) == 30 - 8
        await asyncio.sleep(6)
        assert bodies(replies(line.sent)) == ["5", *(f"GET /{i}" for i in range(30))]
        assert line._unread == []
        line.leave()
        await asyncio.sleep(0)

    run(whole())


def test_however_many_come_at_once_all_are_answered() -> None:
    found, _ = talk(b"".join(request("GET", f"/{i}") for i in range(10_000)))
    assert bodies(found) == [f"GET /{i}" for i in range(10_000)]


def test_a_body_may_be_incomplete_behind_another_request() -> None:
    head, body = request("GET", "/sleep/5") + request("POST", "/echo", b"0123456789")[:-6], b"456789"

    async def whole() -> list[Got]:
        line = Line(Site())
        line.feed(head)
        await asyncio.sleep(20)
        line.feed(body + GET)
        await asyncio.sleep(1)
        line.leave()
        await asyncio.sleep(0)
        return replies(line.sent)

    assert bodies(run(whole())) == ["5", "0123456789", "GET /"]


def test_nothing_is_answered_behind_a_close() -> None:
    site = Site()
    closing = request("GET", "/sleep/1", None, "connection: close")
    found, line = talk(request("GET", "/a") + closing + request("GET", "/b"), site=site, for_s=5)
    assert bodies(found) == ["GET /a", "1"]
    assert site.paths == ["/a", "/sleep/1"]
    assert line.closing or line.ended


def test_what_came_before_garbage_is_answered_before_it_is_refused() -> None:
    found, _ = talk(request("GET", "/sleep/1") + request("GET", "/a") + b"nonsense\r\n\r\n", for_s=9)
    assert [(got.status, got.ends) for got in found] == [(200, False), (200, False), (400, True)]


def test_a_bad_chunk_is_told_to_its_own_request() -> None:
    body = raw(POST, HOST, CHUNKED, b"1\r\nx\r\nzz\r\n")
    found, _ = talk(request("GET", "/sleep/1") + body, for_s=9)
    assert [(got.status, got.ends) for got in found] == [(200, False), (400, True)]


@pytest.mark.parametrize("cut", [1, 30, 10_000])
def test_offers_of_other_protocols_are_ignored(cut: int) -> None:
    offer = ("upgrade: h2c", "connection: upgrade, http2-settings", "http2-settings: x")
    data = request("POST", "/echo", b"GET / HTTP", *offer) * 3 + chunked([b"a", b"b"], *offer) + GET
    found, _ = talk(*(data[i : i + cut] for i in range(0, len(data), cut)))
    assert bodies(found) == ["GET / HTTP"] * 3 + ["ab", "GET /"]


# --- bodies that are asked for --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "times"),
    [
        (request("POST", "/echo", b"x", "expect: 100-continue")[:-1], 1),
        (request("POST", "/echo", b"x", "Expect: 100-Continue ")[:-1], 1),
        (raw(POST, HOST, CHUNKED, "expect: 100-continue"), 1),
        (request("POST", "/echo", b"x", "expect: 100-continue"), 0),  # it is here
        (request("POST", "/echo", b"", "expect: 100-continue"), 0),
        (request("POST", "/ignores", b"x", "expect: 100-continue")[:-1], 0),
        (request("POST", "/echo", b"x", "expect: other")[:-1], 0),
        (raw("POST /echo HTTP/1.0", "content-length: 1", "expect: 100-continue"), 0),
        (raw(POST, HOST, "content-length: 9999999", "expect: 100-continue"), 0),
    ],
)
def test_a_body_is_asked_for_once_and_only_where_it_is_wanted(data: bytes, times: int) -> None:
    _, line = talk(data)
    assert line.sent.count(b"HTTP/1.1 100 Continue\r\n\r\n") == times


def test_a_body_is_not_asked_for_before_its_turn() -> None:
    async def whole() -> None:
        line = Line(Site())
        line.feed(request("GET", "/sleep/5"), request("POST", "/echo", b"x", "expect: 100-continue")[:-1])
        await asyncio.sleep(1)
        assert line.sent == b""
        await asyncio.sleep(5)
        assert line.sent.endswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        line.feed(b"x")
        await asyncio.sleep(1)
        assert bodies(replies(line.sent)) == ["5", "x"]
        line.leave()
        await asyncio.sleep(0)

    run(whole())


# --- those who answer -----------------------------------------------------------------------------------


def test_a_fault_of_who_answers_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    found, _ = talk(request("GET", "/raise") + GET)
    assert [got.status for got in found] == [500, 200]
    assert re.search("ValueError", caplog.text)


def test_a_fault_behind_the_head_cuts_the_reply(caplog: pytest.LogCaptureFixture) -> None:
    found, line = talk(request("GET", "/raise/begun") + GET)
    ((status, body, whole),) = [(got.status, got.body, got.whole) for got in found]
    assert (status, body, whole) == (200, b"so", False)
    assert line.closing
    assert "ValueError" in caplog.text


def again(exchange: Exchange) -> None:
    exchange.reply(200, b"", b"2")


def more(exchange: Exchange) -> None:
    exchange.write(b"2")


def anew(exchange: Exchange) -> None:
    exchange.begin(200, b"")


@pytest.mark.parametrize("say", [again, more, anew])
def test_nothing_is_said_behind_the_end_of_a_reply(
    say: Callable[[Exchange], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def serve(exchange: Exchange) -> None:
        exchange.reply(200, b"", b"1")
        say(exchange)

    async def whole() -> list[Got]:
        line = Line(serve)
        line.feed(GET + GET)
        await asyncio.sleep(1)
        line.leave()
        await asyncio.sleep(0)
        return replies(line.sent)

    assert bodies(run(whole())) == ["1", "1"]
    assert "AssertionError" in caplog.text


def test_who_answers_nothing_is_told_of_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def serve(exchange: Exchange) -> None:
        return

    async def whole() -> list[Got]:
        line = Line(serve)
        line.feed(GET)
        await asyncio.sleep(1)
        line.leave()
        await asyncio.sleep(0)
        return replies(line.sent)

    assert [got.status for got in run(whole())] == [500]
    assert "GET '/'" in caplog.text


@pytest.mark.parametrize("status", [204, 304])
def test_some_replies_have_no_body(status: int) -> None:
    async def serve(exchange: Exchange) -> None:
        exchange.reply(status, b"", b"")

    async def whole() -> list[Got]:
        line = Line(serve)
        line.feed(GET + GET)
        await asyncio.sleep(1)
        line.leave()
        await asyncio.sleep(0)
        return replies(line.sent, [0, 1])

    found = run(whole())
    assert [got.status for got in found] == [status] * 2
    assert "content-length" not in found[0].headers


# --- who leaves -----------------------------------------------------------------------------------------

LEAVING: dict[str, tuple[bytes, float]] = {
    "idle": (b"", 1),
    "in a head": (GET[:-2], 1),
    "in a body": (request("POST", "/echo", b"12345")[:-1], 1),
    "before the answer": (request("GET", "/sleep/5"), 1),
    "in a stream": (request("GET", "/stream/5"), 1.5),
    "behind the reply": (GET, 1),
    "with others behind": (request("GET", "/sleep/5") * 5, 1),
    "with a body behind": (request("GET", "/sleep/5") + request("POST", "/echo", b"1")[:-1], 1),
    "refused": (b"nonsense\r\n\r\n", 1),
}


@pytest.mark.parametrize("how", ["leave", "reset"])
@pytest.mark.parametrize("when", LEAVING)
def test_who_leaves_is_answered_no_more(when: str, how: str) -> None:
    """Its task ends at once, and so does the memory of it, with no need for the garbage collector."""
    data, after_s = LEAVING[when]

    async def whole() -> tuple[Site, weakref.ref[Connection]]:
        site = Site()
        line = Line(site)
        known = weakref.ref(line.connection)
        line.feed(data)
        await asyncio.sleep(after_s)
        getattr(line, how)()
        await asyncio.sleep(0.1)
        assert line.everyone == set()
        assert line.connection.tasks == []
        del line.connection, line.protocol, line
        return site, known

    gc.collect()
    gc.disable()
    try:
        site, known = run(whole())
        assert site.under_way == 0
        assert all(exchange.gone != exchange.ended for exchange in site.asked)
        site.asked.clear()
        site.faults.clear()
        assert known() is None
    finally:
        gc.enable()


def test_a_simple_answer_reaches_who_sends_no_more() -> None:
    """Half-closed behind the request, as `printf | nc` does: what takes no time is there already."""
    found, _ = talk(GET, for_s=0)
    assert bodies(found) == ["GET /"]
