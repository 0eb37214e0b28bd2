"""One connection of a client: bytes to requests, in order, within limits of size and time.

Knows no endpoint: whoever serves is an argument. Written for speed: it is the path of every request.
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
from manyminds.errors import (
    HeadTooLargeError,
    InvalidRequestError,
    ManymindsError,
    SlowRequestError,
    UnavailableError,
)
from manyminds.web.exchange import Exchange, start
from manyminds.web.replies import named, new_id, refusal

__all__ = ["Connection", "Serve"]

Serve: TypeAlias = Callable[[Exchange], Coroutine[Any, Any, None]]
"""Answers one request."""

_HEAD_S: Final = 10.0  # from the first byte of a request to the end of its headers
_IDLE_S: Final = 75.0  # between two requests
_TAKEN_S: Final = 60.0  # for a client to take what waits for it, or at least
_TAKEN_BYTES: Final = 65_536  # so much of it
_LINGER_S: Final = 10.0  # for the rest of a request that was refused before it had come
_HEAD_BYTES: Final = 65_536  # of a request's line and headers; also of what frames its body
_READ_BYTES: Final = 16_384  # at once, or one read might pass all limits
_FIELDS: Final = 128
_UNREAD_BYTES: Final = 65_536  # of a body, before anybody asks for it
_BEHIND: Final = 8  # requests that may wait behind the one being answered, before reading pauses

log = logging.getLogger(__name__)


class Connection(asyncio.Protocol):
    """Requests are answered one after the other, in the order in which they came (RFC 9112, 9.3.2).

    None is begun before the client has taken most of the replies to those before it. An offer to upgrade
    the protocol is ignored, as RFC 9110 (7.8) allows, and so are trailers. Who closes its own direction has
    left: no answer is made for a client that may be gone.

    Args:
        serve: answers a request; see `Exchange` for what it must do.
        alarm: for limits of time. It knows a connection where no request is under way.
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
        self._repeated = 0  # fields whose name had come before
        self._in_head = False
        self._hurried = True  # a limit of time for the head is set
        self._loose_bytes = 0  # since the last headers or piece of a body
        self._fault: ManymindsError | None = None
        self._deaf = False  # what is read is thrown away
        self._over = False  # the last reply is on its way
        self._left_bytes = 0  # of what waited for the client, when that was looked at last
        self._paused = False
        self._ahead = b""  # read, and not looked at before reading goes on
        self._drained: asyncio.Future[None] | None = None

    # --- what asyncio tells ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._everyone.add(self)
        self._within(_HEAD_S)

    def data_received(self, data: bytes) -> None:
        if self._paused or len(data) > _READ_BYTES:
            self._ahead += data
            self._catch_up()
            return
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
        if self._transport is None:
            return
        self._everyone.discard(self)
        self.alarm.drop(self)
        self.alarm.drop(self._stuck)
        self._transport = None
        self._deaf, self.full = True, False
        for exchange in self._queue:
            exchange.gone = True
            if exchange.task is not None:
                exchange.task.cancel()
        self._queue.clear()
        self._incoming, self._ahead = None, b""
        del self._parser  # it knows this connection, and a cycle would live on for a while
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def pause_writing(self) -> None:
        self.full = True
        if self._transport is not None and not self._over:
            self._watch(self._transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self.full = False
        if not self._over:
            self.alarm.drop(self._stuck)
            if not self.tasks and self._transport is not None:
                self._follow()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # --- what the parser tells ---

    def on_message_begin(self) -> None:
        self._in_head = True
        self._url = b""
        self._fields = {}
        self._repeated = 0

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
            self._repeated += 1
            fields[name] = known + b", " + value
        if len(fields) + self._repeated > _FIELDS:
            self._fault = HeadTooLargeError(f"More than {_FIELDS} headers: send less of them.")
            raise HttpParserError  # or it would go on

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser.should_upgrade() or self._fault is not None:
            return  # `data_received` goes on
        fields, version = self._fields, parser.get_http_version()
        usual = version == "1.1" and b"host" in fields and b"transfer-encoding" not in fields
        if not usual or not self._url.startswith(b"/"):
            self._fault = self._inspect(version)
            if self._fault is not None:
                return
        if self.closing:
            self._deaf = True
            return
        self._in_head = self._hurried = False
        self._loose_bytes = 0
        path = self._url.partition(b"?")[0].decode("latin-1")
        exchange = Exchange(
            self,
            parser.get_method().decode("latin-1"),
            unquote(path) if "%" in path else path,
            fields,
            old=version == "1.0",
        )
        if parser.should_keep_alive():
            exchange.keep()
        self._incoming = exchange
        self._queue.append(exchange)
        if len(self._queue) == 1:
            self.alarm.drop(self)
            if not self.full:
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

    # --- requests ---

    def _inspect(self, version: str) -> ManymindsError | None:
        """Puts right what is not as in most requests, or says what is wrong with it."""
        fields, self._fields = self._fields, {}  # what comes behind the body is no header
        codings = fields.get(b"transfer-encoding")
        if version not in ("1.0", "1.1"):
            return InvalidRequestError(f"This node speaks HTTP/1.1, not HTTP/{version}.")
        if b"host" not in fields and version == "1.1":
            return InvalidRequestError("This request lacks the `Host` header that HTTP/1.1 demands.")
        if codings is not None and (version == "1.0" or codings.strip().lower() != b"chunked"):
            return InvalidRequestError("Of transfer codings this node knows `chunked`, with HTTP/1.1.")
        if not self._url.startswith(b"/"):
            try:
                address = parse_url(self._url)
            except HttpParserInvalidURLError:
                return InvalidRequestError("The address of this request cannot be read.")
            self._url = address.path or b"/"
            if (host := address.host) is not None:  # it counts, not the header (RFC 9112, 3.2.2)
                fields[b"host"] = b"[%b]" % host if b":" in host else host
        return None

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
                except HttpParserUpgrade as another:
                    offer = another
                else:
                    return
        except (HttpParserError, HttpParserUpgrade):  # also CONNECT, which nobody offers
            self._fault = self._fault or InvalidRequestError("This node speaks HTTP/1.1 and nothing else.")

    def _head_without_offer(self) -> bytes:
        version, method = self._parser.get_http_version().encode(), self._parser.get_method()
        lines = [b"%b %b HTTP/%b" % (method, self._url, version)]
        lines += [name + b": " + value for name, value in self._fields.items() if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    async def _answer(self, exchange: Exchange) -> None:
        error: ManymindsError | None = None
        try:
            await self._serve(exchange)
            assert exchange.ended or exchange.gone
        except asyncio.CancelledError:
            error = UnavailableError("This node is ending: ask again soon.")
        except Exception:
            log.exception("%s %r failed unexpectedly", exchange.method, exchange.path)
        if exchange.ended or exchange.gone:
            return
        if exchange.began:  # without the last piece, which says as much
            self._end()
        else:
            error = error or ManymindsError("Something went wrong inside this node; its log says what.")
            status, head, body = refusal(error)
            exchange.reply(status, named(new_id()) + head, body)

    def _refuse(self, error: ManymindsError) -> None:
        """Reads nothing more. Says why to the request that is still coming, or behind all other replies."""
        self._fault, self._deaf = error, True
        if self._incoming is not None:
            self._incoming.fail(error)
        elif not self._queue:
            self._follow()

    def _tell(self, error: ManymindsError) -> None:
        """To whoever sent what is no request."""
        status, head, body = refusal(error)
        sized = b"content-length: %d\r\nconnection: close\r\n" % len(body)
        if self._in_head and self._parser.get_method() == b"HEAD":
            body = b""
        self.send(b"".join((start(status), sized, named(new_id()), head, b"\r\n", body)))

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
            self._catch_up()

    def finish(self, exchange: Exchange) -> None:
        """The reply to the first request is on its way, to its end."""
        if self._transport is None:
            return
        self._queue.popleft()
        if not exchange.keeps:
            self._end()
        elif self.full:
            self._read_no_more()  # `resume_writing` goes on
        else:
            self._follow()

    @property
    def ending(self) -> bool:
        """Whether the reply on its way is the last one."""
        return self.closing and self._fault is None and len(self._queue) < 2

    def _follow(self) -> None:
        """What comes after a reply, or after none."""
        if self._queue:
            following = self._queue[0]
            following.task = self._loop.create_task(self._answer(following))
            if len(self._queue) <= _BEHIND:
                self.read_on()
        elif self._fault is not None or self.closing:
            if self._fault is not None:
                self._tell(self._fault)
            self._end()
        else:
            self._hurried = self._in_head
            self._within(_HEAD_S if self._in_head else _IDLE_S)
            self.read_on()

    # --- ends ---

    def close(self) -> None:
        """Ends when what is here has been answered."""
        self.closing = True
        if not self._queue and self._transport is not None:
            self._over = True
            self._end()

    def break_off(self) -> None:
        """Cancels what is being answered, which is told so, and forgets what waits behind that."""
        while len(self._queue) > 1:
            self._queue.pop().gone = True
        for task in self.tasks:
            task.cancel()

    def abort(self) -> None:
        """Ends at once."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def tasks(self) -> list["asyncio.Task[None]"]:
        """Those that answer now."""
        return [exchange.task for exchange in self._queue if exchange.task is not None]

    def _end(self) -> None:
        """Closes it once all is sent. What still comes of a request is thrown away for a while: closed
        before, the client might never see what it was told (RFC 9112, 9.6).
        """
        assert self._transport is not None
        lingers = (self._deaf or self._incoming is not None) and not self._over
        self.closing = self._deaf = self._over = True
        self._incoming = None
        for exchange in self._queue:  # nobody answers what comes behind the last reply
            exchange.gone = True
        self._queue.clear()
        if lingers:
            if self._transport.can_write_eof():  # TLS cannot end one direction
                self._transport.write_eof()
            self.read_on()
            self._within(_LINGER_S)
            return
        self.alarm.drop(self)
        self._transport.close()
        if not self.full:
            self._watch(0)

    def _read_no_more(self) -> None:
        """For now: until somebody wants more of it."""
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _catch_up(self) -> None:
        """Reads what came in large pieces, or after reading was paused: as far as it is not paused again."""
        data, self._ahead = self._ahead, b""
        for at in range(0, len(data), _READ_BYTES):
            if self._paused:
                self._ahead = data[at:]
                return
            self.data_received(data[at : at + _READ_BYTES])

    def _within(self, seconds: float) -> None:
        self.alarm.note(self, self._loop.time() + seconds, self._expire)

    def _expire(self) -> None:
        if self._in_head and not self._over:
            self._refuse(SlowRequestError(f"The headers had not come after {_HEAD_S:g} s."))
        else:
            self.abort()

    def _watch(self, left_bytes: int) -> None:
        self._left_bytes = left_bytes
        self.alarm.note(self._stuck, self._loop.time() + _TAKEN_S, self._give_up)

    def _give_up(self) -> None:
        assert self._transport is not None
        left_bytes = self._transport.get_write_buffer_size()
        if self._left_bytes - left_bytes >= _TAKEN_BYTES:
            self._watch(left_bytes)
            return
        log.warning("A client has taken next to nothing for %g s: its connection is closed.", _TAKEN_S)
        self.abort()
