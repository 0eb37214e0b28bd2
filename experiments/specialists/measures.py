"""Means over domains with their intervals, and how well a score tells two kinds of text apart. Pure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.specialists.scoring import Floats

__all__ = ["auc", "auc_interval", "by_domain", "interval"]

_RESAMPLES = 2000


def by_domain(values: Floats, domains: Sequence[str]) -> dict[str, float]:
    """The mean of (n,) figures of texts in each domain."""
    of = np.array(domains)
    return {domain: float(values[of == domain].mean()) for domain in sorted(set(domains))}


def interval(values: Floats, domains: Sequence[str], seed: int = 0) -> dict[str, float]:
    """The mean over domains of their mean, and the ends of its 95% interval.

    The percentile interval of a bootstrap over texts within each domain (Efron & Tibshirani 1993, chapter
    13). Of differences it is paired. Same seed, same interval.
    """
    means = by_domain(values, domains)
    drawn = _drawn(values, domains, seed)
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    return {"mean": float(np.mean(list(means.values()))), "low": low, "high": high}


def auc(inside: Floats, outside: Floats) -> float:
    """How often a score of (n,) inside is above one of (m,) outside, ties half: the area under the curve."""
    order = np.sort(outside)
    below, upto = np.searchsorted(order, inside, "left"), np.searchsorted(order, inside, "right")
    return float((below + upto).mean() / 2 / len(outside))


def auc_interval(groups: Sequence[tuple[Floats, Floats]], seed: int = 0) -> dict[str, Any]:
    """The mean over groups (inside, outside) of their AUC, with a 95% bootstrap interval over texts."""
    draw = np.random.default_rng(seed)

    def once() -> float:
        return float(np.mean([auc(draw.choice(a, len(a)), draw.choice(b, len(b))) for a, b in groups]))

    low, high = np.quantile([once() for _ in range(_RESAMPLES)], [0.025, 0.975]).tolist()
    sizes = [sum(len(group[side]) for group in groups) for side in (0, 1)]
    mean = float(np.mean([auc(*group) for group in groups]))
    return {"mean": mean, "low": low, "high": high, "inside": sizes[0], "outside": sizes[1]}


def _drawn(values: Floats, domains: Sequence[str], seed: int) -> NDArray[np.float64]:
    draw, of = np.random.default_rng(seed), np.array(domains)
    total = np.zeros(_RESAMPLES)
    names = sorted(set(domains))
    for domain in names:
        own = values[of == domain]
        total += draw.multinomial(len(own), np.full(len(own), 1 / len(own)), _RESAMPLES) @ own / len(own)
    return total / len(names)
