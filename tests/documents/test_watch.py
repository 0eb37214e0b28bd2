"""A folder that is watched: real changes, as the system tells of them."""

import queue
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from manyminds.documents import Library, Synced, watch
from tests.documents.made import embed, write


@contextmanager
def watched(
    root: Path, library: Library, noted: Callable[[Synced], None] | None = None
) -> Iterator["queue.Queue[Synced]"]:
    told: queue.Queue[Synced] = queue.Queue()
    stop = Event()
    thread = Thread(target=watch, args=(root, library, noted or told.put, stop))
    thread.start()
    try:
        yield told
    finally:
        stop.set()
        thread.join()


def test_what_changes_is_synced_until_it_is_stopped(tmp_path: Path) -> None:
    root = write(tmp_path / "docs", {"a.txt": "One."})
    with Library(tmp_path / "library", embed) as library, watched(root, library) as told:
        assert told.get(timeout=60).added == 1
        (root / "b.txt").write_text("Two.")
        assert told.get(timeout=60).added == 1
        (root / "a.txt").unlink()
        assert told.get(timeout=60).removed == 1
        assert told.empty()


def test_a_folder_that_vanishes_is_waited_for(tmp_path: Path) -> None:
    root = tmp_path / "docs"
    with Library(tmp_path / "library", embed) as library, watched(root, library) as told:
        write(root, {"a.txt": "One."})
        assert told.get(timeout=60).added == 1
        root.rename(tmp_path / "gone")
        shutil.rmtree(tmp_path / "gone")
        write(tmp_path / "next", {"b.txt": "Two."}).rename(root)
        synced = told.get(timeout=60)
        assert (synced.added, synced.removed) == (1, 1)


def test_a_single_file_is_watched(tmp_path: Path) -> None:
    root = write(tmp_path / "docs", {"a.txt": "One.", "b.txt": "Other."})
    with Library(tmp_path / "library", embed) as library, watched(root / "a.txt", library) as told:
        assert told.get(timeout=60).added == 1
        write(tmp_path / "new", {"a.txt": "One and two."})
        (tmp_path / "new/a.txt").replace(root / "a.txt")
        assert told.get(timeout=60).changed == 1


def test_what_is_written_at_each_sync_begins_no_other(tmp_path: Path) -> None:
    root = write(tmp_path / "docs", {"a.txt": "One."})
    log = root / "node.txt"
    told: queue.Queue[Synced] = queue.Queue()

    def noted(synced: Synced) -> None:
        with log.open("a") as file:
            file.write(f"{synced}\n")
        told.put(synced)

    log.touch()
    with Library(tmp_path / "library", embed, [log]) as library, watched(root, library, noted):
        assert told.get(timeout=60).added == 1
        (root / "b.txt").write_text("Two.")
        synced = told.get(timeout=60)
        assert (synced.added, synced.changed) == (1, 0)
        (root / "a.txt").unlink()
        synced = told.get(timeout=60)
        assert (synced.changed, synced.removed) == (0, 1)


class Asked(Library):
    """A library that remembers of which changes it was asked whether they are its own."""

    own: set[Path]
    others: set[Path]

    def keeps(self, path: Path) -> bool:
        own = super().keeps(path)
        (self.own if own else self.others).add(path)
        return own


def test_a_library_among_the_documents_is_not_synced_for_what_it_writes(tmp_path: Path) -> None:
    root = write(tmp_path / "docs", {"a.txt": "One.", "homes.txt": "None."})
    with Asked(root / "home/library", embed, [root / "home"]) as library:
        library.own, library.others = set(), set()
        with watched(root, library) as told:
            assert told.get(timeout=60).added == 2
            (root / "b.txt").write_text("Two.")
            assert told.get(timeout=60).added == 1
            (root / "home/ledger").write_text("calls")
            (root / "homes.txt").unlink()
            assert told.get(timeout=60).removed == 1
    assert root / "home/ledger" in library.own
    assert any(path.is_relative_to(root / "home/library") for path in library.own)
    assert root / "homes.txt" in library.others
    assert not any(path.is_relative_to(root / "home") for path in library.others)
