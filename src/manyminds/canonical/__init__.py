"""Comparable answers: what kind of answer a question wants, and which one a text gives.

Knows no expert and no weight. Pure. Where a text is unclear it abstains (None): a vote lost costs less
than a vote for something that nobody said. What a text says last counts, so only its end is read, and
reading it costs little whatever length it has.
"""

from functools import lru_cache

from manyminds.canonical.number import number
from manyminds.canonical.option import option
from manyminds.canonical.prose import end, span
from manyminds.canonical.question import task
from manyminds.canonical.structure import structure
from manyminds.types import Kind, Task

__all__ = ["answer_of", "classes", "task"]

_KEPT_CHARS = 4_000  # of a text whose reading is remembered: at most some megabytes in all


def classes(task: Task) -> int:
    """C, the number of answers among which an expert that is wrong spreads its errors.

    50 for numbers and 10 elsewhere are what served on recorded answers; options count themselves.
    """
    if task.kind == "option":
        return max(2, len(task.options))
    return 50 if task.kind == "number" else 10


def answer_of(task: Task, text: str) -> str | None:
    """The answer in canonical form, so that equal strings mean equal answers; None abstains.

    option: its capital letter. number: an exact decimal, or a reduced fraction where there is none; `%`,
    currency and units are dropped. json: sorted keys, numbers as IEEE doubles. span: at most eight
    words without case, accents, leading article and outer punctuation. exact: the text itself, for answers
    that are canonical already, such as labels. text: never comparable.
    """
    if len(text) <= _KEPT_CHARS:
        return _kept(task.kind, task.options, text)
    return _read(task.kind, task.options, text)


@lru_cache(maxsize=512)
def _kept(kind: Kind, options: tuple[str, ...], text: str) -> str | None:
    """An answer is read when it comes, when one is chosen and for the report; and experts agree."""
    return _read(kind, options, text)


def _read(kind: Kind, options: tuple[str, ...], text: str) -> str | None:
    match kind:
        case "option":
            return option(options, end(text))
        case "number":
            return number(end(text))
        case "json":
            return structure(text)
        case "span":
            return span(end(text))
        case "exact":
            return text.strip() or None
        case "text":
            return None
