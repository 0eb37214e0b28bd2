"""A connection in virtual time with a client at the other end of it, who may do as it likes."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from manyminds.alarm import Alarm
from manyminds.errors import ManymindsError
from manyminds.web.connection import Connection, Serve
from manyminds.web.exchange import Exchange
from tests.clock import run
from tests.web.client import Wire

HOST = "host: localhost"
HIGH, LOW = 65_536, 16_384  # asyncio's marks: what waits to be sent pauses writing, and lets it go on


@dataclass(frozen=True)
class Got:
    """A reply as it was framed."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool = True

    @property
    def ends(self) -> bool:
        return self.headers.get("connection") == "close"


class Line(Wire):
    """Both directions. What the client does not take waits; what the server does not read waits too."""

    def __init__(self, serve: Serve, *, takes: bool = True, alarm: Alarm | None = None) -> None:
        super().__init__()
        self.takes = takes  # whatever comes, at once
        self.waiting = b""
        self.closing = False
        self.closed_s: float | None = None
        self._unread: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self.everyone: set[Connection] = set()
        self.connection = Connection(serve, alarm or Alarm(), self.everyone)
        self.protocol = self.connection
        self.connection.connection_made(self)

    # --- the client's end ---

    def feed(self, *parts: bytes) -> None:
        """Sends, as far as the server reads."""
        self._unread += parts
        while self._unread and not self.paused and not self.closing:
            self.connection.data_received(self._unread.pop(0))

    def take(self, size: int = 2**40) -> None:
        """Takes some of what waits."""
        self.sent += self.waiting[:size]
        self.waiting = self.waiting[size:]
        if self.connection.full and len(self.waiting) <= LOW:
            self.connection.resume_writing()
        if self.closing and not self.waiting:
            self._lose()

    def leave(self) -> None:
        """What asyncio does when the client has closed, or half of it."""
        if self.connection.eof_received() is None:  # type: ignore[func-returns-value]
            self.close()

    def reset(self) -> None:
        self.abort()

    # --- the server's end ---

    def write(self, data: object) -> None:
        assert isinstance(data, bytes)
        assert not self.ended, "written after the end"
        if self.closed.is_set():
            return
        self.waiting += data
        if self.takes:
            self.take()
        elif len(self.waiting) > HIGH and not self.connection.full:
            self.connection.pause_writing()

    def get_write_buffer_size(self) -> int:
        return len(self.waiting)

    def resume_reading(self) -> None:
        super().resume_reading()
        self._loop.call_soon(self.feed)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True
        if not self.waiting:
            self._lose()

    def abort(self) -> None:
        self.closing, self.waiting = True, b""
        self._lose()

    def _lose(self) -> None:
        if self.closed_s is None:
            self.closed_s = self._loop.time() - self._began_s
            self.closed.set()
            self._loop.call_soon(self.connection.connection_lost, None)


def replies(sent: bytes, heads: Sequence[int] = ()) -> list[Got]:
    """The replies that lie one behind the other, read strictly. `heads` are those to HEAD, by number."""
    found: list[Got] = []
    while sent:
        head, blank, sent = sent.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert (version, blank) == ("HTTP/1.1", b"\r\n\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        assert len(headers) == len(pairs), "a header came twice"
        if status == "100":
            assert not lines
            continue
        assert not ({"transfer-encoding", "content-length"} <= set(headers))
        body, whole = b"", True
        if len(found) not in heads:
            body, whole, sent = _body(headers, sent)
        found.append(Got(int(status), headers, body, whole))
    return found


def _body(headers: dict[str, str], sent: bytes) -> tuple[bytes, bool, bytes]:
    if headers.get("transfer-encoding") != "chunked":
        size = int(headers["content-length"]) if "content-length" in headers else len(sent)
        return sent[:size], len(sent) >= size, sent[size:]
    body = b""
    while sent:
        digits, _, sent = sent.partition(b"\r\n")
        length = int(digits, 16)
        body += sent[:length]
        assert sent[length : length + 2] == b"\r\n"
        sent = sent[length + 2 :]
        if not length:
            return body, True, sent
    return body, False, b""


def request(
    method: str = "GET", path: str = "/", body: bytes | None = None, *more: str, version: str = "1.1"
) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/{version}", HOST, *more]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def chunked(pieces: Sequence[bytes], *more: str, path: str = "/echo", trailers: bytes = b"") -> bytes:
    """A POST with its body in pieces."""
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
    head = request("POST", path, None, "transfer-encoding: chunked", *more)
    return b"".join((head, framed, b"0\r\n", trailers, b"\r\n"))


def raw(*lines: str | bytes) -> bytes:
    """A head of these lines, and what comes behind it where the last is bytes."""
    body = lines[-1] if isinstance(lines[-1], bytes) else b""
    return "\r\n".join([*(line for line in lines if isinstance(line, str)), "", ""]).encode("latin-1") + body


class Site:
    """Answers by path, and remembers whom. `/sleep/5` takes five seconds, `/echo` says what it was sent."""

    def __init__(self, limit_bytes: int = 1_000_000) -> None:
        self.limit_bytes = limit_bytes
        self.asked: list[Exchange] = []
        self.under_way = 0
        self.faults: list[BaseException] = []

    async def __call__(self, exchange: Exchange) -> None:
        self.asked.append(exchange)
        self.under_way += 1
        try:
            kind, _, size = exchange.path.strip("/").partition("/")
            await getattr(self, f"_{kind}", self._whole)(exchange, size)
        except ManymindsError as error:
            exchange.reply(error.status, b"", error.message.encode())
        except BaseException as fault:
            self.faults.append(fault)
            raise
        finally:
            self.under_way -= 1

    @property
    def paths(self) -> list[str]:
        return [exchange.path for exchange in self.asked]

    async def _whole(self, exchange: Exchange, size: str) -> None:
        await exchange.body(self.limit_bytes)
        exchange.reply(200, b"", f"{exchange.method} {exchange.path}".encode())

    async def _ignores(self, exchange: Exchange, size: str) -> None:
        exchange.reply(200, b"", b"")

    async def _echo(self, exchange: Exchange, size: str) -> None:
        exchange.reply(200, b"", await exchange.body(self.limit_bytes))

    async def _large(self, exchange: Exchange, size: str) -> None:
        await exchange.body(self.limit_bytes)
        exchange.reply(200, b"", b"x" * int(size))

    async def _sleep(self, exchange: Exchange, size: str) -> None:
        await asyncio.sleep(float(size))
        exchange.reply(200, b"", size.encode())

    async def _stream(self, exchange: Exchange, size: str) -> None:
        await exchange.body(self.limit_bytes)
        exchange.begin(200, b"")
        for number in range(int(size)):
            exchange.write(b"%d," % number)
            await asyncio.sleep(1)
        exchange.write(b"end", last=True)

    async def _raise(self, exchange: Exchange, size: str) -> None:
        if size == "begun":
            exchange.begin(200, b"")
            exchange.write(b"so")
        raise ValueError(size)


def talk(
    *parts: bytes, site: Site | None = None, for_s: float = 0.5, heads: Sequence[int] = ()
) -> tuple[list[Got], Line]:
    """What comes back for `parts`, each of which the server reads at once."""

    async def whole() -> tuple[list[Got], Line]:
        line = Line(site or Site())
        for part in parts:
            line.feed(part)
            await asyncio.sleep(0.01)
        await asyncio.sleep(for_s)
        line.leave()
        await asyncio.sleep(0.01)
        assert line.everyone == set()
        return replies(line.sent, heads), line

    return run(whole())


def bodies(found: Sequence[Got]) -> list[str]:
    return [got.body.decode() for got in found]
