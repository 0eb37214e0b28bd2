"""Probing experts as a person does it: who makes the network better is in it, and gone without a trace."""

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from manyminds.artefact import load, save
from manyminds.cli.newcomers import identities, settle
from manyminds.config import load as configured
from manyminds.errors import DataError
from manyminds.evals.newcomers import Newcomers
from manyminds.learn.bank import beside
from manyminds.node import learnt as learnt_of
from tests.cli.test_eval import call
from tests.evals.test_replay import made_up
from tests.learn.quick import weigh_quickly
from tests.learn.worlds import hand_made

MINDS = {"a": 0.5, "b": 0.45, "c": 0.4, "weak": 0.2, "strong": 0.97, "other": 0.9}
FIRST = ("a", "b", "c")
QUESTION = "Qq5\nA) red\nB) green\nC) blue\nD) white"
ENOUGH = ("--budget-usd", "100")


def configure(folder: Path, toy: Path, *names: str) -> None:
    """These experts, as they were recorded."""
    entries = [f'[[expert]]\nname = "{name}"\nkind = "recorded"\npath = "{toy}"\n' for name in names]
    (folder / "manyminds.toml").write_text('[local]\ntier = "none"\n' + "".join(entries))


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recorded experts, of which the first three were learnt from."""
    folder = tmp_path_factory.mktemp("learnt")
    made_up(folder / "toy", MINDS, n=360, kind="option")
    configure(folder, folder / "toy", *MINDS)
    with pytest.MonkeyPatch.context() as patch:
        weigh_quickly(patch)
        patch.chdir(folder)
        patch.setenv("MANYMINDS_HOME", str(folder / "home"))
        without = [word for name in MINDS if name not in FIRST for word in ("--exclude", name)]
        made = call("train", "toy", *without)
    assert made.exit_code == 0, made.output
    return folder


@pytest.fixture
def home(learnt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(learnt / "home", tmp_path / "home")
    shutil.copy(learnt / "manyminds.toml", tmp_path)
    monkeypatch.setenv("MANYMINDS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def probe(*words: str) -> list[dict[str, Any]]:
    done = call("experts", "probe", *words, "--json")
    assert done.exit_code == 0, done.output
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def panel() -> set[str]:
    """Who is asked now, by the policy `max`."""
    asked = call("ask", "--model", "max", QUESTION, "--json")
    assert asked.exit_code == 0, asked.output
    return {entry["expert"] for entry in json.loads(asked.stdout)["manyminds"]["panel"]}


def test_who_is_better_is_taken_in_and_asked(home: Path) -> None:
    assert panel() <= set(FIRST)
    (found,) = probe("strong", *ENOUGH)
    assert (found["name"], found["ended"], found["failed"]) == ("strong", "enough", 0)
    assert 8 <= found["probes"] <= 64
    assert found["probes"] + found["more"] == 128
    (sort,) = found["sorts"]
    assert sort["what"] in ("lead", "join")
    assert sort["accuracy"] == pytest.approx(0.97, abs=0.06)
    rows = {row["policy"]: row for row in sort["frontier"]}
    assert rows["max"]["after"]["accuracy"] > rows["max"]["before"]["accuracy"] + 0.1
    assert "strong" in panel()


def test_who_is_worse_changes_nothing(home: Path) -> None:
    before = panel()
    (found,) = probe("weak", *ENOUGH)
    assert (found["sorts"][0]["what"], found["more"]) == ("keep", 0)
    assert not (home / "grown.npz").exists()
    assert panel() == before


def test_nobody_is_asked_twice_unless_anew(home: Path) -> None:
    (first,), (again,) = probe("strong", *ENOUGH), probe("strong", "--budget-usd", "0")
    assert (again["probes"], again["more"], again["cost_usd"]) == (first["probes"], first["more"], 0.0)
    assert again["sorts"] == first["sorts"]
    (nothing,) = probe("strong", "--budget-usd", "0", "--anew")
    assert (nothing["probes"], nothing["ended"]) == (0, "budget")
    assert "strong" in panel()


def test_removed_is_as_if_it_had_never_come(home: Path) -> None:
    """Byte by byte, and what was learnt before stays as it was."""
    kept = {path.name: path.read_bytes() for path in home.glob("*.npz")}
    probe("other", *ENOUGH)
    alone = (home / "grown.npz").read_bytes()
    probe("strong", *ENOUGH)
    assert (home / "grown.npz").read_bytes() != alone
    assert load(home / "grown.npz").about["newcomers"] == ["other", "strong"]
    newcomers, known = Newcomers(home), identities(configured(None, os.environ, {}))
    newcomers.forget(["strong"])
    assert {one.name for one in newcomers.known(known)} == {"other"}
    newcomers.settle(known)
    assert (home / "grown.npz").read_bytes() == alone
    newcomers.forget(["other"])
    newcomers.settle(known)
    assert {path.name: path.read_bytes() for path in home.glob("*.npz")} == kept


def test_one_that_was_learnt_from_is_asked_whether_it_has_changed(home: Path, learnt: Path) -> None:
    kept = {path.name: path.read_bytes() for path in home.glob("*.npz")}
    (found,) = probe("a", *ENOUGH)
    assert (found["changed"], found["sorts"]) == (False, [])
    assert {path.name: path.read_bytes() for path in home.glob("*.npz")} == kept
    toml = home.parent / "manyminds.toml"
    toml.write_text(toml.read_text().replace('name = "a"', 'name = "a"\nmodel = "weak"', 1))
    (found,) = probe("a", *ENOUGH, "--anew")
    assert found["changed"] is True
    assert found["sorts"][0]["accuracy"] < 0.4
    now, before = load(home / "grown.npz").parts[0], load(home / "artefact.npz").parts[0]
    assert "a" not in now.skills.experts
    for name in ("b", "c"):
        row, old = now.skills.experts.index(name), before.skills.experts.index(name)
        assert now.skills.weights[row].tobytes() == before.skills.weights[old].tobytes()
    assert "a" not in panel()


@pytest.mark.parametrize("name", ["..", ".", ".lock", "a/b", "../..", "a:b"])
def test_a_name_is_never_a_way_out(home: Path, name: str) -> None:
    newcomers = Newcomers(home)
    assert newcomers.folder(name).resolve().parent == home.resolve() / "newcomers"
    newcomers.folder(name).mkdir(parents=True)
    newcomers.forget([name])
    assert (home / "artefact.npz").exists()
    assert [path.name for path in (home / "newcomers").iterdir()] == [".lock"]


def test_another_base_leaves_what_has_grown_behind(home: Path) -> None:
    probe("strong", *ENOUGH)
    save(hand_made({"a": 0.5, "b": 0.5}), home / "artefact.npz")
    found, _ = learnt_of(home)
    assert found is not None
    assert found.experts == ("a", "b")
    assert "strong" not in load(home / "artefact.npz").experts


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nobody",), "No expert is named 'nobody'"),
        ((), "Missing argument"),
        (("strong", "--probes", "1"), "--probes"),
    ],
)
def test_what_cannot_be_probed_is_told(home: Path, words: tuple[str, ...], said: str) -> None:
    done = call("experts", "probe", *words)
    assert done.exit_code in (1, 2)
    assert done.stdout == ""
    assert said in done.stderr


def test_without_what_learning_needs_it_says_so(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = call("experts", "probe", "strong")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "pip install 'manyminds[train]'" in done.stderr


def test_what_grew_says_so_too_where_learning_is_gone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe("strong", *ENOUGH)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(DataError, match="manyminds\\[train\\]"):
        settle(configured(None, os.environ, {}))
    assert "strong" in panel()


def test_training_leaves_a_file_of_ones_own_where_the_bank_would_be(home: Path, learnt: Path) -> None:
    (home / "mine.bank.npz").write_text("precious")
    done = call("train", str(learnt / "toy"), "--out", str(home / "mine.npz"))
    assert done.exit_code == 1
    assert "mine.bank.npz is there" in done.stderr
    assert (home / "mine.bank.npz").read_text() == "precious"
    assert not (home / "mine.npz").exists()


def test_the_whole_pool_is_asked_where_that_is_wanted(home: Path) -> None:
    (found,) = probe("weak", "--thorough", *ENOUGH)
    assert found["probes"] + found["more"] == 128
    assert found["sorts"][0]["what"] == "keep"


def test_without_a_bank_it_says_what_to_do(home: Path) -> None:
    beside(home / "artefact.npz").unlink()
    done = call("experts", "probe", "strong")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "learn anew with `manyminds train DIR`" in done.stderr


def test_a_damaged_record_is_named(home: Path) -> None:
    probe("strong", *ENOUGH)
    (home / "newcomers" / "strong" / "probed.json").write_text("{")
    done = call("experts", "probe", "other", *ENOUGH)
    assert done.exit_code == 1
    assert "remove that folder, and probe strong again" in done.stderr


def test_in_words(home: Path) -> None:
    done = call("experts", "probe", "strong", "weak", *ENOUGH)
    assert done.exit_code == 0, done.output
    assert re.search(r"strong: \d+ probes and \d+ more for \$\d", done.stdout)
    assert "right; taken in" in done.stdout
    assert "not taken in" in done.stdout
    assert re.search(r"max +\d\d\.\d% -> \d\d\.\d% ", done.stdout)


def test_who_is_paused_is_not_probed(home: Path) -> None:
    assert call("experts", "pause", "strong").exit_code == 0
    done = call("experts", "probe", "strong")
    assert done.exit_code == 1
    assert "strong is paused" in done.stderr
