"""Small recorded sets, asked as a gateway would ask them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manyminds.combine.vote import Vote
from manyminds.evals.replay import Replayed, replay
from manyminds.experts.recorded import RecordedSet, open_set
from manyminds.learn.examples import gather
from manyminds.types import Call, Card, Limits, Outcome, Query, Route
from tests.experts.test_recorded import Row, answer, model, question, write_set

SPLITS = ("calibration", "calibration", "validation", "test", "test", "test")


def made_up(
    folder: Path, accuracies: Mapping[str, float], *, n: int = 120, kind: str = "exact", **columns: Any
) -> RecordedSet:
    """A set whose models are right as often as told, with errors that fall on three wrong answers.

    `kind` is exact, option or text (pass or fail alone). Of an odd model's answers, every tenth abstains.
    """
    draw = np.random.default_rng(7)
    choices = ["red", "green", "blue", "white"] if kind == "option" else None
    shared: Row = {"choices": choices, "category": "c", "gold": "A"}
    questions = [
        question(f"q{i}", **{**shared, "category": f"c{i % 2}", "split": SPLITS[i % 6]}) for i in range(n)
    ]
    answers = []
    for at, (name, accuracy) in enumerate(accuracies.items()):
        for i in range(n):
            right, silent = draw.random() < accuracy, at % 2 == 1 and i % 10 == 9
            said: str | None = "A" if right else "BCD"[draw.integers(3)]
            if silent:
                right, said = False, None
            row = {
                "answer": None if kind == "text" else said,
                "correct": float(right),
                "cost_usd": 0.01 * (at + 1),
            }
            answers.append(answer(f"q{i}", name, **{**row, **columns}))
    folder.mkdir(exist_ok=True)
    return open_set(write_set(folder, questions, answers, [model(name) for name in accuracies]))


@dataclass
class Fixed:
    """A router that always asks the same, by policy."""

    routes: Mapping[str, Route]

    def route(self, query: Query, candidates: Sequence[Card], limits: Limits) -> Route:
        assert limits.policy is not None
        return self.routes[limits.policy]

    def observe(self, outcome: Outcome) -> None:
        raise AssertionError("a replay teaches nobody")

    def admit(self, card: Card, outcomes: Sequence[Outcome] = ()) -> None: ...

    def forget(self, source: str) -> None: ...


def route(*stages: Sequence[str], threshold: float = 1.0, reserve: Sequence[str] = ()) -> Route:
    calls = tuple(Call(name, name, 0.7, i) for i, stage in enumerate(stages) for name in stage)
    spare = tuple(Call(name, name, 0.7, len(stages)) for name in reserve)
    return Route("max", "vote", calls, threshold=threshold, reserve=spare)


def play(recorded: RecordedSet, **routes: Route) -> dict[str, Replayed]:
    questions = recorded.questions("test")
    examples = gather(recorded.experts(), questions, recorded)
    return replay(Fixed(routes), Vote(), recorded.experts(), questions, examples, list(routes))


def three(
    folder: Path, rows: Mapping[str, Sequence[tuple[str | None, float]]], **columns: Any
) -> RecordedSet:
    """Models with (answer, correct) for each test question; `columns` by model."""
    n = max(map(len, rows.values()))
    answers = [
        answer(f"q{i}", name, answer=said, correct=correct, **columns.get(name, {}))
        for name, said_of in rows.items()
        for i, (said, correct) in enumerate(said_of)
    ]
    questions = [question(f"q{i}") for i in range(n)]
    return open_set(write_set(folder, questions, answers, [model(name) for name in rows]))


def test_a_vote_releases_what_most_say_with_the_flag_of_its_voter(tmp_path: Path) -> None:
    said = {"a": [("x", 0.0), ("x", 0.0)], "b": [("y", 1.0), ("y", 0.0)], "c": [("y", 0.0), ("z", 1.0)]}
    played = play(three(tmp_path, said), max=route("abc"))["max"]
    assert played.correct.tolist() == [True, False]  # b speaks for y; of three alone the first by name
    assert played.calls.tolist() == [3, 3]
    assert played.probability[0] > played.probability[1] > 0


def test_a_stage_is_asked_only_while_the_vote_is_unsure(tmp_path: Path) -> None:
    said = {"a": [("x", 1.0), ("x", 0.0)], "b": [("x", 1.0), ("y", 0.0)], "c": [("z", 0.0), ("y", 1.0)]}
    times = {
        name: {"cost_usd": cost, "latency_s": s}
        for name, cost, s in (("a", 1, 2.0), ("b", 2, 3.0), ("c", 4, 5.0))
    }
    played = play(three(tmp_path, said, **times), max=route("ab", "c", threshold=0.9))["max"]
    assert played.correct.tolist() == [True, False]  # b says y too, and speaks before c
    assert played.calls.tolist() == [2, 3]
    assert played.cost_usd.tolist() == [3, 7]
    assert played.seconds.tolist() == [3, 8]


def test_what_was_not_asked_refuses_and_costs_nothing(tmp_path: Path) -> None:
    said: dict[str, list[tuple[str | None, float]]] = {"a": [("x", 1.0)], "b": [("y", 0.0), ("y", 1.0)]}
    played = play(three(tmp_path, said), max=route("a"), cheap=route("a", reserve="b"))
    assert played["max"].correct.tolist() == [True, False]
    assert played["max"].cost_usd.tolist() == [0.25, 0.0]
    assert played["max"].probability[1] == 0
    assert played["cheap"].correct.tolist() == [True, True]
    assert played["cheap"].cost_usd.tolist() == [0.25, 0.25]


def test_costs_and_times_that_are_not_recorded_are_unknown(tmp_path: Path) -> None:
    said: dict[str, list[tuple[str | None, float]]] = {"a": [("x", 1.0)], "b": [("x", 1.0)]}
    nothing = {name: {"cost_usd": None} for name in said}
    played = play(three(tmp_path, said, **nothing), max=route("ab"))["max"]
    assert np.isnan(played.cost_usd).all()
    assert np.isnan(played.seconds).all()
    half = {"a": {"cost_usd": None, "latency_s": 1.0}, "b": {"latency_s": None}}
    played = play(three(tmp_path, said, **half), max=route("ab"), fast=route("b"), cheap=route("a"))["max"]
    assert np.isnan(played.cost_usd).all()
    assert np.isnan(played.seconds).all()


@pytest.mark.parametrize("kind", ["exact", "option", "text"])
def test_one_expert_alone_is_as_good_as_its_record(tmp_path: Path, kind: str) -> None:
    recorded = made_up(tmp_path, {"a": 0.8, "b": 0.6}, kind=kind)
    played = play(recorded, max=route("b"), auto=route("b"))
    (expert,) = recorded.experts(exclude=["a"])
    flags = [expert.correct(q.question_id) for q in recorded.questions("test")]
    assert played["max"].correct.tolist() == played["auto"].correct.tolist() == flags
    if kind == "text":
        assert played["max"].probability.tolist() == [0.7] * len(flags)  # as its route says
    assert (played["max"].route_s > 0).all()


def test_progress_ends_at_one(tmp_path: Path) -> None:
    recorded = made_up(tmp_path, {"a": 0.8, "b": 0.6}, n=600)
    questions, told = recorded.questions("test"), list[float]()
    examples = gather(recorded.experts(), questions, recorded)
    replay(Fixed({"max": route("a")}), Vote(), recorded.experts(), questions, examples, ["max"], told.append)
    assert told == sorted(told)
    assert told[0] == 0
    assert told[-1] == 1
    assert len(told) > 2
