"""The rows most like a query among many, by bytes first. Knows rows, no names and no shelves.

Every number of a row is also kept as one byte. A scan of the bytes reads a quarter of the memory and
says how far off it may be, so whatever it leaves out is surely not among the nearest: the answer is exact.
"""

import importlib
import logging
import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from manyminds.types import Vectors

    Bytes = NDArray[np.uint8]
    Whole = NDArray[np.int64]

__all__ = ["ROUNDING", "Scanner", "encode", "has_faiss", "step"]

ROUNDING: Final = 1e-5  # more than the order of summation changes a dot product of unit vectors

_WIDTH: Final = 6.0  # deviations of a number in a random unit vector that a byte covers
_ROW: Final = (1 << 32) - 1


@cache
def has_faiss() -> bool:
    """Whether faiss-cpu, of the extra `index`, is installed. Without it all is exact too, and slower."""
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it tells of every variant it lacks
    try:
        importlib.import_module("faiss")
    except ImportError:
        return False
    return True


def step(dimension: int) -> float:
    """What one unit of a byte is worth. Fixed, so that no vector changes what another's bytes are."""
    return min(1.0, _WIDTH / math.sqrt(dimension)) / 127


def encode(rows: "Vectors") -> "tuple[Bytes, Vectors]":
    """(n, d) bytes, 128 for zero, and (n,) by how long a vector each misses its unit row."""
    unit = step(rows.shape[1])
    whole = np.clip(np.rint(rows / np.float32(unit)), -127, 127)
    lost: Vectors = np.linalg.norm(rows - whole * np.float32(unit), axis=1)
    return (whole + 128).astype(np.uint8), lost


class Scanner:
    """Scans of (n, d) bytes with faiss, on the caller's own thread alone, and one at a time."""

    def __init__(self, codes: "Bytes", lost: float) -> None:
        """`lost` is the most that `encode` said of these rows. Raises: ImportError without faiss."""
        self._faiss: Any = importlib.import_module("faiss")
        self._codes, self._lost = codes, lost
        dimension = codes.shape[1]
        # faiss leaves it to whoever scans where the bytes are: here in a mapped file, for all processes once.
        self._coarse = self._faiss.IndexFlatIP(dimension)
        kind = self._faiss.ScalarQuantizer.QT_8bit_direct_signed
        self._inverted = self._faiss.IndexIVFScalarQuantizer(
            self._coarse, dimension, 1, kind, self._faiss.METRIC_INNER_PRODUCT, False
        )
        self._inverted.is_trained = True
        self._scanner = self._inverted.get_InvertedListScanner(True, None, None)

    def nearest(
        self, query: "Vectors", spans: Sequence[tuple[int, int]], count: int
    ) -> "tuple[Whole, Vectors, float]":
        """About the `count` nearest rows within spans, nearest first; their similarities; how far off.

        A row that is left out has at most the similarity of the last of `count`, plus how far off it may be.
        """
        unit = step(len(query))
        own = float(np.abs(query).max()) / 127 or 1.0  # a query's bytes may be as fine as it allows
        whole = np.rint(query / np.float32(own)).astype(np.float32)
        off = self._lost + float(np.linalg.norm(query - whole * np.float32(own))) * (1.0 + self._lost)
        similarity = np.full(count, -np.inf, np.float32)
        labels = np.full(count, -1, np.int64)
        pointer = self._faiss.swig_ptr
        scanner = self._scanner
        scanner.set_query(pointer(whole))
        into = pointer(similarity), pointer(labels), count
        for number, (start, stop) in enumerate(spans):
            scanner.set_list(number, 0.0)
            scanner.scan_codes(stop - start, pointer(self._codes[start:stop]), None, *into)
        found = np.flatnonzero(labels >= 0)
        found = found[np.argsort(-similarity[found], kind="stable")]
        starts = np.array([start for start, _ in spans], np.int64)
        rows = starts[labels[found] >> 32] + (labels[found] & _ROW)
        return rows, similarity[found] * np.float32(unit * own), off + ROUNDING
