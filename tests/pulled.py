"""Models that were pulled on this machine, for the tests that need real ones. Imports no numpy."""

import os
from pathlib import Path

import msgspec
import pytest

from manyminds import catalog

__all__ = ["ENCODER", "HOME", "MINILM", "lend", "need", "needs_encoder", "shrunk"]

HOME = Path(os.environ.get("MANYMINDS_HOME") or "~/.manyminds").expanduser()
"""Where they are."""

ENCODER = next(model.name for model in catalog.load().values() if model.kind == "encoder")
MINILM = HOME / "models" / ENCODER


def _lacking(*names: str) -> str:
    """Says what is lacking and how to get it; "" where nothing is."""
    lacking = " ".join(name for name in names if catalog.missing(HOME, catalog.find(name)))
    return lacking and f"not in {HOME}: run `manyminds pull {lacking}`"


def need(*names: str) -> None:
    """Skips the test where one of these models has not been pulled."""
    if lacking := _lacking(*names):
        pytest.skip(lacking)


needs_encoder = pytest.mark.skipif(bool(_lacking(ENCODER)), reason=_lacking(ENCODER))


def lend(home: Path, *names: str) -> None:
    """Links the files of these models into another home. Idempotent; what has not been pulled is left out."""
    for name in names:
        for file in catalog.find(name).files:
            path, pulled = catalog.path_of(home, file), catalog.path_of(HOME, file)
            path.parent.mkdir(parents=True, exist_ok=True)
            if pulled.exists() and not path.exists():
                path.symlink_to(pulled)


def shrunk(folder: Path, tokens: int) -> Path:
    """In `folder`, the real encoder with a part of its vocabulary: a table takes seconds, not a minute.

    From 999 on they are single characters, from 1,996 on words.
    """
    need(ENCODER)
    (folder / "model.onnx").symlink_to(MINILM / "model.onnx")
    content = msgspec.json.decode((MINILM / "tokenizer.json").read_bytes())
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {piece: i for piece, i in vocabulary.items() if i < tokens}
    (folder / "tokenizer.json").write_bytes(msgspec.json.encode(content))
    return folder
