"""`POST /v1/embeddings`: texts to vectors by this node's own sentence encoder. Knows no expert."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from manyminds.admission import Admission
from manyminds.errors import InvalidRequestError, ManymindsError, ModelNotFoundError, UnavailableError
from manyminds.types import Embed
from manyminds.web.door import identify
from manyminds.web.exchange import Exchange
from manyminds.web.replies import JSON, named, new_id, refusal
from manyminds.wire import EmbeddingRequest, embeddings_body, parse_embeddings

if TYPE_CHECKING:
    from manyminds.types import Vectors

__all__ = ["Embedding"]

_BATCH = 32  # texts in one piece of work, between which others get their turn


class Embedding:
    """The endpoint; see `connection.Serve`. `name` is the encoder's, which `auto` stands for too."""

    def __init__(self, embed: Embed | None, name: str, admission: Admission, max_body_bytes: int) -> None:
        self._admission = admission
        self._embed = embed
        self._name = name
        self._max_body_bytes = max_body_bytes

    async def __call__(self, exchange: Exchange) -> None:
        try:
            with self._admission.enter():
                key = identify(self._admission, exchange.headers)
                request = parse_embeddings(await exchange.body(self._max_body_bytes))
                self._admission.allows(key, request.model)
                self._admission.take(key, sum(map(_tokens, request.inputs)))
                status, head, body = 200, JSON, await self._answer(request)
        except ManymindsError as error:
            status, head, body = refusal(error)
        exchange.reply(status, named(new_id()) + head, body)

    async def _answer(self, request: EmbeddingRequest) -> bytes:
        if request.model not in ("auto", self._name):
            raise ModelNotFoundError(
                f"No encoder is named {request.model!r:.80}. There is: {self._name}.", param="model"
            )
        if self._embed is None:
            raise UnavailableError(f"{self._name} is not on this machine: run `manyminds pull {self._name}`.")
        vectors = await self._encode(self._embed, request.inputs)
        if request.dimensions is not None:
            vectors = _shortened(vectors, request.dimensions)
        return embeddings_body(request, vectors, self._name, sum(map(_tokens, request.inputs)))

    async def _encode(self, embed: Embed, texts: Sequence[str]) -> "Vectors":
        batches = [texts[i : i + _BATCH] for i in range(0, len(texts), _BATCH)]
        return np.concatenate([await asyncio.to_thread(embed, batch) for batch in batches])


def _tokens(text: str) -> int:
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def _shortened(vectors: "Vectors", dimensions: int) -> "Vectors":
    """The first so many numbers of each, as unit vectors again."""
    if dimensions > vectors.shape[1]:
        raise InvalidRequestError(
            f"`dimensions` is at most {vectors.shape[1]}, not {dimensions}.", param="dimensions"
        )
    kept = vectors[:, :dimensions]
    lengths = np.linalg.norm(kept, axis=1, keepdims=True)
    unit: Vectors = (kept / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
    return unit
