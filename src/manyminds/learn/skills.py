"""What each expert can do, fitted from its own outcomes alone.

So adding, updating or removing one changes no bit of another's row. The only shared number is how
strongly features are shrunk, and that is given, not fitted here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from manyminds import calibrate
from manyminds.artefact import Base, Skills
from manyminds.learn.examples import Examples

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["FINER", "SHRINKAGES", "choose_shrinkage", "fit", "head", "predict", "spend"]

SHRINKAGES = (3.0, 10.0, 30.0, 100.0, 1000.0)
"""Precisions of the normal prior on a feature's weight: from trusting features to ignoring them."""

FINER = (0.3, 1.0, *SHRINKAGES)
"""The same where questions of several kinds are mixed, which features tell apart."""

_POINTS = 12  # of a confidence curve
_COST_RIDGE = 30.0


def fit(base: Base, x: "Floats", examples: Examples, shrinkage: float) -> Skills:
    """One row for every expert. `x`: (n, p), `base`'s features of the questions."""
    m = len(examples.experts)
    asked = examples.asked
    counts = asked.sum(axis=0)
    weights = [head(x[asked[:, j]], examples.correct[asked[:, j], j], shrinkage) for j in range(m)]
    paid = asked & np.isfinite(examples.cost_usd)
    spends = [spend(x[paid[:, j]], examples.cost_usd[paid[:, j], j]) for j in range(m)]
    lengths = [_lengths(examples.tokens[:, j]) for j in range(m)]
    curves = [_curve(examples, j) for j in range(m)]
    return Skills(
        experts=examples.experts,
        sources=examples.sources,
        weights=np.stack(weights),
        answered=counts.astype(np.float64),
        accuracy=(examples.correct.sum(axis=0) + 1.0) / (counts + 2.0),
        cost_usd=np.stack(spends),
        seconds=np.array([_mean(examples.seconds[:, j]) for j in range(m)]),
        ln_tokens=np.stack(lengths),
        confidence=np.stack(curves),
    )


def head(x: "Floats", right: "NDArray[np.bool_]", shrinkage: float, rounds: int = 8) -> "Floats":
    """(p + 1,): the likeliest log-odds of being right over the features, constant first.

    Logistic regression with a normal prior (Newton steps); the constant has a weak prior at even odds.
    """
    n, p = x.shape
    full = np.concatenate([np.ones((n, 1)), x], axis=1)
    penalty = np.full(p + 1, shrinkage)
    penalty[0] = 0.5
    share = (right.sum() + 1.0) / (n + 2.0)
    weights = np.zeros(p + 1)
    weights[0] = np.log(share / (1.0 - share))
    for _ in range(rounds):
        chance = 1.0 / (1.0 + np.exp(-np.clip(full @ weights, -30.0, 30.0)))
        slope = full.T @ (chance - right) + penalty * weights
        curve = (full * (chance * (1.0 - chance) + 1e-9)[:, None]).T @ full + np.diag(penalty)
        step = np.linalg.solve(curve, slope)
        weights = weights - step * min(1.0, 4.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    return weights


def predict(x: "Floats", weights: "Floats") -> "Floats":
    """p(right): x (n, p), weights (m, p + 1) -> (n, m)."""
    logits = np.clip(weights[:, 0] + x @ weights[:, 1:].T, -30.0, 30.0)
    chance: Floats = 1.0 / (1.0 + np.exp(-logits))
    return chance


def spend(x: "Floats", cost_usd: "Floats") -> "Floats":
    """(p + 1,): ridge regression of a question's cost over the features, constant first; 0 without any."""
    n, p = x.shape
    full = np.concatenate([np.ones((n, 1)), x], axis=1)
    penalty = np.full(p + 1, _COST_RIDGE)
    penalty[0] = 1e-6
    weights: Floats = np.linalg.solve(full.T @ full + np.diag(penalty), full.T @ cost_usd)
    return weights


def choose_shrinkage(
    x: "Floats",
    examples: Examples,
    folds: "Sequence[NDArray[np.intp]]",
    among: Sequence[float] = SHRINKAGES,
) -> float:
    """The shrinkage that predicts best over all experts, by cross-validation. O(experts x folds) fits."""
    losses = dict.fromkeys(among, 0.0)
    if not x.shape[1]:
        return among[-1]
    for held in folds:
        kept = np.setdiff1d(np.arange(len(x)), held)
        for j in range(len(examples.experts)):
            fit_on, test_on = kept[examples.asked[kept, j]], held[examples.asked[held, j]]
            for shrinkage in among:
                weights = head(x[fit_on], examples.correct[fit_on, j], shrinkage, rounds=4)
                chance = predict(x[test_on], weights[None])[:, 0]
                right = examples.correct[test_on, j]
                losses[shrinkage] -= float(np.log(np.where(right, chance, 1.0 - chance) + 1e-12).sum())
    return min(among, key=lambda s: (losses[s], -s))


def _mean(values: "Floats") -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _lengths(tokens: "Floats") -> "Floats":
    known = np.log(tokens[np.isfinite(tokens) & (tokens > 0)])
    if len(known) < 2:
        return np.array([0.0, 1.0])
    return np.array([known.mean(), known.std() + 0.05])


def _curve(examples: Examples, j: int) -> "Floats":
    """(2, b): confidence, and log-odds there less the expert's own; NaN where it states none."""
    raw = examples.confidence[:, j]
    known = np.isfinite(raw) & (examples.votes[:, j] >= 0)
    if known.sum() < 5 * _POINTS:
        return np.full((2, _POINTS), np.nan)
    right = examples.correct[known, j]
    xs, ys = calibrate.isotonic(raw[known], right, _POINTS)
    share = (right.sum() + 1.0) / (len(right) + 2.0)
    return np.stack([xs, np.log(ys / (1.0 - ys)) - np.log(share / (1.0 - share))])
