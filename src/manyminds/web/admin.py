"""`/v1/admin/`: what a node's owner sees of it and tells it. Knows who may, and nothing of what is done.

Whoever wires adds an endpoint by naming it: `AdminEdge(gets={"library": ...})` is `GET /v1/admin/library`.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import msgspec

from manyminds.admission import Admission
from manyminds.errors import ForbiddenError, InvalidRequestError, ManymindsError, RateLimitError
from manyminds.web.door import identify
from manyminds.web.exchange import Exchange
from manyminds.web.origin import check_same_origin
from manyminds.web.replies import JSON, named, new_id

__all__ = ["ADMIN", "AdminEdge", "Administration"]

ADMIN: Final = "/v1/admin/"
"""What all of its paths begin with."""

_Fields: TypeAlias = dict[str, Any]
_Handle: TypeAlias = Callable[[Exchange], Coroutine[Any, Any, None]]

_BODY_BYTES: Final = 100_000
_LISTENERS: Final = 32
_SILENT_S: Final = 10.0  # after which a comment says that a stream is alive
_ALIVE: Final = b": nothing new\n\n"
_DONE: Final = b"data: [DONE]\n\n"
_STREAM: Final = (
    b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-store\r\n"
    b"x-accel-buffering: no\r\n"  # nginx would gather events otherwise
)
_NOT_KEPT: Final = b"cache-control: no-store\r\n"


@dataclass(frozen=True, slots=True)
class AdminEdge:
    """What an owner can do, by the last word of its path. Raises: ManymindsError, each of these.

    `gets` show; `posts` take a request's fields and return the reply's; `streams` take fields and give
    events until they end, and are closed where the client leaves; `events` tells of what happens for as
    long as anybody listens, None where nothing does. `tls` says whether this node itself speaks TLS.
    """

    gets: Mapping[str, Callable[[], Awaitable[_Fields]]] = field(default_factory=dict)
    posts: Mapping[str, Callable[[_Fields], Awaitable[_Fields]]] = field(default_factory=dict)
    streams: Mapping[str, Callable[[_Fields], AsyncGenerator[_Fields, None]]] = field(default_factory=dict)
    events: Callable[[], AsyncGenerator[_Fields, None]] | None = None
    tls: bool = False
    listening: set[Exchange] = field(default_factory=set)


class Administration:
    """The endpoints of an `AdminEdge`. On a node that asks nobody for a key they need none, either."""

    def __init__(self, edge: AdminEdge, admission: Admission) -> None:
        self._edge = edge
        self._admission = admission

    @property
    def gets(self) -> Mapping[str, _Handle]:
        """What is shown, by path."""
        found: dict[str, _Handle] = {
            ADMIN + name: partial(self._show, show) for name, show in self._edge.gets.items()
        }
        if self._edge.events is not None:
            found[ADMIN + "events"] = partial(self._tell, self._edge.events)
        return MappingProxyType(found)

    @property
    def posts(self) -> Mapping[str, _Handle]:
        """What is done, by path."""
        found: dict[str, _Handle] = {
            ADMIN + name: partial(self._do, do) for name, do in self._edge.posts.items()
        }
        found |= {ADMIN + name: partial(self._stream, begin) for name, begin in self._edge.streams.items()}
        return MappingProxyType(found)

    # --- who may ---

    def _admit(self, exchange: Exchange) -> None:
        """Raises: ForbiddenError, UnauthorizedError."""
        check_same_origin(exchange.headers, tls=self._edge.tls)
        key = identify(self._admission, exchange.headers)
        if not self._admission.open and (key is None or not key.admin):
            raise ForbiddenError(
                "This key is not an administrator's: make one with `manyminds keys create NAME --admin`."
            )

    # --- what they get ---

    async def _show(self, show: Callable[[], Awaitable[_Fields]], exchange: Exchange) -> None:
        self._admit(exchange)
        _reply(exchange, await show())

    async def _do(self, do: Callable[[_Fields], Awaitable[_Fields]], exchange: Exchange) -> None:
        self._admit(exchange)
        _reply(exchange, await do(_parsed(await exchange.body(_BODY_BYTES))))

    async def _stream(
        self, begin: Callable[[_Fields], AsyncGenerator[_Fields, None]], exchange: Exchange
    ) -> None:
        self._admit(exchange)
        fields = _parsed(await exchange.body(_BODY_BYTES))
        with _Events(exchange) as events:
            async with aclosing(begin(fields)) as told:
                try:
                    async for event in told:
                        await events.send(event)
                except ManymindsError as error:
                    if not exchange.began:
                        raise
                    await events.send({"event": "error", "message": error.message})
            events.end()

    async def _tell(self, begin: Callable[[], AsyncGenerator[_Fields, None]], exchange: Exchange) -> None:
        self._admit(exchange)
        listening = self._edge.listening
        if len(listening) >= _LISTENERS:
            raise RateLimitError(
                f"{len(listening)} listen to this process already, which is as many as it tells: "
                "close another page.",
                retry_after_s=5.0,
            )
        if exchange.method == "HEAD":
            exchange.reply(200, named(new_id()) + _STREAM, b"")
            return
        listening.add(exchange)
        try:
            with _Events(exchange) as events:
                async with aclosing(begin()) as told:
                    async for event in told:
                        await events.send(event)
                        if exchange.ending:
                            break
                        self._admit(exchange)  # the key may have been revoked since
                events.end()
        except ManymindsError:
            if not exchange.began:
                raise
            exchange.write(b"", last=True)
        finally:
            listening.discard(exchange)


class _Events:
    """Server-sent events of one reply; comments where none come."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._quiet = True  # since the last `_pulse`
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> "_Events":
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def send(self, event: _Fields) -> None:
        """Waits for a client that takes less than it is sent."""
        self._quiet = False
        self._write(b"data: " + msgspec.json.encode(event) + b"\n\n")
        if self._exchange.full:
            await self._exchange.drained()

    def end(self) -> None:
        if not self._exchange.gone:
            self._write(_DONE, last=True)

    def _write(self, piece: bytes, *, last: bool = False) -> None:
        if not self._exchange.began:
            self._exchange.begin(200, named(new_id()) + _STREAM)
        self._exchange.write(piece, last=last)

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_SILENT_S, self._pulse)

    def _pulse(self) -> None:
        if self._quiet and not (self._exchange.ended or self._exchange.gone or self._exchange.full):
            self._write(_ALIVE)
        self._quiet = True
        self._wait()


def _reply(exchange: Exchange, fields: _Fields) -> None:
    body = msgspec.json.encode(fields, order="deterministic")
    exchange.reply(200, named(new_id()) + JSON + _NOT_KEPT, body)


def _parsed(raw: bytes) -> _Fields:
    """Raises: InvalidRequestError."""
    try:
        return msgspec.json.decode(raw or b"{}", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"The body is not a JSON object: {error}.") from None
