"""The texts on which everything is measured: held-out, mixed, and those that were learnt from.

Knows no model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from experiments.specialists.corpora import Corpus, Document, mixed
from experiments.specialists.plan import Scale
from experiments.specialists.scoring import Excerpt, excerpts

__all__ = ["Held", "hold", "members"]


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


def members(
    groups: Mapping[str, tuple[bytes, ...]], seen_bytes: int, seed: int, scale: Scale
) -> tuple[Excerpt, ...]:
    """Of documents that every model of one seed has learnt from: of each domain the first in their order.

    `seen_bytes` is what the model that saw least of each domain has seen of it.
    """
    found = {}
    for domain, texts in groups.items():
        order = np.random.default_rng(seed).permutation(len(texts)).tolist()
        ends = np.cumsum([len(texts[i]) + 1 for i in order])
        whole = [i for i, end in zip(order, ends.tolist(), strict=True) if end <= seen_bytes]
        found[domain] = [Document(str(i), texts[i]) for i in whole]
    return excerpts(found, scale.documents, scale.excerpt_bytes, seed)


def _switching(corpora: Mapping[str, Corpus], count: int, seed: int, size: int) -> tuple[Excerpt, ...]:
    made = mixed(corpora, seed, count, size)
    return tuple(Excerpt("mixed", one.name, one.text[:size]) for one in made)
