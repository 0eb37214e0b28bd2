"""The command, where it cannot run; and what is made of results."""

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from experiments.specialists.plots import draw
from experiments.specialists.report import show
from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
BITS = {"mean": 2.0, "low": 1.9, "high": 2.1}
SPREAD = {"median": 0.5, "min": 0.4, "max": 0.6}


def quality(arm: str, way: str, bits: float) -> dict[str, Any]:
    test = {"mean": bits, "low": bits - 0.1, "high": bits + 0.1, "by_domain": {"c": bits, "json": bits}}
    below = {} if arm == "dense-small" else {"dense-small": {"mean": 0.125, "low": 0.05, "high": 0.2}}
    return {
        "arm": arm,
        "way": way,
        "parameters": 1_000_000,
        "active_parameters": 200_000,
        "test": {**test, "below": below, "by_seed": [bits]},
    }


RESULTS: dict[str, Any] = {
    "scale": {"name": "quick"},
    "texts": {"c": {}, "json": {}, "japanese": {}},
    "quality": [quality("dense-small", "alone", 2.0), quality("domain", "router, first", 1.75)],
    "training": [
        {"arm": "domain", "models": 6, "flops": 1e12, "seen_bytes": 1e6, "cpu_s": 9.0, "longest_cpu_s": 2.0}
    ],
    "speed": [
        {
            "arm": "domain",
            "way": "router, first",
            "active_parameters": 200_000,
            "write_cpu_s_per_kb": SPREAD,
            "write_bytes_per_s": 2048.0,
            "read_cpu_s_per_kb": SPREAD,
            "read_bytes_per_s": 4096.0,
        }
    ],
    "added": [{"way": "one more", "flops": 1e11, "newcomer": BITS, "others": BITS, "others_worse_by": BITS}],
    "removed": {"identical": True, "bits": {"network": BITS}},
    "attacked": {"network": {"loss": BITS, "calibrated": None}},
    "credited": {"domain": {"c": {"c": 0.75, "json": 0.25}, "json": {"c": 0.0, "json": 1.0}}},
    "scaling": {
        "points": [{"specialists": 6, "parameters": 200_000, "bits": 1.75}],
        "controls": [{"arm": "random", "specialists": 6, "parameters": 200_000, "bits": 2.5}],
        "fit": {
            "specialists": {"exponent": -0.05, "standard_error": 0.01},
            "weights": {"exponent": -0.1, "standard_error": 0.01},
            "points": 8,
            "largest_error": 0.02,
        },
    },
}


def shown(found: dict[str, Any]) -> str:
    out = StringIO()
    show(found, Console(file=out, width=200))
    return out.getvalue()


def test_results_are_shown() -> None:
    text = shown(RESULTS)
    assert "no figure to quote" in text
    assert "0.125 [0.050, 0.200]" in text
    assert "bit for bit the same" in text
    assert "specialists^-0.050" in text
    full = json.loads(json.dumps(RESULTS)) | {"scale": {"name": "full"}}
    full["removed"]["identical"] = False
    assert "no figure to quote" not in shown(full)
    assert "NOT the same" in shown(full)


def test_pictures_are_the_same_every_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install '.[eval]'")
    here, there = (draw(RESULTS, tmp_path / name) for name in ("here", "there"))
    assert [path.read_bytes() for path in here] == [path.read_bytes() for path in there]
    assert all(path.stat().st_size < 100_000 for path in here)


def test_without_the_encoder_it_says_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs PyTorch: pip install '.[specialists]'")
    command = [sys.executable, "-m", "experiments.specialists", "--quick", "--folder", str(tmp_path)]
    env = {"PATH": "/usr/bin:/bin", "MANYMINDS_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "manyminds pull all-minilm-l6-v2" in done.stderr
    assert not done.stdout
