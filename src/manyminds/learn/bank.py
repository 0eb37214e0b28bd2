"""What an artefact was learnt from, beside it as a file: questions with their golds, and all outcomes.

Newcomers are asked of these questions, and judged beside what the others made of them. It holds what people
asked: an artefact may be passed on, its bank need not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from manyminds import archive
from manyminds.experts.recorded import Question
from manyminds.learn.examples import Examples

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Bank", "beside", "key_of", "load", "save"]

_VERSION: Final = 1
_REMEDY: Final = "learn anew with `manyminds train DIR`, which makes one"
_STEPS: Final = 127  # of a vector's largest entry, to which its others are rounded


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """The n questions that were learnt from, in the order of the examples.

    Attributes:
        of: SHA-256 of the artefact's file that was learnt from it.
        questions: (n,); examples: what m experts made of them.
    """

    of: str
    questions: tuple[Question, ...]
    examples: Examples

    def parts(self) -> "list[tuple[NDArray[np.intp], Examples]]":
        """Of each sort of question its rows, and its examples as they were learnt from."""
        return list(zip(self.examples.sorts(), self.examples.parts(), strict=True))


def key_of(question: Question) -> str:
    """What makes it another question: its text, options and gold, not its id."""
    asked = msgspec.json.encode([question.prompt, question.choices, question.gold])
    return sha256(asked).hexdigest()[:24]


def beside(artefact: Path) -> Path:
    """Where the bank of that artefact is."""
    return artefact.with_suffix(".bank.npz")


def save(artefact: Path, questions: Sequence[Question], examples: Examples) -> None:
    """Keeps what the artefact in that file was learnt from. Vectors are rounded. Raises: OSError."""
    arrays: dict[str, NDArray[Any]] = {}
    header: dict[str, Any] = {"version": _VERSION, "of": archive.digest(artefact)}
    for field in fields(examples):
        value = getattr(examples, field.name)
        if isinstance(value, np.ndarray):
            arrays[field.name] = value
        else:
            header[field.name] = value
    if examples.vectors is not None:
        arrays["scales"] = scales = np.abs(examples.vectors).max(axis=1, keepdims=True) / _STEPS
        steps = examples.vectors / np.where(scales > 0.0, scales, 1.0)
        arrays["vectors"] = np.rint(steps).astype(np.int8)
    header["questions"] = [msgspec.to_builtins(question) for question in questions]
    archive.write(beside(artefact), header, arrays)


def load(artefact: Path) -> Bank:
    """The bank of the artefact in that file.

    Raises: ArtefactError where there is none, it is damaged, or it is that of another artefact.
    """
    path = beside(artefact)
    with archive.opened(path, _VERSION, "bank of questions", _REMEDY) as (header, arrays):
        questions = tuple(msgspec.convert(one, Question) for one in header.pop("questions"))
        of = str(header.pop("of"))
        if of != archive.digest(artefact):
            raise ValueError(f"it is that of another artefact than {artefact}")
        examples = _examples(header, arrays)
        _check(examples, len(questions))
    return Bank(of, questions, examples)


def _examples(header: dict[str, Any], arrays: "dict[str, NDArray[Any]]") -> Examples:
    vectors = arrays.pop("vectors", None)
    if vectors is not None:
        vectors = vectors.astype(np.float32) * arrays.pop("scales").astype(np.float32)
    header.pop("vectors", None)
    header.pop("version")
    texts: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in header.items()
    }
    texts["candidates"] = tuple(tuple(answers) for answers in header["candidates"])
    tables: dict[str, Any] = dict(arrays)
    return Examples(**texts, **tables, vectors=vectors)


def _check(examples: Examples, n: int) -> None:
    """Raises: ValueError where shapes do not fit, or a vote is for nothing."""
    m = len(examples.experts)
    for name in ("votes", "correct", "cost_usd", "seconds", "tokens", "confidence"):
        if getattr(examples, name).shape != (n, m):
            raise ValueError(f"{name} has shape {getattr(examples, name).shape}, not {(n, m)}")
    for name in ("kinds", "read_as", "candidates", "topics", "spread"):
        if len(getattr(examples, name)) != n:
            raise ValueError(f"{name} is of {len(getattr(examples, name))} questions, not {n}")
    if examples.vectors is not None and len(examples.vectors) != n:
        raise ValueError(f"vectors is of {len(examples.vectors)} questions, not {n}")
    if list(examples.experts) != sorted(set(examples.experts)) or len(examples.sources) != m:
        raise ValueError("the experts are not sorted, or not each with its source")
    counts = np.array([len(answers) for answers in examples.candidates])
    if (examples.votes >= counts[:, None]).any() or (examples.votes < -2).any():
        raise ValueError("a vote is for an answer that nobody gave")
