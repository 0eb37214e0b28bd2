"""One connection of a client: bytes to requests, in order, within limits of size and time.

Knows no endpoint: whoever serves is a constructor argument. Written for speed: it is the path of every request.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeAlias, cast
from urllib.parse import unquote

from httptools import (
    HttpParserError,
    HttpParserInvalidURLError,
    HttpParserUpgrade,
    HttpRequestParser,
    parse_url,
)

from manyminds.alarm import Alarm
from manyminds.errors import HeadTooLargeError, InvalidRequestError, ManymindsError, SlowRequestError
from manyminds.web.exchange import Exchange, start
from manyminds.web.replies import named, new_id, refusal

__all__ = ["Connection", "Serve"]

Serve: TypeAlias = Callable[[Exchange], Coroutine[Any, Any, None]]
"""Answers one request."""

_HEAD_S: Final = 10.0  # from the first byte of a request to the end of its headers
_IDLE_S: Final = 75.0  # between two requests
_TAKEN_S: Final = 60.0  # for a client to take what waits for it
_LINGER_S: Final = 10.0  # for the rest of a request that was refused before it had come
_HEAD_BYTES: Final = 65_536  # of a request's line and headers; also of what frames its body
_FIELDS: Final = 128
_UNREAD_BYTES: Final = 65_536  # of a body, before anybody asks for it
_BEHIND: Final = 8  # requests that may wait behind the one being answered

log = logging.getLogger(__name__)


class Connection(asyncio.Protocol):
    """Requests are answered one after the other, in the order in which they came (RFC 9112, 9.3.2).

    An offer to upgrade the protocol is ignored, as RFC 9110 (7.8) allows.

    Args:
        serve: answers a request; see `Exchange` for what it must do.
        alarm: for limits of time.
        everyone: all connections that are open; it adds and removes itself.
    """

    def __init__(self, serve: Serve, alarm: Alarm, everyone: "set[Connection]") -> None:
        self.alarm = alarm
        self.closing = False  # no request is taken after those that are here
        self.full = False  # the client takes less than it is sent
        self._stuck = object()  # names that in `alarm`
        self._serve = serve
        self._everyone = everyone
        self._parser = HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Exchange] = deque()  # the first is being answered
        self._incoming: Exchange | None = None  # whose body is still to come
        self._url = b""
        self._fields: dict[bytes, bytes] = {}
        self._in_head = False
        self._hurried = True  # a limit of time for the head is set
        self._loose_bytes = 0  # since the last headers or piece of a body
        self._fault: ManymindsError | None = None
        self._deaf = False  # nothing more is read
        self._paused = False
        self._drained: asyncio.Future[None] | None = None

    # --- what asyncio tells ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._everyone.add(self)
        self._within(_HEAD_S)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._loose_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as offer:
            self._ignore_offers(data, offer)
        except HttpParserError as error:
            what = f"{type(error).__name__.removeprefix('HttpParser')}: {error}"
            self._fault = self._fault or InvalidRequestError(f"This is no HTTP/1.1 request ({what}).")
        if self._loose_bytes > _HEAD_BYTES:
            self._fault = self._fault or HeadTooLargeError(
                f"The headers take more than {_HEAD_BYTES} bytes: send less of them."
            )
        if self._fault is not None:
            self._refuse(self._fault)
        elif self._in_head and not self._hurried and not self._queue:
            self._hurried = True
            self._within(_HEAD_S)

    def eof_received(self) -> None:
        """Who sends no more is taken to have left: asyncio closes the connection."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._everyone.discard(self)
        self.alarm.drop(self)
        self.alarm.drop(self._stuck)
        self._transport = None
        self.full = False
        for exchange in self._queue:
            exchange.gone = True
            if exchange.task is not None:
                exchange.task.cancel()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def pause_writing(self) -> None:
        self.full = True
        self.alarm.note(self._stuck, self._loop.time() + _TAKEN_S, self._give_up)

    def resume_writing(self) -> None:
        self.full = False
        self.alarm.drop(self._stuck)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # --- what the parser tells ---

    def on_message_begin(self) -> None:
        self._in_head = True
        self._url = b""
        self._fields = {}

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name, fields = name.lower(), self._fields
        known = fields.get(name)
        if known is None:
            fields[name] = value
        elif name == b"host":
            self._fault = InvalidRequestError("This request has several `Host` headers.")
        else:
            fields[name] = known + b", " + value
        if len(fields) > _FIELDS or len(fields[name]) > _HEAD_BYTES:
            self._fault = HeadTooLargeError(f"More than {_FIELDS} headers: send less of them.")

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser.should_upgrade() or self._fault is not None:
            return  # `data_received` goes on
        self._in_head = self._hurried = False
        self._loose_bytes = 0
        old = parser.get_http_version() == "1.0"
        if not old and b"host" not in self._fields:
            self._fault = InvalidRequestError("This request lacks the `Host` header that HTTP/1.1 demands.")
            return
        exchange = Exchange(self, parser.get_method().decode("latin-1"), self._path(), self._fields, old=old)
        if parser.should_keep_alive():
            exchange.keep()
        self._incoming = exchange
        self._queue.append(exchange)
        if len(self._queue) == 1:
            self.alarm.drop(self)
            exchange.task = self._loop.create_task(self._answer(exchange))
        elif len(self._queue) > _BEHIND:
            self._read_no_more()

    def on_body(self, piece: bytes) -> None:
        self._loose_bytes = 0
        if self._incoming is not None and self._incoming.take(piece) > _UNREAD_BYTES:
            self._read_no_more()

    def on_message_complete(self) -> None:
        exchange, self._incoming = self._incoming, None
        self._loose_bytes = 0
        if exchange is not None:
            exchange.complete = True
            exchange.wake()
        elif self.closing and not self._queue and self._transport is not None:  # it was only waited for
            self._transport.close()

    # --- requests ---

    def _path(self) -> str:
        url = self._url
        if not url.startswith(b"/"):
            try:
                url = parse_url(url).path or b"/"
            except HttpParserInvalidURLError:
                self._fault = InvalidRequestError("The address of this request cannot be read.")
        path = url.partition(b"?")[0].decode("latin-1")
        return unquote(path) if "%" in path else path

    def _ignore_offers(self, data: bytes, offer: HttpParserUpgrade) -> None:
        """Reads a head again without its offer to go on in another protocol, and then what follows.

        The parser cannot ignore it: it takes what follows for the other protocol, not for a body.
        """
        try:
            while True:
                data = data[offer.args[0] :]
                head = self._head_without_offer()
                self._parser = HttpRequestParser(self)
                self._parser.feed_data(head)
                try:
                    self._parser.feed_data(data)
                    return
                except HttpParserUpgrade as another:
                    offer = another
        except (HttpParserError, HttpParserUpgrade):  # also CONNECT, which nobody offers
            self._fault = self._fault or InvalidRequestError("This node speaks HTTP/1.1 and nothing else.")

    def _head_without_offer(self) -> bytes:
        version, method = self._parser.get_http_version().encode(), self._parser.get_method()
        lines = [b"%b %b HTTP/%b" % (method, self._url, version)]
        lines += [name + b": " + value for name, value in self._fields.items() if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    async def _answer(self, exchange: Exchange) -> None:
        try:
            await self._serve(exchange)
        except Exception:
            log.exception("%s %s failed unexpectedly", exchange.method, exchange.path)
        finally:
            if not exchange.ended and not exchange.gone:
                self.abort()

    def _refuse(self, error: ManymindsError) -> None:
        """Reads nothing more; says why, unless replies are under way, which come to their end."""
        self._deaf = self.closing = True
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.fail(error)
        elif not self._queue and self._transport is not None:
            status, head, body = refusal(error)
            sized = b"content-length: %d\r\nconnection: close\r\n" % len(body)
            self.send(b"".join((start(status), sized, named(new_id()), head, b"\r\n", body)))
            self._end()

    # --- for exchanges ---

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    async def drained(self) -> None:
        """Returns when little waits to be sent, or the client has gone."""
        while self.full:
            if self._drained is None or self._drained.done():
                self._drained = self._loop.create_future()
            await asyncio.shield(self._drained)

    def read_on(self) -> None:
        """Reads from the network again, if that was paused."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def finish(self, exchange: Exchange) -> None:
        """The reply to the first request is on its way, to its end."""
        if self._transport is None:
            return
        self._queue.popleft()
        if not exchange.keeps or self.closing:
            self._end()
        elif self._queue:
            following = self._queue[0]
            following.task = self._loop.create_task(self._answer(following))
            self.read_on()
        else:
            self._hurried = self._in_head
            self._within(_HEAD_S if self._in_head else _IDLE_S)
            self.read_on()

    # --- ends ---

    def close(self) -> None:
        """Ends when what is here has been answered."""
        self.closing = True
        if not self._queue:
            self._end()

    def abort(self) -> None:
        """Ends at once."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def tasks(self) -> list["asyncio.Task[None]"]:
        """Those that answer now."""
        return [exchange.task for exchange in self._queue if exchange.task is not None]

    def _end(self) -> None:
        """Closes it once all is sent. A request that is still coming is read to its end, for a while:
        closed before, the client might never see what it was told (RFC 9112, 9.6).
        """
        assert self._transport is not None
        self.closing = True
        for exchange in self._queue:  # nobody answers what comes behind the last reply
            exchange.gone = True
        self._queue.clear()
        if self._incoming is None or self._deaf:
            self._deaf = True
            self._transport.close()
            return
        self._incoming = None
        self.read_on()
        self._within(_LINGER_S)

    def _read_no_more(self) -> None:
        """For now: until somebody wants more of it."""
        if not self._paused and self._transport is not None and not self.closing:
            self._paused = True
            self._transport.pause_reading()

    def _within(self, seconds: float) -> None:
        self.alarm.note(self, self._loop.time() + seconds, self._expire)

    def _expire(self) -> None:
        if self._in_head and not self.closing:
            self._refuse(SlowRequestError(f"The headers had not come after {_HEAD_S:g} s."))
        else:
            self.abort()

    def _give_up(self) -> None:
        log.warning("A client has taken nothing for %g s: its connection is closed.", _TAKEN_S)
        self.abort()
