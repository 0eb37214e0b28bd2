"""Calls an ASGI application as a server would, in virtual time where the loop is."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message


@dataclass
class Reply:
    """What came back, and the parts it came in."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)


async def call(
    app: ASGIApp,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    headers: dict[str, str] | None = None,
    gone_after_s: float | None = None,
    pause_s: float = 0.0,
    ended_after_s: float | None = None,
) -> Reply:
    """One request. The client leaves after `gone_after_s`, else when it has everything.

    It waits `pause_s` before the second half of the body. The server is ended after `ended_after_s`.
    """
    reply = Reply()
    ended = asyncio.Event()
    halves = [body[: len(body) // 2], body[len(body) // 2 :]]

    async def receive() -> Message:
        if halves:
            await asyncio.sleep(pause_s if len(halves) == 1 else 0)
            return {"type": "http.request", "body": halves.pop(0), "more_body": bool(halves)}
        if gone_after_s is None:
            await ended.wait()
        else:
            await asyncio.sleep(gone_after_s)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            reply.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            return
        reply.parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            ended.set()

    raw = [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()]
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": raw,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    task = asyncio.ensure_future(app(scope, receive, send))
    if ended_after_s is not None:
        await asyncio.wait([task], timeout=ended_after_s)
        task.cancel()
    await task
    return reply
