"""How sure a measured difference is, and how honest probabilities are.

Arrays in, plain numbers out: knows no model, no question and no file.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manyminds.errors import DataError

__all__ = ["Gain", "accuracy_gain", "calibration_error", "mean_interval"]


@dataclass(frozen=True, slots=True)
class Gain:
    """Accuracy gained, as a share in [-1, 1], with the ends of its 95% interval."""

    gain: float
    low: float
    high: float


def accuracy_gain(
    ours: NDArray[np.bool_], theirs: NDArray[np.bool_], seed: int, resamples: int = 10_000
) -> Gain:
    """Accuracy of `ours` less that of `theirs` on the same questions, (n,) each: a paired bootstrap.

    The bootstrap draws n questions with replacement and takes the mean of their differences. Each question
    is lost (-1), tied (0) or won (+1), and the mean does not ask which question it was: how often the n
    draws hit each kind is Multinomial(n, shares of lost, tied, won). Drawing these three counts is
    therefore the same distribution, in O(n + resamples). The interval is the percentile interval (Efron
    and Tibshirani 1993, chapter 13). Same seed, same interval.

    Raises: DataError without questions, or when the two do not have equally many.
    """
    _check(ours, theirs)
    n, won, lost = len(ours), int(np.sum(ours & ~theirs)), int(np.sum(theirs & ~ours))
    drawn = np.random.default_rng(seed).multinomial(n, [lost / n, won / n, (n - won - lost) / n], resamples)
    low, high = np.quantile((drawn[:, 1] - drawn[:, 0]) / n, [0.025, 0.975])
    return Gain((won - lost) / n, float(low), float(high))


def calibration_error(
    probabilities: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = 15
) -> float:
    """Expected calibration error, in [0, 1]: the mean gap of stated probability and accuracy over bins.

    ECE is Guo et al. 2017 ("On Calibration of Modern Neural Networks", equation 3); bins of equal mass
    instead of equal width are Nguyen and O'Connor 2015. `probabilities`: (n,) in [0, 1]. Questions of equal
    probability share their accuracy, so that a cut between two of them does not depend on their order.

    Raises: DataError without questions, when the two do not have equally many, or for what is no probability.
    """
    _check(probabilities, correct)
    if not np.all((probabilities >= 0) & (probabilities <= 1)):  # not of NaN either
        raise DataError("a probability is not in [0, 1]: calibrate before you measure calibration.")
    stated, group, sizes = np.unique(probabilities, return_inverse=True, return_counts=True)
    right = np.bincount(group, weights=correct) / sizes
    gaps = np.repeat(stated - right, sizes)  # one a question, in order of probability
    return float(sum(abs(part.sum()) for part in np.array_split(gaps, bins)) / len(gaps))


def _check(one: NDArray[np.generic], other: NDArray[np.generic]) -> None:
    if len(one) != len(other) or not len(one):
        raise DataError(
            f"cannot compare {len(one)} with {len(other)} questions: give both the same ones, at least one."
        )


def mean_interval(
    values: NDArray[np.float64], seed: int, resamples: int = 2000
) -> tuple[float, float, float]:
    """The mean of (n,) figures, one a question, and the ends of its 95% interval.

    The percentile interval of a bootstrap over questions (Efron and Tibshirani 1993, chapter 13): equal
    figures are drawn together, as in `accuracy_gain`. Same seed, same interval. O(resamples * distinct).

    Raises: DataError without questions.
    """
    _check(values, values)
    distinct, counts = np.unique(values, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(values), counts / len(values), resamples)
    low, high = np.quantile(drawn @ distinct / len(values), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)
