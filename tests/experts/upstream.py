"""An HTTP server on the loopback interface that answers as it is told, byte by byte."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from enum import Enum, auto
from typing import Any, TypeAlias

from aiohttp import web

from manyminds.errors import ManymindsError
from manyminds.experts.openai import OpenAI
from manyminds.types import Card, Expert
from manyminds.upstream import Client
from manyminds.wire import completion, error_body, event, parse_request, stream_end, written

__all__ = ["Act", "Reply", "Upstream", "delta", "plain", "speaking", "sse", "upstream"]


class Act(Enum):
    """What a server can do but send."""

    CLOSE = auto()  # the connection, politely
    RESET = auto()  # the connection, at once
    HANG = auto()  # until the client is gone


Reply: TypeAlias = Sequence[bytes | Act]
"""What to do for one request, in order. The connection then waits for the next one."""


class Upstream:
    """Plays its replies one after the other, the last one for ever."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.bodies: list[dict[str, Any]] = []
        self.heads: list[str] = []  # request lines and headers, in lower case
        self.connections = 0
        self.asked = asyncio.Event()
        self.left = asyncio.Event()  # a client that was left hanging went away
        self.url = ""
        self._open: dict[asyncio.StreamWriter, asyncio.Event] = {}

    async def aclose(self) -> None:
        """Breaks off whatever is open, and waits until that is done."""
        for writer, ended in list(self._open.items()):
            writer.transport.abort()
            await ended.wait()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open[writer] = ended = asyncio.Event()
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._exchange(reader, writer):
                pass
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        del self._open[writer]
        ended.set()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its reply. False: the connection is to be closed."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r")[0] or 0)
        self.heads.append(head)
        self.bodies.append(json.loads(await reader.readexactly(length) or b"null"))
        self.asked.set()
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        for part in reply:
            if part is Act.CLOSE:
                return False
            if part is Act.RESET:
                writer.transport.abort()
                return False
            if part is Act.HANG:
                await reader.read()
                self.left.set()
                return False
            assert isinstance(part, bytes)
            writer.write(part)
            await writer.drain()
        return True


@asynccontextmanager
async def upstream(*replies: Reply, tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    told = Upstream(*replies)
    server = await asyncio.start_server(told.answer, "127.0.0.1", 0, ssl=tls)
    told.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield told
    finally:
        server.close()
        await told.aclose()


def plain(body: bytes, status: str = "200 OK", kind: str = "application/json", headers: str = "") -> bytes:
    """A whole response."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def sse(*events: bytes, done: bool = True, end: bool = True, kind: str = "text/event-stream") -> list[bytes]:
    """A streamed response, one chunk an event. Without `end` it is not finished."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
    parts = [b"data: " + event + b"\n\n" for event in (*events, *([b"[DONE]"] if done else []))]
    framed = [b"%x\r\n%s\r\n" % (len(part), part) for part in parts]
    return [head.encode(), *framed, *([b"0\r\n\r\n"] if end else [])]


def delta(text: str | None = None, finish: str | None = None, index: int = 0, **fields: Any) -> bytes:
    """One event of a chat completion."""
    choice = {"index": index, "delta": {} if text is None else {"content": text}, "finish_reason": finish}
    return json.dumps({"choices": [choice]} | fields).encode()


@asynccontextmanager
async def speaking(expert: Expert) -> AsyncIterator[OpenAI]:
    """An expert as others reach it: behind a server that speaks OpenAI's protocol for it."""

    async def chat(request: web.Request) -> web.StreamResponse:
        try:
            query = parse_request(await request.read())
        except ManymindsError as error:
            return web.Response(status=error.status, body=error_body(error))
        if not query.stream:
            async with aclosing(expert.stream(query)) as chunks:
                body = completion([chunk async for chunk in chunks], query, "m")
            return web.Response(body=body, content_type="application/json")
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        async with aclosing(expert.stream(query)) as chunks:
            async for chunk in chunks:
                last = chunk.finish_reason is not None
                data = stream_end(chunk, query, "m") if last else [written(chunk, query, "m")]
                await response.write(b"".join(event(d) for d in data))
        await response.write(event(b"[DONE]"))
        return response

    app = web.Application(client_max_size=10**7)
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        async with Client() as client:
            yield OpenAI(Card("m", "openai", source="lab"), url, client)
    finally:
        await runner.cleanup()
