"""The private vote: counts, noise, and the largest of both. What is released is noised; nothing else leaves.

Pure but for the noise. Knows no text and no source: what a source voted for is a place among the candidates.
"""

from collections.abc import Sequence
from typing import Final

from manyminds.privacy.noise import Below, discrete_gaussian

__all__ = ["GRAIN", "counted", "noised", "variance_of"]

GRAIN: Final = 1 << 16
"""The weight of the heaviest source, as a whole number."""


def variance_of(rho: float) -> int:
    """σ² by which a source of weight `GRAIN` pays at most ρ for an answer.

    One that is replaced moves its weight γ from one count to another: Δ² = 2γ², and Δ²/2σ² = γ²/σ².
    """
    exact = GRAIN * GRAIN / rho
    return int(exact * (1 + 2**-40)) + 1


def counted(votes: Sequence[int | None], weights: Sequence[int], candidates: int) -> list[int]:
    """The weight of each candidate. Who did not answer, or not in a way that can be read, adds nothing.

    Args:
        votes: of each source that was polled, its candidate's place; None abstains.
        weights: of each of them, from 0 to `GRAIN`, fixed before anybody was asked.
        candidates: how many there are.
    """
    counts = [0] * candidates
    for vote, weight in zip(votes, weights, strict=True):
        if vote is not None:
            counts[vote] += weight
    return counts


def noised(counts: Sequence[int], variance: int, below: Below) -> int:
    """The place of the largest count with its noise; of equal ones the first. All counts get noise."""
    loud = [count + discrete_gaussian(variance, below) for count in counts]
    return loud.index(max(loud))
