"""`make demo-network`: the script runs as it is, shows what it promises, and leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from manyminds.errors import ManymindsError
from manyminds.evals.fleet import Fleet
from tests.e2e.node import wait_until
from tests.pulled import need

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
    pytest.mark.timeout(300),  # five nodes, where others want the cores, too
]

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def demo(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """The script while it runs; all that it starts inherits where temporary files go, by which we know it."""
    need("qwen2.5-coder-0.5b")
    process = subprocess.Popen(
        [sys.executable, "-u", str(ROOT / "examples/network.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"TMPDIR": str(folder)},
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)
        for pid in running(folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def running(folder: Path) -> set[int]:
    """Processes of the demo that is run with this folder."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"TMPDIR={folder}".encode() in path.read_bytes().split(b"\0"):
                found.add(int(path.parent.name))
    return found


def test_the_demo_shows_an_answer_a_loss_and_who_owes_what(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        said, _ = process.communicate(timeout=240)
        assert process.returncode == 0, said
        assert not running(tmp_path)
    assert list(tmp_path.iterdir()) == []
    sections = re.split(r"^== ", said, flags=re.MULTILINE)
    _, started, agreed, asked, by_asker, by_hub, checked = sections
    assert started.startswith("Starting five nodes")
    assert set(re.findall(r"the asker sees (\w+)", agreed)) == {"hub", "library", "slowpoke"}
    assert "slowpoke is killed in the midst" in asked
    assert re.search(r"^  'B.* after \d+\.\d s$", asked, re.MULTILINE), asked
    panel = dict(re.findall(r"^  (\w+) +(ok|cut|failed|cancelled) +\$0", asked, re.MULTILINE))
    assert panel.pop("slowpoke") != "ok"
    assert panel == {"library": "ok", "hub": "ok"}
    assert len(re.findall(r" asked .* both ", by_asker)) == 2
    assert re.search(r" asker +answered .* 0\.0000019\d* +both ", by_hub), by_hub
    assert re.search(r"^asker .* \+0\.0000019\d* *$", by_hub, re.MULTILINE), by_hub
    assert re.findall(r"^(yes|no) ", checked, re.MULTILINE) == ["yes", "yes"]


def test_ctrl_c_leaves_nothing_running(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        assert process.stdout is not None
        assert any("Starting five nodes" in said for said in process.stdout)
        assert wait_until(lambda: len(running(tmp_path)) > 3)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert wait_until(lambda: not running(tmp_path)), said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_does_not_start_takes_along_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(ManymindsError, match="bad did not start") as failed, Fleet() as fleet:
        fleet.start({"bad": "nonsense = 1", "good": ""})
    assert "nonsense" in str(failed.value)
    assert not running(tmp_path)
