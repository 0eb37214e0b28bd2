"""A recorded set as a library: its experts, on shelves of its questions. Knows no screen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from manyminds.errors import DataError
from manyminds.experts.recorded import Question, RecordedSet
from manyminds.index import Index, Section, chapters, claimed_tree, regions, tree
from manyminds.types import Embed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from manyminds.types import Vectors

    Floats = NDArray[np.float64]

__all__ = ["Library", "browse", "claimed"]

_MOST: Final = 2_000  # questions: to read more takes minutes, and names nothing better
_BLOCK: Final = 64  # that are read at once


@dataclass(frozen=True, slots=True)
class Library:
    """Sections, how many questions they were made from, and experts that are better than others nowhere."""

    sections: tuple[Section, ...]
    questions: int
    nowhere: tuple[str, ...]


def browse(recorded: RecordedSet, embed: Embed, progress: Callable[[str, float], None]) -> Library:
    """By what came of the splits calibration and validation: of up to 2,000 questions, evenly spaced.

    Raises: DataError where none of them has a text, or fewer than two experts answered them.
    """
    asked = [question for question in recorded.questions() if question.split != "test" and question.prompt]
    asked = [asked[i * len(asked) // _MOST] for i in range(_MOST)] if len(asked) > _MOST else asked
    if not asked or len(recorded.models) < 2:
        raise DataError(
            f"{len(asked)} questions with a text, and {len(recorded.models)} models: there is nothing to put"
            " on shelves. Give a set that has some, in the splits calibration or validation."
        )
    vectors = _read(asked, embed, progress)
    right = _outcomes(recorded, asked)
    heard, sums = np.isfinite(right), np.nansum(right, axis=0)
    others = heard.sum(axis=0) - heard
    peers = np.where(others > 0, (sums - np.nan_to_num(right)) / np.maximum(others, 1), np.nan)
    index, told, nowhere = Index(vectors.shape[1]), {}, []
    for name, own, of_peers in zip(recorded.models, right, peers, strict=True):
        if len(rows := chapters(vectors, own, of_peers)):
            index.add(name, rows)
            told[name] = regions(vectors, own, of_peers)
        else:
            nowhere.append(name)
    texts, fields = [question.prompt or "" for question in asked], [question.category for question in asked]
    return Library(tree(index, texts, vectors, fields, told), len(asked), tuple(sorted(nowhere)))


def claimed(skills: Mapping[str, Sequence[str]], embed: Embed) -> Library:
    """By nothing but the experts' own words for their skills; at least one expert must have any."""
    sections = claimed_tree(skills, embed)
    return Library(sections, len({text for own in skills.values() for text in own}), ())


def _outcomes(recorded: RecordedSet, asked: Sequence[Question]) -> "Floats":
    """(m, n) 1 where an expert was right, 0 where it was wrong, NaN where it was not asked."""
    place = {question.question_id: i for i, question in enumerate(recorded.questions())}
    wanted = [place[question.question_id] for question in asked]
    right = np.full((len(recorded.models), len(place)), np.nan)
    for row, expert in zip(right, recorded.experts(), strict=True):
        row[expert.recording.rows] = expert.recording.correct
    return right[:, wanted]


def _read(asked: Sequence[Question], embed: Embed, progress: Callable[[str, float], None]) -> "Vectors":
    parts = []
    for start in range(0, len(asked), _BLOCK):
        parts.append(embed([question.prompt or "" for question in asked[start : start + _BLOCK]]))
        progress("reading questions", min(1.0, (start + _BLOCK) / len(asked)))
    return np.concatenate(parts)
