"""Which plan each policy takes: accuracy, cost and latency traded on outcomes that no plan was fitted to.

- `max`: everybody at once, unless fewer, down to the best alone, are surely better.
- `cheap`: the plan of least cost that keeps the best single expert's accuracy, its uncertainty and the
  luck of being chosen counted.
- `auto`: the most accurate plan that costs no more than the best single expert.
- `fast`: the quickest expert that is nearly as accurate as the best.

Where answers cannot be compared, only one can be released of several, so nobody asks more than one: `max`
then asks the likeliest, if that proves to be better than always asking the best.

A policy may also choose a plan for each question anew, by what the question's features promise, where
that has proved to be better. Parts of a mixed set have one price of accuracy where that is better still.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from manyminds.artefact import Base
from manyminds.learn import base, skills
from manyminds.learn.examples import Examples
from manyminds.learn.plans import HEARD, Replayed, Stages

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["SLACK", "SURE", "Choice", "choose", "seconds", "share_prices"]

_MARGIN = 0.01  # of accuracy: the best single expert's is held where no more than this is lost
_MANY = 1000  # questions
# Standard errors: 1.96 + 0.84 √2. The interval on as many other questions then clears the margin four
# times in five: their result varies as much as the one at hand.
SURE: Final = 3.15
_SURER = (SURE, 4.0, 5.0)  # tried in turn, until the choice by them holds what is promised
SLACK: Final = 0.05
"""Of accuracy that `fast` gives up."""
_SAVING = 0.95  # share of its cost at most, for which choosing anew per question is worth it
_DEAREST = 1e6  # costs of the dearest plan, for which accuracy goes before any cost
# Of all accuracy, in what the best single expert costs.
_WORTHS = (0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0, 30.0, 60.0, 120.0, 500.0)


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """What k plans did on n questions, (n, k) each: `right` and `cost`, and both as foreseen out of sample.

    `single`: position of the best single expert. `checked` (k,): plans that may be chosen for a question by
    what is foreseen alone: an expert that is not the best has another behind it.
    """

    right: "NDArray[np.bool_]"
    cost: "Floats"
    chance: "Floats"
    spend: "Floats"
    single: int
    checked: "NDArray[np.bool_]"

    def at(self, price: float) -> "tuple[NDArray[np.bool_], Floats]":
        """(n,) right and cost of the plan that is worth most on each question, at this price of accuracy."""
        worth = np.where(self.checked, price * self.chance - self.spend, -np.inf)
        rows, taken = np.arange(len(self.right)), worth.argmax(axis=1)
        return self.right[rows, taken], self.cost[rows, taken]


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """`figures` of every plan: accuracy, cost, seconds, and its weights for accuracy and cost.

    `ranking`: positions of plans by policy, best for it first. `trial`: what all that was judged by.
    """

    figures: "list[tuple[float, float, float, Floats, Floats]]"
    ranking: Mapping[str, tuple[int, ...]]
    prices: Mapping[str, float]
    about: Mapping[str, Any]
    trial: _Trial


@dataclass(frozen=True, slots=True)
class _Point:
    """One way of answering n questions, against the best single expert."""

    gain: float
    error: float  # standard error of the gain
    cost: float
    n: int

    def holds(self, sure: float = SURE) -> bool:
        """Whether it is surely not worse than the best single expert by more than the margin.

        A test of non-inferiority. Fewer questions than a thousand cannot show what the margin asks, so
        theirs is twice as wide.
        """
        margin = _MARGIN if self.n >= _MANY else 2.0 * _MARGIN
        return self.gain - sure * self.error >= -margin


def choose(
    kept: "Sequence[tuple[Stages, float]]",
    judged: Sequence[Replayed],
    made: Base,
    examples: Examples,
    best: int,
    shrinkage: skills.Shrinkage,
    folds: "Sequence[NDArray[np.intp]]",
) -> Choice:
    """One plan for each policy, or a price at which it chooses for each question. Deterministic.

    `judged` says of every plan what it did on questions that it was not chosen by.
    """
    right = np.stack([r.right for r in judged], axis=1)
    cost = np.stack([r.cost for r in judged], axis=1)
    single = next(i for i, (stages, _) in enumerate(kept) if stages == ((best,),))
    points = [_point(right[:, i], cost[:, i], right[:, single]) for i in range(len(kept))]
    steady = [i for i, (stages, threshold) in enumerate(kept) if len(stages) == 1 or threshold == HEARD]
    by_gain = sorted(range(len(points)), key=lambda i: (-points[i].gain, points[i].cost, i))
    limit = points[single].cost * (1.0 + 1e-9)
    holding = [i for i in by_gain if points[i].holds()]
    alone = [i for i in by_gain if len(kept[i][0]) == len(kept[i][0][0]) == 1]
    first = {
        "max": _widest(kept, points, right, steady),
        "cheap": _cheapest(points, right, cost, single, folds),
        "auto": [i for i in holding if points[i].cost <= limit],
        "fast": [*_fastest(kept, examples, points, single), *alone],
    }
    ranking = {policy: tuple(dict.fromkeys((*order, *by_gain))) for policy, order in first.items()}
    plans = {policy: order[0] for policy, order in ranking.items()}
    x, penalty = base.features(made, examples), shrinkage.penalty(made)
    verdicts = not examples.comparable.any()
    checked = np.array([verdicts or i == single or i not in alone for i in range(len(kept))])
    trial = _Trial(right, cost, *_foreseen(right, cost, x, made, penalty, folds), single, checked)
    prices: dict[str, float] = {}
    if x.shape[1]:
        prices = _prices([trial], {policy: [(right[:, i], cost[:, i])] for policy, i in plans.items()})
        if verdicts:
            prices |= _likeliest(points, trial, plans["max"])
    figures = [
        (
            float(right[:, i].mean()),
            float(cost[:, i].mean()),
            seconds(stages, judged[i].asked, examples),
            skills.head(x, right[:, i], penalty),
            skills.spend(made, x, cost[:, i]),
        )
        for i, (stages, _) in enumerate(kept)
    ]
    about = {f"{policy}_gain": points[i].gain for policy, i in plans.items()}
    return Choice(figures, ranking, prices, about, trial)


def share_prices(choices: Sequence[Choice]) -> list[Choice]:
    """The choices of several parts, with one price of accuracy for all where a policy does better so.

    Judged together: the few questions of one part may not show by themselves that accuracy is held, and what
    is cheap to have in one part need not be bought dearly in another.
    """
    trials = [choice.trial for choice in choices]
    taken = {policy: [_taken(choice, policy) for choice in choices] for policy in ("cheap", "auto")}
    prices = _prices(trials, taken)
    return [replace(choice, prices={**choice.prices, **prices}) for choice in choices]


def _taken(choice: Choice, policy: str) -> "tuple[NDArray[np.bool_], Floats]":
    """(n,) right and cost of what a policy asks."""
    if policy in choice.prices:
        return choice.trial.at(choice.prices[policy])
    i = choice.ranking[policy][0]
    return choice.trial.right[:, i], choice.trial.cost[:, i]


def _widest(
    kept: "Sequence[tuple[Stages, float]]",
    points: Sequence[_Point],
    right: "NDArray[np.bool_]",
    steady: Sequence[int],
) -> list[int]:
    """The widest panels that lose nothing, and no more than chance against the best of all panels.

    Chance is the standard error of the difference on the same questions. Of many panels the best on past
    questions owes its lead to luck, and the widest has most to lose it to.
    """
    top = max(steady, key=lambda i: (points[i].gain, -i))
    behind = {i: _point(right[:, i], np.zeros(1), right[:, top]) for i in steady}
    level = [i for i in steady if points[i].gain >= 0.0 and behind[i].gain >= -behind[i].error]
    return sorted(level, key=lambda i: (-sum(map(len, kept[i][0])), -points[i].gain, i))


def _cheapest(
    points: Sequence[_Point],
    right: "NDArray[np.bool_]",
    cost: "Floats",
    single: int,
    folds: "Sequence[NDArray[np.intp]]",
) -> list[int]:
    """The plans that hold what is promised, cheapest first.

    Of many that hold, the cheapest owes its place to luck. So the choice itself is tried on folds. It must
    hold there too, else plans must be surer, and no plan is taken that is cheaper than what it led to there.
    """
    n = len(right)
    for sure in _SURER:
        led_right, led_cost = np.zeros(n, np.bool_), np.zeros(n)
        for held in folds:
            rest = np.setdiff1d(np.arange(n), held)
            some = [_point(right[rest, i], cost[rest, i], right[rest, single]) for i in range(len(points))]
            taken = min((i for i, p in enumerate(some) if p.holds(sure)), key=lambda i: (some[i].cost, i))
            led_right[held], led_cost[held] = right[held, taken], cost[held, taken]
        led = _point(led_right, led_cost, right[:, single])
        if led.holds():
            enough = [i for i, p in enumerate(points) if p.holds(sure) and p.cost >= led.cost * (1.0 - 1e-9)]
            return sorted({*enough, single}, key=lambda i: (points[i].cost, i))
    return [single]


def _point(right: "NDArray[np.bool_]", cost: "Floats", single: "NDArray[np.bool_]") -> _Point:
    difference = right.astype(np.float64) - single
    return _Point(
        float(difference.mean()),
        float(difference.std() / np.sqrt(len(difference))),
        float(cost.mean()),
        len(difference),
    )


def _foreseen(
    right: "NDArray[np.bool_]",
    cost: "Floats",
    x: "Floats",
    made: Base,
    penalty: "Floats",
    folds: "Sequence[NDArray[np.intp]]",
) -> "tuple[Floats, Floats]":
    """(n, k) chance of being right and cost of every plan on every question, foreseen out of sample."""
    chance, spend = np.zeros(right.shape), np.zeros(right.shape)
    everything = np.arange(len(right))
    for held in folds:
        fitted = np.setdiff1d(everything, held)
        for i in range(right.shape[1]):
            weights = skills.head(x[fitted], right[fitted, i], penalty, rounds=4)
            chance[held, i] = skills.predict(x[held], weights[None])[:, 0]
            costs = skills.spend(made, x[fitted], cost[fitted, i])
            spend[held, i] = np.maximum(costs[0] + x[held] @ costs[1:], 0.0)
    return chance, spend


def _prices(
    trials: Sequence[_Trial], taken: "Mapping[str, Sequence[tuple[NDArray[np.bool_], Floats]]]"
) -> dict[str, float]:
    """The price of accuracy for each policy that does better by choosing anew for each question.

    `taken`: (n,) right and cost of what `cheap` and `auto` ask otherwise, trial by trial.
    """
    single = np.concatenate([trial.right[:, trial.single] for trial in trials])
    scale = float(np.concatenate([trial.cost[:, trial.single] for trial in trials]).mean())
    if scale <= 0.0:
        return {}

    def point(parts: "Sequence[tuple[NDArray[np.bool_], Floats]]") -> _Point:
        right, cost = (np.concatenate(some) for some in zip(*parts, strict=True))
        return _point(right, cost, single)

    priced = [scale * worth for worth in _WORTHS]
    anew = [(price, point([trial.at(price) for trial in trials])) for price in priced]
    cheap, auto = point(taken["cheap"]), point(taken["auto"])
    prices: dict[str, float] = {}
    sure = [pair for pair in anew if pair[1].holds()]
    if sure:
        price, found = min(sure, key=lambda pair: (pair[1].cost, pair[0]))
        if found.cost < _SAVING * cheap.cost:
            prices["cheap"] = price
    within = [pair for pair in sure if pair[1].cost <= scale]
    if within:
        price, found = max(within, key=lambda pair: (pair[1].gain, -pair[0]))
        if found.gain > auto.gain + found.error:
            prices["auto"] = price
    return prices


def _likeliest(points: Sequence[_Point], trial: _Trial, fixed: int) -> dict[str, float]:
    """The price at which `max` asks whoever is likeliest, where that is right more often than `fixed` is."""
    price = _DEAREST * max(point.cost for point in points) or 1.0
    gained = _point(*trial.at(price), trial.right[:, fixed]).gain
    return {"max": price} if gained > 0.0 else {}


def _fastest(
    kept: "Sequence[tuple[Stages, float]]",
    examples: Examples,
    points: Sequence[_Point],
    single: int,
) -> list[int]:
    """By mean seconds; where they are not recorded, by mean tokens written; where neither is, the best."""
    experts = {stages[0][0]: i for i, (stages, _) in enumerate(kept) if len(stages) == len(stages[0]) == 1}
    good = {j: i for j, i in experts.items() if points[i].gain >= -SLACK}
    for measure in (examples.seconds, examples.tokens):
        known = {j: _mean(measure[:, j]) for j in good}
        timed = [j for j in good if np.isfinite(known[j])]
        if timed:
            return [good[j] for j in sorted(timed, key=lambda j: (known[j], j))]
    return [single]


def seconds(stages: Stages, asked: "NDArray[np.bool_]", examples: Examples) -> float:
    """Mean time to the answer: each stage takes as long as its slowest member. NaN where one is unknown."""
    total = 0.0
    for stage in stages:
        slowest = float(np.max([_mean(examples.seconds[:, j]) for j in stage]))
        total += slowest * float(asked[:, list(stage)].any(axis=1).mean())
    return total


def _mean(values: "Floats") -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
