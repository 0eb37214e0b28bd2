"""An index's files: snapshots, the log of changes since, and which of them count. Knows no search.

    CURRENT            which of the rest counts: JSON, replaced whole
    snapshot-000003/   never changed once it counts; header.json, small.npz and the mapped arrays
    changes-000003     what came since: frames, each with its length and checksum
    LOCK               held by whoever writes; readers need none

Nothing in a file is executed, whoever made it, and what does not fit together is refused.
"""

import json
import os
import shutil
import struct
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from manyminds.errors import IndexFileError
from manyminds.index.shelves import Shelves
from manyminds.index.snapshot import Snapshot, text, utf8

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from manyminds.types import Vectors

__all__ = [
    "VERSION",
    "Change",
    "Current",
    "append_changes",
    "damaged",
    "map_snapshot",
    "mapped",
    "read_changes",
    "read_current",
    "seal",
    "start_changes",
    "sweep",
    "write_current",
]

VERSION: Final = 1
"""Of everything in the folder. A later one migrates what it finds; an earlier one refuses it."""

_SMALL_BYTES: Final = 16_000_000
"""A file of so many bytes is held in memory, which is faster: rows of a thousand experts of 384 numbers."""

_MAGIC: Final = b"\xf0MMi"
_FRAME: Final = struct.Struct("<4sII")  # magic, length, checksum
_BOOK: Final = struct.Struct("<HIQ")  # length of the name, rows, parameters; no rows: removed
_KINDS: Final = {"rows": np.float32, "codes": np.uint8, "owners": np.uint32, "places": np.uint32}
_SMALL: Final = ("names", "ends", "parameters", "starts", "bounds", "odd")
_DAMAGE: Final = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError),
    *(SyntaxError, TypeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error),
)
"""What zipfile, numpy, json and struct raise at bytes that somebody else chose."""

Change = tuple[str, "Vectors | None", int]
"""A name, its rows (None: it is removed) and its parameters."""


@dataclass(frozen=True, slots=True)
class Current:
    """Which files count: `number` names snapshot and log. An empty index has no snapshot."""

    number: int
    dimension: int
    settled: bool

    def snapshot(self, folder: Path) -> Path:
        return folder / f"snapshot-{self.number:06d}"

    def changes(self, folder: Path) -> Path:
        return folder / f"changes-{self.number:06d}"


def damaged(path: Path, reason: object) -> IndexFileError:
    said = str(reason).partition("\n")[0] or type(reason).__name__
    return IndexFileError(
        f"{path} is damaged, or no part of an index ({said:.200}): put back a copy of its folder, or"
        " remove the folder, and add its experts again."
    )


# --- which files count -----------------------------------------------------------------------------


def read_current(folder: Path) -> Current | None:
    """None where the folder holds no index yet. Raises: IndexFileError."""
    path = folder / "CURRENT"
    try:
        found = json.loads(path.read_bytes())
        if (version := found["version"]) == VERSION:
            return Current(int(found["number"]), int(found["dimension"]), bool(found["settled"]))
    except FileNotFoundError:
        return None
    except _DAMAGE as error:
        raise damaged(path, error) from error
    raise IndexFileError(
        f"{folder} is an index of version {version!r:.20}, and this is version {VERSION}:"
        " update manyminds, or give another folder."
    )


def write_current(folder: Path, current: Current) -> None:
    """Makes these files count, whole or not at all, and for good once it returns."""
    part = folder / ".CURRENT.part"
    _write(part, json.dumps({"version": VERSION, **asdict(current)}).encode())
    part.replace(folder / "CURRENT")
    _keep(folder)


def sweep(folder: Path, current: Current) -> None:
    """Removes what counts no more. Whoever has mapped it goes on reading it."""
    for path in folder.iterdir():
        own = {current.snapshot(folder).name, current.changes(folder).name}
        if path.name.startswith(("snapshot-", "changes-")) and path.name not in own:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


# --- snapshots -------------------------------------------------------------------------------------


def mapped(folder: Path) -> "_Mapped":
    """A `Make` of arrays that are files in a new folder; removes what a crash has left there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return _Mapped(folder)


class _Mapped:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str, shape: tuple[int, ...], kind: Any) -> "NDArray[Any]":
        return np.memmap(self._folder / name, kind, "w+", shape=shape)


def seal(snapshot: Snapshot, folder: Path) -> None:
    """Writes the rest of a snapshot beside its mapped arrays; all is on the disk when it returns."""
    for name in _KINDS:
        getattr(snapshot, name).flush()
        _keep(folder / name)
    small = {name: getattr(snapshot, name) for name in _SMALL}
    shelves = snapshot.shelves
    if shelves is not None:
        small |= {"sections": shelves.sections, "shelves": shelves.shelves, "first": shelves.starts}
    with (folder / "small.npz").open("wb") as file:
        np.savez(file, allow_pickle=False, **small)
        file.flush()
        os.fsync(file.fileno())
    header = {
        "version": VERSION,
        "rows": len(snapshot.rows),
        "dimension": snapshot.rows.shape[1],
        "lost": snapshot.lost,
        "learnt_from": None if shelves is None else shelves.learnt_from,
    }
    _write(folder / "header.json", json.dumps(header).encode())
    _keep(folder)


def map_snapshot(folder: Path) -> Snapshot:
    """A snapshot of which what is large stays in its files. Raises: IndexFileError, FileNotFoundError."""
    try:
        header = json.loads((folder / "header.json").read_bytes())
        rows, dimension = int(header["rows"]), int(header["dimension"])
        large = {name: _open(folder / name, kind, rows, dimension) for name, kind in _KINDS.items()}
        with (folder / "small.npz").open("rb") as file, np.load(file, allow_pickle=False) as packed:
            small = {name: packed[name] for name in packed.files}
        shelves = None
        if header["learnt_from"] is not None:
            first = np.asarray(small["first"], np.int64)
            shelves = Shelves(small["sections"], small["shelves"], first, int(header["learnt_from"]))
        snapshot = Snapshot(
            **large,
            **{name: small[name] for name in _SMALL},
            shelves=shelves,
            lost=float(header["lost"]),
            read=None if large["rows"].nbytes <= _SMALL_BYTES else _Reader(folder / "rows", dimension),
        )
        _check(snapshot)
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        raise damaged(folder, error) from error
    return snapshot


class _Reader:
    """Reads rows by their numbers. Through the map, each would bring 64 kB of others into memory."""

    def __init__(self, path: Path, dimension: int) -> None:
        self._path, self._dimension = path, dimension
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._handle)  # open for as long as the snapshot is

    def __call__(self, rows: "NDArray[np.int64]") -> "Vectors":
        found = np.empty((len(rows), self._dimension), np.float32)
        size = found.itemsize * self._dimension
        for row, number in zip(found, rows.tolist(), strict=True):
            if os.preadv(self._handle, [row.data], number * size) < size:
                raise damaged(self._path, "it has become shorter")
        return found


def _open(path: Path, kind: Any, rows: int, dimension: int) -> "NDArray[Any]":
    shape = (rows, dimension) if kind in (np.float32, np.uint8) else (rows,)
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    if path.stat().st_size != size:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes instead of {size}")
    if size <= _SMALL_BYTES:
        return np.fromfile(path, kind).reshape(shape)
    return np.asarray(np.memmap(path, kind, "r", shape=shape))  # a plain array of it is sliced in less time


def _check(snapshot: Snapshot) -> None:
    """Raises: ValueError where the parts do not fit together: no search must leave its arrays."""
    n, d = snapshot.rows.shape
    m = len(snapshot.parameters)

    def fits(what: str, good: object) -> None:
        if not good:
            raise ValueError(f"its {what} do not fit")

    def rising(array: "NDArray[Any]", length: int, last: int) -> bool:
        right = array.dtype == np.int64 and array.shape == (length,) and array[0] == 0 and array[-1] == last
        return bool(right and (np.diff(array) >= 0).all())

    fits("names", snapshot.names.dtype == np.uint8 and rising(snapshot.ends, m + 1, len(snapshot.names)))
    fits("books", snapshot.parameters.dtype == np.int64 and rising(snapshot.starts, m + 1, n))
    fits("rows", m > 0 and snapshot.owners.max() < m and snapshot.places.max() < n)
    fits("bytes", 0 <= snapshot.lost < 2)
    odd = snapshot.odd
    fits("odd rows", odd.dtype == np.int64 and odd.ndim == 1)
    fits("odd rows", not len(odd) or (odd[0] >= 0 and odd[-1] < n and (np.diff(odd) > 0).all()))
    shelves = snapshot.shelves
    fits("shelves", rising(snapshot.bounds, 2 if shelves is None else len(shelves.shelves) + 1, n))
    if shelves is not None:
        fits("shelves", rising(shelves.starts, len(shelves.sections) + 1, len(shelves.shelves)))
        fits("shelves", shelves.sections.shape[1:] == shelves.shelves.shape[1:] == (d,))
        fits("shelves", shelves.sections.dtype == shelves.shelves.dtype == np.float32)
        fits("shelves", len(shelves.sections) > 0 and np.isfinite(shelves.shelves).all())


# --- changes ---------------------------------------------------------------------------------------


def start_changes(path: Path) -> None:
    """An empty log; another one of that name never counted."""
    _write(path, b"")


def append_changes(path: Path, end: int, changes: Sequence[Change]) -> int:
    """Appends them in one frame after byte `end`, where whole frames end. The byte where it ends itself.

    They are on the disk when it returns.
    """
    with path.open("r+b") as log:
        log.truncate(end)  # what is there is of a writer that died
        log.seek(end)
        end += log.write(_frame(changes))
        log.flush()
        os.fsync(log.fileno())
    return end


def _frame(changes: Sequence[Change]) -> bytes:
    """Changes that are made together or not at all, as they are appended to the log."""
    parts = []
    for name, rows, parameters in changes:
        raw = utf8(name)
        parts += [_BOOK.pack(len(raw), 0 if rows is None else len(rows), parameters), raw]
        if rows is not None:
            parts.append(np.ascontiguousarray(rows, "<f4").tobytes())
    content = b"".join(parts)
    return _FRAME.pack(_MAGIC, len(content), zlib.crc32(content)) + content


def read_changes(path: Path, start: int, dimension: int) -> tuple[list[Change], int]:
    """What whole frames say from byte `start` on, and where the last of them ends.

    A frame that is not whole is the last: its writer is at it still, or has died, and nobody was told that it
    was kept. Raises: IndexFileError where whole frames follow it, FileNotFoundError.
    """
    with path.open("rb") as file:
        file.seek(start)
        data = file.read()
    found: list[Change] = []
    at = 0
    while (content := _content(data, at)) is not None:
        try:
            found += _changes(content, dimension)
        except _DAMAGE as error:
            raise damaged(path, error) from error
        at += _FRAME.size + len(content)
    later = at
    while (later := data.find(_MAGIC, later + 1)) >= 0:
        if _content(data, later) is not None:
            raise damaged(path, f"the frame at byte {start + at}, with whole ones behind it")
    return found, start + at


def _content(data: bytes, at: int) -> bytes | None:
    if len(data) < at + _FRAME.size:
        return None
    magic, length, checksum = _FRAME.unpack_from(data, at)
    content = data[at + _FRAME.size : at + _FRAME.size + length]
    whole = magic == _MAGIC and len(content) == length and zlib.crc32(content) == checksum
    return content if whole else None


def _changes(content: bytes, dimension: int) -> Iterator[Change]:
    at = 0
    while at < len(content):
        name, rows, parameters = _BOOK.unpack_from(content, at)
        at += _BOOK.size
        end = at + name
        vectors = np.frombuffer(content, "<f4", rows * dimension, end).reshape(rows, dimension)
        if not np.isfinite(vectors).all():
            raise ValueError("not every number is finite")
        yield text(content[at:end]), vectors if rows else None, parameters
        at = end + vectors.nbytes


# --- the disk --------------------------------------------------------------------------------------


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _keep(path: Path) -> None:
    """What was written to a file, or the names in a folder, outlast the machine."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
