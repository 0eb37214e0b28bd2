"""How long routing takes on one core, what it holds, and what the fast encoder loses to the full one.

Knows no data set: questions and their labels are arguments, and experts are made up.
"""

import gc
import os
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manyminds.artefact import Artefact, load, save
from manyminds.encoder import Encoder, StaticEncoder, WordPiece
from manyminds.index import Index
from manyminds.learn.examples import Examples
from manyminds.learn.train import train
from manyminds.router import SkillRouter
from manyminds.router.policy import POLICIES
from manyminds.types import Card, Kind, Limits, Message, Query, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from manyminds.types import Vectors

__all__ = [
    "learn_made_up",
    "measure_artefact",
    "measure_encoders",
    "measure_loss",
    "measure_router",
    "one_core",
    "predict_labels",
]

_LENGTHS = (16, 64, 256)  # tokens, the two markers included
_WARM_UP = 10
_FOLDS = 5
_RIDGE = 1.0
_DIMENSION = 384
_QUESTIONS = 200  # made up, to learn from; more take longer and change neither speed nor size
_TOPICS = 8
_OPTIONS = ("red", "green", "blue", "white")
_ASKED = 50  # questions that are routed in turn
_TEXT = (
    "A farmer sells 48 apples in the morning and half as many in the afternoon, at $2.50 each; what is the "
    "total revenue, and which of the following statements about supply, demand and price is correct? "
)


@contextmanager
def one_core() -> Iterator[None]:
    """This thread runs on one core within, where the system can be told so."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


# --- the router ------------------------------------------------------------------------------------


def learn_made_up(
    experts: int, progress: Callable[[str, float], None] | None = None, *, questions: int = _QUESTIONS
) -> Artefact:
    """What is learnt of so many made-up experts; the same every time. Half a minute for 100.

    They differ in skill, topics and price, questions in difficulty; errors fall on the same three answers.
    """
    draw = np.random.default_rng(0)
    names = tuple(f"expert-{j:03d}" for j in range(experts))
    skill = draw.permutation(np.linspace(-0.5, 2.0, experts))
    vectors = draw.normal(size=(questions, _DIMENSION))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    topics = draw.integers(_TOPICS, size=questions)
    odds = skill + 0.7 * draw.normal(size=(_TOPICS, experts))[topics] - draw.normal(size=(questions, 1))
    right = draw.random((questions, experts)) < 1.0 / (1.0 + np.exp(-odds))
    kinds: tuple[Kind, ...] = tuple("option" for _ in range(questions))
    price_usd = 1e-3 * np.exp(skill + 0.5 * draw.normal(size=experts))
    examples = Examples(
        experts=names,
        sources=names,
        kinds=kinds,
        read_as=kinds,
        spread=np.full(questions, float(len(_OPTIONS))),
        classes=float(len(_OPTIONS)),
        candidates=tuple(("A", "B", "C", "D") for _ in range(questions)),
        votes=np.where(right, 0, draw.integers(1, 4, size=right.shape)).astype(np.int32),
        correct=right,
        cost_usd=price_usd * np.exp(0.3 * draw.normal(size=(questions, 1))),
        seconds=np.exp(draw.normal(size=right.shape)),
        tokens=np.exp(4.0 + draw.normal(size=right.shape)),
        confidence=np.full(right.shape, np.nan),
        topics=tuple(f"topic-{topic}" for topic in topics),
        vectors=vectors.astype(np.float32),
    )
    return train(examples, 0, None, progress)


def measure_router(artefact: Artefact, runs: int) -> float:
    """Median ms from a question's vector to its route: the router's own part, over all policies."""
    router = SkillRouter(Index(_DIMENSION), artefact=artefact)
    cards = [Card(name, "recorded", source=name, accuracy=0.6) for name in artefact.experts]
    for card in cards:
        router.admit(card)
    draw = np.random.default_rng(1)
    vectors = draw.normal(size=(_ASKED, _DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    task = Task("option", _OPTIONS, _TEXT)
    asked = cycle(Query((Message("user", _TEXT),), task=task, vector=vector) for vector in vectors)
    limits = cycle(Limits(policy=policy) for policy in POLICIES)
    return _median_ms(lambda: router.route(next(asked), cards, next(limits)), runs)


def measure_artefact(artefact: Artefact) -> dict[str, int]:
    """Bytes of its file, and bytes of memory that it takes once loaded."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "artefact.npz"
        save(artefact, path)
        load(path)  # so that what is imported by it is here already
        gc.collect()
        tracemalloc.start()
        try:
            held = load(path)
            gc.collect()
            memory_bytes = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        del held
        return {"file_bytes": path.stat().st_size, "memory_bytes": memory_bytes}


# --- the encoders ----------------------------------------------------------------------------------


def measure_encoders(folder: Path, table: Path, runs: int) -> dict[str, Any]:
    """Median ms from text to vector, tokenizing included, nothing cached: by encoder and tokens.

    `folder` holds MiniLM's files, `table` what `distil` made. Each runs on one thread; pin the process to
    one core to be strict. Raises: CatalogError when a file is missing or broken.
    """
    pieces = WordPiece(folder / "tokenizer.json")
    encoder, fast = Encoder(folder, cache_size=0), StaticEncoder(folder, table)
    texts = {tokens: _text_of(pieces, tokens) for tokens in _LENGTHS}
    return {
        "minilm_ms": {str(n): _encoding_ms(encoder.encode, text, runs) for n, text in texts.items()},
        "static_ms": {str(n): _encoding_ms(fast.encode, text, runs) for n, text in texts.items()},
        "runs": runs,
    }


def measure_loss(
    folder: Path, table: Path, questions: Sequence[str], labels: Sequence[str]
) -> dict[str, float]:
    """What the fast encoder loses on labelled questions: mean cosine, and the accuracy of telling labels.

    Accuracies are over five folds: with each encoder's own vectors, and with what was fitted on the
    sentence encoder's vectors and is asked with the fast ones (`swapped`).
    """
    full = Encoder(folder, cache_size=0).encode(questions)
    fast = StaticEncoder(folder, table).encode(questions)
    truth = np.asarray(labels)
    return {
        "cosine": round(float((full * fast).sum(axis=1).mean()), 4),
        "minilm_accuracy": round(float((predict_labels(full, full, labels) == truth).mean()), 4),
        "static_accuracy": round(float((predict_labels(fast, fast, labels) == truth).mean()), 4),
        "swapped_accuracy": round(float((predict_labels(full, fast, labels) == truth).mean()), 4),
        "questions": len(questions),
    }


def predict_labels(fitted: "Vectors", asked: "Vectors", labels: Sequence[str]) -> "NDArray[np.str_]":
    """Each row's label by ridge regression on the other folds: `fitted` rows teach, `asked` rows are told."""
    names, y = np.unique(np.asarray(labels), return_inverse=True)
    targets = np.eye(len(names))[y]
    folds = np.random.default_rng(0).permutation(len(y)) % _FOLDS
    told = np.zeros(len(y), np.int64)
    for fold in range(_FOLDS):
        rest = folds != fold
        middle, base = fitted[rest].mean(axis=0), targets[rest].mean(axis=0)
        x = (fitted[rest] - middle).astype(np.float64)
        weights = np.linalg.solve(x.T @ x + _RIDGE * np.eye(x.shape[1]), x.T @ (targets[rest] - base))
        told[~rest] = ((asked[~rest] - middle) @ weights + base).argmax(axis=1)
    return names[told]


def _text_of(pieces: WordPiece, tokens: int) -> str:
    """A text of exactly so many tokens."""
    words = (_TEXT * (1 + tokens // 16)).split()
    text = ""
    for word in words:
        longer = f"{text} {word}".strip()
        if len(pieces(longer)) > tokens:
            break
        text = longer
    return text + " a" * (tokens - len(pieces(text)))


def _encoding_ms(encode: "Callable[[Sequence[str]], Vectors]", text: str, runs: int) -> float:
    return _median_ms(lambda: encode([text]), runs)


def _median_ms(work: Callable[[], object], runs: int) -> float:
    times = []
    for run in range(_WARM_UP + runs):
        began = time.perf_counter()
        work()
        if run >= _WARM_UP:
            times.append(time.perf_counter() - began)
    return round(1e3 * statistics.median(times), 3)
