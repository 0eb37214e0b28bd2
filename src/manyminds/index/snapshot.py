"""Books and their chapters as they were at one moment, in arrays that never change. Knows no file.

The rows are ordered by shelf, so that reading a shelf is reading one piece of memory. The arrays may as well
be mapped files: see `kept`. A snapshot follows from its books and shelves alone, whatever their history.
"""

import bisect
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

from manyminds.index.scan import encode, step
from manyminds.index.shelves import Shelves

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from manyminds.types import Vectors

    Bytes = NDArray[np.uint8]
    Flags = NDArray[np.bool_]
    Whole = NDArray[np.int64]

__all__ = ["Block", "Make", "Snapshot", "build", "in_memory", "spool", "text", "utf8"]

Make = Callable[[str, tuple[int, ...], Any], "NDArray[Any]"]
"""Where a snapshot's large arrays come from: name, shape and kind of number."""

_BLOCK: Final = 16_384
_BOOKS: Final = 1_024  # written at once
_PART: Final = 131_072  # rows that are put in order in memory: 200 MB at 384 numbers


def utf8(name: str) -> bytes:
    """A name as it is kept and ordered; half characters too."""
    return name.encode("utf-8", "surrogatepass")


def text(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")


def in_memory(name: str, shape: tuple[int, ...], kind: Any) -> "NDArray[Any]":
    """A `Make`."""
    return np.empty(shape, kind)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some books to build from, in any order.

    Attributes:
        names: (m,) as `utf8` has them; parameters: (m,) of each book.
        alive: (m,) whether it is still there.
        rows: (n, d) float32 unit rows; owners: (n,) whose each is; shelf: (n,) where it is known.
    """

    names: Sequence[bytes]
    parameters: Sequence[int]
    alive: "Flags"
    rows: "Vectors"
    owners: "Whole"
    shelf: "Whole | None"


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """m books of n chapters.

    Attributes:
        names: all names, sorted, one after the other in UTF-8; ends: (m + 1,) where each begins and ends.
        parameters: (m,) of each book.
        starts: (m + 1,) and places: (n,): which rows are whose, `places[starts[i]:starts[i + 1]]`.
        bounds: (t + 1,) first row of each shelf; one shelf for all where there are no shelves.
        shelves: None where the books are few.
        rows: (n, d) float32 by shelf and then by book; codes: (n, d) the same as `encode` has them.
        owners: (n,) uint32, the book of each row.
        lost: the most that `encode` said of any row but the odd ones.
        odd: rows that a byte does not cover, sorted; few, unless somebody wants them to be many.
        read: reads rows of these numbers, where that is better than `rows[numbers]`.
    """

    names: "Bytes"
    ends: "Whole"
    parameters: "Whole"
    starts: "Whole"
    places: "Whole"
    bounds: "Whole"
    shelves: Shelves | None
    rows: "Vectors"
    codes: "Bytes"
    owners: "NDArray[np.uint32]"
    lost: float
    odd: "Whole"
    read: "Callable[[Whole], Vectors] | None" = None

    def exact(self, rows: "Whole") -> "Vectors":
        """(k, d) these rows, in this order."""
        return self.rows.take(rows, axis=0) if self.read is None else self.read(rows)

    def __len__(self) -> int:
        return len(self.parameters)

    def name(self, book: int) -> bytes:
        return self.names[self.ends[book] : self.ends[book + 1]].tobytes()

    def find(self, name: bytes) -> int | None:
        """The book of that name. O(log m)."""
        book = bisect.bisect_left(range(len(self)), name, key=self.name)
        return book if book < len(self) and self.name(book) == name else None

    def places_of(self, book: int) -> "Whole":
        """The rows of a book."""
        return self.places[self.starts[book] : self.starts[book + 1]].astype(np.int64)

    def block(self, alive: "Flags", placed: bool) -> Block:
        """Itself as something to build from, with its shelves or, where they will be others, without."""
        shelf = np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds)) if placed else None
        raw, ends = self.names.tobytes(), self.ends.tolist()
        names = [raw[start:stop] for start, stop in itertools.pairwise(ends)]
        return Block(names, self.parameters.tolist(), alive, self.rows, self.owners.astype(np.int64), shelf)


def spool(books: Iterable[tuple[str, "Vectors", int]], dimension: int, file: IO[bytes]) -> Block | None:
    """These books as something to build from, their rows written to an empty file; None for no books.

    Of those of one name, the last is alive.
    """
    names, parameters, sizes, rest = [], [], [], iter(books)
    while some := list(itertools.islice(rest, _BOOKS)):
        for name, rows, own in some:
            names.append(utf8(name))
            parameters.append(own)
            sizes.append(len(rows))
        file.write(np.concatenate([rows for _, rows, _ in some]).data)
    if not names:
        return None
    file.flush()
    last = {name: book for book, name in enumerate(names)}
    alive = np.zeros(len(names), bool)
    alive[list(last.values())] = True
    rows = np.memmap(file, np.float32, "r", shape=(sum(sizes), dimension))
    return Block(names, parameters, alive, rows, np.repeat(np.arange(len(names)), sizes), None)


def build(blocks: Sequence[Block], dimension: int, shelves: Shelves | None, make: Make) -> Snapshot:
    """A snapshot of what is alive in these blocks; no name may be alive twice. O(all rows)."""
    living = sorted(
        (name, i, book)
        for i, block in enumerate(blocks)
        for book, name in enumerate(block.names)
        if block.alive[book]
    )
    renamed = [np.full(len(block.names), -1, np.int64) for block in blocks]
    for number, (_, i, book) in enumerate(living):
        renamed[i][book] = number
    held = [np.flatnonzero(own[block.owners] >= 0) for own, block in zip(renamed, blocks, strict=True)]
    owners = np.concatenate([own[b.owners[h]] for own, b, h in zip(renamed, blocks, held, strict=True)])
    shelf = np.concatenate([_shelf(block, rows, shelves) for block, rows in zip(blocks, held, strict=True)])
    order = np.lexsort((owners, shelf))
    count = 1 if shelves is None else len(shelves.shelves)
    lengths = np.array([len(name) for name, _, _ in living], np.int64)
    rows, codes, lost = _gather(blocks, held, order, dimension, make)
    owner = make("owners", (len(order),), np.uint32)
    owner[:] = owners[order]
    places = make("places", (len(order),), np.uint32)
    places[:] = np.argsort(owner, kind="stable")
    covered = lost <= step(dimension) / 2 * dimension**0.5 * (1 + 1e-3)
    return Snapshot(
        names=np.frombuffer(b"".join(name for name, _, _ in living), np.uint8),
        ends=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        parameters=np.array([blocks[i].parameters[book] for _, i, book in living], np.int64),
        starts=np.searchsorted(np.sort(owners), np.arange(len(living) + 1)).astype(np.int64),
        places=places,
        bounds=np.searchsorted(shelf[order], np.arange(count + 1)).astype(np.int64),
        shelves=shelves,
        rows=rows,
        codes=codes,
        owners=owner,
        lost=float(lost[covered].max(initial=0.0)),
        odd=np.flatnonzero(~covered),
    )


def _shelf(block: Block, rows: "Whole", shelves: Shelves | None) -> "Whole":
    if shelves is None:
        return np.zeros(len(rows), np.int64)
    if block.shelf is not None:
        return block.shelf[rows]
    parts = [shelves.assign(block.rows[rows[i : i + _BLOCK]]) for i in range(0, len(rows), _BLOCK)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _gather(
    blocks: Sequence[Block], held: "Sequence[Whole]", order: "Whole", dimension: int, make: Make
) -> "tuple[Vectors, Bytes, Vectors]":
    """The rows in order, their bytes, and what each loses by them.

    First each goes to the part of the rows where it belongs, then each part is put in order by itself. So
    files are read and written in long pieces: one row here and one there takes hours for ten million.
    """
    rows = make("rows", (len(order), dimension), np.float32)
    codes = make("codes", (len(order), dimension), np.uint8)
    lost = np.empty(len(order), np.float32)
    part = np.empty(len(order), np.int64)
    part[order] = np.arange(len(order)) // _PART
    free, first = list(range(0, len(order), _PART)), 0
    for block, own in zip(blocks, held, strict=True):
        for start in range(0, len(own), _BLOCK):
            piece = block.rows[own[start : start + _BLOCK]]
            into = part[first : first + len(piece)]
            piece = piece[np.argsort(into, kind="stable")]
            for i, size in enumerate(np.bincount(into).tolist()):
                rows[free[i] : free[i] + size], piece = piece[:size], piece[size:]
                free[i] += size
            first += len(into)
    for start in range(0, len(order), _PART):
        rank = np.argsort(np.argsort(order[start : start + _PART]))  # they came in order of their numbers
        came = np.array(rows[start : start + _PART])
        for i in range(0, len(rank), _BLOCK):
            piece, at = came[rank[i : i + _BLOCK]], slice(start + i, start + i + len(rank[i : i + _BLOCK]))
            rows[at] = piece
            codes[at], lost[at] = encode(piece)
    return rows, codes, lost
