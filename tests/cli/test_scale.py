"""`manyminds bench index` as a person calls it: what it prints, not how fast this machine is."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from manyminds import catalog
from manyminds.cli import main
from manyminds.node import ENCODER
from tests.evals.test_replay import made_up

HOME = Path(os.environ.get("MANYMINDS_HOME") or Path.home() / ".manyminds")
MISSING = bool(catalog.missing(HOME, catalog.find(ENCODER)))


def index(*words: str) -> Result:
    return CliRunner().invoke(main, ["bench", "index", *words])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a set, and an empty home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MANYMINDS_HOME", str(tmp_path / "home"))
    made_up(tmp_path / "toy", {"a": 0.6, "b": 0.8})
    return tmp_path


@pytest.fixture
def equipped(folder: Path) -> Path:
    """The same with the encoder."""
    if MISSING:
        pytest.skip(f"no encoder in {HOME}: run `manyminds pull`")
    encoder = folder / "home" / "models" / ENCODER
    encoder.mkdir(parents=True)
    for name in ("model.onnx", "tokenizer.json"):
        (encoder / name).symlink_to(HOME / "models" / ENCODER / name)
    return folder


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
