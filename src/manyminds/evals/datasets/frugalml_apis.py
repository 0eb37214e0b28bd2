"""Labels that paid services and one free model each gave to speech, faces and texts, from FrugalML (2020).

Upstream has a folder a task, with a text file for each service and column, a line for each item.
"""

import csv
import hashlib
from collections import Counter
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Final, NamedTuple

from manyminds.errors import DataError
from manyminds.evals.datasets.reading import lines
from manyminds.evals.datasets.schema import AnswerRow, ModelRow, QuestionRow, Tables, split_of

__all__ = ["convert"]

_WANTED: Final = 6000
"""About so many items of a task are kept: the hash of its name says which."""


class _Service(NamedTuple):
    """One line of a task's meta.csv."""

    number: str
    name: str
    usd_per_10k: str


class _Item(NamedTuple):
    """One line of a task that is kept."""

    line: int
    question_id: str
    split: str


def convert(files: Mapping[str, Path]) -> Tables:
    """Ids are hashes, for file names give labels away. Items that share a name are dropped.

    Raises: DataError, which names the file.
    """
    parts = []
    for meta in sorted(where for where in files if where.endswith("/meta.csv")):
        folder = meta.removesuffix("/meta.csv")
        parts.append(_task(folder, folder.rpartition("_")[2].lower(), files))
    return Tables(
        [row for part in parts for row in part.questions],
        [row for part in parts for row in part.answers],
        [row for part in parts for row in part.models],
    )


def _task(folder: str, task: str, files: Mapping[str, Path]) -> Tables:
    services = _services(folder, files)
    names = _column(folder, f"Model{services[0].number}_ImageName.txt", files)
    golds = _column(folder, f"Model{services[0].number}_TrueLabel.txt", files)
    _same_length(folder, names, golds)
    items = _kept(task, names)
    answers: list[AnswerRow] = []
    for service in services:
        labels, rewards, confidences = (
            _column(folder, f"Model{service.number}_{column}.txt", files)
            for column in ("PredictedLabel", "Reward", "Confidence")
        )
        _same_length(folder, names, labels, rewards, confidences)
        answers += [
            AnswerRow(
                question_id=item.question_id,
                model=f"{task}/{service.name}",
                answer=labels[item.line],
                correct=_number(rewards[item.line], folder) == 1.0,
                extracted=True,
                cost_usd=_number(service.usd_per_10k, folder) / 10_000,
                confidence=_number(confidences[item.line], folder),
            )
            for item in items
        ]
    questions = [
        QuestionRow(item.question_id, "frugalml", task, None, None, golds[item.line], item.split)
        for item in items
    ]
    return Tables(questions, answers, [_model(task, service) for service in services])


def _services(folder: str, files: Mapping[str, Path]) -> list[_Service]:
    where = f"{folder}/meta.csv"
    try:
        rows = [row for row in csv.reader(lines(files[where], where)) if row][1:]
    except csv.Error as error:
        raise DataError(f"{where} is no table: {error}") from error
    if not rows or any(len(row) < 3 for row in rows):
        raise DataError(f"{where} is not a table of services with their index, name and price.")
    return [_Service(*row[:3]) for row in rows]


def _kept(task: str, names: list[str]) -> list[_Item]:
    """A sample that depends on nothing but the names, each hashed once more for its id."""
    stems = [f"frugal-{task}-{name.rstrip(',')}" for name in names]
    times = Counter(stems)
    share = _WANTED / len(times)
    return [
        _Item(line, f"frugalml-{hashlib.sha256(f'mm:{stem}'.encode()).hexdigest()[:16]}", split_of(stem))
        for line, stem in enumerate(stems)
        if times[stem] == 1 and _share_of(f"s{stem}") < share
    ]


def _share_of(key: str) -> float:
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32


def _column(folder: str, name: str, files: Mapping[str, Path]) -> list[str]:
    where = f"{folder}/{name}"
    if where not in files:
        raise DataError(f"{folder}/meta.csv names a service without {name}.")
    return lines(files[where], where)


def _same_length(folder: str, *columns: list[str]) -> None:
    lengths = {len(column) for column in columns}
    if len(lengths) > 1 or 0 in lengths:
        raise DataError(f"{folder}: its files have {sorted(lengths)} lines, not one number of them.")


def _number(text: str, folder: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise DataError(f"{folder}: {text[:40]!r} is not a number.") from error
    if not isfinite(value):
        raise DataError(f"{folder}: {text[:40]!r} is not a finite number.")
    return value


def _model(task: str, service: _Service) -> ModelRow:
    return ModelRow(
        model=f"{task}/{service.name}",
        family=service.name,
        params_b=None,
        active_params_b=None,
        open_weights=service.name.startswith("GitHub("),
        released="2020",
        price_in_usd_per_m=None,
        price_out_usd_per_m=None,
        price_source=f"FrugalML meta.csv: {service.usd_per_10k} USD per 10k requests",
    )
