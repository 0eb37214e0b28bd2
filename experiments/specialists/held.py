"""The texts on which everything is measured: held-out, mixed, and those that were learnt from.

Knows no model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from experiments.specialists.corpora import Corpus, Document, mixed
from experiments.specialists.plan import Scale
from experiments.specialists.scoring import Excerpt, excerpts

__all__ = ["Held", "hold", "members", "seen"]


_TUNED = 4  # a validation text for so many of the test


@dataclass(frozen=True, slots=True)
class Held:
    """Texts of one length each.

    Attributes:
        test: of each domain, one of a document.
        mixed: in which the domain switches every 128 to 512 bytes; their domain is "mixed".
        tuning: of validation documents, and such mixed: by these anything is chosen.
        tuning_mixed: likewise.
        newcomer: test texts of the domain that comes later.
    """

    test: tuple[Excerpt, ...]
    mixed: tuple[Excerpt, ...]
    tuning: tuple[Excerpt, ...]
    tuning_mixed: tuple[Excerpt, ...]
    newcomer: tuple[Excerpt, ...]


def hold(corpora: Mapping[str, Corpus], newcomer: str, scale: Scale) -> Held:
    """The same for every seed of training."""
    known = {domain: corpus for domain, corpus in corpora.items() if domain != newcomer}
    before = {domain: replace(corpus, test=corpus.validation) for domain, corpus in known.items()}
    size, few = scale.excerpt_bytes, max(4, scale.documents // _TUNED)
    return Held(
        test=excerpts({d: c.test for d, c in known.items()}, scale.documents, size, 1),
        mixed=_switching(known, scale.documents, 1, size),
        tuning=excerpts({d: c.validation for d, c in known.items()}, few, size, 2),
        tuning_mixed=_switching(before, few, 2, size),
        newcomer=excerpts({newcomer: corpora[newcomer].test}, scale.documents, size, 1),
    )


def seen(texts: Sequence[bytes], size_bytes: int, seed: int) -> list[bytes]:
    """Documents of a group that are whole within what a model of this seed has read of it."""
    order = np.random.default_rng(seed).permutation(len(texts)).tolist()
    ends = np.cumsum([len(texts[i]) + 1 for i in order]).tolist()
    return [texts[i] for i, end in zip(order, ends, strict=True) if end <= size_bytes]


def members(texts: Mapping[str, Sequence[bytes]], seed: int, scale: Scale) -> tuple[Excerpt, ...]:
    """Of documents, by domain, that were learnt from: pieces like those of `hold`."""
    documents = {d: [Document(str(i), text) for i, text in enumerate(of)] for d, of in texts.items()}
    return excerpts(documents, scale.documents, scale.excerpt_bytes, seed)


def _switching(corpora: Mapping[str, Corpus], count: int, seed: int, size: int) -> tuple[Excerpt, ...]:
    made = mixed(corpora, seed, count, size)
    return tuple(Excerpt("mixed", one.name, one.text[:size]) for one in made)
