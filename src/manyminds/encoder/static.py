"""The fast encoder: one vector per token, distilled from the sentence encoder, and their mean.

No model runs, so a question takes a fraction of a millisecond; word order and context are lost, and with
them some accuracy, which `manyminds bench router` prints. Its vectors live in the sentence encoder's own
space. Source of the idea: Model2Vec (MinishLab 2024); the table here is mapped by ridge regression instead.
"""

import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from manyminds.encoder.primer import make_questions
from manyminds.encoder.wordpiece import WordPiece
from manyminds.errors import CatalogError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from manyminds.encoder.minilm import Encoder
    from manyminds.types import Vectors

__all__ = ["StaticEncoder", "distil"]

_VERSION = 1
_RIDGE = 0.03  # of the features' mean variance; chosen on held-out questions of other tasks
_REPAIR = "delete it and distil it again"


class StaticEncoder:
    """A table of token vectors; `encode` is an `Embed`. Thread-safe, about 25 MB.

    A text's vector is the mean over its distinct tokens, normalised, and does not depend on other texts.
    """

    def __init__(self, folder: Path, table: Path, *, max_tokens: int = 256) -> None:
        """Loads what `distil` made at `table` of the model in `folder`.

        Raises: CatalogError when a file is missing or broken, or the table is of another version or model.
        """
        self._pieces = WordPiece(folder / "tokenizer.json", max_tokens=max_tokens)
        try:
            digest = _digest(folder)
        except OSError as error:
            raise CatalogError(f"the encoder's model in {folder} cannot be read: {error}") from error
        try:
            with table.open("rb") as file, np.load(file, allow_pickle=False) as held:
                version = int(held["version"])
                if version != _VERSION:
                    raise CatalogError(
                        f"the fast encoder's table {table} has version {version}, not {_VERSION}: {_REPAIR}"
                    )
                if str(held["source"]) != digest:
                    raise CatalogError(
                        f"the fast encoder's table {table} was distilled from another model than the one "
                        f"in {folder}: {_REPAIR}"
                    )
                self._rows = held["rows"]
        except FileNotFoundError as error:
            raise CatalogError(f"the fast encoder's table {table} is missing: distil it first") from error
        except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise CatalogError(
                f"the fast encoder's table {table} cannot be used ({error}): {_REPAIR}"
            ) from error
        if self._rows.dtype != np.float16 or self._rows.ndim != 2 or len(self._rows) != self._pieces.size:
            raise CatalogError(f"the fast encoder's table {table} does not fit its tokenizer: {_REPAIR}")

    def encode(self, texts: Sequence[str]) -> "Vectors":
        """Texts to unit vectors: (n,) -> (n, d) float32. Only the first tokens of a text count."""
        out: Vectors = np.zeros((len(texts), self._rows.shape[1]), np.float32)
        for i, text in enumerate(texts):
            out[i] = self._rows[sorted(set(self._pieces(text)))].mean(axis=0, dtype=np.float32)
            out[i] /= np.sqrt(out[i] @ out[i])
        return out


def distil(
    encoder: "Encoder",
    folder: Path,
    table: Path,
    texts: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
    *,
    made: int = 8_000,
) -> None:
    """Writes the table of `encoder`, which was loaded from `folder`; takes a minute on one core.

    Every token stands for itself twice, as the encoder's vector of that token alone and as its entry in the
    word table. One ridge regression maps both, averaged over a text, to the encoder's vector of the text:
    so few weights that what is learnt on some questions holds for others.

    Args:
        encoder: read only; its cache is not used.
        folder: the model's files.
        table: the file to write; replaced at once or not at all.
        texts: questions like those to come, besides made-up ones; more alike, more accurate.
        progress: told how many of how many steps are done.
        made: how many questions to make up.

    Raises: CatalogError when the files cannot be read; OSError when the table cannot be written.
    """
    pieces = WordPiece(folder / "tokenizer.json")
    asked = [*texts, *make_questions(_words(pieces), made)]
    total = pieces.size + len(asked)
    features = np.empty((pieces.size, 2, encoder.dimension), np.float32)
    for i in range(pieces.size):
        features[i, 0] = encoder.pool([pieces.first, i, pieces.last])
        if progress and i % 500 == 0:
            progress(i, total)
    features[:, 1] = encoder.word_vectors()[: pieces.size]
    features /= features.std(axis=(0, 2), keepdims=True)
    flat = features.reshape(pieces.size, -1)
    x = np.empty((len(asked), flat.shape[1] + 1), np.float64)
    y = np.empty((len(asked), encoder.dimension), np.float64)
    for i, text in enumerate(asked):
        ids = pieces(text)
        x[i, :-1] = flat[sorted(set(ids))].mean(axis=0)
        y[i] = encoder.pool(ids)
        if progress and i % 100 == 0:
            progress(pieces.size + i, total)
    x[:, -1] = 1.0
    weights = _ridge(x, y)
    rows = flat @ weights[:-1] + weights[-1]  # the mean of shifted rows is the shifted mean
    scale = np.abs(rows).max()  # only directions count; float16 is finest near 1
    _save(table, rows=(rows / scale).astype(np.float16), version=_VERSION, source=_digest(folder))
    if progress:
        progress(total, total)


def _ridge(x: "NDArray[np.float64]", y: "NDArray[np.float64]") -> "NDArray[np.floating[Any]]":
    """Least squares of y on x, shrunk; the last column of x, which is all ones, is left free."""
    penalty = np.full(x.shape[1], _RIDGE * len(x) * x[:, :-1].var(axis=0).mean())
    penalty[-1] = 0.0
    return np.linalg.solve(x.T @ x + np.diag(penalty), x.T @ y)


def _words(pieces: WordPiece) -> list[str]:
    """The tokenizer's plain English words, the commoner first."""
    return [piece for piece in pieces.vocabulary if len(piece) > 2 and piece.isascii() and piece.isalpha()]


def _digest(folder: Path) -> str:
    both = sha256()
    for name in ("model.onnx", "tokenizer.json"):
        both.update(sha256((folder / name).read_bytes()).digest())
    return both.hexdigest()


def _save(path: Path, **values: Any) -> None:
    """Writes a plain `.npz` in one step: a reader finds the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, **values)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
