"""What would have been learnt, had some experts never been asked: from a bank, without their columns.

Source: machine unlearning by learning anew (Cao & Yang 2015), which is exact: nothing of theirs is left to be
bounded. Every table is the one that the recorded set without them would have given, so what is learnt of it
is the same byte by byte. Writes no file.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from manyminds.artefact import Artefact
from manyminds.experts.asked import variant
from manyminds.experts.recorded import Question
from manyminds.learn.bank import Bank
from manyminds.learn.examples import Examples, asked_of, kinds_of
from manyminds.learn.train import Progress, is_enough, train

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Left", "is_of", "left", "relearnt"]


@dataclass(frozen=True, slots=True, eq=False)
class Left:
    """What is left of a bank: its fields as `bank.save` takes them."""

    questions: tuple[Question, ...]
    examples: Examples
    answered: dict[str, tuple[str, ...]]
    about: dict[str, Any]


def is_of(name: str, gone: Collection[str]) -> bool:
    """Whether that is one of these experts, or a way of asking one."""
    made = variant(name)
    return name in gone or (made is not None and made[0] in gone)


def left(bank: Bank, gone: Collection[str], sources: Collection[str] = ()) -> Left:
    """The bank of a set that these experts, in whatever way they are asked, were never in.

    Questions that were asked of nobody else are not in it, and neither are answers that nobody else gave.
    O(n m).

    Args:
        bank: what was learnt from.
        gone: experts.
        sources: those of whom no expert counts.
    """
    was = bank.examples
    kept = [
        name
        for name, source in zip(was.experts, was.sources, strict=True)
        if not is_of(name, gone) and source not in sources
    ]
    some = was.of(kept)
    rows = np.flatnonzero(some.asked.any(axis=1))
    some = some.rows(rows)
    questions = tuple(bank.questions[i] for i in rows)
    answered = {
        category: left_there
        for category, said in bank.answered.items()
        if (left_there := tuple(name for name in said if name in kept))
    }
    kinds = kinds_of(questions, answered)
    votes, candidates = _renumbered(some)
    if not any(question.prompt for question in questions):
        some = replace(some, vectors=None)
    examples = replace(some, votes=votes, candidates=candidates, **asked_of(questions, kinds))
    splits = [question.split for question in questions]
    counts = {f"n_{split}": splits.count(split) for split in ("calibration", "validation")}
    about = {name: counts.get(name, value) for name, value in bank.about.items()}
    return Left(questions, examples, answered, about)


def relearnt(kept: Left, progress: Progress | None = None) -> Artefact | None:
    """What is learnt of that, as `manyminds train` does; None where that is too little to learn from.

    Takes a minute for six experts in 26 ways and a thousand questions.

    Raises: DataError where scipy is not installed.
    """
    splits = {question.split for question in kept.questions}
    if "calibration" not in splits or not is_enough(kept.examples):
        return None
    return train(kept.examples, int(kept.about["seed"]), kept.about, progress)


def _renumbered(examples: Examples) -> "tuple[NDArray[np.int32], tuple[tuple[str, ...], ...]]":
    """Votes and candidates, these in the order in which the experts named them: as `gather` finds them."""
    votes, candidates = examples.votes.copy(), []
    for row, names in zip(votes, examples.candidates, strict=True):
        order = list(dict.fromkeys(int(vote) for vote in row if vote >= 0))
        place = {vote: i for i, vote in enumerate(order)}
        row[:] = [place.get(int(vote), vote) for vote in row]
        candidates.append(tuple(names[vote] for vote in order))
    return votes, tuple(candidates)
