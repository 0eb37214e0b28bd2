"""A model that costs no time: an OpenAI-compatible server for measuring what is around it.

Run as a process, `python -m manyminds.evals.speaker`, it prints its port. What it says follows from the name
of the model that is asked: `says-B-32-20` says "B" as the first of 32 words, one each 20 ms; `stalls` never
says a word.
"""

import asyncio
import json
from typing import Any, Final

__all__ = ["name", "serve"]

_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n"


def name(letter: str, words: int = 32, pace_ms: int = 0) -> str:
    """The model that says so much."""
    return f"says-{letter}-{words}-{pace_ms}"


async def serve() -> None:
    """Serves on a free port of this machine until it is ended."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
            size = next((int(value) for field, _, value in lines if field == b"content-length"), 0)
            await _say(json.loads(await reader.readexactly(size)), writer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _say(asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    if asked["model"] == "stalls":
        await asyncio.sleep(3600)
    _, letter, count, pace_ms = asked["model"].split("-")
    words = [f"{letter})", *["so"] * (int(count) - 1)]
    usage = {"prompt_tokens": 20, "completion_tokens": len(words), "total_tokens": 20 + len(words)}
    if not asked.get("stream"):
        await asyncio.sleep(int(pace_ms) / 1000 * len(words))
        message = {"role": "assistant", "content": " ".join(words)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        _piece(writer, _HEAD % b"application/json", {"choices": [choice], "usage": usage})
        return
    writer.write(_HEAD % b"text/event-stream")
    for word in words:
        _event(writer, {"choices": [{"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}]})
        if int(pace_ms):
            await writer.drain()
            await asyncio.sleep(int(pace_ms) / 1000)
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
    asyncio.run(serve())
