"""`manyminds bench hydra` as a person calls it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from manyminds.cli import main
from manyminds.evals.speed.machine import tree
from tests.cli.test_bench import command_line
from tests.e2e.node import wait_until
from tests.evals.test_replay import made_up

MODELS = {"a": 0.3, "b": 0.4, "c": 0.45, "d": 0.6, "e": 0.9}


def hydra(*words: str) -> Result:
    return CliRunner().invoke(main, ["bench", "hydra", *words])


@pytest.fixture
def folder(here: Path) -> Path:
    """With a set."""
    made_up(here / "toy", MODELS)
    return here


def test_it_says_what_became_of_the_network_and_draws_it(folder: Path) -> None:
    shown = hydra("toy", "--orders", "1", "--plot", "plots")
    assert shown.exit_code == 0, shown.output
    first, *_ = shown.stdout.splitlines()
    assert first.startswith("toy: 2 of 5 models first")
    assert "learnt from all at once" in shown.stdout
    assert sorted(path.name for path in (folder / "plots").iterdir()) == ["toy.png", "toy.svg"]


def test_it_is_json_by_set(folder: Path) -> None:
    found = json.loads(hydra("toy", "--orders", "1", "--live", "0", "--json").stdout)
    assert (found["toy"]["models"], found["toy"]["orders"], found["toy"]["live"]) == (5, 1, 0)


def test_too_few_models_are_one_sentence(folder: Path) -> None:
    made_up(folder / "few", {"a": 0.5, "b": 0.6})
    for words, said in (
        (("absent",), "absent"),
        (("few",), "it takes 4 models"),
        (("toy", "--category", "c9"), "There are: c0, c1"),
    ):
        shown = hydra(*words)
        assert (shown.exit_code, shown.stdout) == (1, ""), words
        assert said in shown.stderr.splitlines()[-1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
@pytest.mark.parametrize("to_all", [True, False])
def test_ctrl_c_ends_it_and_all_that_it_started_without_a_word(folder: Path, to_all: bool) -> None:
    """As a terminal sends it, to the whole group, while its processes may still be starting."""
    words = [sys.executable, "-m", "manyminds", "bench", "hydra", "toy", "--orders", "500"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, text=True
    ) as run:
        assert wait_until(lambda: any(b"spawn_main" in command_line(pid) for pid in tree(run.pid)), 60)
        started = tree(run.pid)
        (os.killpg if to_all else os.kill)(run.pid, signal.SIGINT)
        shown, said = run.communicate(timeout=60)
    assert (shown, said.splitlines()[1:]) == ("", []), said  # the first says that there is no encoder
    assert run.returncode == 130
    assert wait_until(lambda: not any(map(command_line, started)))
