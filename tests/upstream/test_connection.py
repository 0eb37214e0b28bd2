"""What is sent and what is read, byte by byte, on a connection that is none: see `Wire`."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.upstream import BrokenError, ProtocolError, Response, Target, UpstreamError
from manyminds.upstream.connection import Connection, Pool
from tests.clock import run

TARGET = Target("http://h/", {})
OK = b"HTTP/1.1 200 OK\r\n"
SHORT = OK + b"content-length: 2\r\n\r\nhi"


async def reply_of(connection: Connection) -> Response:
    """The reply to a request, once its head has come."""
    response = connection.ask(b"GET")
    await response.begun()
    return response


class Wire(asyncio.Transport):
    """A connection's other end, which does what the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.unsent = 0
        self.reading = True
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


def opened(pool: Pool | None = None) -> tuple[Connection, Wire]:
    pool = pool or Pool(9)
    connection, wire = Connection(pool, TARGET.origin), Wire()
    connection.connection_made(wire)
    pool.opened(connection)
    return connection, wire


@dataclass(frozen=True)
class Got:
    """What a reader has of a reply in the end."""

    status: int
    headers: dict[str, str]
    body: bytes
    error: type[UpstreamError] | None


async def exchange(connection: Connection, pieces: Sequence[bytes], closed: bool = True) -> Got:
    """One request, whose reply comes in these pieces."""
    asked = asyncio.create_task(reply_of(connection))
    await asyncio.sleep(0)
    for piece in pieces:
        connection.data_received(piece)
    if closed:
        connection.connection_lost(None)
    body = b""
    try:
        response = await asked
    except UpstreamError as error:
        return Got(0, {}, b"", type(error))
    try:
        async for received in response:
            body += received
    except UpstreamError as error:
        return Got(response.status, response.headers, body, type(error))
    return Got(response.status, response.headers, body, None)


def got(*pieces: bytes, closed: bool = True) -> Got:
    return run(exchange(opened()[0], pieces, closed))


# --- replies ---------------------------------------------------------------------------------------


@st.composite
def replies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A reply and its body."""
    body = draw(st.binary(max_size=40))
    head = draw(
        st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nlink: x\r\n\r\n"])
    )
    head += draw(st.sampled_from([OK, b"HTTP/1.1 404 No\r\n", b"HTTP/1.0 503 \r\n", b"HTTP/1.1 200\r\n"]))
    for _ in range(draw(st.integers(0, 3))):
        head += draw(
            st.sampled_from([b"X-A: 1\r\n", b"x-a:  two \r\n", b"Content-Type: a/b; c\r\n", b"e:\r\n"])
        )
    match draw(st.sampled_from(["length", "chunked", "close"])):
        case "length":
            return head + b"Content-Length: %d\r\n\r\n" % len(body) + body, body
        case "close":
            return head + b"connection: close\r\n\r\n" + body, body
    places = sorted(draw(st.lists(st.integers(0, len(body)), max_size=3)))
    parts = [body[a:b] for a, b in zip([0, *places], [*places, len(body)], strict=True)]
    end = draw(st.sampled_from([b"0\r\n\r\n", b"0\r\nx-trailer: y\r\n\r\n", b"0;last\r\n\r\n"]))
    extension = draw(st.sampled_from([b"", b";a=b"]))
    framed = b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts if part)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + framed + end, body


def cut(draw: st.DataObject, whole: bytes) -> list[bytes]:
    places = sorted(draw.draw(st.lists(st.integers(0, len(whole)), max_size=6, unique=True)))
    return [p for a, b in zip([0, *places], [*places, len(whole)], strict=True) if (p := whole[a:b])]


@given(replies(), st.data())
def test_a_reply_is_the_same_however_it_is_cut(reply: tuple[bytes, bytes], draw: st.DataObject) -> None:
    sent, body = reply
    at_once = got(sent)
    assert (at_once.body, at_once.error) == (body, None)
    assert got(*cut(draw, sent)) == at_once
    assert got(*(sent[i : i + 1] for i in range(len(sent)))) == at_once


@given(st.binary(max_size=60) | replies().map(lambda r: r[0]), st.binary(max_size=9), st.data())
def test_so_is_garbage(sent: bytes, noise: bytes, draw: st.DataObject) -> None:
    place = draw.draw(st.integers(0, len(sent)))
    sent = sent[:place] + noise + sent[place + len(noise) :]
    assert got(*cut(draw, sent)) == got(sent)


def test_headers_are_by_lower_case_name_and_joined() -> None:
    found = got(OK + b"X-A: 1\r\nx-a: \xe9 \r\nContent-Length: 0\r\n\r\n")
    assert found.headers == {"x-a": "1, \xe9", "content-length": "0"}


@pytest.mark.parametrize(
    ("reply", "body", "error"),
    [
        (b"HTTP/1.1 204 No\r\n\r\n", b"", None),
        (b"HTTP/1.1 304 No\r\ncontent-length: 9\r\n\r\n", b"", None),
        (b"HTTP/1.1 200 OK\ncontent-length: 2\n\nhi", b"hi", None),
        (OK + b"\r\nuntil the end", b"until the end", None),
        (OK + b"content-length: 9\r\n\r\nhi", b"hi", BrokenError),
        (OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n", b"hi", BrokenError),
        (OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\nzz\r\n", b"hi", ProtocolError),
        (OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nhi", b"", ProtocolError),
        (OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", b"", ProtocolError),
        (OK + b"content-length: -2\r\n\r\nhi", b"", ProtocolError),
        (OK + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\nhi", b"", ProtocolError),
        (OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", b"", ProtocolError),
        (OK + b"transfer-encoding: gzip\r\n\r\nhi", b"", ProtocolError),
        (OK + b"content-encoding: identity\r\ncontent-length: 2\r\n\r\nhi", b"hi", None),
        (b"HTTP/1.1 101 So\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", b"", ProtocolError),
        (OK + b"a: " + b"b" * 70_000, b"", ProtocolError),
        (OK + b"a: b\r\n" * 20_000 + b"\r\n", b"", ProtocolError),
        (b"HTTP/1.1 100 Go\r\n\r\n" * 5_000, b"", ProtocolError),
        (b"HTTP/2 200\r\n\r\n", b"", ProtocolError),
        (b"", b"", BrokenError),
    ],
)
def test_replies_are_told_from_what_is_none(
    reply: bytes, body: bytes, error: type[UpstreamError] | None
) -> None:
    for pieces in ([reply], [reply[i : i + 1000] for i in range(0, len(reply), 1000)]):
        found = got(*pieces)
        assert (found.body, found.error) == (body, error)


def test_a_body_ends_with_its_connection_only_where_nobody_broke_that_off() -> None:
    async def main() -> None:
        connection, _ = opened()
        asked = asyncio.create_task(reply_of(connection))
        await asyncio.sleep(0)
        connection.data_received(OK + b"\r\nunt")
        connection.connection_lost(ConnectionResetError(104, "reset by peer"))
        response = await asked
        assert await anext(response) == b"unt"
        with pytest.raises(BrokenError, match="reset by peer"):
            await anext(response)

    run(main())


@pytest.mark.parametrize("frame", [b"1;" + b"x" * 70_000, b"0\r\n" + b"a: b\r\n" * 20_000])
def test_what_frames_a_body_is_limited(frame: bytes) -> None:
    pieces = [frame[i : i + 1000] for i in range(0, len(frame), 1000)]
    found = got(OK + b"transfer-encoding: chunked\r\n\r\n", *pieces, closed=False)
    assert found.error is ProtocolError


# --- a connection's next request -------------------------------------------------------------------


def test_a_reply_that_came_at_once_is_read_without_waiting() -> None:
    async def main() -> bytes:
        connection, _ = opened()
        asked = reply_of(connection)
        waiter = asked.send(None)
        connection.data_received(SHORT)
        assert waiter.done()
        try:
            asked.send(None)
        except StopIteration as answered:
            whole = answered.value.whole(10)
        try:
            whole.send(None)
        except StopIteration as read:
            body: bytes = read.value
        return body

    assert run(main()) == b"hi"


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        (SHORT, True),
        (b"HTTP/1.1 204 No\r\n\r\n", True),
        (SHORT.replace(b"200", b"500"), True),
        (SHORT.replace(b"1.1", b"1.0"), False),
        (SHORT.replace(b"1.1", b"1.0").replace(b"\r\n\r\n", b"\r\nconnection: keep-alive\r\n\r\n"), True),
        (SHORT.replace(b"\r\n\r\n", b"\r\nConnection: Close\r\n\r\n"), False),
        (SHORT + b"more", False),
        (SHORT + SHORT, False),
        (SHORT[:-1], False),
        (OK + b"\r\n", False),
    ],
)
def test_a_connection_is_kept_after_what_ends_well(reply: bytes, kept: bool) -> None:
    async def main() -> tuple[Connection | None, bool, Connection]:
        connection, wire = opened(pool := Pool(9))
        asked = asyncio.create_task(reply_of(connection))
        await asyncio.sleep(0)
        connection.data_received(reply)
        (await asked).close()
        return pool.take(TARGET.origin), wire.aborted, connection

    taken, aborted, connection = run(main())
    assert (taken, aborted) == ((connection, False) if kept else (None, True))


def test_a_request_that_was_refused_before_it_was_sent_ends_its_connection() -> None:
    async def main() -> None:
        connection, wire = opened(pool := Pool(9))
        wire.unsent = 1
        assert (await exchange(connection, [SHORT], closed=False)).body == b"hi"
        assert wire.aborted
        assert pool.take(TARGET.origin) is None

    run(main())


def test_what_nobody_asked_for_ends_a_connection() -> None:
    async def main() -> None:
        connection, wire = opened(pool := Pool(9))
        for _ in range(3):
            assert (await exchange(connection, [SHORT], closed=False)).body == b"hi"
            assert pool.take(TARGET.origin) is connection
        await exchange(connection, [SHORT], closed=False)
        connection.data_received(b"H")
        assert wire.aborted
        assert pool.take(TARGET.origin) is None

    run(main())


def test_kept_connections_are_few_and_the_last_is_the_first() -> None:
    async def main() -> None:
        pool = Pool(3)
        made = [opened(pool) for _ in range(5)]
        for connection, _ in made:
            await exchange(connection, [SHORT], closed=False)
        assert [wire.aborted for _, wire in made] == [False] * 3 + [True] * 2
        made[1][0].connection_lost(None)
        assert [pool.take(TARGET.origin) for _ in range(3)] == [made[2][0], made[0][0], None]

    run(main())


def test_who_is_idle_for_long_is_closed_and_who_is_busy_is_not() -> None:
    async def main() -> None:
        pool = Pool(9)
        (first, a), (second, b), (third, c) = (opened(pool) for _ in range(3))
        await exchange(first, [SHORT], closed=False)
        await asyncio.sleep(10)
        await exchange(second, [SHORT], closed=False)
        asked = asyncio.create_task(reply_of(third))
        await asyncio.sleep(10)
        assert [wire.aborted for wire in (a, b, c)] == [True, False, False]
        await asyncio.sleep(10)
        assert [wire.aborted for wire in (a, b, c)] == [True, True, False]
        third.data_received(SHORT)
        await asked
        await asyncio.sleep(20)
        assert c.aborted

    run(main())


async def begun(connection: Connection) -> Response:
    asked = asyncio.create_task(reply_of(connection))
    await asyncio.sleep(0)
    connection.data_received(OK + b"transfer-encoding: chunked\r\n\r\n4\r\ndone\r\n")
    return await asked


def test_a_reply_that_is_released_may_end_and_its_connection_is_kept() -> None:
    async def main() -> None:
        connection, wire = opened(pool := Pool(9))
        (await begun(connection)).release()
        assert pool.take(TARGET.origin) is None
        connection.data_received(b"0\r\n\r\n")
        assert pool.take(TARGET.origin) is connection
        (await begun(connection)).release()
        connection.data_received(b"11171\r\n" + b"x" * 70_000)
        assert wire.aborted

    run(main())


def test_a_reply_that_is_released_may_not_take_for_ever() -> None:
    async def main() -> None:
        connection, wire = opened()
        (await begun(connection)).release()
        await asyncio.sleep(20)
        assert wire.aborted

    run(main())


def test_closing_early_closes_the_connection_and_ends_reading() -> None:
    async def main() -> None:
        connection, wire = opened()
        response = await begun(connection)
        response.close()
        assert wire.aborted
        with pytest.raises(BrokenError):
            await response.whole(100)

    run(main())


# --- size ------------------------------------------------------------------------------------------


def test_little_is_buffered_while_nobody_reads() -> None:
    async def main() -> None:
        connection, wire = opened()
        response = await begun(connection)
        sent = read = 0
        for _ in range(3):
            while wire.reading:
                connection.data_received(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
                sent += 65_536
            assert sent - read <= 2**18 + 2**16
            read += len(await anext(response))
            assert wire.reading
        assert read == sent + 4

    run(main())


def test_a_whole_body_is_limited() -> None:
    async def main() -> None:
        for limit, fits in ((4, True), (3, False)):
            connection, wire = opened()
            response = await begun(connection)
            connection.data_received(b"0\r\n\r\n" if fits else b"")
            with suppress(ProtocolError):
                assert await response.whole(limit) == b"done"
                assert fits
            assert wire.aborted is not fits

    run(main())
