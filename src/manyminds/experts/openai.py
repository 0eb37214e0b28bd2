"""Any OpenAI-compatible URL as an expert. Knows no vendor: what differs is on the card.

Upstream is asked for a stream, or for one whole answer where nobody reads it as it comes. Closing the
generator closes the connection, at any moment.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime

from msgspec.structs import replace

from manyminds.errors import (
    CutError,
    ExpertError,
    GarbageError,
    RefusedError,
    RejectedError,
    UnavailableError,
)
from manyminds.types import Card, Chunk, Query, Usage
from manyminds.upstream import (
    BrokenError,
    Client,
    ConnectError,
    Response,
    Target,
    TargetError,
    UpstreamError,
)
from manyminds.wire import (
    Events,
    embedding_body,
    error_text,
    parse_chunk,
    parse_completion,
    parse_vectors,
    request_body,
)

__all__ = ["Embedder", "OpenAI"]

_ERROR_BYTES = 64_000  # read of an error body
_WHOLE_BYTES = 8_000_000  # of an answer in one piece
_VECTORS_BYTES = 64_000_000  # of vectors: 2,048 of 1,536 numbers are 40 MB
_MESSAGE = 400  # characters shown of an error
_DAY_S = 86_400.0
_AT_FAULT = (400, 403, 413, 415, 422, 451)  # the request is; 403 is how providers refuse a prompt, too
_UNCLEAR = (402, 404, 409, 410)  # the request, or this node's settings: one says nothing of the next
_SAID_S = 0.5  # for what an error has to say


class OpenAI:
    """An expert behind `POST {url}/chat/completions`; keeps the contract of `types.Expert`.

    Args:
        card: its `model` is the name sent upstream, its prices make the cost.
        url: the base URL, such as `http://127.0.0.1:11434/v1`.
        client: shared between experts; the owner closes it.
        key: sent as a bearer token; never shown.
    """

    _path = "/chat/completions"

    def __init__(self, card: Card, url: str, client: Client, key: str | None = None) -> None:
        self._card = card
        self._url = url.rstrip("/") + self._path
        self._client = client
        self._key = (key or "").strip()
        self._made: Target | None = None

    @property
    def card(self) -> Card:
        return self._card

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """See `types.Expert`."""
        try:
            response = await self._post(query, whole=False)
            try:
                await self._comes_whole(response, wanted=False)
                reading = _Reading(self._card.name)
                async for received in response:
                    for chunk in reading.take(received):
                        yield chunk
                    if reading.done:
                        response.release()
                        break
                yield self._priced(reading.last(), reading.usage(query))
            finally:
                response.close()
        except (ExpertError, UpstreamError) as error:
            raise self._failure(error) from None

    async def complete(self, query: Query) -> Sequence[Chunk]:
        """See `types.Completer`. An upstream that streams all the same is heard to its end."""
        try:
            response = await self._post(query, whole=True)
            try:
                if await self._comes_whole(response, wanted=True):
                    chunk = self._parsed(await response.whole(_WHOLE_BYTES))
                    usage = chunk.usage or _estimated(query, bool(chunk.text), len(chunk.text.encode()))
                    return (self._priced(chunk, usage),)
                reading = _Reading(self._card.name)
                chunks: list[Chunk] = []
                async for received in response:
                    chunks += reading.take(received)
                    if reading.done:
                        response.release()
                        break
                return (*chunks, self._priced(reading.last(), reading.usage(query)))
            finally:
                response.close()
        except (ExpertError, UpstreamError) as error:
            raise self._failure(error) from None

    async def _post(self, query: Query, *, whole: bool) -> Response:
        if self._client.closed:
            raise UnavailableError(f"{self._card.name} cannot be asked: this node is closing.")
        return await self._client.post(self._target(), self._body(query, whole=whole))

    def _body(self, query: Query, *, whole: bool) -> bytes:
        return request_body(query, self._card.model or self._card.name, whole=whole)

    def _target(self) -> Target:
        """Raises: TargetError."""
        if self._made is None:
            headers = {"content-type": "application/json", "accept": "text/event-stream, application/json"}
            if self._key:
                headers["authorization"] = f"Bearer {self._key}"
            self._made = Target(self._url, headers)
        return self._made

    def _failure(self, error: ExpertError | UpstreamError) -> ExpertError:
        """What any failure of the layers below is to callers; shows neither key nor request."""
        name, said = self._card.name, self._shown(str(error))
        match error:
            case ExpertError():
                return type(error)(said, retry_after_s=error.retry_after_s)
            case TargetError():
                return RejectedError(f"{name} cannot be asked, which this node's owner must mend: {said}.")
            case ConnectError():
                return UnavailableError(f"{name} cannot be reached: {said}.")
            case BrokenError():
                return CutError(f"{name} broke off: {said}.")
            case _:
                return GarbageError(f"{name} does not speak the protocol: {said}.")

    def _shown(self, text: str) -> str:
        """What may be shown of a text from below: servers repeat the keys they refuse."""
        text = text.replace(self._key, "***") if self._key else text
        return " ".join(text.split())[:_MESSAGE]

    async def _comes_whole(self, response: Response, *, wanted: bool) -> bool:
        """Whether one whole answer follows, where that is wanted; else a stream does.

        Raises: ExpertError for anything else.
        """
        name, status, kind = self._card.name, response.status, response.content_type
        if status == 200 and kind == "text/event-stream":
            return False
        if status == 200 and kind == "application/json" and wanted:
            return True
        said = await _said(response)
        if status == 200:
            kind = f"{kind!r:.80}" if kind else "no content type"
            asked = "an answer" if wanted else "a stream"
            raise GarbageError(f"{name} was asked for {asked} and sent {kind}: {said}")
        if status in _AT_FAULT:
            raise RefusedError(f"{name} answered with status {status}: {said}")
        if status in (408, 425, 429) or status >= 500:
            wait_s = _retry_after_s(response.headers)
            raise UnavailableError(f"{name} answered with status {status}: {said}", retry_after_s=wait_s)
        if status in _UNCLEAR:
            raise ExpertError(f"{name} answered with status {status}: {said}")
        raise RejectedError(
            f"{name} answered with status {status}, which this node's owner must mend: {said}"
        )

    def _parsed(self, body: bytes) -> Chunk:
        try:
            return self._read(body)
        except GarbageError as error:
            raise GarbageError(f"{self._card.name} sent {error.message}") from None

    def _read(self, body: bytes) -> Chunk:
        return parse_completion(body)

    def _priced(self, chunk: Chunk, usage: Usage) -> Chunk:
        card = self._card
        cost = (
            usage.prompt_tokens * card.price_in_usd_per_m + usage.completion_tokens * card.price_out_usd_per_m
        )
        cost_usd = cost / 1e6 + usage.cpu_s * card.price_cpu_usd_per_hour / 3600
        priced = Usage(usage.prompt_tokens, usage.completion_tokens, usage.cpu_s, cost_usd)
        return Chunk(chunk.text, chunk.finish_reason, priced, chunk.raw, chunk.whole)


class Embedder(OpenAI):
    """An embedding model behind `POST {url}/embeddings`; asked only what demands "embeddings"."""

    _path = "/embeddings"

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """See `types.Expert`."""
        for chunk in await self.complete(query):
            yield chunk

    async def complete(self, query: Query) -> Sequence[Chunk]:
        """See `types.Completer`."""
        try:
            response = await self._post(query, whole=True)
            try:
                if not await self._comes_whole(response, wanted=True):
                    raise GarbageError(f"{self._card.name} was asked for vectors and sent a stream.")
                chunk = self._parsed(await response.whole(_VECTORS_BYTES))
                return (self._priced(chunk, chunk.usage or Usage(query.estimated_tokens)),)
            finally:
                response.close()
        except (ExpertError, UpstreamError) as error:
            raise self._failure(error) from None

    def _body(self, query: Query, *, whole: bool) -> bytes:
        return embedding_body(query, self._card.model or self._card.name)

    def _read(self, body: bytes) -> Chunk:
        return parse_vectors(body)


class _Reading:
    """A stream's bytes to chunks as they come, but for the last: usage follows the finish.

    An opening without a word, which only names the role, is held back too: nothing is said yet.
    """

    def __init__(self, name: str) -> None:
        self.done = False  # said to be: `[DONE]` may be missing
        self._name = name
        self._events = Events()
        self._opening: Chunk | None = None
        self._begun = False
        self._finish: Chunk | None = None
        self._usage: Usage | None = None
        self._pieces = self._size = 0  # of text

    def take(self, received: bytes) -> Iterator[Chunk]:
        """The chunks that are complete with these bytes. Raises: GarbageError."""
        try:
            for data in self._events.feed(received):
                if data == b"[DONE]":
                    self.done = True
                    return
                chunk = parse_chunk(data)
                if chunk.usage is not None:
                    self._usage = chunk.usage
                    chunk = Chunk(chunk.text, chunk.finish_reason, None, chunk.raw)
                if not chunk.raw:
                    continue
                if chunk.text:
                    self._pieces += 1
                    self._size += len(chunk.text.encode())
                elif not self._begun and chunk.finish_reason is None:
                    self._opening, self._begun = chunk, True
                    continue
                self._begun = True
                if self._opening is not None:
                    yield self._opening
                    self._opening = None
                if self._finish is not None:  # of several choices, another one goes on
                    yield replace(self._finish, finish_reason=None)
                    self._finish = None
                if chunk.finish_reason is None:
                    yield chunk
                else:
                    self._finish = chunk
        except GarbageError as error:
            raise GarbageError(f"{self._name} sent {error.message}") from None

    def last(self) -> Chunk:
        """The chunk with the finish. Raises: CutError where none came."""
        if self._finish is None:
            raise CutError(f"{self._name} ended its stream without finishing its answer.")
        return self._finish

    def usage(self, query: Query) -> Usage:
        """As reported; what never comes is estimated, rather high than low."""
        return self._usage or _estimated(query, self._pieces, self._size)


def _estimated(query: Query, pieces: int, size: int) -> Usage:
    """Of an answer with so many pieces of text, which take `size` bytes."""
    return Usage(query.estimated_tokens, max(pieces, size // 4))


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """When to try again, in [0, 86400] seconds from now, as far as the reply says it."""
    milliseconds, when = headers.get("retry-after-ms", ""), headers.get("retry-after", "")
    found = math.nan
    with suppress(ValueError):
        found = float(milliseconds) / 1000
    if not math.isfinite(found):
        with suppress(ValueError):
            found = float(when)
    if not math.isfinite(found):
        with suppress(ValueError, OverflowError):
            found = parsedate_to_datetime(when).timestamp() - time.time()
    return min(max(found, 0.0), _DAY_S) if math.isfinite(found) else None


async def _said(response: Response) -> str:
    """The start of a body that is no answer, as text; as much of it as comes."""
    raw = b""
    with suppress(UpstreamError, TimeoutError):  # the status says enough
        async with asyncio.timeout(_SAID_S):
            async for received in response:
                raw += received
                if len(raw) >= _ERROR_BYTES:
                    break
    return error_text(raw[:_ERROR_BYTES]) or "nothing more"
