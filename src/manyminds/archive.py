"""One file of plain arrays and a JSON header: safe to load whoever made it, written whole or not at all.

Knows nothing of what is kept.
"""

import hashlib
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from manyminds.errors import ArtefactError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["digest", "is_archive", "opened", "write"]

_MAX_BYTES: Final = 500_000_000  # of a file, unpacked: 100 experts take some hundred kilobytes
_DAMAGE: Final = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError),
    *(SyntaxError, TokenError, TypeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error),
)
"""What zipfile, numpy, json and readers of them raise at bytes that somebody else chose."""


def write(path: Path, header: Mapping[str, Any], arrays: "Mapping[str, NDArray[Any]]") -> None:
    """Writes the file whole or not at all. The same content gives the same bytes. Raises: OSError."""
    text = json.dumps(header, sort_keys=True, ensure_ascii=False)
    content = {**arrays, "header": np.frombuffer(text.encode(), np.uint8)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{name: content[name] for name in sorted(content)})
    path.parent.mkdir(parents=True, exist_ok=True)
    part_path = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part_path.write_bytes(buffer.getvalue())
        part_path.replace(path)
    finally:
        part_path.unlink(missing_ok=True)


@contextmanager
def opened(
    path: Path, version: int, what: str, remedy: str
) -> "Iterator[tuple[dict[str, Any], dict[str, NDArray[Any]]]]":
    """Header and arrays, for a block that makes something of them. Nothing in the file is executed.

    Args:
        path: the file.
        version: of its format, that can be read.
        what: what it is, for people.
        remedy: what they can do where it is not.

    Raises: ArtefactError where it is missing, damaged or of another version, or where the block fails.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            if sum(entry.file_size for entry in packed.infolist()) > _MAX_BYTES:
                raise ArtefactError(f"{path} unpacks to more than {_MAX_BYTES} bytes: it is no {what}.")
        with np.load(path, allow_pickle=False) as packed:
            arrays = {name: packed[name] for name in packed.files}
        header = json.loads(arrays.pop("header").tobytes())
        found = header["version"]
        if found == version:
            yield header, arrays
            return
    except FileNotFoundError as error:
        raise ArtefactError(f"There is no {what} {path}: {remedy}.") from error
    except _DAMAGE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ArtefactError(f"{path} is no {what} ({reason:.200}): {remedy}, or remove it.") from error
    raise ArtefactError(f"{path} is of version {found!r:.20}, and this is version {version}: {remedy}.")


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex. Raises: OSError."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def is_archive(path: Path) -> bool:
    """Whether the file is one, of any version and however damaged inside: a zip file with a header."""
    try:
        with zipfile.ZipFile(path) as packed:
            return "header.npy" in packed.namelist()
    except _DAMAGE:
        return False
