"""Recorded models of which some lie, and what is released all the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manyminds.errors import DataError
from manyminds.evals.poison import SIZE, measure, poisoned
from manyminds.evals.report import Selection, narrow
from manyminds.experts.recorded import RecordedSet
from manyminds.learn.examples import gather
from tests.evals.test_replay import made_up

SIX = {"a": 0.9, "b": 0.85, "c": 0.8, "d": 0.8, "e": 0.75, "f": 0.7}


def chosen(recorded: RecordedSet) -> Selection:
    return narrow(recorded, "toy", None, ())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    selection = chosen(made_up(tmp_path_factory.mktemp("sets") / "toy", SIX, n=240))
    return measure(selection, panels=3, questions=80, seed=1)


def orders(found: dict[str, Any]) -> list[dict[str, Any]]:
    panels = found["panels"]
    return [panels[kind][order] for kind in ("best", "any") for order in ("at_random", "most_trusted")]


def test_a_lone_liar_changes_nothing_on_which_the_others_agree(found: dict[str, Any]) -> None:
    for own in orders(found):
        assert own["lone_liar"]["others_agreed"] > 0
        assert own["lone_liar"]["moved"] == 0


def test_the_more_lie_the_less_is_right_until_nothing_is(found: dict[str, Any]) -> None:
    assert (found["models"], found["n_test"], found["size"]) == (6, 80, 5)
    for own in orders(found):
        rows = own["by_liars"]
        assert [row["liars"] for row in rows] == list(range(SIZE + 1))
        right, lies = ([row[name][0] for row in rows] for name in ("accuracy", "lies_released"))
        assert right[0] > 0.8 > right[3] >= right[5] == 0.0
        assert lies[0] == 0.0
        assert lies[5] == 1.0
        assert all(low <= mean <= high for row in rows for mean, low, high in [row["accuracy"]])
        assert all(a + b <= 1.0 + 1e-9 for a, b in zip(right, lies, strict=True))
        assert 1 <= own["worse_than_best_honest_from"] <= own["lies_win_from"] <= 5
        assert rows[5]["best_honest"] == [0.0, 0.0, 0.0]  # nobody is left


def test_of_the_whole_network_the_most_trusted_lie_first(found: dict[str, Any]) -> None:
    rows = found["network"]
    assert [row["liars"] for row in rows] == list(range(SIZE + 1))
    assert rows[0]["max"][0] > rows[5]["max"][0]
    assert set(rows[0]) == {"liars", "max", "auto", "cheap"}


@pytest.mark.usefixtures("weighed_quickly")
def test_the_same_seed_gives_the_same(tmp_path: Path) -> None:
    selection = chosen(made_up(tmp_path / "toy", SIX))
    one, again, other = (measure(selection, panels=1, questions=30, seed=s)["panels"] for s in (4, 4, 5))
    assert one == again
    assert one != other


@pytest.mark.usefixtures("weighed_quickly")
def test_options_are_lied_about_by_letter(tmp_path: Path) -> None:
    found = measure(chosen(made_up(tmp_path / "toy", SIX, kind="option")), panels=1, questions=30)
    assert all(own["by_liars"][5]["accuracy"][0] == 0.0 for own in orders(found))


def test_who_is_poisoned_says_the_lie_where_there_is_one_and_else_what_he_said(tmp_path: Path) -> None:
    recorded = made_up(tmp_path / "toy", SIX)
    selection = chosen(recorded)
    expert, questions = selection.experts[0], selection.of("test")
    rows = {expert.recording.finder.row_of(q.question_id): "a lie" for q in questions[:5]}
    liar = poisoned(expert, {row: lie for row, lie in rows.items() if row is not None})
    before, after = (gather([one], questions, recorded) for one in (expert, liar))
    said = [
        names[vote] if vote >= 0 else None
        for names, (vote,) in zip(after.candidates, after.votes, strict=True)
    ]
    assert said[:5] == ["a lie"] * 5
    assert "a lie" not in said[5:]
    assert not after.correct[:5].any()
    assert np.array_equal(after.correct[5:], before.correct[5:])


def test_what_cannot_be_poisoned_is_refused(tmp_path: Path) -> None:
    few = chosen(made_up(tmp_path / "few", {"a": 0.5, "b": 0.6}))
    with pytest.raises(DataError, match="it takes 5 models"):
        measure(few, panels=1, questions=10)
    verdicts = chosen(made_up(tmp_path / "verdicts", SIX, kind="text"))
    with pytest.raises(DataError, match="verdicts alone"):
        measure(verdicts, panels=1, questions=10)
