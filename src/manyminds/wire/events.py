"""What an expert sends: server-sent events, or one whole completion, to chunks; error bodies to text."""

from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import msgspec

from manyminds.errors import GarbageError
from manyminds.types import Chunk, Usage

__all__ = ["Events", "error_text", "parse_chunk", "parse_completion", "parse_vectors"]

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


class _Message(msgspec.Struct):
    content: str | None = None


class _Answer(msgspec.Struct):
    message: _Message
    index: _Index = 0
    finish_reason: str | None = None


class _Completion(msgspec.Struct):
    choices: list[_Answer] = []
    usage: _Usage | None = None
    timings: _Timings | None = None
    error: Any = None


class _Vectors(msgspec.Struct):
    data: list[msgspec.Raw] = []
    usage: _Usage | None = None
    error: Any = None


_Shape = TypeVar("_Shape", _Chunk, _Completion, _Vectors)

_chunk = msgspec.json.Decoder(_Chunk)
_completion = msgspec.json.Decoder(_Completion)
_vectors = msgspec.json.Decoder(_Vectors)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode
_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")  # line ends between tokens would end the line of an event


def parse_chunk(raw: bytes) -> Chunk:
    """One streamed event of a chat completion; its `raw` is without usage, which is our caller's to give.

    `usage.cpu_s` holds the compute seconds that llama.cpp reports (per thread), else 0.

    Raises: GarbageError when it is not one; its message carries an upstream `error` object's text.
    """
    found = _decoded(_chunk, raw, "chat completion chunk")
    usage = None
    if found.usage is not None:
        usage = _usage_of(found.usage, found.timings)
        raw = _without_usage(raw) if found.choices else raw
    if not found.choices:
        return Chunk(usage=usage)
    text, finish_reason = "", None
    for choice in found.choices:
        finish_reason = finish_reason or choice.finish_reason
        if choice.index == 0 and not text and choice.delta is not None:
            text = choice.delta.content or ""
    if b"\n" in raw or b"\r" in raw:
        raw = raw.translate(_ONE_LINE)
    return Chunk(text, finish_reason, usage, raw)


def _without_usage(raw: bytes) -> bytes:
    try:
        fields = _object.decode(raw)
    except msgspec.DecodeError as error:
        raise GarbageError(f"no chat completion chunk: {error}") from None
    fields.pop("usage", None)
    return _encode(fields)


def parse_completion(raw: bytes) -> Chunk:
    """A whole chat completion, as the one chunk of its answer. Usage is None where none is reported.

    Raises: GarbageError, as `parse_chunk` does, also for one without choices.
    """
    found = _decoded(_completion, raw, "chat completion")
    if not found.choices:
        raise GarbageError(f"no chat completion: {error_text(raw, 200) or 'nothing'}")
    first, finish_reason = found.choices[0], None
    for choice in reversed(found.choices):
        finish_reason = choice.finish_reason or finish_reason
        if choice.index == 0:
            first = choice
    usage = None if found.usage is None else _usage_of(found.usage, found.timings)
    return Chunk(first.message.content or "", finish_reason or "stop", usage, raw, whole=True)


def parse_vectors(raw: bytes) -> Chunk:
    """A reply with vectors, as the one chunk of an answer without text. Usage is None where none is reported.

    Raises: GarbageError, as `parse_chunk` does, also for one without vectors.
    """
    found = _decoded(_vectors, raw, "embeddings")
    if not found.data:
        raise GarbageError(f"no embeddings: {error_text(raw, 200) or 'nothing'}")
    usage = None if found.usage is None else Usage(found.usage.prompt_tokens)
    return Chunk("", "stop", usage, raw, whole=True)


def _decoded(decoder: "msgspec.json.Decoder[_Shape]", raw: bytes, what: str) -> _Shape:
    try:
        raw.decode()  # what we do not read is relayed, and must be text
        found = decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise GarbageError(f"no {what}: {error}") from None
    if found.error is not None:
        raise GarbageError(f"an error: {error_text(raw)}")
    return found


def _usage_of(counted: _Usage, timings: _Timings | None) -> Usage:
    cpu_s = 0.0 if timings is None else (timings.prompt_ms + timings.predicted_ms) / 1000
    return Usage(counted.prompt_tokens, counted.completion_tokens, cpu_s)


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
        for line in ended:
            if self._rest:
                self._add(line)
                line = bytes(self._rest)
                self._rest.clear()
            elif self._size + len(line) > self._limit_bytes:
                raise self._too_large()
            if line.endswith(b"\r"):
                line = line[:-1]
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
                self._size += len(line)
            elif not line and self._data:
                data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                self._data, self._size = [], 0
                if data:
                    yield data
        if rest:
            self._add(rest)

    def _add(self, piece: bytes) -> None:
        self._rest += piece
        if self._size + len(self._rest) > self._limit_bytes:
            raise self._too_large()

    def _too_large(self) -> GarbageError:
        return GarbageError(f"an event of more than {self._limit_bytes} bytes")


def error_text(raw: bytes, limit: int = 2000) -> str:
    """The message of an error body in OpenAI's shape, or the start of whatever it is, on one line."""
    try:
        inner = msgspec.json.decode(raw)["error"]
        text = str(inner["message"] if isinstance(inner, dict) else inner)
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError, ValueError):
        text = raw[: 4 * limit].decode("utf-8", "replace")
    shown = "".join(c if c.isprintable() else " " for c in text[: 4 * limit])  # no terminal's control codes
    return " ".join(shown.split())[:limit]
