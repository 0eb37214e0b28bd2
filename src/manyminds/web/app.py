"""The HTTP edge: OpenAI's chat completions and models, and health. Knows an expert, not what it is."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from manyminds.errors import (
    EndpointNotFoundError,
    InvalidRequestError,
    ManymindsError,
    MethodNotAllowedError,
    ModelNotFoundError,
    RefusedError,
    SlowRequestError,
    TooLargeError,
    UnavailableError,
)
from manyminds.types import Card, Chunk, Expert, Query
from manyminds.web.origin import check_origin
from manyminds.wire import completion, error_body, event, parse_request, stream_end, written

__all__ = ["Edge", "build"]

log = logging.getLogger(__name__)

_DONE = b"data: [DONE]\n\n"
_READ_S = 60.0  # between two pieces of a request's body


@dataclass(frozen=True, slots=True)
class Edge:
    """What the edge serves.

    `expert` answers; `policies` and `cards` are listed as models; `ready` says whether there is anyone to
    ask; `loopback`, whether only this machine can reach it.
    """

    expert: Expert
    policies: Sequence[str]
    cards: Callable[[], Sequence[Card]]
    ready: Callable[[], bool]
    max_body_bytes: int
    loopback: bool = True


def build(edge: Edge) -> Starlette:
    """The ASGI application."""
    models = _Models(edge)
    routes = [
        Route("/v1/chat/completions", _Chat(edge), methods=["POST"]),
        Route("/v1/models", models.list, methods=["GET"]),
        Route("/v1/models/{name:path}", models.retrieve, methods=["GET"]),
        Route("/health/live", _live, methods=["GET"]),
        Route("/health/ready", _Ready(edge), methods=["GET"]),
    ]
    handlers: Any = {HTTPException: _http_error, ManymindsError: _own_error, Exception: _unexpected}
    app = Starlette(routes=routes, middleware=[Middleware(_Guard, edge=edge)], exception_handlers=handlers)
    app.router.redirect_slashes = False  # such a redirect would go wherever the Host header says
    return app


class _Guard:
    """Keeps web pages of other sites away: any page may send requests to this machine."""

    def __init__(self, app: ASGIApp, edge: Edge) -> None:
        self._app = app
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            check_origin(scope, loopback=self._edge.loopback)
        except ManymindsError as error:
            await _error(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


# --- chat completions ------------------------------------------------------------------------------


class _Chat:
    """`POST /v1/chat/completions`, as a plain ASGI callable."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = _Reply(send, secrets.token_hex(12))
        try:
            raw = await _body(scope, receive, self._edge.max_body_bytes)
            if raw is not None:
                query = parse_request(raw, reply.request_id)
                await _until_gone(receive, self._answer(query, reply))
        except ManymindsError as error:
            await reply.fail(error)
        except Exception:
            log.exception("request %s failed unexpectedly", reply.request_id)
            await reply.fail(ManymindsError("Something went wrong inside this node; its log says what."))
        except asyncio.CancelledError:  # only the server does that, when it ends: here it has come to its end
            with suppress(asyncio.CancelledError):
                await reply.fail(UnavailableError("This node is ending: ask again soon."))

    async def _answer(self, query: Query, reply: "_Reply") -> None:
        async with aclosing(self._edge.expert.stream(query)) as chunks:
            await (reply.stream(chunks, query) if query.stream else reply.whole(chunks, query))


class _Reply:
    """One reply on its way."""

    def __init__(self, send: Send, request_id: str) -> None:
        self.request_id = request_id
        self._send = send
        self._begun = False
        self._ended = False

    async def whole(self, chunks: AsyncGenerator[Chunk, None], query: Query) -> None:
        received = [chunk async for chunk in chunks]
        body = completion(received, query, query.model)
        self._ended = True
        await _send(self._send, 200, body, self.request_id)

    async def stream(self, chunks: AsyncGenerator[Chunk, None], query: Query) -> None:
        async for chunk in chunks:
            first = not self._begun
            if chunk.finish_reason is None:
                await self._events([written(chunk, query, query.model, first=first)])
            else:
                await self._events(stream_end(chunk, query, query.model, first=first))
        await self._end(_DONE)

    async def fail(self, error: ManymindsError) -> None:
        """An error before the first byte has its status, later its event; after the end it has neither."""
        if self._begun and not self._ended:
            await self._end(event(error_body(error)))
        elif not self._ended:
            self._ended = True
            await _send_error(self._send, error, self.request_id)

    async def _end(self, body: bytes) -> None:
        self._ended = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _events(self, data: list[bytes]) -> None:
        if not self._begun:
            self._begun = True
            headers = _headers(b"text/event-stream; charset=utf-8", self.request_id)
            headers.append((b"cache-control", b"no-cache"))
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        body = b"".join(event(d) for d in data)
        await self._send({"type": "http.response.body", "body": body, "more_body": True})


async def _body(scope: Scope, receive: Receive, limit_bytes: int) -> bytes | None:
    """The request's body; None when the client left. Raises: TooLargeError, SlowRequestError."""
    declared = dict(scope["headers"]).get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise _too_large(limit_bytes)
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        try:
            async with asyncio.timeout(_READ_S):
                message = await receive()
        except TimeoutError:
            raise SlowRequestError(
                f"No more of the body came for {_READ_S:g} s: send it without such a pause."
            ) from None
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
    return b"".join(parts)


def _too_large(limit_bytes: int) -> TooLargeError:
    return TooLargeError(
        f"The body is larger than {limit_bytes / 1e6:g} MB: send less, or raise `server.max_body_mb`."
    )


async def _until_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Runs `work`, and cancels it at once when the client goes away. Raises: what `work` raises."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
        if not working.cancelled():
            working.result()


# --- models and health -----------------------------------------------------------------------------


class _Models:
    """`GET /v1/models` and `GET /v1/models/{name}`: the policies, then the experts."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._created = int(time.time())

    def _all(self) -> list[dict[str, Any]]:
        owners = [(policy, "manyminds") for policy in self._edge.policies]
        owners += [(card.name, card.source) for card in self._edge.cards()]
        return [
            {"id": name, "object": "model", "created": self._created, "owned_by": owner}
            for name, owner in owners
        ]

    async def list(self, request: Request) -> Response:
        return _json({"object": "list", "data": self._all()})

    async def retrieve(self, request: Request) -> Response:
        name = request.path_params["name"]
        for model in self._all():
            if model["id"] == name:
                return _json(model)
        raise ModelNotFoundError(f"No model is named {name!r}: GET /v1/models lists them.", param="model")


async def _live(request: Request) -> Response:
    return _json({"status": "live"})


class _Ready:
    """`GET /health/ready`: 200 once loading has ended and there is anyone to ask, else 503."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ready = self._edge.ready()
        body = {"status": "ready" if ready else "not ready", "experts": len(self._edge.cards())}
        await _json(body, 200 if ready else 503)(scope, receive, send)


# --- replies ---------------------------------------------------------------------------------------


def _headers(content_type: bytes, request_id: str) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", content_type), (b"x-request-id", request_id.encode())]


async def _send(
    send: Send, status: int, body: bytes, request_id: str, more: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    headers = [*_headers(b"application/json", request_id), *more]
    headers.append((b"content-length", str(len(body)).encode()))
    start: Message = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})


async def _send_error(send: Send, error: ManymindsError, request_id: str) -> None:
    headers = [(name.encode(), value.encode()) for name, value in _advice(error).items()]
    await _send(send, error.status, error_body(error), request_id, headers)


def _advice(error: ManymindsError) -> dict[str, str]:
    """What a client that gets this error should do next."""
    if isinstance(error, SlowRequestError):
        return {"connection": "close"}  # else its sender could keep it for ever
    if isinstance(error, InvalidRequestError | RefusedError):
        return {"x-should-retry": "false"}
    return {}


def _json(fields: dict[str, Any], status: int = 200, more: dict[str, str] | None = None) -> Response:
    headers = {"x-request-id": secrets.token_hex(12)} | (more or {})
    return Response(msgspec.json.encode(fields), status, headers, "application/json")


def _error(error: ManymindsError) -> Response:
    return _json(error.body(), error.status, _advice(error))


async def _own_error(request: Request, error: ManymindsError) -> Response:
    return _error(error)


async def _http_error(request: Request, error: HTTPException) -> Response:
    where = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        return _error(EndpointNotFoundError(f"There is no {where}. Chat is at POST /v1/chat/completions."))
    if error.status_code == 405:
        return _error(MethodNotAllowedError(f"{where} is not allowed; see GET /v1/models for a start."))
    return _error(InvalidRequestError(f"{where}: {error.detail}."))


async def _unexpected(request: Request, error: Exception) -> Response:
    log.exception("%s %s failed unexpectedly", request.method, request.url.path)
    return _error(ManymindsError("Something went wrong inside this node; its log says what."))
