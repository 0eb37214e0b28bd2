"""Where a command writes, how it ends when it cannot, and how wide its panel is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from manyminds.cli.look import written
from manyminds.cli.panel import show
from manyminds.types import Attribution, PanelEntry, Report
from tests.changed import replace
from tests.e2e.node import borrowed, need

UNIX = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


def shell(folder: Path, line: str) -> "subprocess.CompletedProcess[str]":
    """Runs a line in which $M is manyminds, with an empty home and one expert that cannot be reached."""
    (folder / "manyminds.toml").write_text('[[expert]]\nname = "x"\nurl = "http://127.0.0.1:1/v1"\n')
    environ = os.environ | {"MANYMINDS_HOME": str(folder / "home"), "MANYMINDS_LOCAL_TIER": "none"}
    environ["M"] = f"{sys.executable} -m manyminds"
    return subprocess.run(
        ["/bin/sh", "-c", line], cwd=folder, env=environ, capture_output=True, text=True, timeout=60
    )


# --- what cannot be written or read ----------------------------------------------------------------


@UNIX
@pytest.mark.parametrize("words", ["config", "config --json", "--help", "ask --help", "doctor --json"])
def test_a_full_disk_is_one_sentence(tmp_path: Path, words: str) -> None:
    done = shell(tmp_path, f"$M {words} > /dev/full")
    assert done.returncode == 1
    assert done.stderr == "manyminds: Cannot read or write standard output: No space left on device.\n"


@UNIX
def test_an_answer_for_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    need()
    environ = f"MANYMINDS_HOME={borrowed(tmp_path)} MANYMINDS_LOCAL_TIER=starter"
    done = shell(tmp_path, f"{environ} $M ask --include smollm2-135m Hello > /dev/full")
    assert done.returncode == 1
    assert done.stderr == "manyminds: Cannot read or write standard output: No space left on device.\n"


@UNIX
def test_a_reader_that_goes_away_ends_it_in_silence(tmp_path: Path) -> None:
    assert shell(tmp_path, "$M config | true").stderr == ""


@UNIX
def test_closed_streams_are_one_sentence(tmp_path: Path) -> None:
    done = shell(tmp_path, "$M config >&-")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "standard output is closed" in done.stderr
    done = shell(tmp_path, "$M ask <&-")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no question" in done.stderr
    assert shell(tmp_path, "$M --version 2>&-").returncode == 0


def test_ctrl_c_while_it_is_loaded_leaves_no_traceback() -> None:
    lines = (
        "import signal, sys",
        "class Finder:",
        "    def find_spec(name, *_):",
        "        if name == 'manyminds.cli.serve': signal.raise_signal(signal.SIGINT)",
        "sys.meta_path.insert(0, Finder)",
        "import manyminds.cli",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")


# --- the panel -------------------------------------------------------------------------------------

DRAFT = PanelEntry("qwen2.5-coder-0.5b", "qwen", 0.6, "Canberra", 0.91, 0.2, 1.25, 0.00004, "ok")
FUSER = replace(DRAFT, weight=0.0, answer="", correct_probability=None, method="fuse")


def shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int, *panel: PanelEntry
) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    show(
        Report("id", "max", "select", panel, 1.0, 0.91, (Attribution("qwen", 0.1, 1.0),), 0.00004, 0.0),
        full=False,
    )
    return capsys.readouterr().err


def test_a_terminal_obeys_nothing_that_others_say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = replace(DRAFT, expert="e", answer="A \x1b[2J\x9b31m\u202eB\x07")
    err = shown(monkeypatch, capsys, 120, evil)
    assert all(sign not in err for sign in "\x1b\x9b\u202e\x07")
    assert " expert " in err.splitlines()[1]
    said = "a\n\tb\xa0c \u200d\U0001f469 \u4e2d"
    assert written(said) == said
    assert written("\x1b]0;x\x07\r\x9b\u2066") == " ]0;x    "


@pytest.mark.parametrize(("width", "spared"), [(40, 4), (60, 2), (100, 0)])
def test_the_panel_spares_numbers_before_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int, spared: int
) -> None:
    err = shown(monkeypatch, capsys, width, DRAFT)
    assert max(map(len, err.splitlines())) <= width
    assert all(word in err for word in ("expert", "p(right)", "0.91", "Canberra"))
    assert "qwen2.5-coder-0.5b" in "".join(line.split("  ")[0].strip() for line in err.splitlines())
    headings = [word for word in ("seconds", "cost", "weight", "impact") if word not in err]
    assert headings == ["seconds", "cost", "weight", "impact"][:spared]


def test_a_fuser_that_failed_is_not_called_an_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    err = shown(monkeypatch, capsys, 120, DRAFT, replace(FUSER, status="failed", error="it is down"))
    assert "fuser failed: it is down" in err
    assert "fused" not in err
    assert "fused: A" in shown(monkeypatch, capsys, 120, replace(FUSER, answer="A"))
