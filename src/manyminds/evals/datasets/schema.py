"""The three tables of a recorded set, row by row, and the folder that holds them. Knows no upstream.

What the columns mean is said in `manyminds.experts.recorded`, which reads them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from manyminds.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "FILES",
    "AnswerRow",
    "ModelRow",
    "QuestionRow",
    "Tables",
    "digest_of",
    "need_pyarrow",
    "split_of",
    "write",
]

FILES: Final = ("questions.parquet", "answers.parquet", "models.parquet")

_TEXT: Final = ("question_id", "benchmark", "category", "prompt", "gold", "split", "model", "answer", "raw")
_WIDE: Final = ("cost_usd", "price_in_usd_per_m", "price_out_usd_per_m")


class QuestionRow(NamedTuple):
    """One question. `gold` is canonical, as answers are."""

    question_id: str
    benchmark: str
    category: str
    prompt: str | None
    choices: Sequence[str] | None
    gold: str | None
    split: str


class AnswerRow(NamedTuple):
    """What one model said to one question; None where upstream says nothing."""

    question_id: str
    model: str
    answer: str | None
    correct: bool
    extracted: bool
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    completion_chars: int | None = None
    latency_s: float | None = None
    cost_usd: float | None = None
    confidence: float | None = None
    raw: str | None = None


class ModelRow(NamedTuple):
    """One model, as far as it is known."""

    model: str
    family: str
    params_b: float | None
    active_params_b: float | None
    open_weights: bool
    released: str
    price_in_usd_per_m: float | None
    price_out_usd_per_m: float | None
    price_source: str

    def cost_usd(self, prompt_tokens: float, completion_tokens: float) -> float:
        """At this model's prices; a price that is not known counts as none."""
        price_in, price_out = self.price_in_usd_per_m or 0.0, self.price_out_usd_per_m or 0.0
        return (prompt_tokens * price_in + completion_tokens * price_out) / 1e6


@dataclass(frozen=True, slots=True)
class Tables:
    """A whole set, in any order."""

    questions: Sequence[QuestionRow]
    answers: Sequence[AnswerRow]
    models: Sequence[ModelRow]


def split_of(key: str) -> str:
    """Calibration, validation or test: 40, 10 and 50 % of all keys, by their sha256 alone."""
    share = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
    return "calibration" if share < 0.40 else "validation" if share < 0.50 else "test"


def need_pyarrow() -> None:
    """Raises: DataError, where it is not installed: better before a download than after it."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise DataError("Recorded sets need pyarrow: pip install 'manyminds[eval]'.") from error


def write(tables: Tables, folder: Path) -> dict[str, str]:
    """Writes the three files, sorted by their keys: the same rows give the same bytes.

    Returns: the sha256 of each file by its name. Raises: DataError, OSError.
    """
    import pyarrow.parquet as pq

    if not (tables.questions and tables.answers and tables.models):
        raise DataError(f"{folder.name}: there is no question, no answer or no model in what came.")
    questions = sorted(tables.questions, key=lambda row: row.question_id)
    answers = sorted(tables.answers, key=lambda row: (row.model, row.question_id))
    models = sorted(tables.models, key=lambda row: row.model)
    made = (
        _table(QuestionRow._fields, questions),
        _table(AnswerRow._fields, answers),
        _table(ModelRow._fields, models),
    )
    for name, table in zip(FILES, made, strict=True):
        pq.write_table(table, folder / name, compression="zstd")
    return {name: digest_of(folder / name) for name in FILES}


def digest_of(file: Path) -> str:
    """Its sha256. Raises: OSError."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _table(columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> "pa.Table":
    import pyarrow as pa

    values = zip(*rows, strict=True)
    arrays = [pa.array(of, _type_of(column)) for column, of in zip(columns, values, strict=True)]
    return pa.Table.from_arrays(arrays, columns)


def _type_of(column: str) -> "pa.DataType":
    import pyarrow as pa

    if column == "choices":
        return pa.list_(pa.string())
    if column in (*_TEXT, "family", "released", "price_source"):
        return pa.string()
    if column in ("extracted", "open_weights"):
        return pa.bool_()
    if column in _WIDE:
        return pa.float64()
    return pa.int32() if column == "completion_chars" else pa.float32()
