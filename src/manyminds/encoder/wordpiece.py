"""BERT's uncased tokenizer in plain Python. Knows no model.

The `tokenizers` library would do it too, but brings eleven packages, a hub client among them, into the
plain install; the tests hold `WordPiece` against it.
"""

import string
import unicodedata
from pathlib import Path

import msgspec

from manyminds.errors import CatalogError

__all__ = ["WordPiece"]

_REPAIR = "run `manyminds pull` to fetch it again"
_MAX_CHARS = 16_384  # of a text that are looked at; 256 tokens are about 1,000 characters of English
_CJK = (  # code points that are words of their own: the library's ranges, gaps included
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)


class WordPiece:
    """BERT's uncased tokenizer: text to ids, `[CLS]` first and `[SEP]` last. Pure.

    "[SEP]" and its like inside a text are plain text: nobody's question forges a control token.
    Source: Wu et al. 2016 (1609.08144), with the rules of `BertNormalizer` and `BertPreTokenizer`.
    """

    def __init__(self, path: Path, *, max_tokens: int = 256) -> None:
        """Reads `tokenizer.json`. Raises: CatalogError when it is missing or of another kind."""
        try:
            model = msgspec.json.decode(path.read_bytes(), type=_File).model
            self.vocabulary = model.vocab
            self.first, self.last, self._unknown = (model.vocab[t] for t in ("[CLS]", "[SEP]", "[UNK]"))
        except FileNotFoundError as error:
            raise CatalogError(f"the encoder's tokenizer {path} is missing: {_REPAIR}") from error
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, KeyError) as error:
            raise CatalogError(
                f"the encoder's tokenizer {path} cannot be used ({error}): {_REPAIR}"
            ) from error
        self._max_tokens = max_tokens
        self._max_word_chars = model.max_input_chars_per_word
        self._longest = max(map(len, self.vocabulary))
        self._folding = _Folding()
        self._known: dict[str, tuple[int, ...]] = {}  # words seen; bounded

    @property
    def size(self) -> int:
        """How many ids there are: all are below it."""
        return max(self.vocabulary.values()) + 1

    def __call__(self, text: str) -> list[int]:
        """At most `max_tokens` ids, the two markers included."""
        room = self._max_tokens - 2
        ids: list[int] = []
        for word in text[:_MAX_CHARS].translate(self._folding).split():
            ids += self._known.get(word) or self._split(word)
            if len(ids) >= room:
                break
        return [self.first, *ids[:room], self.last]

    def _split(self, word: str) -> tuple[int, ...]:
        """Greedy longest match; a word that cannot be covered is unknown as a whole."""
        if len(word) > self._max_word_chars:
            return (self._unknown,)
        ids: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(min(len(word), start + self._longest), start, -1):
                piece = self.vocabulary.get(prefix + word[start:end])
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
