"""What is learnt from: questions, and what every expert made of each.

Knows recordings, no model of them. Arrays run over n questions and m experts, sorted by name.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from manyminds.canonical import answer_of, classes, task
from manyminds.experts.recorded import Question, Recorded, RecordedSet
from manyminds.types import Embed, Kind

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

__all__ = ["ABSTAINED", "UNASKED", "Examples", "gather", "kind_of"]

ABSTAINED = -1
UNASKED = -2


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Outcomes of m experts on n questions.

    Attributes:
        experts: (m,) names, sorted; sources: (m,).
        kind: what makes two answers comparable; "text" where only right or wrong is known.
        read_as: the kinds that the gateway reads off at least half of the questions' texts.
        classes: answers among which an expert that is wrong spreads its errors, on average.
        candidates: (n,) the distinct canonical answers to each question.
        votes: (n, m) int32, position among the candidates, `ABSTAINED` or `UNASKED`.
        correct: (n, m) bool.
        cost_usd, seconds, tokens, confidence: (n, m) float64, NaN where not recorded.
        topics: (n,) what each question is about, "" where unsaid.
        vectors: (n, d) float32 of their texts, None where they have none.
    """

    experts: tuple[str, ...]
    sources: tuple[str, ...]
    kind: Kind
    read_as: tuple[Kind, ...]
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

    def rows(self, index: "NDArray[Any]") -> "Examples":
        """Some of the questions, in the order given."""
        index = np.asarray(index)
        arrays = {
            name: getattr(self, name)[index]
            for name in ("votes", "correct", "cost_usd", "seconds", "tokens", "confidence")
        }
        return replace(
            self,
            candidates=tuple(self.candidates[i] for i in index),
            topics=tuple(self.topics[i] for i in index),
            vectors=None if self.vectors is None else self.vectors[index],
            **arrays,
        )


def kind_of(experts: Sequence[Recorded], questions: Sequence[Question], recorded: RecordedSet) -> Kind:
    """How answers to these questions compare: by option, as they are, or not at all."""
    wanted = {question.question_id for question in questions}
    rows = np.array([question.question_id in wanted for question in recorded.questions()])
    if not any((made.codes[rows[made.rows]] >= 0).any() for made in (e.recording for e in experts)):
        return "text"
    return "option" if questions and all(question.choices for question in questions) else "exact"


def gather(
    experts: Sequence[Recorded],
    questions: Sequence[Question],
    recorded: RecordedSet,
    embed: Embed | None = None,
) -> Examples:
    """What these experts of a set made of these questions. O(n m).

    Questions without text have no vector: that of nothing, where others have one.
    """
    kind = kind_of(experts, questions, recorded)
    place = {question.question_id: i for i, question in enumerate(recorded.questions())}
    position = np.array([place[question.question_id] for question in questions], dtype=np.int64)
    queries = [question.query(kind) for question in questions]
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
        kind=kind,
        read_as=_read_as(questions) if kind != "text" else (),
        classes=float(np.mean([classes(query.task) for query in queries])) if queries else 2.0,
        candidates=tuple(tuple(answers) for answers in seen),
        votes=votes,
        correct=correct,
        cost_usd=cost_usd,
        seconds=seconds,
        tokens=tokens,
        confidence=confidence,
        topics=tuple(question.category for question in questions),
        vectors=vectors,
    )


def _read_as(questions: Sequence[Question]) -> tuple[Kind, ...]:
    counts = Counter(task(question.query("text")).kind for question in questions if question.prompt)
    return tuple(
        kind for kind, count in sorted(counts.items()) if kind != "text" and 2 * count >= len(questions)
    )
