"""Embeddings: OpenAI's JSON to texts, and vectors to OpenAI's JSON. Knows no encoder."""

from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from manyminds.errors import InvalidRequestError
from manyminds.wire.requests import read_body

if TYPE_CHECKING:
    from manyminds.types import Vectors

__all__ = ["EmbeddingRequest", "embeddings_body", "parse_embeddings"]

_MOST_INPUTS = 2048
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


_request = msgspec.json.Decoder(_Request)


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
