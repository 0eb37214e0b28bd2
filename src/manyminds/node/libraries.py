"""The libraries of a node's documents: opened, looked at for changes, and what their changes make void.

Knows no expert and no network.
"""

import logging
import math
import shutil
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from manyminds.config import ExpertEntry
from manyminds.config.files import replace_file
from manyminds.documents import Library, Profile
from manyminds.errors import ManymindsError
from manyminds.ledger import Ledger, Withdrawal
from manyminds.network.withdrawal import Withdrawal as Word
from manyminds.node import revocation
from manyminds.node.following import Following, folder_of
from manyminds.types import Embed

__all__ = ["Libraries", "Opened", "delete", "renew", "renounce"]

_DRAIN_S: Final = 300.0  # for which one that is not wanted any more stays open: somebody may be reading
_TOLD: Final = "told"  # in such a folder: until when what was taken out of it is written down

log = logging.getLogger(__name__)


def delete(home: Path, name: str) -> bool:
    """Deletes what was read of somebody's documents, never these; whether there was anything."""
    folder = folder_of(home, name)
    was = folder.exists()
    shutil.rmtree(folder, ignore_errors=True)
    return was


def renew(home: Path, ledger: Ledger, entry: ExpertEntry, library: Library) -> bool:
    """Where something that it knew is gone, makes void what was learnt, kept or graded of an expert: here, in
    all gateways of the ledger, and by this node's word in others. Whether there was such.

    Stopped halfway, doing it again ends it: until then it is not written down that it was done.

    Raises: LedgerError, ConfigError, OSError.
    """
    told, at_ms = folder_of(home, entry.name) / _TOLD, library.renewed_ms
    if at_ms <= _read(told):
        return False
    source = entry.source or entry.name
    if not ledger.gone().has(entry.name, source):
        for event in ("withdrawn", "returned"):
            ledger.withdraw(Withdrawal(event, entry.name, source, (entry.name,)))
    renounce(home, at_ms)
    replace_file(told, str(at_ms).encode())
    return True


def renounce(home: Path, at_ms: int = 1) -> None:
    """Has this node say to others that what they know of it is void. Raises: ConfigError, OSError."""
    before = revocation.read(home)
    now_ms = max(time.time_ns() // 1_000_000, at_ms, before.at + 1 if before is not None else 1)
    whole, sources = (before.whole, before.sources) if before is not None else (False, ())
    revocation.write(home, Word(now_ms, whole, sources))


def _read(told: Path) -> int:
    try:
        return int(told.read_bytes())
    except (OSError, ValueError):
        return 0


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A library as it was when it was looked at: `mark` is another's where anything in it has changed."""

    library: Library
    profile: Profile
    paragraphs: int
    mark: tuple[int, ...]


class Libraries:
    """What is open. Blocks: call it in threads, one at a time.

    Args:
        home: holds them.
        own: see `Library`.
        follows: whether folders are followed that are to be watched.
    """

    def __init__(self, home: Path, own: Collection[Path] = (), *, follows: bool = False) -> None:
        self._home = home
        self._following = Following(home, own) if follows else None
        self._open: dict[str, tuple[int, Library]] = {}  # by name, with the number of its folder
        self._seen: dict[str, tuple[int, ...] | None] = {}  # when they were opened
        self._looked: dict[str, tuple[int, ...] | None] = {}  # when `changed` was last called
        self._left: list[tuple[float, Library]] = []  # since when nobody takes them up

    def open(self, entries: Iterable[ExpertEntry], embed: Embed | None) -> dict[str, Opened]:
        """Those of these experts that are there, by name. Those of others are closed."""
        reading = [entry for entry in entries if entry.kind == "documents"]
        if self._following is not None and embed is not None:
            self._following.follow([entry for entry in reading if entry.watch])
        wanted = [entry.name for entry in reading]
        for name in [name for name in self._open if name not in wanted]:
            self._close(name)
        self._seen = dict.fromkeys(wanted)
        found = {}
        for name in wanted if embed is not None else ():
            try:
                made = self._opened(name, embed)
            except (ManymindsError, OSError) as error:
                log.error("The library of %s cannot be read: %s", name, error)
                continue
            if made is not None:
                found[name], self._seen[name] = made, made.mark
        return found

    def changed(self) -> bool:
        """Whether any of them is another than when it was opened, has come or is gone, and now rests."""
        self._drain(time.monotonic() - _DRAIN_S)
        before, self._looked = self._looked, {name: self._mark(name) for name in self._seen}
        return before == self._looked != self._seen

    @property
    def libraries(self) -> Mapping[str, Library]:
        return {name: library for name, (_, library) in self._open.items()}

    def close(self) -> None:
        if self._following is not None:
            self._following.close()
        for name in list(self._open):
            self._close(name)
        self._drain(math.inf)

    def _opened(self, name: str, embed: Embed | None) -> Opened | None:
        folder = folder_of(self._home, name)
        if not folder.exists():
            self._close(name)
            return None
        number = folder.stat().st_ino
        if name in self._open and self._open[name][0] != number:  # deleted, and made anew
            self._close(name)
        if name not in self._open:
            self._open[name] = number, Library(folder, embed)
        library = self._open[name][1]
        while True:
            generation, profile = library.generation, library.profile()
            if generation == library.generation:  # else it changed meanwhile, if only by keeping its profile
                return Opened(library, profile, library.paragraphs, (number, generation))

    def _mark(self, name: str) -> tuple[int, ...] | None:
        try:
            number = folder_of(self._home, name).stat().st_ino
        except OSError:
            return None
        opened = self._open.get(name)
        if opened is None or opened[0] != number:
            return (number,)
        return number, opened[1].generation

    def _close(self, name: str) -> None:
        if (opened := self._open.pop(name, None)) is not None:
            self._left.append((time.monotonic(), opened[1]))

    def _drain(self, until_s: float) -> None:
        while self._left and self._left[0][0] <= until_s:
            self._left.pop(0)[1].close()
