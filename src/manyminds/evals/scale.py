"""How well and how fast a large index finds experts, and what it holds. Knows no data set.

Experts are made up: their skills are vectors of real questions with noise, or, for control, of no question
at all. What is nearest in truth is found by comparing everything. Memory and times are those of a fresh
process on one core, which opens the folder and searches; Linux only.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from manyminds.index import KeptIndex
from manyminds.index.scan import has_faiss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from manyminds.types import Vectors

__all__ = ["measure", "search_folder"]

_EACH: Final = 8  # vectors of an expert
_COSINE: Final = 0.8  # of a skill with the question that it is made of
_PARAMETERS: Final = 1_000_000_000
_LIMIT: Final = 10
_PART: Final = 25_000  # experts made at once
_CHANGES: Final = 20  # experts added and removed again, one by one
_WARM_UP: Final = 20
_READ_BYTES: Final = 1 << 22


def measure(
    bases: "Vectors",
    queries: "Vectors",
    sizes: Sequence[int],
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """Every size in vectors: skills made of `bases`, searched for `queries`; and random ones for control.

    bases: (n, d) and queries: (q, d) float32, unit rows. The same every time, but for times and memory.
    """
    tell = progress or (lambda what, share: None)
    draw = np.random.default_rng(seed)
    anywhere = _unit(draw.standard_normal(queries.shape, dtype=np.float32))
    rows = []
    for size in sizes:
        for kind, asked in (("questions", queries), ("random", anywhere)):
            made = _Made(bases if kind == "questions" else None, queries.shape[1], size // _EACH, seed)
            figures = _measure_one(made, asked, partial(tell, f"{size:,} {kind}"))
            rows.append({"kind": kind, "vectors": made.experts * _EACH, "experts": made.experts, **figures})
    shelved = [row for row in rows if row["kind"] == "questions" and row["shelves"]]
    return {
        "seed": seed,
        "queries": len(queries),
        "limit": _LIMIT,
        "cosine": _COSINE,
        "faiss": has_faiss(),
        "rows": rows,
        "exponents": {key: _exponent(shelved, key) for key in ("compared", "p50_ms", "cpu_p50_ms")},
    }


class _Made:
    """Experts that are not kept but made anew when they are needed: a million take 1.5 GB."""

    def __init__(self, bases: "Vectors | None", dimension: int, experts: int, seed: int) -> None:
        self._bases, self._dimension, self.experts, self._seed = bases, dimension, experts, seed

    def parts(self) -> "Iterator[tuple[int, Vectors]]":
        """The first expert of each part, and the unit rows of all that are in it."""
        for first in range(0, self.experts, _PART):
            draw = np.random.default_rng((self._seed, first))
            count = _EACH * min(_PART, self.experts - first)
            rows = _unit(draw.standard_normal((count, self._dimension), dtype=np.float32))
            if self._bases is not None:
                of = self._bases[draw.integers(len(self._bases), size=count)]
                rows = _unit(np.float32(_COSINE) * of + np.float32(math.sqrt(1 - _COSINE**2)) * rows)
            yield first, rows


def _measure_one(made: _Made, queries: "Vectors", tell: Callable[[float], None]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        index, asked = Path(name) / "index", Path(name) / "queries.npy"
        began = time.perf_counter()
        truth = _fill(index, made, queries, tell)
        built_s = time.perf_counter() - began
        np.save(asked, queries)
        command = [sys.executable, "-m", "manyminds.evals.scale", str(index), str(asked)]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
        disk_bytes = sum(path.stat().st_size for path in index.rglob("*"))
    found = json.loads(ran.stdout)
    hits = zip(found.pop("hits"), truth, strict=True)
    shares = [len(set(names) & set(right)) / len(right) for names, right in hits]
    recall, error = statistics.mean(shares), statistics.stdev(shares) / math.sqrt(len(shares))
    return {
        "recall": round(recall, 4),
        "recall_ci95": [round(max(0.0, recall - 1.96 * error), 4), round(min(1.0, recall + 1.96 * error), 4)],
        **found,
        "compared_per_root": round(found["compared"] / math.sqrt(made.experts * _EACH), 1),
        "disk_mb": round(disk_bytes / 1e6),
        "built_s": round(built_s, 1),
    }


def _fill(folder: Path, made: _Made, queries: "Vectors", tell: Callable[[float], None]) -> list[list[str]]:
    """Puts all into the folder, on shelves where these are due. The names nearest to each query in truth."""
    best = np.full((len(queries), _LIMIT), -2.0, np.float32)
    nearest = np.zeros((len(queries), _LIMIT), np.int64)

    def books() -> Iterator[tuple[str, "Vectors", int]]:
        nonlocal best, nearest
        for first, rows in made.parts():
            count = len(rows) // _EACH
            similarity = (queries @ rows.T).reshape(len(queries), count, _EACH).max(axis=2)
            similarity = np.concatenate([best, similarity], axis=1)
            order = np.argpartition(-similarity, _LIMIT - 1, axis=1)[:, :_LIMIT]
            best = np.take_along_axis(similarity, order, axis=1)
            numbers = np.broadcast_to(np.arange(first, first + count), (len(queries), count))
            nearest = np.take_along_axis(np.concatenate([nearest, numbers], axis=1), order, axis=1)
            for i in range(count):
                yield f"expert-{first + i}", rows[_EACH * i : _EACH * (i + 1)], _PARAMETERS
            tell(0.5 * (first + count) / made.experts)

    KeptIndex(folder, queries.shape[1]).load(books())
    tell(0.9)
    return [[f"expert-{i}" for i in row] for row in nearest.tolist()]


def search_folder(folder: Path, queries: "Vectors") -> dict[str, Any]:
    """Searches for each query on one core, then adds and removes experts one by one."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    _read_through(folder)
    index = KeptIndex(folder, queries.shape[1])
    for query in queries[:_WARM_UP]:
        index.search(query, _LIMIT)
    found, wall, cpu = [], [], []
    for query in queries:
        began, own = time.perf_counter(), time.thread_time()
        found.append(index.search(query, _LIMIT))
        wall.append(time.perf_counter() - began)
        cpu.append(time.thread_time() - own)
    memory_mb = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    skills = [np.roll(queries[:_EACH], shift, axis=1) for shift in range(_CHANGES)]
    add = [_ms(partial(index.add, f"newcomer-{i}", skills[i], _PARAMETERS)) for i in range(_CHANGES)]
    remove = [_ms(partial(index.remove, f"expert-{i}")) for i in range(_CHANGES)]
    shelves = index.shelves
    return {
        "sections": 0 if shelves is None else len(shelves.sections),
        "shelves": 0 if shelves is None else len(shelves.shelves),
        "p50_ms": _quantile_ms(wall, 0.5),
        "p95_ms": _quantile_ms(wall, 0.95),
        "cpu_p50_ms": _quantile_ms(cpu, 0.5),
        "compared": round(statistics.mean(one.compared for one in found)),
        "considered": round(statistics.mean(one.considered for one in found)),
        "touched": statistics.mean(one.touched for one in found),
        "memory_mb": round(memory_mb),
        "add_ms": round(statistics.median(add), 2),
        "remove_ms": round(statistics.median(remove), 2),
        "hits": [[name for name, _ in one.hits] for one in found],
    }


def _read_through(folder: Path) -> None:
    """Brings the bytes that searches scan from the disk into the system's memory, as serving does in time."""
    for path in folder.glob("snapshot-*/codes"):
        with path.open("rb") as file:
            while file.read(_READ_BYTES):
                pass


def _unit(rows: "Vectors") -> "Vectors":
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def _ms(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - began)


def _quantile_ms(seconds: Sequence[float], share: float) -> float:
    return round(1e3 * float(np.quantile(seconds, share)), 3)


def _exponent(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    """Of a power law through these rows; None for fewer than two sizes."""
    if len({row["vectors"] for row in rows}) < 2:
        return None
    x = np.log([row["vectors"] for row in rows])
    y: NDArray[np.float64] = np.log([row[key] for row in rows])
    return round(float(np.polyfit(x, y, 1)[0]), 3)


if __name__ == "__main__":
    print(json.dumps(search_folder(Path(sys.argv[1]), np.load(sys.argv[2]))))
