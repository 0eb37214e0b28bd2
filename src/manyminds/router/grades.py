"""Where an expert stands by the grades of its own answers: how right it is, and whether it has changed.

Pure: the same part of the log of outcomes gives the same standing, in whatever order it arrived. Knows no
other expert and no card.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from msgspec import Struct

from manyminds.types import Outcome

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["GRADES", "Standing", "last_change", "standing"]

GRADES: Final = 500
"""Graded answers of one expert that count: its last ones."""

_VOTED_GRADES = 8.0  # that all words of votes count for at most: as much as a card's claim
_LEARNT_GRADES = 16.0  # graded answers that what was learnt beforehand counts for
_CHANGED = 10.0  # nats by which a change must explain the grades better: see `last_change`
_LEAST = 10.0  # grades on either side of a change
_CLIP = 12.0  # of log-odds


class Standing(Struct, frozen=True):
    """What the grades since its last change say of an expert."""

    grades: float = 0.0
    correct: float = 0.0
    shifts: Mapping[str, float] = {}
    """By basis of a prior: what is added to the log-odds of what was learnt beforehand."""
    drifted_utc: str | None = None  # since when it is worse than it was; None where it is as it was


def standing(outcomes: Sequence[Outcome]) -> Standing:
    """Of one expert's graded outcomes, in the order of the log; only the last `GRADES` are meant to come.

    A word of somebody who knows replaces what votes said of the same answer.
    """
    judged = {o.request_id for o in outcomes if not o.voters}
    log = [o for o in outcomes if not o.voters or o.request_id not in judged]
    if not log:
        return Standing()
    weight = np.array([o.weight for o in log])
    correct = np.array([o.correct or 0.0 for o in log])
    voted = np.array([bool(o.voters) for o in log])
    basis = np.array([o.prior.basis if o.prior else "" for o in log])
    group = np.char.add(basis, np.where(voted, " voted", ""))  # votes agree more often than whoever knows
    offset = _log_odds(np.array([o.prior.probability if o.prior else 0.5 for o in log]))
    begin, drifted_utc = 0, None
    while (change := last_change(weight[begin:], correct[begin:], group[begin:], offset[begin:])) is not None:
        begin += change
        drifted_utc = log[begin].at_utc
    weight, correct, basis, offset = weight[begin:], correct[begin:], basis[begin:], offset[begin:]
    votes = weight[voted[begin:]].sum()
    weight = np.where(voted[begin:], weight * _VOTED_GRADES / max(votes, _VOTED_GRADES), weight)
    shifts = {
        str(name): _shift(weight[of], correct[of], offset[of])
        for name in np.unique(basis)
        if name
        for of in [basis == name]
    }
    return Standing(float(weight.sum()), float((weight * correct).sum()), shifts, drifted_utc)


def _shift(weight: "Floats", correct: "Floats", offset: "Floats") -> float:
    """By how much the log-odds are off: then their mean is that of the grades and of some that agree."""
    total = weight.sum()
    trust = total / (total + _LEARNT_GRADES)
    expected = (weight * _chance(offset)).sum()
    return _moved(weight, offset, (1.0 - trust) * expected + trust * (weight * correct).sum())


def _moved(weight: "Floats", offset: "Floats", target: float) -> float:
    """By how much to move all for the sum of weight x sigmoid(offset + it) to be the target: by halving."""
    if offset.min() == offset.max():  # as a rule: of an expert that was not learnt from
        return float(np.clip(_log_odds(target / weight.sum()) - offset[0], -_CLIP, _CLIP))
    low, high = -_CLIP, _CLIP
    for _ in range(40):
        middle = 0.5 * (low + high)
        if (weight * _chance(offset + middle)).sum() < target:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def last_change(
    weight: "Floats", correct: "Floats", group: "NDArray[np.str_]", offset: "Floats"
) -> int | None:
    """Where the grades become worse than before, beyond chance; None where they do not.

    A generalised likelihood ratio for one change at an unknown place: the sum over both sides of n KL(q, p),
    with n grades of which a share q was right and p was expected, by priors that were fitted to the whole
    (Siegmund & Venkatraman 1995, of which this is the Bernoulli case). Whoever is wrongly described by its
    card, or was from the beginning, has not changed. O(n).
    """
    total = weight.sum()
    if total < 2.0 * _LEAST:
        return None
    expected = np.empty_like(offset)
    for name in np.unique(group):
        of = group == name
        right = (weight[of] * correct[of]).sum()
        shift = _moved(weight[of], offset[of], right)
        expected[of] = _chance(offset[of] + shift)
    n, right, mean = np.cumsum(weight), np.cumsum(weight * correct), np.cumsum(weight * expected)
    n, right, mean = n[:-1], right[:-1], mean[:-1]
    all_right, all_mean = (weight * correct).sum(), (weight * expected).sum()
    rest = total - n
    gain = _divergence(n, right, mean) + _divergence(rest, all_right - right, all_mean - mean)
    fell = (right - mean) / n > (all_right - right - all_mean + mean) / rest
    gain = np.where((n >= _LEAST) & (rest >= _LEAST) & fell, gain, 0.0)
    place = int(gain.argmax())
    return place + 1 if gain[place] > _CHANGED else None


def _divergence(n: "Floats", right: "Floats", expected: "Floats") -> "Floats":
    """Of n Bernoulli variables: n KL(right / n, expected / n)."""
    q = np.clip(right / n, 1e-9, 1.0 - 1e-9)
    p = np.clip(expected / n, 1e-9, 1.0 - 1e-9)
    found: Floats = n * (q * np.log(q / p) + (1.0 - q) * np.log((1.0 - q) / (1.0 - p)))
    return found


def _chance(log_odds: "Floats") -> "Floats":
    found: Floats = 1.0 / (1.0 + np.exp(-np.clip(log_odds, -30.0, 30.0)))
    return found


def _log_odds(chance: Any) -> Any:
    clipped = np.clip(chance, 0.005, 0.995)
    return np.log(clipped / (1.0 - clipped))
