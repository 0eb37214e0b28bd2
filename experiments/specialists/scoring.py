"""How likely each byte of held-out texts is by each model. Knows no arm and no measure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.specialists.models import Transformer

if TYPE_CHECKING:
    from experiments.specialists.corpora import Document

__all__ = ["Excerpt", "Floats", "distributions", "excerpts", "likelihoods"]

_ROWS: Final = 64  # windows that are read at once

Floats: TypeAlias = NDArray[np.float64]


class Excerpt(NamedTuple):
    """A piece of a held-out document, from the beginning of a line on."""

    domain: str
    name: str
    text: bytes


def excerpts(
    documents: Mapping[str, Sequence["Document"]], count: int, size: int, seed: int
) -> tuple[Excerpt, ...]:
    """One of exactly `size` bytes from each of at most `count` documents of each domain, in order of these.

    Documents that are shorter are left out.
    """
    found = []
    for domain in sorted(documents):
        draw = np.random.default_rng([seed, *domain.encode()])
        long = [document for document in documents[domain] if len(document.text) >= size]
        for i in sorted(draw.permutation(len(long))[:count].tolist()):
            text = long[i].text
            at = int(draw.integers(len(text) - size + 1))
            start = text.rfind(b"\n", 0, at) + 1
            found.append(Excerpt(domain, long[i].name, text[start : start + size]))
    return tuple(found)


def likelihoods(
    model: Transformer | None,
    texts: Sequence[bytes],
    source: int | None = None,
    kept: Path | None = None,
) -> Floats:
    """(n, length) nats of each byte of texts of one length; `source` as of `Transformer.forward`.

    A text is read behind a 0, in windows of the model's context that overlap by half: each byte is foretold
    from at least half a context, but for the first. Where `kept` names a file, it is read, or written.
    """
    if kept is not None and kept.is_file():
        with np.load(kept) as held:
            found: Floats = held["logs"]
            return found
    if model is None:
        raise FileNotFoundError(f"nothing was read into {kept} yet")
    context = model.size.context
    length = len(texts[0]) if texts else 0
    tokens = torch.tensor(np.array([list(b"\0" + text) for text in texts], np.int64).reshape(len(texts), -1))
    logs = np.empty((len(texts), length))
    for start, new in _spans(length, context):
        for row in range(0, len(texts), _ROWS):
            window = tokens[row : row + _ROWS, start : start + context + 1]
            told = torch.log_softmax(model(window[:, :-1], source).double(), dim=-1)
            seen = told.gather(-1, window[:, 1:, None])[..., 0]
            logs[row : row + _ROWS, start + new : start + window.shape[1] - 1] = seen[:, new:].numpy()
    if kept is not None:
        half = kept.with_suffix(".half.npz")
        np.savez(half, logs=logs)
        half.replace(kept)
    return logs


def distributions(
    model: Transformer, texts: Sequence[bytes], at: Sequence[int], source: int | None = None
) -> Floats:
    """(n, len(at), 256) log-probabilities of the bytes at these places, each behind what fits before it."""
    context = model.size.context
    found = np.empty((len(texts), len(at), 256))
    for i, place in enumerate(at):
        window = [list((b"\0" + text)[max(0, place + 1 - context) : place + 1]) for text in texts]
        logits = model(torch.tensor(window), source)[:, -1].double()
        found[:, i] = torch.log_softmax(logits, dim=-1).numpy()
    return found


def _spans(length: int, context: int) -> list[tuple[int, int]]:
    """Where windows start, and from which of their positions on they are believed."""
    found, start = [(0, 0)], 0
    while start + context < length:
        step = min(context // 2, length - context - start)
        start += step
        found.append((start, context - step))
    return found
