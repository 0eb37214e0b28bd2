"""What the network must beat: the best single model, simple votes, and what no selector can pass.

Arrays in, arrays out: pure. Everything is chosen on the questions learnt from. Knows no router and no file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from manyminds.artefact import Artefact, familiar
from manyminds.learn import base, skills
from manyminds.learn.examples import Examples

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]

__all__ = [
    "Control",
    "best_per_category",
    "best_single",
    "controls",
    "first_parsed",
    "log_odds",
    "oracle",
    "probabilities",
    "ranked",
    "router_only",
    "single",
    "vote",
]

_PRIOR = 20  # questions that an expert's accuracy overall counts for in a category
_CLIP = 0.02  # of an accuracy: nobody is always right, nor always wrong
_FEW, _MORE = 3, 5  # experts of the small votes


@dataclass(frozen=True, slots=True, eq=False)
class Control:
    """What n questions come to under a simple rule.

    Attributes:
        correct: (n,) bool, of the answer released.
        cost_usd: (n,) of all that was asked, NaN where it is not recorded; None for what nobody can run.
        about: what was chosen: one model's name, or how many vote.
    """

    correct: "Bools"
    cost_usd: "Floats | None"
    about: str = ""


def controls(train: Examples, test: Examples, artefact: Artefact) -> dict[str, Control | None]:
    """All baselines by name, on `test`; None where answers cannot be compared, or there are no categories.

    Where only some can, the best single expert is asked the others. Both have the same experts.
    """
    compared, order = test.comparable, ranked(train)
    everyone, few = np.arange(len(order)), order[:_FEW]
    equal = 1.0 + _accuracies(train) / (2 * len(order))  # accuracy breaks ties and nothing else
    votes: dict[str, Callable[[Examples], Control]] = {
        "first_parsed": lambda test: first_parsed(test, order),
        "majority": lambda test: vote(test, everyone, equal),
        "majority_top_3": lambda test: vote(test, few, equal),
        "log_odds": lambda test: log_odds(train.rows(np.flatnonzero(train.comparable)), test),
    }
    usual = single(test, int(order[0]))
    some = test.rows(np.flatnonzero(compared))
    found = {name: _where(compared, cast(some), usual) if len(some) else None for name, cast in votes.items()}
    per_category = best_per_category(train, test)
    routed = {"router_only": router_only(test, artefact), "oracle": oracle(test)}
    return {"first_parsed": found.pop("first_parsed"), "best_per_category": per_category, **found, **routed}


def _where(compared: "Bools", voted: Control, usual: Control) -> Control:
    """The vote where answers can be compared, `usual` elsewhere."""
    assert voted.cost_usd is not None
    assert usual.cost_usd is not None
    correct, cost = usual.correct.copy(), usual.cost_usd.copy()
    correct[compared], cost[compared] = voted.correct, voted.cost_usd
    return Control(correct, cost, voted.about)


def ranked(train: Examples) -> "NDArray[np.intp]":
    """The experts by accuracy, best first, ties by name. What one was not asked counts as wrong."""
    return np.argsort(-_accuracies(train), kind="stable")


def best_single(train: Examples) -> int:
    """Position of the most accurate expert."""
    return int(ranked(train)[0])


def single(test: Examples, expert: int) -> Control:
    """One expert, asked everything."""
    return _picked(test, np.full(len(test), expert), test.experts[expert])


def first_parsed(test: Examples, order: "NDArray[np.intp]") -> Control:
    """The first expert of `order` that does not abstain; where all do, the first. All until then are paid."""
    answered = test.votes[:, order] >= 0
    stop = np.where(answered.any(axis=1), answered.argmax(axis=1), len(order) - 1)
    pick = np.where(answered.any(axis=1), order[stop], order[0])
    paid = np.arange(len(order)) <= stop[:, None]
    cost = np.where(paid, _spent(test)[:, order], 0.0).sum(axis=1)
    return Control(_picked(test, pick).correct, cost, test.experts[order[0]])


def best_per_category(train: Examples, test: Examples) -> Control | None:
    """The expert of each category by its accuracy there, shrunk to its accuracy overall.

    So a category with few questions goes by what is known overall. None with fewer than two categories.
    """
    topics = sorted(set(train.topics))
    if len(topics) < 2:
        return None
    overall = _accuracies(train)
    chosen = {}
    for topic in topics:
        rows = np.array([t == topic for t in train.topics])
        chosen[topic] = int(np.argmax(train.correct[rows].sum(axis=0) + _PRIOR * overall))
    usual = best_single(train)
    return _picked(test, np.array([chosen.get(topic, usual) for topic in test.topics], np.int64))


def vote(test: Examples, experts: "NDArray[np.intp]", weights: "Floats") -> Control:
    """The candidate of most weight (m,) among `experts`; released is its heaviest voter's answer.

    Ties go to the candidate of the earliest expert, and to the earliest voter; where all abstain, the
    heaviest expert speaks. All are paid.
    """
    n = len(test)
    order = experts[np.argsort(-weights[experts], kind="stable")]
    votes, rows = test.votes[:, order], np.arange(n)
    scores = np.full((n, max(map(len, test.candidates), default=0) + 1), -np.inf)
    for column, expert in enumerate(order):
        cast = rows[votes[:, column] >= 0]
        at = cast, votes[cast, column]
        scores[at] = np.where(np.isneginf(scores[at]), 0.0, scores[at]) + weights[expert]
    held = np.take_along_axis(scores, np.maximum(votes, 0), axis=1)
    held = np.where(votes >= 0, held, -np.inf)
    first = held.argmax(axis=1)  # of the winner's voters, the heaviest: columns are in order of weight
    cost = _spent(test)[:, order].sum(axis=1)
    return Control(_picked(test, order[first]).correct, cost, f"{len(order)} models")


def log_odds(train: Examples, test: Examples) -> Control:
    """Votes of weight ln((C-1)p/(1-p)) of everyone, or of the top five where they do better on `train`.

    Nitzan and Paroush 1982, for errors that fall evenly on C-1 wrong answers.
    """
    p = np.clip(_accuracies(train), _CLIP, 1 - _CLIP)
    weights = np.log((max(train.classes, 2.0) - 1) * p / (1 - p))
    order = ranked(train)
    panels = (np.arange(len(order)), order[:_MORE])
    panel = max(panels, key=lambda panel: float(vote(train, panel, weights).correct.mean()))
    return vote(test, panel, weights)


def router_only(test: Examples, artefact: Artefact) -> Control:
    """The likeliest expert of each question, alone; the best of all where nothing is known of any."""
    chance = probabilities(test, artefact)
    usual = test.experts.index(artefact.parts[0].best_single)
    likeliest = np.nan_to_num(chance, nan=-1.0).argmax(axis=1)
    return _picked(test, np.where(np.isnan(chance).all(axis=1), usual, likeliest))


def probabilities(test: Examples, artefact: Artefact) -> "Floats":
    """(n, m): p(correct) of every expert of `test`, as the artefact predicts it.

    NaN where it does not, or where the expert was not asked such questions.
    """
    chance = np.full(test.votes.shape, np.nan)
    for part in artefact.parts:
        rows = np.flatnonzero([kind in part.kinds for kind in test.kinds])
        place = {name: j for j, name in enumerate(part.skills.experts)}
        columns = np.flatnonzero([name in place for name in test.experts])
        learnt = [place[test.experts[j]] for j in columns]
        if len(rows):
            x = base.features(part.base, test.rows(rows))
            likely = skills.predict(x, part.skills.weights[learnt])
            known = familiar(part.base, part.skills, x)[:, learnt]
            chance[np.ix_(rows, columns)] = np.where(known, likely, np.nan)
    return chance


def oracle(test: Examples) -> Control:
    """Right wherever anybody is."""
    return Control(np.asarray(test.correct.any(axis=1)), None)


def _accuracies(examples: Examples) -> "Floats":
    return np.asarray(examples.correct.mean(axis=0), np.float64)


def _picked(test: Examples, pick: "NDArray[np.intp]", about: str = "") -> Control:
    """One expert (n,) for each question."""
    rows = np.arange(len(test))
    return Control(test.correct[rows, pick], _spent(test)[rows, pick], about)


def _spent(examples: Examples) -> "Floats":
    """(n, m) US dollars: nothing where an expert was not asked, NaN where none is recorded."""
    priced = np.isfinite(examples.cost_usd).any(axis=0)
    return np.where(examples.asked | ~priced, examples.cost_usd, 0.0)
