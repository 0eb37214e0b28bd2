"""What the votes of newcomers weigh beside those of experts whose own weights stay as they are.

    W_j = c . (1, L_j, (L_j - top + 2)+, (L_j - top + 1)+) + d_j,   ln rho_j = r + 2 lead_j + r_j

L_j are log-odds of being right, `top` the highest of them, lead_j by how much j is surely above everybody
else, rho_j how much its vote dilutes those beside it (see `ballots`). A few dozen questions fix what all
newcomers have in common and where one of them stands out; the rest is held by normal priors.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]

__all__ = ["Fixed", "Terms", "fit", "prior"]

# Means and deviations of the priors, from fits of whole panels of two recorded sets (calibration and
# validation), from their weakest third up to all of them.
_CURVE = (-0.6, 0.8, 0.3, 0.3)
_CURVE_SD = (1.0, 1.0, 2.0, 2.0)
_OWN_SD = 0.2
_DILUTION, _DILUTION_SD = -2.5, 1.0  # of what the logarithms of all dilutions have in common
_LEAD = 2.0
_OWN_DILUTION_SD = 2.0
_SHIFT_SD = 0.5
_MOST_DILUTION = 2.5  # of a logarithm
_COPIES = 2  # of the questions with random panels, together as heavy as the full ones
_ROUNDS = 150


@dataclass(frozen=True, slots=True, eq=False)
class Fixed:
    """What is known of n questions and stays: `weights` (n, m) and `dilution` (m,) of the votes of all but
    the newcomers, `other` (n,) the score of none of the answers.
    """

    weights: "Floats"
    dilution: "Floats"
    other: "Floats"


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """Of k newcomers: `weights` (k,), `dilution` (k,), and what is added to the score of "none of these"."""

    weights: "Floats"
    dilution: "Floats"
    shift: float


def fit(
    votes: "NDArray[np.int32]",
    right: "Bools",
    fixed: Fixed,
    new: "NDArray[np.intp]",
    odds: "Floats",
    lead: "Floats",
) -> Terms:
    """The likeliest terms of the newcomers, by their votes and those of the others. Deterministic.

    Args:
        votes: (n, m), position of the answer among c candidates; negative where there is none.
        right: (n, c + 1) which candidates are right, the last where none of those named is.
        fixed: what does not change.
        new: (k,) positions of the newcomers.
        odds: (k,) their log-odds of being right, among as many classes as errors fall on.
        lead: (k,) by how many of those each is surely above all others, within [0, 1].
    """
    from scipy.optimize import minimize

    problem = _Problem(votes, right, fixed, new, odds, lead)

    def scaled(z: "Floats") -> "tuple[float, Floats]":
        value, slope = problem(problem.mean + z * problem.sd)
        return value, slope * problem.sd

    start = np.zeros(len(problem.mean))
    found = minimize(scaled, start, jac=True, method="L-BFGS-B", options={"maxiter": _ROUNDS})
    return problem.terms(problem.mean + found.x * problem.sd)


def prior(odds: "Floats", lead: "Floats") -> Terms:
    """What is expected of newcomers before anything is known of their votes: (k,) each, as in `fit`."""
    return Terms(_curve(odds) @ np.array(_CURVE), np.exp(_DILUTION + _LEAD * lead), 0.0)


class _Problem:
    """Penalised loss and its gradient, over one flat vector: curve, own, dilution, own dilution, shift.

    Votes, and the candidates that anybody named, lie one behind the other, question by question: of some
    dozens of candidates most questions have a few.
    """

    def __init__(
        self,
        votes: "NDArray[np.int32]",
        right: "Bools",
        fixed: Fixed,
        new: "NDArray[np.intp]",
        odds: "Floats",
        lead: "Floats",
    ) -> None:
        k = len(new)
        self._curve, self._k = _curve(odds), k
        self.mean = np.concatenate([_CURVE, np.zeros(k), [_DILUTION], _LEAD * lead, [0.0]])
        self.sd = np.concatenate(
            [_CURVE_SD, np.full(k, _OWN_SD), [_DILUTION_SD], np.full(k, _OWN_DILUTION_SD), [_SHIFT_SD]]
        )
        n = len(votes)
        every = np.concatenate([votes, *_random(votes)])
        self._share = np.repeat([1.0, *[1.0 / _COPIES] * _COPIES], n)
        self._rows, experts = np.nonzero(every >= 0)
        copied = self._rows % n
        self._weights, self._dilution = fixed.weights[copied, experts], fixed.dilution[experts]
        self._other = np.tile(fixed.other, 1 + _COPIES)
        place = np.full(votes.shape[1], -1)
        place[new] = np.arange(k)
        self._late = np.flatnonzero(place[experts] >= 0)  # votes of newcomers
        self._whose = place[experts[self._late]]
        self._lay_out(every[self._rows, experts], np.tile(right, (1 + _COPIES, 1)))

    def _lay_out(self, named: "NDArray[np.int32]", right: "Bools") -> None:
        """Where the candidates lie: those of a question by number, at its end none of them."""
        present = np.zeros(right.shape, np.bool_)
        present[self._rows, named] = True
        present[:, -1] = True
        place = present.cumsum().reshape(present.shape) - 1
        self._voted, self._none = place[self._rows, named], place[:, -1]
        self._first = place[:, -1] - present.sum(axis=1) + 1
        self._question = np.nonzero(present)[0]
        good = right & present
        good[:, -1] = ~good[:, :-1].any(axis=1)
        self._good = good[present]

    def terms(self, flat: "Floats") -> Terms:
        k = self._k
        logarithms = np.minimum(flat[4 + k] + flat[5 + k : 5 + 2 * k], _MOST_DILUTION)
        return Terms(self._curve @ flat[:4] + flat[4 : 4 + k], np.exp(logarithms), float(flat[-1]))

    def __call__(self, flat: "Floats") -> "tuple[float, Floats]":
        terms = self.terms(flat)
        value, by_weight, by_dilution, by_shift = self._loss(terms)
        own = by_dilution * terms.dilution
        slope = np.concatenate([self._curve.T @ by_weight, by_weight, [own.sum()], own, [by_shift]])
        away = (flat - self.mean) / self.sd
        return value + 0.5 * float(away @ away), slope + away / self.sd

    def _loss(self, terms: Terms) -> "tuple[float, Floats, Floats, float]":
        """Without the penalty, and its slopes by the newcomers' weights and dilutions, and by the shift."""
        rows, late, whose = self._rows, self._late, self._whose
        heavy, dilution = self._weights.copy(), self._dilution.copy()
        heavy[late], dilution[late] = terms.weights[whose], terms.dilution[whose]
        beside = np.bincount(rows, dilution, len(self._share))[rows] - dilution
        shrink = 1.0 / (1.0 + beside)
        heavy *= shrink
        table = np.bincount(self._voted, heavy, len(self._question))
        table[self._none] = self._other + terms.shift
        table -= np.maximum.reduceat(table, self._first)[self._question]
        chance = np.exp(table)
        chance /= np.add.reduceat(chance, self._first)[self._question]
        likely = chance * self._good
        likelihood = np.add.reduceat(likely, self._first) + 1e-300
        pull = self._share[self._question] * (chance - likely / likelihood[self._question])
        pulled = pull[self._voted] * shrink
        by_weight = np.bincount(whose, pulled[late], self._k).astype(np.float64)
        pulled *= heavy
        others = np.bincount(rows, pulled, len(self._share))[rows[late]] - pulled[late]
        by_dilution = -np.bincount(whose, others, self._k).astype(np.float64)
        return -float(self._share @ np.log(likelihood)), by_weight, by_dilution, float(pull[self._none].sum())


def _random(votes: "NDArray[np.int32]") -> "list[NDArray[np.int32]]":
    """The same votes, of random panels: sizes even on a logarithmic scale. Always the same ones."""
    n, m = votes.shape
    rng = np.random.default_rng(0)
    found = []
    for _ in range(_COPIES):
        size = np.exp(rng.uniform(0.0, np.log(m), (n, 1)))
        found.append(np.where(rng.random((n, m)) < size / m, votes, -1))
    return found


def _curve(odds: "Floats") -> "Floats":
    """(k, 4): what the weights of all newcomers have in common, by their log-odds."""
    top = odds.max()
    bends = [np.maximum(odds - (top - bend), 0.0) for bend in (2.0, 1.0)]
    return np.stack([np.ones_like(odds), odds, *bends], axis=1)
