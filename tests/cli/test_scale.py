"""`manyminds bench index` as a person calls it: what it prints, not how fast this machine is."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from manyminds.cli import main
from tests.evals.test_replay import made_up
from tests.pulled import ENCODER


def index(*words: str) -> Result:
    return CliRunner().invoke(main, ["bench", "index", *words])


@pytest.fixture
def folder(here: Path) -> Path:
    """With a set."""
    made_up(here / "toy", {"a": 0.6, "b": 0.8})
    return here


def test_it_finds_every_expert_among_few(equipped: Path) -> None:
    found = json.loads(index("toy", "--size", "1000", "--json").stdout)
    assert [(row["kind"], row["experts"], row["recall"]) for row in found["rows"]] == [
        *(("questions", 125, 1.0), ("random", 125, 1.0))
    ]
    assert found["exponents"]["compared"] is None


def test_it_is_a_table_for_people(equipped: Path) -> None:
    lines = index("toy", "--size", "1000").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        *(["vectors", "skills"], ["1,000", "questions"], ["1,000", "random"])
    ]


def test_without_the_encoder_it_says_how_to_get_it(folder: Path) -> None:
    shown = index("toy", "--size", "1000")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert f"`manyminds pull {ENCODER}`" in shown.stderr


def test_an_absent_set_is_one_sentence(folder: Path) -> None:
    shown = index("absent")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "absent does not exist" in shown.stderr
    assert shown.stderr.count("\n") == 1
