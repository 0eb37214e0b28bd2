"""A network that runs takes in another one over HTTP: it is added, probed, asked, and removed again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

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
