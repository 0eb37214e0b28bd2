"""How often the cache would answer with what was asked in nearly the same words, and how often wrongly.

Pairs of real questions that an encoder takes for alike, with what their answers are; knows no file and no
gateway. A hit is false where the answers differ. Everything is learnt from the splits calibration and
validation and counted on test, and a pair has both of its questions in one of these halves.
"""

import csv
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from manyminds import canonical
from manyminds.cache import wording
from manyminds.canonical.prose import plain
from manyminds.errors import DataError
from manyminds.evals.datasets.schema import split_of
from manyminds.types import Message, Query

if TYPE_CHECKING:
    from manyminds.experts.recorded import Question
    from manyminds.types import Embed, Vectors

__all__ = [
    "NEAR",
    "Asked",
    "Pair",
    "is_alike",
    "measure",
    "near_pairs",
    "pairs_of",
    "questions_of",
    "read_pairs",
    "upper_bound",
    "variants",
    "worded",
]

NEAR: Final = 0.80
"""Cosine from which two questions are called near duplicates here."""

_THRESHOLDS: Final = (0.80, 0.85, 0.90, 0.95, 0.98)
_KEPT: Final = 0.95  # share of polite and untidy spellings that the threshold must let through
_SPELT: Final = 300  # questions of each half that are spelt in other ways
_BLOCK: Final = 1024
_REFERS: Final = re.compile(
    r"(?i)\b(?:following|these|those|below|above|statements?|options?|except)\b|_{2,}"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as a caller would type it, its answer in a form that compares, and its half."""

    text: str
    answer: str
    test: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions with their cosine, and whether one answer serves both."""

    one: str
    other: str
    cosine: float
    same: bool
    test: bool


# --- questions -------------------------------------------------------------------------------------


def questions_of(questions: "Iterable[Question]", *, options: bool) -> list[Asked]:
    """With their lettered options, or without: then the answer is the right option's text.

    Without them, questions that speak of their options are left out, and of one text that has several
    answers all: such a text does not say what it asks. So are questions without a prompt or an answer.
    """
    found = [asked for question in questions if (asked := _asked(question, options=options))]
    answers: dict[str, set[str]] = {}
    for asked in found:
        answers.setdefault(asked.text, set()).add(asked.answer)
    once = {asked.text: asked for asked in reversed(found) if len(answers[asked.text]) == 1}
    return sorted(once.values(), key=lambda asked: asked.text)


def _asked(question: "Question", *, options: bool) -> Asked | None:
    gold, text = question.gold, question.prompt or ""
    if gold is None or not text.strip():
        return None
    if not question.choices:
        return Asked(text, plain(gold), question.split == "test")
    at = ord(gold[0]) - ord("A") if len(gold) == 1 else -1
    if not 0 <= at < len(question.choices) or (not options and _REFERS.search(text)):
        return None
    right = plain(question.choices[at])
    if options:  # the same letter before another text would be right by luck
        return Asked(question.text, f"{gold}: {right}", question.split == "test")
    return Asked(text, right, question.split == "test")


def read_pairs(file: Path) -> list[tuple[str, str, bool]]:
    """Pairs that people have judged, of a .csv with columns question, other and same (1 or 0).

    Raises: DataError.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Cannot read {file}: {error}") from error
    found = []
    for number, row in enumerate(rows, 2):
        one, other, same = (row.get(name) for name in ("question", "other", "same"))
        if not one or not other or same not in ("0", "1"):
            message = (
                f"{file}, row {number}: a pair needs columns question, other, and same, which is 1 or 0."
            )
            raise DataError(message)
        found.append((one, other, same == "1"))
    return found


def pairs_of(rows: Iterable[tuple[str, str, bool]], embed: "Embed") -> list[Pair]:
    """Pairs that people have judged: question, other, whether one answer serves both."""
    rows = list(rows)
    cosines = [float(np.dot(*embed([one, other]))) for one, other, _ in rows]
    return [
        Pair(one, other, cosine, same, split_of(one) == "test")
        for (one, other, same), cosine in zip(rows, cosines, strict=True)
    ]


def near_pairs(asked: Sequence[Asked], vectors: "Vectors", least: float = NEAR) -> list[Pair]:
    """All pairs of different texts of one half from that cosine on. O(n²) products, in blocks."""
    test = np.array([one.test for one in asked], bool)
    found = []
    for start in range(0, len(asked), _BLOCK):
        cosines = vectors[start : start + _BLOCK] @ vectors.T
        for i, j in np.argwhere(cosines >= least):
            one, other = asked[start + i], asked[j]
            if start + i < j and test[start + i] == test[j]:
                same = one.answer == other.answer
                found.append(Pair(one.text, other.text, float(cosines[i, j]), same, one.test))
    return found


# --- hits ------------------------------------------------------------------------------------------


def worded(text: str) -> tuple[str, ...] | None:
    """How the cache words it."""
    return wording(text, canonical.task(Query((Message("user", text),))))


def is_alike(pair: Pair) -> bool:
    """Whether the cache may compare the two at all."""
    words = worded(pair.one)
    return words is not None and words == worded(pair.other)


def variants(text: str, seed: int) -> dict[str, str]:
    """The same question as others would type it. The typo is one that changes a word: two letters swapped."""
    draw = random.Random(f"{seed} {text}")  # noqa: S311  # it only has to vary
    at = draw.randrange(max(1, len(text) - 1))
    bare = text.rstrip(" .?!")
    return {
        "lower case": text.lower(),
        "white space": "  ".join(text.split(" ")) + "\n",
        "no final mark": bare,
        "please": f"Please tell me: {text}",
        "a greeting": f"Hi, could you tell me {text[:1].lower()}{text[1:]}",
        "thanks": f"{bare}? Thanks!",
        "a typo": text[:at] + text[at + 1 : at + 2] + text[at : at + 1] + text[at + 2 :],
    }


def upper_bound(hits: int, of: int) -> float | None:
    """End of the one-sided 95% interval of a share (Clopper and Pearson 1934), by bisection."""
    if of == 0:
        return None
    low, high = hits / of, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(hits, of, middle) > 0.05 else (low, middle)
    return high


def _at_most(hits: int, of: int, share: float) -> float:
    """Probability of at most so many hits, each with that share."""
    if share >= 1.0:
        return float(hits >= of)
    from math import exp, fsum, lgamma, log, log1p

    def term(k: int) -> float:
        ways = lgamma(of + 1) - lgamma(k + 1) - lgamma(of - k + 1)
        return exp(ways + (k * log(share) if k else 0.0) + (of - k) * log1p(-share))

    return fsum(term(k) for k in range(hits + 1))


# --- the measurement -------------------------------------------------------------------------------


def measure(
    sets: "Mapping[str, Sequence[Question]]",
    judged: Sequence[tuple[str, str, bool]],
    embed: "Embed",
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:
    """What the cache would have done with these questions. The same every time.

    Raises: DataError where there is no question with a text and an answer.
    """
    tell = progress or (lambda what, share: None)
    groups = {name: (asked, _encode(asked, embed, name, tell)) for name, asked in _groups(sets)}
    if not groups:
        raise DataError("There is no question with a text and an answer: give a set that has both.")
    pairs = {name: near_pairs(asked, vectors) for name, (asked, vectors) in groups.items()}
    if judged:
        pairs["judged"] = pairs_of(judged, embed)
    alike = {name: [is_alike(pair) for pair in of] for name, of in pairs.items()}
    learnt = _spellings(groups, embed, seed, test=False)
    similarity = _threshold(learnt, pairs, alike)
    spelt = _spellings(groups, embed, seed, test=True)
    return {
        "seed": seed,
        "near": NEAR,
        "similarity": similarity,
        "pairs": {name: _figures(pairs[name], alike[name], similarity) for name in pairs},
        "lookups": {name: _lookups(*groups[name], similarity) for name in groups},
        "spellings": {
            kind: {
                "questions": len(cosines),
                "hits": sum(c is not None and c >= similarity for c in cosines) / max(1, len(cosines)),
            }
            for kind, cosines in spelt.items()
        },
    }


def _groups(sets: "Mapping[str, Sequence[Question]]") -> Iterator[tuple[str, list[Asked]]]:
    for name, questions in sets.items():
        for options in (True, False) if any(q.choices for q in questions) else (True,):
            if asked := questions_of(questions, options=options):
                yield name if options else f"{name}, options left out", asked


def _encode(
    asked: Sequence[Asked], embed: "Embed", name: str, tell: Callable[[str, float], None]
) -> "Vectors":
    parts = []
    for start in range(0, len(asked), _BLOCK):
        parts.append(embed([one.text for one in asked[start : start + _BLOCK]]))
        tell(f"reading {name}", min(1.0, (start + _BLOCK) / len(asked)))
    return np.concatenate(parts)


def _figures(pairs: Sequence[Pair], alike: Sequence[bool], similarity: float) -> dict[str, Any]:
    test = [(pair, words) for pair, words in zip(pairs, alike, strict=True) if pair.test]
    return {
        "learnt_from": len(pairs) - len(test),
        "same": sum(pair.same for pair, _ in test),
        "different": sum(not pair.same for pair, _ in test),
        "cache": _hits((pair for pair, words in test if words), similarity, test),
        "cosine_alone": {
            f"{least:.2f}": _hits((pair for pair, _ in test), least, test) for least in _THRESHOLDS
        },
    }


def _hits(pairs: Iterable[Pair], least: float, among: Sequence[tuple[Pair, bool]]) -> dict[str, Any]:
    """True and false hits, and the share of different pairs taken for the same, with its upper 95% bound."""
    found = [pair for pair in pairs if pair.cosine >= least]
    false, different = sum(not pair.same for pair in found), sum(not pair.same for pair, _ in among)
    return {
        "true": len(found) - false,
        "false": false,
        "false_share": false / different if different else None,
        "false_share_below": upper_bound(false, different),
    }


def _lookups(asked: Sequence[Asked], vectors: "Vectors", similarity: float) -> dict[str, Any]:
    """Every test question asked of a cache that holds all the others."""
    words: dict[tuple[str, ...], list[int]] = {}
    comparable = 0
    for i, one in enumerate(asked):
        if one.test and (spelt := worded(one.text)) is not None:
            comparable += 1
            words.setdefault(spelt, []).append(i)
    hits = false = 0
    for same in words.values():
        for i in same:
            cosine, j = max(((float(vectors[i] @ vectors[j]), j) for j in same if j != i), default=(-1.0, i))
            if cosine >= similarity:
                hits += 1
                false += asked[i].answer != asked[j].answer
    total = sum(one.test for one in asked)
    return {
        "questions": total,
        "comparable": comparable,
        "hits": hits,
        "false": false,
        "false_share_below": upper_bound(false, total),
    }


def _spellings(
    groups: "Mapping[str, tuple[Sequence[Asked], Vectors]]", embed: "Embed", seed: int, *, test: bool
) -> dict[str, list[float | None]]:
    """Of each way to spell: cosines with the question as it was; None where the words are not the same."""
    texts = sorted({one.text for asked, _ in groups.values() for one in asked if one.test == test})
    texts = [text for text in texts if (words := worded(text)) and words[-1] == "|"]  # without options
    random.Random(seed).shuffle(texts)  # noqa: S311
    found: dict[str, list[float | None]] = {}
    for text in texts[:_SPELT]:
        spoken, vector = worded(text), embed([text])[0]
        for kind, spelt in variants(text, seed).items():
            alike = worded(spelt) == spoken
            found.setdefault(kind, []).append(float(vector @ embed([spelt])[0]) if alike else None)
    return found


def _threshold(
    spelt: Mapping[str, Sequence[float | None]],
    pairs: Mapping[str, Sequence[Pair]],
    alike: Mapping[str, Sequence[bool]],
) -> float:
    """The highest hundredth that 95% of other spellings reach, or the first that no false hit does."""
    cosines = [c for of in spelt.values() for c in of if c is not None]
    highest = float(np.quantile(cosines, 1 - _KEPT)) if cosines else 1.0
    false = [
        pair.cosine
        for name, of in pairs.items()
        for pair, words in zip(of, alike[name], strict=True)
        if words and not pair.same and not pair.test
    ]
    return max(int(100 * highest) / 100, int(100 * max(false, default=0.0) + 1) / 100 if false else 0.0)
