"""What all paragraphs are about: centroids of their vectors, and words for each. Knows no question.

All is done in the order of the texts' digests, so that it follows from the texts alone.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from manyminds.documents.nouns import Profile
from manyminds.documents.store import Store, embedded
from manyminds.documents.words import content_words
from manyminds.index import Index
from manyminds.index.shelves import k_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from manyminds.types import Vectors

__all__ = ["keep", "kept", "made"]

_SAMPLED: Final = 20_000  # texts from which centroids are learnt, the first by digest
_READ: Final = 200  # texts of each centroid from which its words are taken
_LABEL: Final = 4  # words
_BLOCK: Final = 4_096


class _Kept(msgspec.Struct):
    dimension: int
    vectors: bytes
    counts: tuple[int, ...]
    labels: tuple[str, ...]


def kept(store: Store, most: int) -> Profile | None:
    """The profile that was made of what there is now, if it was kept."""
    found = store.sql.execute(
        "SELECT content FROM profiles JOIN meta ON name = 'generation' AND value = generation WHERE most = ?",
        (most,),
    ).fetchone()
    if found is None:
        return None
    content = msgspec.json.decode(found[0], type=_Kept)
    vectors = np.frombuffer(content.vectors, np.float32).reshape(-1, content.dimension)
    return Profile(vectors, content.counts, content.labels)


def keep(store: Store, generation: int, most: int, profile: Profile) -> None:
    """Keeps it for those that open the library next, unless something has changed since it was made.

    To be called within `store.changing()`.
    """
    if store.meta("generation") != generation:
        return
    vectors = np.ascontiguousarray(profile.vectors)
    content = _Kept(vectors.shape[1], vectors.tobytes(), profile.counts, profile.labels)
    store.sql.execute(
        "INSERT OR REPLACE INTO profiles VALUES (?, ?, ?)", (most, generation, msgspec.json.encode(content))
    )


def made(store: Store, index: Index | None, most: int) -> Profile:
    """Spherical k-means with a fixed seed, over at most 20,000 texts; k grows with the root of their number.

    Each paragraph counts for the centroid that it is nearest to. O(paragraphs). To be called within
    `store.reading()`.
    """
    digests = sorted(store.digests())
    if index is not None:
        digests = [digest for digest in digests if digest.hex() in index]
    if index is None or not digests or most < 1:
        return Profile(np.zeros((0, max(1, store.meta("dimension"))), np.float32), (), ())
    sample = _rows(index, digests[:_SAMPLED])
    count = min(most, len(sample), max(1, round(math.sqrt(len(digests)))))
    centroids = k_means(sample, count, np.random.default_rng(0)).astype(np.float32)
    nearest = np.concatenate(
        [
            np.argmax(_rows(index, digests[at : at + _BLOCK]) @ centroids.T, axis=1)
            for at in range(0, len(digests), _BLOCK)
        ]
    )
    sql = "SELECT digest, count(*) FROM paragraphs JOIN texts ON texts.id = paragraphs.text GROUP BY digest"
    places = dict(store.sql.execute(sql))
    close = _tightness(index, digests, nearest, centroids)
    counts = np.bincount(nearest, weights=[places[digest] for digest in digests], minlength=count)
    held = np.flatnonzero(counts)
    labels = tuple(_label(store, _members(digests, nearest, int(i))) for i in held)
    return Profile((centroids * close[:, None])[held], tuple(int(counts[i]) for i in held), labels)


def _tightness(
    index: Index, digests: Sequence[bytes], nearest: "NDArray[np.int64]", centroids: "Vectors"
) -> "Vectors":
    """(k,) mean cosine of each centroid's texts to it."""
    total = np.zeros(len(centroids))
    for at in range(0, len(digests), _BLOCK):
        of = nearest[at : at + _BLOCK]
        cosines = np.einsum("ij,ij->i", _rows(index, digests[at : at + _BLOCK]), centroids[of])
        total += np.bincount(of, weights=cosines, minlength=len(centroids))
    count = np.maximum(np.bincount(nearest, minlength=len(centroids)), 1)
    tight: Vectors = np.clip(total / count, 0.01, 1.0).astype(np.float32)
    return tight


def _rows(index: Index, digests: Sequence[bytes]) -> "Vectors":
    return np.concatenate([index.vectors_of(digest.hex()) for digest in digests])


def _members(digests: Sequence[bytes], nearest: "NDArray[np.int64]", centroid: int) -> list[bytes]:
    """The first of a centroid's texts."""
    return [digests[i] for i in np.flatnonzero(nearest == centroid)[:_READ]]


def _label(store: Store, digests: Sequence[bytes]) -> str:
    """Words that many of these texts have, and few others."""
    having: Counter[str] = Counter()
    spellings: dict[str, Counter[str]] = {}
    for digest in digests:
        heading, text = store.sql.execute(
            "SELECT heading, text FROM texts WHERE digest = ?", (digest,)
        ).fetchone()
        for term, word in content_words(embedded(heading, text)).items():
            having[term] += 1
            spellings.setdefault(term, Counter())[word] += 1
    texts = store.meta("texts")
    weights = {}
    for term, count in having.items():
        if len(term) < 3 or term.isdigit():
            continue
        everywhere = store.sql.execute("SELECT texts FROM words WHERE word = ?", (term,)).fetchone()[0]
        weights[term] = count * math.log1p(texts / everywhere)
    best = sorted(weights, key=lambda term: (-weights[term], term))[:_LABEL]
    return " ".join(min(spellings[term].items(), key=lambda item: (-item[1], item[0]))[0] for term in best)
