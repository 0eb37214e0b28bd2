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
    from typing import Any

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
_NOWHERE = -1e9


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
    found = minimize(problem, problem.mean, jac=True, method="L-BFGS-B", options={"maxiter": _ROUNDS})
    return problem.terms(found.x)


def prior(odds: "Floats", lead: "Floats") -> Terms:
    """What is expected of newcomers before anything is known of their votes: (k,) each, as in `fit`."""
    return Terms(_curve(odds) @ np.array(_CURVE), np.exp(_DILUTION + _LEAD * lead), 0.0)


class _Problem:
    """Penalised loss and its gradient, over one flat vector: curve, own, dilution, own dilution, shift."""

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
        self._fixed, self._new, self._k = fixed, new, k
        self._curve = _curve(odds)
        self.mean = np.concatenate([_CURVE, np.zeros(k), [_DILUTION], _LEAD * lead, [0.0]])
        self._sd = np.concatenate(
            [_CURVE_SD, np.full(k, _OWN_SD), [_DILUTION_SD], np.full(k, _OWN_DILUTION_SD), [_SHIFT_SD]]
        )
        self._n, m = votes.shape
        self._width = right.shape[1] - 1
        rng = np.random.default_rng(0)
        copies = [(votes, 1.0)]
        for _ in range(_COPIES):
            size = np.exp(rng.uniform(0.0, np.log(m), (self._n, 1)))
            copies.append((np.where(rng.random((self._n, m)) < size / m, votes, -1), 1.0 / _COPIES))
        self._copies = [self._copy(some, right, share) for some, share in copies]

    def terms(self, flat: "Floats") -> Terms:
        k = self._k
        logarithms = np.minimum(flat[4 + k] + flat[5 + k : 5 + 2 * k], _MOST_DILUTION)
        return Terms(self._curve @ flat[:4] + flat[4 : 4 + k], np.exp(logarithms), float(flat[-1]))

    def __call__(self, flat: "Floats") -> "tuple[float, Floats]":
        terms, fixed, new = self.terms(flat), self._fixed, self._new
        weights, dilution = fixed.weights.copy(), fixed.dilution.copy()
        weights[:, new], dilution[new] = terms.weights, terms.dilution
        other = fixed.other + terms.shift
        value, by_shift = 0.0, 0.0
        by_weight, by_dilution = np.zeros(len(dilution)), np.zeros(len(dilution))
        for copy in self._copies:
            loss, pulled = self._add(copy, weights, other, dilution, by_weight, by_dilution)
            value, by_shift = value + loss, by_shift + pulled
        own = by_dilution[new] * terms.dilution
        slope = np.concatenate([self._curve.T @ by_weight[new], by_weight[new], [own.sum()], own, [by_shift]])
        away = (flat - self.mean) / self._sd
        return value + 0.5 * float(away @ away), slope + away / self._sd

    def _copy(self, votes: "NDArray[np.int32]", right: "Bools", share: float) -> "tuple[Any, ...]":
        rows, experts = np.nonzero(votes >= 0)
        named = votes[rows, experts]
        present = np.zeros(right.shape, np.bool_)
        present[rows, named] = True
        good = right & present
        good[:, -1] = ~good[:, :-1].any(axis=1)
        present[:, -1] = True
        return share, rows, experts, rows * (self._width + 1) + named, ~present, good

    def _add(
        self,
        copy: "tuple[Any, ...]",
        weights: "Floats",
        other: "Floats",
        dilution: "Floats",
        by_weight: "Floats",
        by_dilution: "Floats",
    ) -> tuple[float, float]:
        """The loss of one copy of the questions, and its slope by `other`; adds the other slopes in place."""
        share, rows, experts, places, absent, good = copy
        n, width, m = self._n, self._width, len(dilution)
        beside = np.bincount(rows, dilution[experts], n)[rows] - dilution[experts]
        shrink = 1.0 / (1.0 + beside)
        heavy = weights[rows, experts] * shrink
        table = np.bincount(places, heavy, n * (width + 1)).reshape(n, width + 1)
        table[:, width] = other
        table[absent] = _NOWHERE
        table -= table.max(axis=1, keepdims=True)
        chance = np.exp(table)
        chance /= chance.sum(axis=1, keepdims=True)
        likelihood = (chance * good).sum(axis=1) + 1e-300
        pull = share * (chance - chance * good / likelihood[:, None])
        pulled = pull.ravel()[places]
        by_weight += np.bincount(experts, pulled * shrink, m)
        pulled = pulled * heavy * shrink
        by_dilution -= np.bincount(experts, np.bincount(rows, pulled, n)[rows] - pulled, m)
        return -share * float(np.log(likelihood).sum()), float(pull[:, width].sum())


def _curve(odds: "Floats") -> "Floats":
    """(k, 4): what the weights of all newcomers have in common, by their log-odds."""
    top = odds.max()
    bends = [np.maximum(odds - (top - bend), 0.0) for bend in (2.0, 1.0)]
    return np.stack([np.ones_like(odds), odds, *bends], axis=1)
