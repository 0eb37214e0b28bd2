"""Discrete Gaussian noise, drawn exactly: integers from integers, and no floating point in between.

Where noise is drawn as a double, its last bits tell what it was added to (Mironov 2012; Jin, McMurtry,
Rubinstein & Ohrimenko 2022 for Gaussians). Here votes are whole numbers, the noise is a whole number, and it
has exactly the distribution that the proof is about (Canonne, Kamath & Steinke 2020, algorithms 1 to 3). How
long it takes to draw depends on what is drawn, by microseconds.
"""

from collections.abc import Callable
from math import isqrt
from typing import TypeAlias

__all__ = ["Below", "discrete_gaussian"]

Below: TypeAlias = Callable[[int], int]
"""A whole number below that one, each equally likely: `secrets.randbelow` where it matters."""


def discrete_gaussian(variance: int, below: Below) -> int:
    """Draws x with probability ∝ exp(-x²/2σ²), for σ² = `variance`, a whole number above 0.

    Added to each of several counts that change by Δ in all (L2) between neighbours, it is Δ²/2σ²-zCDP
    (theorem 4 there). Takes some ten draws on average, whatever σ is.
    """
    t = isqrt(variance) + 1
    while True:
        x = _discrete_laplace(t, below)
        # exp(-(|x| - variance/t)² / (2 variance)), over a common denominator
        if _happens((abs(x) * t - variance) ** 2, 2 * variance * t * t, below):
            return x


def _discrete_laplace(t: int, below: Below) -> int:
    """Draws x with probability ∝ exp(-|x|/t)."""
    while True:
        rest = below(t)
        if not _happens(rest, t, below):
            continue
        whole = 0
        while _happens(1, 1, below):
            whole += 1
        negative, size = below(2), rest + t * whole
        if negative and not size:  # zero has one sign only
            continue
        return -size if negative else size


def _happens(above: int, under: int, below: Below) -> bool:
    """With probability exp(-above/under), exactly."""
    while above > under:
        if not _seldom(1, 1, below):
            return False
        above -= under
    return _seldom(above, under, below)


def _seldom(above: int, under: int, below: Below) -> bool:
    """The same of a fraction of at most 1: by how long coins fall, of which the k-th does with it/k."""
    k = 1
    while below(under * k) < above:
        k += 1
    return k % 2 == 1
