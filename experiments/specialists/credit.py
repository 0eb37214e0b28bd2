"""Whom a byte is owed to: the package's attribution, of the mixture of all specialists, byte by byte.

Knows studies; trains nothing.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from experiments.specialists.network import PREFIX_BYTES
from experiments.specialists.scoring import Excerpt, Floats, distributions
from experiments.specialists.study import Study
from experiments.specialists.training import load
from manyminds.attribution import attribute
from manyminds.combine.mixture import along, pooled
from manyminds.types import Answer, Attribution, Call, Posterior, Route

__all__ = ["credited", "owed"]

_TEXTS: Final = 6  # of each domain
_PLACES: Final = 8  # in each
_LEAST: Final = 1e-3  # a byte below that is one of the others: `attribution` tells no smaller ones apart


def credited(study: Study, kind: str) -> dict[str, dict[str, float]]:
    """By domain of the text, the mean share of the next byte that is owed to each expert of a network."""
    experts = study.experts(kind)
    size = study.scale.excerpt_bytes
    places = np.linspace(PREFIX_BYTES, size - 1, _PLACES).astype(int).tolist()
    found = {}
    for domain in sorted(study.domains):
        texts = [one for one in study.held.test if one.domain == domain][:_TEXTS]
        shares = _shares(study, experts, texts, places)
        found[domain] = {name.partition(".")[2]: share for name, share in shares.items()}
    return found


def owed(experts: Sequence[str], weights: Floats, logs: Floats) -> tuple[Attribution, ...]:
    """What the next byte owes to each expert.

    Args:
        experts: (k,) names, each its own source.
        weights: (k,) of the mixture.
        logs: (k, 256) log-probabilities of each expert.
    """
    whole = np.exp(pooled(weights, logs))
    named = np.flatnonzero(whole >= _LEAST)

    def count(kept: Sequence[int]) -> tuple[list[str | None], Posterior]:
        some = list(kept)
        if not some or not weights[some].sum():
            return [None] * len(some), Posterior()
        shares = np.exp(pooled(weights[some] / weights[some].sum(), logs[some]))
        probabilities = tuple(shares[named].tolist())
        other = max(0.0, 1.0 - float(shares[named].sum()))
        return [None] * len(some), Posterior(tuple(map(str, named.tolist())), probabilities, other)

    answers = [Answer(name, name, "ok") for name in experts]
    route = Route("max", "vote", tuple(Call(name, name, 0.5) for name in experts))
    return attribute(route, answers, count(range(len(experts))), count)


def _shares(
    study: Study, experts: Sequence[str], texts: Sequence[Excerpt], places: Sequence[int]
) -> dict[str, float]:
    pieces = [one.text for one in texts]
    voices = [study.voice(name) for name in experts]
    logs = np.stack(
        [distributions(load(of, study.folder).model, pieces, places, source) for of, source in voices]
    )
    seen = np.stack([study.seen(name, texts) for name in experts], axis=-1)
    weights = along(seen, np.ones(len(experts))).weights
    total = np.zeros(len(experts))
    for i in range(len(texts)):
        for j, place in enumerate(places):
            total += [one.share for one in owed(experts, weights[i, place], logs[:, i, j])]
    return dict(zip(experts, (total / total.sum()).tolist(), strict=True))
