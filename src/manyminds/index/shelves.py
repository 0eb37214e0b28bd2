"""Sections and shelves: centroids that tell where to look first. Knows vectors, no names and no files.

They are learnt once from a sample and then stay as they are, so that where a vector belongs depends on that
vector alone: whoever comes or goes moves nobody else. Everything here is the same every time.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from manyminds.types import Vectors

    Whole = NDArray[np.int64]

__all__ = ["Shelves", "k_means", "learn", "sample"]

_PER_ROOT: Final = 4  # shelves per square root of vectors: few enough to rank, small enough to read
_SAMPLED: Final = 32  # vectors for each shelf that is learnt
_BEAM: Final = 4  # sections among whose shelves a vector's own is looked for
_ROUNDS: Final = 8
_BLOCK: Final = 16_384
_CLOSE: Final = 1e-4  # more than two orders of a dot product of unit vectors differ by


@dataclass(frozen=True, slots=True, eq=False)
class Shelves:
    """Two levels of unit centroids.

    Attributes:
        sections: (s, d) float32, the broad fields.
        shelves: (t, d) float32, the topics, those of one section beside each other.
        starts: (s + 1,) first shelf of each section.
        learnt_from: how many vectors there were.
    """

    sections: "Vectors"
    shelves: "Vectors"
    starts: "Whole"
    learnt_from: int

    def assign(self, rows: "Vectors") -> "Whole":
        """(n,) the shelf of each unit row: the nearest among the shelves of the four nearest sections.

        Bitwise the same whatever other rows are asked about.
        """
        found = np.empty(len(rows), np.int64)
        for start in range(0, len(rows), _BLOCK):
            found[start : start + _BLOCK] = self._assign(np.asarray(rows[start : start + _BLOCK]))
        return found

    def near(self, query: "Vectors") -> "tuple[Whole, int]":
        """Shelves of the nearest half of the sections, nearest first; how many centroids were compared."""
        near = np.argsort(-np.vecdot(self.sections, query), kind="stable")
        beam = near[: max(_BEAM, -(-len(near) // 2))]
        spans = [(int(self.starts[i]), int(self.starts[i + 1])) for i in np.sort(beam)]
        shelves = np.concatenate([np.arange(start, stop) for start, stop in spans])
        similarity = np.concatenate([np.vecdot(self.shelves[start:stop], query) for start, stop in spans])
        return shelves[np.argsort(-similarity, kind="stable")], len(self.sections) + len(shelves)

    def section_of(self, shelves: "Whole") -> "Whole":
        """The section of each of these shelves."""
        return np.searchsorted(self.starts, shelves, side="right") - 1

    def _assign(self, rows: "Vectors") -> "Whole":
        # A row's bits of `vecdot` do not depend on the rows around it, those of a matrix product do. So a
        # product only narrows the shelves to those that could be nearest, and where several could, `vecdot`
        # decides.
        beam = self._beam(rows)
        best = np.full(len(rows), -2.0, np.float32)
        ranks, shelves, abouts = [], [], []
        for section, (start, stop) in enumerate(zip(self.starts[:-1], self.starts[1:], strict=True)):
            asked = np.flatnonzero((beam == section).any(axis=1))
            if not len(asked) or start == stop:
                continue
            about = rows[asked] @ self.shelves[start:stop].T
            best[asked] = np.maximum(best[asked], about.max(axis=1))
            rank, shelf = np.nonzero(about >= best[asked, None] - _CLOSE)
            ranks.append(asked[rank])
            shelves.append(start + shelf)
            abouts.append(about[rank, shelf])
        found = np.zeros(len(rows), np.int64)
        if not ranks:  # no section near them has a shelf
            return found
        rank, shelf, about = np.concatenate(ranks), np.concatenate(shelves), np.concatenate(abouts)
        close = about >= best[rank] - _CLOSE
        rank, shelf = rank[close], shelf[close]
        found[rank] = shelf
        open_ = np.flatnonzero((np.bincount(rank, minlength=len(rows)) > 1)[rank])
        exact = np.vecdot(rows[rank[open_]], self.shelves[shelf[open_]])
        order = open_[np.lexsort((-shelf[open_], exact))]
        found[rank[order]] = shelf[order]  # what is written last stays: the nearest, the first of equals
        return found

    def _beam(self, rows: "Vectors") -> "Whole":
        """(n, 4 at most) the sections nearest to each row, the first of equals, in any order."""
        if len(self.sections) <= _BEAM:
            return np.tile(np.arange(len(self.sections)), (len(rows), 1))
        about = rows @ self.sections.T
        beam = np.argpartition(-about, _BEAM - 1, axis=1)[:, :_BEAM]
        least = np.take_along_axis(about, beam, axis=1).min(axis=1)
        open_ = np.flatnonzero((about >= least[:, None] - _CLOSE).sum(axis=1) > _BEAM)
        exact = np.vecdot(rows[open_, None], self.sections[None])
        beam[open_] = np.argsort(-exact, axis=1, kind="stable")[:, :_BEAM]
        return beam


def learn(vectors: "Vectors", total: int, count: int | None = None, seed: int = 0) -> Shelves:
    """Shelves for `total` vectors, of which these are a sample: (n, d) unit rows.

    `count` is the number of shelves, four to the square root of `total` unless told. O(n sqrt(count)).
    """
    count = max(1, min(count or int(_PER_ROOT * total**0.5), len(vectors)))
    draw = np.random.default_rng(seed)
    sections = k_means(vectors, max(1, round(count**0.5)), draw)
    of = np.argmax(vectors @ sections.T, axis=1)
    shelves, starts = [], [0]
    for section in range(len(sections)):
        members = vectors[of == section]
        own = min(len(members), max(1, round(count * len(members) / len(vectors))))
        if own:
            shelves.append(k_means(members, own, draw))
        starts.append(starts[-1] + own)
    return Shelves(sections, np.concatenate(shelves), np.array(starts, np.int64), total)


def sample(vectors: "Vectors", total: int, among: "Whole") -> "Vectors":
    """As many of the rows `among` as `learn` needs for `total`, drawn by their own bits alone."""
    wanted = int(_SAMPLED * _PER_ROOT * total**0.5)
    drawn = np.empty(len(among), np.uint64)
    odd = np.random.default_rng(0).integers(2**63, size=8, dtype=np.uint64) | np.uint64(1)
    for start in range(0, len(among), _BLOCK):
        words = np.ascontiguousarray(vectors[among[start : start + _BLOCK], :8]).view(np.uint32)
        mixed = (words * odd[: words.shape[1]]).sum(axis=1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        drawn[start : start + _BLOCK] = mixed >> np.uint64(8)
    return np.ascontiguousarray(vectors[among[np.argsort(drawn, kind="stable")[:wanted]]])


def k_means(vectors: "Vectors", count: int, draw: np.random.Generator) -> "Vectors":
    """(count, d) unit centroids by spherical k-means; what is left empty begins anew at some vector."""
    centroids = vectors[draw.choice(len(vectors), count, replace=False)]
    for _ in range(_ROUNDS):
        of = np.argmax(vectors @ centroids.T, axis=1)
        order = np.argsort(of, kind="stable")
        counts = np.bincount(of, minlength=count)
        held = np.flatnonzero(counts)
        starts = np.concatenate([[0], np.cumsum(counts[held])[:-1]])
        centroids[held] = np.add.reduceat(vectors[order], starts, axis=0)
        empty = np.flatnonzero(counts == 0)
        centroids[empty] = vectors[draw.choice(len(vectors), len(empty))]
        lengths = np.linalg.norm(centroids, axis=1, keepdims=True)
        centroids = np.where(lengths > 0, centroids / np.maximum(lengths, 1e-30), vectors[:1])
    return centroids
