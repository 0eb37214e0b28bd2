"""OpenAI's chat completions: the format that experts speak, so that what one of them sent is relayed."""

from collections.abc import Sequence

from manyminds.errors import ManymindsError
from manyminds.types import Chunk, Event, Query
from manyminds.wire.dialect import Dialect
from manyminds.wire.gaps import Gaps
from manyminds.wire.replies import completion, ending, error_body, event, head_of, made, relayed, told
from manyminds.wire.requests import parse_request

__all__ = ["CHAT"]

_DONE = b"data: [DONE]\n\n"


class _Reply:
    """See `dialect.Reply`."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._gaps: Gaps | None = None

    def whole(self, chunks: Sequence[Chunk]) -> bytes:
        query, last = self._query, chunks[-1]
        return relayed(last, query) if last.whole else completion(chunks, query, query.model)

    def events(self, chunk: Chunk) -> bytes:
        gaps = self._gaps
        if gaps is None:
            query = self._query
            gaps = self._gaps = Gaps(head_of(query, query.model, "chat.completion.chunk"))
        last = chunk.finish_reason is not None
        data = gaps.filled(chunk.raw, last=last) if chunk.raw else made(chunk, gaps.head, first=gaps.said())
        if not last:
            return b"data: " + data + b"\n\n"
        return b"".join([*map(event, ending(data, chunk, self._query)), _DONE])

    def failed(self, error: ManymindsError) -> bytes:
        return event(error_body(error))


def _refuse(error: ManymindsError, request_id: str) -> tuple[int, bytes]:
    return error.status, error_body(error)


def _watched(query: Query, happened: Event) -> bytes:
    return event(told(happened, head_of(query, query.model, "chat.completion.chunk")))


CHAT = Dialect(parse_request, _Reply, _refuse, _watched)
