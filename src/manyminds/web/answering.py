"""Endpoints that answer: a request in, an answer out, whole or as a stream. Knows no format of clients.

Written for speed: it is the path of every request.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Scope, Send

from manyminds.admission import Admission
from manyminds.alarm import Alarm, Watch
from manyminds.errors import ManymindsError, UnavailableError
from manyminds.types import Chunk, Completer, Key, Query
from manyminds.web.door import Entry
from manyminds.web.replies import advice, named, new_id, read_body, send_json
from manyminds.wire import Dialect
from manyminds.wire import Reply as Writer

__all__ = ["Answering", "Reply", "Seen"]

log = logging.getLogger(__name__)

_TAKEN_S = 60.0  # for a client to take what is sent
_UNWATCHED_S = 0.05  # of a request, before anybody looks whether its client is still there
_SILENT_S = 10.0  # of a stream, after which a comment says that it is alive

_STREAM = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"))
_NOTHING = Chunk()
_ALIVE = b": still thinking\n\n"


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a request, for figures and logs. Times in seconds since it came."""

    request_id: str
    key: Key | None
    query: Query | None  # None where it could not be read
    status: int | str  # HTTP's; `cut` of a stream that broke off, `gone` where the client left
    seconds: float
    first_byte_s: float | None
    last: Chunk  # of the answer, with usage and report where it came so far


Seen = Callable[[str, Reply], None]
"""Told of every request that has ended, with the path that it asked."""


class Answering:
    """An endpoint where `expert` answers in a dialect, as a plain ASGI callable."""

    def __init__(
        self,
        path: str,
        expert: Completer,
        dialect: Dialect,
        admission: Admission,
        max_body_bytes: int,
        seen: Seen,
    ) -> None:
        self._path = path
        self._seen = seen
        self._expert = expert
        self._dialect = dialect
        self._admission = admission
        self._max_body_bytes = max_body_bytes
        self._alarm = Alarm()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = _Sending(send, self._dialect, self._alarm)
        try:
            await self._reply(scope, receive, reply)
        finally:
            reply.settle()
            self._seen(self._path, reply.seen())

    async def _reply(self, scope: Scope, receive: Receive, reply: "_Sending") -> None:
        try:
            with self._admission.enter():
                reply.entry = Entry(self._admission, scope)
                raw = await read_body(scope, receive, self._max_body_bytes, self._alarm)
                if raw is not None:
                    reply.query = self._dialect.parse(raw, reply.request_id)
                    query = reply.entry.admit(reply.query)
                    await _while_there(receive, self._answer(query, reply), reply, self._alarm)
        except ManymindsError as error:
            await reply.fail(error)
        except Exception:
            log.exception("request %s failed unexpectedly", reply.request_id)
            await reply.fail(ManymindsError("Something went wrong inside this node; its log says what."))
        except asyncio.CancelledError:  # only the server does that, when it ends: here it has come to its end
            with suppress(asyncio.CancelledError):
                await reply.fail(UnavailableError("This node is ending: ask again soon."))

    async def _answer(self, query: Query, reply: "_Sending") -> None:
        if query.stream:
            async with aclosing(self._expert.stream(query)) as chunks:
                await reply.stream(chunks, query)
        else:
            await reply.whole(await self._expert.complete(query), query)


class _Sending:
    """One reply on its way."""

    def __init__(self, send: Send, dialect: Dialect, alarm: Alarm) -> None:
        self.request_id = new_id()
        self.entry: Entry | None = None
        self.query: Query | None = None
        self._began_s = time.perf_counter()
        self._first_s: float | None = None
        self._status: int | str = "gone"
        self._last = _NOTHING
        self._send = send
        self._dialect = dialect
        self._alarm = alarm
        self._streamed: Writer | None = None
        self._begun = False
        self._ended = False
        self._quiet = True  # since the last `pulse`

    async def whole(self, chunks: Sequence[Chunk], query: Query) -> None:
        self._last = chunks[-1]
        body = self._dialect.reply(query).whole(chunks)
        self._end(200)
        await send_json(self._send, 200, body, self.request_id, self._rates())

    async def stream(self, chunks: AsyncGenerator[Chunk, None], query: Query) -> None:
        """Sends events as chunks come; a client that takes none for `_TAKEN_S` is given up."""
        self._streamed = reply = self._dialect.reply(query)
        clock = asyncio.get_running_loop().time
        watch = Watch(self._alarm, clock() + _TAKEN_S)
        try:
            async for chunk in chunks:
                body, more = reply.events(chunk), chunk.finish_reason is None
                watch.due_s = clock() + _TAKEN_S
                if not more:
                    self._last = chunk
                    self._end(200)
                with watch:
                    await self._events(body, more=more)
        except TimeoutError:
            self._end("gone")
            log.warning("request %s: its client takes no more of the stream", self.request_id)

    async def pulse(self) -> None:
        """Tells the client of a stream that has been silent since the last pulse that it is alive."""
        quiet, self._quiet = self._quiet, True
        if quiet and self._streamed is not None and not self._ended:
            await self._events(_ALIVE)

    async def fail(self, error: ManymindsError) -> None:
        """An error before the first byte has its status, later its event; after the end it has neither."""
        if self._begun and not self._ended:
            assert self._streamed is not None
            self._end("cut")
            await self._events(self._streamed.failed(error), more=False)
        elif not self._ended:
            status, body = self._dialect.refuse(error, self.request_id)
            self._end(status)
            more = [(name.encode(), value.encode()) for name, value in advice(error).items()]
            await send_json(self._send, status, body, self.request_id, [*self._rates(), *more])

    def _rates(self) -> list[tuple[bytes, bytes]]:
        return self.entry.rates.headers() if self.entry is not None and self.entry.key is not None else []

    def settle(self) -> None:
        """Counts the answer's tokens for its key: as they were used, or none where an error was the reply.

        Of an answer that broke off, or whose client left, all that was taken stays taken: nobody knows.
        """
        usage = self._last.usage
        if self.entry is None:
            return
        if usage is not None:
            self.entry.settle(usage.prompt_tokens + usage.completion_tokens)
        elif not isinstance(self._status, str):
            self.entry.settle(0)

    def seen(self) -> Reply:
        """What became of it."""
        key = self.entry.key if self.entry is not None else None
        seconds = time.perf_counter() - self._began_s
        return Reply(self.request_id, key, self.query, self._status, seconds, self._first_s, self._last)

    def _end(self, status: int | str) -> None:
        self._ended, self._status = True, status
        if self._first_s is None:
            self._first_s = time.perf_counter() - self._began_s

    async def _events(self, body: bytes, *, more: bool = True) -> None:
        self._quiet = False
        if not self._begun:
            self._begun = True
            if self._first_s is None:
                self._first_s = time.perf_counter() - self._began_s
            headers = [*named(self.request_id), *_STREAM, *self._rates()]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


async def _while_there(
    receive: Receive, work: Coroutine[Any, Any, None], reply: _Sending, alarm: Alarm
) -> None:
    """Runs `work`, and cancels it at once when the client goes away. Raises: what `work` raises.

    Most requests end before it is worth a task to look whether their client is still there.
    """
    working = asyncio.current_task()
    assert working is not None
    watching: asyncio.Task[None] | None = None
    left = done = False

    async def watch() -> None:
        nonlocal left
        while not done:
            try:
                async with asyncio.timeout(_SILENT_S):
                    message = await receive()
            except TimeoutError:
                await reply.pulse()
            else:
                if message["type"] == "http.disconnect" and not done:
                    left = True
                    working.cancel()
                    return

    def begin() -> None:
        nonlocal watching
        watching = asyncio.create_task(watch())

    alarm.note(reply, asyncio.get_running_loop().time() + _UNWATCHED_S, begin)
    try:
        await work
    except asyncio.CancelledError:
        if not left or working.uncancel() > 0:
            raise
    finally:
        done = True
        alarm.drop(reply)
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
