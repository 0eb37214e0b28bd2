"""`manyminds bench` as a person calls it: what it prints, not how fast this machine is."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from manyminds.cli import main
from manyminds.cli.bench import _show, _show_speed
from manyminds.encoder import WordPiece
from manyminds.encoder.static import _digest, _save
from manyminds.evals.speed.machine import tree
from manyminds.evals.speed.targets import find_nginx
from tests.e2e.node import wait_until
from tests.evals.test_replay import made_up
from tests.pulled import ENCODER


def router(*words: str) -> Result:
    return CliRunner().invoke(main, ["bench", "router", "--runs", "2", *words])


@pytest.fixture
def folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Few experts are made up."""
    monkeypatch.setattr(importlib.import_module("manyminds.cli.bench"), "_EXPERTS", (2, 3))
    return here


@pytest.fixture
def equipped(equipped: Path) -> Path:
    """With the encoder, and a table of random vectors beside it."""
    encoder = equipped / "home" / "models" / ENCODER
    rows = np.random.default_rng(0).normal(size=(WordPiece(encoder / "tokenizer.json").size, 384))
    _save(encoder / "static.npz", rows=rows.astype(np.float16), version=1, source=_digest(encoder))
    return equipped


def test_without_the_encoder_it_says_how_to_get_it(folder: Path) -> None:
    shown = router()
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert f"`manyminds pull {ENCODER}`" in shown.stderr
    assert shown.stderr.count("\n") == 1


@pytest.mark.usefixtures("weighed_quickly")
def test_it_measures_both_encoders_and_every_size(equipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    _show({**found, "loss": None})
    starts = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert starts == ["sentence encoder", "fast encoder", "router's own part", "artefact of 3 experts"]


def test_a_set_without_categories_is_one_sentence(equipped: Path) -> None:
    made_up(equipped / "toy", {"a": 0.6, "b": 0.8}, n=1)
    for name, said in (("toy", "at least two categories"), ("absent", "absent does not exist")):
        shown = router("--set", name)
        assert (shown.exit_code, shown.stdout) == (1, "")
        assert said in shown.stderr
        assert shown.stderr.count("\n") == 1


# --- the gateway -----------------------------------------------------------------------------------

NEEDS = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("cc") is None, reason="needs Linux and a C compiler"
)
COMMAND = (sys.executable, "-m", "manyminds", "bench", "gateway")
PASSES = ["pass_1", "pass_64", "pass_64_33kb", "burst_16", "paced_64"]
FANS = ["fanout8_1", "fanout8_16", "fuse50_1"]


def gateway(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Leaves nothing in `folder`, where its temporary files are."""
    environ = os.environ | {"TMPDIR": str(folder)}
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, env=environ)
    assert list(folder.iterdir()) == []
    return done


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Figures of the shortest possible run, and what was said beside; litellm is a program that fails."""
    broken = tmp_path_factory.mktemp("bin") / "litellm"
    broken.write_text("#!/bin/sh\necho 'no master key is set' >&2\nexit 3\n")
    broken.chmod(0o755)
    folder = tmp_path_factory.mktemp("temporary")
    done = gateway(folder, "--seconds", "0.05", "--runs", "1", "--litellm", str(broken), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@NEEDS
def test_every_request_is_answered_and_recorded(measured: tuple[dict[str, Any], str]) -> None:
    found, said = measured
    assert sum(row["errors"] for row in found["rows"]) == 0, said
    sent = [row["requests"] for row in found["rows"] if row["target"] == "manyminds"]
    assert min(sent) > 0
    assert found["ledger_rows"] == found["requests"] == sum(sent)


@NEEDS
def test_every_case_is_measured_on_every_target_that_is_here(measured: tuple[dict[str, Any], str]) -> None:
    found, said = measured
    here = ["direct", "manyminds"] + ["nginx"] * bool(find_nginx())
    assert [name for name, there in found["targets"].items() if there] == here
    assert found["targets"]["litellm"] is None
    assert "litellm did not get ready: no master key is set" in said
    assert ("nginx is not here" in said) == (found["targets"]["nginx"] is None)
    pairs = [(row["case"], row["target"]) for row in found["rows"]]
    assert pairs == [*((c, t) for c in PASSES for t in here), *((case, "manyminds") for case in FANS)]
    assert found["times_litellm"] is None
    assert found["apart"] == (found["cores"] > 1)


@NEEDS
def test_nothing_comes_from_a_cache_and_everybody_is_asked(measured: tuple[dict[str, Any], str]) -> None:
    asked = {(row["case"], row["target"]): row["asked_per_request"] for row in measured[0]["rows"]}
    fans = {case: asked.pop((case, "manyminds")) for case in FANS}
    assert fans == {"fanout8_1": 8, "fanout8_16": 8, "fuse50_1": 51}
    assert set(asked.values()) == {1}


@NEEDS
def test_figures_are_there_where_they_have_a_meaning(measured: tuple[dict[str, Any], str]) -> None:
    for row in measured[0]["rows"]:
        assert row["per_s"]["min"] > 0
        assert row["p50_ms"]["min"] > 0
        assert row["unit"] == ("chunk" if row["case"] in ("burst_16", "paced_64") else "request")
        assert (row["pace"] is None) == (row["case"] != "fuse50_1")
        assert (row["cpu_us"] is None) == (row["memory_mb"] is None) == (row["target"] == "direct")
        assert (row["added_p50_ms"] is None) == (row["target"] == "direct")


@NEEDS
def test_for_people_it_is_a_table(
    measured: tuple[dict[str, Any], str], capsys: pytest.CaptureFixture[str]
) -> None:
    found, _ = measured
    _show_speed({**found, "times_litellm": 50.25})
    shown = capsys.readouterr().out
    for word in (*PASSES, *FANS, "manyminds", "CPU µs"):
        assert word in shown
    assert "50.2 times the requests per second of litellm" in shown
    assert f"ledger: {found['ledger_rows']:,} rows of {found['requests']:,} requests" in shown
    assert max(map(len, shown.splitlines())) <= 100


@NEEDS
def test_a_soak_counts_requests_rows_and_memory(tmp_path: Path) -> None:
    done = gateway(tmp_path, "--soak", "0.1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["errors"] == 0, done.stderr
    assert found["requests"] == found["ledger_rows"] > 0
    assert found["memory_growth_mb"] == pytest.approx(
        found["memory_end_mb"] - found["memory_start_mb"], abs=0.011
    )
    assert "half of what it bears" in done.stderr


def command_line(pid: int) -> bytes:
    """Empty where the process has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@NEEDS
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_that_it_started(tmp_path: Path, number: int, status: int) -> None:
    environ = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [*COMMAND, "--runs", "100"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environ
    ) as process:
        assert wait_until(lambda: any(b"serve" in command_line(pid) for pid in tree(process.pid)))
        started = tree(process.pid)
        process.send_signal(number)
        assert process.wait(60) == status
    assert list(tmp_path.iterdir()) == []
    assert len(started) > 2
    assert wait_until(lambda: not any(map(command_line, started)))
