"""From outcomes to an artefact: base, skills, ballot, plans, and which plan each policy takes.

Everything that is chosen, is chosen by cross-validation on the examples given: nothing else is read.
Deterministic by seed, whatever the number of cores: sums of linear algebra are taken by one thread each.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from manyminds.artefact import Artefact, Base, Part, Plan, is_wide
from manyminds.errors import DataError
from manyminds.learn import ballots, base, skills, trials
from manyminds.learn.ballots import COMPLEXITIES, FINER, Complexity, Scores
from manyminds.learn.examples import Examples
from manyminds.learn.plans import Explorer, Stages, costs
from manyminds.learn.policies import Choice, choose, share_prices
from manyminds.types import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Progress", "is_enough", "one_thread", "train"]

Progress = Callable[[str, float], None]
"""Told what is being done, and the share of the whole that is done."""

_FOLDS = 5
_FEWEST = 2 * _FOLDS  # questions
_PANELS = 3  # random ones, on which a complexity is judged beside the full panel
_FEW = 5000  # votes on which threads would rather wait for the interpreter than work
_READ = 0.5  # share of the questions whose texts the gateway must take for a kind
_READ_MIXED = 0.05  # the same where kinds are mixed


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A way to weigh votes, as arguments of `ballots.fit`, and the weights out of sample."""

    complexity: Complexity
    wide: bool
    scores: Scores


def train(
    examples: Examples,
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Artefact:
    """Learns all there is to learn from these outcomes.

    Questions that ask for an answer, those that ask for an option, and those of which only right or wrong
    is known, are a part each; of too few questions nothing is learnt beside others.

    Raises: DataError where there are too few questions or experts, or where scipy is not installed.
    """
    _require(examples)
    tell = progress or (lambda what, share: None)
    mixed = len(set(examples.kinds)) > 1
    parts = [part for part in examples.parts() if len(part) >= _FEWEST]
    kinds = _kinds(parts, mixed)
    made = []
    with one_thread():
        for i, part in enumerate(parts):

            def share_of(what: str, share: float, before: int = i) -> None:
                tell(what, (before + share) / len(parts))

            made.append(_train(part, kinds[i], mixed, seed, about or {}, share_of))
    choices = [choice for _, choice in made]
    shared = share_prices(choices) if len(made) > 1 else choices
    both = zip(made, shared, strict=True)
    return Artefact(tuple(replace(part, prices=choice.prices) for (part, _), choice in both))


def one_thread() -> AbstractContextManager[object]:
    """Within, sums of linear algebra are taken by one thread: threads that wait for each other are slow.

    Raises: DataError where scipy is not installed.
    """
    try:
        import scipy.optimize  # noqa: F401  its linear algebra is not numpy's, and held only once it is there
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise DataError("Learning needs scipy: pip install 'manyminds[train]'.") from error
    limits: AbstractContextManager[object] = threadpool_limits(1, "blas")
    return limits


def _kinds(parts: Sequence[Examples], mixed: bool) -> list[tuple[Kind, ...]]:
    """What each part is for: its own kinds, and those that the gateway reads off enough of its questions.

    A kind that is read off questions of several parts is for that with most of them.
    """
    own = [set(part.kinds) for part in parts]
    read = [Counter(part.read_as) if "text" not in part.kinds else Counter() for part in parts]
    found = [set(kinds) for kinds in own]
    for kind in set().union(*read) - {"text"}.union(*own):
        i = max(range(len(parts)), key=lambda i: read[i][kind])
        if read[i][kind] >= (_READ_MIXED if mixed else _READ) * len(parts[i]):
            found[i].add(kind)
    return [tuple(sorted(kinds)) for kinds in found]


def _train(
    examples: Examples,
    kinds: tuple[Kind, ...],
    mixed: bool,
    seed: int,
    about: Mapping[str, Any],
    tell: Progress,
) -> tuple[Part, Choice]:
    """`kinds` of task are what its plans are for; `mixed` says that there are others beside this part's."""
    folds = _folds(len(examples), seed)
    tell("skills", 0.0)
    made = base.make(examples)
    x = base.features(made, examples)
    shrinkage = skills.choose_shrinkage(made, x, examples, folds)
    own = skills.fit(made, x, examples, shrinkage)
    narrow, wide = None, None
    complexities = (*COMPLEXITIES, *FINER) if mixed else COMPLEXITIES
    if examples.comparable.all():
        narrow, wide = _choose_ballots(made, x, examples, folds, seed, complexities, tell)
    topics = x[:, : len(made.topics)]
    ballot, broad = (
        None if part is None else ballots.fit(own, topics, examples, part.complexity, seed, part.wide)
        for part in (narrow, wide)
    )
    scores, broad_scores = (None if part is None else part.scores for part in (narrow, wide))
    explorer = Explorer(examples, scores, costs(examples), broad_scores)
    best = int(np.argmax(examples.correct.mean(axis=0)))
    kept, judged = trials.judge(explorer, best, folds, seed, lambda share: tell("plans", 0.6 + 0.35 * share))
    choice = choose(kept, judged, made, examples, best, shrinkage, folds)
    tell("policies", 1.0)
    facts = {
        "seed": seed,
        "questions": len(examples),
        "experts": len(examples.experts),
        "shrinkage": list(shrinkage),
        "complexity": None if narrow is None else complexities.index(narrow.complexity),
        "complexity_wide": None if wide is None else complexities.index(wide.complexity),
        "priced": bool(np.isfinite(examples.cost_usd).any()),
    }
    part = Part(
        about={**about, **facts, **choice.about},
        kinds=kinds,
        base=made,
        skills=own,
        ballot=ballot,
        wide=broad,
        plans=_plans(examples, kept, choice),
        best_single=examples.experts[best],
        prices=choice.prices,
        ranking=choice.ranking,
    )
    return part, choice


def _require(examples: Examples) -> None:
    try:
        import scipy  # noqa: F401
        import threadpoolctl  # noqa: F401
    except ImportError as error:
        raise DataError("Training needs scipy: pip install 'manyminds[train]'.") from error
    largest = max(map(len, examples.parts()))
    if largest < _FEWEST:
        raise DataError(f"{largest} questions are too few to learn from: give at least {_FEWEST}.")
    if len(examples.experts) < 2:
        raise DataError("There is one expert only: a network needs at least two.")


def is_enough(examples: Examples) -> bool:
    """Whether anything can be learnt of so many experts and questions."""
    return len(examples.experts) > 1 and max(map(len, examples.parts())) >= _FEWEST


def _folds(n: int, seed: int) -> "list[NDArray[np.intp]]":
    return [np.sort(part) for part in np.array_split(np.random.default_rng(seed).permutation(n), _FOLDS)]


class _Fold:
    """One fold: the questions held out, and the others with what their outcomes say of the experts."""

    def __init__(self, made: Base, x: "Floats", examples: Examples, held: "NDArray[np.intp]") -> None:
        rest = np.setdiff1d(np.arange(len(examples)), held)
        topics = x[:, : len(made.topics)]
        self.held, self._apart, self._apart_x = held, examples.rows(held), topics[held]
        self._rest, self._rest_x = examples.rows(rest), topics[rest]
        self._own = skills.fit(made, x[rest], self._rest, skills.NO_FEATURES)

    def scores(self, complexity: Complexity, seed: int, wide: bool) -> Scores:
        """Of the questions held out."""
        ballot = ballots.fit(self._own, self._rest_x, self._rest, complexity, seed, wide)
        return ballots.cast(ballot, self._own, self._apart_x, self._apart)


def _choose_ballots(
    made: Base,
    x: "Floats",
    examples: Examples,
    folds: "Sequence[NDArray[np.intp]]",
    seed: int,
    complexities: Sequence[Complexity],
    tell: Progress,
) -> "tuple[_Chosen, _Chosen | None]":
    """How votes are weighed on any panel, and on wide ones where another ballot does better on those.

    What a vote is worth beside nearly all others need not be what it is worth beside one or two. Only the
    experts' terms are held out: the base has no share in who is right.
    """
    rng = np.random.default_rng(seed + 1)
    some = [examples.votes, *(ballots.panels(examples, rng) for _ in range(_PANELS))]
    most = [examples.votes, ballots.panels(examples, rng, wide=True)]
    parts = [_Fold(made, x, examples, held) for held in folds]
    narrow = _choose(
        parts, examples, some, seed, complexities, False, lambda share: tell("votes", 0.1 + 0.3 * share)
    )
    wide = _choose(
        parts, examples, most, seed, complexities, True, lambda share: tell("votes", 0.4 + 0.2 * share)
    )
    better = 0.0
    for votes in most:
        rows = np.flatnonzero(is_wide((votes >= 0).sum(axis=1), len(examples.experts)))
        gained = _worth(examples, votes, wide.scores) - _worth(examples, votes, narrow.scores)
        better += float(gained[rows].sum())
    return narrow, wide if better > 0.0 else None


def _choose(
    parts: "Sequence[_Fold]",
    examples: Examples,
    judged: "Sequence[NDArray[np.int32]]",
    seed: int,
    complexities: Sequence[Complexity],
    wide: bool,
    tell: Callable[[float], None],
) -> "_Chosen":
    """The complexity that does best out of sample on the panels given, and what votes then weigh."""
    n, m = examples.votes.shape
    best: tuple[float, _Chosen] | None = None
    pool = ThreadPoolExecutor(1 if n * m < _FEW else os.cpu_count())
    try:
        each = pool.map(lambda at: at[1].scores(at[0], seed, wide), product(complexities, parts))
        for i, complexity in enumerate(complexities):
            scores = Scores(np.zeros((n, m)), np.zeros(n), np.zeros((n, m)))
            for part in parts:
                found = next(each)
                scores.weights[part.held], scores.other[part.held] = found.weights, found.other
                scores.dilution[part.held] = found.dilution
            worth = sum(float(_worth(examples, votes, scores).mean()) for votes in judged)
            if best is None or worth > best[0]:
                best = worth, _Chosen(complexity, wide, scores)
            tell((i + 1) / len(complexities))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest
    assert best is not None
    return best[1]


def _worth(examples: Examples, votes: "NDArray[np.int32]", scores: Scores) -> "Floats":
    """(n,): whether what is released is right, less its Brier score: it must be right, and known to be."""
    chance, voter = ballots.score(votes, scores, examples.sources)
    right = np.where(voter >= 0, examples.correct[np.arange(len(votes)), voter], False)
    worth: Floats = right - (chance - right) ** 2
    return worth


def _plans(examples: Examples, kept: "Sequence[tuple[Stages, float]]", choice: Choice) -> tuple[Plan, ...]:
    made = []
    for (stages, threshold), figures in zip(kept, choice.figures, strict=True):
        names = tuple(tuple(examples.experts[j] for j in stage) for stage in stages)
        made.append(Plan(names, threshold, *figures))
    return tuple(made)
