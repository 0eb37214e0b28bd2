"""Experts that say what each next token may be, as one: weights follow how well each foretold the last. Pure.

Knows no model and no text: log-probabilities in, log-probabilities and weights out.

A text is taken to be one expert's, chosen by the prior weights v; with a chance of `switch` behind each token
it goes on as an expert's that is chosen anew. The weights w are then the posterior of who writes on, and

    P(x) = sum_k w_k p_k(x),    w'_k = (1 - switch) w_k p_k(x) / P(x) + switch v_k

Without switches this is Bayes' rule, and the mixture of a whole text is worse than its best expert by at most
ln(1 / v_k) nats. With switches it is fixed share (Herbster & Warmuth 1998, "Tracking the best expert").
An expert that says nothing of a token (NaN) keeps its weight there, and the others speak for it (specialists
that sleep: Freund et al. 1997).
"""

from typing import TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

__all__ = ["Along", "Floats", "along", "followed", "normal", "pooled"]

Floats: TypeAlias = NDArray[np.float64]


class Along(Struct, frozen=True, eq=False):
    """Texts under a mixture.

    Attributes:
        log_likelihoods: (..., n) nats of each token, each by the weights before it.
        weights: (..., n + 1, k) before each token, and behind the last. They sum to 1.
    """

    log_likelihoods: Floats
    weights: Floats


def normal(weights: Floats) -> Floats:
    """(k,) weights that sum to 1. Raises: ValueError where none is above 0, or one is below or no number."""
    found = np.asarray(weights, np.float64)
    total = found.sum()
    if found.ndim != 1 or not np.isfinite(total) or total <= 0 or (found < 0).any():
        raise ValueError(f"{found.tolist()} are no weights: they must be numbers from 0 on, and not all 0")
    shares: Floats = found / total
    return shares


def pooled(weights: Floats, logs: Floats) -> Floats:
    """Log-probabilities of the mixture.

    Args:
        weights: (k,) that sum to 1.
        logs: (k, v) log-probabilities of each expert, each row normalised. -inf is fine; a row with a NaN is
            no answer: the others share its weight.

    Returns:
        (v,) normalised; -inf where nobody with a weight gives any probability.

    Raises:
        ValueError: Nobody who has a weight answers, or the shapes do not fit.
    """
    if np.ndim(logs) != 2 or len(logs) != len(weights):
        raise ValueError(f"{np.shape(logs)} log-probabilities of {len(weights)} experts")
    told = np.logical_not(np.isnan(logs).any(axis=1))
    return _log_mean(np.where(told, weights, 0.0), np.where(told[:, None], logs, -np.inf).T)


def followed(weights: Floats, seen: Floats, prior: Floats, switch: float = 0.0) -> Floats:
    """(..., k) the weights behind a token.

    Args:
        weights: (..., k) before it.
        seen: (..., k) its log-probability by each expert; NaN where one said nothing. Where nobody thought it
            possible, it tells nothing.
        prior: (k,) by which a switch chooses.
        switch: the chance of one behind each token, in [0, 1].
    """
    told = ~np.isnan(seen)
    logs = np.where(told & (weights > 0), seen, -np.inf)
    top = logs.max(axis=-1, keepdims=True)
    likelihoods = np.exp(logs - np.where(np.isfinite(top), top, 0.0))
    moved = weights * likelihoods
    total, held = moved.sum(axis=-1, keepdims=True), np.where(told, weights, 0.0).sum(axis=-1, keepdims=True)
    tells = total > 0
    after = np.where(told & tells, moved * (held / np.where(tells, total, 1.0)), weights)
    found: Floats = (1.0 - switch) * after + switch * prior
    return found


def along(seen: Floats, prior: Floats, switch: float = 0.0) -> Along:
    """Whole texts of one length: `seen` (..., n, k) the log-probability of each token by each expert. O(n k).

    Raises: ValueError as `normal` and `pooled`, or for a chance that is none.
    """
    if not 0.0 <= switch <= 1.0:
        raise ValueError(f"a switch of {switch} is no chance: it must be in [0, 1]")
    first, texts = normal(prior), np.asarray(seen, np.float64)
    if texts.ndim < 2 or texts.shape[-1] != len(first):
        raise ValueError(f"{texts.shape} log-probabilities of {len(first)} experts")
    *outer, length, count = texts.shape
    weights, logs = np.empty((*outer, length + 1, count)), np.empty((*outer, length))
    weights[..., 0, :] = first
    for i in range(length):
        before, token = weights[..., i, :], texts[..., i, :]
        told = ~np.isnan(token)
        logs[..., i] = _log_mean(np.where(told, before, 0.0), np.where(told, token, -np.inf))
        weights[..., i + 1, :] = followed(before, token, first, switch)
    return Along(logs, weights)


def _log_mean(weights: Floats, logs: Floats) -> Floats:
    """(...,) ln(sum_k w_k exp(l_k) / sum_k w_k), of weights and logs (..., k).

    Raises: ValueError where all weights are 0.
    """
    total = weights.sum(axis=-1)
    if (total <= 0).any():
        raise ValueError("nobody who has a weight says anything of the next token")
    held = np.where(weights > 0, logs, -np.inf)
    top = held.max(axis=-1, keepdims=True)
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        found: Floats = safe[..., 0] + np.log((weights * np.exp(held - safe)).sum(axis=-1) / total)
    return found
