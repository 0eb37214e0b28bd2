"""A model that costs no time: an OpenAI-compatible server for measuring what is around it.

Run as a process, `python -m manyminds.evals.speaker`, it prints its port. What it says follows from the name
of the model that is asked: `says-B-32-20` says "B" as the first of 32 words, one each 20 ms; `stalls` never
says a word.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

__all__ = ["Speech", "Spoken", "name", "serve"]

_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Speech:
    """What a model says: words, one each so many seconds, the first after a wait."""

    words: list[str]
    pace_s: float = 0.0
    wait_s: float = 0.0


Spoken = Callable[[dict[str, Any]], Awaitable[Speech]]
"""What is said to a chat completion request."""


def name(letter: str, words: int = 32, pace_ms: int = 0) -> str:
    """The model that says so much."""
    return f"says-{letter}-{words}-{pace_ms}"


async def serve(spoken: Spoken) -> None:
    """Serves on a free port of this machine until it is ended; prints the port."""
    server = await asyncio.start_server(partial(_answer, spoken), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _named(asked: dict[str, Any]) -> Speech:
    """What the model's name says."""
    if asked["model"] == "stalls":
        return Speech([], wait_s=3600.0)
    _, letter, count, pace_ms = asked["model"].split("-")
    return Speech([f"{letter}) ", *["so "] * (int(count) - 1)], int(pace_ms) / 1000)


async def _answer(spoken: Spoken, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
            size = next((int(value) for field, _, value in lines if field == b"content-length"), 0)
            asked = json.loads(await reader.readexactly(size))
            await _say(asked, await spoken(asked), writer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _say(asked: dict[str, Any], speech: Speech, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(speech.wait_s)
    words, pace_s = speech.words, speech.pace_s
    usage = {"prompt_tokens": 20, "completion_tokens": len(words), "total_tokens": 20 + len(words)}
    if not asked.get("stream"):
        await asyncio.sleep(pace_s * len(words))
        message = {"role": "assistant", "content": "".join(words)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        _piece(writer, _HEAD % b"application/json", {"choices": [choice], "usage": usage})
        return
    writer.write(_HEAD % b"text/event-stream")
    for word in words:
        _event(writer, {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
        if pace_s:
            await writer.drain()
            await asyncio.sleep(pace_s)
    _event(writer, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage})
    _chunk(writer, b"data: [DONE]\n\n")
    writer.write(b"0\r\n\r\n")


def _piece(writer: asyncio.StreamWriter, head: bytes, body: dict[str, Any]) -> None:
    writer.write(head)
    _chunk(writer, json.dumps(body).encode())
    writer.write(b"0\r\n\r\n")


def _event(writer: asyncio.StreamWriter, fields: dict[str, Any]) -> None:
    _chunk(writer, b"data: " + json.dumps(fields).encode() + b"\n\n")


def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


if __name__ == "__main__":
    asyncio.run(serve(_named))
