"""Folders of documents that a node follows: each in a thread, into a library of its own. Knows no expert."""

import logging
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from threading import Event, Thread
from typing import Final
from urllib.parse import quote

from manyminds.config import ExpertEntry
from manyminds.documents import Library, Synced, counted, watch
from manyminds.errors import ManymindsError
from manyminds.node.wiring import encoder_of
from manyminds.types import Embed

__all__ = ["DOCUMENTS", "Following", "folder_of"]

DOCUMENTS: Final = "documents"
"""Folder of the home that holds what was read of documents, a folder for each expert of them."""

_LEAVE_S: Final = 2.0  # for what is being read; a sync that is left goes on the next time

log = logging.getLogger(__name__)


def folder_of(home: Path, name: str) -> Path:
    """Where the library of an expert is: a folder of its own, whatever it is called."""
    quoted = quote(name, safe="")
    hidden = quoted.startswith(".")  # as "..", which is the home
    return home / DOCUMENTS / (f"%2E{quoted[1:]}" if hidden else quoted)


class Following:
    """Whoever looks at the libraries sees what comes of it.

    Args:
        home: holds the libraries.
        own: see `Library`.
        also: told of whose documents have changed, and what became of them; in its thread.
    """

    def __init__(
        self, home: Path, own: Collection[Path], also: Callable[[str, Synced], None] | None = None
    ) -> None:
        self._home = home
        self._own = own
        self._also = also
        self._embed: Embed | None = None
        self._threads: dict[tuple[str, str], tuple[Thread, Event]] = {}  # by name and path

    def follow(self, entries: Iterable[ExpertEntry]) -> None:
        """Follows the folders of these, and no others from then on. Blocks.

        Raises: CatalogError: the encoder cannot be used.
        """
        wanted = {(entry.name, entry.path) for entry in entries}
        alive = {key for key, (thread, _) in self._threads.items() if thread.is_alive()}
        self._end([key for key in self._threads if key not in wanted & alive])
        for name, path in sorted(wanted - self._threads.keys()):
            if self._embed is None and (encoder := encoder_of(self._home, cached=False)) is not None:
                self._embed = encoder.encode
            stop = Event()
            thread = Thread(
                target=self._run, args=(name, Path(path), stop), name=f"documents of {name}", daemon=True
            )
            self._threads[name, path] = thread, stop
            thread.start()

    def close(self) -> None:
        self._end(list(self._threads))

    def _end(self, keys: Iterable[tuple[str, str]]) -> None:
        ended = [self._threads.pop(key) for key in keys]
        for _, stop in ended:
            stop.set()
        for thread, _ in ended:
            thread.join(_LEAVE_S)

    def _run(self, name: str, root: Path, stop: Event) -> None:
        def told(synced: Synced) -> None:
            files = f"{synced.added} added, {synced.changed} changed, {synced.removed} removed"
            log.info("%s: %s; files: %s.", name, counted(synced.paragraphs, "paragraph"), files)
            if self._also is not None:
                self._also(name, synced)

        try:
            with Library(folder_of(self._home, name), self._embed, self._own) as library:
                watch(root, library, told, stop)
        except (ManymindsError, OSError) as error:
            log.error("The documents of %s are not followed: %s", name, error)
