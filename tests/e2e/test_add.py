"""A node that runs, and a second real model that is added to it and removed again, while it is asked."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from manyminds import catalog
from tests.e2e.node import Served, need, served, wait_until
from tests.e2e.test_reload import ask, models
from tests.e2e.test_workers import said
from tests.pulled import HOME

QWEN = "qwen2.5-coder-0.5b"


def experts(folder: Path, *words: str) -> str:
    """What `manyminds experts` says on standard error, for the node in that folder."""
    environ = os.environ | {"MANYMINDS_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "manyminds", "experts", *words]
    ended = subprocess.run(command, capture_output=True, env=environ, cwd=folder, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


def panel(node: Served, model: str) -> tuple[int, set[str]]:
    """Status, and who was asked."""
    status, reply = ask(node, model, max_tokens=8, manyminds={"cache": "off"})
    return status, {entry["expert"] for entry in reply.get("manyminds", {}).get("panel", [])}


def test_a_second_model_is_added_asked_and_removed_while_the_node_runs(tmp_path: Path) -> None:
    need()
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    weights = catalog.path_of(HOME, catalog.find(QWEN).files[0])
    (two / "manyminds.toml").write_text(
        f'[local]\ntier = "none"\n[[expert]]\nname = "coder"\nkind = "local"\npath = "{weights}"\n'
    )
    (one / "manyminds.toml").write_text("[local]\nmax_memory_gb = 0.5\n")
    with (
        served(two, tier="none") as second,
        served(one, untaught=True) as node,
        ThreadPoolExecutor(2) as pool,
    ):
        assert panel(node, "max") == (200, {"smollm2-135m"})
        going = threading.Event()
        going.set()

        def asks(model: str) -> list[tuple[int, set[str]]]:
            found = []
            while going.is_set():
                found.append(panel(node, model))
            return found

        asking = [pool.submit(asks, model) for model in ("smollm2-135m", "max")]
        try:
            told = experts(
                one, "add", second.url, "--model", "coder", "--name", "second", "--accuracy", "0.9"
            )
            assert "second was added: coder at http://127.0.0.1:" in told
            assert wait_until(lambda: "anew: second, smollm2-135m can be" in said(one))
            cards: list[dict[str, Any]] = node.get("/v1/experts")["data"]
            assert {card["name"]: card["model"] for card in cards}["second"] == "coder"
            assert panel(node, "second") == (200, {"second"})
            status, asked = panel(node, "max")
            assert (status, "second" in asked) == (200, True)
            experts(one, "remove", "second")
            assert wait_until(lambda: "anew: smollm2-135m can be asked" in said(one))
            assert "second" not in models(node)
            assert ask(node, "second")[0] == 404
            assert panel(node, "max") == (200, {"smollm2-135m"})
        finally:
            going.clear()
        named, all_ways = (one.result() for one in asking)
        assert {status for status, _ in (*named, *all_ways)} == {200}
        assert any("second" in asked for _, asked in all_ways)
    assert "Traceback" not in said(one) + said(two)
