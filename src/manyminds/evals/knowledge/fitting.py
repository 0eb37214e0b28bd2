"""The coefficients by which a reader of documents judges passages, fitted to calibration questions.

Each question is put to who knows, to somebody else and to everything pooled, so that what is learnt holds for
small libraries and large ones, and where the answer is not.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from manyminds.documents import Found, Library, Passage
from manyminds.documents.evidence import Coefficients, Reader, answering, passage_features, support_features
from manyminds.errors import DataError
from manyminds.evals.knowledge.grading import cited
from manyminds.evals.knowledge.questions import Question
from manyminds.router.reach import reach
from manyminds.types import Citation, Embed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from manyminds.types import Vectors

    Floats = NDArray[np.float64]

__all__ = ["POOLED", "Seen", "dimensions", "fit", "look", "nearness", "tells"]

POOLED: Final = "pooled"
"""Name of the library of all owners' documents."""

_RIDGE: Final = 1.0
_PASSAGES: Final = 8
_DIGITS: Final = 4


class Seen(NamedTuple):
    """One search: the question in one wording, whose library it was put to, and what came of it.

    `features` and `holds` are aligned with the passages that were read: by what each is judged, and whether
    it tells the answer.
    """

    question: Question
    asked: str
    owner: str
    found: Found
    features: tuple[tuple[float, ...], ...]
    holds: tuple[bool, ...]


def tells(question: Question, owner: str, passage: Passage) -> bool:
    """Whether a passage of an owner's library tells the answer."""
    document = passage.document if owner == POOLED else f"{owner}/{passage.document}"
    citation = Citation(owner, document=document, heading=passage.heading)
    return cited(question, [citation], [passage.text])


def look(
    questions: Sequence[Question],
    libraries: Mapping[str, Library],
    embed: Embed,
    seed: int = 0,
    done: Callable[[int, int], None] = lambda n, of: None,
) -> list[Seen]:
    """Puts each question, in one of its wordings, to its owner, to another one and to `POOLED`.

    Raises: DataError where there are fewer than two owners.
    """
    rng = random.Random(seed)  # noqa: S311
    owners = sorted(libraries.keys() - {POOLED})
    if len(owners) < 2:
        raise DataError(f"There are {len(owners)} owners to ask; it takes two to learn who does not know.")
    seen = []
    for n, question in enumerate(questions, 1):
        asked = rng.choice(question.phrasings)
        own = question.near or rng.choice(owners)
        other = rng.choice([owner for owner in owners if owner != own])
        (vector,) = embed([asked])
        for owner in (own, other, POOLED):
            found = libraries[owner].search(asked, vector, _PASSAGES)
            judged = passage_features(asked, found, embed)
            seen.append(
                Seen(
                    *(question, asked, owner, found, tuple(tuple(x) for _, x in judged)),
                    tuple(tells(question, owner, passage) for passage, _ in judged),
                )
            )
        done(n, len(questions))
    return seen


def fit(seen: Iterable[Seen]) -> Coefficients:
    """A conditional logit over passages, a logistic regression upon it, and the threshold that serves best.

    Serves best: the share of answerable questions that are answered from passages which tell it, and that
    of the others which are declined, are largest together, among who was asked in their own field or pooled.

    Raises: DataError where in no search some passages told the answer and others did not, or nobody was asked
        a question in their own field that can be answered.
    """
    every = [one for one in seen if one.features]
    telling = [one for one in every if any(one.holds) and not all(one.holds)]
    asked = [one for one in every if one.owner in (POOLED, one.question.near) and one.question.answerable]
    if not telling or not asked:
        raise DataError(
            f"Nothing can be fitted to {len(every)} searches: none of them tells right from wrong."
        )
    passage = _ranking(telling)
    reader = Reader(Coefficients(passage, (), 0.0))
    ranked = [(one, reader.ranked(one.found, one.features)) for one in every]
    x = np.array([support_features(one.asked, one.found, claims) for one, claims in ranked])
    places = [{p.id: i for i, p in enumerate(one.found.passages)} for one in every]
    right = np.array(
        [
            any(one.holds[at[claim.passage.id]] for claim in answering(claims))
            for (one, claims), at in zip(ranked, places, strict=True)
        ]
    )
    support = _logistic(x, right.astype(float))
    chance = _chance(x, np.array(support))
    counted = np.array([one.owner in (POOLED, one.question.near) for one in every])
    knowable = np.array([one.question.answerable for one in every])
    return Coefficients(passage, support, _threshold(chance[counted], right[counted], knowable[counted]))


def nearness(
    questions: Sequence[Question],
    vectors: "Mapping[str, Vectors]",
    paragraphs: Mapping[str, int],
    embed: Embed,
) -> tuple[float, float]:
    """Constant and slope of the log-odds that an owner knows, by `router.reach`. By owner, `vectors` are
    those of the profile, and `paragraphs` how many there are.
    """
    asked = [(question, text) for question in questions for text in question.phrasings]
    rows = embed([text for _, text in asked])
    near = {owner: [reach(row, of, paragraphs[owner]) for row in rows] for owner, of in vectors.items()}
    x = np.array([[1.0, float(of[i])] for of in near.values() for i in range(len(asked))])
    y = np.array([question.corpus == owner for owner in near for question, _ in asked], float)
    constant, slope = _logistic(x, y)
    return constant, slope


def dimensions(
    seen: Iterable[Seen], vectors: "Mapping[str, Vectors]", paragraphs: Mapping[str, int], embed: Embed
) -> float:
    """In how many dimensions paragraphs differ from their summaries, for `router.reach`: with these, the
    cosine that it foretells is right on average, of questions and of who knows.
    """
    known = [one for one in seen if one.question.corpus == one.owner and one.found.passages]
    rows = embed([one.asked for one in known])
    nearest = np.array([max(passage.cosine for passage in one.found.passages) for one in known])

    def bias(tried: float) -> float:
        foretold = [
            reach(row, vectors[one.owner], paragraphs[one.owner], tried)
            for one, row in zip(known, rows, strict=True)
        ]
        return abs(float(np.mean(nearest - np.array(foretold))))

    return min((float(tried) for tried in range(10, 101)), key=bias)


def _threshold(chance: "Floats", right: "NDArray[np.bool_]", knowable: "NDArray[np.bool_]") -> float:
    tried = np.linspace(0.05, 0.95, 91)
    gained = [
        (right & knowable & (chance >= t)).sum() / knowable.sum()
        + (~knowable & (chance < t)).sum() / max(1, (~knowable).sum())
        for t in tried
    ]
    return round(float(tried[int(np.argmax(gained))]), _DIGITS)


def _ranking(seen: Sequence[Seen]) -> tuple[float, ...]:
    """Ridge conditional logit: the likelihood that a passage which tells the answer is chosen."""
    from scipy.optimize import minimize

    groups = [(np.array(one.features), np.array(one.holds)) for one in seen]

    def loss(weights: "Floats") -> "tuple[float, Floats]":
        total, gradient = _RIDGE * float(weights @ weights) / 2, _RIDGE * weights
        for x, holds in groups:
            mass = np.exp((scores := x @ weights) - scores.max())
            mass /= mass.sum()
            told = mass[holds].sum() + 1e-12  # of what is never chosen
            total -= np.log(told)
            gradient = gradient + x.T @ (mass - np.where(holds, mass / told, 0.0))
        return total, gradient

    found = minimize(loss, np.zeros(groups[0][0].shape[1]), jac=True, method="L-BFGS-B")
    return tuple(round(float(value), _DIGITS) for value in found.x)


def _logistic(x: "Floats", y: "Floats") -> tuple[float, ...]:
    """Ridge logistic regression by Newton's method; the constant, which comes first, is not shrunk."""
    found = np.zeros(x.shape[1])
    ridge = np.eye(x.shape[1]) * _RIDGE
    ridge[0, 0] = 1e-6
    for _ in range(50):
        p = _chance(x, found)
        gradient = x.T @ (p - y) + ridge @ found
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + ridge, gradient)
        found -= step
        if np.abs(step).max() < 1e-9:
            break
    return tuple(round(float(value), _DIGITS) for value in found)


def _chance(x: "Floats", weights: "Floats") -> "Floats":
    chance: Floats = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
    return chance
