"""The files of a folder that may be documents. Reads none of them.

Hidden files, and folders that programs fill, are left out without a word; whatever else is left out is named.
"""

import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from manyminds.errors import DocumentsError

__all__ = ["Entry", "walk"]

_NOISE: Final = frozenset(
    {
        *("$RECYCLE.BIN", "System Volume Information", "Thumbs.db", "__MACOSX", "__pycache__", "desktop.ini"),
        *("bower_components", "lost+found", "node_modules", "site-packages"),
    }
)
_OUTSIDE: Final = "it is a link to what lies outside of the folder"
_OWN: Final = "it is the program's own"
_LOG: Final = "this program writes into it"


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file: its name in the library, where it lies, and how it was when it was looked at."""

    document: str
    file: str
    size: int
    mtime_ns: int


def walk(root: Path, skip: Callable[[str, str], None], own: Collection[Path] = ()) -> list[Entry]:
    """All files below `root`, or `root` itself where it is one, in order of their names.

    `skip` is told the name of whatever is left out, and why. Links are followed to what lies inside of
    `root`; a folder that has been seen is not seen again under another name. Left out are the folders and
    files that are `own`, whatever leads to them, and what this process prints into.

    Raises: DocumentsError where there is no such folder, it cannot be listed, or is one of `own`.
    """
    try:
        top = root.resolve(strict=True)
        status = top.stat()
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(top):
                pass
    except OSError as error:
        raise DocumentsError(f"{root} cannot be read ({error.strerror or error}).") from error
    found: dict[str, Entry] = {}
    seen = {(status.st_dev, status.st_ino)}
    kept = {key: _LOG for descriptor in (1, 2) if (key := _file(descriptor))}
    kept |= {key: _OWN for path in own if (key := _file(path))}
    folders = [path for path in own if path.is_dir()]
    if any(not _first(str(path), seen) for path in dict.fromkeys(map(Path.resolve, folders))):
        raise DocumentsError(f"{root} is the program's own folder: give the one that the documents are in.")
    around = _Around(str(top), tuple(str(path.resolve()) for path in folders))
    for document, file in _files(around, stat.S_ISDIR(status.st_mode), seen, skip):
        name = _shown(document)
        if name in found:
            skip(name, "another file's name looks the same")
            continue
        if entry := _entry(name, file, kept, skip):
            found[name] = entry
    return [found[name] for name in sorted(found)]


@dataclass(frozen=True, slots=True)
class _Around:
    """Where links may lead: below `top`, and below none of `own` that is there. All are without links."""

    top: str
    own: tuple[str, ...]

    def forbids(self, target: str) -> str:
        """Why a link to this path is not followed; "" where it is."""
        if not _below(target, self.top):
            return _OUTSIDE
        within = [folder for folder in self.own if _below(folder, self.top)]
        return _OWN if any(_below(target, folder) for folder in within) else ""


def _below(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


def _files(
    around: _Around, folder: bool, seen: set[tuple[int, int]], skip: Callable[[str, str], None]
) -> Iterator[tuple[str, str]]:
    """Names and paths; those that are links only after all that are none."""
    if not folder:
        yield os.path.basename(around.top), around.top
        return
    folders, links = [("", around.top)], list[tuple[str, str]]()
    while folders or links:
        if not folders:
            name, target = links.pop(0)
            folders = [(f"{name}/", target)] if _first(target, seen) else []
            continue
        name, path = folders.pop()
        try:
            with os.scandir(path) as listing:
                entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            skip(_shown(name), f"it cannot be listed ({error.strerror or error})")
            continue
        for entry in entries:
            if entry.name.startswith((".", "~$")) or entry.name in _NOISE or entry.name.endswith("~"):
                continue
            document = f"{name}{entry.name}"
            if entry.is_symlink():
                target = os.path.realpath(entry.path)
                if why := around.forbids(target):
                    skip(_shown(document), why)
                elif os.path.isdir(target):
                    links.append((document, target))
                else:
                    yield document, target
            elif not entry.is_dir(follow_symlinks=False):
                yield document, entry.path
            elif not os.path.exists(os.path.join(entry.path, "pyvenv.cfg")) and _first(entry.path, seen):
                folders.append((f"{document}/", entry.path))


def _first(folder: str, seen: set[tuple[int, int]]) -> bool:
    try:
        status = os.stat(folder)
    except OSError:
        return False
    key = (status.st_dev, status.st_ino)
    if key in seen:
        return False
    seen.add(key)
    return True


def _file(of: Path | int) -> tuple[int, int] | None:
    """What tells a regular file, by its path or a descriptor, from every other; None where it is none."""
    try:
        status = os.stat(of)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _entry(
    name: str, file: str, kept: Mapping[tuple[int, int], str], skip: Callable[[str, str], None]
) -> Entry | None:
    try:
        status = os.stat(file, follow_symlinks=False)
    except OSError as error:
        skip(name, f"it cannot be read ({error.strerror or error})")
        return None
    if not stat.S_ISREG(status.st_mode):
        skip(name, "it is no regular file")
        return None
    if why := kept.get((status.st_dev, status.st_ino)):
        skip(name, why)
        return None
    return Entry(name, file, status.st_size, status.st_mtime_ns)


def _shown(path: str) -> str:
    return path.rstrip("/").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
