"""Downloaded files as typed values, or a DataError that names the file. Nothing of them is ever run."""

import io
import zipfile
import zlib
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from manyminds.errors import DataError

__all__ = ["decode", "lines", "only_json"]

_T = TypeVar("_T")
_MAX_BYTES: Final = 64_000_000
"""No file of a set is half as large, unpacked."""
_UNREADABLE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
    OSError,  # a damaged offset: what is read is in memory
)
"""What zipfile raises at damaged archives."""


def decode(content: Path | bytes, where: str, kind: type[_T]) -> _T:
    """JSON of that shape. `where` is the file's name upstream. Raises: DataError."""
    try:
        return msgspec.json.decode(_bytes(content, where), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{where} is not as it should be: {str(error)[:200]}") from error


def lines(file: Path, where: str) -> list[str]:
    """The lines of a text, without spaces around them. Raises: DataError."""
    try:
        return [line.strip() for line in _bytes(file, where).decode().splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 text.") from error


def only_json(file: Path, where: str) -> bytes:
    """The one JSON file in an archive, read in memory: nothing is unpacked to disk.

    Raises: DataError; OSError, where the archive itself cannot be read.
    """
    content = io.BytesIO(_bytes(file, where))
    try:
        with zipfile.ZipFile(content) as archive:
            members = [
                member
                for member in archive.infolist()
                if member.filename.endswith(".json") and not member.filename.startswith("__MACOSX/")
            ]
            if len(members) != 1:
                raise DataError(f"{where} holds {len(members)} JSON files, not one.")
            if members[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(f"{where} is packed neither plainly nor by deflate.")
            with archive.open(members[0]) as member:
                return _capped(member.read(_MAX_BYTES + 1), where)
    except _UNREADABLE as error:
        raise DataError(f"{where} is no archive that can be read: {error}") from error


def _bytes(content: Path | bytes, where: str) -> bytes:
    if isinstance(content, bytes):
        return content
    with content.open("rb") as file:
        return _capped(file.read(_MAX_BYTES + 1), where)


def _capped(content: bytes, where: str) -> bytes:
    if len(content) > _MAX_BYTES:
        raise DataError(f"{where} is larger than {_MAX_BYTES // 1_000_000} MB.")
    return content
