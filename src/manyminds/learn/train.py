"""From outcomes to an artefact: base, skills, ballot, plans, and which plan each policy takes.

Everything that is chosen, is chosen by cross-validation on the examples given: nothing else is read.
Deterministic by seed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from manyminds.artefact import Artefact, Base, Plan
from manyminds.errors import DataError
from manyminds.learn import ballots, base, plans, skills
from manyminds.learn.ballots import COMPLEXITIES, Complexity, Scores
from manyminds.learn.examples import Examples
from manyminds.learn.policies import Choice, choose

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Progress", "train"]

Progress = Callable[[str, float], None]
"""Told what is being done, and the share of the whole that is done."""

_FOLDS = 5
_STEPS = (0, 1, 2)  # thresholds lower, at which each plan is judged too
_PANELS = 3  # random ones, on which a complexity is judged beside the full panel


def train(
    examples: Examples,
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Artefact:
    """Learns all there is to learn from these outcomes.

    Raises: DataError where there are too few questions or experts, or where scipy is not installed.
    """
    _require(examples)
    tell = progress or (lambda what, share: None)
    folds = _folds(len(examples), seed)
    tell("skills", 0.0)
    made = base.make(examples)
    x = base.features(made, examples)
    shrinkage = skills.choose_shrinkage(x, examples, folds)
    own = skills.fit(made, x, examples, shrinkage)
    topics = len(made.topics)
    ballot, scores, complexity = None, None, None
    if examples.kind != "text":
        complexity, scores = _choose_complexity(made, x, examples, folds, seed, tell)
        ballot = ballots.fit(own, x[:, :topics], examples, complexity, seed)
    explorer = plans.Explorer(examples, scores, _costs(examples))
    best = int(np.argmax(examples.correct.mean(axis=0)))
    kept, judged = _find_plans(explorer, best, folds, seed, tell)
    choice = choose(kept, judged, x, examples, best, shrinkage, folds)
    tell("policies", 1.0)
    facts = {
        "seed": seed,
        "questions": len(examples),
        "experts": len(examples.experts),
        "shrinkage": shrinkage,
        "complexity": None if complexity is None else COMPLEXITIES.index(complexity),
        "priced": bool(np.isfinite(examples.cost_usd).any()),
    }
    return Artefact(
        about={**(about or {}), **facts, **choice.about},
        kinds=tuple(sorted({examples.kind, *examples.read_as})),
        base=made,
        skills=own,
        ballot=ballot,
        plans=_plans(examples, kept, choice),
        best_single=examples.experts[best],
        prices=choice.prices,
        choice=choice.plans,
    )


def _require(examples: Examples) -> None:
    try:
        import scipy  # noqa: F401
    except ImportError as error:
        raise DataError("Training needs scipy: pip install 'manyminds[train]'.") from error
    if len(examples) < 2 * _FOLDS:
        raise DataError(f"{len(examples)} questions are too few to learn from: give at least {2 * _FOLDS}.")
    if len(examples.experts) < 2:
        raise DataError("There is one expert only: a network needs at least two.")


def _folds(n: int, seed: int) -> "list[NDArray[np.intp]]":
    return [np.sort(part) for part in np.array_split(np.random.default_rng(seed).permutation(n), _FOLDS)]


def _choose_complexity(
    made: Base,
    x: "Floats",
    examples: Examples,
    folds: "Sequence[NDArray[np.intp]]",
    seed: int,
    tell: Progress,
) -> tuple[Complexity, Scores]:
    """The complexity that does best out of sample, on full and random panels, and what votes then weigh.

    Only the experts' terms are held out: the base has no share in who is right.
    """
    n, m = examples.votes.shape
    topics = len(made.topics)
    rng = np.random.default_rng(seed + 1)
    random_panels = [ballots.panels(examples, rng) for _ in range(_PANELS)]
    best: tuple[float, Complexity, Scores] | None = None
    for i, complexity in enumerate(COMPLEXITIES):
        scores = Scores(np.zeros((n, m)), np.zeros(n), np.zeros(n))
        for held in folds:
            kept = np.setdiff1d(np.arange(n), held)
            fitted = examples.rows(kept)
            own = skills.fit(made, x[kept], fitted, skills.SHRINKAGES[-1])
            ballot = ballots.fit(own, x[kept, :topics], fitted, complexity, seed)
            part = ballots.cast(ballot, own, x[held, :topics], examples.rows(held))
            scores.weights[held], scores.other[held] = part.weights, part.other
            scores.correlation[held] = part.correlation
        worth = sum(_worth(examples, votes, scores) for votes in (examples.votes, *random_panels))
        if best is None or worth > best[0]:
            best = worth, complexity, scores
        tell("votes", 0.1 + 0.45 * (i + 1) / len(COMPLEXITIES))
    assert best is not None
    return best[1], best[2]


def _worth(examples: Examples, votes: "NDArray[np.int32]", scores: Scores) -> float:
    """Accuracy of what is released less its Brier score: answers must be right, and known to be."""
    chance, voter = ballots.score(votes, scores)
    right = np.where(voter >= 0, examples.correct[np.arange(len(votes)), voter], False)
    return float((right - (chance - right) ** 2).mean())


def _costs(examples: Examples) -> "Floats":
    """(n, m) US dollars; an expert's mean where one is missing, and one per call where none is known."""
    cost = examples.cost_usd
    known = np.isfinite(cost)
    if not known.any():
        return examples.asked.astype(np.float64)
    counts = known.sum(axis=0)
    mean = np.where(counts > 0, np.nan_to_num(cost).sum(axis=0) / np.maximum(counts, 1), 0.0)
    filled: Floats = np.where(examples.asked, np.where(known, cost, mean), 0.0)
    return filled


def _find_plans(
    explorer: plans.Explorer, best: int, folds: "Sequence[NDArray[np.intp]]", seed: int, tell: Progress
) -> "tuple[list[tuple[plans.Stages, float]], list[plans.Replayed]]":
    """All plans worth keeping, and what each did on questions that it was not chosen by.

    A plan that was searched for is judged by the search itself: at the same price of accuracy, on each
    fold in turn, with the plan that the other folds led to. Else many plans tried would look too good.
    """
    n, m = explorer.cost.shape
    begun, width = 0.55, 0.4 / (len(folds) + 1)
    tell("plans", begun)
    found = _with_easier(
        plans.search(explorer, best, seed, lambda share: tell("plans", begun + width * share))
    )
    right = np.zeros((len(found), n), np.bool_)
    cost = np.zeros((len(found), n))
    asked = np.zeros((len(found), n, m), np.bool_)
    for k, held in enumerate(folds, 1):
        rest = explorer.rows(np.setdiff1d(np.arange(n), held))
        single = int(np.argmax([rest.panel([j])[1].mean() for j in range(m)]))
        apart = explorer.rows(held)
        for i, plan in enumerate(_with_easier(plans.search(rest, single, seed))):
            did = apart.replay(*plan)
            right[i, held], cost[i, held], asked[i, held] = did.right, did.cost, did.asked
        tell("plans", begun + width * (k + 1))
    kept: list[tuple[plans.Stages, float]] = [(((j,),), 1.0) for j in range(m)]
    kept = list(dict.fromkeys([*kept, *plans.steady(explorer, best)]))
    judged = [explorer.replay(*plan) for plan in kept]
    for i, plan in enumerate(found):
        if plan not in kept:
            spent = explorer.replay(*plan).cost  # of this very plan; those of the folds may be cheaper
            kept.append(plan)
            judged.append(plans.Replayed(right[i], max(spent, cost[i], key=np.mean), asked[i]))
    return kept, judged


def _with_easier(found: "list[tuple[plans.Stages, float]]") -> "list[tuple[plans.Stages, float]]":
    return [plans.easier(plan, steps) for steps in _STEPS for plan in found]


def _plans(
    examples: Examples, kept: "Sequence[tuple[plans.Stages, float]]", choice: Choice
) -> tuple[Plan, ...]:
    made = []
    for (stages, threshold), figures in zip(kept, choice.figures, strict=True):
        names = tuple(tuple(examples.experts[j] for j in stage) for stage in stages)
        made.append(Plan(names, threshold, *figures))
    return tuple(made)
