"""What every plan does on questions that it was not chosen by: whole ways of choosing are tried on folds.

Many plans tried look too good on the questions that they were tried on. So it is not the plan that is
judged, but the rule that led to it: on each fold in turn, with what it makes of the others.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from manyminds.learn.plans import (
    ESCALATION,
    STEADY,
    Explorer,
    Replayed,
    Rule,
    Stages,
    easier,
    escalations,
    search,
    steady,
    tiers,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["judge"]

_Plan: TypeAlias = tuple[Stages, float]
_Outcome: TypeAlias = "tuple[NDArray[np.bool_], Floats]"
"""Right and cost, (n,) each."""

_STEPS = (0, 1, 2)  # thresholds lower, at which each plan that was searched for is judged too
_DOUBTS = (0.0, 2.0, 4.0)  # standard errors, at each of which the efficient plans are kept


def judge(
    explorer: Explorer,
    best: int,
    folds: "Sequence[NDArray[np.intp]]",
    seed: int,
    progress: Callable[[float], None],
) -> "tuple[list[_Plan], list[Replayed]]":
    """All plans worth keeping, and what the rule of each did out of sample. Deterministic by seed.

    `best` is the best single expert. Every expert alone is among them.
    """
    n, m = explorer.cost.shape
    steps = len(folds) + 1
    found = _led_to(explorer, best, seed, lambda share: progress(share / steps))
    tried = {rule: (np.zeros(n, np.bool_), np.zeros(n)) for rule in found}
    for i, held in enumerate(folds, 1):
        rest, apart = explorer.rows(np.setdiff1d(np.arange(n), held)), explorer.rows(held)
        single = int(np.argmax([rest.panel([j])[1].mean() for j in range(m)]))
        led = _led_to(rest, single, seed)
        tried = {
            rule: outcome for rule, outcome in tried.items() if rule in led
        }  # of others nothing is known
        for rule, (right, cost) in tried.items():
            did = apart.replay(*led[rule])
            right[held], cost[held] = did.right, did.cost
        progress((i + 1) / steps)
    kept: list[_Plan] = [(((j,),), 1.0) for j in range(m)]
    judged = [explorer.replay(*plan) for plan in kept]
    for rule in _worth_keeping(tried, judged[best].right):
        if found[rule] not in kept:
            own = explorer.replay(*found[rule])  # of this very plan: those of the folds may be cheaper
            right, cost = tried[rule]
            kept.append(found[rule])
            judged.append(Replayed(right, max(own.cost, cost, key=np.mean), own.asked))
    return kept, judged


def _led_to(
    explorer: Explorer, best: int, seed: int, progress: Callable[[float], None] | None = None
) -> dict[Rule, _Plan]:
    """What each rule leads to, by the rule."""
    found = search(explorer, best, seed, progress)
    searched: dict[Rule, _Plan] = {
        ("search", i, down): easier(plan, down) for down in _STEPS for i, plan in enumerate(found)
    }
    return {**steady(explorer, best), **escalations(explorer, best), **tiers(explorer, best), **searched}


def _worth_keeping(tried: Mapping[Rule, _Outcome], single: "NDArray[np.bool_]") -> list[Rule]:
    """Those that nothing was searched for, and those than which none cheaper is better, whether luck is
    doubted or not; in the order given.
    """
    rules = list(tried)
    kept = {rule for rule in rules if rule[0] in (STEADY, ESCALATION)}
    cost = [float(spent.mean()) for _, spent in tried.values()]
    gains = [right.astype(np.float64) - single for right, _ in tried.values()]
    for doubt in _DOUBTS:
        top = -np.inf
        low = [float(g.mean() - doubt * g.std() / np.sqrt(len(g))) for g in gains]
        for i in sorted(range(len(rules)), key=lambda i: (cost[i], -low[i], i)):
            if low[i] > top:
                kept.add(rules[i])
                top = low[i]
    return [rule for rule in rules if rule in kept]
