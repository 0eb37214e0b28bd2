"""A folder of documents is synced whenever something in it changes. Knows no format and no index."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Final

from manyminds.documents.library import Library
from manyminds.documents.nouns import Synced
from manyminds.errors import DocumentsError

__all__ = ["watch"]

log = logging.getLogger(__name__)

_DEBOUNCE_MS: Final = 1_000  # of quiet, more or less, before files are looked at
_LOOK_MS: Final = 5_000  # after which it is seen that the folder itself has gone
_AGAIN_S: Final = 5.0  # after a sync that failed


def watch(root: Path, library: Library, on_synced: Callable[[Synced], None], stop: Event) -> None:
    """Syncs now, and after each change below `root` until `stop` is set. Blocks: give it a thread.

    `on_synced` is called, in this thread, after the first sync and after each that changed anything. A root
    that is not there, or not there any more, is waited for, with a warning; what is indexed stays meanwhile.

    Raises: DocumentsError, at once, where watchfiles is not installed; OSError where the library cannot be
    written.
    """
    try:
        import watchfiles  # noqa: F401
    except ModuleNotFoundError:
        raise DocumentsError(
            "To watch a folder needs watchfiles: pip install 'manyminds[documents]'"
        ) from None
    first, told = True, ""
    while not stop.is_set():
        try:
            identity = _identity(root)
            for _ in _changes(root, identity, library.keeps, stop):
                synced = library.sync(root)
                if first or synced.added or synced.changed or synced.removed:
                    on_synced(synced)
                first, told = False, ""
        except DocumentsError as error:
            if told != error.message:
                log.warning("%s", error.message)
            told = error.message
        stop.wait(_AGAIN_S if told else 0)


def _changes(
    root: Path, identity: tuple[int, int], keeps: Callable[[Path], bool], stop: Event
) -> Iterator[None]:
    """Now, once watching has begun, and after each change, until the folder is another one.

    What the program itself writes, as each sync may, is no change.
    """
    import watchfiles

    yield
    folder = root if root.is_dir() else root.parent
    missed = True  # what changed between the first sync and the first look
    for changes in watchfiles.watch(
        folder,
        watch_filter=lambda _, path: not keeps(Path(path)),
        debounce=_DEBOUNCE_MS,
        stop_event=stop,
        rust_timeout=_LOOK_MS,
        yield_on_timeout=True,
        raise_interrupt=True,
        recursive=root.is_dir(),
        ignore_permission_denied=True,
    ):
        if stop.is_set() or _identity(root) != identity:
            return
        if changes or missed:
            missed = False
            yield


def _identity(root: Path) -> tuple[int, int]:
    """What tells a folder, or the folder of a file, from one that takes its place."""
    folder = root if root.is_dir() else root.parent
    try:
        status = os.stat(folder)
    except OSError as error:
        raise DocumentsError(f"{root} cannot be read ({error.strerror or error}).") from error
    return status.st_dev, status.st_ino
