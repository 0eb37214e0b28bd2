"""One exchange at a time on a connection, and the connections that are open.

Knows neither how a connection is opened nor what the bodies hold.
"""

import asyncio
from collections.abc import Mapping
from math import inf
from typing import Self, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from manyminds.upstream.errors import BrokenError, ProtocolError, UpstreamError, reason
from manyminds.upstream.target import Origin

__all__ = ["Connection", "Pool", "Response"]

_HEAD_BYTES = 65_536  # of a reply, with its 1xx replies, its trailers and what frames its chunks
_UNREAD_BYTES = 262_144  # above it no more is read from the network until somebody has read these
_IDLE_S = 15.0  # of a kept connection; many servers close theirs after 5 s or 60 s
_CODINGS = frozenset({b"content-encoding", b"transfer-encoding"})


class Response:
    """A reply whose head has come. Its body is read once, by `async for` or by `whole`, then `close`d.

    Iteration gives the bytes as they come, and raises BrokenError or ProtocolError where they end early;
    while nobody reads, little is buffered. Cancelling a reader closes the connection.
    """

    __slots__ = ("_connection", "_error", "_fields", "_pieces", "_size", "_waiter", "status")

    def __init__(self, connection: "Connection") -> None:
        self.status = 0
        self._connection: Connection | None = connection  # until the body's end has come
        self._error: UpstreamError | None = None  # why it ended early
        self._fields: dict[bytes, bytes] = {}
        self._pieces: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None

    @property
    def headers(self) -> dict[str, str]:
        """By name in lower case; what came several times is joined by commas."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self._fields.items()}

    @property
    def content_type(self) -> str:
        """Without parameters, in lower case; empty where none was sent."""
        return self._fields.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._connection is None and self._error is None:
                raise StopAsyncIteration
            await self._more()
        return _joined(self._unread())

    async def whole(self, limit_bytes: int) -> bytes:
        """All of the body. Raises: BrokenError; ProtocolError, also for one of more than `limit_bytes`."""
        pieces: list[bytes] = []
        size = 0
        while True:
            size += self._size
            pieces += self._unread()
            if size > limit_bytes:
                self.close()
                raise ProtocolError(f"a body of more than {limit_bytes} bytes")
            if self._connection is None and self._error is None:
                return _joined(pieces)
            await self._more()

    def close(self) -> None:
        """Closes the connection at once unless the body has come to its end."""
        if self._connection is not None:
            self._connection.abort()
            self._end(BrokenError("the reply was closed here"))

    def release(self) -> None:
        """Instead of `close`, once all that matters has come: the connection is kept if the end follows."""
        if self._connection is not None:
            self._connection.let_end()
            self._end()

    async def begun(self) -> None:
        """Returns once the head has come. Raises: BrokenError, ProtocolError."""
        while not self.status:
            await self._more()

    # --- for the connection ---

    async def _more(self) -> None:
        """Returns when something has come. Raises: BrokenError, ProtocolError."""
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        except BaseException:
            self.close()
            raise
        finally:
            self._waiter = None

    def _unread(self) -> list[bytes]:
        pieces, self._pieces, self._size = self._pieces, [], 0
        if self._connection is not None:
            self._connection.resume()
        return pieces

    def _begin(self, status: int, fields: dict[bytes, bytes]) -> None:
        self.status, self._fields = status, fields

    def _take(self, piece: bytes) -> bool:
        """Whether there is now more unread than there should be."""
        self._pieces.append(piece)
        self._size += len(piece)
        return self._size > _UNREAD_BYTES

    def _end(self, error: UpstreamError | None = None) -> None:
        self._connection, self._error = None, error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _joined(pieces: list[bytes]) -> bytes:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Connection(asyncio.Protocol):
    """One connection, with the exchange that is under way on it, if any."""

    def __init__(self, pool: "Pool", origin: Origin) -> None:
        self.origin = origin
        self.heard = False  # anything since the last request
        self.free_since = inf  # nobody waits for what comes on it
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(  # what servers do and the parser would not take
            lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._response: Response | None = None
        self._asked = False
        self._reset()

    def _reset(self) -> None:
        """Before an exchange."""
        self._fields: dict[bytes, bytes] = {}
        self._head_bytes = 0  # in headers and trailers
        self._frame_bytes = 0  # received since the last piece of a body
        self._paused = False
        self._begun = False
        self._complete = False
        self._keeps = False
        self._until_close = False
        self._fault = ""

    def ask(self, request: bytes) -> Response:
        """Sends a request. The reply is to be awaited: see `Response.begun`."""
        assert self._transport is not None
        self._reset()
        self._asked, self.heard, self.free_since = True, False, inf
        self._response = response = Response(self)
        self._transport.write(request)
        return response

    @property
    def closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def abort(self) -> None:
        """Closes it at once."""
        self._asked = self._until_close = False
        if self._transport is not None:
            self._transport.abort()

    def resume(self) -> None:
        """Reads on from the network, if that was paused."""
        if self._paused and not self.closing:
            assert self._transport is not None
            self._paused = False
            self._transport.resume_reading()

    def let_end(self) -> None:
        """Nobody wants the rest of the reply: it may come to its end, within limits of size and time."""
        self._response = None
        self.resume()
        self._pool.watch(self)

    def _end(self, error: UpstreamError | None = None) -> None:
        response, self._response = self._response, None
        if response is not None:
            response._end(error)

    # --- what asyncio tells ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._asked:  # whatever this is, it is not the next answer
            self.abort()
            return
        self.heard = True
        self._frame_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._fault = self._fault or reason(error)
        except HttpParserUpgrade:
            self._fault = "it goes on in another protocol"
        if self._frame_bytes > _HEAD_BYTES or self._head_bytes > _HEAD_BYTES:
            self._fault = self._fault or f"more than {_HEAD_BYTES} bytes of headers"
        if self._complete:
            self._finish()
        elif self._fault:
            self._end(ProtocolError(self._fault))
            self.abort()
        elif self._response is not None:
            self._response._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._begun and self._until_close and exc is None:
            self._end()
        self._end(BrokenError(reason(exc) if exc else "the connection was closed"))
        self._transport = None
        self._pool.lost(self)

    def _finish(self) -> None:
        """The reply has come to its end."""
        assert self._transport is not None
        self._end()
        self._asked = False
        sent = not self._transport.get_write_buffer_size()  # some refuse a request before they have it all
        if self._keeps and sent and not self._fault and not self.closing:
            self.resume()
            self._pool.keep(self)
        else:
            self.abort()

    # --- what the parser tells ---

    def on_message_begin(self) -> None:
        if self._complete:
            self._fault = "two replies to one request"

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        if self._begun or self._head_bytes > _HEAD_BYTES:  # trailers; too many
            return
        name, value = name.lower(), value.strip()
        known = self._fields.get(name)
        self._fields[name] = value if known is None else known + b", " + value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 or self._complete:
            self._fields = {}
            return
        fields = self._fields
        if fields.keys() & _CODINGS and not _is_plain(fields):
            self._fault = "it is compressed, which was not asked for"
            return
        sized = b"content-length" in fields or b"transfer-encoding" in fields
        self._until_close = not sized and status not in (204, 304)
        self._begun = True
        if self._response is not None:
            self._response._begin(status, fields)

    def on_body(self, piece: bytes) -> None:
        if self._response is None or not self._begun or self._complete:
            return
        self._frame_bytes = 0
        if self._response._take(piece) and not self._paused and not self.closing:
            assert self._transport is not None
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._begun and not self._complete:  # else a 1xx, which only announces the reply
            self._complete = True
            self._keeps = not self._until_close and self._parser.should_keep_alive()


def _is_plain(fields: Mapping[bytes, bytes]) -> bool:
    coding = fields.get(b"content-encoding", b"identity").lower()
    return coding in (b"identity", b"") and fields.get(b"transfer-encoding", b"chunked").lower() == b"chunked"


class Pool:
    """All open connections of a client; of those that are kept, the one used last is used first."""

    def __init__(self, most_kept: int) -> None:
        self.closed = False
        self._most_kept = most_kept
        self._kept: dict[Origin, list[Connection]] = {}
        self._open: set[Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Future[None] | None = None

    def opened(self, connection: Connection) -> None:
        self._open.add(connection)

    def take(self, origin: Origin) -> Connection | None:
        kept = self._kept.get(origin)
        while kept:
            connection = kept.pop()
            if not connection.closing:
                return connection
        return None

    def keep(self, connection: Connection) -> None:
        kept = self._kept.setdefault(connection.origin, [])
        if self.closed or len(kept) >= self._most_kept:
            connection.abort()
        else:
            kept.append(connection)
            self.watch(connection)

    def watch(self, connection: Connection) -> None:
        """Closes the connection when nobody has used it for a while."""
        loop = asyncio.get_running_loop()
        connection.free_since = loop.time()
        if self._sweep is None and not self.closed:
            self._sweep = loop.call_later(_IDLE_S, self._close_idle)

    def _close_idle(self) -> None:
        loop = asyncio.get_running_loop()
        latest = loop.time() - _IDLE_S
        for connection in self._open:
            if connection.free_since <= latest:
                connection.abort()
        oldest = min((c.free_since for c in self._open if c.free_since > latest), default=inf)
        self._sweep = loop.call_at(oldest + _IDLE_S, self._close_idle) if oldest < inf else None

    def lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        kept = self._kept.get(connection.origin, [])
        if connection in kept:
            kept.remove(connection)
        if self._emptied is not None and not self._open and not self._emptied.done():
            self._emptied.set_result(None)

    async def aclose(self) -> None:
        """Aborts every connection, and returns when all are closed."""
        self.closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in self._open:
            connection.abort()
        if self._open:
            self._emptied = asyncio.get_running_loop().create_future()
            await self._emptied
