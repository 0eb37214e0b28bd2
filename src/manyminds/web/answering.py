"""Endpoints that answer: a request in, an answer out, whole or as a stream. Knows no format of clients.

Written for speed: it is the path of every request.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from msgspec import Struct
from msgspec.structs import replace

from manyminds.admission import Admission
from manyminds.alarm import Alarm
from manyminds.errors import ManymindsError, UnavailableError
from manyminds.types import Chunk, Completer, Event, Key, Query, Watch, Wrote
from manyminds.web.aliases import Aliases
from manyminds.web.door import Entry, identify
from manyminds.web.exchange import Exchange
from manyminds.web.replies import JSON, Names, lines, named, refusal
from manyminds.wire import Dialect
from manyminds.wire import Reply as Writer

__all__ = ["Answering", "Reply", "Seen"]

log = logging.getLogger(__name__)

_SILENT_S = 10.0  # of a stream, after which a comment says that it is alive
_STREAM = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
_NOTHING = Chunk()
_ALIVE = b": still thinking\n\n"


class Reply(Struct, frozen=True):
    """What became of a request, for figures and logs. Times in seconds since it came."""

    request_id: str
    key: Key | None
    query: Query | None  # None where it could not be read
    status: int | str  # HTTP's; `cut` of a stream that broke off, `gone` where the client left
    seconds: float
    first_byte_s: float | None
    last: Chunk  # of the answer, with usage and report where it came so far
    trace: tuple[str, str] = ("", "")  # of the caller, in W3C's `traceparent` and `tracestate`


Seen = Callable[[str, Reply], None]
"""Told of every request that has ended, with the path that it asked."""


class Answering:
    """An endpoint where `expert` answers in a dialect; see `connection.Serve`."""

    def __init__(
        self,
        path: str,
        expert: Completer,
        dialect: Dialect,
        admission: Admission,
        aliases: Aliases,
        max_body_bytes: int,
        seen: Seen,
    ) -> None:
        self._path = path
        self._seen = seen
        self._expert = expert
        self._dialect = dialect
        self._admission = admission
        self._aliases = aliases
        self._max_body_bytes = max_body_bytes
        self._alarm = Alarm()
        self._names = Names()

    async def __call__(self, exchange: Exchange) -> None:
        reply = _Sending(exchange, self._dialect, self._names.new())
        try:
            with self._admission.enter():
                query = await self._admit(exchange, reply)
                if query.stream:
                    if query.limits.watch and self._dialect.watched is not None:
                        query = replace(query, watch=reply.watcher(query, self._dialect.watched))
                    async with aclosing(self._expert.stream(query)) as chunks:
                        await reply.stream(chunks, query, self._alarm)
                else:
                    reply.whole(await self._expert.complete(query), query)
        except ManymindsError as error:
            reply.fail(error)
        except asyncio.CancelledError:
            if not exchange.gone:  # the server does that, when it ends: here it has come to its end
                reply.fail(UnavailableError("This node is ending: ask again soon."))
        except Exception:
            log.exception("request %s failed unexpectedly", reply.request_id)
            reply.fail(ManymindsError("Something went wrong inside this node; its log says what."))
        finally:
            reply.settle()
            self._seen(self._path, reply.seen())

    async def _admit(self, exchange: Exchange, reply: "_Sending") -> Query:
        key = identify(self._admission, exchange.headers)
        if key is not None:
            reply.entry = Entry(self._admission, key)
        raw = await exchange.body(self._max_body_bytes)
        reply.query = query = self._dialect.parse(raw, reply.request_id)
        if reply.entry is not None:
            reply.entry.admit(query, self._aliases)
            query = replace(query, key=key)
        return self._aliases.resolve(query)


class _Sending:
    """One reply on its way."""

    __slots__ = (
        "_began_s",
        "_dialect",
        "_exchange",
        "_first_s",
        "_last",
        "_quiet",
        "_status",
        "_streamed",
        "entry",
        "query",
        "request_id",
    )

    def __init__(self, exchange: Exchange, dialect: Dialect, request_id: str) -> None:
        self.request_id = request_id
        self.entry: Entry | None = None
        self.query: Query | None = None
        self._began_s = time.perf_counter()
        self._first_s: float | None = None
        self._status: int | str = "gone"
        self._last = _NOTHING
        self._exchange = exchange
        self._dialect = dialect
        self._streamed: Writer | None = None
        self._quiet = True  # since the last `_pulse`

    def whole(self, chunks: Sequence[Chunk], query: Query) -> None:
        self._last = chunks[-1]
        body = self._dialect.reply(query).whole(chunks)
        self._end(200)
        self._exchange.reply(200, self._head(JSON), body)

    async def stream(self, chunks: AsyncGenerator[Chunk, None], query: Query, alarm: Alarm) -> None:
        """Sends events as chunks come, and while none come, comments."""
        self._streamed = writer = self._dialect.reply(query)
        exchange = self._exchange
        self._wait(alarm)
        try:
            async for chunk in chunks:
                events = writer.events(chunk)
                self._quiet = False
                if not exchange.began:
                    self._begin()
                if chunk.finish_reason is None:
                    exchange.write(events)
                    if exchange.full:
                        await exchange.drained()
                else:
                    self._last = chunk
                    self._end(200)
                    exchange.write(events, last=True)
        finally:
            alarm.drop(self)

    def watcher(self, query: Query, written: Callable[[Query, Event], bytes]) -> Watch:
        """Sends what happens on the panel between the events of the answer.

        A client that takes less than it is sent gets no more drafts until it has: the report has them.
        """
        exchange = self._exchange

        def watch(happened: Event) -> None:
            if exchange.ended or exchange.gone or (exchange.full and isinstance(happened, Wrote)):
                return
            self._quiet = False
            if not exchange.began:
                self._begin()
            exchange.write(written(query, happened))

        return watch

    def _wait(self, alarm: Alarm) -> None:
        """Has a comment sent to a client to whom nothing was for a while."""

        def pulse() -> None:
            if not self._exchange.ended and not self._exchange.gone:
                if self._quiet and not self._exchange.full:
                    if not self._exchange.began:
                        self._begin()
                    self._exchange.write(_ALIVE)
                self._quiet = True
                alarm.note(self, loop.time() + _SILENT_S, pulse)

        loop = asyncio.get_running_loop()
        alarm.note(self, loop.time() + _SILENT_S, pulse)

    def fail(self, error: ManymindsError) -> None:
        """An error before the first byte has its status, later its event; after the end it has neither."""
        exchange = self._exchange
        if exchange.ended:
            return
        if exchange.began:
            assert self._streamed is not None
            self._end("cut")
            exchange.write(self._streamed.failed(error), last=True)
        else:
            status, head, body = refusal(error, self._dialect.refuse(error, self.request_id))
            self._end(status)
            exchange.reply(status, self._head(head), body)

    def settle(self) -> None:
        """Counts the answer's tokens for its key: as they were used, or none where an error was the reply.

        Of an answer that broke off, or whose client left, all that was taken stays taken: nobody knows.
        """
        if self.entry is None:
            return
        usage = self._last.usage
        if usage is not None:
            self.entry.settle(usage.prompt_tokens + usage.completion_tokens)
        elif not isinstance(self._status, str):
            self.entry.settle(0)

    def seen(self) -> Reply:
        """What became of it."""
        key = self.entry.key if self.entry is not None else None
        seconds = time.perf_counter() - self._began_s
        headers, trace = self._exchange.headers, ("", "")
        if (parent := headers.get(b"traceparent")) is not None:
            trace = (parent.decode("latin-1"), headers.get(b"tracestate", b"").decode("latin-1"))
        return Reply(
            self.request_id, key, self.query, self._status, seconds, self._first_s, self._last, trace
        )

    def _head(self, first: bytes) -> bytes:
        rates = b"" if self.entry is None else lines(self.entry.rates.headers())
        return b"".join((named(self.request_id), first, rates))

    def _begin(self) -> None:
        if self._first_s is None:
            self._first_s = time.perf_counter() - self._began_s
        self._exchange.begin(200, self._head(_STREAM))

    def _end(self, status: int | str) -> None:
        self._status = status
        if self._first_s is None:
            self._first_s = time.perf_counter() - self._began_s
