"""`manyminds calibrate`: what is asked, what is kept, and what keeps it from beginning."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from manyminds import sandbox
from manyminds.cli import main
from manyminds.errors import DataError
from manyminds.evals import packs
from tests.evals.packs import carriers
from tests.evals.test_replay import made_up
from tests.experts.test_recorded import answer, model, question, write_set

pytest.importorskip("reasoning_gym", reason="procedural tasks need the extra `calibrate`")


@pytest.fixture
def home(home: Path) -> Path:
    """With two experts who know nothing of any task."""
    made_up(home / "toy", {"a": 0.5, "b": 0.5}, kind="option")
    (home / "manyminds.toml").write_text(
        "".join(
            f'[[expert]]\nname = "{name}"\nkind = "recorded"\npath = "toy"\nmodel = "{name}"\n'
            for name in "ab"
        )
    )
    return home


def call(*words: str) -> Result:
    return CliRunner().invoke(main, ["calibrate", "set", *words])


def said(*words: str) -> str:
    shown = call(*words)
    assert shown.exit_code == 1, shown.output
    assert shown.stdout == ""
    return shown.stderr


def test_experts_that_answer_nothing_make_no_set(home: Path) -> None:
    stderr = said("--pack", "procedural", "--count", "1")
    assert "Asking a, b: 22 tasks, into set" in stderr
    assert stderr.splitlines()[-1].startswith("manyminds: No expert answered any question. a is a recording")


def test_who_is_chosen_is_asked_alone(home: Path) -> None:
    assert "Asking b: 22 tasks" in said("--pack", "procedural", "--count", "1", "--only", "b")
    assert "Asking b: 22 tasks" in said("--pack", "procedural", "--count", "1", "--exclude", "a")
    stderr = said("--pack", "procedural", "--count", "1", "--only", "c*")
    assert stderr == "manyminds: No expert matches 'c*'. There are: a, b.\n"
    assert "No expert is left to be asked" in said("--pack", "procedural", "--count", "1", "--exclude", "?")


def test_an_unknown_pack_is_named_before_anything_is_asked(home: Path) -> None:
    assert said("--pack", "chess").startswith("manyminds: There is no task pack 'chess': choose of ")


def test_categories_narrow_what_is_asked(home: Path) -> None:
    two = ("--category", "gcd", "--category", "zebra_puzzles")
    assert "Asking a, b: 2 tasks" in said(*two, "--count", "1")
    assert "Asking a, b: 2 tasks" in said("--pack", "procedural", *two, "--count", "1")
    unknown = said("--pack", "procedural", "--category", "gsm8k")
    assert unknown.startswith("manyminds: There is no category 'gsm8k': choose of ")
    assert "gcd" in unknown


def test_programs_need_a_sandbox(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def need() -> None:
        raise DataError("install bubblewrap")

    monkeypatch.setattr(sandbox, "need", need)
    carriers.lay_all(home / "home")
    assert said("--pack", "human-eval") == "manyminds: install bubblewrap\n"


def test_the_network_itself_may_be_asked(home: Path) -> None:
    shown = call("--pack", "procedural", "--count", "1", "--policy", "auto", "--policy", "cheap")
    assert "Asking auto, cheap: 22 tasks" in shown.stderr


def test_options_that_do_not_fit_are_usage_errors(home: Path) -> None:
    for words in (["--count", "0"], ["--minutes", "0"], ["--policy", "wise"], ["--seed", "-1"]):
        assert call(*words).exit_code == 2


def test_what_was_answered_is_shown(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = next(iter(packs.questions("procedural", home, count=1)))
    key = first.question.question_id
    (home / "toy2").mkdir()
    rows = [answer(key, name, answer="-5") for name in "ab"]
    write_set(home / "toy2", [question(key)], rows, [model("a"), model("b")])
    text = (home / "manyminds.toml").read_text().replace('"toy"', '"toy2"')
    (home / "manyminds.toml").write_text(text)
    shown = call("--pack", "procedural", "--count", "1", "--json")
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert (found["tasks"], found["answered"], found["kept"]) == (22, 2, 0)
    assert [(e["expert"], e["answered"], e["missing"]) for e in found["experts"]] == [
        ("a", 1, 21),
        ("b", 1, 21),
    ]
    again = call("--pack", "procedural", "--count", "1")
    assert "0 answers came; 2 were here." in again.stderr
    assert "a: 21 answers are missing: a is a recording" in again.stderr
    assert "$ per 1,000" in again.stdout
