"""MMLU-Pro, five examples first: an option's letter, read from what each model wrote.

Upstream has an archive a model, older models a file a subject. Letters are read as a panel's are, by
`manyminds.canonical`; one that is not stated stays unread.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from manyminds.canonical import answer_of
from manyminds.evals.datasets.reading import decode, only_json
from manyminds.evals.datasets.schema import AnswerRow, ModelRow, QuestionRow, Tables, split_of
from manyminds.types import Task

__all__ = ["convert"]

_EXAMPLES_TOKENS: Final = 1200
"""About what the five examples of a prompt take, for the estimate of what an answer cost."""

_NEXT: Final = "\nQuestion:"
"""How a model that does not stop begins with a question of its own, in the form of the five examples."""
_PART: Final = re.compile(r"(?m)^[^\w\n]*[a-z]\)")
"""Marks a part of a calculation: the letters of options are capitals here."""


class _Entry(msgspec.Struct):
    """What a model said to one question; the field's name depends on when it was asked."""

    question_id: int
    question: str
    options: list[str]
    answer: str
    category: str
    generated_text: str | None = None
    model_outputs: str | None = None
    response: str | None = None

    @property
    def said(self) -> str:
        return self.generated_text or self.model_outputs or self.response or ""


def convert(files: Mapping[str, Path], models: Mapping[str, ModelRow]) -> Tables:
    """Questions whose text, options or key changed from one file to another are dropped.

    `models` says whose each file is. Raises: DataError.
    """
    questions: dict[str, QuestionRow] = {}
    changed: set[str] = set()
    answers: dict[tuple[str, str], AnswerRow] = {}
    for where, file in files.items():
        model = models[where]
        for entry in _entries(where, file):
            question = _question(entry)
            key = question.question_id
            if questions.setdefault(key, question) != question:
                changed.add(key)
            answers[key, model.model] = _answer(entry, question, model)
    return Tables(
        [question for key, question in questions.items() if key not in changed],
        [answer for (key, _), answer in answers.items() if key not in changed],
        list({model.model: model for model in models.values()}.values()),
    )


def _entries(where: str, file: Path) -> Iterator[_Entry]:
    content = only_json(file, where) if where.endswith(".zip") else file
    for entry in decode(content, where, list[msgspec.Raw]):
        if bytes(entry).startswith(b"{"):  # one file ends in names of subjects
            yield decode(bytes(entry), where, _Entry)


def _question(entry: _Entry) -> QuestionRow:
    key = f"mmlupro-{entry.question_id}"
    return QuestionRow(
        key, "mmlu_pro", entry.category, entry.question, tuple(entry.options), entry.answer, split_of(key)
    )


def _answer(entry: _Entry, question: QuestionRow, model: ModelRow) -> AnswerRow:
    letter = _letter(entry.said, len(entry.options))
    asked = len(entry.question) + sum(map(len, entry.options))
    return AnswerRow(
        question_id=question.question_id,
        model=model.model,
        answer=letter,
        correct=letter == question.gold,
        extracted=letter is not None,
        completion_chars=len(entry.said),
        cost_usd=model.cost_usd(asked / 4 + _EXAMPLES_TOKENS, len(entry.said) / 4),
    )


def _letter(text: str, options: int) -> str | None:
    """The letter of one of so many options; None where none is stated.

    The options' texts stay out: numbers and terms of a calculation would pass for a choice.
    """
    said = text.partition(_NEXT)[0]
    return answer_of(Task("option", ("",) * options), _PART.sub("", said))
