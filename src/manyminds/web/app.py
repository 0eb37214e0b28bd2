"""The HTTP edge: which endpoint answers what. Knows an expert, not what it is."""

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from manyminds.admission import Admission
from manyminds.errors import (
    EndpointNotFoundError,
    ManymindsError,
    MethodNotAllowedError,
    ModelNotFoundError,
)
from manyminds.types import Card, Completer, Embed
from manyminds.web.admin import AdminEdge, Administration
from manyminds.web.aliases import Aliases
from manyminds.web.answering import Answering, Seen
from manyminds.web.door import everybody, identify
from manyminds.web.embedding import Embedding
from manyminds.web.exchange import Exchange
from manyminds.web.feedback import Feedback, Grade
from manyminds.web.markdown import Markdown
from manyminds.web.metrics import CONTENT_TYPE
from manyminds.web.openapi import document
from manyminds.web.origin import check_origin
from manyminds.web.pages import ASSETS
from manyminds.web.replies import JSON, named, new_id, refusal
from manyminds.wire import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES, count_tokens

if TYPE_CHECKING:
    from manyminds.web.network import NetworkEdge

__all__ = ["ENDPOINTS", "App", "Edge"]

log = logging.getLogger(__name__)

_DIALECTS: Final = MappingProxyType(
    {
        "/v1/chat/completions": CHAT,
        "/v1/completions": COMPLETIONS,
        "/v1/embeddings": EMBEDDINGS,
        "/v1/messages": MESSAGES,
        "/v1/responses": RESPONSES,
    }
)

ENDPOINTS: Final = tuple(_DIALECTS)
"""Paths of the endpoints that answer, as `Edge.seen` is told them."""

_MODEL: Final = "/v1/models/"  # and its name

_Shown: TypeAlias = tuple[int, bytes, bytes]
"""Status, head and body."""

_Handle: TypeAlias = Callable[[Exchange], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Edge:
    """What the edge serves.

    `expert` answers; `policies` and `cards` are listed as models; `aliases` are other names for these, and
    `knows` says whether a name is one of ours; `ready` says whether there is anyone to ask; `loopback`,
    whether only this machine can reach it; `embed` is the sentence encoder of that name, None where it is
    not installed. `admission` says who may ask. `seen` is told of every request that has ended; `metrics`
    writes figures for Prometheus; `grade` keeps what callers say of their answers; `rated` shows cards with
    what was measured of their experts, also of those `paused`, whom `cards` leave out; `network` is for other
    nodes, None where this one is alone; `admin` is for the node's owner; `pages` are shown to browsers, by
    path.
    """

    expert: Completer
    policies: Sequence[str]
    cards: Callable[[], Sequence[Card]]
    ready: Callable[[], bool]
    max_body_bytes: int
    loopback: bool = True
    admission: Admission = field(default_factory=everybody)
    aliases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    knows: Callable[[str], bool] = lambda name: True
    seen: Seen = lambda path, reply: None
    metrics: Callable[[], Awaitable[bytes]] | None = None
    grade: Grade | None = None
    rated: Callable[[], Awaitable[Sequence[Card]]] | None = None
    encoder: str = ""
    paused: Callable[[], Collection[str]] = frozenset
    embed: Embed | None = None
    network: "NetworkEdge | None" = None
    admin: AdminEdge | None = None
    pages: Mapping[str, _Handle] = field(default_factory=dict)


class App:
    """Serves every request: see `connection.Serve`. Keeps web pages of other sites away."""

    def __init__(self, edge: Edge) -> None:
        self._created = int(time.time())
        self._openapi: dict[str, Any] | None = None  # made when somebody asks for it
        self.replace(edge)

    def replace(self, edge: Edge) -> None:
        """Serves another edge from now on. What is being answered is answered as it began."""
        self._edge = edge
        self._aliases = Aliases(edge.aliases, edge.knows)
        embedding = Embedding(edge.expert, edge.cards, edge.encoder, edge.embed, edge.paused)
        self._posts: dict[str, _Handle] = {}
        for path, dialect in _DIALECTS.items():
            expert = embedding if dialect is EMBEDDINGS else edge.expert
            self._posts[path] = Answering(
                path, expert, dialect, edge.admission, self._aliases, edge.max_body_bytes, edge.seen
            )
        self._posts["/v1/messages/count_tokens"] = self._count_tokens
        if edge.grade is not None:
            self._posts["/v1/feedback"] = Feedback(edge.grade, edge.admission)
        self._posts["/v1/markdown"] = Markdown(edge.admission)
        self._reads = dict(edge.pages)
        if edge.admin is not None:
            administration = Administration(edge.admin, edge.admission)
            self._reads |= administration.gets
            self._posts |= administration.posts
        self._gets: dict[str, Callable[[], Awaitable[_Shown]]] = {
            "/v1/models": self._models,
            "/v1/experts": self._experts,
            "/openapi.json": self._document,
            "/health/live": self._live,
            "/health/ready": self._ready,
        }
        if edge.metrics is not None:
            self._gets["/metrics"] = self._metrics
        if edge.network is not None:
            self._gets |= edge.network.gets
            self._posts |= edge.network.posts

    @property
    def routes(self) -> list[tuple[str, str]]:
        """Method and path of every endpoint."""
        reads = [path for path in self._reads if not path.startswith(ASSETS)]
        reads += [ASSETS + "{name}"] if self._edge.pages else []
        gets = [("GET", path) for path in (*self._gets, _MODEL + "{name}", *reads)]
        return [*gets, *(("POST", path) for path in self._posts)]

    async def __call__(self, exchange: Exchange) -> None:
        path = exchange.path
        try:
            check_origin(path, exchange.headers, loopback=self._edge.loopback)
            handles = {"POST": self._posts, "GET": self._reads, "HEAD": self._reads}.get(exchange.method, {})
            handle = handles.get(path)
            if handle is not None:
                await handle(exchange)
                return
            if path.startswith(("/v1/", "/metrics")):
                identify(self._edge.admission, exchange.headers)
            status, head, body = await self._show(exchange)
        except ManymindsError as error:
            status, head, body = _refusal(path, error)
        except Exception:
            log.exception("%s %r failed unexpectedly", exchange.method, path)
            wrong = ManymindsError("Something went wrong inside this node; its log says what.")
            status, head, body = _refusal(path, wrong)
        if not exchange.began:
            exchange.reply(status, head, body)

    async def _show(self, exchange: Exchange) -> _Shown:
        """Raises: EndpointNotFoundError, ModelNotFoundError."""
        method, path = exchange.method, exchange.path
        show, name = self._gets.get(path), path.removeprefix(_MODEL)
        if show is None and name not in (path, ""):
            show = partial(self._model, name)
        if show is not None and method in ("GET", "HEAD"):
            return await show()
        if show is None and path not in self._posts and path not in self._reads:
            raise EndpointNotFoundError(f"There is no {method} {path}. Chat is at POST /v1/chat/completions.")
        allowed = "POST" if path in self._posts else "GET, HEAD"
        error = MethodNotAllowedError(f"{method} {path} is not allowed: use {allowed}.")
        status, head, body = _refusal(path, error)
        return status, head + f"allow: {allowed}\r\n".encode(), body

    # --- what is shown ---

    def _all(self) -> list[dict[str, Any]]:
        """The policies, then the experts, then other names for them."""
        owners = [(policy, "manyminds") for policy in self._edge.policies]
        owners += [(card.name, card.source) for card in self._edge.cards()]
        listed = {name for name, _ in owners}
        owners += [(name, "manyminds") for name in self._aliases.names if name not in listed]
        return [self._described(name, owner) for name, owner in owners]

    def _described(self, name: str, owner: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": owner}

    async def _models(self) -> _Shown:
        return _json({"object": "list", "data": self._all()})

    async def _model(self, name: str) -> _Shown:
        for model in self._all():
            if model["id"] == name:
                return _json(model)
        if self._aliases.targets(name) != (name,):
            return _json(self._described(name, "manyminds"))
        raise ModelNotFoundError(f"No model is named {name!r:.80}: GET /v1/models lists them.", param="model")

    async def _experts(self) -> _Shown:
        if self._edge.rated is not None:
            cards: Sequence[Card] = await self._edge.rated()
        else:
            cards = self._edge.cards()
        shown = [msgspec.to_builtins(card, order="deterministic") for card in cards]
        return _json({"object": "list", "data": shown})

    async def _document(self) -> _Shown:
        if self._openapi is None:
            self._openapi = document(version("manyminds"))
        return _json(self._openapi)

    async def _live(self) -> _Shown:
        return _json({"status": "live"})

    async def _ready(self) -> _Shown:
        """200 once loading has ended and there is anyone to ask, else 503."""
        ready = self._edge.ready()
        body = {"status": "ready" if ready else "not ready", "experts": len(self._edge.cards())}
        return _json(body, 200 if ready else 503)

    async def _metrics(self) -> _Shown:
        assert self._edge.metrics is not None
        head = f"content-type: {CONTENT_TYPE}\r\n".encode()
        return 200, named(new_id()) + head, await self._edge.metrics()

    # --- what is computed ---

    async def _count_tokens(self, exchange: Exchange) -> None:
        admission = self._edge.admission
        with admission.enter():
            identify(admission, exchange.headers)
            counted = count_tokens(await exchange.body(self._edge.max_body_bytes))
        exchange.reply(200, named(new_id()) + JSON, counted)


def _json(fields: dict[str, Any], status: int = 200) -> _Shown:
    return status, named(new_id()) + JSON, msgspec.json.encode(fields)


def _refusal(path: str, error: ManymindsError) -> _Shown:
    """In the format that callers of the path speak."""
    request_id = new_id()
    dialect = MESSAGES if path.startswith("/v1/messages") else CHAT
    status, head, body = refusal(error, dialect.refuse(error, request_id))
    return status, named(request_id) + head, body
