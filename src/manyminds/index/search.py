"""The index itself: a snapshot, what came since, and the search through both. Does no I/O.

Within the shelves that it looks at, a search is exact: bytes only tell which rows are not worth reading.
So its answers follow from names, vectors and shelves alone, bit by bit, whatever came and went before.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from manyminds.index.pending import Hit, Pending
from manyminds.index.scan import Scanner, has_faiss
from manyminds.index.shelves import Shelves, learn, sample
from manyminds.index.snapshot import Block, Make, Snapshot, build, in_memory, text, utf8

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from manyminds.types import Vectors

    Spans = Sequence[tuple[int, int]]
    Whole = NDArray[np.int64]

__all__ = ["Addition", "Found", "Index"]

log = logging.getLogger(__name__)

_FLAT: Final = 100_000  # vectors up to which all are compared
_PENDING: Final = 4_096  # vectors that are compared as they came, without a snapshot
_MOST_PENDING: Final = 262_144  # 400 MB at 384 numbers
_SHARE: Final = 8  # a snapshot is due when an eighth is pending
_GROWN: Final = 4  # times as many as the shelves were learnt from: time to learn them anew
_BUDGET: Final = 16  # chapters compared, per square root of all
_SCANNED: Final = 2_000  # rows from which reading bytes first is faster
_FIRST: Final = 64  # rows that a first scan brings back
_MORE: Final = 4

Addition = tuple[str, "Vectors", int]
"""A name, its vectors (k, d), and its parameters."""


@dataclass(frozen=True, slots=True)
class Found:
    """The nearest names, nearest first, and what it took.

    Attributes:
        hits: name and cosine similarity.
        compared: vectors that the query was compared with, centroids included.
        considered: experts of whom at least one vector was among them.
        touched: the hits' share of all parameters in the index, 0 where none are known.
    """

    hits: tuple[tuple[str, float], ...]
    compared: int
    considered: int
    touched: float


@dataclass(frozen=True, slots=True)
class _Look:
    """Where a search looks: spans of the snapshot's rows, chosen shelves (None: all), vectors compared."""

    spans: "Spans"
    chosen: "NDArray[np.bool_] | None"
    compared: int


class Index:
    """An index in memory, for one thread at a time. A name's similarity is that of its nearest vector.

    Up to `flat` vectors results are bitwise the same whatever the order in which names came and went; above,
    they are so on the same shelves. Shelves are learnt when a snapshot finds more than `flat` for the
    first time, again when these are four times as many, and by `shelve`.
    """

    def __init__(self, dimension: int, *, flat: int = _FLAT, pending: int = _PENDING) -> None:
        self._dimension, self._flat, self._most = dimension, flat, pending
        self._told = False
        self._settled(None)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._pending or self._settled_book(name) is not None)

    @property
    def vectors(self) -> int:
        """How many there are."""
        return int(self._sizes.sum())

    @property
    def pending(self) -> int:
        """Vectors that came since the last snapshot, gone ones included: searches are slower by them."""
        return self._pending.used

    @property
    def parameters(self) -> int:
        """Of all experts together."""
        return self._parameters

    @property
    def shelves(self) -> Shelves | None:
        """What searches go by; None while all vectors are compared."""
        return self._shelves if self.vectors > self._flat else None

    @property
    def outgrown(self) -> bool:
        """Whether the next snapshot learns new shelves: there are none yet, or too few by now."""
        grown = self._shelves is None or self.vectors >= _GROWN * self._shelves.learnt_from
        return grown and self.vectors > self._flat

    def names(self) -> list[str]:
        """All of them, sorted."""
        base = self._base
        there = [] if base is None else [text(base.name(int(i))) for i in np.flatnonzero(self._alive)]
        return sorted(there + self._pending.names())

    def vectors_of(self, name: str) -> "Vectors":
        """(k, d) unit vectors of a name, in any order. Raises: KeyError."""
        rows = self._rows_of(name)
        if rows is None:
            raise KeyError(name)
        return np.array(rows)

    def add(self, name: str, vectors: "Vectors", parameters: int = 0) -> None:
        """Sets the vectors of a name, (k, d) with k >= 1, of any length but 0; replaces earlier ones.

        O(its own vectors), and now and then a new snapshot of all. Raises: ValueError for another shape, a
        row without a direction, or a negative number of parameters.
        """
        self.add_all([(name, vectors, parameters)])

    def add_all(self, books: Iterable[Addition]) -> None:
        """`add` for many at once, with at most one snapshot, at the end. Raises: ValueError, adding none."""
        for book in [self._checked(*book) for book in books]:
            self._put(*book)
        if self._due(0):
            self._settle(self._following())

    def remove(self, name: str) -> None:
        """Removes a name. O(its own vectors), and now and then all. An unknown name is tolerated."""
        self.remove_all([name])

    def remove_all(self, names: Iterable[str]) -> None:
        """`remove` for many at once."""
        for name in names:
            self._drop(name)
        if self._due(0):
            self._settle(self._following())

    def search(self, vector: "Vectors", limit: int) -> Found:
        """The `limit` nearest names to a vector (d,), by similarity and then by name.

        O(all vectors) while these are few, then O(their square root).
        Raises: ValueError for another shape, or a vector without a direction.
        """
        if limit < 1:
            raise ValueError(f"limit is {limit}; it must be at least 1")
        query = self._unit(np.asarray(vector)[None], "the query vector")[0]
        if not self._count:
            return Found((), 0, 0, 0.0)
        look = self._look(query)
        near, considered = self._pending.nearest(query, look.chosen, limit)
        near = [*near, *self._nearest_settled(query, look.spans, limit, near)]
        first = sorted(near, key=lambda hit: (-hit[1], hit[0]))[:limit]
        touched = sum(parameters for _, _, parameters in first) / max(1, self._parameters)
        hits = tuple((name, similarity) for name, similarity, _ in first)
        return Found(hits, look.compared, considered + self._considered(look), touched)

    def similarity(self, vector: "Vectors", names: Iterable[str]) -> dict[str, float]:
        """The similarity of each of these names, as `search` has it; unknown names are left out.

        O(their vectors). Raises: ValueError as `search`.
        """
        query = self._unit(np.asarray(vector)[None], "the query vector")[0]
        known = ((name, self._rows_of(name)) for name in names)
        return {name: float(np.vecdot(rows, query).max()) for name, rows in known if rows is not None}

    def shelve(self, shelves: Shelves | None = None) -> None:
        """Puts all books on these shelves, or on new ones learnt from all vectors. O(all)."""
        if self._count:
            self._settle(shelves or _learn(self._blocks(None)))

    # --- what is there ---

    def _settled(self, base: Snapshot | None) -> None:
        """Goes on from this snapshot with nothing pending."""
        self._base = base
        self._pending = Pending(self._dimension)
        self._shelves = base.shelves if base is not None else None
        self._alive = np.ones(len(base) if base is not None else 0, bool)
        self._sizes = (
            np.diff(base.bounds) if base is not None else np.zeros(1, np.int64)
        )  # live rows by shelf
        self._count = len(self._alive)
        self._parameters = int(base.parameters.sum()) if base is not None else 0
        large = base is not None and len(base.rows) >= _SCANNED
        self._scanner = Scanner(base.codes, base.lost) if base is not None and large and has_faiss() else None
        if large and self._scanner is None and not self._told:
            self._told = True
            log.info(
                "faiss-cpu is not installed (extra `index`): searches are exact all the same, and slower"
            )

    def _checked(self, name: str, vectors: "Vectors", parameters: int) -> Addition:
        if parameters < 0:
            raise ValueError(f"the parameters of {name!r}: {parameters}; they must be 0 or more")
        return name, self._unit(vectors, f"the vectors of {name!r}"), parameters

    def _put(self, name: str, rows: "Vectors", parameters: int) -> None:
        self._drop(name)
        shelf = np.zeros(len(rows), np.int64) if self._shelves is None else self._shelves.assign(rows)
        self._pending.add(name, rows, parameters, shelf)
        self._sizes += np.bincount(shelf, minlength=len(self._sizes))
        self._count += 1
        self._parameters += parameters

    def _drop(self, name: str) -> None:
        gone = self._pending.remove(name)
        if gone is None:
            book = self._settled_book(name)
            if book is None:
                return
            base = self._base
            assert base is not None
            self._alive[book] = False
            shelf = np.searchsorted(base.bounds, base.places_of(book), side="right") - 1
            gone = shelf, int(base.parameters[book])
        self._sizes -= np.bincount(gone[0], minlength=len(self._sizes))
        self._count -= 1
        self._parameters -= gone[1]

    def _settled_book(self, name: str) -> int | None:
        book = self._base.find(utf8(name)) if self._base is not None else None
        return book if book is not None and self._alive[book] else None

    def _rows_of(self, name: str) -> "Vectors | None":
        rows, book = self._pending.rows_of(name), self._settled_book(name)
        if book is not None:
            assert self._base is not None
            return self._base.exact(self._base.places_of(book))
        return rows

    # --- snapshots ---

    def _due(self, more: int) -> bool:
        """Whether it is time for a snapshot, with so many rows more: many are pending, or most are gone."""
        settled = len(self._base.rows) if self._base is not None else 0
        if settled + self._pending.used > self._most + 2 * self.vectors:
            return True
        return self._pending.used + more > max(self._most, min(settled // _SHARE, _MOST_PENDING))

    def _following(self) -> Shelves | None:
        """The shelves of the next snapshot."""
        return _learn(self._blocks(None)) if self.outgrown else self._shelves

    def _first_shelves(self, block: Block) -> Shelves | None:
        """The shelves of a snapshot of nothing but this."""
        return _learn([block]) if int(block.alive[block.owners].sum()) > self._flat else None

    def _blocks(self, shelves: Shelves | None) -> list[Block]:
        same = shelves is self._shelves
        blocks = [self._pending.block(same)]
        if self._base is not None:
            blocks.append(self._base.block(self._alive, same))
        return blocks

    def _settle(self, shelves: Shelves | None) -> None:
        self._settled(self._built(shelves, in_memory) if self._count else None)

    def _built(self, shelves: Shelves | None, make: Make) -> Snapshot:
        return build(self._blocks(shelves), self._dimension, shelves, make)

    # --- searching ---

    def _look(self, query: "Vectors") -> _Look:
        base, vectors = self._base, self.vectors
        if self._shelves is None or vectors <= self._flat:
            return _Look([] if base is None else [(0, len(base.rows))], None, vectors)
        order, centroids = self._shelves.near(query)
        until = np.searchsorted(np.cumsum(self._sizes[order]), _BUDGET * math.sqrt(vectors)) + 1
        chosen = np.zeros(len(self._sizes), bool)
        chosen[order[:until]] = True
        compared = centroids + int(self._sizes[order[:until]].sum())
        spans = (
            [] if base is None else [(int(base.bounds[i]), int(base.bounds[i + 1])) for i in order[:until]]
        )
        return _Look([(start, stop) for start, stop in spans if stop > start], chosen, compared)

    def _considered(self, look: _Look) -> int:
        """Books of the snapshot of which a row was compared."""
        if look.chosen is None:
            return int(self._alive.sum())
        seen = np.zeros(len(self._alive), bool)
        for start, stop in look.spans:
            assert self._base is not None
            seen[self._base.owners[start:stop]] = True
        return int((seen & self._alive).sum())

    def _nearest_settled(
        self, query: "Vectors", spans: "Spans", limit: int, others: Sequence[Hit]
    ) -> list[Hit]:
        """Of the snapshot, whoever may be among the `limit` nearest beside these others, ties included."""
        base = self._base
        if base is None or not spans:
            return []
        rows = sum(stop - start for start, stop in spans)
        best: dict[int, float] | None = None
        if self._scanner is not None:
            bar = sorted((similarity for _, similarity, _ in others), reverse=True)[:limit]
            best = self._by_bytes(self._scanner, query, spans, limit, bar, rows)
        if best is None:
            best = _nearest(base, self._alive, query, spans, limit)
        return [(text(base.name(i)), similarity, int(base.parameters[i])) for i, similarity in best.items()]

    def _by_bytes(
        self, scanner: Scanner, query: "Vectors", spans: "Spans", limit: int, bar: list[float], rows: int
    ) -> dict[int, float] | None:
        """Books and their similarities: all that reach the limit; None where too many come close."""
        base = self._base
        assert base is not None
        odd = base.odd
        if len(odd):
            within = np.searchsorted(odd, np.array(spans)).tolist()
            odd = np.concatenate([odd[start:stop] for start, stop in within])
        count = max(_FIRST, _MORE * limit)
        while count * _MORE <= rows:
            near, about, off = scanner.nearest(query, spans, count)
            there = self._alive[base.owners[near]]
            near, about_there = near[there], about[there]
            first = np.concatenate([odd, near[: 2 * limit]])
            best = _best(base, self._alive, first, query, {})
            least = _least([*bar, *best.values()], limit)
            rest = near[2 * limit :][about_there[2 * limit :] + off >= least]
            best = _best(base, self._alive, rest, query, best)
            least = _least([*bar, *best.values()], limit)
            if len(about) < count or about[-1] + off < least:
                return {book: similarity for book, similarity in best.items() if similarity >= least}
            count *= _MORE
        return None

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


def _learn(blocks: Sequence[Block]) -> Shelves:
    """New shelves for what is alive in these blocks."""
    parts = [(block.rows, np.flatnonzero(block.alive[block.owners])) for block in blocks]
    total = sum(len(among) for _, among in parts)
    # A sample of each part holds whatever a sample of all holds: what is drawn hangs on the vector alone.
    drawn = np.concatenate([sample(rows, total, among) for rows, among in parts])
    return learn(sample(drawn, total, np.arange(len(drawn))), total)


def _least(similarities: Sequence[float], limit: int) -> float:
    """What it takes to be among the `limit` nearest."""
    return sorted(similarities, reverse=True)[limit - 1] if len(similarities) >= limit else -math.inf


def _best(
    base: Snapshot, alive: "NDArray[np.bool_]", rows: "Whole", query: "Vectors", best: dict[int, float]
) -> dict[int, float]:
    """`best` and the exact similarities of these rows' books."""
    found = np.vecdot(base.exact(rows), query)
    for book, similarity in zip(base.owners[rows].tolist(), found.tolist(), strict=True):
        if alive[book] and similarity > best.get(book, -math.inf):
            best[book] = similarity
    return best


def _nearest(
    base: Snapshot, alive: "NDArray[np.bool_]", query: "Vectors", spans: "Spans", limit: int
) -> dict[int, float]:
    """The nearest books within spans, every row compared exactly."""
    nearest = np.full(len(base), -math.inf, np.float32)
    for start, stop in spans:
        np.maximum.at(nearest, base.owners[start:stop], np.vecdot(base.rows[start:stop], query))
    nearest[~alive] = -math.inf
    there = np.flatnonzero(nearest > -math.inf)
    values = nearest[there]
    if limit < len(there):
        there = there[values >= np.partition(values, -limit)[-limit]]
    return {int(book): float(nearest[book]) for book in there}
