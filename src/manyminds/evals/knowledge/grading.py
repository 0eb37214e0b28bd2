"""Whether an answer is right, and whether its citation bears it out. Knows no system that is graded.

What counts as the same word is said in `words`. Where nobody knows, every answer is wrong, and so is none.
"""

from collections.abc import Sequence
from typing import Final

from manyminds.evals.knowledge.questions import Question
from manyminds.evals.knowledge.words import holds, holds_any
from manyminds.types import Citation

__all__ = ["ANSWER_CHARS", "cited", "correct"]

_SENTENCE: Final = 20  # characters of a sentence that is like no other

ANSWER_CHARS: Final = 400
"""Of an answer that are read, so that nobody is right for having said everything."""


def correct(question: Question, answer: str) -> bool:
    """Whether the answer tells the fact. Whether to decline was right is for the caller to say."""
    return question.answerable and holds_any(answer[:ANSWER_CHARS], question.golds)


def cited(question: Question, citations: Sequence[Citation], texts: Sequence[str]) -> bool:
    """Whether the first citation is of the document that knows, and of a paragraph of it that tells the fact.

    A paragraph tells it if it has the answer and is about the entity: it names it, under its headings or
    in its words, or has a sentence of the proof.

    Args:
        question: what was asked.
        citations: in the order in which the answer gives them. Documents may be told with or without the
            owner's name before them.
        texts: of each citation, the paragraph's whole text.
    """
    if not question.answerable or not citations or not texts:
        return False
    first, text = citations[0], texts[0]
    if first.document not in (question.document, f"{question.corpus}/{question.document}"):
        return False
    told = f"{first.heading} . {text}"
    if not holds_any(told, question.golds):
        return False
    return holds(told, question.entity) or any(
        holds(text, part) for part in question.proof.split(". ") if len(part) >= _SENTENCE
    )
