"""What each expert can do, fitted from its own outcomes alone.

So adding, updating or removing one changes no bit of another's row. All that is shared is how strongly
features are shrunk, and that is given, not fitted here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from manyminds import calibrate
from manyminds.artefact import Base, Skills
from manyminds.learn.examples import Examples

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["NO_FEATURES", "Shrinkage", "choose_shrinkage", "fit", "head", "predict", "spend"]


class Shrinkage(NamedTuple):
    """Precisions of the normal priors on the weights of features.

    A topic can tell all there is to know, a direction of the texts seldom much, so each sort has its own.
    """

    topics: float
    directions: float

    def penalty(self, base: Base) -> "Floats":
        """(p + 1,): of every weight of a head; the constant has a weak prior at even odds."""
        t = len(base.topics)
        return np.concatenate([[0.5], np.full(t, self.topics), np.full(base.width - t, self.directions)])


NO_FEATURES = Shrinkage(1000.0, 1000.0)
"""Experts are judged by how often they are right, whatever the question."""

_TOPICS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)  # from trusting features to ignoring them
_DIRECTIONS = (3.0, 10.0, 30.0, 100.0, 1000.0)
_FIRST = 30.0  # of directions, while that of topics is chosen
_POINTS = 12  # of a confidence curve
_COST_RIDGE = Shrinkage(1.0, 30.0)


def fit(base: Base, x: "Floats", examples: Examples, shrinkage: Shrinkage) -> Skills:
    """One row for every expert. `x`: (n, p), `base`'s features of the questions."""
    m = len(examples.experts)
    asked, penalty = examples.asked, shrinkage.penalty(base)
    counts = asked.sum(axis=0)
    weights = [head(x[asked[:, j]], examples.correct[asked[:, j], j], penalty) for j in range(m)]
    paid = asked & np.isfinite(examples.cost_usd)
    spends = [spend(base, x[paid[:, j]], examples.cost_usd[paid[:, j], j]) for j in range(m)]
    lengths = [_lengths(examples.tokens[:, j]) for j in range(m)]
    curves = [_curve(examples, j) for j in range(m)]
    return Skills(
        experts=examples.experts,
        sources=examples.sources,
        weights=np.stack(weights),
        answered=counts.astype(np.float64),
        accuracy=(examples.correct.sum(axis=0) + 1.0) / (counts + 2.0),
        asked=_asked(base, examples),
        cost_usd=np.stack(spends),
        seconds=np.array([_mean(examples.seconds[:, j]) for j in range(m)]),
        ln_tokens=np.stack(lengths),
        confidence=np.stack(curves),
    )


def head(
    x: "Floats",
    right: "NDArray[np.bool_]",
    penalty: "Floats",
    rounds: int = 8,
    counts: "Floats | None" = None,
) -> "Floats":
    """(p + 1,): the likeliest log-odds of being right over the features, constant first.

    Logistic regression with a normal prior (Newton steps). `penalty` (p + 1,): its precisions. `counts`
    (n,): as how many questions each counts, one unless said.
    """
    n, p = x.shape
    each = np.ones(n) if counts is None else counts
    full = np.concatenate([np.ones((n, 1)), x], axis=1)
    share = ((each * right).sum() + 1.0) / (each.sum() + 2.0)
    weights = np.zeros(p + 1)
    weights[0] = np.log(share / (1.0 - share))
    for _ in range(rounds):
        chance = 1.0 / (1.0 + np.exp(-np.clip(full @ weights, -30.0, 30.0)))
        slope = full.T @ (each * (chance - right)) + penalty * weights
        curve = (full * (each * chance * (1.0 - chance) + 1e-9)[:, None]).T @ full + np.diag(penalty)
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


def spend(base: Base, x: "Floats", cost_usd: "Floats") -> "Floats":
    """(p + 1,): ridge regression of a question's cost over the features, constant first; 0 without any."""
    full = np.concatenate([np.ones((len(x), 1)), x], axis=1)
    penalty = _COST_RIDGE.penalty(base)
    penalty[0] = 1e-6
    weights: Floats = np.linalg.solve(full.T @ full + np.diag(penalty), full.T @ cost_usd)
    return weights


def choose_shrinkage(
    base: Base, x: "Floats", examples: Examples, folds: "Sequence[NDArray[np.intp]]"
) -> Shrinkage:
    """What predicts best over all experts, by cross-validation: first for topics, then for directions.

    O(experts x folds) fits.
    """
    if not base.width:
        return NO_FEATURES

    def best(among: Sequence[Shrinkage]) -> Shrinkage:
        return min(among, key=lambda s: (_loss(base, x, examples, folds, s), -s.topics, -s.directions))

    chosen = best([Shrinkage(topics, _FIRST) for topics in _TOPICS]) if base.topics else NO_FEATURES
    if len(base.topics) == base.width:
        return chosen._replace(directions=NO_FEATURES.directions)
    return best([chosen._replace(directions=directions) for directions in _DIRECTIONS])


def _loss(
    base: Base, x: "Floats", examples: Examples, folds: "Sequence[NDArray[np.intp]]", shrinkage: Shrinkage
) -> float:
    """Sum of -ln p(what came) over all experts and questions, out of sample."""
    loss, penalty = 0.0, shrinkage.penalty(base)
    for held in folds:
        kept = np.setdiff1d(np.arange(len(x)), held)
        for j in range(len(examples.experts)):
            fit_on, test_on = kept[examples.asked[kept, j]], held[examples.asked[held, j]]
            weights = head(x[fit_on], examples.correct[fit_on, j], penalty, rounds=4)
            chance = predict(x[test_on], weights[None])[:, 0]
            right = examples.correct[test_on, j]
            loss -= float(np.log(np.where(right, chance, 1.0 - chance) + 1e-12).sum())
    return loss


def _asked(base: Base, examples: Examples) -> "Floats":
    """(m, t): share of each topic's questions that each expert was asked; all of a topic without any."""
    shares = np.ones((len(examples.experts), len(base.topics)))
    for t, name in enumerate(base.topics):
        rows = np.flatnonzero([topic == name for topic in examples.topics])
        if len(rows):
            shares[:, t] = examples.asked[rows].mean(axis=0)
    return shares


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
