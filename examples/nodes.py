"""What the examples share: nodes in a temporary folder that end with the script, and commands in their homes.

Each cell of an example could as well be run against a node of your own: `manyminds serve` starts one.
"""

import atexit
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from manyminds import catalog
from manyminds.config import home_of
from manyminds.evals.fleet import Fleet

__all__ = ["STARTER", "fleet", "lend", "manyminds", "pulled", "starter"]

STARTER = [model.name for model in catalog.tier("starter")]


def fleet() -> Fleet:
    """Starts nodes, and ends them when the script ends, or the notebook's kernel."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(Fleet())


def starter() -> str:
    """The URL of a node that runs as `manyminds serve` does where nothing is configured."""
    own = fleet()
    lend(own.home("own"), *STARTER)
    (node,) = own.start({"own": '[local]\ntier = "starter"\n'})
    return node.url


def lend(home: Path, *names: str) -> None:
    """Links models that were pulled on this machine into another home."""
    for name in names:
        for file, path in pulled(name).items():
            link = catalog.path_of(home, file)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)


def pulled(name: str) -> dict[catalog.File, Path]:
    """The files of a model, and where they are; ends the script where they are not."""
    files = {file: catalog.path_of(home_of(os.environ), file) for file in catalog.find(name).files}
    if not all(path.exists() for path in files.values()):
        sys.exit(f"{name} is not on this machine: run `manyminds pull {name}`.")
    return files


def manyminds(home: Path, *words: str, shown: bool = True) -> str:
    """What a command prints to whoever types it in that home; shows both."""
    environ: dict[str, Any] = {**os.environ, "MANYMINDS_HOME": str(home), "COLUMNS": "160"}
    command = [sys.executable, "-m", "manyminds", *words]
    if shown:
        print(f"$ manyminds {' '.join(words)}", flush=True)
    ended = subprocess.run(command, stdout=subprocess.PIPE, env=environ, cwd=home, text=True)  # noqa: S603
    if ended.returncode:
        sys.exit(ended.returncode)
    if shown:
        print(ended.stdout, flush=True)
    return ended.stdout
