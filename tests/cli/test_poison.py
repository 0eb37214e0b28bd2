"""`manyminds bench poison` as a person calls it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from manyminds.cli import main
from tests.evals.test_poison import SIX
from tests.evals.test_replay import made_up

pytestmark = pytest.mark.usefixtures("weighed_quickly")

WORDS = ("--panels", "1", "--questions", "20")


def poison(*words: str) -> Result:
    return CliRunner().invoke(main, ["bench", "poison", *words])


@pytest.fixture
def folder(here: Path) -> Path:
    """With a set."""
    made_up(here / "toy", SIX)
    return here


def test_it_says_how_many_liars_it_takes(folder: Path) -> None:
    shown = poison("toy", *WORDS, "--seed", "3")
    assert shown.exit_code == 0, shown.output
    first, *rest = shown.stdout.splitlines()
    assert first == "toy: 6 models, 20 test questions, seed 3"
    assert sum("a lone liar changed 0 of" in line for line in rest) == 4
    assert sum(line.startswith("  all models, ") for line in rest) == 3


def test_it_is_json_by_set(folder: Path) -> None:
    found = json.loads(poison("toy", *WORDS, "--exclude", "f", "--json").stdout)
    assert (found["toy"]["models"], found["toy"]["exclude"], found["toy"]["seed"]) == (5, ["f"], 0)


def test_too_few_models_are_one_sentence(folder: Path) -> None:
    shown = poison("toy", "--exclude", "[a-c]", *WORDS)
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "it takes 5 models" in shown.stderr.splitlines()[-1]
