"""Which experts to ask in which order: a search over cascades, on votes weighed out of sample.

A plan asks stage after stage until the posterior passes its threshold. Knows recorded outcomes only, so
that errors which experts share cost a plan what they cost in truth.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from manyminds.artefact import is_wide
from manyminds.learn.ballots import Scores, score
from manyminds.learn.examples import Examples

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = [
    "ESCALATION",
    "HEARD",
    "PENALTIES",
    "PRICES",
    "STEADY",
    "Explorer",
    "Replayed",
    "Rule",
    "Stages",
    "costs",
    "easier",
    "escalations",
    "search",
    "steady",
    "tiers",
]

Stages: TypeAlias = tuple[tuple[int, ...], ...]
"""Positions of experts, stage by stage; sorted within a stage."""

Rule: TypeAlias = tuple[str | float, ...]
"""What a plan follows from: a name and some numbers."""

STEADY = "steady"
"""The name of rules by which nothing is searched for."""

ESCALATION = "escalation"
"""The name of rules by which another expert is asked, and where that leaves doubt, the best single one."""

PRICES = (0.003, 0.01, 0.016, 0.024, 0.035, 0.05, 0.07, 0.1, 0.15, 0.25)
"""Accuracy that the best single expert's cost is worth: from paying for accuracy to saving."""

PENALTIES = (1.0, 4.0)
"""Questions that one expert more on a plan must win: from plans that fit to plans that last."""

HEARD = 1e-6
"""A threshold that any vote passes: the next stage is asked only where nobody's answer counts."""

_THRESHOLDS = (
    HEARD,
    0.3,
    0.4,
    0.45,
    0.5,
    0.55,
    0.6,
    0.65,
    0.7,
    0.75,
    0.8,
    0.85,
    0.9,
    0.93,
    0.95,
    0.97,
    0.98,
    0.99,
)
_MAX_STAGES = 4
_SHORTLIST = 9  # experts of each sort that a cascade is built from
_USEFUL = 0.6  # of the best single expert's accuracy, which another must have to be worth a call
_CHEAP = 0.4  # of its cost, below which an expert may well be asked first
_ROWS = 3000  # questions that the search looks at; what it finds is judged on all
_STARTS = 3  # plans that the climb begins from, at each price
_SIZES = (2, 3, 5, 8, 12, 20, 32)  # of panels asked at once
_KEPT = 2048  # panels remembered
_TIER_COSTS = (0.05, 0.1, 0.2, 0.4)  # of the best single expert's, at most, of a cheap tier's members
_TIER_FIRST, _TIER_NEXT, _TIER_LAST = (2, 3, 4), (0, 1, 2), (0, 1, 2, 3)  # members
_TIER_THRESHOLDS = (0.6, 0.8, 0.9, 0.95)
_ESCALATING = 6  # experts that may be asked before the best
_DOUBTS = (0.5, 0.7, 0.9)  # posteriors below which it is asked


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """What a plan would have done on n questions: right (n,) bool, cost (n,), and asked (n, m) bool."""

    right: "NDArray[np.bool_]"
    cost: "Floats"
    asked: "NDArray[np.bool_]"


class Explorer:
    """Replays plans on questions whose votes were weighed by a ballot that had not seen them.

    Args:
        examples: n questions, m experts.
        scores: of those questions; None where answers cannot be compared.
        cost: (n, m) of each answer, 0 where nothing was asked.
        wide: scores where nearly all have voted; None where they are the same.
    """

    def __init__(
        self, examples: Examples, scores: Scores | None, cost: "Floats", wide: Scores | None = None
    ) -> None:
        self._examples, self._scores, self._cost, self._wide = examples, scores, cost, wide
        self._known: dict[tuple[int, ...], tuple[Floats, NDArray[np.bool_], Floats]] = {}
        self._valued: dict[tuple[Stages, float, float], tuple[float, float]] = {}

    def rows(self, index: "NDArray[np.intp]") -> "Explorer":
        """The same on some of the questions."""
        scores, wide = (None if s is None else s[index, :] for s in (self._scores, self._wide))
        return Explorer(self._examples.rows(index), scores, self._cost[index], wide)

    @property
    def cost(self) -> "Floats":
        return self._cost

    @property
    def comparable(self) -> bool:
        return self._scores is not None

    def panel(self, members: Sequence[int]) -> "tuple[Floats, NDArray[np.bool_], Floats]":
        """Of a panel that was asked at once: probability, right and cost, (n,) each.

        Where nobody's answer counts, the most accurate member's is released, as it is.
        """
        key = tuple(sorted(members))
        if key in self._known:
            return self._known[key]
        columns = np.array(key)
        correct = self._examples.correct[:, columns]
        rows = np.arange(len(correct))
        if self._scores is None:
            chance, right = np.ones(len(rows)), correct[:, 0]
        else:
            votes = self._examples.votes[:, columns]
            sources = [self._examples.sources[j] for j in key]
            chance, voter = score(votes, self._scores[:, columns], sources)
            broad = np.flatnonzero(is_wide((votes >= 0).sum(axis=1), self._cost.shape[1]))
            if self._wide is not None and len(broad):
                chance[broad], voter[broad] = score(votes[broad], self._wide[broad, columns], sources)
            likeliest = int(self._examples.correct[:, columns].mean(axis=0).argmax())
            right = correct[rows, np.where(voter >= 0, voter, likeliest)]
        if len(self._known) >= _KEPT:
            self._known.clear()
        self._known[key] = chance, right, self._cost[:, columns].sum(axis=1)
        return self._known[key]

    def replay(self, stages: Stages, threshold: float) -> Replayed:
        """What the plan releases, asks and pays."""
        n, m = self._cost.shape
        open_, right, cost = np.ones(n, np.bool_), np.zeros(n, np.bool_), np.zeros(n)
        asked = np.zeros((n, m), np.bool_)
        members: list[int] = []
        for i, stage in enumerate(stages):
            members += stage
            asked[np.ix_(open_, np.array(stage))] = True
            chance, correct, spent = self.panel(members)
            stops = open_ & ((chance >= threshold) | (i == len(stages) - 1))
            right[stops], cost[stops] = correct[stops], spent[stops]
            open_ &= ~stops
        return Replayed(right, cost, asked)

    def value(self, stages: Stages, price: float, penalty: float) -> tuple[float, float]:
        """The best of accuracy - price * cost over all thresholds, and that threshold.

        Every expert costs `penalty` questions besides: so many more it must win to be worth its place.
        """
        key = stages, price, penalty
        if key not in self._valued:
            self._valued[key] = self._value(stages, price, penalty)
        return self._valued[key]

    def _value(self, stages: Stages, price: float, penalty: float) -> tuple[float, float]:
        simplicity = penalty * sum(map(len, stages)) / len(self.cost)
        if len(stages) == 1:
            _, right, cost = self.panel(stages[0])
            return float(right.mean() - price * cost.mean()) - simplicity, 1.0
        members: list[int] = []
        steps = []
        for stage in stages:
            members += stage
            chance, right, cost = self.panel(members)
            steps.append((chance, right - price * cost))
        worth = steps[-1][1]
        for chance, value in reversed(steps[:-1]):
            worth = np.where(chance >= np.array(_THRESHOLDS)[:, None], value, worth)
        by_threshold = worth.mean(axis=1).tolist()
        value, threshold = max(zip(by_threshold, _THRESHOLDS, strict=True))
        return value - simplicity, threshold


def costs(examples: Examples) -> "Floats":
    """(n, m) US dollars; an expert's mean where one is missing, and one per call where none is known.

    Who has no price beside others that have one counts as the dearest of them: it must not look free.
    """
    cost = examples.cost_usd
    known = np.isfinite(cost)
    if not known.any():
        return examples.asked.astype(np.float64)
    counts = known.sum(axis=0)
    mean = np.nan_to_num(cost).sum(axis=0) / np.maximum(counts, 1)
    mean[counts == 0] = mean.max()
    filled: Floats = np.where(examples.asked, np.where(known, cost, mean), 0.0)
    return filled


def search(
    explorer: Explorer, best: int, seed: int, progress: Callable[[float], None] | None = None
) -> list[tuple[Stages, float]]:
    """For each of `PENALTIES` and each of `PRICES`, the best plan found and its threshold.

    Climbs from the best single expert, from cheap pairs before it, and from what the price before found,
    one expert added, dropped or replaced at a time. Where answers cannot be compared there is nothing to
    combine, and the best single expert is all there is. Deterministic by seed.
    """
    n, m = explorer.cost.shape
    alone: Stages = ((best,),)
    if not explorer.comparable or m < 2:
        return [(alone, 1.0)] * (len(PENALTIES) * len(PRICES))
    sample = explorer.rows(np.sort(np.random.default_rng(seed).permutation(n)[:_ROWS]))
    right = np.array([sample.panel([j])[1].mean() for j in range(m)])
    scale = max(float(sample.cost[:, best].mean()), 1e-12)
    shortlist = _shortlist(right, sample.cost.mean(axis=0), best)
    found: list[tuple[Stages, float]] = []
    for penalty in PENALTIES:
        before: list[Stages] = []
        for worth in PRICES:
            price = worth / scale
            starts = dict.fromkeys((*before, alone, *_cheap_starts(sample, shortlist, best, price, penalty)))
            ranked = sorted(starts, key=lambda stages: (-sample.value(stages, price, penalty)[0], stages))
            climbed = [_climb(sample, start, shortlist, price, penalty) for start in ranked[:_STARTS]]
            stages, threshold = max(
                climbed, key=lambda plan: (sample.value(plan[0], price, penalty)[0], plan)
            )
            before.append(stages)
            found.append((stages, threshold))
            if progress is not None:
                progress(len(found) / (len(PENALTIES) * len(PRICES)))
    return found


def easier(plan: tuple[Stages, float], steps: int) -> tuple[Stages, float]:
    """The same plan with a threshold some steps lower, so that it stops earlier."""
    stages, threshold = plan
    if len(stages) == 1:
        return plan
    return stages, _THRESHOLDS[max(_THRESHOLDS.index(threshold) - steps, 0)]


def steady(explorer: Explorer, best: int) -> dict[Rule, tuple[Stages, float]]:
    """Plans that nothing was searched for: the most accurate few asked at once, up to everybody, and a
    stand-in where the best abstains. By what they are.
    """
    m = explorer.cost.shape[1]
    if not explorer.comparable:
        return {}
    right = [float(explorer.panel([j])[1].mean()) for j in range(m)]
    order = sorted(range(m), key=lambda j: (-right[j], j))
    sizes = sorted({min(size, m) for size in (*_SIZES, m)})
    plans: dict[Rule, tuple[Stages, float]] = {
        (STEADY, "top", size): ((tuple(sorted(order[:size])),), 1.0) for size in sizes
    }
    others = [j for j in order if j != best][:2]
    return plans | {(STEADY, "stand-in", i): (((best,), (j,)), HEARD) for i, j in enumerate(others)}


def escalations(explorer: Explorer, best: int) -> dict[Rule, tuple[Stages, float]]:
    """An expert, and where that leaves doubt the best single one, by expert and doubt.

    Those are asked first who are right most often where the best is wrong; the best itself has nobody behind
    it. None of these plans may be worth it for all questions; for some topics each may be.
    """
    if not explorer.comparable:
        return {}
    right = [explorer.panel([j])[1] for j in range(explorer.cost.shape[1])]
    adds = [int((one & ~right[best]).sum()) for one in right]
    others = sorted((j for j in range(len(adds)) if j != best), key=lambda j: (-adds[j], j))
    plans: dict[Rule, tuple[Stages, float]] = {}
    for doubt in _DOUBTS:
        plans[ESCALATION, best, doubt] = ((best,),), 1.0
        for j in others[:_ESCALATING]:
            plans[ESCALATION, j, doubt] = ((j,), (best,)), doubt
    return plans


def tiers(explorer: Explorer, best: int) -> dict[Rule, tuple[Stages, float]]:
    """Plans that follow from a few numbers, by those numbers: the most accurate experts of those below a
    cost, then the next of them, then the most accurate that cost no more than the best single expert.

    Four numbers and a threshold can be trusted on few questions, where a search finds what happened to do
    well.
    """
    m = explorer.cost.shape[1]
    if not explorer.comparable:
        return {}
    right = [float(explorer.panel([j])[1].mean()) for j in range(m)]
    cost = explorer.cost.mean(axis=0)
    order = sorted(range(m), key=lambda j: (-right[j], cost[j], j))
    useful = [j for j in order if right[j] > _USEFUL * right[best] and cost[j] <= cost[best]]
    plans: dict[Rule, tuple[Stages, float]] = {}
    for limit, a, b, c in product(_TIER_COSTS, _TIER_FIRST, _TIER_NEXT, _TIER_LAST):
        cheap = [j for j in useful if cost[j] <= limit * cost[best]][: a + b]
        last = [j for j in useful if j not in cheap][:c]
        if len(cheap) < a + b or len(last) < c or b + c == 0:
            continue
        parts = (cheap[:a], cheap[a:], last)
        stages = tuple(tuple(sorted(part)) for part in parts if part)
        for threshold in _TIER_THRESHOLDS:
            plans["tiers", limit, a, b, c, threshold] = stages, threshold
    return plans


def _shortlist(right: "Floats", cost: "Floats", best: int) -> list[int]:
    """Positions, sorted: those than which nobody cheaper is better, the best, and the best of the cheap."""
    order = sorted(range(len(right)), key=lambda j: (-right[j], cost[j], j))
    front, top = [], -1.0
    for j in sorted(order, key=lambda j: cost[j]):
        if right[j] > top:
            front.append(j)
            top = right[j]
    useful = [j for j in order if right[j] > _USEFUL * right[best]]
    cheap = [j for j in useful if cost[j] < _CHEAP * cost[best]]
    return sorted({best, *front[-_SHORTLIST:], *useful[:_SHORTLIST], *cheap[:_SHORTLIST]})


def _cheap_starts(
    explorer: Explorer, shortlist: Sequence[int], best: int, price: float, penalty: float
) -> list[Stages]:
    """The three pairs that are worth most before the best single expert is asked."""
    cost = explorer.cost.mean(axis=0)
    cheaper = [j for j in shortlist if cost[j] < _CHEAP * cost[best]]
    pairs = [((a, b), (best,)) for i, a in enumerate(cheaper) for b in cheaper[i + 1 :]]
    ranked = sorted(pairs, key=lambda stages: (-explorer.value(stages, price, penalty)[0], stages))
    return list(ranked[:3])


def _climb(
    explorer: Explorer, start: Stages, shortlist: Sequence[int], price: float, penalty: float
) -> tuple[Stages, float]:
    """A plan that no single change makes better, and its threshold."""
    at, (value, threshold) = start, explorer.value(start, price, penalty)
    while True:
        ranked = [
            (explorer.value(stages, price, penalty), stages) for stages in sorted(set(_moves(at, shortlist)))
        ]
        (best, best_threshold), stages = max(ranked, key=lambda pair: pair[0][0], default=((value, 0.0), at))
        if best <= value + 1e-5:
            return at, threshold
        at, value, threshold = stages, best, best_threshold


def _moves(stages: Stages, shortlist: Iterable[int]) -> Iterable[Stages]:
    """Every plan that differs by one expert: added, dropped, or replaced."""
    used = {j for stage in stages for j in stage}
    for j in shortlist:
        if j in used:
            continue
        for i, stage in enumerate(stages):
            yield (*stages[:i], tuple(sorted((*stage, j))), *stages[i + 1 :])
            for old in stage:
                swapped = tuple(sorted((*(k for k in stage if k != old), j)))
                yield (*stages[:i], swapped, *stages[i + 1 :])
        if len(stages) < _MAX_STAGES:
            for i in range(len(stages) + 1):
                yield (*stages[:i], (j,), *stages[i:])
    if len(used) > 1:
        for i, stage in enumerate(stages):
            for old in stage:
                left = tuple(k for k in stage if k != old)
                yield (*stages[:i], *((left,) if left else ()), *stages[i + 1 :])
