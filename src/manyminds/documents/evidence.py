"""What passages say to a question, and how surely they answer it. Pure but for the encoder that it is given.

The best passages are ranked by a few features (a conditional logit). Then it is judged (by a logistic model)
whether the first of them answers; or, where it is open which of the first two does, whether one of them does.
Both are fitted by `manyminds bench documents --fit` on calibration questions.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from manyminds.documents.nouns import Found, Passage
from manyminds.documents.sentences import numbers, sentences
from manyminds.documents.words import terms
from manyminds.types import Embed

__all__ = [
    "Claim",
    "Coefficients",
    "Evidence",
    "Reader",
    "answering",
    "passage_features",
    "quoted",
    "quotes",
    "rests_on",
    "support_features",
]

_READ: Final = 6  # passages that are read sentence by sentence
_JUDGED: Final = 18  # sentences that are compared with the question as vectors
_CHARS: Final = 400  # of a sentence, and of what is quoted
_OPEN: Final = 0.2  # probability of the second claim from which on it is told beside the first
_NAMED: Final = re.compile(r"[A-Z0-9]|\w[./_:]\w|^--?\w")
"""What may be a name: it has capitals, digits or signs within."""
_SLACK: Final = 1e-4  # of a probability, whose log-odds stay finite
_NEARNESS: Final = 5  # place among the features of a passage
_MATCH: Final = 6

_Judged: TypeAlias = tuple[Passage, str, Sequence[float]]
"""A passage that was read, the sentence of it that is nearest to the question, and its features."""


class Coefficients(Struct, frozen=True):
    """What was fitted: see `Reader`.

    Attributes:
        passage: one for each of `passage_features`.
        support: one for each of `support_features`.
        threshold: the support below which nothing is answered.
    """

    passage: tuple[float, ...]
    support: tuple[float, ...]
    threshold: float


@dataclass(frozen=True, slots=True)
class Claim:
    """A passage, and the sentence in it that is nearest to the question.

    Attributes:
        nearness: cosines of question and sentences, the highest: under the heading; and without names.
        score: by which claims are ranked.
        probability: that it is this one which answers, if any of them does.
    """

    passage: Passage
    sentence: str
    nearness: tuple[float, float]
    score: float
    probability: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What passages say: claims, the likeliest first, and the probability that the `answering` ones do."""

    support: float
    claims: tuple[Claim, ...]


class Reader:
    """Judges passages.

    Args:
        fitted: the coefficients; those that came with manyminds, without.
    """

    def __init__(self, fitted: Coefficients | None = None) -> None:
        self._fitted = fitted or _shipped()

    @property
    def threshold(self) -> float:
        """The support below which nothing is answered."""
        return self._fitted.threshold

    def read(self, question: str, found: Found, embed: Embed) -> Evidence | None:
        """What the passages say to it; None where there are none."""
        asked = _Asked(question, found)
        claims = self._ranked(_judged(asked, found, embed))
        if not claims:
            return None
        return Evidence(self._support(asked, found, claims), tuple(claims))

    def support(self, question: str, found: Found, claims: Sequence[Claim]) -> float:
        """The probability that the `answering` of these claims do."""
        return self._support(_Asked(question, found), found, claims)

    def _support(self, asked: "_Asked", found: Found, claims: Sequence[Claim]) -> float:
        return _logistic(self._fitted.support, _supporting(asked, found, claims))

    def ranked(self, found: Found, features: Sequence[Sequence[float]]) -> list[Claim]:
        """Claims without their sentences, the likeliest first, from `passage_features`."""
        read = zip(found.passages, features, strict=False)  # of more passages than were read
        return self._ranked([(passage, "", x) for passage, x in read])

    def _ranked(self, judged: Iterable[_Judged]) -> list[Claim]:
        fitted = self._fitted.passage
        every = list(judged)
        scores = [math.fsum(w * value for w, value in zip(fitted, x, strict=True)) for _, _, x in every]
        masses = [math.exp(score - max(scores)) for score in scores]
        total = math.fsum(masses)
        claims = [
            Claim(passage, sentence, (x[_NEARNESS], x[_MATCH]), score, mass / total)
            for (passage, sentence, x), score, mass in zip(every, scores, masses, strict=True)
        ]
        return sorted(claims, key=lambda c: (-c.probability, c.passage.document, c.passage.paragraph))


def passage_features(question: str, found: Found, embed: Embed) -> list[tuple[Passage, Sequence[float]]]:
    """By what each passage is judged: to fit `Coefficients.passage` from."""
    return [(passage, x) for passage, _, x in _judged(_Asked(question, found), found, embed)]


def support_features(question: str, found: Found, claims: Sequence[Claim]) -> list[float]:
    """By what all of them are, the likeliest first: to fit `Coefficients.support` from."""
    return _supporting(_Asked(question, found), found, claims)


def answering(claims: Sequence[Claim]) -> Sequence[Claim]:
    """Those that are told as the answer: the first, and where it is open which of two it is, the second."""
    return claims[: 2 if len(claims) > 1 and claims[1].probability >= _OPEN else 1]


def quotes(claims: Sequence[Claim], question: str) -> list[str]:
    """What is told of the `answering` claims, the likeliest first, together in the room of one: see `quoted`.

    Where the two nearest sentences have no room beside each other it is the first alone.
    """
    first, *others = answering(claims)
    reserved = len(others[0].sentence) + 1 if others else 0
    if not others or len(first.sentence) + reserved > _CHARS:
        return [quoted(first, question)]
    quote = quoted(first, question, _CHARS - reserved)
    return [quote, quoted(others[0], question, max(_CHARS - len(quote) - 1, reserved - 1))]


def quoted(claim: Claim, question: str, room: int = _CHARS) -> str:
    """The claim's sentence with as many around it as fit, behind those headings that the question names and
    the words do not. At most `room` characters without these.
    """
    told = sentences(claim.passage.text) or [claim.passage.text]
    first = last = next((i for i, one in enumerate(told) if one[:_CHARS] == claim.sentence), 0)
    most = room
    room -= len(told[first])
    while sides := [i for i in (first - 1, last + 1) if 0 <= i < len(told) and len(told[i]) < room]:
        side = min(sides, key=lambda i: len(told[i]))
        room -= len(told[side]) + 1
        first, last = min(first, side), max(last, side)
    text = " ".join(told[first : last + 1])[:most]
    asked, said = set(terms(question)), set(terms(text))
    parts = [(part, set(terms(part))) for part in claim.passage.heading.split(" > ")]
    named = [part for part, words in parts if words & asked and not words <= said]
    return f"{', '.join(named)}: {text}" if named else text


def rests_on(answer: str, question: str, passages: Sequence[Passage]) -> float:
    """Of an answer's telling words, how many are in the passages, in [0, 1]; 0 where it has none, or a number
    that neither they nor the question have. 1 where it tells nothing but what was asked. A number is one
    word, however it is written.
    """
    text = "\n".join(f"{passage.heading}\n{passage.text}" for passage in passages)
    said, asked, told = _telling(text), _telling(question), _telling(answer)
    if not told or numbers(answer) - said - asked:
        return 0.0
    told -= asked
    return len(told & said) / len(told) if told else 1.0


def _telling(text: str) -> set[str]:
    return {term for term in terms(text) if not term.isdigit()} | numbers(text)


# --- features --------------------------------------------------------------------------------------


class _Asked:
    """A question as its terms, each with its inverse document frequency, the highest there can be as 1."""

    def __init__(self, question: str, found: Found) -> None:
        rare = max(math.log1p((found.paragraphs + 0.5) / 0.5), 1.0)
        self.question = question
        self.weights = {term: min(weight / rare, 1.0) for term, weight in found.weights.items()}
        self.unknown = {term for word in found.unknown for term in terms(word)} & self.weights.keys()
        named = {token for token in question.split() if _NAMED.search(token) and terms(token)}
        self.names = {term for token in named for term in terms(token)} & self.weights.keys()
        self.rest = " ".join("it" if token in named else token for token in question.split())

    def share(self, said: set[str], of: set[str] | None = None) -> float:
        """Of its terms, or of some, by weight, what is said; 1 of none."""
        every = self.weights.keys() if of is None else of
        total = math.fsum(self.weights[term] for term in every)
        return math.fsum(self.weights[term] for term in every & said) / total if total else 1.0

    def missed(self, said: set[str], of: set[str] | None = None) -> float:
        """The weight of the heaviest term that is not, of all or of some."""
        left = self.weights.keys() - said if of is None else of - said
        return max((self.weights[term] for term in left), default=0.0)


def _judged(asked: _Asked, found: Found, embed: Embed) -> list[_Judged]:
    """Each passage that is read, its nearest sentence with the cosine, and its features."""
    read = found.passages[:_READ]
    if not read:
        return []
    nearest = _nearest(asked, read, embed)
    most_bm25 = max(max(p.bm25 for p in read), 1e-9)
    most_score = max(max(p.score for p in read), 1e-9)
    made: list[_Judged] = []
    for passage, (sentence, nearness, matching) in zip(read, nearest, strict=True):
        headed = [set(terms(part)) for part in passage.heading.split(" > ")]
        named = max((len(part & asked.weights.keys()) / len(part) for part in headed if part), default=0.0)
        said = set().union(*headed, terms(passage.text))
        x = [
            passage.bm25 / most_bm25,
            passage.score / most_score,
            named,
            asked.missed(said),
            asked.missed(said, asked.names),
            nearness,
            matching,
            math.log1p(len(passage.text)) / 6.0,
        ]
        made.append((passage, sentence, x))
    return made


def _nearest(asked: _Asked, read: Sequence[Passage], embed: Embed) -> list[tuple[str, float, float]]:
    """Of each passage the sentence that is nearest to the question, under its heading, and its cosine.

    Compared as vectors are those that have most of the question's words, and of each passage at least one.
    """
    listed = []
    for place, passage in enumerate(read):
        headed = set(terms(passage.heading))
        told = [s[:_CHARS] for s in sentences(passage.text)] or [passage.text[:_CHARS]]
        shares = [asked.share(headed | set(terms(sentence))) for sentence in told]
        best = max(shares)
        listed += [
            (share < best or sentence is not told[shares.index(best)], -share, place, i, sentence)
            for i, (sentence, share) in enumerate(zip(told, shares, strict=True))
        ]
    listed = sorted(listed)[:_JUDGED]
    alone = [sentence for *_, sentence in listed]
    headed_too = [_under(read[place].heading, sentence) for _, _, place, _, sentence in listed]
    vectors = embed([asked.question, asked.rest, *headed_too, *alone])
    near = (vectors[2 : 2 + len(listed)] @ vectors[0]).tolist()
    matched = (vectors[2 + len(listed) :] @ vectors[1]).tolist()
    found: list[tuple[str, float, float]] = [("", -1.0, -1.0)] * len(read)
    for (_, _, place, _, sentence), cosine, match in zip(listed, near, matched, strict=True):
        best_so_far, cos, mat = found[place]
        if cosine + match > cos + mat:
            best_so_far = sentence
        found[place] = (best_so_far, max(cos, cosine), max(mat, match))
    return found


def _under(heading: str, text: str) -> str:
    return f"{heading}: {text}" if heading else text


def _supporting(asked: _Asked, found: Found, claims: Sequence[Claim]) -> list[float]:
    first = claims[0]
    said = set(terms(f"{first.passage.heading} {first.passage.text}"))
    return [
        1.0,
        first.score / 10.0,
        _log_odds(first.probability),
        _log_odds(math.fsum(claim.probability for claim in answering(claims))),
        *first.nearness,
        max(passage.cosine for passage in found.passages),
        asked.share(said),
        asked.missed(said),
        asked.missed(said, asked.names),
        asked.share(said, asked.names),
        asked.missed(set(), asked.names & asked.unknown),
        asked.share(asked.unknown) if asked.weights else 0.0,
        asked.missed(set(), asked.unknown),
    ]


def _logistic(weights: Sequence[float], x: Sequence[float]) -> float:
    z = math.fsum(w * value for w, value in zip(weights, x, strict=True))
    return 1.0 / (1.0 + math.exp(-min(max(z, -30.0), 30.0)))


def _log_odds(p: float) -> float:
    p = min(max(p, _SLACK), 1.0 - _SLACK)
    return math.log(p / (1.0 - p))


@cache
def _shipped() -> Coefficients:
    """Those that came with manyminds."""
    text = resources.files("manyminds.documents").joinpath("reader.json").read_bytes()
    return msgspec.json.decode(text, type=Coefficients)
