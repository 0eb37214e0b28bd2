"""What a connection waits for, and how long; what it may make the server hold."""

import asyncio
import tracemalloc
from collections.abc import Coroutine
from typing import Any

import pytest

from manyminds.web.exchange import Exchange
from tests.clock import run
from tests.web.line import HIGH, HOST, Got, Line, Site, bodies, chunked, raw, replies, request

GET = request()
POST = "POST /echo HTTP/1.1"
CHUNKED = "transfer-encoding: chunked"


async def trickle(line: Line, data: bytes, every_s: float, size: int = 1) -> None:
    for at in range(0, len(data), size):
        await asyncio.sleep(every_s)
        line.feed(data[at : at + size])


def statuses(line: Line) -> list[int]:
    return [got.status for got in replies(line.sent)]


def check(coro: Coroutine[Any, Any, Line], *expected: int, closed_s: float | None) -> None:
    line = run(coro)
    assert statuses(line) == list(expected)
    assert line.closed_s == (closed_s if closed_s is None else pytest.approx(closed_s, abs=0.1))
    assert line.everyone == set()


# --- heads ----------------------------------------------------------------------------------------------


def test_who_connects_and_says_nothing_is_let_go() -> None:
    async def whole() -> Line:
        line = Line(Site())
        await asyncio.sleep(300)
        return line

    check(whole(), closed_s=10)


@pytest.mark.parametrize("first", [b"", b"\r\n", b"G"])
def test_a_head_has_ten_seconds(first: bytes) -> None:
    """Told so, where a request had begun; then the client gets ten more to read that."""

    async def whole() -> Line:
        line = Line(Site())
        await asyncio.sleep(3)
        line.feed(first)
        await trickle(line, GET[first == b"G" : -2] + b"x: " + b"y" * 100, 1.5)
        await asyncio.sleep(100)
        return line

    check(whole(), 408, closed_s=20)


def test_a_kept_connection_has_75_seconds_until_the_next_request() -> None:
    async def whole() -> Line:
        line = Line(Site())
        line.feed(GET)
        await asyncio.sleep(74)
        line.feed(GET)
        await asyncio.sleep(300)
        return line

    check(whole(), 200, 200, closed_s=74 + 75)


def test_a_later_head_has_ten_seconds_too() -> None:
    async def whole() -> Line:
        line = Line(Site())
        line.feed(GET)
        await asyncio.sleep(30)
        await trickle(line, GET, 1.0)
        await asyncio.sleep(300)
        return line

    check(whole(), 200, 408, closed_s=31 + 20)


def test_a_head_that_begins_during_a_reply_has_its_time_from_the_end_of_that() -> None:
    async def whole() -> Line:
        line = Line(Site())
        line.feed(request("GET", "/sleep/50") + GET[:-2])
        await asyncio.sleep(300)
        return line

    check(whole(), 200, 408, closed_s=50 + 20)


def test_a_head_that_ends_in_time_is_answered() -> None:
    async def whole() -> Line:
        line = Line(Site())
        line.feed(request("GET", "/sleep/50") + GET[:-2])
        await asyncio.sleep(59)
        line.feed(GET[-2:])
        await asyncio.sleep(300)
        return line

    check(whole(), 200, 200, closed_s=59 + 75)


# --- bodies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [request("POST", "/echo", b"x" * 100)[:-100], raw(POST, HOST, CHUNKED)])
def test_a_body_that_never_comes_is_waited_for_a_minute(head: bytes) -> None:
    async def whole() -> Line:
        line = Line(Site())
        line.feed(head)
        await asyncio.sleep(300)
        return line

    check(whole(), 408, closed_s=70)


def test_a_body_that_trickles_is_waited_for_a_minute() -> None:
    """However short its pauses: it would keep a place for as long as it likes."""

    async def whole() -> Line:
        line = Line(Site())
        body = b"x" * 10_000
        line.feed(request("POST", "/echo", body)[: -len(body)])
        await trickle(line, body, 1.0, 20)
        await asyncio.sleep(100)
        return line

    check(whole(), 408, closed_s=61.2 + 10)


def test_a_slow_body_is_read_where_it_comes() -> None:
    async def whole() -> Line:
        line = Line(Site())
        body = b"x" * 600_000
        line.feed(request("POST", "/echo", body)[: -len(body)])
        await trickle(line, body, 10.0, 20_000)
        await asyncio.sleep(1)
        line.leave()
        await asyncio.sleep(1)
        return line

    check(whole(), 200, closed_s=301)


def test_a_body_behind_another_request_has_its_time_from_its_turn_on() -> None:
    async def whole() -> Line:
        line = Line(Site())
        line.feed(request("GET", "/sleep/100") + request("POST", "/echo", b"xx")[:-1])
        await asyncio.sleep(300)
        return line

    check(whole(), 200, 408, closed_s=170)


REFUSED = [
    (request("POST", "/echo", b"x" * 2_000_000), 413),
    (chunked([b"x" * 50_000] * 40), 413),
    (request("POST", "/ignores", b"x" * 2_000_000), 200),
]


@pytest.mark.parametrize(("data", "status"), REFUSED)
@pytest.mark.parametrize("waits", [False, True])
def test_the_rest_of_a_refused_body_is_thrown_away(data: bytes, status: int, waits: bool) -> None:
    """Closed at once, the client might be told of a reset, not of the refusal (RFC 9112, 9.6)."""

    async def whole() -> Line:
        line = Line(Site())
        parts = [data[at : at + 65_536] for at in range(0, len(data), 65_536)]
        for part in parts:
            line.feed(part)
            await asyncio.sleep(0.001)
        (got,) = replies(line.sent)
        assert (got.status, got.ends) == (status, True)
        assert (line.ended, line.closing, line.paused) == (True, False, False)
        assert line._unread == []
        if waits:
            await asyncio.sleep(100)
        else:
            line.leave()
            await asyncio.sleep(1)
        return line

    check(whole(), status, closed_s=10 if waits else 0)


def test_nothing_behind_a_refused_body_is_answered() -> None:
    site = Site()

    async def whole() -> Line:
        line = Line(site)
        data = request("POST", "/echo", b"x" * 2_000_000)
        line.feed(data[:100])
        await asyncio.sleep(1)
        line.feed(data[100:], GET, b"nonsense\r\n\r\n", GET)
        await asyncio.sleep(100)
        return line

    check(whole(), 413, closed_s=10)
    assert site.paths == ["/echo"]


# --- who takes nothing ----------------------------------------------------------------------------------


def test_who_takes_nothing_of_a_reply_is_given_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    async def whole() -> Line:
        line = Line(Site(), takes=False)
        line.feed(request("GET", "/large/1000000"))
        await asyncio.sleep(300)
        return line

    check(whole(), closed_s=60)
    assert "taken next to nothing" in caplog.text


@pytest.mark.parametrize("more", [(), ("connection: close",)])
def test_who_takes_nothing_of_a_short_reply_is_let_go_too(more: tuple[str, ...]) -> None:
    """It does not fill what waits, so that nobody pauses: idle or closing, the connection has its end."""

    async def whole() -> Line:
        line = Line(Site(), takes=False)
        line.feed(request("GET", "/", None, *more))
        await asyncio.sleep(300)
        return line

    check(whole(), closed_s=60 if more else 75)


def test_who_takes_nothing_of_a_stream_leaves_it() -> None:
    site = Site()
    held = []

    async def flood(exchange: Exchange, size: str) -> None:
        exchange.begin(200, b"")
        for _ in range(10_000):
            exchange.write(b"x" * 1000)
            if exchange.full:
                held.append(line_of[0].get_write_buffer_size())
                await exchange.drained()
        exchange.write(b"", last=True)

    site._flood = flood  # type: ignore[attr-defined]
    line_of: list[Line] = []

    async def whole() -> Line:
        line = Line(site, takes=False)
        line_of.append(line)
        line.feed(request("GET", "/flood"))
        await asyncio.sleep(300)
        return line

    check(whole(), closed_s=60)
    assert (site.under_way, site.asked[0].gone, site.asked[0].ended) == (0, True, False)
    assert max(held) <= HIGH + 1100
    assert isinstance(site.faults[0], asyncio.CancelledError)


def test_who_takes_slowly_gets_everything() -> None:
    """Of a stream and of a reply in one piece, as long as it is 64 kB a minute."""

    async def whole() -> Line:
        line = Line(Site(), takes=False)
        line.feed(request("GET", "/large/1000000", None, "connection: close"))
        for _ in range(30):
            await asyncio.sleep(20)
            line.take(40_000)
        return line

    line = run(whole())
    (got,) = replies(line.sent)
    assert (got.whole, len(got.body)) == (True, 1_000_000)


def test_who_takes_too_slowly_does_not() -> None:
    async def whole() -> Line:
        line = Line(Site(), takes=False)
        line.feed(request("GET", "/large/1000000"))
        for _ in range(100):
            await asyncio.sleep(10)
            line.take(1000)
        return line

    line = run(whole())
    assert line.closed_s == pytest.approx(60)


def test_no_request_is_begun_before_the_last_reply_was_taken() -> None:
    """Else what waits would grow with every request, which costs a client nothing."""
    site = Site()

    async def whole() -> list[Got]:
        line = Line(site, takes=False)
        line.feed(*[request("GET", "/large/50000")] * 40)
        most = 0
        for _ in range(100):
            await asyncio.sleep(1)
            most = max(most, len(line.waiting))
            assert line.paused or not line._unread
            line.take(60_000)
        assert most < HIGH + 2 * 50_500
        line.leave()
        await asyncio.sleep(1)
        return replies(line.sent)

    assert [len(got.body) for got in run(whole())] == [50_000] * 40


def test_an_end_while_the_client_takes_nothing_is_an_end() -> None:
    async def whole() -> Line:
        line = Line(Site(), takes=False)
        line.feed(*[request("GET", "/large/100000")] * 3)
        await asyncio.sleep(1)
        line.connection.close()
        await asyncio.sleep(300)
        return line

    check(whole(), closed_s=60)


# --- ends -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [b"", GET[:-2]])
def test_an_idle_connection_is_closed_at_once(begun: bytes) -> None:
    async def whole() -> Line:
        line = Line(Site())
        line.feed(GET, begun)
        await asyncio.sleep(5)
        line.connection.close()
        await asyncio.sleep(0)
        return line

    check(whole(), 200, closed_s=5)


def test_what_is_here_is_answered_before_the_end_and_what_comes_later_is_not() -> None:
    site = Site()

    async def whole() -> Line:
        line = Line(site)
        line.feed(request("GET", "/sleep/5") * 3)
        await asyncio.sleep(1)
        line.connection.close()
        line.feed(request("GET", "/late"))
        await asyncio.sleep(30)
        return line

    line = run(whole())
    found = replies(line.sent)
    assert [(got.body, got.ends) for got in found] == [(b"5", False), (b"5", False), (b"5", True)]
    assert len(site.asked) == 3
    assert line.closed_s == 25  # a client that is still sending gets ten seconds


def test_a_body_that_is_still_coming_is_read_before_the_end() -> None:
    async def whole() -> Line:
        line = Line(Site())
        line.feed(request("POST", "/echo", b"12")[:-1])
        await asyncio.sleep(1)
        line.connection.close()
        await asyncio.sleep(1)
        line.feed(b"2" + GET)
        await asyncio.sleep(1)
        line.leave()
        await asyncio.sleep(1)
        return line

    line = run(whole())
    assert [(got.body, got.ends) for got in replies(line.sent)] == [(b"12", True)]


BROKEN_OFF = [("/sleep/99", (503, True, True)), ("/stream/99", (200, False, False))]


@pytest.mark.parametrize(("path", "expected"), BROKEN_OFF)
def test_what_is_broken_off_is_told_so(path: str, expected: tuple[int, bool, bool]) -> None:
    site = Site()

    async def whole() -> Line:
        line = Line(site)
        line.feed(request("GET", path), request("GET", "/behind"))
        await asyncio.sleep(1)
        line.connection.close()
        line.connection.break_off()
        await asyncio.sleep(1)
        return line

    line = run(whole())
    (got,) = replies(line.sent)
    assert (got.status, got.ends, got.whole) == expected
    assert site.paths == [path]
    assert (site.under_way, line.closing) == (0, True)


# --- room -----------------------------------------------------------------------------------------------

NAMES = [f"x{i}:" for i in range(120)]
HUNGRY = {
    "small requests": request("GET", "/sleep/9") * 6000,
    "headers": raw("GET /sleep/9 HTTP/1.1", HOST, *NAMES) * 300,
    "a head": b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 60_000,
    "a URL": b"GET /" + b"x" * 300_000,
    "a body": request("POST", "/sleep/9", b"x" * 260_000),
    "small chunks": request("POST", "/sleep/9", None, CHUNKED) + b"1\r\nx\r\n" * 40_000,
    "bodies": request("POST", "/sleep/9", b"x" * 30_000) * 8,
    "offers": request("GET", "/sleep/9", None, "upgrade: x", "connection: upgrade") * 2000,
}


@pytest.mark.parametrize("what", HUNGRY)
def test_what_a_connection_holds_is_bounded(what: str) -> None:
    """But for the body that is being read, which has the limit of who reads it."""
    data = HUNGRY[what]

    async def whole() -> int:
        lines = [Line(Site()) for _ in range(3)]
        for line in lines[:2]:
            line.feed(data)  # as in one read
        await asyncio.sleep(1)
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        lines[2].feed(bytes(data), bytes(data))
        await asyncio.sleep(1)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        for line in lines:
            line.reset()
        await asyncio.sleep(1)
        return after - before

    assert run(whole()) < 1_000_000


def test_a_body_in_small_pieces_takes_no_more_room_than_in_one() -> None:
    async def whole() -> int:
        line = Line(Site())
        line.feed(raw(POST, HOST, CHUNKED))
        await asyncio.sleep(0.1)
        tracemalloc.start()
        for _ in range(100):
            line.feed(b"2\r\nxy\r\n" * 2000)
            await asyncio.sleep(0.001)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        line.feed(b"0\r\n\r\n")
        await asyncio.sleep(0.1)
        assert len(bodies(replies(line.sent))[0]) == 400_000
        line.leave()
        await asyncio.sleep(0.1)
        return held

    assert run(whole()) < 1_000_000
