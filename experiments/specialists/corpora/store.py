"""Corpora out of the packages in a folder, kept in one file beside them. Knows nothing of networks."""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from experiments.specialists.corpora.reader import documents
from experiments.specialists.corpora.sources import DOMAINS, NEWCOMER, Recipe, recipes_of
from experiments.specialists.corpora.split import Corpus, corpus
from experiments.specialists.corpora.supply import served

__all__ = ["assemble", "build"]

_METHOD: Final = 2  # counts up when the same packages and parameters come to make other corpora
_HASH_BYTES: Final = 32


def build(
    folder: Path,
    domains: Sequence[str] = (*DOMAINS, NEWCOMER),
    *,
    train_bytes: int = 5_000_000,
    held_bytes: int = 600_000,
) -> dict[str, Corpus]:
    """The domains' corpora, from the packages that `fetch` brought to `folder`; same packages, same corpora.

    Training texts hold at most `train_bytes`, validation and test `held_bytes` each. Made once, then loaded.
    Each domain is made for itself: asking for more domains, or a newcomer, changes none. Across domains
    near-duplicates stay, for there are next to none; `python -m experiments.specialists.corpora` counts them.

    Raises:
        DataError: A package is not here or cannot be read.
        ValueError: There is no such domain.
        OSError: The disk failed.
    """
    return assemble(folder, recipes_of(domains), train_bytes=train_bytes, held_bytes=held_bytes)


def assemble(
    folder: Path, recipes: Sequence[Recipe], *, train_bytes: int, held_bytes: int
) -> dict[str, Corpus]:
    """As `build`, of these recipes."""
    return {recipe.domain: _load_or_make(folder, recipe, train_bytes, held_bytes) for recipe in recipes}


def _load_or_make(folder: Path, recipe: Recipe, train_bytes: int, held_bytes: int) -> Corpus:
    files = [served(package, folder) for package in recipe.packages]
    made_of = (_METHOD, recipe, [package for package, _ in files], train_bytes, held_bytes)
    key = hashlib.sha256(repr(made_of).encode())
    path = folder / f"{recipe.domain}-{key.hexdigest()[:16]}.corpus"
    made = _load(path)
    if made is None:
        read, packages = documents(recipe, files), tuple(package for package, _ in files)
        made = corpus(recipe.domain, read, packages, train_bytes=train_bytes, held_bytes=held_bytes)
        _keep(path, made)
    return made


def _load(path: Path) -> Corpus | None:
    """What the file holds; None where there is none, or it is damaged."""
    try:
        raw = path.read_bytes()
        if hashlib.sha256(raw[_HASH_BYTES:]).digest() != raw[:_HASH_BYTES]:
            return None
        return msgspec.msgpack.decode(raw[_HASH_BYTES:], type=Corpus)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _keep(path: Path, made: Corpus) -> None:
    """Writes the file whole or not at all, also where two processes write it."""
    raw = msgspec.msgpack.encode(made)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(raw).digest() + raw)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
