"""What is learnt from: questions, and what every expert made of each.

Knows recordings, no model of them. Arrays run over n questions and m experts, sorted by name.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from manyminds.canonical import answer_of, classes, task
from manyminds.experts.recorded import Question, Recorded, RecordedSet
from manyminds.types import Embed, Kind

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

__all__ = ["ABSTAINED", "UNASKED", "Examples", "answered_in", "asked_of", "gather", "kinds_of"]

ABSTAINED = -1
UNASKED = -2

_TABLES = ("votes", "correct", "cost_usd", "seconds", "tokens", "confidence")  # (n, m) each


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Outcomes of m experts on n questions.

    Attributes:
        experts: (m,) names, sorted; sources: (m,).
        kinds: (n,) what makes two answers comparable; "text" where only right or wrong is known.
        read_as: (n,) the kinds that the gateway reads off the questions' texts; "text" without one.
        spread: (n,) answers among which an expert that is wrong spreads its errors.
        classes: their mean, over all questions that are learnt from together.
        candidates: (n,) the distinct canonical answers to each question.
        votes: (n, m) int32, position among the candidates, `ABSTAINED` or `UNASKED`.
        correct: (n, m) bool.
        cost_usd, seconds, tokens, confidence: (n, m) float64, NaN where not recorded.
        topics: (n,) what each question is about, "" where unsaid.
        vectors: (n, d) float32 of their texts, None where they have none.
    """

    experts: tuple[str, ...]
    sources: tuple[str, ...]
    kinds: tuple[Kind, ...]
    read_as: tuple[Kind, ...]
    spread: "NDArray[np.float64]"
    classes: float
    candidates: tuple[tuple[str, ...], ...]
    votes: "NDArray[np.int32]"
    correct: "NDArray[np.bool_]"
    cost_usd: "NDArray[np.float64]"
    seconds: "NDArray[np.float64]"
    tokens: "NDArray[np.float64]"
    confidence: "NDArray[np.float64]"
    topics: tuple[str, ...]
    vectors: "NDArray[np.float32] | None"

    def __len__(self) -> int:
        return len(self.topics)

    @property
    def asked(self) -> "NDArray[np.bool_]":
        """(n, m): whether the expert was asked."""
        asked: NDArray[np.bool_] = self.votes != UNASKED
        return asked

    @property
    def comparable(self) -> "NDArray[np.bool_]":
        """(n,): whether two answers to the question can be compared."""
        return np.array([kind != "text" for kind in self.kinds], np.bool_)

    def rows(self, index: "NDArray[Any]") -> "Examples":
        """Some of the questions, in the order given."""
        index = np.asarray(index)
        arrays = {name: getattr(self, name)[index] for name in ("spread", *_TABLES)}
        return replace(
            self,
            kinds=tuple(self.kinds[i] for i in index),
            read_as=tuple(self.read_as[i] for i in index),
            candidates=tuple(self.candidates[i] for i in index),
            topics=tuple(self.topics[i] for i in index),
            vectors=None if self.vectors is None else self.vectors[index],
            **arrays,
        )

    def of(self, experts: Collection[str]) -> "Examples":
        """The same questions, with some of the experts."""
        kept = [j for j, name in enumerate(self.experts) if name in experts]
        return self._columns(kept)

    def sorts(self) -> "list[NDArray[np.intp]]":
        """The questions of each of `parts`."""
        sorts = np.array([kind if kind in ("option", "text") else "exact" for kind in self.kinds])
        found = [np.flatnonzero(sorts == sort) for sort in ("exact", "option", "text")]
        return [rows for rows in found if len(rows)]

    def parts(self) -> "tuple[Examples, ...]":
        """What is learnt from together: questions that ask for an answer, for an option, for a text.

        Of experts that are one call there, with one: ways of asking a model come to the same where there is
        but one way. Beside other sorts, each only with the experts that were asked any of them.
        """
        found, order = self.sorts(), self._cheapest_first()
        return tuple(self._apart(rows, order) for rows in found) if len(found) > 1 else (self._once(order),)

    def _apart(self, index: "NDArray[np.intp]", order: Sequence[int]) -> "Examples":
        some = self.rows(index)
        some = replace(some, classes=float(np.mean(some.spread)))
        return some._once([j for j in order if some.asked[:, j].any()])

    def _once(self, order: Sequence[int]) -> "Examples":
        """With these experts, without those that are one call with an earlier one."""
        kept = sorted(j for i, j in enumerate(order) if not any(self._is_one_call(j, k) for k in order[:i]))
        if len(kept) == len(self.experts):
            return self
        return self._columns(kept)

    def _columns(self, kept: Sequence[int]) -> "Examples":
        return replace(
            self,
            experts=tuple(self.experts[j] for j in kept),
            sources=tuple(self.sources[j] for j in kept),
            **{name: getattr(self, name)[:, kept] for name in _TABLES},
        )

    def _cheapest_first(self) -> list[int]:
        """Positions of the experts, by what a question costs; where that is not recorded, by name."""
        counts = np.isfinite(self.cost_usd).sum(axis=0)
        mean = np.nansum(self.cost_usd, axis=0) / np.maximum(counts, 1)
        return sorted(range(len(self.experts)), key=lambda j: (float(mean[j]), j))

    def _is_one_call(self, j: int, k: int) -> bool:
        """Whether the same was asked of both in the same words, by what is recorded of it."""
        if self.sources[j] != self.sources[k]:
            return False
        tables = (getattr(self, name) for name in _TABLES)
        return all(np.array_equal(t[:, j], t[:, k], equal_nan=t.dtype.kind == "f") for t in tables)


def answered_in(experts: Sequence[Recorded], recorded: RecordedSet) -> dict[str, tuple[str, ...]]:
    """Who of these has an answer, not only a verdict, to any question of a category of the set; by category.

    O(answers).
    """
    names, codes = np.unique([question.category for question in recorded.questions()], return_inverse=True)
    found: dict[str, list[str]] = {}
    for expert in sorted(experts, key=lambda expert: expert.card.name):
        made = expert.recording
        for code in np.unique(codes[made.rows[made.codes >= 0]]):
            found.setdefault(str(names[code]), []).append(expert.card.name)
    return {category: tuple(said) for category, said in sorted(found.items())}


def kinds_of(questions: Sequence[Question], answered: Mapping[str, Collection[str]]) -> tuple[Kind, ...]:
    """How answers to each of these questions compare: by option, as they are, or not at all.

    They do not in a category in which nobody has an answer to any question of the set, but verdicts alone:
    see `answered_in`.
    """
    return tuple(
        "text" if not answered.get(question.category) else "option" if question.choices else "exact"
        for question in questions
    )


def asked_of(questions: Sequence[Question], kinds: Sequence[Kind]) -> "dict[str, Any]":
    """What follows from the questions alone, whoever was asked: some of the fields of `Examples`."""
    queries = [question.query(kind) for question, kind in zip(questions, kinds, strict=True)]
    spread = np.array([classes(query.task) for query in queries], np.float64)
    return {
        "kinds": tuple(kinds),
        "read_as": tuple(
            task(query).kind if question.prompt else "text"
            for question, query in zip(questions, queries, strict=True)
        ),
        "spread": spread,
        "classes": float(np.mean(spread)) if queries else 2.0,
        "topics": tuple(question.category for question in questions),
    }


def gather(
    experts: Sequence[Recorded],
    questions: Sequence[Question],
    recorded: RecordedSet,
    embed: Embed | None = None,
) -> Examples:
    """What these experts of a set made of these questions. O(n m).

    Questions without text have no vector: that of nothing, where others have one.
    """
    kinds = kinds_of(questions, answered_in(experts, recorded))
    place = {question.question_id: i for i, question in enumerate(recorded.questions())}
    position = np.array([place[question.question_id] for question in questions], dtype=np.int64)
    queries = [question.query(kind) for question, kind in zip(questions, kinds, strict=True)]
    experts = sorted(experts, key=lambda expert: expert.card.name)
    n, m = len(questions), len(experts)
    votes = np.full((n, m), UNASKED, np.int32)
    correct = np.zeros((n, m), np.bool_)
    cost_usd, seconds, tokens, confidence = (np.full((n, m), np.nan) for _ in range(4))
    seen: list[dict[str, int]] = [{} for _ in range(n)]
    for j, expert in enumerate(experts):
        made = expert.recording
        at = np.full(len(place), -1, np.int64)
        at[made.rows] = np.arange(len(made.rows))
        own = at[position]
        rows = np.flatnonzero(own >= 0)
        own = own[rows]
        correct[rows, j] = made.correct[own]
        cost_usd[rows, j], seconds[rows, j] = made.cost_usd[own], made.seconds[own]
        written = made.tokens[own, 1]
        tokens[rows, j] = np.where(written > 0, written, np.nan)
        confidence[rows, j] = made.confidence[own]
        for i, code in zip(rows.tolist(), made.codes[own].tolist(), strict=True):
            answer = answer_of(queries[i].task, made.texts[code]) if code >= 0 else None
            votes[i, j] = ABSTAINED if answer is None else seen[i].setdefault(answer, len(seen[i]))
    vectors = None
    if embed is not None and any(question.prompt for question in questions):
        vectors = embed([query.question for query in queries])  # as the gateway does
    return Examples(
        experts=tuple(expert.card.name for expert in experts),
        sources=tuple(expert.card.source or expert.card.name for expert in experts),
        candidates=tuple(tuple(answers) for answers in seen),
        votes=votes,
        correct=correct,
        cost_usd=cost_usd,
        seconds=seconds,
        tokens=tokens,
        confidence=confidence,
        vectors=vectors,
        **asked_of(questions, kinds),
    )
