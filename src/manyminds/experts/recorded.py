"""Models that answer from a recording: a folder of three Parquet tables, made elsewhere.

Knows no combiner and judges no answer: whether one is right is what the recording says. A folder has

- `questions`: `question_id benchmark category prompt gold split` text; `choices` list of text.
- `answers`: `question_id model answer raw` text; `correct prompt_tokens completion_tokens latency_s
  confidence completion_chars cost_usd` numbers; `extracted` truth value. (question_id, model) is unique.
- `models`: `model family released price_source` text; `params_b active_params_b price_in_usd_per_m
  price_out_usd_per_m` numbers; `open_weights` truth value.

The column `split` is calibration, validation or test, and cards claim what calibration shows, nothing else.
Models `a:x` and `a:y` are ways of asking one expert `a`, and so is `a:x` beside a model `a`.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import numpy as np

from manyminds.errors import DataError, RefusedError
from manyminds.experts.asked import variant
from manyminds.types import Card, Chunk, Kind, Limits, Message, Query, Task, Usage

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from manyminds.types import Vectors

__all__ = ["Question", "Recorded", "RecordedSet", "Recording", "Split", "open_set"]

Split: TypeAlias = Literal["calibration", "validation", "test"]

_COLUMNS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "questions": {
            "question_id": "key",
            **dict.fromkeys(("benchmark", "category", "prompt", "gold"), "text"),
            "choices": "texts",
            "split": "key",
        },
        "answers": {
            **dict.fromkeys(("question_id", "model"), "key"),
            **dict.fromkeys(("answer", "raw"), "text"),
            "correct": "verdict",
            "extracted": "truth",
            **dict.fromkeys(("prompt_tokens", "completion_tokens", "completion_chars"), "amount"),
            **dict.fromkeys(("latency_s", "cost_usd"), "amount"),
            "confidence": "number",
        },
        "models": {
            "model": "key",
            **dict.fromkeys(("family", "released", "price_source"), "text"),
            **dict.fromkeys(("params_b", "active_params_b"), "amount"),
            **dict.fromkeys(("price_in_usd_per_m", "price_out_usd_per_m"), "amount"),
            "open_weights": "truth",
        },
    }
)
"""What each column holds: a key is text, never null; an amount is not negative; a verdict is 0 or 1."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a set. Sets without prompts can be asked by `question_id` only."""

    question_id: str
    category: str
    prompt: str | None
    choices: tuple[str, ...]
    gold: str | None
    split: Split

    @property
    def text(self) -> str:
        """The prompt with its lettered choices below, as a user would type it."""
        lines = [f"{chr(ord('A') + i)}) {choice}" for i, choice in enumerate(self.choices)]
        return "\n".join([self.prompt or "", *lines])

    def query(self, kind: Kind, vector: "Vectors | None" = None) -> Query:
        """As a gateway would hand it to its router, with the category as the caller's word for its topic."""
        return Query(
            messages=(Message("user", self.text),),
            request_id=self.question_id,
            limits=Limits(topic=self.category),
            task=Task(kind, self.choices, self.prompt or ""),
            vector=vector,
        )


class _Finder:
    """Which row a query asks for: by its id, else by its exact text. Shared by a set's experts."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._ids = {question.question_id: row for row, question in enumerate(questions)}
        self._texts: dict[str, int] = {}
        for row, question in enumerate(questions):
            for text in {question.prompt, question.text}:
                if text:  # a text that several questions share names none of them
                    self._texts[text] = -1 if text in self._texts else row

    def row(self, query: Query) -> int | None:
        """None where nothing matches, or more than one question."""
        row = self._ids.get(query.request_id)
        row = self._texts.get(query.question) if row is None else row
        return None if row == -1 else row

    def row_of(self, question_id: str) -> int | None:
        return self._ids.get(question_id)


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """What one model said. Arrays run over the n questions that it was asked, in order of `rows`.

    Attributes:
        rows: (n,) int32, increasing positions in the set's questions.
        texts: all canonical answers of the set; `codes` (n,) int32 points into it, -1 abstains.
        correct: (n,) bool.
        tokens: (n, 2) float64, of prompt and completion; where not recorded 0, and a quarter of the
            completion's characters.
        cost_usd, seconds, confidence: (n,) float64; NaN where not recorded.
    """

    finder: _Finder
    rows: "NDArray[np.int32]"
    texts: Sequence[str]
    codes: "NDArray[np.int32]"
    correct: "NDArray[np.bool_]"
    tokens: "NDArray[np.float64]"
    cost_usd: "NDArray[np.float64]"
    seconds: "NDArray[np.float64]"
    confidence: "NDArray[np.float64]"

    def at(self, row: int | None) -> int | None:
        """Position of a question in the arrays; None where this model was not asked. O(log n)."""
        if row is None:
            return None
        i = int(np.searchsorted(self.rows, row))
        return i if i < len(self.rows) and self.rows[i] == row else None

    def part(self, start: int, end: int) -> "Recording":
        """Views, not copies."""
        arrays = {
            name: getattr(self, name)[start:end]
            for name in ("rows", "codes", "correct", "tokens", "cost_usd", "seconds", "confidence")
        }
        return replace(self, **arrays)


class Recorded:
    """A model's recorded answers as an expert. What is not recorded, it refuses.

    A question is known by `query.request_id`, or by the exact text of the last user turn.
    It says the canonical answer, so that equal texts are equal answers; an abstention says nothing.
    """

    def __init__(self, card: Card, recording: Recording) -> None:
        self._card = card
        self._recording = recording

    @property
    def card(self) -> Card:
        return self._card

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        recording = self._recording
        i = recording.at(recording.finder.row(query))
        if i is None:
            raise RefusedError(f"{self._card.name} is a recording and only knows the questions recorded.")
        code, (prompt_tokens, completion_tokens) = recording.codes[i], recording.tokens[i]
        cost_usd = float(np.nan_to_num(recording.cost_usd[i]))
        usage = Usage(round(prompt_tokens), round(completion_tokens), cost_usd=cost_usd)
        confidence = None if np.isnan(recording.confidence[i]) else float(recording.confidence[i])
        text = recording.texts[code] if code >= 0 else ""
        yield Chunk(text, finish_reason="stop", usage=usage, confidence=confidence)

    @property
    def recording(self) -> Recording:
        """All that it can say, for those who learn from it."""
        return self._recording

    def behind(self, card: Card) -> "Recorded":
        """The same recording under another name, source or price."""
        return Recorded(card, self._recording)

    def correct(self, question_id: str) -> bool | None:
        """What the recording says of this answer; None where there is none."""
        i = self._recording.at(self._recording.finder.row_of(question_id))
        return None if i is None else bool(self._recording.correct[i])


class RecordedSet:
    """One folder's questions and models."""

    def __init__(self, questions: Sequence[Question], experts: Sequence[Recorded]) -> None:
        self._questions = tuple(questions)
        self._experts = tuple(experts)

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(expert.card.name for expert in self._experts)

    def questions(self, split: Split | None = None) -> tuple[Question, ...]:
        """In the order of the file."""
        return tuple(question for question in self._questions if split in (None, question.split))

    def experts(self, exclude: Iterable[str] = ()) -> list[Recorded]:
        """One for each model, but for those that match a shell pattern in `exclude`."""
        patterns = tuple(exclude)
        return [
            expert
            for expert in self._experts
            if not any(fnmatchcase(expert.card.name, pattern) for pattern in patterns)
        ]


# --- reading ---------------------------------------------------------------------------------------


def open_set(folder: Path) -> RecordedSet:
    """Reads and checks a set: about a second and 100 MB for 360,000 answers.

    Raises: DataError, which names the table, the column and what is wrong.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise DataError("Recorded sets need pyarrow: pip install 'manyminds[eval]'.") from error

    recorded = _load(folder)
    pa.default_memory_pool().release_unused()  # else it keeps as much again as the set takes
    return recorded


def _load(folder: Path) -> RecordedSet:
    models, answers = _read(folder, "models"), _read(folder, "answers")
    questions = _questions(_read(folder, "questions"), f"{folder}: questions")
    ids, names = [question.question_id for question in questions], models["model"].to_pylist()
    _unique(ids, f"{folder}: questions: question_id")
    _unique(names, f"{folder}: models: model")
    rows = _positions(answers["question_id"], ids, f"{folder}: answers: question_id")
    of_model = _positions(answers["model"], names, f"{folder}: answers: model")
    order = np.lexsort((rows, of_model))
    rows, of_model = rows[order], of_model[order]
    twice = int(((np.diff(rows) == 0) & (np.diff(of_model) == 0)).sum())
    if twice:
        raise DataError(f"{folder}: answers: (question_id, model) occurs again in {twice} rows.")
    recording = _recording(_Finder(questions), rows, answers, order)
    calibration = np.array([question.split == "calibration" for question in questions], dtype=bool)
    starts = np.searchsorted(of_model, np.arange(len(names) + 1)).tolist()
    experts = []
    for model, start, end in zip(_rows(models), starts[:-1], starts[1:], strict=True):
        part = recording.part(start, end)
        right = part.correct[calibration[part.rows]]
        accuracy = float(right.mean()) if len(right) else 0.5
        experts.append(Recorded(_card(model, folder, accuracy), part))
    return RecordedSet(questions, experts)


def _card(model: Mapping[str, Any], folder: Path, accuracy: float) -> Card:
    base, _ = variant(model["model"]) or ("", "")
    return Card(
        name=model["model"],
        kind="recorded",
        source=base or model["model"],
        model=model["model"],
        variant_of=base,
        description=f"{model['model']}, as recorded in {folder.name}",
        accuracy=accuracy,
        price_in_usd_per_m=model["price_in_usd_per_m"] or 0.0,
        price_out_usd_per_m=model["price_out_usd_per_m"] or 0.0,
        context_tokens=1_000_000,  # it reads nothing: no question is too long for it
        parameters=round((model["params_b"] or 0.0) * 1e9),
    )


def _read(folder: Path, name: str) -> dict[str, "pa.Array[Any]"]:
    """A table's columns, checked one by one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file, columns = folder / f"{name}.parquet", _COLUMNS[name]
    if not file.is_file():
        raise DataError(
            f"{file} is missing: a set has questions.parquet, answers.parquet and models.parquet."
        )
    try:
        lacking = sorted(set(columns) - set(pq.read_schema(file).names))
        if lacking:
            raise DataError(f"{folder}: {name}: there is no column {', '.join(lacking)}.")
        table = pq.read_table(file, columns=list(columns))
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{file} cannot be read as Parquet: {reason}") from error
    return {
        column: _check(table[column].combine_chunks(), kind, f"{folder}: {name}: {column}")
        for column, kind in columns.items()
    }


def _check(column: "pa.Array[Any]", kind: str, where: str) -> "pa.Array[Any]":
    """The column in its plain type. Raises: DataError when it does not hold what `kind` says."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def holds(type_: "pa.DataType", kind: str) -> bool:
        if pa.types.is_null(type_):
            return True
        if kind in ("key", "text"):
            inner = type_.value_type if pa.types.is_dictionary(type_) else type_
            return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))
        if kind == "texts":
            lists = pa.types.is_list(type_) or pa.types.is_large_list(type_)
            return bool(lists and holds(type_.value_type, "text"))
        if kind == "truth":
            return bool(pa.types.is_boolean(type_))
        return bool(pa.types.is_floating(type_) or pa.types.is_integer(type_))

    plain = {"key": pa.string(), "text": pa.string(), "texts": pa.list_(pa.string()), "truth": pa.bool_()}
    if not holds(column.type, kind):
        raise DataError(f"{where} holds {column.type}, not {plain.get(kind, 'numbers')}.")
    column = column.cast(plain.get(kind, pa.float64()))
    if kind in ("key", "verdict") and column.null_count:
        raise DataError(f"{where} is null in {column.null_count} of {len(column)} rows.")
    faults: list[tuple[str, Any]] = []
    if kind in ("number", "amount", "verdict"):
        faults.append(("not a finite number", pc.invert(pc.is_finite(column))))
    if kind == "amount":
        faults.append(("negative", pc.less(column, 0.0)))
    if kind == "verdict":
        faults.append(("neither 0 nor 1", pc.invert(pc.is_in(column, pa.array([0.0, 1.0])))))
    if kind == "key":
        faults.append(("empty", pc.equal(column, "")))
    for fault, rows in faults:
        count = pc.sum(rows).as_py()
        if count:
            raise DataError(f"{where} is {fault} in {count} of {len(column)} rows.")
    return column


def _rows(columns: "Mapping[str, pa.Array[Any]]") -> list[dict[str, Any]]:
    lists = {name: column.to_pylist() for name, column in columns.items()}
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _questions(columns: "Mapping[str, pa.Array[Any]]", where: str) -> list[Question]:
    questions = []
    for row in _rows(columns):
        if row["split"] not in get_args(Split):
            known = ", ".join(get_args(Split))
            raise DataError(
                f"{where}: split of {row['question_id']} is {row['split']!r}, not one of {known}."
            )
        choices = tuple(row["choices"] or ())
        if None in choices:
            raise DataError(f"{where}: choices of {row['question_id']} hold a null.")
        category = row["category"] or ""
        questions.append(
            Question(row["question_id"], category, row["prompt"], choices, row["gold"], row["split"])
        )
    return questions


def _unique(keys: Sequence[str], where: str) -> None:
    again, times = max(Counter(keys).items(), key=lambda item: item[1], default=("", 0))
    if times > 1:
        raise DataError(f"{where} {again!r} occurs {times} times.")


def _positions(column: "pa.Array[Any]", keys: Sequence[str], where: str) -> "NDArray[np.int32]":
    """Where each value stands in `keys`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.index_in(column, value_set=pa.array(keys, pa.string()))
    if found.null_count:
        stray = column.filter(pc.is_null(found))
        raise DataError(f"{where} {stray[0].as_py()!r} is unknown, and {len(stray)} rows have such.")
    positions: NDArray[np.int32] = found.to_numpy(zero_copy_only=False).astype(np.int32)
    return positions


def _recording(
    finder: _Finder,
    rows: "NDArray[np.int32]",
    answers: "Mapping[str, pa.Array[Any]]",
    order: "NDArray[np.intp]",
) -> Recording:
    """All answers, in the given order."""
    import pyarrow.compute as pc

    def figures(name: str, missing: float) -> "NDArray[np.float64]":
        column: NDArray[np.float64] = pc.fill_null(answers[name], missing).to_numpy(zero_copy_only=False)
        return column[order]

    said = pc.dictionary_encode(answers["answer"])
    written = figures("completion_tokens", np.nan)
    written = np.where(np.isnan(written), np.ceil(figures("completion_chars", 0.0) / 4.0), written)
    return Recording(
        finder=finder,
        rows=rows,
        texts=said.dictionary.to_pylist(),
        codes=pc.fill_null(said.indices, -1).to_numpy(zero_copy_only=False)[order],
        correct=figures("correct", 0.0) == 1.0,
        tokens=np.stack([figures("prompt_tokens", 0.0), written], axis=1),
        cost_usd=figures("cost_usd", np.nan),
        seconds=figures("latency_s", np.nan),
        confidence=figures("confidence", np.nan),
    )
