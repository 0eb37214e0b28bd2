"""OpenAI's chat completions: the format that experts speak, so that what one of them sent is relayed."""

from collections.abc import Sequence

from manyminds.errors import ManymindsError
from manyminds.types import Chunk, Query
from manyminds.wire.dialect import Dialect
from manyminds.wire.replies import completion, error_body, event, relayed, stream_end, written
from manyminds.wire.requests import parse_request

__all__ = ["CHAT"]

_DONE = b"data: [DONE]\n\n"


class _Reply:
    """See `dialect.Reply`."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._first = True

    def whole(self, chunks: Sequence[Chunk]) -> bytes:
        last = chunks[-1]
        return relayed(last) if last.whole else completion(chunks, self._query, self._query.model)

    def events(self, chunk: Chunk) -> bytes:
        query, first = self._query, self._first
        self._first = False
        if chunk.finish_reason is None:
            return event(chunk.raw or written(chunk, query, query.model, first=first))
        ending = stream_end(chunk, query, query.model, first=first)
        return b"".join([*map(event, ending), _DONE])

    def failed(self, error: ManymindsError) -> bytes:
        return event(error_body(error))


def _refuse(error: ManymindsError, request_id: str) -> tuple[int, bytes]:
    return error.status, error_body(error)


CHAT = Dialect(parse_request, _Reply, _refuse)
