"""A made-up set that mixes kinds of questions: three models, each asked in several ways.

Which way serves depends on the category, as it does with real small models: options are rated well without a
word of thought, sums want steps, and what is cheap is often enough. All errors, costs and texts follow from
the seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manyminds.experts.recorded import RecordedSet, open_set
from tests.experts.test_recorded import Row, answer, model, question, write_set

__all__ = ["CATEGORIES", "WAYS", "mixed_set"]

SPLITS = ("calibration", "calibration", "test", "validation", "test")

WAYS = {
    "big:direct": 0.3,
    "big:cot": 2.0,
    "big:cot3": 5.0,
    "mid:direct": 0.1,
    "mid:cot": 0.7,
    "small:direct": 0.03,
}
"""CPU cost of an answer, in thousandths."""


@dataclass(frozen=True)
class Category:
    """Questions of one kind: how often each way is right, in the order of `WAYS`."""

    kind: str  # option, number, span or text
    right: tuple[float, ...]


CATEGORIES = {
    "facts": Category("option", (0.75, 0.60, 0.62, 0.70, 0.45, 0.50)),
    "sense": Category("option", (0.62, 0.50, 0.52, 0.66, 0.40, 0.45)),
    "words": Category("option", (0.55, 0.58, 0.60, 0.50, 0.42, 0.42)),
    "truth": Category("option", (0.45, 0.35, 0.36, 0.48, 0.30, 0.35)),
    "sums": Category("number", (0.85, 0.90, 0.92, 0.80, 0.82, 0.35)),
    "stories": Category("number", (0.15, 0.62, 0.70, 0.08, 0.35, 0.02)),
    "roots": Category("number", (0.30, 0.55, 0.60, 0.25, 0.40, 0.05)),
    "dates": Category("number", (0.40, 0.45, 0.48, 0.42, 0.30, 0.10)),
    "letters": Category("span", (0.35, 0.52, 0.55, 0.40, 0.30, 0.15)),
    "order": Category("span", (0.50, 0.40, 0.42, 0.52, 0.35, 0.20)),
    "code": Category("text", (0.55, 0.52, 0.52, 0.35, 0.33, 0.05)),
    "tongue": Category("text", (0.30, 0.30, 0.30, 0.28, 0.27, 0.60)),
}

_TEXTS = {
    "option": "Which of these is it, in {name} {i}?",
    "number": "How many are {i} + 3 in {name}?",
    "span": "Answer with only one word: what is it, in {name} {i}?",
    "text": "Write some lines about {name} {i}.",
}


def mixed_set(
    folder: Path, seed: int = 0, each: int = 60, leave: Sequence[str] = (), asked: str = ""
) -> RecordedSet:
    """`each` questions of every category but those in `leave`; models whose names begin with `asked`.

    An expert's answers depend on the seed and its own name. What decides whether it is right is how hard the
    question is, then its model, whichever way it is asked, and least the way.
    """
    names = [name for name in WAYS if name.startswith(asked)]
    questions: list[Row] = []
    answers: list[Row] = []
    for at, (name, category) in enumerate(CATEGORIES.items()):
        if name in leave:
            continue
        shared = np.random.default_rng([seed, at])
        hard, truth, likely = (
            shared.normal(size=each),
            shared.integers(4, size=each),
            shared.integers(1, 4, each),
        )
        choices = ["red", "green", "blue", "white"] if category.kind == "option" else None
        for i in range(each):
            text = _TEXTS[category.kind].format(name=name, i=i)
            columns: Row = {"category": name, "prompt": text, "choices": choices, "split": SPLITS[i % 5]}
            questions.append(question(f"{name}-{i}", **columns))
        for j, (way, cost) in enumerate(WAYS.items()):
            if way not in names:
                continue
            made = _answers(category, category.right[j], way, hard, truth, likely, [seed, at])
            spent = 1e-3 * cost * np.exp(0.3 * np.random.default_rng([seed, at, j]).normal(size=each))
            for i, (said, right, sure) in enumerate(made):
                row: Row = {
                    "answer": said,
                    "correct": float(right),
                    "cost_usd": float(spent[i]),
                    "confidence": sure,
                }
                answers.append(answer(f"{name}-{i}", way, **row))
    folder.mkdir(exist_ok=True)
    return open_set(write_set(folder, questions, answers, [model(name) for name in names]))


def _answers(
    category: Category,
    share: float,
    way: str,
    hard: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    truth: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    likely: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    seed: Sequence[int],
) -> list[tuple[str | None, bool, float | None]]:
    """What it says, whether that is right, and how sure it is where it rates options or counts samples."""
    base, _, how = way.partition(":")
    n = len(hard)
    models, own = (np.random.default_rng([*seed, *text.encode()]) for text in (base, way))
    luck = np.sqrt([0.45, 0.35, 0.2]) @ [hard, models.normal(size=n), own.normal(size=n)]
    right = luck < np.quantile(luck, share) if share else np.zeros(n, np.bool_)
    wrong = np.where(own.random(n) < 0.4, likely, own.integers(1, 4, size=n))
    if category.kind in ("number", "span"):
        wrong = np.where(own.random(n) < 0.7, own.integers(4, 90, size=n), wrong)
    sure = np.clip(0.5 - 0.1 * (luck - np.quantile(luck, share)) + 0.15 * own.normal(size=n), 0.02, 0.98)
    told = how == "cot3" or (how == "direct" and category.kind == "option")
    made: list[tuple[str | None, bool, float | None]] = []
    for i in range(n):
        code = (
            int(truth[i])
            if right[i]
            else int((truth[i] + wrong[i]) % 4 if category.kind == "option" else 10 + wrong[i])
        )
        said = (
            "ABCD"[code]
            if category.kind == "option"
            else f"w{code}"
            if category.kind == "span"
            else str(code)
        )
        made.append(
            (None if category.kind == "text" else said, bool(right[i]), float(sure[i]) if told else None)
        )
    return made
