"""A node as a real process with real models, and what the tests need to know of it."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manyminds import catalog
from tests import pulled


def need(tier: str = "starter") -> None:
    """Skips the test where the tier has not been pulled."""
    pulled.need(*(model.name for model in catalog.tier(tier)))


def borrowed(folder: Path, tier: str = "starter", *, untaught: bool = False) -> Path:
    """A home of its own in `folder`, with links to the files of a tier. Idempotent.

    If it is `untaught`, all that its node has learnt is of a stranger: it goes by prices and priors, so that
    whom it asks does not change with what is shipped.
    """
    if untaught:  # imported here: threads of numpy would take numbers of processes in tests.container
        from manyminds.artefact import save
        from manyminds.node import ARTEFACT
        from tests.learn.worlds import hand_made

        save(hand_made({"stranger": 0.5}), folder / "home" / ARTEFACT)
    pulled.lend(folder / "home", *(model.name for model in catalog.tier(tier)))
    return folder / "home"


@dataclass
class Served:
    """A running node."""

    url: str
    pid: int
    process: "subprocess.Popen[bytes]"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url.removesuffix("/v1") + path, timeout=10) as response:
            return json.load(response)

    def children(self) -> dict[str, int]:
        """Process ids of the local models, by the name that each child was given."""
        found = {}
        for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            for name in ("smollm2-135m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"):
                if named(int(child)) == name[:15]:
                    found[name] = int(child)
        return found


def named(pid: int) -> str:
    """What a process calls itself; "" of one that is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until(condition: Any, budget_s: float = 30.0) -> bool:
    """Polls until true, or until the budget is gone."""
    until = time.monotonic() + budget_s
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


@contextmanager
def served(
    folder: Path,
    *flags: str,
    env: dict[str, str] | None = None,
    tier: str = "starter",
    untaught: bool = False,
) -> Iterator[Served]:
    """`manyminds serve` on a free port, its home in `folder` as `borrowed`, until the block ends."""
    home = {"MANYMINDS_HOME": str(borrowed(folder, tier, untaught=untaught))}
    environ = os.environ | home | {"MANYMINDS_POLICY_EXPLORE_RATE": "0"} | (env or {})
    command = [sys.executable, "-m", "manyminds", "serve", "--port", "0", "--json", *flags]
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environ, cwd=folder)
    assert process.stdout is not None
    try:
        text = b""
        for line in process.stdout:
            text += line
            if line.rstrip() == b"}":
                break
        assert text, (folder / "serve.log").read_text()
        fields = json.loads(text)
        node = Served(fields["url"], fields["pid"], process)
        assert wait_until(lambda: _ready(node)), (folder / "serve.log").read_text()
        yield node
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)
        process.stdout.close()


def _ready(node: Served) -> bool:
    try:
        return bool(node.get("/health/ready")["status"] == "ready")
    except (urllib.error.URLError, OSError):
        return False
