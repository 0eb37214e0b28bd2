"""Documents to train, validation and test, by a hash of their names. Knows nothing of packages' files."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from experiments.specialists.corpora.near import distinct
from experiments.specialists.corpora.reader import Document
from experiments.specialists.corpora.sources import Package

__all__ = ["Corpus", "corpus"]

_DOCUMENT_BYTES: Final = 32_768
_TRAIN, _VALIDATION = 8, 9  # of ten parts, train has the first eight, validation the ninth, test the tenth


@dataclass(frozen=True, slots=True)
class Corpus:
    """One domain's documents; `dropped` counts its near-duplicates, of which nothing is kept."""

    domain: str
    train: tuple[Document, ...]
    validation: tuple[Document, ...]
    test: tuple[Document, ...]
    packages: tuple[Package, ...]
    dropped: int
    dropped_bytes: int


def corpus(
    domain: str,
    documents: Sequence[Document],
    packages: tuple[Package, ...],
    *,
    train_bytes: int,
    held_bytes: int,
) -> Corpus:
    """A domain's documents cut, without near-duplicates, split by file. Pure; their order does not matter.

    Within a split, documents come in the order of a hash of their names until the next would pass its limit.
    """
    cut = [Document(document.name, _cut(document.text)) for document in documents]
    kept = distinct(cut)
    parts: tuple[list[Document], ...] = ([], [], [])
    for document in sorted(kept, key=lambda document: _hash(domain, document.name)):
        tenth = int.from_bytes(_hash(domain, document.name)[-8:]) % 10
        parts[0 if tenth < _TRAIN else 1 if tenth < _VALIDATION else 2].append(document)
    train, validation, test = (
        _first(part, limit) for part, limit in zip(parts, (train_bytes, held_bytes, held_bytes), strict=True)
    )
    lost = sum(len(document.text) for document in cut) - sum(len(document.text) for document in kept)
    return Corpus(domain, train, validation, test, packages, len(cut) - len(kept), lost)


def _cut(text: bytes) -> bytes:
    """The first piece: up to the last line end within the limit; where lines are long, the last character."""
    if len(text) <= _DOCUMENT_BYTES:
        return text
    line = text.rfind(b"\n", 0, _DOCUMENT_BYTES) + 1
    return (
        text[:line] if 2 * line > _DOCUMENT_BYTES else text[:_DOCUMENT_BYTES].decode(errors="ignore").encode()
    )


def _hash(domain: str, name: str) -> bytes:
    return hashlib.sha256(f"{domain}\0{name}".encode()).digest()


def _first(documents: Sequence[Document], limit_bytes: int) -> tuple[Document, ...]:
    total = 0
    for i, document in enumerate(documents):
        total += len(document.text)
        if total > limit_bytes:
            return tuple(documents[:i])
    return tuple(documents)
