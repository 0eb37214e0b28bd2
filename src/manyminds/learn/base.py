"""The part of an artefact that no expert has a share in: made from the questions alone."""

from typing import TYPE_CHECKING

import numpy as np

from manyminds.artefact import Base
from manyminds.learn.examples import Examples

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["features", "make"]

_DIRECTIONS = 16  # of the questions' vectors; more told nothing on 10,000 questions
_MIN_TOPIC = 10  # questions that a topic must have to be learnt
_GATE_RIDGE = 1.0


def make(examples: Examples) -> Base:
    """The topics, how to guess them from a text, and where texts differ most. Deterministic."""
    found, counts = np.unique(np.array(examples.topics), return_counts=True)
    topics = tuple(str(t) for t, count in zip(found, counts, strict=True) if t and count >= _MIN_TOPIC)
    if len(topics) < 2:
        topics = ()
    member = np.array([[topic == name for name in topics] for topic in examples.topics], np.float64)
    member = member.reshape(len(examples), len(topics))
    shares = member.mean(axis=0) if topics else np.zeros(0)
    vectors = examples.vectors
    if vectors is None:
        return Base(topics, shares, np.zeros(0), np.zeros((1, len(topics))), np.zeros((0, 0)))
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors - mean
    covariance = centred.T @ centred / len(centred)
    values, axes = np.linalg.eigh(covariance)
    keep = [i for i in np.argsort(-values)[:_DIRECTIONS] if values[i] > 1e-9]
    axes = axes[:, keep] * np.sign(axes[np.abs(axes[:, keep]).argmax(axis=0), keep])
    directions = axes / np.sqrt(values[keep])
    gate = _fit_gate(centred, member) if topics else np.zeros((len(mean) + 1, 0))
    return Base(topics, shares, mean, gate, directions)


def features(base: Base, examples: Examples) -> "Floats":
    """(n, p): `Base.features` of every question."""
    vectors = examples.vectors
    return np.stack(
        [base.features(None if vectors is None else vectors[i], t) for i, t in enumerate(examples.topics)]
    ).reshape(len(examples), base.width)


def _fit_gate(centred: "Floats", member: "Floats") -> "Floats":
    """(d + 1, t): multinomial logistic regression, constant last."""
    from scipy.optimize import minimize

    known = member.sum(axis=1) > 0
    x = np.concatenate([centred[known], np.ones((int(known.sum()), 1))], axis=1)
    y = member[known]
    shape = (x.shape[1], y.shape[1])

    def loss(flat: "Floats") -> "tuple[float, Floats]":
        weights = flat.reshape(shape)
        logits = x @ weights
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        p = odds / odds.sum(axis=1, keepdims=True)
        value = -np.log((p * y).sum(axis=1) + 1e-300).sum() + _GATE_RIDGE * (weights[:-1] ** 2).sum() / 20
        slope = x.T @ (p - y)
        slope[:-1] += _GATE_RIDGE * weights[:-1] / 10
        return float(value) / len(x), slope.ravel() / len(x)

    start = np.zeros(shape[0] * shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 100})
    weights: Floats = found.x.reshape(shape)
    return weights
