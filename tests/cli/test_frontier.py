"""`manyminds frontier` as a person calls it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from manyminds.cli import main
from tests.evals.test_plots import document


@pytest.fixture
def folder(here: Path) -> Path:
    """With one result."""
    (here / "bfcl_v1.2.json").write_text(json.dumps(document()))
    return here


def frontier(*words: str) -> Result:
    return CliRunner().invoke(main, ["frontier", *words])


def test_the_pictures_lie_beside_the_result(folder: Path) -> None:
    shown = frontier("bfcl_v1.2.json")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.split() == ["bfcl_v1.2.png", "bfcl_v1.2.svg"]
    assert shown.stderr == ""
    assert (folder / "bfcl_v1.2.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (folder / "bfcl_v1.2.svg").read_bytes()


def test_the_picture_says_which_part_of_the_set_it_shows(folder: Path) -> None:
    part = {"category": "law", "exclude": ["gpt-4*", "o1*"]}
    (folder / "part.json").write_text(json.dumps(document() | part))
    assert frontier("part.json").exit_code == 0
    assert b"made up, category law, without gpt-4*, o1*: 4 models" in (folder / "part.svg").read_bytes()


@pytest.mark.parametrize("out", ["picture", "picture.png", "picture.svg"])
def test_the_pictures_have_the_name_that_is_wanted(folder: Path, out: str) -> None:
    shown = frontier("bfcl_v1.2.json", "--out", out, "--json")
    assert json.loads(shown.stdout) == {"png": "picture.png", "svg": "picture.svg"}
    assert (folder / "picture.png").exists()
    assert (folder / "picture.svg").exists()


def test_a_bad_result_is_one_sentence_and_writes_nothing(folder: Path) -> None:
    (folder / "bad.json").write_text("accuracy 0.9")
    for name in ("bad.json", "absent.json"):
        shown = frontier(name)
        assert shown.exit_code == 1
        assert shown.stdout == ""
        assert shown.stderr.startswith("manyminds: ")
        assert "manyminds eval DIR --json" in shown.stderr
        assert shown.stderr.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["bad.json", "bfcl_v1.2.json"]


def test_a_folder_that_is_not_there_is_one_sentence(folder: Path) -> None:
    shown = frontier("bfcl_v1.2.json", "--out", "absent/picture")
    assert shown.exit_code == 1
    assert "absent/picture.png" in shown.stderr
    assert shown.stderr.count("\n") == 1
