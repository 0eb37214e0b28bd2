"""`manyminds eval DIR --private`: how right private answers are, by epsilon, by their number, by sources.

What is graded is what is released: the option with the most votes once every count has its noise, drawn as it
is where callers are answered. Learns nothing; knows no command.
"""

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from manyminds.combine.private import GRAIN, noised, variance_of
from manyminds.errors import DataError
from manyminds.evals.metrics import mean_interval
from manyminds.evals.report import Selection
from manyminds.experts.recorded import Question, Recorded
from manyminds.learn.examples import Examples, gather
from manyminds.privacy.accounting import most_rho
from manyminds.private.poll import needed
from manyminds.router.predictor import log_odds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Votes = NDArray[np.int32]

__all__ = ["ANSWERS", "EPSILONS", "SIMULATED", "Progress", "measure"]

Progress = Callable[[str, float], None]
"""Is told what is being done, and the share of it that is done."""

EPSILONS: Final = (1.0, 4.0, 8.0)
"""What all answers together may tell of any one source."""

ANSWERS: Final = (1, 50, 500)
"""How many they are."""

_MOST: Final = 10_000  # questions of split test

SIMULATED: Final = (100, 1000)
"""Sources of populations that are drawn from the recorded ones."""


@dataclass(frozen=True, slots=True, eq=False)
class _Population:
    """Sources that vote on n questions: (n, m) places among each question's options, -1 abstains."""

    name: str
    votes: "Votes"
    weights: Sequence[int]


def measure(
    selection: Selection,
    *,
    questions: int = _MOST,
    delta: float = 1e-6,
    seed: int = 0,
    progress: Progress = lambda what, share: None,
) -> dict[str, Any]:
    """Accuracy of private answers, of the same vote without noise, and of the best single model.

    Public options are a question's own choices; where it has none, the labels of its category. The best
    single model, and the weights of the population that has any, come from calibration and validation;
    accuracy from test. Of each source one expert votes.

    Args:
        selection: of a set whose answers can be compared.
        questions: of split test at most, drawn.
        delta: of all answers together.
        seed: of questions, populations, noise and intervals.
        progress: told how far it is.

    Raises: DataError where there are no questions of test, no answers, or no public options; ConfigError
        where dp-accounting is not installed.
    """
    every = selection.of("test")
    rng = np.random.default_rng(seed)
    asked = [every[i] for i in np.sort(rng.permutation(len(every))[:questions])]
    known = gather(selection.experts, selection.of("calibration", "validation"), selection.recorded)
    tested = gather(selection.experts, asked, selection.recorded)
    options = _options(asked, selection.questions)
    votes = _places(tested, options)
    if not asked or not (votes >= 0).any() or not all(len(own) > 1 for own in options):
        raise DataError(
            f"{selection.name}: a private answer is one of some public options, and its questions of split "
            "test have no choices and no labels."
        )
    gold = np.array(
        [own.index(q.gold) if q.gold in own else -1 for q, own in zip(asked, options, strict=True)]
    )
    accuracy = known.correct.sum(axis=0) / np.maximum(known.asked.sum(axis=0), 1)
    best = int(np.argmax(accuracy))
    counts = [len(own) for own in options]
    kept = _one_of_each(selection.experts)
    classes = max(2, round(float(np.mean(counts))))
    populations = _populations(votes[:, kept], accuracy[kept], classes, rng)
    rows = []
    for i, population in enumerate(populations):
        progress("release", i / len(populations))
        rows.append(_measured(population, counts, gold, delta, seed))
    return {
        **selection.about,
        "seed": seed,
        "delta": delta,
        "models": len(tested.experts),
        "n_test": len(asked),
        "options": [min(counts), max(counts)],
        "best_single": {
            "model": tested.experts[best],
            "accuracy": _interval(tested.correct[:, best], seed),
        },
        "populations": rows,
    }


def _one_of_each(experts: Sequence[Recorded]) -> list[int]:
    """Positions among all, by name, of one expert of each source, as a poll takes one: the largest."""
    names = sorted(expert.card.name for expert in experts)
    found: dict[str, str] = {}
    for card in sorted((e.card for e in experts), key=lambda c: (bool(c.variant_of), -c.parameters, c.name)):
        found.setdefault(card.source or card.name, card.name)
    return sorted(names.index(name) for name in found.values())


def _options(asked: Sequence[Question], every: Sequence[Question]) -> list[tuple[str, ...]]:
    """Of each question its own, by letter; else the labels of its category, which are public."""
    labels: dict[str, set[str]] = {}
    for question in every:
        if question.gold and not question.choices:
            labels.setdefault(question.category, set()).add(question.gold)
    known = {category: tuple(sorted(own)) for category, own in labels.items()}
    return [
        tuple(string.ascii_uppercase[: len(question.choices)])
        if question.choices
        else known.get(question.category, ())
        for question in asked
    ]


def _places(tested: Examples, options: Sequence[tuple[str, ...]]) -> "Votes":
    """(n, m): the place of each expert's answer among the question's options; -1 where it has none there."""
    found = np.full(tested.votes.shape, -1, np.int32)
    for i, (answers, own) in enumerate(zip(tested.candidates, options, strict=True)):
        place = {option: k for k, option in enumerate(own)}
        by_answer = np.array([place.get(answer, -1) for answer in answers] or [-1], np.int32)
        given = tested.votes[i]
        found[i] = np.where(given >= 0, by_answer[np.maximum(given, 0)], -1)
    return found


def _populations(
    votes: "Votes", accuracy: "NDArray[np.float64]", classes: int, rng: np.random.Generator
) -> list[_Population]:
    """The recorded sources, twice, and simulated ones."""
    models = votes.shape[1]
    odds = [max(log_odds(float(share), classes), 0.0) for share in accuracy]
    heaviest = max([*odds, 1e-9])
    found = [
        _Population(f"{models} recorded", votes, [GRAIN] * models),
        _Population(
            f"{models} recorded, weighted by what they are known for",
            *(votes, [round(GRAIN * one / heaviest) for one in odds]),
        ),
    ]
    for count in SIMULATED:
        drawn = rng.integers(models, size=(len(votes), count))
        own = np.take_along_axis(votes, drawn, axis=1)
        found.append(_Population(f"{count:,} simulated", own, [GRAIN] * count))
    return found


def _measured(
    population: _Population, counts: Sequence[int], gold: "NDArray[np.int64]", delta: float, seed: int
) -> dict[str, Any]:
    """What is released of a population, by epsilon and by number of answers; and without noise."""
    weights = population.weights
    tallies = _tallies(population, counts)
    plain = np.array([max(tally) > 0 and tally.index(max(tally)) for tally in tallies])
    heard = np.array([max(tally) > 0 for tally in tallies])
    released = []
    for epsilon in EPSILONS:
        for answers in ANSWERS:
            rho = most_rho(epsilon, delta) / answers
            variance = variance_of(rho)
            below = Random(f"{seed} {population.name} {epsilon} {answers}").randrange  # noqa: S311 - repeated
            right = np.array([noised(tally, variance, below) for tally in tallies]) == gold
            released.append(
                {
                    "epsilon": epsilon,
                    "answers": answers,
                    "accuracy": _interval(right, seed),
                    "sources_needed": needed(rho),
                    "refused": sum(weights) / GRAIN < needed(rho),
                }
            )
    return {
        "population": population.name,
        "sources": len(weights),
        "effective": round(sum(weights) / GRAIN, 2),
        "without_noise": _interval((plain == gold) & heard, seed),
        "released": released,
    }


def _tallies(population: _Population, counts: Sequence[int]) -> list[list[int]]:
    """The weight of each option of each question: what `combine.private.counted` says, all at once."""
    votes, weights = population.votes, np.array(population.weights, np.int64)
    table = np.zeros((len(votes), max(counts)), np.int64)
    rows, columns = np.nonzero(votes >= 0)
    np.add.at(table, (rows, votes[rows, columns]), weights[columns])
    return [row[:count] for row, count in zip(table.tolist(), counts, strict=True)]


def _interval(right: "NDArray[np.bool_]", seed: int) -> list[float]:
    return [round(figure, 6) for figure in mean_interval(right.astype(np.float64), seed)]
