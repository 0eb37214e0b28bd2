"""Which experts' skills lie nearest to a question: exact search over all skill vectors.

Knows names and vectors, no cards and no policy. Does no I/O.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from manyminds.types import Vectors

__all__ = ["Found", "Index"]


@dataclass(frozen=True, slots=True)
class Found:
    """The nearest names, nearest first, and how many vectors were compared for it."""

    hits: tuple[tuple[str, float], ...]  # name, cosine similarity
    compared: int


@dataclass(frozen=True, slots=True)
class _Packed:
    names: tuple[str, ...]
    starts: tuple[int, ...]  # first row of each name
    matrix: "Vectors"  # (rows, d)


class Index:
    """A flat, exact index. A name's similarity is that of its nearest vector.

    Results are bitwise the same whatever the order in which names came and went.
    """

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._vectors: dict[str, Vectors] = {}
        self._packed: _Packed | None = None  # rebuilt by the first search after a change

    def __len__(self) -> int:
        return len(self._vectors)

    def __contains__(self, name: object) -> bool:
        return name in self._vectors

    def add(self, name: str, vectors: "Vectors") -> None:
        """Sets the vectors of a name, (k, d) with k >= 1, of any length but 0; replaces earlier ones.

        O(its own vectors). Raises: ValueError for another shape, or a row without a direction.
        """
        self._vectors[name] = self._unit(vectors, f"the vectors of {name!r}")
        self._packed = None

    def remove(self, name: str) -> None:
        """Removes a name. O(1). An unknown name is tolerated."""
        if self._vectors.pop(name, None) is not None:
            self._packed = None

    def search(self, vector: "Vectors", limit: int) -> Found:
        """The `limit` nearest names to a vector (d,), by similarity and then by name.

        O(all vectors). Raises: ValueError for another shape, or a vector without a direction.
        """
        if limit < 1:
            raise ValueError(f"limit is {limit}; it must be at least 1")
        query = self._unit(np.asarray(vector)[None], "the query vector")[0]
        if not self._vectors:
            return Found((), 0)
        packed = self._pack()
        # `vecdot` takes each row by itself. A matrix product is no faster here, and what it makes of a
        # row may depend on the rows around it: an expert's similarity would change with its neighbours.
        nearest = np.maximum.reduceat(np.vecdot(packed.matrix, query), packed.starts)
        bar = np.partition(nearest, -limit)[-limit] if limit < len(nearest) else nearest.min()
        kept = [(packed.names[i], float(nearest[i])) for i in np.flatnonzero(nearest >= bar)]
        hits = sorted(kept, key=lambda hit: (-hit[1], hit[0]))
        return Found(tuple(hits[:limit]), len(packed.matrix))

    def similarity(self, vector: "Vectors", names: Iterable[str]) -> dict[str, float]:
        """The similarity of each of these names, as `search` has it; unknown names are left out.

        O(their vectors). Raises: ValueError as `search`.
        """
        query = self._unit(np.asarray(vector)[None], "the query vector")[0]
        known = ((name, self._vectors.get(name)) for name in names)
        return {name: float(np.vecdot(rows, query).max()) for name, rows in known if rows is not None}

    def _unit(self, vectors: "Vectors", what: str) -> "Vectors":
        rows = np.asarray(vectors, dtype=np.float64)  # no square of a float32 overflows or vanishes
        if rows.ndim != 2 or rows.shape[0] == 0 or rows.shape[1] != self._dimension:
            raise ValueError(f"{what}: shape {rows.shape}, expected (1 or more, {self._dimension})")
        if not np.isfinite(rows).all():
            raise ValueError(f"{what}: not every number is finite")
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        if not lengths.all():
            raise ValueError(f"{what}: a row of zeros has no direction")
        unit: Vectors = (rows / lengths).astype(np.float32)
        return unit

    def _pack(self) -> _Packed:
        if self._packed is None:
            matrix = np.concatenate(list(self._vectors.values()))
            starts: list[int] = []
            row = 0
            for name, vectors in self._vectors.items():
                starts.append(row)
                row += len(vectors)
                self._vectors[name] = matrix[row - len(vectors) : row]  # a view: nothing is held twice
            self._packed = _Packed(tuple(self._vectors), tuple(starts), matrix)
        return self._packed
