"""`manyminds bench router` as a person calls it: what it prints, not how fast this machine is."""

import importlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from manyminds import catalog
from manyminds.cli import main
from manyminds.encoder import WordPiece
from manyminds.encoder.static import _digest, _save
from manyminds.node import ENCODER
from tests.evals.test_replay import made_up

HOME = Path(os.environ.get("MANYMINDS_HOME") or Path.home() / ".manyminds")
MISSING = bool(catalog.missing(HOME, catalog.find(ENCODER)))


def router(*words: str) -> Result:
    return CliRunner().invoke(main, ["bench", "router", "--runs", "2", *words])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an empty home; few experts are made up."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MANYMINDS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(importlib.import_module("manyminds.cli.bench"), "_EXPERTS", (2, 3))
    return tmp_path


@pytest.fixture
def equipped(folder: Path) -> Path:
    """The same with the encoder, and a table of random vectors beside it."""
    if MISSING:
        pytest.skip(f"no encoder in {HOME}: run `manyminds pull`")
    encoder = folder / "home" / "models" / ENCODER
    encoder.mkdir(parents=True)
    for name in ("model.onnx", "tokenizer.json"):
        (encoder / name).symlink_to(HOME / "models" / ENCODER / name)
    rows = np.random.default_rng(0).normal(size=(WordPiece(encoder / "tokenizer.json").size, 384))
    _save(encoder / "static.npz", rows=rows.astype(np.float16), version=1, source=_digest(encoder))
    return folder


def test_without_the_encoder_it_says_how_to_get_it(folder: Path) -> None:
    shown = router()
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert f"`manyminds pull {ENCODER}`" in shown.stderr
    assert shown.stderr.count("\n") == 1


def test_it_measures_both_encoders_and_every_size(equipped: Path) -> None:
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    made_up(equipped / "toy", {"a": 0.6, "b": 0.8})
    found = json.loads(router("--json", "--set", "toy").stdout)
    assert list(found["minilm_ms"]) == list(found["static_ms"]) == ["16", "64", "256"]
    assert list(found["router_ms"]) == ["2", "3"]
    assert all(ms > 0 for ms in found["router_ms"].values())
    assert found["artefact"]["experts"] == 3
    assert 0 < found["artefact"]["file_bytes"] < 1_000_000
    assert 0 < found["artefact"]["memory_bytes"] < 1_000_000
    assert (found["loss"]["set"], found["loss"]["questions"]) == ("toy", 60)
    assert cores is None or os.sched_getaffinity(0) == cores


def test_it_is_four_lines_for_people(equipped: Path) -> None:
    shown = router()
    assert shown.exit_code == 0, shown.output
    starts = [line.partition(":")[0] for line in shown.stdout.splitlines()]
    assert starts == ["sentence encoder", "fast encoder", "router's own part", "artefact of 3 experts"]


def test_a_set_without_categories_is_one_sentence(equipped: Path) -> None:
    made_up(equipped / "toy", {"a": 0.6, "b": 0.8}, n=1)
    for name, said in (("toy", "at least two categories"), ("absent", "absent does not exist")):
        shown = router("--set", name)
        assert (shown.exit_code, shown.stdout) == (1, "")
        assert said in shown.stderr
        assert shown.stderr.count("\n") == 1
