"""The HTTP edge: OpenAI's chat completions and models, and health. Knows an expert, not what it is."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from manyminds.admission import Admission
from manyminds.alarm import Alarm
from manyminds.errors import (
    EndpointNotFoundError,
    InvalidRequestError,
    ManymindsError,
    MethodNotAllowedError,
    ModelNotFoundError,
)
from manyminds.types import Card, Completer, Embed
from manyminds.web.answering import Answering, Seen
from manyminds.web.door import credentials, everybody
from manyminds.web.embedding import Embedding
from manyminds.web.metrics import CONTENT_TYPE
from manyminds.web.origin import check_origin
from manyminds.web.replies import advice, new_id, read_body, send_error, send_json
from manyminds.wire import CHAT, COMPLETIONS, MESSAGES, RESPONSES, count_tokens

__all__ = ["ENDPOINTS", "App", "Edge", "build"]

log = logging.getLogger(__name__)

_DIALECTS = MappingProxyType(
    {
        "/v1/chat/completions": CHAT,
        "/v1/completions": COMPLETIONS,
        "/v1/messages": MESSAGES,
        "/v1/responses": RESPONSES,
    }
)

ENDPOINTS = tuple(_DIALECTS)
"""Paths of the endpoints that answer, as `Edge.seen` is told them."""


@dataclass(frozen=True, slots=True)
class Edge:
    """What the edge serves.

    `expert` answers; `policies` and `cards` are listed as models; `ready` says whether there is anyone to
    ask; `loopback`, whether only this machine can reach it; `embed` is the sentence encoder of that name,
    None where it is not installed. `admission` says who may ask. `seen` is told of every request that has
    ended; `metrics` writes figures for Prometheus.
    """

    expert: Completer
    policies: Sequence[str]
    cards: Callable[[], Sequence[Card]]
    ready: Callable[[], bool]
    max_body_bytes: int
    loopback: bool = True
    admission: Admission = field(default_factory=everybody)
    seen: Seen = lambda path, reply: None
    metrics: Callable[[], Awaitable[bytes]] | None = None
    encoder: str = ""
    embed: Embed | None = None


def build(edge: Edge) -> "App":
    """The ASGI application."""
    models = _Models(edge)
    routes = [
        Route("/v1/models", models.list, methods=["GET"]),
        Route("/v1/models/{name:path}", models.retrieve, methods=["GET"]),
        Route("/v1/experts", models.experts, methods=["GET"]),
        Route("/v1/messages/count_tokens", _Counting(edge), methods=["POST"]),
        Route("/health/live", _live, methods=["GET"]),
        Route("/health/ready", _Ready(edge), methods=["GET"]),
    ]
    answering: dict[str, ASGIApp] = {
        path: Answering(path, edge.expert, dialect, edge.admission, edge.max_body_bytes, edge.seen)
        for path, dialect in _DIALECTS.items()
    }
    answering["/v1/embeddings"] = Embedding(edge.embed, edge.encoder, edge.admission, edge.max_body_bytes)
    if edge.metrics is not None:
        routes.append(Route("/metrics", _Figures(edge.metrics), methods=["GET"]))
    routes += [Route(path, app, methods=["POST"]) for path, app in answering.items()]
    handlers: Any = {HTTPException: _http_error, ManymindsError: _own_error, Exception: _unexpected}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False  # such a redirect would go wherever the Host header says
    return App(app, answering, edge.admission, loopback=edge.loopback)


class App:
    """Keeps web pages of other sites away, and takes the short way to what answers."""

    def __init__(
        self, app: Starlette, answering: Mapping[str, ASGIApp], admission: Admission, *, loopback: bool
    ) -> None:
        self._app = app
        self._answering = answering
        self._admission = admission
        self._loopback = loopback

    @property
    def routes(self) -> Sequence[BaseRoute]:
        return self._app.routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            check_origin(scope, loopback=self._loopback)
            quick = self._answering.get(scope["path"]) if scope["method"] == "POST" else None
            if quick is None and scope["path"].startswith(("/v1/", "/metrics")):
                self._admission.identify(*credentials(scope))
        except ManymindsError as error:
            await _error(error)(scope, receive, send)
            return
        await (quick or self._app)(scope, receive, send)


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

    async def experts(self, request: Request) -> Response:
        """`GET /v1/experts`: every expert's card."""
        cards = [msgspec.to_builtins(card) for card in self._edge.cards()]
        for card in cards:
            card["offers"] = sorted(card["offers"])
        return _json({"object": "list", "data": cards})

    async def retrieve(self, request: Request) -> Response:
        name = request.path_params["name"]
        for model in self._all():
            if model["id"] == name:
                return _json(model)
        raise ModelNotFoundError(f"No model is named {name!r}: GET /v1/models lists them.", param="model")


class _Counting:
    """`POST /v1/messages/count_tokens`."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._alarm = Alarm()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = new_id()
        try:
            raw = await read_body(scope, receive, self._edge.max_body_bytes, self._alarm)
            if raw is not None:
                await send_json(send, 200, count_tokens(raw), request_id)
        except ManymindsError as error:
            await send_error(send, error, request_id, MESSAGES.refuse(error, request_id))


async def _live(request: Request) -> Response:
    return _json({"status": "live"})


class _Figures:
    """`GET /metrics`, in Prometheus' text format."""

    def __init__(self, render: Callable[[], Awaitable[bytes]]) -> None:
        self._render = render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Response(await self._render(), media_type=CONTENT_TYPE)(scope, receive, send)


class _Ready:
    """`GET /health/ready`: 200 once loading has ended and there is anyone to ask, else 503."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ready = self._edge.ready()
        body = {"status": "ready" if ready else "not ready", "experts": len(self._edge.cards())}
        await _json(body, 200 if ready else 503)(scope, receive, send)


# --- replies ---------------------------------------------------------------------------------------


def _json(fields: dict[str, Any], status: int = 200, more: dict[str, str] | None = None) -> Response:
    headers = {"x-request-id": new_id()} | (more or {})
    return Response(msgspec.json.encode(fields), status, headers, "application/json")


def _error(error: ManymindsError) -> Response:
    return _json(error.body(), error.status, advice(error))


async def _own_error(request: Request, error: ManymindsError) -> Response:
    return _error(error)


async def _http_error(request: Request, error: HTTPException) -> Response:
    where = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        return _error(EndpointNotFoundError(f"There is no {where}. Chat is at POST /v1/chat/completions."))
    if error.status_code == 405:
        refused = _error(MethodNotAllowedError(f"{where} is not allowed; see GET /v1/models for a start."))
        refused.headers.update(error.headers or {})  # which methods are
        return refused
    return _error(InvalidRequestError(f"{where}: {error.detail}."))


async def _unexpected(request: Request, error: Exception) -> Response:
    log.exception("%s %s failed unexpectedly", request.method, request.url.path)
    return _error(ManymindsError("Something went wrong inside this node; its log says what."))
