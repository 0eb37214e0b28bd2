"""What an artefact was learnt from, beside it as a file: questions with their golds, and all outcomes.

All of it: what is learnt anew without somebody is what would have been learnt had that one never been asked.
Newcomers are asked of these questions, and judged beside what the others made of them. It holds what people
asked: an artefact may be passed on, its bank need not.

Vectors are kept to the last bit, in two halves: the upper 16 bits of each number in the bank, the lower ones
in a file beside it that the bank names by its content. So no file is large, and a bank that was not written
to its end leaves the one before it whole.
"""

from collections.abc import Mapping, Sequence
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

__all__ = ["Bank", "beside", "key_of", "load", "remove", "save"]

_VERSION: Final = 2  # 1 held vectors in a byte for each number, and not who answered in which category
_HALF: Final = 16  # bits of a number
_NAMED: Final = 8  # characters of its content's hash by which a half is named
_REMEDY: Final = "learn anew with `manyminds train DIR`, which makes one"


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """The n questions that were learnt from, in the order of the examples.

    Attributes:
        of: SHA-256 of the artefact's file that was learnt from it.
        questions: (n,); examples: what m experts made of them.
        answered: by category of the whole set, who of these has an answer there: see `examples.answered_in`.
        about: how it was learnt, `seed` among it: see `learn.train.train`.
    """

    of: str
    questions: tuple[Question, ...]
    examples: Examples
    answered: Mapping[str, tuple[str, ...]]
    about: Mapping[str, Any]

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


def save(
    artefact: Path,
    questions: Sequence[Question],
    examples: Examples,
    answered: Mapping[str, Sequence[str]],
    about: Mapping[str, Any],
) -> None:
    """Keeps what the artefact in that file was learnt from; see `Bank`. Raises: OSError."""
    arrays: dict[str, NDArray[Any]] = {}
    header: dict[str, Any] = {"version": _VERSION, "of": archive.digest(artefact)}
    for field in fields(examples):
        value = getattr(examples, field.name)
        if isinstance(value, np.ndarray):
            arrays[field.name] = value
        else:
            header[field.name] = value
    header["questions"] = [msgspec.to_builtins(question) for question in questions]
    header |= {"answered": dict(answered), "about": dict(about)}
    path, lower = beside(artefact), None
    if examples.vectors is not None:
        bits = np.ascontiguousarray(examples.vectors, np.float32).view(np.uint32)
        arrays["vectors"] = (bits >> _HALF).astype(np.uint16)
        half = (bits & 0xFFFF).astype(np.uint16)
        header["lower"] = content = sha256(half.tobytes()).hexdigest()[:_NAMED]
        lower = _lower(path, content)
        archive.write(lower, {"version": _VERSION}, {"lower": half})
    archive.write(path, header, arrays)
    _tidy(path, lower)


def remove(artefact: Path) -> None:
    """Deletes the bank of that artefact, if it has one. Raises: OSError."""
    beside(artefact).unlink(missing_ok=True)
    _tidy(beside(artefact), None)


def _lower(path: Path, content: str) -> Path:
    """Where the lower half is of the bank in that file; `content` may be a pattern."""
    return path.with_suffix(f".{content}.npz")


def _tidy(path: Path, kept: Path | None) -> None:
    """Deletes lower halves of banks that were there before."""
    for other in path.parent.glob(_lower(path, "?" * _NAMED).name):
        if other != kept:
            other.unlink(missing_ok=True)


def load(artefact: Path, *, anybody: bool = False) -> Bank:
    """The bank of the artefact in that file. `anybody` takes it also where it is that of another one.

    Raises: ArtefactError where there is none, it is damaged, or it is that of another artefact.
    """
    path = beside(artefact)
    with archive.opened(path, _VERSION, "bank of questions", _REMEDY) as (header, arrays):
        questions = tuple(msgspec.convert(one, Question) for one in header.pop("questions"))
        of, about = str(header.pop("of")), dict(header.pop("about"))
        answered = {str(name): tuple(map(str, said)) for name, said in header.pop("answered").items()}
        if not anybody and of != archive.digest(artefact):
            raise ValueError(f"it is that of another artefact than {artefact}")
        lower = header.pop("lower", None)
        if lower is not None:
            arrays["vectors"] = _joined(arrays["vectors"], _lower(path, Path(str(lower)).name))
        examples = _examples(header, arrays)
        _check(examples, len(questions))
    return Bank(of, questions, examples, answered, about)


def _joined(upper: "NDArray[np.uint16]", path: Path) -> "NDArray[np.float32]":
    """Raises: ArtefactError, ValueError."""
    with archive.opened(path, _VERSION, "half of a bank of questions", _REMEDY) as (_, arrays):
        lower = arrays["lower"]
        if lower.shape != upper.shape or lower.dtype != upper.dtype:
            raise ValueError("it is that of another bank")
    vectors: NDArray[np.float32] = ((upper.astype(np.uint32) << _HALF) | lower).view(np.float32)
    return vectors


def _examples(header: dict[str, Any], arrays: "dict[str, NDArray[Any]]") -> Examples:
    header.pop("version")
    vectors = arrays.pop("vectors", None)
    header.pop("vectors", None)
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
