"""Recorded models as honest nodes, and what those come to who join them to lie."""

from pathlib import Path
from typing import Any

import pytest

from manyminds.errors import DataError
from manyminds.evals.report import narrow
from manyminds.evals.trust import ATTACKS, VIEWS, measure
from tests.evals.test_replay import made_up

EIGHT = {"a": 0.9, "b": 0.85, "c": 0.85, "d": 0.8, "e": 0.8, "f": 0.8, "g": 0.75, "h": 0.7}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    selection = narrow(made_up(tmp_path_factory.mktemp("sets") / "toy", EIGHT, n=480), "toy", None, ())
    return measure(selection, questions=200, runs=2, seed=1)


def rows(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(kind, row) for kind, many in found["attacks"].items() for row in many]


def test_every_attack_is_played_in_every_view(found: dict[str, Any]) -> None:
    assert (found["honest"], found["questions"], found["runs"], found["panel"]) == (8, 200, 2, 5)
    assert [(kind, row["attackers"]) for kind, row in rows(found)] == [
        ("none", 0),
        *((kind, n) for kind, many in ATTACKS.items() for n in many),
    ]
    for _, row in rows(found):
        assert set(row) == {"attackers", *VIEWS}
        for view in VIEWS:
            for name in ("accuracy", "lies"):
                mean, low, high = row[view][name]
                assert 0.0 <= low <= mean <= high <= 1.0
                assert sum(row[view][f"{name}_over_time"]) / 4 == pytest.approx(mean, abs=1e-4)
            assert row[view]["accuracy"][0] + row[view]["lies"][0] <= 1.0 + 1e-9


def test_without_attackers_there_are_no_lies(found: dict[str, Any]) -> None:
    ((_, honest), *_) = rows(found)
    assert all(honest[view]["lies"][0] == 0.0 for view in VIEWS)
    assert all(honest[view]["accuracy"][0] > 0.8 for view in VIEWS)


def test_who_only_claims_is_heard_without_trust_and_not_with_it(found: dict[str, Any]) -> None:
    for kind in ("independent", "colluding"):
        last = found["attacks"][kind][-1]
        assert last["claims"]["lies"][0] > 0.1
        assert last["lent"]["lies"][0] < 0.02
    swarm = found["attacks"]["sybils"][-1]
    assert swarm["claims"]["lies"][0] > 0.7
    assert swarm["lent"]["lies"][0] < swarm["claims"]["lies"][0] / 2


def test_the_same_seed_gives_the_same(tmp_path: Path) -> None:
    selection = narrow(made_up(tmp_path / "toy", EIGHT), "toy", None, ())
    one, again, other = (measure(selection, questions=20, runs=1, seed=s)["attacks"] for s in (3, 3, 4))
    assert one == again
    assert one != other


def test_options_can_be_lied_about(tmp_path: Path) -> None:
    selection = narrow(made_up(tmp_path / "toy", EIGHT, kind="option"), "toy", None, ())
    found = measure(selection, questions=20, runs=1)
    assert found["attacks"]["colluding"][-1]["claims"]["lies"][0] > 0.9


def test_what_nobody_can_lie_about_is_refused(tmp_path: Path) -> None:
    few = narrow(made_up(tmp_path / "few", {"a": 0.5, "b": 0.6}), "few", None, ())
    with pytest.raises(DataError, match="it takes 5 models"):
        measure(few, questions=10, runs=1)
    verdicts = narrow(made_up(tmp_path / "verdicts", EIGHT, kind="text"), "verdicts", None, ())
    with pytest.raises(DataError, match="verdicts alone"):
        measure(verdicts, questions=10, runs=1)
