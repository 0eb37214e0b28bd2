"""What every plan does on questions that it was not chosen by: whole ways of choosing are tried on folds.

Many plans tried look too good on the questions that they were tried on. So it is not the plan that is
judged, but the rule that led to it: on each fold in turn, with what it makes of the others.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from manyminds.learn.plans import Explorer, Replayed, Stages, easier, search, steady, tiers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["judge"]

_Plan: TypeAlias = tuple[Stages, float]
_Found: TypeAlias = Mapping[Hashable, _Plan]
"""What each rule leads to, by the rule."""

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
    kept: list[_Plan] = [(((j,),), 1.0) for j in range(explorer.cost.shape[1])]
    kept = list(dict.fromkeys([*kept, *steady(explorer, best)]))
    judged = [explorer.replay(*plan) for plan in kept]
    steps = len(folds) + 1
    found = _searched(explorer, best, seed, lambda share: progress(share / steps)) | tiers(explorer, best)
    tried = {rule: _blank(explorer) for rule in found}
    for i, held in enumerate(folds, 1):
        rest, apart = explorer.rows(np.setdiff1d(np.arange(len(explorer.cost)), held)), explorer.rows(held)
        single = int(np.argmax([rest.panel([j])[1].mean() for j in range(rest.cost.shape[1])]))
        led = _searched(rest, single, seed) | tiers(rest, single)
        for rule in list(tried):
            if rule not in led:  # nothing to say of a rule that does not always lead somewhere
                del tried[rule]
                continue
            did, whole = apart.replay(*led[rule]), tried[rule]
            whole.right[held], whole.cost[held], whole.asked[held] = did.right, did.cost, did.asked
        progress((i + 1) / steps)
    for rule in _efficient(tried, judged[best].right):
        if found[rule] not in kept:
            spent = explorer.replay(*found[rule]).cost  # of this very plan; those of the folds may be cheaper
            did = tried[rule]
            kept.append(found[rule])
            judged.append(Replayed(did.right, max(spent, did.cost, key=np.mean), did.asked))
    return kept, judged


def _searched(
    explorer: Explorer, best: int, seed: int, progress: Callable[[float], None] | None = None
) -> dict[Hashable, _Plan]:
    found = search(explorer, best, seed, progress)
    return {("search", i, steps): easier(plan, steps) for steps in _STEPS for i, plan in enumerate(found)}


def _blank(explorer: Explorer) -> Replayed:
    n, m = explorer.cost.shape
    return Replayed(np.zeros(n, np.bool_), np.zeros(n), np.zeros((n, m), np.bool_))


def _efficient(tried: Mapping[Hashable, Replayed], single: "NDArray[np.bool_]") -> list[Hashable]:
    """The rules than which none cheaper is better, whether luck is doubted or not; in the order given."""
    rules, kept = list(tried), set()
    cost = [float(tried[rule].cost.mean()) for rule in rules]
    gains = [tried[rule].right.astype(np.float64) - single for rule in rules]
    for doubt in _DOUBTS:
        top = -np.inf
        low = [float(g.mean() - doubt * g.std() / np.sqrt(len(g))) for g in gains]
        for i in sorted(range(len(rules)), key=lambda i: (cost[i], -low[i], i)):
            if low[i] > top:
                kept.add(rules[i])
                top = low[i]
    return [rule for rule in rules if rule in kept]
