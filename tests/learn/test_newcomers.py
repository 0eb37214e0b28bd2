"""What the votes of newcomers weigh: by a loss of which the slope is right, and by priors without votes."""

import numpy as np
import pytest
from numpy.typing import NDArray

from manyminds.learn import newcomers
from manyminds.learn.ballots import judged
from manyminds.learn.newcomers import Fixed, Terms
from tests.learn.worlds import Mind, world

OLD = (Mind("old-a", 0.5), Mind("old-b", 0.5), Mind("old-c", 0.5))
EVEN = np.zeros(1)


def fitted(new: Mind, n: int = 200, odds: float = 1.5) -> Terms:
    """The terms of one newcomer beside three that are right half of the time."""
    known = world((*OLD, new), n, seed=3)
    j = known.experts.index(new.name)
    old = np.arange(len(known.experts)) != j
    fixed = Fixed(np.full((n, 4), 0.8) * old, np.full(4, 0.05) * old, np.zeros(n))
    right = judged(known.votes, known.correct, known.correct.mean(axis=0), 4)
    return newcomers.fit(known.votes, right, fixed, np.array([j]), np.array([odds]), EVEN)


def test_who_is_right_more_often_weighs_more() -> None:
    weights = [float(fitted(Mind("new", skill)).weights[0]) for skill in (0.3, 0.6, 0.9)]
    assert weights == sorted(weights)
    assert weights[0] < 0.6 < 2.0 < weights[2]


def test_who_knows_better_than_all_others_together_silences_them() -> None:
    strong, weak = (fitted(Mind("new", skill)) for skill in (0.98, 0.4))
    assert strong.dilution[0] > 4 * weak.dilution[0]


def test_without_a_vote_nothing_is_learnt() -> None:
    silent = fitted(Mind("new", 0.5, silent=1.0))
    expected = newcomers.prior(np.array([1.5]), EVEN)
    assert silent.weights == pytest.approx(expected.weights, abs=1e-3)
    assert silent.dilution == pytest.approx(expected.dilution, rel=1e-3)


def test_the_same_votes_give_the_same_bits() -> None:
    one, other = (fitted(Mind("new", 0.7)) for _ in range(2))
    assert one.weights.tobytes() == other.weights.tobytes()
    assert (one.dilution.tobytes(), one.shift) == (other.dilution.tobytes(), other.shift)


def test_the_slope_is_that_of_the_loss() -> None:
    known = world((*OLD, Mind("x", 0.8), Mind("y", 0.4, silent=0.3)), 60, seed=5)
    new = np.array([3, 4])
    fixed = Fixed(np.full((60, 5), 0.5), np.full(5, 0.1), np.full(60, 0.2))
    right = judged(known.votes, known.correct, known.correct.mean(axis=0), 4)
    problem = newcomers._Problem(known.votes, right, fixed, new, np.array([2.0, 0.5]), np.array([0.5, 0.0]))
    at = problem.mean + 0.1 * np.random.default_rng(0).normal(size=len(problem.mean))
    step = 1e-6
    for i in range(len(at)):
        change: NDArray[np.float64] = np.eye(len(at))[i] * step
        slope = (problem(at + change)[0] - problem(at - change)[0]) / (2 * step)
        assert problem(at)[1][i] == pytest.approx(slope, rel=1e-4, abs=1e-4), i
