"""A node's double, for what a real one is hard to bring to: scripted answers, many experts, failures.

It serves the real page with the real headers and the real Markdown; `fake_html` takes the latter's place
where a test is about a node that sends what it should not.
"""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

import manyminds.web
from manyminds.router.policy import POLICIES
from manyminds.web.markdown import html_of
from manyminds.web.pages import POLICY

STATIC = Path(manyminds.web.__file__).parent / "static"
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-cache",
}


@dataclass(frozen=True)
class Call:
    """What one expert does."""

    expert: str
    source: str
    text: str = "Canberra."
    status: str = "ok"
    probability: float = 0.7
    weight: float = 0.2
    answer: str = "canberra"
    hedges: str | None = None
    lost: bool = False
    declined: bool = False
    error: str | None = None
    ttft_s: float = 0.12
    seconds: float = 0.4
    cost_usd: float = 0.00021
    stage: int = 0
    planned: bool = True  # whether the route knew of it


@dataclass
class Script:
    """What comes of a question. While `hold` is not set, nobody's answer ends, and none is released."""

    calls: tuple[Call, ...]
    answer: str = "The capital of Australia is **Canberra**."
    hold: threading.Event | None = None
    error: str | None = None  # instead of an answer, once the panel has been asked
    watched: bool = True
    report: dict[str, Any] = field(default_factory=dict)


EXPERTS: tuple[Call, ...] = (
    Call("quince-0.5b", "own", "Canberra.", probability=0.61, weight=0.17),
    Call("sorrel-135m", "own", "Sydney.", probability=0.34, weight=0.04, answer="sydney", cost_usd=0.00003),
    Call("maple-small", "maple", "It is Canberra.", probability=0.82, weight=0.33, cost_usd=0.00048),
    Call("larch-8b", "alice", "Canberra, in the ACT.", probability=0.74, weight=0.26, seconds=0.9),
    Call("atlas", "library", "The documents say Canberra.", probability=0.88, weight=0.2, cost_usd=0.0),
)


class Stub:
    """Begun on a free port by `start()`; `stop()` and `start()` again keep the port."""

    def __init__(self) -> None:
        self.port = 0
        self.key: str | None = None  # that everybody needs
        self.calls = EXPERTS
        self.scripts: dict[str, Script] = {}  # by a part of the question
        self.admin: dict[str, Any] = {}  # by what follows /v1/admin/
        self.fake_html: str | None = None
        self.asked: list[dict[str, Any]] = []
        self.graded: list[dict[str, Any]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runner: web.AppRunner | None = None
        self._open: set[asyncio.Task[Any]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._do(self._start())

    def stop(self) -> None:
        self._do(self._stop())

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _start(self) -> None:
        app = web.Application(client_max_size=2**22, middlewares=[self._known])
        app.router.add_get("/", self._home)
        app.router.add_get("/assets/{name}", self._asset)
        app.router.add_get("/health/live", _live)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/experts", self._experts)
        app.router.add_get("/v1/admin/events", self._events)
        app.router.add_get("/v1/admin/{name}", self._admin)
        app.router.add_post("/v1/admin/{name}", self._admin)
        app.router.add_post("/v1/markdown", self._markdown)
        app.router.add_post("/v1/feedback", self._feedback)
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        [(_, self.port)] = [(name[0], name[1]) for name in self._runner.addresses]

    async def _stop(self) -> None:
        if self._runner is not None:
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _known(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Whoever is being answered when the node dies is cut off."""
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            return await handler(request)
        except ConnectionResetError:  # the browser left
            return web.Response(status=499)
        finally:
            self._open.discard(task)

    # --- what it serves ---

    async def _home(self, request: web.Request) -> web.Response:
        page = (STATIC / "index.html").read_text(encoding="utf-8")
        return web.Response(text=page, content_type="text/html", headers=HEADERS)

    async def _asset(self, request: web.Request) -> web.Response:
        path = STATIC / request.match_info["name"]
        kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
        if path.suffix not in kinds or not path.is_file():
            return _refused(404, "No endpoint at this path.")
        return web.Response(body=path.read_bytes(), content_type=kinds[path.suffix], headers=HEADERS)

    def _denied(self, request: web.Request) -> web.Response | None:
        if self.key is None or request.headers.get("authorization") == f"Bearer {self.key}":
            return None
        return _refused(401, "This node asks for a key.")

    async def _models(self, request: web.Request) -> web.Response:
        owners = dict.fromkeys((*POLICIES, "private"), "manyminds") | {
            call.expert: call.source for call in self.calls
        }
        models = [{"id": name, "object": "model", "owned_by": owner} for name, owner in owners.items()]
        return self._denied(request) or web.json_response({"object": "list", "data": models})

    async def _experts(self, request: web.Request) -> web.Response:
        cards = [{"name": call.expert, "source": call.source, "skills": []} for call in self.calls]
        return self._denied(request) or web.json_response({"object": "list", "data": cards})

    async def _admin(self, request: web.Request) -> web.Response:
        shown = self.admin.get(request.match_info["name"])
        missing = _refused(404, "No endpoint at this path.")
        return self._denied(request) or (missing if shown is None else web.json_response(shown))

    async def _markdown(self, request: web.Request) -> web.Response:
        text = (await request.json())["text"]
        html = html_of(text) if self.fake_html is None else self.fake_html
        return self._denied(request) or web.json_response({"html": html})

    async def _feedback(self, request: web.Request) -> web.Response:
        self.graded.append(await request.json())
        return self._denied(request) or web.json_response({"object": "feedback", "learnt": True})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if denied := self._denied(request):
            return denied
        response = await _began(request)
        n = len(self.calls)
        now = {"event": "traffic", "in_flight": 0, "requests": 12, "requests_per_min": 3.5, "peers": 2}
        now |= {"cost_usd": 0.0123, "cost_usd_per_min": 0.0004, "experts": n, "running": n - 1}
        while True:
            await _send(response, now)
            await asyncio.sleep(1)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        self.asked.append(asked)
        if denied := self._denied(request):
            return denied
        question = asked["messages"][-1]["content"]
        found = [script for part, script in self.scripts.items() if part in question]
        script = found[0] if found else Script(self.calls)
        response = await _began(request)
        async for chunk in _told(asked, script):
            await _send(response, chunk)
            await asyncio.sleep(0)
        if not script.error:
            await response.write(b"data: [DONE]\n\n")
        return response


async def _live(request: web.Request) -> web.Response:
    return web.json_response({"status": "live"})


def _refused(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return web.json_response({"error": error}, status=status)


async def _began(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-store"})
    await response.prepare(request)
    return response


async def _send(response: web.StreamResponse, event: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")


# --- an answer -------------------------------------------------------------------------------------


async def _told(asked: dict[str, Any], script: Script) -> AsyncIterator[dict[str, Any]]:
    wish = asked.get("manyminds", {})
    only, never = wish.get("include"), wish.get("exclude", [])
    calls = [c for c in script.calls if (not only or c.expert in only) and c.expert not in never]
    sizes = {"cheap": 1, "fast": 2, "auto": 5}
    calls = calls[: sizes.get(asked["model"], len(calls))]
    watched = script.watched and wish.get("watch", False)
    for event in _opening(asked["model"], calls) if watched else []:
        yield _chunk(event)
    for n, call in enumerate(calls) if watched else []:
        for word in call.text.split():
            yield _chunk({"event": "wrote", "call": n, "text": word + " "})
    until = time.monotonic() + 30
    while script.hold is not None and not script.hold.is_set() and time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    for n, call in enumerate(calls) if watched else []:
        yield _chunk({"event": "ended", "call": n, "lost": call.lost, "completion_tokens": 3, **_end(call)})
    if script.error:
        yield {
            "error": {"message": script.error, "type": "upstream_error", "param": None, "code": "no_answer"}
        }
        return
    for word in script.answer.split(" "):
        yield {"choices": [{"index": 0, "delta": {"content": word + " "}}]}
    yield {"choices": [], "manyminds": _report(asked["model"], calls) | script.report}


def _chunk(event: dict[str, Any]) -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": [], "manyminds": event}


def _opening(policy: str, calls: list[Call]) -> list[dict[str, Any]]:
    planned: list[dict[str, Any]] = [
        {"expert": c.expert, "source": c.source, "stage": c.stage, "probability": c.probability}
        | {"share": c.weight, "method": "generate", "samples": 1}
        for c in calls
        if c.planned
    ]
    route: dict[str, Any] = {"event": "routed", "policy": policy, "strategy": "vote", "section": "geography"}
    route |= {"best_single": "maple-small", "expected_accuracy": 0.91, "expected_cost_usd": 0.0009}
    began = [
        {"event": "began", "call": n, "expert": c.expert, "source": c.source, "stage": c.stage}
        | {"method": "generate", "hedges": c.hedges, "at_s": 0.01 * n}
        for n, c in enumerate(calls)
    ]
    return [route | {"expected_latency_s": 0.8, "calls": planned, "reserve": []}, *began]


def _end(call: Call) -> dict[str, Any]:
    heard = call.status in ("ok", "cut")
    return {
        "status": call.status,
        "declined": call.declined,
        "error": call.error,
        "ttft_s": call.ttft_s if heard else None,
        "seconds": call.seconds,
        "cost_usd": call.cost_usd,
    }


def _report(policy: str, calls: list[Call]) -> dict[str, Any]:
    panel: list[dict[str, Any]] = [
        {"expert": c.expert, "source": c.source, "weight": c.weight if c.status == "ok" else 0.0}
        | {"answer": c.answer, "stage": c.stage, "method": "generate"}
        | {"correct_probability": 0.93 if c.answer == "canberra" else 0.05}
        | {"support": None, **_end(c)}
        for c in calls
    ]
    heard = [c for c in calls if c.status == "ok" and not c.declined]
    by_source: dict[str, float] = {}
    for c in heard:
        by_source[c.source] = by_source.get(c.source, 0.0) + c.weight
    total = sum(by_source.values()) or 1.0
    return {
        "request_id": f"req-{policy}-{len(calls)}",
        "policy": policy,
        "strategy": "vote",
        "panel": panel,
        "agreement": 0.8,
        "probability": 0.93,
        "attribution": [
            {"source": source, "divergence": share, "share": share / total, "estimated": False}
            for source, share in by_source.items()
        ],
        "cost_usd": sum(c.cost_usd for c in calls),
        "saved_usd": 0.0021 - sum(c.cost_usd for c in calls),
        "cache": "off",
    }
