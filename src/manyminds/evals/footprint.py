"""How heavy a node is: packages and megabytes installed, seconds to ready, resident memory.

Measures real processes of this installation; nothing is estimated. Memory is read from /proc, so Linux only.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from manyminds.errors import ManymindsError

__all__ = ["installed", "measure", "started"]

_GIVE_UP_S = 60.0


def measure(runs: int) -> dict[str, Any]:
    """All figures: the installation, then `runs` starts without and with the starter tier."""
    return {
        "install": installed("manyminds"),
        "start_without_models": started("none", runs),
        "start_with_starter_tier": started("starter", runs),
        "runs": runs,
    }


def installed(name: str) -> dict[str, Any]:
    """The package with everything it needs without extras: how many packages, and MB (1e6 bytes) on disk.

    Counts the files that the installer recorded, byte code too; models are no part of it.
    """
    found: dict[str, Distribution] = {}
    waiting = [name]
    while waiting:
        key = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if key in found:
            continue
        try:
            found[key] = distribution(key)
        except PackageNotFoundError:  # wanted on another system only
            continue
        requires = [r for r in found[key].requires or [] if "extra ==" not in r]
        waiting += [re.split(r"[\s;<>=!~\[(]", r, maxsplit=1)[0] for r in requires]
    sizes = {key: sum(map(_size, _files(dist))) for key, dist in found.items()}
    return {"packages": len(found), "mb": round(sum(sizes.values()) / 1e6, 1), "names": sorted(found)}


def _files(dist: Distribution) -> list[Path]:
    return [Path(str(dist.locate_file(file))) for file in dist.files or []]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def started(tier: str, runs: int) -> dict[str, Any]:
    """Starts a node `runs` times: seconds until /health/ready says 200, and MB resident then.

    Raises: ManymindsError when a node does not get ready.
    """
    seconds, memory, children = [], [], []
    for _ in range(runs):
        began = time.perf_counter()
        command = [sys.executable, "-m", "manyminds", "serve", "--port", "0", "--tier", tier, "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as node:  # noqa: S603
            try:
                url = _url(node).removesuffix("/v1")
                _wait(f"{url}/health/ready", began)
                seconds.append(time.perf_counter() - began)
                memory.append(_resident_mb(node.pid))
                children.append(sum(map(_resident_mb, _children(node.pid))))
            finally:
                node.terminate()
    return {"ready_s": _spread(seconds), "node_mb": _spread(memory), "models_mb": _spread(children)}


def _url(node: "subprocess.Popen[bytes]") -> str:
    """Reads the JSON that `serve --json` prints once it listens."""
    assert node.stdout is not None
    text = b""
    for line in node.stdout:
        text += line
        if line.rstrip() == b"}":
            return str(json.loads(text)["url"])
    raise ManymindsError("the node ended before it listened: run `manyminds serve` to see why")


def _wait(url: str, began: float) -> None:
    while time.perf_counter() - began < _GIVE_UP_S:
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310  # a loopback address of our own
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.005)
    raise ManymindsError(f"the node was not ready after {_GIVE_UP_S:g} s")


def _resident_mb(pid: int) -> float:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _spread(values: list[float]) -> dict[str, float]:
    low, middle, high = min(values), statistics.median(values), max(values)
    return {"median": round(middle, 3), "min": round(low, 3), "max": round(high, 3)}
