"""`manyminds bench trust` as a person calls it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from manyminds.cli import main
from tests.evals.test_replay import made_up
from tests.evals.test_trust import EIGHT

WORDS = ("--questions", "20", "--runs", "1")


def trust(*words: str) -> Result:
    return CliRunner().invoke(main, ["bench", "trust", *words])


@pytest.fixture
def folder(here: Path) -> Path:
    """With a set."""
    made_up(here / "toy", EIGHT)
    return here


def test_it_says_who_is_heard(folder: Path) -> None:
    shown = trust("toy", *WORDS, "--seed", "3")
    assert shown.exit_code == 0, shown.output
    first, second, *rest = shown.stdout.splitlines()
    assert first.startswith("toy: 8 honest nodes, 20 questions, 1 runs, seed 3")
    assert second == "  no attackers"
    assert "  1000 sybils" in rest


def test_it_is_json_by_set(folder: Path) -> None:
    found = json.loads(trust("toy", *WORDS, "--json").stdout)
    assert (found["toy"]["honest"], found["toy"]["questions"], found["toy"]["seed"]) == (8, 20, 0)


def test_too_few_models_are_one_sentence(folder: Path) -> None:
    made_up(folder / "few", {"a": 0.5, "b": 0.6})
    shown = trust("few", *WORDS)
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "it takes 5 models" in shown.stderr.splitlines()[-1]
