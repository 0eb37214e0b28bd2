"""One request and the reply to it. Knows how HTTP/1.1 frames a reply, and neither endpoint nor parser."""

import asyncio
import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from manyminds.alarm import Watch
from manyminds.errors import ManymindsError, SlowRequestError, TooLargeError

if TYPE_CHECKING:
    from manyminds.web.connection import Connection

__all__ = ["Exchange", "start"]

_READ_S: Final = 60.0  # between two pieces of a request's body
_READ_BYTES_PER_S: Final = 1000  # of all of it, after that time
_KNOWN: Final = frozenset(HTTPStatus)
_BODILESS: Final = frozenset({204, 304})


class Exchange:
    """A request whose head has come. It is answered once: by `reply`, or by `begin` and then `write`s.

    What is sent after the client has left goes nowhere. While it is there, whoever answers must come to an
    end of the reply; when it leaves, the task that answers is cancelled, with `gone` set.
    """

    __slots__ = (
        "_body",
        "_bytes",
        "_chunked",
        "_connection",
        "_fault",
        "_keep",
        "_old",
        "_waiter",
        "began",
        "complete",
        "ended",
        "gone",
        "headers",
        "method",
        "path",
        "task",
    )

    def __init__(
        self, connection: "Connection", method: str, path: str, headers: dict[bytes, bytes], *, old: bool
    ) -> None:
        self.method = method
        self.path = path  # decoded, without its query
        self.headers = headers  # by name in lower case; what came several times is joined by commas
        self.complete = False  # the request has come to its end
        self.began = False  # the head of the reply is on its way
        self.ended = False  # so is all of it
        self.gone = False  # the client has left before the reply's end
        self.task: asyncio.Task[None] | None = None  # that answers
        self._connection = connection
        self._old = old  # HTTP/1.0, which knows no chunks
        self._keep = False  # the client wants to go on with this connection
        self._chunked = False
        self._body: bytes | bytearray = b""
        self._bytes = 0
        self._fault: ManymindsError | None = None  # why the rest of it will never come
        self._waiter: asyncio.Future[None] | None = None

    # --- the request ---

    async def body(self, limit_bytes: int) -> bytes:
        """All of the request's body, once. Raises: TooLargeError, SlowRequestError, InvalidRequestError."""
        if not self.complete:
            await self._rest(limit_bytes)
        if self._bytes > limit_bytes:
            raise _too_large(limit_bytes)
        body, self._body = self._body, b""
        return bytes(body)

    async def _rest(self, limit_bytes: int) -> None:
        declared = self.headers.get(b"content-length", b"0")
        if int(declared) > limit_bytes:  # the parser lets only digits through
            raise _too_large(limit_bytes)
        if self._fault is not None:
            raise self._fault
        expected = self.headers.get(b"expect", b"").strip().lower() == b"100-continue"
        if expected and not self._bytes and not self._old:
            self._connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while not self.complete and self._bytes <= limit_bytes:
            self._waiter = loop.create_future()
            self._connection.read_on()
            due_s = min(loop.time(), began_s + self._bytes / _READ_BYTES_PER_S) + _READ_S
            try:
                with Watch(self._connection.alarm, due_s):
                    await self._waiter
            except TimeoutError:
                raise SlowRequestError(
                    f"The body came too slowly: nothing for {_READ_S:g} s, or less than "
                    f"{_READ_BYTES_PER_S} bytes/s of it."
                ) from None
            finally:
                self._waiter = None
            if self._fault is not None:
                raise self._fault

    # --- the reply ---

    def reply(self, status: int, head: bytes, body: bytes) -> None:
        """The whole reply. `head` is lines of headers, each with its end, without those of framing."""
        assert not self.ended
        sized = b"" if status in _BODILESS else b"content-length: %d\r\n" % len(body)
        if self.method == "HEAD":
            body = b""
        self._connection.send(b"".join((start(status), sized, head, self._persistence(), b"\r\n", body)))
        self.began = self.ended = True
        self._connection.finish(self)

    def begin(self, status: int, head: bytes) -> None:
        """The head of a reply whose body comes piece by piece."""
        assert not self.began
        self._chunked = not self._old
        self._keep = self._keep and self._chunked  # else its end is that of the connection
        framing = b"transfer-encoding: chunked\r\n" if self._chunked else b""
        self._connection.send(b"".join((start(status), framing, head, self._persistence(), b"\r\n")))
        self.began = True

    def write(self, piece: bytes, *, last: bool = False) -> None:
        """A piece of the body, which must not be empty unless it is the last. Mind `full` between two."""
        assert not self.ended
        if self._chunked:
            end = b"0\r\n\r\n" if last else b""
            framed = b"%x\r\n%b\r\n%b" % (len(piece), piece, end) if piece else end
        else:
            framed = piece
        self._connection.send(framed)
        if last:
            self.ended = True
            self._connection.finish(self)

    @property
    def full(self) -> bool:
        """Whether the client takes less than it is sent: wait for `drained` then."""
        return self._connection.full

    async def drained(self) -> None:
        """Returns when the client has taken most of what it was sent, or has gone."""
        await self._connection.drained()

    @property
    def ending(self) -> bool:
        """Whether the server is about to end: who sends for ever should come to an end."""
        return self._connection.closing

    @property
    def keeps(self) -> bool:
        """Whether another request may follow on the connection."""
        return self._keep and self.complete

    def _persistence(self) -> bytes:
        self._keep = self.keeps and not self._connection.ending
        if not self._keep:
            return b"connection: close\r\n"
        return b"connection: keep-alive\r\n" if self._old else b""

    # --- for the connection ---

    def keep(self) -> None:
        self._keep = True

    def take(self, piece: bytes) -> int:
        """A piece of the request's body. Returns how much of it nobody has asked for yet."""
        if self._bytes:  # each piece as an object of its own would take many times the room
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += piece
        else:
            self._body = piece
        self._bytes += len(piece)
        if self._waiter is None:
            return self._bytes
        self.wake()
        return 0

    def fail(self, fault: ManymindsError) -> None:
        """The rest of the body will never come."""
        self._fault = fault
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _too_large(limit_bytes: int) -> TooLargeError:
    return TooLargeError(
        f"The body is larger than {limit_bytes / 1e6:g} MB: send less, or raise `server.max_body_mb`."
    )


def start(status: int) -> bytes:
    """The first line of a reply, and when it was made."""
    return _start(status, int(time.time()))


@lru_cache(maxsize=16)  # most replies of a second begin alike
def _start(status: int, at_s: int) -> bytes:
    phrase = HTTPStatus(status).phrase if status in _KNOWN else ""
    return f"HTTP/1.1 {status} {phrase}\r\ndate: {formatdate(at_s, usegmt=True)}\r\n".encode()
