"""What an endpoint that answers must know of its clients' format. One instance per format, in `wire`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from manyminds.errors import ManymindsError
from manyminds.types import Chunk, Event, Query

__all__ = ["Dialect", "Reply"]


class Reply(Protocol):
    """One reply being written: either `whole` once, or `events` for every chunk in order."""

    def whole(self, chunks: Sequence[Chunk]) -> bytes:
        """The body of a reply that is not streamed. `chunks` are all, the last with its finish reason.

        Raises: GarbageError where an expert's own JSON in them makes no answer.
        """
        ...

    def events(self, chunk: Chunk) -> bytes:
        """The server-sent events that this chunk adds, as they go out; the last chunk's end the stream.

        Raises: GarbageError where an expert's own JSON in it makes no event.
        """
        ...

    def failed(self, error: ManymindsError) -> bytes:
        """The events that end a stream which has begun and cannot be finished: never a made-up finish."""
        ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """A client's format.

    Attributes:
        parse: body and request id to a query whose `raw` is the same request as OpenAI's chat completion
            JSON, which is what experts are sent. Raises InvalidRequestError, whose `param` names the field.
        reply: who writes the reply to that query.
        refuse: status and body of an error before the first byte, by error and request id.
        watched: the server-sent event for who watches the panel of a query; None where the format has none.
    """

    parse: Callable[[bytes, str], Query]
    reply: Callable[[Query], Reply]
    refuse: Callable[[ManymindsError, str], tuple[int, bytes]]
    watched: Callable[[Query, Event], bytes] | None = None
