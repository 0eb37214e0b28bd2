"""Who answers `POST /v1/embeddings`: an expert that is an embedding model, or this node's own encoder."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from manyminds.errors import InvalidRequestError, ModelNotFoundError, UnavailableError
from manyminds.pauses import refusal
from manyminds.types import Card, Chunk, Completer, Embed, Query, Usage
from manyminds.wire import embeddings_body, parse_embeddings

if TYPE_CHECKING:
    from manyminds.types import Vectors

__all__ = ["Embedding"]

_BATCH = 32  # texts in one piece of work, between which others get their turn


class Embedding:
    """Answers with one chunk, whose `raw` is the reply; see `types.Completer`.

    Args:
        expert: who asks the embedding models among the experts, by name.
        cards: of all experts. One with the encoder's name is asked in its stead.
        name: the encoder's, which `auto` stands for too.
        embed: the encoder; None where it is not installed.
        paused: names of experts that nobody asks for now.
    """

    def __init__(
        self,
        expert: Completer,
        cards: Callable[[], Sequence[Card]],
        name: str,
        embed: Embed | None,
        paused: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        self._expert = expert
        self._cards = cards
        self._name = name
        self._embed = embed
        self._paused = paused

    @property
    def card(self) -> Card:
        return self._expert.card

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """See `types.Expert`."""
        for chunk in await self.complete(query):
            yield chunk

    async def complete(self, query: Query) -> Sequence[Chunk]:
        """Of several models that an alias stands for, the first: vectors of different ones do not compare.

        Raises: ModelNotFoundError, PausedError, InvalidRequestError, UnavailableError; and what the expert
            raises.
        """
        experts = [card.name for card in self._cards() if "embeddings" in card.offers]
        if query.model in experts:
            return await self._expert.complete(replace(query, fallbacks=()))
        if query.model not in ("auto", self._name):
            if query.model in self._paused():
                raise refusal(query.model)
            known = ", ".join([self._name, *experts])
            raise ModelNotFoundError(
                f"No embedding model is named {query.model!r:.80}. There are: {known}.", param="model"
            )
        return [await self._own(query)]

    async def _own(self, query: Query) -> Chunk:
        request = parse_embeddings(query.raw)
        if self._embed is None:
            raise UnavailableError(f"{self._name} is not on this machine: run `manyminds pull {self._name}`.")
        vectors = await _encode(self._embed, request.inputs)
        if request.dimensions is not None:
            vectors = _shortened(vectors, request.dimensions)
        tokens = sum(map(_tokens, request.inputs))
        raw = embeddings_body(request, vectors, self._name, tokens)
        return Chunk("", "stop", Usage(tokens), raw, whole=True)


async def _encode(embed: Embed, texts: Sequence[str]) -> "Vectors":
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
