"""Which models mean the same by a token."""

import struct
from pathlib import Path

import pytest

from manyminds import catalog
from manyminds.catalog.gguf import vocabulary
from manyminds.errors import CatalogError
from tests import pulled


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def strings(*values: bytes) -> bytes:
    return struct.pack("<IIQ", 9, 8, len(values)) + b"".join(map(text, values))


def numbers(*values: int) -> bytes:
    return struct.pack("<IIQ", 9, 5, len(values)) + struct.pack(f"<{len(values)}i", *values)


def write(path: Path, **fields: bytes) -> Path:
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(fields))
    path.write_bytes(
        head + b"".join(text(name.replace("__", ".").encode()) + v for name, v in fields.items())
    )
    return path


TOKENS = strings(b"a", b"b", b"<end>")
TYPES = numbers(1, 1, 3)


def test_only_what_tokens_mean_counts(tmp_path: Path) -> None:
    fields = {"tokenizer__ggml__tokens": TOKENS, "tokenizer__ggml__token_type": TYPES}
    first = vocabulary(write(tmp_path / "a", **fields))
    other = {"general__name": struct.pack("<I", 8) + text(b"other")}
    other["tokenizer__chat_template"] = struct.pack("<I", 8) + text(b"{{ x }}")
    assert vocabulary(write(tmp_path / "b", **other, **fields)) == first
    assert first.control == {2}
    joined = {**fields, "tokenizer__ggml__tokens": strings(b"ab", b"", b"<end>")}
    assert vocabulary(write(tmp_path / "c", **joined)).digest != first.digest


def test_a_file_without_types_has_no_token_that_spells_nothing(tmp_path: Path) -> None:
    assert vocabulary(write(tmp_path / "a", tokenizer__ggml__tokens=TOKENS)).control == frozenset()


def test_damage_is_told(tmp_path: Path) -> None:
    whole = write(
        tmp_path / "a", tokenizer__ggml__tokens=TOKENS, tokenizer__ggml__token_type=TYPES
    ).read_bytes()
    for end in range(len(whole)):
        (tmp_path / "b").write_bytes(whole[:end])
        with pytest.raises(CatalogError):
            vocabulary(tmp_path / "b")
    with pytest.raises(CatalogError, match="no vocabulary"):
        vocabulary(write(tmp_path / "c", general__name=struct.pack("<I", 8) + text(b"x")))
    huge = struct.pack("<IIQ", 9, 8, 2**60)
    with pytest.raises(CatalogError, match="damaged"):
        vocabulary(write(tmp_path / "d", tokenizer__ggml__tokens=huge))
    with pytest.raises(CatalogError, match="cannot be read"):
        vocabulary(tmp_path / "none")


def test_the_two_coders_share_one_vocabulary() -> None:
    names = ("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b", "smollm2-135m")
    pulled.need(*names)
    small, large, other = (
        vocabulary(catalog.path_of(pulled.HOME, catalog.find(name).files[0])) for name in names
    )
    assert small == large
    assert small.digest != other.digest
    assert 151_645 in small.control
    assert 2 in other.control
