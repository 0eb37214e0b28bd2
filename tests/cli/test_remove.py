"""`experts remove` of who was there first: what was learnt is made anew, or is used by nobody."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from manyminds.artefact import load
from manyminds.cli.newcomers import identities
from manyminds.config import load as configured
from manyminds.learn import bank
from manyminds.ledger import Ledger
from manyminds.node import learnt as learnt_of
from manyminds.node.learnt import state_of
from tests.cli.test_eval import call
from tests.cli.test_probe import ENOUGH, home, learnt, panel, probe
from tests.learn.quick import weigh_quickly

__all__ = ["home", "learnt"]


def gone(home: Path) -> Any:
    with closing(Ledger(configured(None, os.environ, {}).ledger.url)) as ledger:
        return ledger.gone()


def shown() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(call("ledger", "withdrawals", "--json").stdout)
    return found


def test_who_was_learnt_with_leaves_no_trace(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weigh_quickly(monkeypatch)
    assert "b" in load(home / "artefact.npz").experts
    done = call("experts", "remove", "b", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["relearnt"], said["removed"][0]["where"]) == (True, "file")
    assert said["artefact_before"] != said["artefact_after"]
    assert load(home / "artefact.npz").experts == ("a", "c")
    assert bank.load(home / "artefact.npz").examples.experts == ("a", "c")
    assert '"b"' not in json.dumps(dict(bank.load(home / "artefact.npz").answered))
    assert panel() <= {"a", "c"}
    withdrawn, relearnt = shown()
    assert (withdrawn["event"], relearnt["event"]) == ("withdrawn", "relearnt")
    assert (relearnt["artefact_after"], relearnt["state"]) == (said["artefact_after"], state_of(home))
    assert "b" in call("ledger", "withdrawals").stdout
    assert call("verify", str(_kept(home, [withdrawn]))).exit_code == 0  # nobody signed it
    again = json.loads(call("experts", "relearn", "--json").stdout)
    assert (again["relearnt"], len(shown())) == (False, 2)


def _kept(home: Path, content: Any) -> Path:
    file = home / "proof.json"
    file.write_text(json.dumps(content))
    return file


def test_a_newcomer_leaves_no_trace(home: Path) -> None:
    before = state_of(home)
    probe("strong", *ENOUGH)
    probe("weak", *ENOUGH)
    assert state_of(home) != before
    assert "strong" in panel()
    assert call("experts", "remove", "strong", "weak").exit_code == 0
    assert state_of(home) == before
    assert {"strong", "weak"}.isdisjoint(panel())
    assert call("experts", "remove", "--undo", "strong").exit_code == 0
    assert "strong" not in panel()  # as new: nothing is known of it
    assert not list((home / "newcomers").glob("strong*"))


def test_a_source_leaves_with_all_its_experts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weigh_quickly(monkeypatch)
    toml = Path("manyminds.toml")
    toml.write_text(toml.read_text().replace('name = "b"', 'name = "b"\nsource = "them"'))
    toml.write_text(toml.read_text().replace('name = "other"', 'name = "other"\nsource = "them"'))
    assert "No expert is of the source" in call("experts", "remove", "--source", "nobody").stderr
    found = json.loads(call("experts", "remove", "--source", "them", "--json").stdout)
    assert sorted(row["name"] for row in found["removed"]) == ["b", "other"]
    assert gone(home).sources == {"them"}
    assert load(home / "artefact.npz").experts == ("a", "c")
    assert call("experts", "remove", "--undo", "--source", "them").exit_code == 0
    assert gone(home).experts == gone(home).sources == set()
    assert "No source" in call("experts", "remove", "--undo", "--source", "them").stderr


def test_without_scipy_nobody_goes_by_what_was_learnt(home: Path) -> None:
    before = (home / "artefact.npz").read_bytes()
    code = "import sys; sys.modules['scipy'] = None; from manyminds.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "experts", "remove", "b"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "needs scipy" in done.stderr
    assert "`manyminds experts relearn`" in done.stderr
    assert (home / "artefact.npz").read_bytes() == before
    assert learnt_of(home, gone(home))[0] is None
    assert "b" not in panel()
    assert "experts relearn" in call("doctor").output


def test_stopped_halfway_it_is_out_and_goes_on_later(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (home / "artefact.npz").read_bytes()
    process = subprocess.Popen(
        [sys.executable, "-m", "manyminds", "experts", "remove", "b"], stderr=subprocess.PIPE, text=True
    )
    while not (home / ".relearn.lock").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert "Stopped. They are out" in said
    assert (home / "artefact.npz").read_bytes() == before
    assert learnt_of(home, gone(home))[0] is None
    weigh_quickly(monkeypatch)
    assert json.loads(call("experts", "relearn", "--json").stdout)["relearnt"] is True
    assert load(home / "artefact.npz").experts == ("a", "c")
    assert learnt_of(home, gone(home))[0] is not None


def test_who_is_withdrawn_is_not_learnt_from_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answers are in the recorded set still, which is its owner's to delete."""
    weigh_quickly(monkeypatch)
    call("experts", "remove", "b", "--json")
    toy = configured(None, os.environ, {}).experts[0].path
    without = [word for name in ("weak", "strong", "other") for word in ("--exclude", name)]
    done = call("train", toy, *without)
    assert done.exit_code == 0, done.output
    assert "b: withdrawn" in done.stderr
    assert load(home / "artefact.npz").experts == ("a", "c")
    assert "b" not in identities(configured(None, os.environ, {})) or panel() <= {"a", "c"}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "Say who"),
        (("a", "--source", "s"), "Say who"),
        (("nobody",), "No expert is named"),
        (("--undo", "a"), "was not withdrawn"),
    ],
)
def test_what_cannot_be_removed_changes_nothing(home: Path, words: tuple[str, ...], why: str) -> None:
    done = call("experts", "remove", *words)
    assert done.exit_code in (1, 2)
    assert why in done.stderr
    assert shown() == []


def test_only_a_node_withdraws(home: Path) -> None:
    pytest.importorskip("cryptography", reason="needs the extra net")
    assert "never was among others" in call("withdraw").stderr
    from manyminds.network.identity import read_or_make

    node = read_or_make(home).id
    assert "No expert here is of the source" in call("withdraw", "--source", "nobody").stderr
    assert "nothing to undo" in call("withdraw", "--undo").stderr
    said = json.loads(call("withdraw", "--json").stdout)
    assert (said["id"], said["running"], said["whole"]) == (node, False, True)
    assert json.loads(call("withdraw", "--source", "a", "--json").stdout)["sources"] == ["a"]
    undone = json.loads(call("withdraw", "--undo", "--json").stdout)
    assert (undone["whole"], undone["sources"]) == (False, ["a"])
    assert [row["event"] for row in shown()] == ["withdrawn", "withdrawn", "returned"]
    checked = call("verify", str(_kept(home, shown())), "--json")
    assert (checked.exit_code, len(json.loads(checked.stdout))) == (0, 3)
