"""OpenAI-compatible servers on the loopback interface, in a thread: each model plays what a test tells it to.

What is played is bytes and acts, made from the request: see `Play`. Every request is kept, with whether its
client went away before its reply had ended.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.request import urlopen

from tests.experts.upstream import Act, plain, sse

__all__ = [
    "Asked",
    "Gate",
    "Part",
    "Play",
    "Upstream",
    "calls",
    "chunk",
    "running",
    "says",
    "speaks",
    "streams",
]


class Gate:
    """Holds a reply up until a test opens it."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()

    def open(self) -> None:
        """May be called before anybody waits."""
        if self._loop is None:
            self._event.set()
        else:
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._event.wait()


Part: TypeAlias = bytes | Act | Gate
"""One thing to do in a reply."""

Play: TypeAlias = Callable[[dict[str, Any]], Sequence[Part]]
"""What to do for a request, by its JSON body."""


@dataclass
class Asked:
    """One request, and what became of it."""

    model: str
    body: dict[str, Any]
    raw: bytes
    head: str  # request line and headers, in lower case
    sent: int = 0  # bytes of the reply that the network has taken
    left: bool = False  # its client went away before the reply had ended
    ended: bool = False  # so has the connection where that ends with it


class Upstream:
    """What each model plays, and what was asked. The fields may be read and set from any thread."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self._default: Play = says("Hello.")
        self._plays: Mapping[str, Play] = {}
        self._open: set[asyncio.StreamWriter] = set()

    def play(self, default: Play, **by_model: Play) -> None:
        """From now on, and forgets what was asked."""
        self.asked = []
        self._default, self._plays = default, by_model

    def settle(self) -> None:
        """Returns when every request that is on its way has come: connections are served in their order."""
        with urlopen(self.url, timeout=20) as reply:
            reply.read()

    @property
    def models(self) -> list[str]:
        """Who was asked, sorted."""
        return sorted(asked.model for asked in self.asked)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._exchange(reader, writer):
                pass
        writer.transport.abort()  # also where nothing was asked
        self._open.discard(writer)

    def abort(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its reply. False: the connection is to be closed."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if head.startswith("get "):  # see `settle`
            writer.write(plain(b"{}"))
            await writer.drain()
            return True
        length = int(head.partition("content-length: ")[2].partition("\r")[0] or 0)
        raw = await reader.readexactly(length)
        body = json.loads(raw)
        asked = Asked(body["model"], body, raw, head)
        self.asked.append(asked)
        playing = asyncio.ensure_future(_perform(self._plays.get(asked.model, self._default), asked, writer))
        leaving = asyncio.ensure_future(reader.read(1))  # our client sends nothing before it has its reply
        await asyncio.wait({playing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not playing.done():
            asked.left = True
        for task in (playing, leaving):
            task.cancel()
        kept, _ = await asyncio.gather(playing, leaving, return_exceptions=True)
        asked.left = asked.left or isinstance(kept, ConnectionError)
        if kept is not True:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()
        asked.ended = True
        return kept is True


async def _perform(play: Play, asked: Asked, writer: asyncio.StreamWriter) -> bool:
    for part in play(asked.body):
        if isinstance(part, Gate):
            await part.wait()
        elif part is Act.HANG:
            await asyncio.Event().wait()
        elif part is Act.RESET:
            writer.transport.abort()
            return False
        elif part is Act.CLOSE:
            return False
        else:
            assert isinstance(part, bytes)
            writer.write(part)
            await writer.drain()
            asked.sent += len(part)
    return True


@contextmanager
def running() -> Iterator[Upstream]:
    """A server until the block ends."""
    upstream = Upstream()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def begin() -> asyncio.Server:
        return await asyncio.start_server(upstream.answer, "127.0.0.1", 0, limit=2**24)

    async def end() -> None:
        server.close()
        upstream.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    server = asyncio.run_coroutine_threadsafe(begin(), loop).result(10)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield upstream
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


# --- what models say -------------------------------------------------------------------------------------

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def head(model: str, kind: str) -> dict[str, Any]:
    """What each model says of its answers, and says otherwise than all others."""
    return {
        "id": f"chatcmpl-{model}",
        "object": kind,
        "created": 1_700_000_000 + ord(model[0]),
        "model": f"{model}-2026-11-01",
        "service_tier": "default",
        "system_fingerprint": f"fp_{model}",
    }


def chunk(model: str, delta: Mapping[str, Any], finish: str | None = None, **choice: Any) -> bytes:
    """An event of a chat completion with all of its fields."""
    fields = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish} | choice
    return _json(head(model, "chat.completion.chunk") | {"choices": [fields]})


def calls(model: str, *functions: tuple[str, str]) -> list[dict[str, Any]]:
    """Tool calls of that model: name and arguments."""
    return [
        {"id": f"call_{model}_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, (name, arguments) in enumerate(functions)
    ]


@dataclass(frozen=True)
class _Spoken:
    """One answer, as a stream or whole, as it is asked for."""

    deltas: Sequence[Mapping[str, Any]]
    message: Mapping[str, Any]
    finish: str
    logprobs: Sequence[Mapping[str, Any]] = ()  # of each delta
    more: dict[str, Any] = field(default_factory=dict)  # of the reply

    def __call__(self, body: dict[str, Any]) -> Sequence[Part]:
        model = body["model"]
        if not body.get("stream"):
            message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
            choice = {
                "index": 0,
                "message": message | _told(self.message, model),
                "finish_reason": self.finish,
            }
            tokens = [token for one in self.logprobs for token in one["content"]]
            choice["logprobs"] = {"content": tokens, "refusal": None} if tokens else None
            reply = head(model, "chat.completion") | {"choices": [choice], "usage": USAGE} | self.more
            return [plain(_json(reply))]
        asked = (body.get("stream_options") or {}).get("include_usage")
        events = [chunk(model, {"role": "assistant", "content": "", "refusal": None})]
        for i, delta in enumerate(self.deltas):
            logprobs = dict(self.logprobs[i]) | {"refusal": None} if self.logprobs else None
            events.append(chunk(model, _told(delta, model), logprobs=logprobs))
        events.append(chunk(model, {}, self.finish))
        if asked:
            tail = head(model, "chat.completion.chunk") | {"choices": [], "usage": USAGE}
            events = [_json(json.loads(event) | {"usage": None}) for event in events] + [_json(tail)]
        return sse(*(_json(json.loads(event) | self.more) for event in events))


def speaks(
    deltas: Sequence[Mapping[str, Any]], message: Mapping[str, Any], finish: str = "stop", **more: Any
) -> Play:
    """These deltas, or that message where no stream is asked for; "{model}" in them is who speaks."""
    return _Spoken(deltas, message, finish, more.pop("logprobs", ()), more)


def says(*pieces: str, finish: str = "stop", **more: Any) -> Play:
    """These pieces of text."""
    return speaks([{"content": piece} for piece in pieces], {"content": "".join(pieces)}, finish, **more)


def streams(*parts: Part, done: bool = False, kind: str = "text/event-stream") -> Play:
    """A stream of these events' data, with whatever else happens between; not ended unless `done`."""
    opened, *_ = sse(kind=kind, end=False)
    framed = [sse(part, done=False, end=False)[1] if isinstance(part, bytes) else part for part in parts]
    ending = sse()[1:] if done else []
    return lambda body: [opened, *framed, *ending]


def _told(fields: Mapping[str, Any], model: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(json.dumps(fields).replace("{model}", model))
    return told


def _json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields).encode()
