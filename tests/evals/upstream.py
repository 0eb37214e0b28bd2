"""Tiny files of the shape that the repositories of the public sets have, and sets that pin them."""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manyminds.evals.datasets import Dataset, Upstream

__all__ = ["BOARD", "COMMIT", "archive", "board", "pinned", "spread", "url_path"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BOARD = "data/leaderboards.json"


def board(**models: Mapping[str, bool]) -> bytes:
    """A leaderboard file: which issue each model resolved."""
    results = [
        {
            "name": name,
            "date": "2025-08-02",
            "resolved": 100.0 * sum(issues.values()) / len(issues),
            "os_model": True,
            "tags": ["Model: x", "Org: Maker"],
            "per_instance_details": {
                issue: {"resolved": done, "cost": 0.3, "api_calls": 2} for issue, done in issues.items()
            },
        }
        for name, issues in models.items()
    ]
    boards = [{"name": "Lite", "results": [{"name": 7}]}, {"name": "bash-only", "results": results}]
    return json.dumps({"leaderboards": boards}).encode()


def pinned(name: str, files: Mapping[str, bytes], **more: Any) -> Dataset:
    """A set of that name whose files are these."""
    upstream = tuple(
        Upstream(path, COMMIT, len(content), hashlib.sha256(content).hexdigest(), more.get("model", ""))
        for path, content in files.items()
    )
    counts = {"questions": more.get("questions", 2), "models": more.get("models", 1)}
    return Dataset(name, "a toy", "owner/name", "Apache-2.0", "made up", files=upstream, **counts)


def url_path(dataset: Dataset, path: str) -> str:
    """As the server is asked for it, without the first slash."""
    return f"{dataset.repository}/{COMMIT}/{path}"


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as writer:
        for name, content in members.items():
            writer.writestr(name, content)
    return file.getvalue()


def spread(folder: Path, files: Mapping[str, bytes]) -> dict[str, Path]:
    """The files as downloads lie: any name, known by their path upstream."""
    paths = {}
    for number, (where, content) in enumerate(files.items()):
        paths[where] = folder / f"download-{number}"
        paths[where].write_bytes(content)
    return paths
