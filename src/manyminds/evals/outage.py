"""The best node of a network is killed while it answers: what that costs in answers, in accuracy and in time.

Each node has one recorded model behind it, which says what it once said. A node without experts asks them the
same questions three times: all of them, all but the best, and all while the best dies.
"""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread, Timer
from typing import Any, Final

import numpy as np

from manyminds.errors import DataError
from manyminds.evals.fleet import Fleet, Progress, Running, expert, free_port, network, until
from manyminds.evals.metrics import accuracy_gain, mean_interval
from manyminds.evals.times import rounded, spread
from manyminds.experts.recorded import Question, Recorded, RecordedSet, open_set

__all__ = ["SIZE", "measure", "members", "questions"]

SIZE: Final = 7
"""Nodes that answer."""

_WAIT_MS: Final = 100  # that a model takes: long enough to be killed meanwhile
_WINDOW: Final = 20  # questions right after the kill
_IN_A_ROW: Final = 5  # answers, none slower than any before: it is as it was
_NEARLY_ALL: Final = 0.9  # of a set's questions, that a model must have been asked


@dataclass(slots=True)
class _Run:
    """The same questions, asked one after the other."""

    right: list[bool] = field(default_factory=list)
    answered: list[bool] = field(default_factory=list)
    times_ms: list[float] = field(default_factory=list)
    began_s: list[float] = field(default_factory=list)
    first: dict[str, Any] = field(default_factory=dict)  # reply


def measure(folder: Path, asked: int, seed: int, progress: Progress) -> dict[str, Any]:
    """All figures of it.

    Args:
        folder: a recorded set.
        asked: questions of its split test, drawn.
        seed: of the draw and of intervals.
        progress: told how far it is.

    Raises: DataError.
    """
    recorded = open_set(folder)
    models = members(recorded)
    drawn = questions(recorded, models, asked, seed)
    right = {q.question_id: _right(models, q.question_id) for q in drawn}
    best = models[0].card.name
    with Fleet() as fleet:
        progress("kill the best", 0.0)
        asker, nodes = _started(fleet, folder, models)
        _ask(asker, drawn[:3], right)  # connections are there from now on
        whole = _ask(asker, drawn, right)
        progress("kill the best", 0.3)
        without = _ask(asker, drawn, right, exclude=["node-0"])
        progress("kill the best", 0.6)
        with _killed(asker, nodes[0]) as death:
            dying = _ask(asker, drawn, right)
    return {
        "set": folder.name,
        "models": {model.card.name: rounded(model.card.accuracy) for model in models},
        "killed": best,
        "policy": "auto",
        "questions": len(drawn),
        "seed": seed,
        "in_flight": _in_flight(dying, without),
        **_accuracies(whole, without, dying, seed),
        "best_survivor": _share([models[1].correct(q.question_id) or False for q in drawn], seed),
        **_recovery(whole, dying, death),
    }


def members(recorded: RecordedSet) -> list[Recorded]:
    """The nodes' models: the best by calibration, and every other one of those that follow.

    Raises: DataError.
    """
    n = len(recorded.questions())
    able = [e for e in recorded.experts() if len(e.recording.rows) >= _NEARLY_ALL * n]
    found = sorted(able, key=lambda e: (-e.card.accuracy, e.card.name))[: 2 * SIZE : 2]
    if len(found) < SIZE:
        raise DataError(f"a set with {2 * SIZE - 1} models is needed that answered nearly all questions.")
    return found


def questions(recorded: RecordedSet, models: Sequence[Recorded], asked: int, seed: int) -> list[Question]:
    """Of split test, drawn; such as have a text, which all models were asked. Raises: DataError."""
    known = [
        question
        for question in recorded.questions("test")
        if question.prompt and all(m.correct(question.question_id) is not None for m in models)
    ]
    if len(known) < asked:
        raise DataError(f"there are {len(known)} questions that all were asked, and {asked} are to be drawn.")
    return random.Random(seed).sample(known, asked)  # noqa: S311 - a sample


def _started(fleet: Fleet, folder: Path, models: Sequence[Recorded]) -> tuple[Running, list[Running]]:
    """Who asks, and who answers: the best first. They meet at a node that has no model and is not killed."""
    port = free_port()
    join = [f"tcp/127.0.0.1:{port}"]
    url = fleet.model("manyminds.evals.reciter", str(folder), str(_WAIT_MS))
    fleet.start({"meeting": network("meeting", listen=f"tcp/127.0.0.1:{port}")})
    tomls = {}
    for i, model in enumerate(models):
        name = f"node-{i}"
        own = expert(f"model-{i}", model.card.name, url, model.card.accuracy)
        tomls[name] = network(name, join=join) + own
    nodes = fleet.start(tomls)
    (asker,) = fleet.start({"asker": network("asker", join=join)})
    if not until(lambda: set(tomls) <= asker.experts(), 30.0):
        raise DataError(f"of {sorted(tomls)}, only {sorted(asker.experts())} were found within 30 s.")
    return asker, nodes


def _right(models: Sequence[Recorded], question_id: str) -> set[str]:
    """Texts that were graded as right."""
    found = set()
    for model in models:
        recording = model.recording
        i = recording.at(recording.finder.row_of(question_id))
        if i is not None and recording.correct[i] and recording.codes[i] >= 0:
            found.add(recording.texts[recording.codes[i]].strip())
    return found


def _ask(asker: Running, drawn: Sequence[Question], right: dict[str, set[str]], **limits: Any) -> _Run:
    run = _Run()
    for question in drawn:
        body = {
            "model": "auto",
            "messages": [{"role": "user", "content": question.text}],
            "manyminds": {"cache": "off", **limits},
        }
        run.began_s.append(time.monotonic())
        reply = asker.ask(body)
        run.times_ms.append(1000 * (time.monotonic() - run.began_s[-1]))
        run.first = run.first or reply
        said = str(reply["choices"][0]["message"]["content"] or "") if reply.get("choices") else ""
        run.answered.append(bool(said))
        run.right.append(said.strip() in right[question.question_id])
    return run


@dataclass(slots=True)
class _Death:
    at_s: float = 0.0
    unlisted_s: float | None = None  # since then


@contextmanager
def _killed(asker: Running, best: Running) -> Iterator[_Death]:
    """Kills it while the first request of the block is under way, and looks when it is listed no more."""
    death, over = _Death(), Event()

    def look() -> None:
        while not over.is_set():
            if best.name not in asker.experts():
                death.unlisted_s = time.monotonic() - death.at_s
                return
            time.sleep(0.02)

    looking = Thread(target=look)

    def kill() -> None:
        death.at_s = time.monotonic()
        best.kill()
        looking.start()

    timer = Timer(_WAIT_MS / 2000, kill)
    timer.start()
    try:
        yield death
    finally:
        timer.join()
        over.set()
        looking.join()


# --- figures -----------------------------------------------------------------------------------------


def _in_flight(dying: _Run, without: _Run) -> dict[str, Any]:
    """What became of the request during which it was killed; `best_was`: how its call ended."""
    panel = {entry["expert"]: entry["status"] for entry in dying.first.get("manyminds", {}).get("panel", [])}
    return {
        "answered": dying.answered[0],
        "right": dying.right[0],
        "right_by_survivors": without.right[0],
        "ms": rounded(dying.times_ms[0]),
        "best_was": panel.get("node-0", "not asked"),
    }


def _accuracies(whole: _Run, without: _Run, dying: _Run, seed: int) -> dict[str, Any]:
    """Shares, and gains on the same questions, with 95% intervals."""

    def gain(theirs: _Run, part: slice) -> list[float]:
        found = accuracy_gain(np.array(dying.right[part]), np.array(theirs.right[part]), seed)
        return [rounded(found.gain), rounded(found.low), rounded(found.high)]

    def since(part: slice) -> dict[str, Any]:
        return {
            "n": len(dying.right[part]),
            "answered": sum(dying.answered[part]),
            "accuracy": _share(dying.right[part], seed),
            "gain_to_before": gain(whole, part),
            "gain_to_survivors": gain(without, part),
        }

    return {
        "before": {"n": len(whole.right), "accuracy": _share(whole.right, seed)},
        "survivors_alone": {"n": len(without.right), "accuracy": _share(without.right, seed)},
        "right_after": since(slice(0, _WINDOW)),
        "afterwards": since(slice(_WINDOW, None)),
    }


def _share(right: Sequence[bool], seed: int) -> list[float]:
    return [rounded(value) for value in mean_interval(np.array(right, np.float64), seed)]


def _recovery(whole: _Run, dying: _Run, death: _Death) -> dict[str, Any]:
    """Seconds from the kill on."""
    slowest = max(whole.times_ms)
    ends = [
        i for i in range(len(dying.times_ms)) if all(t <= slowest for t in dying.times_ms[i : i + _IN_A_ROW])
    ]
    again = max(0.0, dying.began_s[ends[0]] - death.at_s) if ends else None
    return {
        "before_ms": spread(whole.times_ms, longest=True),
        "right_after_ms": spread(dying.times_ms[:_WINDOW], longest=True),
        "afterwards_ms": spread(dying.times_ms[_WINDOW:], longest=True),
        "unlisted_after_s": None if death.unlisted_s is None else rounded(death.unlisted_s),
        "as_quick_as_before_after_s": None if again is None else rounded(again),
    }
