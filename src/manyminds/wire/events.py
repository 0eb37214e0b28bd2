"""What an expert streams: server-sent events to chunks, and error bodies to text."""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from manyminds.errors import GarbageError
from manyminds.types import Chunk, Usage

__all__ = ["Events", "error_text", "parse_chunk"]

_Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
_Index = Annotated[int, msgspec.Meta(ge=0, le=1000)]
_Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class _Usage(msgspec.Struct):
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0


class _Timings(msgspec.Struct):
    prompt_ms: _Milliseconds = 0.0
    predicted_ms: _Milliseconds = 0.0


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: _Index | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    index: _Index = 0
    delta: _Delta | None = None
    logprobs: dict[str, list[Any] | None] | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    timings: _Timings | None = None
    error: Any = None


_chunk = msgspec.json.Decoder(_Chunk)
_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")  # line ends between tokens would end the line of an event


def parse_chunk(raw: bytes) -> Chunk:
    """One streamed event of a chat completion.

    `usage.cpu_s` holds the compute seconds that llama.cpp reports (per thread), else 0.

    Raises: GarbageError when it is not one; its message carries an upstream `error` object's text.
    """
    try:
        raw.decode()  # what we do not read is relayed, and must be text
        chunk = _chunk.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise GarbageError(f"no chat completion chunk: {error}") from None
    if chunk.error is not None:
        raise GarbageError(f"an error: {error_text(raw)}")
    first = next((c for c in chunk.choices if c.index == 0), None)
    timings = chunk.timings or _Timings()
    usage = None
    if chunk.usage:
        cpu_s = (timings.prompt_ms + timings.predicted_ms) / 1000
        usage = Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens, cpu_s)
    if not chunk.choices:
        return Chunk(usage=usage)
    text = (first.delta.content or "") if first and first.delta else ""
    finish_reason = next((c.finish_reason for c in chunk.choices if c.finish_reason), None)
    return Chunk(text, finish_reason, usage, raw.translate(_ONE_LINE))


class Events:
    """Splits a byte stream into the data of its server-sent events.

    Takes CR LF, comments, a missing space after the colon and data over several lines; an event or a
    line over `limit_bytes` is garbage. Linear in what is fed, however it is cut.
    """

    def __init__(self, limit_bytes: int = 4_000_000) -> None:
        self._rest = bytearray()  # a line that has not ended
        self._data: list[bytes] = []
        self._size = 0
        self._limit_bytes = limit_bytes

    def feed(self, received: bytes) -> Iterator[bytes]:
        """The data of every event that `received` completes. Raises: GarbageError past the limit."""
        *ended, rest = received.split(b"\n")
        for piece in ended:
            self._add(piece)
            line = bytes(self._rest).removesuffix(b"\r")
            self._rest.clear()
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
                self._size += len(line)
            elif not line and self._data:
                data = b"\n".join(self._data)
                self._data, self._size = [], 0
                if data:
                    yield data
        self._add(rest)

    def _add(self, piece: bytes) -> None:
        self._rest += piece
        if self._size + len(self._rest) > self._limit_bytes:
            raise GarbageError(f"an event of more than {self._limit_bytes} bytes")


def error_text(raw: bytes, limit: int = 2000) -> str:
    """The message of an error body in OpenAI's shape, or the start of whatever it is, on one line."""
    try:
        inner = msgspec.json.decode(raw)["error"]
        text = str(inner["message"] if isinstance(inner, dict) else inner)
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError, ValueError):
        text = raw[: 4 * limit].decode("utf-8", "replace")
    shown = "".join(c if c.isprintable() else " " for c in text[: 4 * limit])  # no terminal's control codes
    return " ".join(shown.split())[:limit]
