"""What documents say of answers: how likely the one is that they support, and which others they contradict.

Pure. Knows no vote and no vector: texts are compared by their words.
"""

import math
import re
import unicodedata
from functools import lru_cache
from typing import Final

from msgspec import Struct

from manyminds.canonical import answer_of
from manyminds.types import Grounds, Query

__all__ = ["TRUST", "Trust", "agreement", "chance", "conflict", "contradicts", "worth"]

_AGREES: Final = 0.5  # of the telling words, from which on two texts say the same
_CLIP: Final = 0.005  # of a probability: no passage is certain to hold an answer, nor certain not to
_BELIEVED: Final = 0.9  # of a support that is claimed: who reads documents is not right more often
_BEYOND: Final = 0.05  # of the log-odds above that: the surer of two still is, and nobody wins by claiming 1
_NUMBERS: Final = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_WORD: Final = re.compile(rf"{_NUMBERS}|[^\W\d_]+(?:['’][^\W\d_]+)?")
_SENTENCE: Final = re.compile(r"(?:^|[.!?:]\s+|\n)[\s\"'“‘(*_#>-]*$")
_SPELT: Final = {
    word: str(number)
    for number, word in enumerate(
        ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"), 2
    )
}
_COMMON: Final = frozenset(
    _WORD.findall(
        """
        a about above after again against all also although always am among an and any are as at be
        because been before being below between both but by can cannot could did do does doing done
        down during each either else ever every few first for from further get had has have having
        he her here hers him his how however i if in into is it its itself just last least less like
        made make many may me might more most much must my near neither never no nor not now of off
        often on once one only onto or other others our ours out over own per rather said same says
        she should since so some such than that the their theirs them then there these they this
        those through thus to too under until up upon us use used very was we were what when where
        whether which while who whom whose why will with within without would yes yet you your yours
        according answer answers called document documents given known mean means passage say states
        text
        """
    )
)
"""Words that tell no two answers apart."""


class Trust(Struct, frozen=True):
    """How far what documents say counts; `manyminds bench documents` fits it to graded answers.

    Attributes:
        constant, of_support, of_router: log-odds that an answer is right that documents support are
            constant + of_support logit(support) + of_router logit(what the router expected).
        doubt: of the weight of a vote, what it loses where documents that are certain say otherwise.
    """

    constant: float = 0.0
    of_support: float = 1.0
    of_router: float = 0.0
    doubt: float = 0.5


TRUST: Final = Trust()


def chance(expected: float, grounds: Grounds | None, trust: Trust = TRUST) -> float:
    """How likely an answer is right, in [.005, .995], where it has grounds; else as it was expected.

    Its support is what whoever gave it claims, and counts as `worth`.
    """
    if grounds is None or grounds.declined:
        return expected
    odds = (
        trust.constant
        + trust.of_support * _logit(worth(grounds.support))
        + trust.of_router * _logit(expected)
    )
    return min(max(1.0 / (1.0 + math.exp(-min(max(odds, -30.0), 30.0))), _CLIP), 1.0 - _CLIP)


def worth(support: float) -> float:
    """What a claimed support counts as: itself up to .9, and at most .914, the more the more it is. Pure.

    So three sources of .7 that agree, or two of .8, are believed before one that is certain otherwise.
    """
    if support <= _BELIEVED:
        return max(support, 0.0)
    return 1.0 / (1.0 + math.exp(-_logit(_BELIEVED) - _BEYOND * (_logit(support) - _logit(_BELIEVED))))


def contradicts(query: Query, grounded: str, other: str) -> bool:
    """Whether an answer that documents support says something else than the other one.

    Where answers can be compared they do where they differ, and both can be read; of texts see `agreement`.
    """
    if query.task.kind != "text":
        ours, theirs = answer_of(query.task, grounded), answer_of(query.task, other)
        return None not in (ours, theirs) and ours != theirs
    return agreement(query.question, grounded, other) == 0.0


def conflict(query: Query, one: str, other: str) -> bool:
    """Whether two answers, each with grounds of its own, cannot both be right: the same either way round."""
    if query.task.kind != "text":
        return contradicts(query, one, other)
    found = agreement(query.question, one, other), agreement(query.question, other, one)
    return found != (None, None) and not any(found)


def agreement(question: str, grounded: str, other: str) -> float | None:
    """The share of the telling words of an answer that are in the other one, too; None where it has none.

    From .5 on they say the same, at 0 they contradict each other, and between these nobody can tell by words.
    Telling are the numbers and the names that are not in the question; without any, all words that are not,
    but for those that every text has. "1,538" is 1538, "Three" is 3, and a plural is its singular. So "It was
    1538 miles a year" is not taken for "1200 miles a year". What negates a sentence is not noticed.
    """
    telling = _telling(grounded, question)
    if not telling:
        return None
    there = _words(other)
    return sum(word in there for word in telling) / len(telling)


@lru_cache(maxsize=256)
def _telling(text: str, question: str) -> frozenset[str]:
    asked, marked, plain = _words(question), set[str](), set[str]()
    for match in _WORD.finditer(text):
        word = _folded(match[0])
        if word in asked or word in _COMMON or match[0].casefold() in _COMMON:
            continue
        plain.add(word)
        opens = match[0][0].isupper() and _SENTENCE.search(text, max(0, match.start() - 40), match.start())
        if word[0].isdigit() or (match[0][0].isupper() and not opens):
            marked.add(word)
    return frozenset(marked or plain)


@lru_cache(maxsize=256)
def _words(text: str) -> frozenset[str]:
    return frozenset(_folded(match) for match in _WORD.findall(text))


def _folded(word: str) -> str:
    """Without case and accents, in the singular; a number without commas and zeros that say nothing."""
    if word[0].isdigit():
        whole, _, part = word.replace(",", "").partition(".")
        part = part.rstrip("0")
        return (whole.lstrip("0") or "0") + (f".{part}" if part else "")
    spread = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", word).casefold())
    plain = "".join(c for c in spread if not "\u0300" <= c <= "\u036f")
    plain = plain.replace("’", "'").removesuffix("'s")
    plural = len(plain) > 3 and plain[-1] == "s" and plain[-2] not in "sui'"
    return _SPELT.get(plain, plain[:-1] if plural else plain)


def _logit(probability: float) -> float:
    p = min(max(probability, _CLIP), 1.0 - _CLIP)
    return math.log(p / (1.0 - p))
