"""An OpenAI-compatible server as a process of its own, so that it can be killed: `python upstream.py PORT`.

Prints its port. Every model misbehaves in its own way, which is its name up to the first `=`; what follows
is a number. `GET /stats` tells what came of it: see `_Server.stats`. Imports nothing but Python.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Final

__all__ = ["PLAYS"]

_HANG: Final = None  # in place of bytes: nothing more comes, and the connection stays open
_CUT: Final = False  # the connection is closed
_Parts = AsyncIterator[bytes | bool | None]

_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
_FLAGGED = "content policy"


def _event(delta: Mapping[str, str], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %s\n\n" % json.dumps({"choices": [choice]} | more).encode()


_USAGE = {"prompt_tokens": 7, "completion_tokens": 3}
_MESSAGE = {"role": "assistant", "content": "All is well."}
_ANSWER = json.dumps(
    {"choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}], "usage": _USAGE}
).encode()
_WORDS = [_event({"content": word}) for word in ("All", " is", " well.")]
_END = [_event({}, "stop", usage=_USAGE), b"data: [DONE]\n\n"]


def _framed(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


def _sized(body: bytes, length: int | None = None, kind: bytes = b"application/json") -> bytes:
    """A whole response that says it has so many bytes."""
    length = len(body) if length is None else length
    return b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s" % (kind, length, body)


def _error(status: str, headers: str = "", message: str = "out of luck") -> bytes:
    body = json.dumps({"error": {"message": message}})
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{headers}\r\n{body}".encode()


def _answer(streamed: bool) -> bytes:
    return _STREAM + _framed(*_WORDS, *_END) + b"0\r\n\r\n" if streamed else _sized(_ANSWER)


def _half(streamed: bool) -> bytes:
    """Two words, or as much of a whole answer."""
    return _STREAM + _framed(*_WORDS[:2]) if streamed else _sized(_ANSWER)[:-40]


# --- what models do: the request, whether it wants a stream, the number in their name ---------------------


async def _well(body: Any, streamed: bool, ms: float) -> _Parts:
    """Answers, after a while."""
    await asyncio.sleep(ms / 1000)
    yield _answer(streamed)


async def _talk(body: Any, streamed: bool, ms: float) -> _Parts:
    """A word every so many milliseconds, for ever."""
    yield _STREAM
    while True:
        yield _framed(_event({"content": "bla "}))
        await asyncio.sleep(ms / 1000)


async def _drip(body: Any, streamed: bool, ms: float) -> _Parts:
    """The answer, byte by byte."""
    for byte in _answer(streamed):
        yield bytes([byte])
        await asyncio.sleep(ms / 1000)


async def _stall_head(body: Any, streamed: bool, number: float) -> _Parts:
    yield b"HTTP/1.1 200 OK\r\ncontent-ty"
    yield _HANG


async def _stall_first(body: Any, streamed: bool, number: float) -> _Parts:
    yield _STREAM if streamed else _WHOLE + b"content-length: 100\r\n\r\n"
    yield _HANG


async def _stall_mid(body: Any, streamed: bool, number: float) -> _Parts:
    yield _half(streamed)
    yield _HANG


async def _stall_error(body: Any, streamed: bool, number: float) -> _Parts:
    yield _error("500 Oops")[:-20]
    yield _HANG


async def _cut_head(body: Any, streamed: bool, number: float) -> _Parts:
    yield b"HTTP/1.1 200 OK\r\ncontent-ty"
    yield _CUT


async def _cut_mid(body: Any, streamed: bool, number: float) -> _Parts:
    yield _half(streamed)
    yield _CUT


async def _no_finish(body: Any, streamed: bool, number: float) -> _Parts:
    yield _half(True) + b"0\r\n\r\n"


async def _not_http(body: Any, streamed: bool, number: float) -> _Parts:
    yield b"SSH-2.0-OpenSSH_9.2\r\n"


async def _bad_chunk(body: Any, streamed: bool, number: float) -> _Parts:
    if streamed:
        yield _half(True) + b"so long\r\n"
    else:
        yield _WHOLE + b"transfer-encoding: chunked\r\n\r\nso long\r\n" + _ANSWER


async def _bad_json(body: Any, streamed: bool, number: float) -> _Parts:
    yield _half(True) + _framed(b"data: {nonsense\n\n") if streamed else _sized(b'{"choices": [')


async def _half_letter(body: Any, streamed: bool, number: float) -> _Parts:
    """The first of the two bytes of an umlaut."""
    if streamed:
        yield _half(True) + _framed(_WORDS[2].replace(b"well", b"w\xc3"))
    else:
        yield _sized(_ANSWER.replace(b"well", b"w\xc3"))


async def _endless_head(body: Any, streamed: bool, number: float) -> _Parts:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"x-more: and more\r\n" * 100


async def _endless_body(body: Any, streamed: bool, number: float) -> _Parts:
    """One event, or one answer, that never ends."""
    yield _STREAM + _framed(b"data: ") if streamed else _WHOLE + b'\r\n{"choices": "'
    while True:
        yield _framed(b"x" * 65_536) if streamed else b"x" * 65_536


async def _too_short(body: Any, streamed: bool, number: float) -> _Parts:
    """More comes than was announced."""
    if streamed:
        yield _sized(b"".join((*_WORDS, *_END)), len(b"".join(_WORDS[:2])), b"text/event-stream")
    else:
        yield _sized(_ANSWER, len(_ANSWER) - 10)


async def _too_long(body: Any, streamed: bool, number: float) -> _Parts:
    """Less comes than was announced."""
    if streamed:
        yield _sized(b"".join(_WORDS[:2]), 10_000, b"text/event-stream")
    else:
        yield _sized(_ANSWER, 10_000)
    yield _CUT


async def _status(body: Any, streamed: bool, number: float) -> _Parts:
    yield _error(f"{number:.0f} Oops")


async def _busy(body: Any, streamed: bool, seconds: float) -> _Parts:
    yield _error("429 Too Many Requests", f"retry-after: {seconds:.0f}\r\n" if seconds else "")


async def _moderated(body: Any, streamed: bool, status: float) -> _Parts:
    """Answers, but for what it takes offence at."""
    flagged = "flagged" in json.dumps(body["messages"])
    yield _error(f"{status:.0f} No", message=_FLAGGED) if flagged else _answer(streamed)


PLAYS: Final[Mapping[str, Callable[[Any, bool, float], _Parts]]] = MappingProxyType(
    {
        play.__name__.removeprefix("_"): play
        for play in (
            *(_well, _talk, _drip, _busy, _status, _moderated),
            *(_stall_head, _stall_first, _stall_mid, _stall_error),
            *(_cut_head, _cut_mid, _no_finish, _not_http, _bad_chunk, _bad_json, _half_letter),
            *(_endless_head, _endless_body, _too_short, _too_long),
        )
    }
)
"""By the first part of a model's name."""


class _Server:
    def __init__(self) -> None:
        self._asked: Counter[str] = Counter()
        self._connections = self._under_way = 0

    def stats(self) -> dict[str, Any]:
        """`asked`: requests by model; `under_way`: those not yet ended; `connections`: open, but for this."""
        return {
            "asked": self._asked,
            "under_way": self._under_way,
            "connections": self._connections - 1,
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._exchange(reader, writer):
                pass
        writer.transport.abort()
        self._connections -= 1

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its reply. False: the connection is to be closed."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if head.startswith("get /stats"):
            writer.write(_sized(json.dumps(self.stats()).encode()))
            await writer.drain()
            return True
        length = int(head.partition("content-length: ")[2].partition("\r")[0])
        body = json.loads(await reader.readexactly(length))
        self._asked[body["model"]] += 1
        self._under_way += 1
        playing = asyncio.ensure_future(_play(body, writer))
        leaving = asyncio.ensure_future(reader.read(1))  # the client sends nothing before it has its reply
        try:
            await asyncio.wait({playing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            left = leaving.done()
            for task in (playing, leaving):
                task.cancel()
            kept, _ = await asyncio.gather(playing, leaving, return_exceptions=True)
            self._under_way -= 1
        return kept is True and not left


async def _play(body: Any, writer: asyncio.StreamWriter) -> bool:
    """Whether the connection may be used again."""
    name, _, number = body["model"].partition("=")
    async for part in PLAYS[name](body, bool(body.get("stream")), float(number or 0)):
        if part is _HANG:
            await asyncio.Event().wait()
        elif part is _CUT:
            return False
        else:
            assert isinstance(part, bytes)
            writer.write(part)
            await writer.drain()
    return name not in ("not_http", "bad_chunk")


async def _main(port: int) -> None:
    server = await asyncio.start_server(_Server().serve, "127.0.0.1", port, limit=2**24, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
