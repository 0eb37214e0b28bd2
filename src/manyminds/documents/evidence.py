"""What passages say to a question, and how surely they answer it. Pure but for the encoder that it is given.

Every sentence of the best passages is judged by a few features, as is the best of them: a logistic model
each, fitted by `manyminds bench documents --fit` on calibration questions.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from manyminds.documents.nouns import Found, Passage
from manyminds.documents.sentences import numbers, sentences
from manyminds.documents.words import terms
from manyminds.types import Embed

__all__ = ["Claim", "Evidence", "Reader", "rests_on"]

_READ: Final = 5  # passages that are read sentence by sentence
_JUDGED: Final = 12  # sentences that are compared with the question as vectors
_CHARS: Final = 400  # of a sentence
_QUANTITY: Final = re.compile(
    r"(?i)\bhow (?:many|much|high|tall|deep|far|long|old|large|big|heavy|hot|cold|fast|wide|often)\b|\bwhen\b"
    r"|\b(?:what|which) (?:year|number|date|percentage|temperature|code|port|size|value|elevation|altitude)\b"
    r"|\b(?:population|area|number|temperature|weight|mass|elevation|altitude|density|year|radius|size) of\b"
    r"|\b(?:point|year|number|population|elevation|density|mass|weight)\b"
)


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of a passage, and the probability that it answers the question."""

    passage: Passage
    sentence: str
    probability: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What passages say: claims, the likeliest first, and the probability that the first one answers."""

    support: float
    claims: tuple[Claim, ...]
    passages: tuple[Passage, ...]


class Reader:
    """Judges passages. Stateless but for its coefficients.

    Args:
        model: the coefficients; those that came with manyminds, without.
    """

    def __init__(self, model: "Coefficients | None" = None) -> None:
        self._model = model or coefficients()

    @property
    def threshold(self) -> float:
        """The support below which nothing is answered."""
        return self._model.threshold

    def read(self, question: str, found: Found, embed: Embed) -> Evidence | None:
        """What the passages say to it; None where there are none."""
        claims = self.claims(question, found, embed)
        if not claims:
            return None
        support = _logistic(self._model.support, support_features(question, found, claims))
        return Evidence(support, tuple(claims), found.passages[:_READ])

    def claims(self, question: str, found: Found, embed: Embed) -> list[Claim]:
        """The sentences, the likeliest first."""
        judged = candidates(question, found, embed)
        made = [Claim(p, s, _logistic(self._model.claim, x)) for p, s, x in judged]
        return sorted(
            made, key=lambda c: (-c.probability, c.passage.document, c.passage.paragraph, c.sentence)
        )


# --- features --------------------------------------------------------------------------------------


class _Asked:
    """A question as its words, each with its inverse document frequency in nats."""

    def __init__(self, question: str, found: Found) -> None:
        rare = max(math.log(1.0 + found.paragraphs), 1.0)
        self.weights = {term: weight / rare for term, weight in found.weights.items()}
        self.total = math.fsum(self.weights.values())
        self.heaviest = max(self.weights.values(), default=0.0)
        self.numbers = numbers(question)
        self.wants_number = _QUANTITY.search(question) is not None
        self.unknown = {term for word in found.unknown for term in terms(word)}

    def share(self, said: set[str]) -> float:
        """Of its words by weight, how many are said."""
        return (
            math.fsum(w for word, w in self.weights.items() if word in said) / self.total
            if self.total
            else 0.0
        )

    def missed(self, said: set[str]) -> float:
        """The weight of the heaviest word that is not."""
        return max((w for word, w in self.weights.items() if word not in said), default=0.0)


def candidates(question: str, found: Found, embed: Embed) -> list[tuple[Passage, str, list[float]]]:
    """Sentences of the best passages, with the features by which `Reader` judges them."""
    asked = _Asked(question, found)
    listed: list[tuple[float, Passage, str, int]] = []
    for rank, passage in enumerate(found.passages[:_READ]):
        around = set(terms(f"{passage.document} {passage.heading}"))
        for sentence in sentences(passage.text):
            share = asked.share(around | set(terms(sentence))) + 0.2 * passage.cosine
            listed.append((share, passage, sentence[:_CHARS], rank))
    listed = sorted(listed, key=lambda one: (-one[0], one[3], one[2]))[:_JUDGED]
    if not listed:
        return []
    texts = [
        f"{passage.heading}: {sentence}" if passage.heading else sentence
        for _, passage, sentence, _ in listed
    ]
    vectors = embed([question, *texts])
    near = vectors[1:] @ vectors[0]
    best = max(passage.score for _, passage, _, _ in listed)
    return [
        (passage, sentence, _of_sentence(asked, passage, sentence, float(cosine), passage.score / best))
        for (_, passage, sentence, _), cosine in zip(listed, near, strict=True)
    ]


def _of_sentence(asked: _Asked, passage: Passage, sentence: str, cosine: float, score: float) -> list[float]:
    said = set(terms(sentence))
    headed = set(terms(f"{passage.document} {passage.heading}"))
    whole = said | headed | set(terms(passage.text))
    fresh = numbers(sentence) - asked.numbers
    news = len(said - asked.weights.keys())
    return [
        1.0,
        cosine,
        passage.cosine,
        asked.share(said),
        asked.share(said | headed),
        asked.share(whole),
        asked.missed(whole),
        score,
        float(asked.wants_number and bool(fresh)),
        float(asked.wants_number and not fresh),
        float(news == 0),
        math.log1p(len(said)),
    ]


def support_features(question: str, found: Found, claims: Sequence[Claim]) -> list[float]:
    """Of all that was found, by which it is told whether the first claim answers."""
    asked, first = _Asked(question, found), claims[0]
    said = set(terms(f"{first.passage.document} {first.passage.heading} {first.passage.text}"))
    others = [c.probability for c in claims[1:]]
    near = max(p.cosine for p in found.passages)
    return [
        1.0,
        _logit(first.probability),
        _logit(first.probability) - _logit(max(others, default=0.01)),
        near,
        first.passage.cosine,
        asked.share(said),
        asked.missed(said),
        sum(asked.weights.get(w, 0.0) for w in asked.unknown) / asked.total if asked.total else 0.0,
        max((asked.weights.get(w, 0.0) for w in asked.unknown), default=0.0),
    ]


def _logistic(weights: Sequence[float], x: Sequence[float]) -> float:
    z = math.fsum(w * value for w, value in zip(weights, x, strict=True))
    return 1.0 / (1.0 + math.exp(-min(max(z, -30.0), 30.0)))


def _logit(p: float) -> float:
    p = min(max(p, 1e-4), 1 - 1e-4)
    return math.log(p / (1 - p))
