"""Folders and an encoder for the tests of documents. The encoder adds up words: quick, and pure."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manyminds.documents import Found, Library

if TYPE_CHECKING:
    from manyminds.types import Vectors

__all__ = ["D", "content", "embed", "paths_holding", "shown", "write"]

D = 16


def embed(texts: Sequence[str]) -> "Vectors":
    """(n,) -> (n, D): a sum of directions, one for each word."""
    rows = np.zeros((len(texts), D), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in ["", *text.lower().split()]:
            row += _direction(word)
        row /= np.linalg.norm(row)
    return rows


@lru_cache(10_000)
def _direction(word: str) -> "Vectors":
    digest = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return np.random.default_rng(int.from_bytes(digest, "big")).standard_normal(D).astype(np.float32)


def write(root: Path, files: Mapping[str, str]) -> Path:
    """Makes the folder hold these files, and no others."""
    root.mkdir(parents=True, exist_ok=True)
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.relative_to(root).as_posix() not in files:
            path.unlink()
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    return root


def shown(found: Found) -> list[tuple[Any, ...]]:
    """All of a result but the ids, which hang on what came before."""
    return [(found.paragraphs, found.unknown), *(astuple(passage)[1:] for passage in found.passages)]


def content(library: Library) -> tuple[Any, ...]:
    """What a profile says, to be compared."""
    profile = library.profile(5)
    return profile.vectors.tolist(), profile.counts, profile.labels


def paths_holding(folder: Path, word: bytes) -> list[str]:
    """Files in which these bytes are."""
    return [path.name for path in folder.rglob("*") if path.is_file() and word in path.read_bytes()]
