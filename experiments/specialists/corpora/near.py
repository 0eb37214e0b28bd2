"""Near-duplicates: documents of which most was seen before. Knows nothing of domains or splits."""

import re
import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from experiments.specialists.corpora.reader import Document

__all__ = ["distinct", "shingles"]

_SHINGLE_WORDS: Final = 5
_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplying by it loses nothing
# A word is a run of letters and digits. Japanese writes no spaces: each kana or kanji is a word.
_WORD: Final = re.compile(r"[^\W\u3040-\u30ff\u3400-\u9fff]+|[\u3040-\u30ff\u3400-\u9fff]")


def shingles(text: bytes) -> NDArray[np.uint64]:
    """Hashes of all runs of five words, each once, ascending; of a shorter text, one hash of all its words.

    Broder (1997), On the resemblance and containment of documents. The same in all processes.
    """
    words = _WORD.findall(text.decode())
    codes = np.fromiter((zlib.crc32(word.encode()) for word in words), np.uint64, len(words))
    if len(codes) < _SHINGLE_WORDS:
        codes = np.pad(codes, (0, _SHINGLE_WORDS - len(codes)))
    runs = np.zeros(len(codes) - _SHINGLE_WORDS + 1, np.uint64)
    for i in range(_SHINGLE_WORDS):
        runs = (runs + codes[i : i + len(runs)]) * _FACTOR
        runs ^= runs >> np.uint64(29)
    return np.unique(runs)


def distinct(documents: Sequence[Document]) -> list[Document]:
    """Those that are kept, by name: of any two that are, no more than half of either's shingles are shared.

    Documents are looked at by falling number of shingles; one is dropped when more than half of its shingles
    were seen in those kept before, be it in one or scattered over many. Pure; n log n in all shingles.
    """
    if not documents:
        return []
    sets = [shingles(document.text) for document in documents]
    order = sorted(range(len(documents)), key=lambda i: (-len(sets[i]), documents[i].name))
    ids = np.unique(np.concatenate(sets), return_inverse=True)[1]
    own = np.split(ids, np.cumsum([len(hashes) for hashes in sets])[:-1])
    seen = np.zeros(len(ids), np.bool_)
    kept = []
    for i in order:
        if 2 * int(np.count_nonzero(seen[own[i]])) <= len(own[i]):
            seen[own[i]] = True
            kept.append(documents[i])
    return sorted(kept)
