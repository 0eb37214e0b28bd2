"""Texts to unit vectors, with all-MiniLM-L6-v2 as an ONNX file and its own tokenizer.

Knows no query, no expert and no download: a folder that lacks its files is a `CatalogError`.
"""

import os
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from manyminds.encoder import fused
from manyminds.encoder.wordpiece import WordPiece
from manyminds.errors import CatalogError

if TYPE_CHECKING:
    from manyminds.types import Vectors

__all__ = ["Encoder"]

_REPAIR = "run `manyminds pull` to fetch it again"


class Encoder:
    """A sentence encoder; `encode` is an `Embed`. Thread-safe; one thread of computation per call.

    The same text gives the same bits, alone or among others: every text is a run of its own.
    """

    def __init__(self, folder: Path, *, max_tokens: int = 256, cache_size: int = 4096) -> None:
        """Loads `model.onnx` and `tokenizer.json` of `folder`.

        Raises: CatalogError when one is missing or is not what it should be.
        """
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # from 1.29 on it reports to its makers, else
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as native

        self._pieces = WordPiece(folder / "tokenizer.json", max_tokens=max_tokens)
        self._cache: OrderedDict[bytes, Vectors] = OrderedDict()
        self._cache_size = cache_size
        self._lock = Lock()
        path = folder / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # the arena keeps what the longest text ever took
        options.log_severity_level = 4
        # The graph is fused already; more would turn additions into a slow SkipLayerNormalization again.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        own = (
            kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, Exception)
        )
        plain = (ValueError, OSError, LookupError, ArithmeticError)
        kinds: tuple[type[Exception], ...] = (*plain, *own)  # no base in common
        try:
            if not path.is_file():
                raise CatalogError(f"the encoder's model {path} is missing: {_REPAIR}")
            graph, x, expected = fused.probe()
            tried = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            signed = bool(np.allclose(tried.run(None, {"x": x})[0], expected, rtol=1e-3))
            graph, self._embeddings = fused.fuse(path.read_bytes(), signed=signed)
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            self.dimension = self.pool(self._pieces("")).shape[0]
        except kinds as error:
            raise CatalogError(f"the encoder's model {path} cannot be used ({error}): {_REPAIR}") from error

    def encode(self, texts: Sequence[str]) -> "Vectors":
        """Texts to unit vectors: (n,) -> (n, d) float32. Only the first tokens of a text count."""
        keys = [blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts]
        found: dict[bytes, Vectors] = {}
        with self._lock:
            for key in keys:
                if key in self._cache:
                    self._cache.move_to_end(key)
                    found[key] = self._cache[key]
        fresh = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        found.update((key, self.pool(self._pieces(text))) for key, text in fresh.items())
        with self._lock:
            for key in fresh:
                self._cache[key] = found[key]
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return np.stack([found[key] for key in keys]) if keys else np.zeros((0, self.dimension), np.float32)

    def pool(self, ids: Sequence[int]) -> "Vectors":
        """Token ids, markers included, to a unit vector: the mean over the tokens, normalised. Not cached."""
        words, scales, places = self._embeddings
        x = words[ids] * scales[ids] + places[: len(ids)]
        pooled = self._session.run(None, {"x": x[np.newaxis]})[0][0].mean(axis=0)
        unit: Vectors = pooled / np.linalg.norm(pooled)
        return unit

    def word_vectors(self) -> "Vectors":
        """What each token brings before the first layer: (vocabulary, d) float32, not unit."""
        vectors: Vectors = self._embeddings.words * self._embeddings.scales
        return vectors
