"""An index in a folder: what was added is there after a crash, and for every process that opens it.

Writers wait for each other; readers wait for nobody and see what was kept when they last looked. A change
is one append to a log, a snapshot new files beside the old: what counts is switched in one step.
"""

import fcntl
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from manyminds.errors import IndexFileError
from manyminds.index import files
from manyminds.index.files import Change, Current
from manyminds.index.search import Addition, Index
from manyminds.index.shelves import Shelves
from manyminds.index.snapshot import Make, Snapshot, build, spool

__all__ = ["KeptIndex"]

_TRIES = 100  # to open what counts, while others replace it


class KeptIndex(Index):
    """An `Index` that stays. Several processes may have one folder open, each for one thread at a time.

    Changes are on the disk when a call returns. They take up what other processes changed before;
    searches do so after `refresh`. A snapshot maps its rows: processes share the memory.
    """

    def __init__(self, folder: Path, dimension: int, **sizes: int) -> None:
        """Opens the folder, or makes it; `sizes` are those of `Index`.

        Raises:
            IndexFileError: It is damaged, of a newer version, or of another dimension.
            OSError: It cannot be read, made or locked.
        """
        self._folder = folder
        self._current = Current(-1, dimension, False)
        self._read_to = 0
        super().__init__(dimension, **sizes)
        folder.mkdir(parents=True, exist_ok=True)
        if files.read_current(folder) is None:
            with self._locked():
                if files.read_current(folder) is None:
                    self._begin(Current(0, dimension, False))
        self.refresh()

    def refresh(self) -> None:
        """Takes up what others changed. O(their changes). Raises: IndexFileError, OSError."""
        for _ in range(_TRIES):
            current = files.read_current(self._folder)
            if current is None:
                raise IndexFileError(f"{self._folder} has lost its CURRENT: put back a copy of the folder.")
            try:
                if current != self._current:
                    self._open(current)
                self._catch_up()
            except FileNotFoundError as error:  # replaced since CURRENT was read
                missing = error.filename
            else:
                return
        raise IndexFileError(f"{self._folder} has lost {missing}: put back a copy of the folder.")

    def add_all(self, books: Iterable[Addition]) -> None:
        self._change([self._checked(*book) for book in books])

    def load(self, books: Iterable[Addition]) -> None:
        """`add_all` into an index that is empty, for more books than memory holds; each is asked for once.

        Takes the space of the rows twice on the disk, and some 100 bytes a row of memory. Raises:
        ValueError where it is not empty, or as `add`, adding none; IndexFileError, OSError.
        """
        with self._writing(), tempfile.TemporaryFile(dir=self._folder) as file:
            if self._count:
                raise ValueError(f"{self._folder} holds {self._count} experts; only an empty index is loaded")
            block = spool((self._checked(*book) for book in books), self._dimension, file)
            if block is not None:
                shelves = self._first_shelves(block)
                self._replace(lambda make: build([block], self._dimension, shelves, make))

    def remove_all(self, names: Iterable[str]) -> None:
        self._change([(name, None, 0) for name in names])

    def shelve(self, shelves: Shelves | None = None) -> None:
        with self._writing():
            super().shelve(shelves)

    def snapshot(self) -> None:
        """Writes all into a new snapshot: to open it is to map it. O(all)."""
        with self._writing():
            self._settle(self._shelves)

    # --- changes ---

    def _change(self, changes: Sequence[Change]) -> None:
        with self._writing():
            wanted = [change for change in changes if change[1] is not None or change[0] in self]
            if not wanted:
                return
            due = self._due(sum(len(rows) for _, rows, _ in wanted if rows is not None))
            if not due:
                path = self._current.changes(self._folder)
                self._read_to = files.append_changes(path, self._read_to, wanted)
            self._make(wanted)
            if due:  # so many go straight into a snapshot, all or none
                self._settle(self._following())

    def _make(self, changes: Sequence[Change]) -> None:
        for name, rows, parameters in changes:
            if rows is None:
                self._drop(name)
            else:
                self._put(name, rows, parameters)

    def _catch_up(self) -> None:
        path = self._current.changes(self._folder)
        changes, self._read_to = files.read_changes(path, self._read_to, self._dimension)
        self._make(changes)

    # --- snapshots ---

    def _settle(self, shelves: Shelves | None) -> None:
        """As in memory, through the disk."""
        self._replace((lambda make: self._built(shelves, make)) if self._count else None)

    def _replace(self, built: Callable[[Make], Snapshot] | None) -> None:
        """Killed at any point, it leaves the last snapshot or the new one."""
        following = Current(self._current.number + 1, self._dimension, built is not None)
        folder = following.snapshot(self._folder)
        if built is not None:
            files.seal(built(files.mapped(folder)), folder)
        self._begin(following)
        self.refresh()

    def _begin(self, current: Current) -> None:
        files.start_changes(current.changes(self._folder))
        files.write_current(self._folder, current)
        files.sweep(self._folder, current)

    def _open(self, current: Current) -> None:
        if current.dimension != self._dimension:
            raise IndexFileError(
                f"{self._folder} holds vectors of {current.dimension} numbers, not {self._dimension}:"
                " give another folder, or the encoder that it was made with."
            )
        folder = current.snapshot(self._folder)
        self._settled(files.map_snapshot(folder) if current.settled else None)
        self._current, self._read_to = current, 0

    # --- locks ---

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._locked():
            self.refresh()
            try:
                yield
            except BaseException:
                self._current = Current(
                    -1, self._dimension, False
                )  # what is kept is read anew before the next
                raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / "LOCK").open("a") as file:  # closing it gives the lock back, as does a crash
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
