"""Owners' specialists behind the package's own index and router: whom a text's first bytes lead to.

Knows no model: experts are names with vectors of what they have read.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from manyminds.index import Index
from manyminds.index.shelves import k_means
from manyminds.router import SkillRouter
from manyminds.types import Card, Embed, Limits, Message, Query, Route

if TYPE_CHECKING:
    from manyminds.types import Vectors

__all__ = ["PREFIX_BYTES", "Network", "clustered", "known", "snippets"]

PREFIX_BYTES: Final = 64
"""Of a text, by which it is routed. They are not counted in any measure."""

_CHAPTERS: Final = 8  # skill vectors of an expert
_SNIPPETS: Final = 400  # of its documents, from which they are learnt
_READ: Final = 8  # snippets of a document, whose mean is its vector where documents are clustered


class Network:
    """Experts by name, each its own owner, routed as a gateway routes.

    What it holds of one expert hangs on that expert alone, so `forget` leaves what was there without it.
    """

    def __init__(self, embed: Embed, dimension: int = 384) -> None:
        self._embed = embed
        self._router = SkillRouter(Index(dimension), embed)
        self._cards: dict[str, Card] = {}

    def admit(self, name: str, vectors: "Vectors", parameters: int) -> None:
        """Takes an expert in, by (k, d) unit rows of what it has read; see `known`."""
        card = Card(name, "specialist", source=name, parameters=parameters)
        self._cards[name] = card
        self._router.admit(card, vectors=vectors)

    def forget(self, name: str) -> None:
        """As if it had never been there. An unknown name is tolerated."""
        self._router.forget(name)
        self._cards.pop(name, None)

    def routes(self, texts: Sequence[bytes], panel: int) -> list[Route]:
        """Of each text by its first bytes: the `panel` likeliest experts, likeliest first."""
        prefixes = [_text(text[:PREFIX_BYTES]) for text in texts]
        cards, limits = list(self._cards.values()), Limits(policy="max", panel=panel)
        return [
            self._router.route(
                Query((Message("user", prefix),), model="max", limits=limits, vector=vector), cards, limits
            )
            for prefix, vector in zip(prefixes, self._embed(prefixes), strict=True)
        ]


def known(texts: Sequence[bytes], embed: Embed, seed: int) -> "Vectors":
    """(k, d) float32 unit rows, k <= 8: where the documents of one expert lie. They alone decide."""
    vectors = np.array(embed([_text(snippet) for snippet in snippets(texts, _SNIPPETS, seed)]), np.float32)
    return k_means(vectors, min(_CHAPTERS, len(vectors)), np.random.default_rng(seed))


def snippets(texts: Sequence[bytes], count: int, seed: int) -> list[bytes]:
    """So many pieces as long as a prefix, each from the beginning of some line of some document.

    Raises: ValueError without documents.
    """
    if not texts:
        raise ValueError("an expert without documents has nowhere to lie")
    draw = np.random.default_rng(seed)
    found = []
    for i in draw.integers(len(texts), size=count).tolist():
        text = texts[i]
        at = int(draw.integers(max(1, len(text) - PREFIX_BYTES)))
        start = text.rfind(b"\n", 0, at) + 1
        found.append(text[start : start + PREFIX_BYTES])
    return found


def clustered(
    domains: Mapping[str, tuple[bytes, ...]], count: int, embed: Embed, seed: int
) -> dict[str, tuple[bytes, ...]]:
    """All documents in so many clusters by what they are about, their domains unseen.

    A document's vector is the mean of those of eight snippets; clusters are of spherical k-means, the
    largest first.
    """
    texts = [text for name in sorted(domains) for text in domains[name]]
    pieces = [piece for i, text in enumerate(texts) for piece in snippets([text], _READ, seed + i)]
    vectors = np.asarray(embed([_text(piece) for piece in pieces]), np.float32)
    means = vectors.reshape(len(texts), _READ, -1).mean(axis=1)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-30)
    centroids = k_means(means, count, np.random.default_rng(seed))
    of = np.argmax(means @ centroids.T, axis=1)
    held = [tuple(texts[i] for i in np.flatnonzero(of == cluster)) for cluster in range(count)]
    held = sorted((group for group in held if group), key=lambda group: -sum(map(len, group)))
    return {str(i): group for i, group in enumerate(held)}


def _text(piece: bytes) -> str:
    """What the encoder reads of it: characters that are cut at its ends are left out."""
    return piece.decode("utf-8", "ignore")
