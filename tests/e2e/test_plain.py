"""A plain install does the main job: whatever only an extra brings is not there."""

import json
import os
import subprocess
import sys
import tomllib
import urllib.request
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.e2e.node import borrowed, need, served

ROOT = Path(__file__).resolve().parents[2]


def plain() -> set[str]:
    """The distributions that `pip install manyminds` brings, itself included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: set[str] = {"manyminds"}
    waiting = [Requirement(line).name for line in project["dependencies"]]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        found.add(name)
        try:
            needed = map(Requirement, requires(name) or [])
        except PackageNotFoundError:  # of another system
            continue
        waiting += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Of processes that find no module which a plain install has not."""
    there = plain()
    others = [
        name
        for name, of in packages_distributions().items()
        if not any(canonicalize_name(one) in there for one in of) and not name.startswith("_")
    ]
    assert {"cryptography", "rfc8785", "scipy", "zenoh", "lxml", "pyarrow"} <= set(others)
    assert {"numpy", "rich", "sqlalchemy"}.isdisjoint(others)
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({others!r}))\n")
    return {"PYTHONPATH": os.pathsep.join(map(str, (hidden, ROOT / "src", ROOT)))}


def test_everything_that_needs_no_extra_works_without_any(tmp_path: Path, environ: dict[str, str]) -> None:
    need()
    home = {"MANYMINDS_HOME": str(borrowed(tmp_path)), "MANYMINDS_LOCAL_TIER": "starter"}

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "manyminds", *words]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | environ | home, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    answer = json.loads(run("ask", "--json", "--include", "smollm2-135m", "--max-tokens", "8", "Say hello."))
    assert answer["answer"]
    run("keys", "create", "boss", "--admin")
    assert "smollm2-135m" in run("experts", "list")
    run("experts", "pause", "smollm2-135m")
    run("experts", "resume", "smollm2-135m")
    assert json.loads(run("ledger", "show", "--json"))
    with served(tmp_path, env=environ) as node:
        with urllib.request.urlopen(node.url.removesuffix("/v1"), timeout=10) as page:
            assert b"<title>" in page.read()
        assert node.get("/v1/admin/library")["experts"] == 2
        assert len(json.loads(run("top", "--json", "--url", node.url))["experts"]) == 2


def test_what_needs_an_extra_names_it(tmp_path: Path, environ: dict[str, str]) -> None:
    home = {"MANYMINDS_HOME": str(tmp_path / "home"), "MANYMINDS_LOCAL_TIER": "none"}
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "questions.parquet").touch()
    for words, extra in (
        (("join",), "net"),
        (("withdraw",), "net"),
        (("eval", str(tmp_path / "set")), "eval"),
    ):
        command = [sys.executable, "-m", "manyminds", *words]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | environ | home, capture_output=True)
        assert done.returncode == 1
        told = done.stderr.decode()
        assert "Traceback" not in told
        assert f"manyminds[{extra}]" in told or "manyminds[all]" in told, told
