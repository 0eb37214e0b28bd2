"""What `manyminds eval` reports: on made-up sets of every kind, and on a real one where it is here."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from manyminds.artefact import Artefact
from manyminds.errors import DataError
from manyminds.evals import plots
from manyminds.evals.report import Progress, evaluate, narrow, play
from manyminds.experts.recorded import RecordedSet, open_set
from manyminds.learn.examples import Examples, gather
from manyminds.learn.train import train
from tests import data
from tests.evals.mixed import mixed_set
from tests.evals.test_replay import made_up
from tests.experts.test_recorded import answer, model, question, write_set
from tests.learn.quick import weigh_quickly

THREE = {"a": 0.6, "b": 0.8, "c": 0.7}
POLICIES = ("max", "cheap", "auto", "fast")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> RecordedSet:
    return made_up(tmp_path_factory.mktemp("toy"), THREE)


@pytest.fixture(scope="module")
def found(toy: RecordedSet) -> Mapping[str, Any]:
    """What is reported of it."""
    return MappingProxyType(evaluate(toy, "toy"))


@pytest.mark.usefixtures("weighed_quickly")
@pytest.mark.parametrize("kind", ["exact", "option", "text"])
def test_a_result_has_everything_and_no_nan(tmp_path: Path, kind: str) -> None:
    result = evaluate(made_up(tmp_path, THREE, kind=kind), "toy")
    again = json.loads(json.dumps(result, allow_nan=False))
    assert again["set"] == "toy"
    assert (again["n_calibration"], again["n_validation"], again["n_test"]) == (40, 20, 60)
    assert (again["kind"], again["models"], again["seed"]) == (kind, 3, 0)
    assert (again["category"], again["exclude"]) == (None, [])
    assert again["best_single"]["model"] == "b"
    oracle = again["baselines"]["oracle"]["accuracy"]
    assert again["co_failure"] == pytest.approx(1 - oracle, abs=2e-6)
    for policy in POLICIES:
        found = again[policy]
        assert found["gain"] == pytest.approx(found["accuracy"] - again["best_single"]["accuracy"], abs=1e-5)
        assert found["gain_ci95"][0] <= found["gain"] <= found["gain_ci95"][1]
        assert found["cost_ratio"] > 0
        assert found["latency_ratio"] is None
        assert found["accuracy"] <= oracle
        assert 0 <= found["ece"] <= 1
    assert (again["max"]["gain_over_first_parsed"] is None) == (kind == "text")
    assert (again["baselines"]["majority"] is None) == (kind == "text")
    assert set(again["seconds"]) == {"embed", "train", "replay", "route_p50_ms"}
    assert 0 <= again["predictor"]["ece"] <= 1


def test_the_picture_can_be_drawn_of_it(found: Mapping[str, Any]) -> None:
    result = msgspec.convert(dict(found), plots.Result)
    assert sorted(entry.name for entry in result.singles) == ["a", "b", "c"]
    network = [entry for entry in result.frontier if entry.kind == "network"]
    assert sorted(entry.name for entry in network) == sorted(POLICIES)
    costs = [entry.cost_usd_per_1k or 0.0 for entry in network]
    assert costs == sorted(costs)


@pytest.mark.usefixtures("weighed_quickly")
def test_what_a_set_cannot_measure_is_null(tmp_path: Path) -> None:
    result = evaluate(made_up(tmp_path, THREE, cost_usd=None), "toy")
    assert result["best_single"]["cost_usd_per_1k"] is None
    for policy in POLICIES:
        assert result[policy]["cost_usd_per_1k"] is None
        assert result[policy]["cost_ratio"] is None
    assert all(entry["cost_usd_per_1k"] is None for entry in result["frontier"])


@pytest.mark.usefixtures("weighed_quickly")
def test_confidence_and_latency_are_taken_where_they_are(tmp_path: Path) -> None:
    result = evaluate(made_up(tmp_path, THREE, confidence=0.5, latency_s=2.0), "toy")
    assert result["fast"]["latency_ratio"] > 0


def test_same_seed_same_result(toy: RecordedSet, found: Mapping[str, Any]) -> None:
    again = evaluate(toy, "toy")
    assert {**again, "seconds": 0} == {**found, "seconds": 0}


@pytest.mark.usefixtures("weighed_quickly")
def test_training_sees_no_question_of_test(tmp_path: Path) -> None:
    recorded, seen = made_up(tmp_path, THREE), list[tuple[Examples, int, Mapping[str, Any]]]()

    def watch(
        examples: Examples, seed: int, about: Mapping[str, Any], progress: Progress | None = None
    ) -> Artefact:
        seen.append((examples, seed, about))
        return train(examples, seed, about, progress)

    told: list[str] = []
    evaluate(
        recorded, "toy", seed=5, exclude=["a"], train=watch, progress=lambda what, share: told.append(what)
    )
    ((examples, seed, about),) = seen
    known = [i for i, q in enumerate(recorded.questions()) if q.split == "calibration"]
    known += [i for i, q in enumerate(recorded.questions()) if q.split == "validation"]
    (b, c) = recorded.experts(exclude=["a"])
    assert examples.experts == ("b", "c")
    assert (
        examples.correct.tolist() == np.stack([b.recording.correct, c.recording.correct], 1)[known].tolist()
    )
    assert seed == 5
    assert (about["set"], about["seed"], about["exclude"], about["n_calibration"]) == ("toy", 5, ["a"], 40)
    assert told[-1] == "replay test"


@pytest.mark.usefixtures("weighed_quickly")
def test_texts_are_embedded_once_and_in_order(tmp_path: Path) -> None:
    texts: list[str] = []

    def embed(given: Sequence[str], /) -> NDArray[np.float32]:
        texts.extend(given)
        codes = [sum(text.encode()) for text in given]
        return np.array([[np.cos(code), np.sin(code)] for code in codes], np.float32)

    seen: list[Examples] = []

    def watch(
        examples: Examples, seed: int, about: Mapping[str, Any], progress: Progress | None = None
    ) -> Artefact:
        seen.append(examples)
        return train(examples, seed, about, progress)

    recorded = made_up(tmp_path, THREE)
    evaluate(recorded, "toy", embed=embed, train=watch)
    questions = recorded.questions()
    assert sorted(texts) == sorted(question.prompt or "" for question in questions)
    learnt = [
        q.prompt or "" for split in ("calibration", "validation") for q in questions if q.split == split
    ]
    assert seen[0].vectors is not None
    assert seen[0].vectors.tolist() == embed(learnt).tolist()


# --- what is chosen --------------------------------------------------------------------------------


def test_models_and_questions_without_answers_are_dropped(tmp_path: Path) -> None:
    questions = [
        question(f"{c}{i}", category=c, split=s) for c in "pq" for i, s in enumerate(["calibration", "test"])
    ]
    answers = [answer(f"p{i}", name) for i in range(2) for name in "ab"]
    answers += [answer("q0", "a"), answer("q1", "a"), answer("q1", "late")]
    models = [model(name) for name in ("a", "b", "late", "never")]
    recorded = open_set(write_set(tmp_path, questions, answers, models))
    chosen = narrow(recorded, "toy", None, [])
    assert [expert.card.name for expert in chosen.experts] == ["a", "b"]
    assert [q.question_id for q in chosen.of("test")] == ["p1", "q1"]
    only = narrow(recorded, "toy", "p", [])
    assert [q.question_id for q in only.of("calibration", "test")] == ["p0", "p1"]
    with pytest.raises(DataError, match="only a is left"):
        narrow(recorded, "toy", "q", [])


def test_separate_tasks_are_told_apart(tmp_path: Path) -> None:
    questions = [question(f"{c}{i}", category=c, split="calibration") for c in "pq" for i in range(2)]
    answers = [answer(f"{c}{i}", f"{c}/{name}") for c in "pq" for i in range(2) for name in "ab"]
    models = [model(f"{c}/{name}") for c in "pq" for name in "ab"]
    recorded = open_set(write_set(tmp_path, questions, answers, models))
    with pytest.raises(DataError, match="--category p, q"):
        narrow(recorded, "toy", None, [])
    assert [expert.card.name for expert in narrow(recorded, "toy", "q", []).experts] == ["q/a", "q/b"]
    assert len(narrow(recorded, "toy", None, ["q/*"]).experts) == 2  # one task is left


@pytest.mark.parametrize(
    ("category", "exclude", "match"),
    [
        ("nope", (), "no category 'nope'. There are: c0, c1"),
        (None, ("a", "gpt*"), "no model matches 'gpt\\*'. There are: a, b, c"),
        (None, ("a", "b"), "only c is left"),
        (None, ("*",), "all 3 models are excluded"),
    ],
)
def test_a_bad_choice_is_explained(
    tmp_path: Path, category: str | None, exclude: Sequence[str], match: str
) -> None:
    with pytest.raises(DataError, match=match):
        evaluate(made_up(tmp_path, THREE), "toy", category=category, exclude=exclude)


@pytest.mark.parametrize(("split", "match"), [("calibration", "split test"), ("test", "split calibration")])
def test_a_set_without_a_split_is_explained(tmp_path: Path, split: str, match: str) -> None:
    questions = [question(str(i), split=split) for i in range(4)]
    answers = [answer(str(i), name) for i in range(4) for name in "ab"]
    recorded = open_set(write_set(tmp_path, questions, answers, [model("a"), model("b")]))
    with pytest.raises(DataError, match=match):
        evaluate(recorded, "toy")


def test_splits_that_compare_differently_are_an_error(tmp_path: Path) -> None:
    splits = ["calibration"] * 60 + ["test"]
    questions = [
        question(str(i), split=s, choices=["x", "y"] if s != "test" else None) for i, s in enumerate(splits)
    ]
    answers = [answer(str(i), name, answer="A") for i in range(61) for name in "ab"]
    recorded = open_set(write_set(tmp_path, questions, answers, [model("a"), model("b")]))
    with pytest.raises(DataError, match="evaluate them apart"):
        evaluate(recorded, "toy")


@pytest.mark.usefixtures("weighed_quickly")
def test_real_models_on_competition_mathematics() -> None:
    """All are counted. What is learnt is not looked at: a fifth of the questions is enough for that."""

    def fifth(
        examples: Examples, seed: int, about: Mapping[str, Any], progress: Progress | None = None
    ) -> Artefact:
        return train(examples.rows(np.arange(0, len(examples), 5)), seed, about, progress)

    result = evaluate(open_set(data.recorded("math_l5")), "math_l5", train=fifth)
    assert (result["n_calibration"], result["n_validation"], result["n_test"]) == (276, 69, 376)
    assert result["best_single"]["model"] == "o1-mini-2024-09-12"
    assert result["best_single"]["accuracy"] == pytest.approx(0.8803, abs=5e-5)
    assert result["baselines"]["first_parsed"]["accuracy"] == pytest.approx(0.8963, abs=5e-5)
    assert result["baselines"]["majority_top_3"]["accuracy"] == pytest.approx(0.8989, abs=5e-5)
    assert result["baselines"]["oracle"]["accuracy"] == pytest.approx(0.9734, abs=5e-5)
    assert result["baselines"]["best_per_category"] is None


# --- kinds that are mixed, and ways of asking ----------------------------------------------------------


@dataclass
class Measured:
    recorded: RecordedSet
    result: dict[str, Any]
    artefact: Artefact  # of all models, not of one's ways


pytestmark = pytest.mark.timeout(600)  # three networks are learnt by one fixture


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Three models in six ways, ten categories with answers and two without."""
    made: list[Artefact] = []

    def watch(
        examples: Examples, seed: int, about: Mapping[str, Any], progress: Progress | None = None
    ) -> Artefact:
        with pytest.MonkeyPatch.context() as patch:
            if made:  # the ways of one, which the network of all is held against
                weigh_quickly(patch)
            made.append(train(examples, seed, about, progress))
        return made[-1]

    recorded = mixed_set(tmp_path_factory.mktemp("mixed"), each=50)
    return Measured(recorded, evaluate(recorded, "mixed", train=watch), made[0])


@pytest.fixture
def mixed(measured: Measured) -> dict[str, Any]:
    return measured.result


def test_a_mixed_set_is_reported_like_any_other(mixed: dict[str, Any]) -> None:
    assert json.loads(json.dumps(mixed, allow_nan=False)) == mixed
    assert (mixed["kind"], mixed["models"], mixed["n_test"]) == ("mixed", 6, 240)
    assert (mixed["n_calibration"], mixed["n_validation"]) == (240, 120)
    assert "leave_category" not in mixed
    assert all(row is not None for row in mixed["baselines"].values())
    assert mixed["best_single"]["model"] == "big:cot3"
    msgspec.convert(mixed, plots.Result)


def test_together_they_beat_every_one_and_the_best_of_each_category(mixed: dict[str, Any]) -> None:
    assert mixed["max"]["gain_ci95"][0] > 0.0
    assert mixed["max"]["gain"] > 0.03
    assert mixed["max"]["gain_over_best_per_category"] > 0.01
    low, high = mixed["max"]["gain_over_best_per_category_ci95"]
    assert low <= mixed["max"]["gain_over_best_per_category"] <= high
    per_category = mixed["baselines"]["best_per_category"]["accuracy"]
    over = mixed["max"]["accuracy"] - per_category
    assert mixed["max"]["gain_over_best_per_category"] == pytest.approx(over, abs=1e-5)


def test_cheap_is_as_good_as_the_best_for_half_of_what_it_costs(mixed: dict[str, Any]) -> None:
    assert mixed["cheap"]["cost_ratio"] <= 0.5
    assert mixed["cheap"]["accuracy"] >= mixed["best_single"]["accuracy"]


def test_members_are_told_in_their_best_way_and_in_all(mixed: dict[str, Any]) -> None:
    assert {base: row["model"] for base, row in mixed["members"].items()} == {
        "big": "big:cot3",
        "mid": "mid:direct",
        "small": "small:direct",
    }
    figures = {entry["name"]: entry for entry in mixed["frontier"]}
    for base, row in mixed["members"].items():
        assert row["accuracy"] == figures[row["model"]]["accuracy"]
        assert row["cost_usd_per_1k"] == figures[row["model"]]["cost_usd_per_1k"]
        own = mixed["self_ensemble"][base]
        assert own["network_gain"] == pytest.approx(mixed["max"]["accuracy"] - own["accuracy"], abs=1e-5)
        assert own["network_gain_ci95"][0] <= own["network_gain"] <= own["network_gain_ci95"][1]
    assert mixed["self_ensemble"]["big"]["accuracy"] > mixed["members"]["big"]["accuracy"]


def test_a_text_is_never_asked_of_two(measured: Measured) -> None:
    selection = narrow(measured.recorded, "mixed", None, ())
    test = gather(selection.experts, selection.of("test"), measured.recorded)
    text = ~test.comparable
    played = play(measured.artefact, selection, test, POLICIES)
    for policy in POLICIES:
        assert (played[policy].calls[text] == 1).all()
    assert (played["max"].calls[~text] > 1).all()


@pytest.mark.usefixtures("weighed_quickly")
def test_a_member_that_is_asked_in_one_way_is_its_own_ensemble(tmp_path: Path) -> None:
    recorded = made_up(tmp_path, {"a": 0.6, "a:cot": 0.8, "b": 0.7}, n=60)
    result = evaluate(recorded, "toy")
    assert set(result["members"]) == {"a", "b"}
    assert result["members"]["a"]["model"] == "a:cot"
    alone, ensemble = result["members"]["b"], result["self_ensemble"]["b"]
    assert {name: ensemble[name] for name in ("accuracy", "cost_usd_per_1k")} == {
        name: alone[name] for name in ("accuracy", "cost_usd_per_1k")
    }


@pytest.mark.usefixtures("weighed_quickly")
def test_a_member_of_which_too_little_is_known_is_its_best_way(tmp_path: Path) -> None:
    questions = [question(str(i), split="calibration" if i < 20 else "test") for i in range(40)]
    names = ("a:cot", "a:code", "b:cot", "b:code")
    asked = [(i, name) for i in range(40) for name in names if name[0] == "a" or i % 4 == 0]
    answers = [answer(str(i), name, correct=float(i % 3 > 0)) for i, name in asked]
    recorded = open_set(write_set(tmp_path, questions, answers, [model(name) for name in names]))
    result = evaluate(recorded, "toy")
    assert result["self_ensemble"]["b"]["accuracy"] == result["members"]["b"]["accuracy"]


def test_every_category_is_told_by_itself(toy: RecordedSet, found: Mapping[str, Any]) -> None:
    result = evaluate(toy, "toy", by_category=True)
    told = result["categories"]
    assert set(told) == {"c0", "c1"}
    assert sum(own["n"] for own in told.values()) == result["n_test"]
    for name, accuracy in (
        ("max", result["max"]["accuracy"]),
        ("cheap", result["cheap"]["accuracy"]),
    ):
        assert sum(own[name] * own["n"] for own in told.values()) == pytest.approx(
            accuracy * result["n_test"]
        )
    best = result["best_single"]
    right = sum(own["models"][best["model"]] * own["n"] for own in told.values())
    assert right == pytest.approx(best["accuracy"] * result["n_test"])
    assert "categories" not in found


@pytest.mark.usefixtures("weighed_quickly")
def test_categories_can_be_left_out(tmp_path: Path) -> None:
    recorded = made_up(tmp_path, THREE)
    left = narrow(recorded, "toy", None, (), ("c1",))
    assert {question.category for question in left.questions} == {"c0"}
    assert left.about["leave_category"] == ["c1"]
    assert "leave_category" not in narrow(recorded, "toy", None, ()).about
    result = evaluate(recorded, "toy", leave=("c1",))
    assert (result["leave_category"], result["n_test"]) == (["c1"], 20)
    assert result["baselines"]["best_per_category"] is None
    with pytest.raises(DataError, match="no category 'nope'"):
        narrow(recorded, "toy", None, (), ("nope",))
    with pytest.raises(DataError, match="nothing to learn from"):
        narrow(recorded, "toy", None, (), ("c0", "c1"))


def test_answers_that_only_one_split_has_are_an_error(tmp_path: Path) -> None:
    questions = [question(str(i), split="calibration" if i < 20 else "test") for i in range(21)]
    answers = [answer(str(i), name, answer="A" if i < 20 else None) for i in range(21) for name in "ab"]
    recorded = open_set(write_set(tmp_path, questions, answers, [model("a"), model("b")]))
    with pytest.raises(DataError, match="evaluate them apart"):
        evaluate(recorded, "toy")
