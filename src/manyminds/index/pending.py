"""Books that came since the last snapshot: rows in arrays that grow. Knows no file and no snapshot."""

from typing import TYPE_CHECKING, Any

import numpy as np

from manyminds.index.snapshot import Block, utf8

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from manyminds.types import Vectors

    Whole = NDArray[np.int64]

__all__ = ["Hit", "Pending"]

Hit = tuple[str, float, int]
"""Name, similarity, parameters."""


class Pending:
    """Whoever is replaced or removed stays in the arrays, without a shelf, until the next snapshot."""

    def __init__(self, dimension: int) -> None:
        self.used = 0  # rows
        self._names: list[str] = []
        self._parameters: list[int] = []
        self._alive: list[bool] = []
        self._spans: list[tuple[int, int]] = []
        self._books: dict[str, int] = {}
        self._rows = np.empty((16, dimension), np.float32)
        self._owners = np.empty(16, np.int64)
        self._shelf = np.empty(16, np.int64)  # -1 where the book is gone

    def __contains__(self, name: object) -> bool:
        return name in self._books

    def add(self, name: str, rows: "Vectors", parameters: int, shelf: "Whole") -> None:
        """Puts a name that is not in it. O(its own rows), now and then all."""
        start, stop = self.used, self.used + len(rows)
        if stop > len(self._rows):
            size = max(stop, 2 * len(self._rows))
            self._rows = _longer(self._rows, self.used, size)
            self._owners = _longer(self._owners, self.used, size)
            self._shelf = _longer(self._shelf, self.used, size)
        self._rows[start:stop], self._shelf[start:stop] = rows, shelf
        self._owners[start:stop] = self._books[name] = len(self._names)
        self._names.append(name)
        self._parameters.append(parameters)
        self._alive.append(True)
        self._spans.append((start, stop))
        self.used = stop

    def remove(self, name: str) -> "tuple[Whole, int] | None":
        """The shelves of its rows and its parameters, if it was there."""
        book = self._books.pop(name, None)
        if book is None:
            return None
        start, stop = self._spans[book]
        shelf = self._shelf[start:stop].copy()
        self._shelf[start:stop] = -1
        self._alive[book] = False
        return shelf, self._parameters[book]

    def rows_of(self, name: str) -> "Vectors | None":
        book = self._books.get(name)
        return None if book is None else self._rows[slice(*self._spans[book])]

    def names(self) -> list[str]:
        return list(self._books)

    def nearest(
        self, query: "Vectors", chosen: "NDArray[np.bool_] | None", limit: int
    ) -> tuple[list[Hit], int]:
        """Whoever may be among the `limit` nearest, ties included, and how many names were compared.

        Only rows on chosen shelves count; all where `chosen` is None.
        """
        shelf = self._shelf[: self.used]
        there = shelf >= 0 if chosen is None else (shelf >= 0) & chosen[shelf]
        rows, owners = self._rows[: self.used], self._owners[: self.used]
        if not there.all():
            rows, owners = rows[there], owners[there]
        if not len(rows):
            return [], 0
        # `vecdot` takes each row by itself. A matrix product is no faster here, and what it makes of a
        # row may depend on the rows around it: an expert's similarity would change with its neighbours.
        # The rows of a name are beside each other.
        starts = np.flatnonzero(np.diff(owners, prepend=-1))
        best = np.maximum.reduceat(np.vecdot(rows, query), starts)
        bar = np.partition(best, -limit)[-limit] if limit < len(best) else best.min()
        kept = np.flatnonzero(best >= bar)
        books = owners[starts[kept]].tolist()
        found = zip(books, best[kept].tolist(), strict=True)
        return [(self._names[book], similarity, self._parameters[book]) for book, similarity in found], len(
            best
        )

    def block(self, placed: bool) -> Block:
        """Itself as something to build from, with its shelves or, where they will be others, without."""
        used = slice(self.used)
        shelf = self._shelf[used] if placed else None
        names = [utf8(name) for name in self._names]
        return Block(
            names, self._parameters, np.array(self._alive, bool), self._rows[used], self._owners[used], shelf
        )


def _longer(array: "NDArray[Any]", used: int, size: int) -> "NDArray[Any]":
    longer: NDArray[Any] = np.empty((size, *array.shape[1:]), array.dtype)
    longer[:used] = array[:used]
    return longer
