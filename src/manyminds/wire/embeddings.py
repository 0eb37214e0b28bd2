"""Embeddings: OpenAI's JSON to a query or to texts, and vectors to OpenAI's JSON. Knows no encoder."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from manyminds.errors import InvalidRequestError, ManymindsError
from manyminds.types import Chunk, Limits, Message, Query, Sampling
from manyminds.wire.dialect import Dialect
from manyminds.wire.replies import error_body
from manyminds.wire.requests import parse_limits, read_body

if TYPE_CHECKING:
    from manyminds.types import Vectors

__all__ = ["EMBEDDINGS", "EmbeddingRequest", "embeddings_body", "parse_embeddings"]

_MOST_INPUTS = 2048
_DEMANDS = frozenset({"embeddings"})
_WRITES_NOTHING = Sampling(max_tokens=1)  # 0 is as much as the expert likes
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts to be turned into vectors. `dimensions` is what the caller wants, None whatever there is."""

    model: str
    inputs: tuple[str, ...]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None


class _Request(msgspec.Struct):
    model: str
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None
    user: str | None = None


class _Asked(msgspec.Struct):
    """What we read of a request that is relayed: what else there may be, the expert knows."""

    model: str
    input: str | list[Any]
    manyminds: msgspec.Raw = msgspec.Raw()


_request = msgspec.json.Decoder(_Request)
_asked = msgspec.json.Decoder(_Asked)


def parse_embeddings(raw: bytes) -> EmbeddingRequest:
    """The body of an embedding request. Raises: InvalidRequestError, whose `param` names the field."""
    request, _ = read_body(raw, _request)
    return EmbeddingRequest(
        model=request.model,
        inputs=_texts(request.input),
        encoding_format=request.encoding_format or "float",
        dimensions=request.dimensions,
        user=request.user,
    )


def _texts(given: str | list[Any]) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) else given
    if not texts:
        raise InvalidRequestError("`input` is empty: send at least one text.", param="input")
    if len(texts) > _MOST_INPUTS:
        raise InvalidRequestError(
            f"`input` has {len(texts)} entries: send at most {_MOST_INPUTS} at once.", param="input"
        )
    for i, text in enumerate(texts):
        where = "input" if isinstance(given, str) else f"input[{i}]"
        if isinstance(text, int | list) and not isinstance(text, bool):
            message = "`input` holds tokens, which mean something else to every encoder: send text."
            raise InvalidRequestError(message, param="input")
        if not isinstance(text, str):
            raise InvalidRequestError(f"`{where}` must be text.", param=where)
        if not text:
            raise InvalidRequestError(f"`{where}` is an empty text.", param=where)
    return tuple(texts)


def embeddings_body(request: EmbeddingRequest, vectors: "Vectors", model: str, tokens: int) -> bytes:
    """The reply: `vectors` (n, d) float32, one row for each of the request's inputs.

    `model` is the encoder's name, `tokens` what all inputs together took. In base64 a vector is its
    little-endian float32s.
    """
    assert len(vectors) == len(request.inputs)
    embeddings: list[Any]
    if request.encoding_format == "base64":
        embeddings = [b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    else:
        embeddings = vectors.tolist()
    data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(embeddings)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _encode({"object": "list", "data": data, "model": model, "usage": usage})


def _parse(raw: bytes, request_id: str = "") -> Query:
    """A request as it is relayed. Its messages are its texts, one each: what it takes is estimated of them.

    Raises: InvalidRequestError, whose `param` names the field.
    """
    asked, _ = read_body(raw, _asked)
    given = [asked.input] if isinstance(asked.input, str) else asked.input
    texts = [one if isinstance(one, str) else _encode(one).decode() for one in given]
    return Query(
        messages=tuple(Message("user", text) for text in texts),
        model=asked.model,
        sampling=_WRITES_NOTHING,
        limits=parse_limits(asked.manyminds) if bytes(asked.manyminds) else Limits(),
        demands=_DEMANDS,
        request_id=request_id,
        raw=raw,
    )


class _Reply:
    """See `dialect.Reply`: vectors come whole, in the bytes of whoever made them."""

    def __init__(self, query: Query) -> None:
        pass

    def whole(self, chunks: Sequence[Chunk]) -> bytes:
        return chunks[-1].raw

    def events(self, chunk: Chunk) -> bytes:
        raise AssertionError("vectors are not streamed")

    def failed(self, error: ManymindsError) -> bytes:
        raise AssertionError("vectors are not streamed")


def _refuse(error: ManymindsError, request_id: str) -> tuple[int, bytes]:
    return error.status, error_body(error)


EMBEDDINGS = Dialect(_parse, _Reply, _refuse)
