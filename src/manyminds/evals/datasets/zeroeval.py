"""GSM8K and the hardest level of MATH as ZeroEval asked them: a number or formula in a JSON field `answer`.

Upstream has a file a model, with a whole conversation per question, and no grades.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from manyminds.errors import DataError
from manyminds.evals.datasets.formula import formula, last_box, number
from manyminds.evals.datasets.reading import decode
from manyminds.evals.datasets.schema import AnswerRow, ModelRow, QuestionRow, Tables, split_of

__all__ = ["convert"]

_INSTRUCTION_TOKENS: Final = 150
"""About what ZeroEval's prompt adds to the question, for the estimate of what an answer cost."""

_FIELD: Final = re.compile(r'"answer"\s*:\s*(?:"((?:[^"\\]|\\.)*)"|([^",}\n]+))')


class _Turn(msgspec.Struct):
    """A question is `question` or `problem`, after the set."""

    id: int | str
    output: list[str]
    answer: str
    question: str = ""
    problem: str = ""


def convert(files: Mapping[str, Path], models: Mapping[str, ModelRow], name: str) -> Tables:
    """Answers are right where they equal the key, both in canonical form.

    `models` says whose each file is, `name` is gsm8k or math_l5. Raises: DataError.
    """
    canonical = number if name == "gsm8k" else formula
    questions: dict[str, QuestionRow] = {}
    answers = []
    for where, file in files.items():
        for turn in decode(file, where, list[_Turn]):
            key = f"{name}-{str(turn.id).rpartition('#')[2]}"
            prompt, gold = turn.question or turn.problem, canonical(turn.answer.removeprefix("#"))
            question = QuestionRow(key, name, name, prompt, None, gold, split_of(key))
            if questions.setdefault(key, question) != question:
                raise DataError(f"{where}: question {key} is not that of the other files.")
            said = turn.output[0] if turn.output else ""
            stated = _stated(said)
            answer = canonical(stated) if stated else None
            answers.append(_answer(question, models[where], answer, len(said)))
    return Tables(list(questions.values()), answers, list(models.values()))


def _answer(question: QuestionRow, model: ModelRow, answer: str | None, chars: int) -> AnswerRow:
    return AnswerRow(
        question_id=question.question_id,
        model=model.model,
        answer=answer,
        correct=answer is not None and answer == question.gold,
        extracted=answer is not None,
        completion_chars=chars,
        cost_usd=model.cost_usd(len(question.prompt or "") / 4 + _INSTRUCTION_TOKENS, chars / 4),
    )


def _stated(text: str) -> str | None:
    """What the first field `answer` holds, else the last box; models often add more JSON after the first."""
    if field := _FIELD.search(text):
        return field[1] or field[2]
    return last_box(text)
