"""A network that runs takes in another one over HTTP: it is added, probed, asked, and removed again."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from manyminds.ledger import Ledger
from manyminds.types import Outcome, Query, Report
from tests.cli.test_probe import FIRST, QUESTION, configure, learnt
from tests.e2e.node import Served, served, wait_until
from tests.e2e.test_reload import ask
from tests.e2e.test_workers import said

__all__ = ["learnt"]


def experts(folder: Path, *words: str) -> Any:
    environ = os.environ | {"MANYMINDS_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "manyminds", "experts", *words, "--json"]
    ended = subprocess.run(command, capture_output=True, env=environ, cwd=folder, text=True)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def panel(node: Served) -> set[str]:
    messages = [{"role": "user", "content": QUESTION}]
    status, reply = ask(node, "max", messages=messages, manyminds={"cache": "off"})
    assert status == 200
    return {entry["expert"] for entry in reply["manyminds"]["panel"]}


def test_a_network_takes_in_another_one_while_it_runs(tmp_path: Path, learnt: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, names in ((one, FIRST), (two, ("strong",))):
        folder.mkdir()
        configure(folder, learnt / "toy", *names)
    shutil.copytree(learnt / "home", one / "home")
    with served(two, tier="none") as other, served(one, tier="none") as node:
        assert panel(node) <= set(FIRST)
        found = experts(one, "add", other.url, "--model", "strong", "--name", "newcomer")
        (probed,) = found["probed"]
        assert probed["sorts"][0]["what"] in ("lead", "join")
        assert probed["probes"] + probed["more"] == 128
        assert wait_until(lambda: "newcomer" in panel(node))
        assert ask(node, "max", messages=[{"role": "user", "content": QUESTION}])[1]["choices"]
        experts(one, "remove", "newcomer")
        assert not (one / "home" / "grown.npz").exists()
        assert wait_until(lambda: panel(node) <= set(FIRST))
    assert "Traceback" not in said(one) + said(two)


def test_one_that_became_worse_is_asked_anew_and_no_longer_relied_on(tmp_path: Path, learnt: Path) -> None:
    """The upstream silently answers with another model; callers' grades tell, and nobody does anything."""
    configure(tmp_path, learnt / "toy", *FIRST)
    shutil.copytree(learnt / "home", tmp_path / "home")
    toml = tmp_path / "manyminds.toml"
    toml.write_text(toml.read_text().replace('name = "a"', 'name = "a"\nmodel = "weak"', 1))
    with closing(Ledger(f"sqlite:///{tmp_path / 'home' / 'ledger.db'}")) as ledger:
        for i, correct in enumerate((1.0, 0.0)):
            report = Report(f"r{i}", "pass", "pass", (), None, None, (), 0.0, 0.0)
            told = [Outcome(f"r{i}", "a", "ok", None, 0.0, 0, correct=correct)] * 60
            ledger.record(report, Query(()), (), "", "ok", 0.0, told)
        ledger.flush()
    with served(tmp_path, tier="none", env={"MANYMINDS_POLICY_REPROBE_USD": "100"}) as node:
        assert wait_until(lambda: "a was asked anew." in said(tmp_path), 90.0), said(tmp_path)
        assert (tmp_path / "home" / "grown.npz").exists()
        assert wait_until(lambda: "a" not in panel(node))
        assert ask(node, "a", messages=[{"role": "user", "content": QUESTION}])[0] == 200
    assert "Traceback" not in said(tmp_path)
