"""The node's double, with what an administrator sees: answers by path, news, newcomers as they are probed."""

import asyncio
import json
import threading
import time
from contextlib import suppress
from typing import Any

from aiohttp import web

from tests.browser.stub import Stub

__all__ = ["Node"]

_PATIENCE_S = 30.0


class Node(Stub):
    """`admin` says what follows /v1/admin/: JSON, a status and a message, or a function of what was sent.

    `steps` is what adding tells, event by event; a `threading.Event` among them is waited for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[dict[str, Any] | threading.Event] = []
        self.got: list[str] = []  # by GET, what follows /v1/admin/
        self.sent: list[tuple[str, Any]] = []  # by POST
        self.left = threading.Event()  # who was adding went away in the midst of it
        self.hold: threading.Event | None = None  # GETs wait for it
        self._closing = False
        self._news: list[asyncio.Queue[dict[str, Any]]] = []

    def tell(self, event: dict[str, Any]) -> None:
        """To every page that listens."""
        for listener in list(self._news):
            self._loop.call_soon_threadsafe(listener.put_nowait, event)

    async def _admin(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        body = None
        if request.method == "POST":
            body = await request.json()
            self.sent.append((name, body))
            if name == "add":
                return await self._add(request)  # type: ignore[return-value]  # a stream
        else:
            self.got.append(name)
            await _set(self.hold)
        shown = self.admin.get(name, (404, "No endpoint at this path."))
        shown = shown(body) if callable(shown) else shown
        if isinstance(shown, tuple):
            status, message = shown
            return web.json_response({"error": {"message": message, "type": "server_error"}}, status=status)
        return web.json_response(shown)

    async def _add(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            for step in self.steps:
                if isinstance(step, threading.Event):
                    await _set(step, response)
                else:
                    await _send(response, step)
            await response.write(b"data: [DONE]\n\n")
        except ConnectionError:
            self.left.set()
        return response

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        mine: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._news.append(mine)
        try:
            while not self._closing:
                await response.write(b":\n\n")  # finds out that nobody listens any more
                with suppress(TimeoutError):
                    await _send(response, await asyncio.wait_for(mine.get(), 0.05))
        except ConnectionError:
            pass
        finally:
            self._news.remove(mine)
        return response

    def close(self) -> None:
        self._closing = True
        super().close()


async def _send(response: web.StreamResponse, event: dict[str, Any]) -> None:
    await response.write(f"data: {json.dumps(event)}\n\n".encode())


async def _set(event: threading.Event | None, response: web.StreamResponse | None = None) -> None:
    """Waits for it; meanwhile writes comments, which find out that nobody reads any more."""
    until = time.monotonic() + _PATIENCE_S
    while event is not None and not event.is_set() and time.monotonic() < until:
        if response is not None:
            await response.write(b":\n\n")
        await asyncio.sleep(0.02)
