"""One's own questions from a CSV file, each with its gold answer and how answers to it are read.

Knows no expert. What a question's answers are compared by is what `canonical` says of live traffic. Where
that has nothing to compare by, or cannot read the gold, answers are compared as numbers if the gold is
one, and else by exact match of their words, without case, accents, leading article and punctuation.
"""

import csv
import hashlib
import io
import json
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, get_args

import msgspec

from manyminds.canonical import answer_of, task
from manyminds.canonical.prose import end, plain, span
from manyminds.errors import DataError
from manyminds.evals.datasets.schema import split_of
from manyminds.experts.recorded import Question, Split
from manyminds.types import Message, Query, Task

__all__ = ["Graded", "again", "need_enough", "parse", "read"]

_MAX_BYTES: Final = 64_000_000
_SHOWN: Final = 80  # characters of a value in an error
_NEEDED: Final = ("question", "answer")
_ABC: Final = string.ascii_uppercase
_LETTERS: Final = tuple(_ABC[:10])
_KNOWN: Final = (*_NEEDED, "id", "category", "split", "choices", *_LETTERS)
_LEAST: Final[Mapping[Split, int]] = MappingProxyType({"calibration": 20, "validation": 5, "test": 20})
"""Fewer teach nothing, choose nothing or show nothing."""

_decode_choices = msgspec.json.Decoder(list[str | int | float]).decode


@dataclass(frozen=True, slots=True)
class Graded:
    """A question, its gold in canonical form, and what makes answers to it right.

    Attributes:
        text: what experts are asked; the question's own text may show the same options otherwise.
        task: a `text` task is compared by exact match, see the module.
        check: whether a text is right, of questions whose answers cannot be compared, such as programs:
            these have no gold. May take seconds and raise DataError; safe in any thread.
    """

    question: Question
    text: str
    task: Task
    check: Callable[[str], bool] | None = None

    @property
    def open_ended(self) -> bool:
        """Graded by exact match: a right answer in a whole sentence counts as wrong."""
        return self.task.kind == "text" and self.check is None

    def read(self, text: str, *, cut: bool = False) -> str | None:
        """The answer in canonical form; None abstains, as does whatever has to be checked instead.

        So does one that was cut at its length limit, unless it chose an option, as in a live vote.
        """
        if self.check is not None or (cut and self.task.kind != "option"):
            return None
        return _read_answer(self.task, text)

    def right(self, text: str, *, cut: bool = False) -> bool:
        """Whether the text is a right answer. Raises: DataError, where it cannot be checked here."""
        if self.check is not None:
            return bool(text.strip()) and self.check(text)
        answer = self.read(text, cut=cut)
        return answer is not None and answer == self.question.gold


def read(file: Path) -> list[Graded]:
    """The questions of a CSV file, in its order. Raises: DataError, which names the line."""
    try:
        with file.open("rb") as content:
            raw = content.read(_MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from None
    if len(raw) > _MAX_BYTES:
        raise DataError(f"{file} is larger than {_MAX_BYTES // 1_000_000} MB: split it.")
    questions = parse(raw, file.name)
    need_enough(questions, file.name)
    return questions


def parse(raw: bytes, where: str) -> list[Graded]:
    """As `read`, from bytes; any number of questions. Raises: DataError, which names the line."""
    graded: list[Graded] = []
    lines: dict[str, int] = {}
    for line, row in _rows(_decode(raw, where), where):
        found = _graded(row, f"{where}, line {line}")
        key = found.question.question_id
        if key in lines:
            what = f"id {key!r:.{_SHOWN}}" if row.get("id") else "question"
            raise DataError(f"{where}, line {line}: this {what} is on line {lines[key]} already: remove one.")
        lines[key] = line
        graded.append(found)
    return graded


def need_enough(questions: Sequence[Graded], where: str) -> None:
    """Raises: DataError with the counts, where a split has too few questions to learn or to show anything."""
    counts = Counter(graded.question.split for graded in questions)
    if all(counts[split] >= least for split, least in _LEAST.items()):
        return
    has = ", ".join(f"{counts[split]} {split}" for split in _LEAST)
    needs = ", ".join(f"{least} {split}" for split, least in _LEAST.items())
    raise DataError(
        f"{where} has too few questions: {has}; needed are {needs}. Add questions (without a column `split`"
        " 40, 10 and 50 % of them fall to each, so 150 will do), or name their splits in that column."
    )


def again(question: Question) -> Graded | None:
    """A recorded question, to be asked again as it was; None where it has no text or no gold that is read.

    So are programs and translations, which are checked and not compared.
    """
    if not question.prompt or question.gold is None:
        return None
    if question.choices:
        known = Task("option", question.choices, question.prompt)
    else:
        try:
            known, _ = _task(question.prompt, question.gold, "")
        except DataError:
            return None
    graded = Graded(question, question.text, known)
    return graded if graded.read(question.gold) == question.gold else None


# --- the file --------------------------------------------------------------------------------------


def _decode(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{where}, line {line}: this is not UTF-8 text: save the file as CSV UTF-8."
        ) from None


def _rows(text: str, where: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Each row that holds anything, by column, with the line it starts on."""
    delimiter = _delimiter(text, where)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            if header is None:
                header = _header(cells, where)
            elif len(cells) > len(header):
                raise DataError(
                    f"{where}, line {line}: {len(cells)} cells under {len(header)} columns:"
                    f" put a cell that has a {_spoken(delimiter)} in it into double quotes."
                )
            elif any(cell.strip() for cell in cells):
                named = zip(header, cells, strict=False)  # cells left out at the end are empty
                yield line, {name: cell.strip() for name, cell in named if name}
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{where}, line {line}: not well-formed CSV ({error}): a cell with quotes in it needs double"
            ' quotes around it, and each of its own doubled, as in "say ""yes""".'
        ) from None


def _delimiter(text: str, where: str) -> str:
    """Whichever makes the header say what it must."""
    found: list[str] = []
    for delimiter in (",", ";", "\t"):
        try:
            names = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        except csv.Error:
            continue
        if set(_NEEDED) <= {name.strip().casefold() for name in names}:
            return delimiter
        found = max(found, names, key=len)
    shown = ", ".join(name.strip() for name in found) or "nothing"
    raise DataError(
        f"{where}, line 1: a header with the columns `question` and `answer` is needed; it has {shown:.200}."
    )


def _header(cells: Sequence[str], where: str) -> list[str]:
    """The columns' names; "" for those that say nothing here."""
    known = {name.casefold(): name for name in _KNOWN}
    names = [known.get(cell.strip().casefold(), "") for cell in cells]
    for name, times in Counter(names).items():
        if name and times > 1:
            raise DataError(f"{where}, line 1: {times} columns are named `{name}`: rename all but one.")
    return names


def _spoken(delimiter: str) -> str:
    return {",": "comma", ";": "semicolon"}.get(delimiter, "tab")


# --- a question ------------------------------------------------------------------------------------


def _graded(row: Mapping[str, str], where: str) -> Graded:
    text, gold = row.get("question", ""), row.get("answer", "")
    if not text:
        raise DataError(f"{where}: the question is empty.")
    if not gold:
        raise DataError(f"{where}: the answer is missing: every question needs its right one.")
    choices = _choices(row, where)
    key = row.get("id") or _key(text, choices)
    split = row.get("split", "").casefold() or split_of(key)
    if split not in get_args(Split):
        known = ", ".join(get_args(Split))
        raise DataError(f"{where}: the split is {split!r:.{_SHOWN}}, not one of {known}, or empty.")
    if choices:
        task = Task("option", choices, text)
        canonical = _read_answer(task, gold)
        if canonical is None:
            listed = zip(_ABC, choices, strict=False)
            shown = ", ".join(f"{letter}) {choice:.40}" for letter, choice in listed)
            raise DataError(
                f"{where}: the answer {gold!r:.{_SHOWN}} names no option, or not only one:"
                f" give the letter or the text of one of {shown:.400}."
            )
    else:
        task, canonical = _task(text, gold, where)
    stem, options = (task.stem, task.options) if task.kind == "option" else (text, ())
    question = Question(key, row.get("category", ""), stem, options, canonical, split)  # type: ignore[arg-type]
    return Graded(question, question.text if choices else text, task)


def _choices(row: Mapping[str, str], where: str) -> tuple[str, ...]:
    """From the lettered columns or the list; () where the question has neither."""
    cells = [row.get(letter, "") for letter in _LETTERS]
    lettered = cells[: max((i + 1 for i, cell in enumerate(cells) if cell), default=0)]
    listed: list[str] = []
    if row.get("choices"):
        try:
            listed = [" ".join(str(choice).split()) for choice in _decode_choices(row["choices"].encode())]
        except (msgspec.DecodeError, RecursionError):
            raise DataError(
                f'{where}: `choices` must be a JSON list of texts, such as ["red", "blue"],'
                f" not {row['choices']!r:.{_SHOWN}}."
            ) from None
    if lettered and listed:
        raise DataError(f"{where}: options are both in lettered columns and in `choices`: keep one.")
    choices = lettered or listed
    if not choices and not row.get("choices"):
        return ()
    if not all(choices):
        raise DataError(f"{where}: option {_ABC[choices.index('')]} is empty, and a later one is not.")
    if not 2 <= len(choices) <= len(_ABC):
        raise DataError(f"{where}: {len(choices)} options; from 2 to {len(_ABC)} can be told apart.")
    return tuple(choices)


def _task(text: str, gold: str, where: str) -> tuple[Task, str]:
    """How answers to a question without given options are compared, and its gold, so read."""
    live = task(Query((Message("user", text),)))
    if live.kind != "text":
        canonical = _read_answer(live, gold)
        if canonical is not None:
            return live, canonical
    if not any(character.isalpha() for character in gold):
        canonical = _read_answer(Task("number"), f"\\boxed{{{gold}}}")  # all of it, not a number within
        if canonical is not None:
            return Task("number"), canonical
    canonical = _read_answer(Task("text"), gold)
    if canonical is None:
        raise DataError(f"{where}: the answer {gold!r:.{_SHOWN}} holds no word and no number.")
    return Task("text"), canonical


def _read_answer(task: Task, text: str) -> str | None:
    if task.kind != "text":
        return answer_of(task, text)
    said = end(text)
    return span(said) or plain(said) or None


def _key(text: str, choices: Sequence[str]) -> str:
    """An id from what is asked, so that it survives reordering; white space does not count."""
    asked = json.dumps([" ".join(text.split()), *choices])
    return f"q-{hashlib.sha256(asked.encode()).hexdigest()[:16]}"
