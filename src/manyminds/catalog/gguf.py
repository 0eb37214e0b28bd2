"""What a GGUF file says of itself. Reads its head only; knows no model.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from manyminds.catalog.own import need_gguf
from manyminds.errors import CatalogError

__all__ = ["Vocabulary", "vocabulary"]

_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes, by type
_STRING: Final = 8
_ARRAY: Final = 9
_WORD: Final = 4
_INT32: Final = 5
_TYPES: Final = b"tokenizer.ggml.token_type"
_CONTROL: Final = 3
_LIMIT: Final = 100_000_000  # bytes of one value, entries of one list
_PREFIX: Final = b"tokenizer."
_NOT_MEANING: Final = b"tokenizer.chat_template"  # how a model is spoken to, not what its tokens mean


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the token ids of a model mean.

    Attributes:
        digest: of the whole tokenizer: files with the same one mean the same by each id.
        control: ids that spell nothing, such as the end of a text.
    """

    digest: str
    control: frozenset[int]


def vocabulary(path: Path) -> Vocabulary:
    """Reads 152,000 tokens in half a second. Raises: CatalogError."""
    need_gguf(path)
    found, places = {}, {}
    try:
        with path.open("rb") as file:
            file.seek(8)
            _, count = struct.unpack("<QQ", _read(file, 16))
            for _ in range(count):
                key = _string(file)
                kind = _number(file)
                places[key] = file.tell()
                value = _value(file, kind)
                if key.startswith(_PREFIX) and not key.startswith(_NOT_MEANING):
                    found[key] = value
            control = _control(file, places.get(_TYPES))
    except OSError as error:
        raise CatalogError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, struct.error) as error:
        raise CatalogError(f"{path} is damaged: {error}") from error
    if b"tokenizer.ggml.tokens" not in found:
        raise CatalogError(f"{path} has no vocabulary")
    digest = hashlib.sha256()
    for key in sorted(found):
        digest.update(hashlib.sha256(key).digest() + found[key])
    return Vocabulary(digest.hexdigest(), control)


def _control(file: BinaryIO, place: int | None) -> frozenset[int]:
    if place is None:
        return frozenset()
    file.seek(place)
    if _number(file) != _INT32:
        raise ValueError("types of tokens that are no numbers")
    (count,) = struct.unpack("<Q", _read(file, 8))
    return frozenset(
        i for i, (kind,) in enumerate(struct.iter_unpack("<i", _read(file, 4 * count))) if kind == _CONTROL
    )


def _value(file: BinaryIO, kind: int) -> bytes:
    """A hash of it, which tells where each of its entries ends."""
    if kind != _ARRAY:
        return hashlib.sha256(_string(file) if kind == _STRING else _read(file, _SIZES[kind])).digest()
    inner = _number(file)
    (count,) = struct.unpack("<Q", _read(file, 8))
    if count > _LIMIT or inner not in (*_SIZES, _STRING):
        raise ValueError(f"a list of {count} of type {inner}")
    digest = hashlib.sha256()
    if inner == _STRING:
        for _ in range(count):
            text = _string(file)
            digest.update(struct.pack("<Q", len(text)) + text)
    else:
        digest.update(_read(file, count * _SIZES[inner]))
    return digest.digest()


def _string(file: BinaryIO) -> bytes:
    (size,) = struct.unpack("<Q", _read(file, 8))
    return _read(file, size)


def _number(file: BinaryIO) -> int:
    (found,) = struct.unpack("<I", _read(file, _WORD))
    if found not in _SIZES and found not in (_STRING, _ARRAY):
        raise ValueError(f"type {found}")
    return int(found)


def _read(file: BinaryIO, size: int) -> bytes:
    """Raises: ValueError where the file ends before."""
    content = file.read(size) if size <= _LIMIT else b""
    if len(content) < size:
        raise ValueError("its head is cut off")
    return content
