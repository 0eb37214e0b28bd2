"""Texts to unit vectors, with all-MiniLM-L6-v2 as an ONNX file and its own tokenizer.

Knows no query, no expert and no download: a folder that lacks its files is a `CatalogError`.
The `tokenizers` library would do the first half too, but brings eleven packages, a hub client among
them, into the plain install; the tests hold `WordPiece` against it.
"""

import string
import unicodedata
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from manyminds.errors import CatalogError

if TYPE_CHECKING:
    from manyminds.types import Vectors

__all__ = ["Encoder", "WordPiece"]

_REPAIR = "run `manyminds pull` to fetch it again"
_MAX_CHARS = 16_384  # of a text that are looked at; 256 tokens are about 1,000 characters of English
_MAX_RUN_TOKENS = 512  # per run with padding: more gains no speed and costs memory
_CJK = (  # code points that are words of their own: the library's ranges, gaps included
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)


class Encoder:
    """A sentence encoder; `encode` is an `Embed`. Thread-safe; one thread of computation per call.

    Holds about 190 MB once loaded. The same text gives the same bits, alone or among others.
    """

    def __init__(self, folder: Path, *, max_tokens: int = 256, cache_size: int = 4096) -> None:
        """Loads `model.onnx` and `tokenizer.json` of `folder`.

        Raises: CatalogError when one is missing or is not what it should be.
        """
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
        own = (
            kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, Exception)
        )
        kinds: tuple[type[Exception], ...] = (ValueError, OSError, IndexError, *own)  # no base in common
        try:
            if not path.is_file():
                raise CatalogError(f"the encoder's model {path} is missing: {_REPAIR}")
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            self._dimension = self._run([self._pieces("")]).shape[1]
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
        fresh = {key: self._pieces(text) for key, text in zip(keys, texts, strict=True) if key not in found}
        for batch in _batches(fresh):
            found.update(zip(batch, self._run([fresh[key] for key in batch]), strict=True))
        with self._lock:
            for key in fresh:
                self._cache[key] = found[key]
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return np.stack([found[key] for key in keys]) if keys else np.zeros((0, self._dimension), np.float32)

    def _run(self, rows: Sequence[Sequence[int]]) -> "Vectors":
        """Token ids to unit vectors: the mean over each text's tokens, normalised."""
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        states = self._session.run(None, inputs)[0]  # (n, tokens, d)
        # Row by row, so that a text's sum does not depend on the padding that its neighbours need.
        pooled = np.stack([states[i, : len(row)].mean(axis=0) for i, row in enumerate(rows)])
        unit: Vectors = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return unit.astype(np.float32, copy=False)


def _batches(rows: dict[bytes, list[int]]) -> Iterator[list[bytes]]:
    """Keys of rows of similar length, each batch within `_MAX_RUN_TOKENS` with its padding."""
    batch: list[bytes] = []
    for key in sorted(rows, key=lambda key: len(rows[key])):
        if batch and (len(batch) + 1) * len(rows[key]) > _MAX_RUN_TOKENS:
            yield batch
            batch = []
        batch.append(key)
    if batch:
        yield batch


class WordPiece:
    """BERT's uncased tokenizer: text to ids, `[CLS]` first and `[SEP]` last. Pure.

    "[SEP]" and its like inside a text are plain text: nobody's question forges a control token.
    Source: Wu et al. 2016 (1609.08144), with the rules of `BertNormalizer` and `BertPreTokenizer`.
    """

    def __init__(self, path: Path, *, max_tokens: int = 256) -> None:
        """Reads `tokenizer.json`. Raises: CatalogError when it is missing or of another kind."""
        try:
            model = msgspec.json.decode(path.read_bytes(), type=_File).model
            self._vocabulary = model.vocab
            self._first, self._last, self._unknown = (model.vocab[t] for t in ("[CLS]", "[SEP]", "[UNK]"))
        except FileNotFoundError as error:
            raise CatalogError(f"the encoder's tokenizer {path} is missing: {_REPAIR}") from error
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, KeyError) as error:
            raise CatalogError(
                f"the encoder's tokenizer {path} cannot be used ({error}): {_REPAIR}"
            ) from error
        self._max_tokens = max_tokens
        self._max_word_chars = model.max_input_chars_per_word
        self._longest = max(map(len, self._vocabulary))
        self._folding = _Folding()
        self._known: dict[str, tuple[int, ...]] = {}  # words seen; bounded

    def __call__(self, text: str) -> list[int]:
        """At most `max_tokens` ids, the two markers included."""
        room = self._max_tokens - 2
        ids: list[int] = []
        for word in text[:_MAX_CHARS].translate(self._folding).split():
            ids += self._known.get(word) or self._split(word)
            if len(ids) >= room:
                break
        return [self._first, *ids[:room], self._last]

    def _split(self, word: str) -> tuple[int, ...]:
        """Greedy longest match; a word that cannot be covered is unknown as a whole."""
        if len(word) > self._max_word_chars:
            return (self._unknown,)
        ids: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(min(len(word), start + self._longest), start, -1):
                piece = self._vocabulary.get(prefix + word[start:end])
                if piece is not None:
                    break
            else:
                ids = [self._unknown]
                break
            ids.append(piece)
            start = end
        if len(self._known) >= 20_000:
            self._known.clear()
        self._known[word] = tuple(ids)
        return tuple(ids)


class _Model(msgspec.Struct, tag_field="type", tag="WordPiece"):
    vocab: dict[str, int]
    max_input_chars_per_word: int = 100


class _File(msgspec.Struct):
    """What of a `tokenizer.json` is read; another kind of model is a validation error."""

    model: _Model


class _Folding(dict[int, str]):
    """A table for `str.translate`, filled as characters are met; bounded."""

    def __missing__(self, code: int) -> str:
        folded = _fold(chr(code))
        if len(self) < 20_000:
            self[code] = folded
        return folded


def _fold(char: str) -> str:
    """Drops controls and accents, lowers case, and sets spaces around punctuation and CJK.

    Unassigned code points stay, as in the library: to it they are words that nobody knows.
    """
    if char in "\t\n\r":
        return " "
    if char == "\ufffd" or unicodedata.category(char) in {"Cc", "Cf", "Co", "Cs"}:
        return ""
    if char.isspace():
        return " "
    if any(low <= ord(char) <= high for low, high in _CJK):
        char = f" {char} "
    plain = "".join(c for c in unicodedata.normalize("NFD", char) if unicodedata.category(c) != "Mn")
    return "".join(f" {c} " if _is_punctuation(c) else c for c in plain.lower())


def _is_punctuation(char: str) -> bool:
    """Unicode punctuation, and what else of ASCII is neither letter, digit nor space."""
    if char.isascii():
        return char in string.punctuation
    return unicodedata.category(char).startswith("P")
