"""Brings the packages, builds the corpora and prints their sizes: give it a folder."""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.specialists.corpora.near import shingles
from experiments.specialists.corpora.reader import Document
from experiments.specialists.corpora.split import Corpus
from experiments.specialists.corpora.store import build
from experiments.specialists.corpora.supply import fetch

__all__: list[str] = []

_LEAST_BYTES = 5_000_000


def _main(folder: Path) -> None:
    fetch(folder, tell=print)
    whole = build(folder, train_bytes=sys.maxsize, held_bytes=sys.maxsize)
    print("domain      whole B  (documents)   dropped B  (documents)     train B   validation B      test B")
    for domain, corpus in build(folder).items():
        every = _every(whole[domain])
        short = "" if _size(every) >= _LEAST_BYTES else f"  less than {_LEAST_BYTES:,} bytes"
        print(
            f"{domain:9}{_size(every):10,}  {len(every):11,}{corpus.dropped_bytes:12,}  {corpus.dropped:11,}"
            f"{_size(corpus.train):12,}{_size(corpus.validation):15,}{_size(corpus.test):12,}{short}"
        )
        for package in corpus.packages:
            print(
                f"          {package.name} {package.served_version} {package.served_sha256} {package.licence}"
            )
    _print_shared(whole)


def _print_shared(corpora: Mapping[str, Corpus]) -> None:
    """How much of a domain is, by more than half, in another domain's documents taken together."""
    sets = {d: [(x, shingles(x.text)) for x in _every(corpus)] for d, corpus in corpora.items()}
    for domain in corpora:
        known = np.unique(np.concatenate([hashes for _, hashes in sets[domain]]))
        for other in sorted(corpora.keys() - {domain}):
            shared = [
                document
                for document, hashes in sets[other]
                if np.mean(known[np.minimum(np.searchsorted(known, hashes), len(known) - 1)] == hashes) > 0.5
            ]
            if shared:
                print(f"of {other} mostly in {domain}: {len(shared)} documents, {_size(shared):,} bytes")


def _every(corpus: Corpus) -> list[Document]:
    return [*corpus.train, *corpus.validation, *corpus.test]


def _size(documents: list[Document] | tuple[Document, ...]) -> int:
    return sum(len(document.text) for document in documents)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    _main(Path(sys.argv[1]))
