"""How right private answers are, of recorded models and of populations drawn from them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from manyminds.cli import main
from manyminds.combine.private import GRAIN, counted
from manyminds.errors import DataError
from manyminds.evals.privacy import ANSWERS, EPSILONS, SIMULATED, measure
from manyminds.evals.privacy_plot import draw
from manyminds.evals.report import Selection, narrow
from manyminds.experts.recorded import open_set
from tests.data import recorded
from tests.evals.test_replay import made_up

SIX = {"a": 0.9, "b": 0.85, "c": 0.8, "d": 0.8, "e": 0.75, "f": 0.7}


def chosen(folder: Path, **made: Any) -> Selection:
    return narrow(made_up(folder, SIX, n=240, **made), "toy", None, ())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return measure(chosen(tmp_path_factory.mktemp("sets") / "toy", kind="option"), seed=1)


def accuracy(population: dict[str, Any], epsilon: float, answers: int) -> float:
    (row,) = [r for r in population["released"] if (r["epsilon"], r["answers"]) == (epsilon, answers)]
    return float(row["accuracy"][0])


def test_each_population_is_measured_at_each_epsilon_and_number(found: dict[str, Any]) -> None:
    assert [p["sources"] for p in found["populations"]] == [6, 6, *SIMULATED]
    for population in found["populations"]:
        rows = population["released"]
        assert [(r["epsilon"], r["answers"]) for r in rows] == [(e, a) for e in EPSILONS for a in ANSWERS]
        assert all(low <= mean <= high for r in rows for mean, low, high in [r["accuracy"]])
    assert "simulated" in found["populations"][2]["population"]
    assert found["best_single"]["model"] == "a"


def test_few_sources_and_many_answers_cost_nearly_everything(found: dict[str, Any]) -> None:
    few, _, _, many = found["populations"]
    assert accuracy(few, 1.0, 500) < 0.5 < few["without_noise"][0]
    assert accuracy(many, 8.0, 1) == pytest.approx(many["without_noise"][0], abs=0.02)
    assert accuracy(few, 8.0, 1) < many["without_noise"][0]


def test_who_has_too_few_sources_is_refused(found: dict[str, Any]) -> None:
    for population in found["populations"]:
        for row in population["released"]:
            assert row["refused"] == (population["effective"] < row["sources_needed"])
    assert all(row["refused"] for row in found["populations"][0]["released"])
    assert not all(row["refused"] for row in found["populations"][3]["released"])


def test_the_vote_without_noise_is_the_plain_one(tmp_path: Path) -> None:
    """Counted here once more, by hand."""
    selection = chosen(tmp_path / "toy", kind="option")
    found = measure(selection, seed=1)
    right, questions = 0, selection.of("test")
    for question in questions:
        votes: list[int | None] = []
        for made in (expert.recording for expert in selection.experts):
            row = made.finder.row_of(question.question_id)
            code = made.codes[made.rows.tolist().index(row)]
            votes.append(None if code < 0 else "ABCD".index(made.texts[code]))
        counts = counted(votes, [GRAIN] * len(votes), len(question.choices))
        right += "ABCD"[int(np.argmax(counts))] == question.gold
    assert found["populations"][0]["without_noise"][0] == pytest.approx(right / len(questions), abs=1e-6)


def test_a_source_votes_once_in_however_many_ways_it_was_asked(tmp_path: Path) -> None:
    """Else its ways would hide each other, and what it pays would be counted for each of them apart."""
    minds = {"a": 0.9, "b:code": 0.5, "b:direct": 0.5, "c": 0.7, "c:direct": 0.7}
    selection = narrow(made_up(tmp_path / "toy", minds, n=120, kind="option"), "toy", None, ())
    assert len({expert.card.source for expert in selection.experts}) == 3
    found = measure(selection, questions=30)
    assert found["models"] == 5
    assert [p["sources"] for p in found["populations"][:2]] == [3, 3]
    without = narrow(selection.recorded, "toy", None, ("b:direct", "c:direct"))
    again = measure(without, questions=30)
    assert [p["released"] for p in again["populations"]] == [p["released"] for p in found["populations"]]


def test_the_same_seed_gives_the_same(tmp_path: Path) -> None:
    selection = chosen(tmp_path / "toy", kind="option")
    one, again, other = (measure(selection, questions=40, seed=s)["populations"] for s in (4, 4, 5))
    assert one == again
    assert one != other


def test_labels_are_public_options_too() -> None:
    """Of a set whose questions have no choices: all ten digits."""
    found = measure(narrow(open_set(recorded("frugalml_apis")), "apis", "digit", ()), questions=60)
    assert found["options"] == [10, 10]
    assert found["populations"][0]["without_noise"][0] > 0.6


def test_the_picture_has_a_panel_for_each(found: dict[str, Any]) -> None:
    pictures = draw(found)
    assert pictures["png"].startswith(b"\x89PNG")
    assert b"simulated" in pictures["svg"]
    assert draw(found) == pictures


def test_the_command_prints_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made_up(tmp_path / "toy", SIX, kind="option")
    shown = CliRunner().invoke(main, ["eval", "toy", "--private", "--plot", "toy"])
    assert shown.exit_code == 0, shown.output
    assert "1,000 simulated: without noise" in shown.stdout
    assert (tmp_path / "toy.png").stat().st_size > 10_000
    told = CliRunner().invoke(main, ["eval", "toy", "--private", "--json"])
    assert json.loads(told.stdout)["populations"][0]["sources"] == 6


def test_wrong_ways_to_ask_are_told(tmp_path: Path) -> None:
    said = CliRunner().invoke(main, ["eval", "x.csv", "--private"])
    assert said.exit_code == 2
    assert "--private goes with DIR" in said.output
    assert "--plot goes with --private" in CliRunner().invoke(main, ["eval", "x", "--plot", "y"]).output


def test_verdicts_alone_have_no_options(tmp_path: Path) -> None:
    selection = chosen(tmp_path / "toy", kind="text")
    with pytest.raises(DataError, match="public options"):
        measure(selection)
