"""A folder's files into a library: only what changed is read anew. Knows no search.

Vectors are kept under what they are of, before the file that needs them is: killed at any moment, a sync
loses the files of the batch that it was at, and the next one goes on from there.
"""

import os
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from manyminds.documents.nouns import Synced
from manyminds.documents.readers import READERS, refusal
from manyminds.documents.reading import MOST_BYTES, Reading, read_file
from manyminds.documents.split import Paragraph
from manyminds.documents.store import Row, Store, digest_of, embedded
from manyminds.documents.walk import Entry, walk
from manyminds.errors import DocumentsError, IndexFileError
from manyminds.index import KeptIndex

if TYPE_CHECKING:
    from manyminds.types import Embed, Vectors

__all__ = ["Progress", "Syncing", "forget", "open_index"]

_FLAT: Final = 2_000_000  # vectors up to which a search compares all: then its answer hangs on no history
_PROBE: Final = "Which encoder made these vectors?"
_SAME: Final = 0.999  # cosine of what one encoder makes of one text on two machines
_BATCH: Final = 256  # texts that are embedded at a time
_SLICE: Final = 16  # of them, by one thread at a time
_THREADS: Final = 2
_JOBS: Final = 64  # files that wait for a batch at most
_RECENT_NS: Final = 2_000_000_000  # a file so young may change again and keep its size and time
_PENDING: Final = 1_000  # vectors beside a snapshot that make searches slower

Progress = Callable[[int, int, str], None]
"""Is told how many files are done, of how many that have changed, and which one comes next."""


@dataclass(slots=True)
class _Job:
    """A file that was read, until its vectors are there."""

    row: Row
    paragraphs: list[Paragraph]
    digests: list[bytes]
    batch: int = 0  # after which it can be kept
    new: bool = True


def open_index(folder: Path, store: Store, *, make: bool = False) -> KeptIndex | None:
    """The vectors that count; None where there are none, unless they are to be made.

    Raises: DocumentsError where they are damaged, OSError.
    """
    dimension, path = store.meta("dimension"), folder / f"vectors-{store.meta('vectors')}"
    if not dimension or not (make or path.exists()):
        return None
    try:
        return KeptIndex(path, dimension, flat=_FLAT)
    except IndexFileError as error:
        raise DocumentsError(f"{error.message} To index the documents again mends it.") from error


def forget(folder: Path, store: Store, gone: set[bytes]) -> None:
    """Removes vectors for good of which no text is left. O(all). Raises: DocumentsError, OSError."""
    with store.changing():
        index = open_index(folder, store)
        if index is not None:
            index.remove_all(digest.hex() for digest in gone - store.known(gone))
            index.snapshot()


class Syncing:
    """One sync. Nobody else may sync the same library meanwhile; others may withdraw what is in it."""

    def __init__(
        self, folder: Path, store: Store, embed: "Embed | None", progress: Progress, own: Collection[Path]
    ) -> None:
        self._folder, self._store, self._embed, self._progress = folder, store, embed, progress
        self._own = own
        self._reading = Reading()
        self._pool = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), "embed")
        self._synced = Synced()
        self._index: KeptIndex | None = None
        self._jobs: list[_Job] = []
        self._batch: dict[bytes, str] = {}  # texts that are embedded next
        self._begun: dict[bytes, str] = {}  # texts that are being embedded
        self._futures: list[Future[Vectors]] = []
        self._settled = 0  # batches

    def run(self, root: Path) -> Synced:
        """Raises: DocumentsError, OSError. What was done until then stays."""
        try:
            return self._run(root)
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._reading.close()

    def _run(self, root: Path) -> Synced:
        store, synced = self._store, self._synced
        refused: dict[str, str] = {}
        entries = walk(root, refused.__setitem__, self._own)
        known, withdrawn = store.rows(), set(store.withdrawn())
        entries = [entry for entry in entries if entry.document not in withdrawn]
        self._open()
        renewed_ms = store.meta("renewed_ms")
        removed = known.keys() - {entry.document for entry in entries} - refused.keys()
        for document in sorted(removed):
            with store.changing():
                store.drop(document)
            if known[document].paragraphs:
                synced.removed += 1
        for document, why in sorted(refused.items()):
            if document not in withdrawn:
                self._skip(Row(document, skipped=why, again=True), known.get(document))
        changed = []
        for entry in entries:
            row = known.get(entry.document)
            if row is None or _changed(entry, row):
                changed.append(entry)
            else:
                self._keep(row)
        for done, entry in enumerate(changed):
            self._progress(done, len(changed), entry.document)
            self._take(entry, known.get(entry.document))
        self._submit()
        self._settle()
        self._progress(len(changed), len(changed), "")
        self._tidy(bool(removed))
        synced.paragraphs = store.meta("paragraphs")
        synced.renewed = store.meta("renewed_ms") != renewed_ms
        synced.skipped = dict(sorted(synced.skipped.items()))
        return synced

    # --- one file ---

    def _take(self, entry: Entry, known: Row | None) -> None:
        row = Row(entry.document, entry.size, entry.mtime_ns)
        why = refusal(entry.document)
        if not why and entry.size > MOST_BYTES:
            why = f"it has {entry.size / 1e6:.0f} MB: no more than {MOST_BYTES / 1e6:.0f} are read"
        if why:
            self._skip(replace(row, skipped=why), known)
            return
        try:
            content, size, mtime_ns = read_file(entry.file)
        except OSError as error:
            why = f"it cannot be read ({error.strerror or error})"
            self._skip(replace(row, skipped=why, again=True), known)
            return
        recent = time.time_ns() - mtime_ns < _RECENT_NS
        row = replace(row, size=size, mtime_ns=0 if recent else mtime_ns, sha256=sha256(content).digest())
        if known is not None and known.sha256 == row.sha256 and known.readers == READERS and not known.again:
            with self._store.changing():
                self._store.touch(row)
            self._keep(known)
            return
        read = self._reading.read(entry.document, content)
        if read.why:
            self._skip(replace(row, skipped=read.why, again=read.again), known)
            return
        self._add(_Job(row, read.paragraphs, [digest_of(p) for p in read.paragraphs], new=known is None))

    def _keep(self, row: Row) -> None:
        if row.skipped:
            self._synced.skipped[row.path] = row.skipped
        else:
            self._synced.kept += 1

    def _skip(self, row: Row, known: Row | None) -> None:
        if row != known:
            with self._store.changing():
                if row.path not in self._store.withdrawn():
                    self._store.put(row, ())
        if known is not None and known.paragraphs:
            self._synced.removed += 1
        self._synced.skipped[row.path] = row.skipped

    def _add(self, job: _Job) -> None:
        if self._index is not None:
            for digest, paragraph in zip(job.digests, job.paragraphs, strict=True):
                if digest in self._batch or digest in self._begun or digest.hex() in self._index:
                    continue
                self._batch[digest] = embedded(paragraph.heading, paragraph.text)
                if len(self._batch) >= _BATCH:
                    self._submit()
        job.batch = self._settled + bool(self._begun) + bool(self._batch)
        self._jobs.append(job)
        if len(self._jobs) >= _JOBS:
            self._submit()

    def _put(self, job: _Job) -> None:
        with self._store.changing():
            if job.row.path in self._store.withdrawn():
                return
            if self._index is not None:
                self._index.refresh()
                lost = {  # withdrawn with another document since it was made
                    digest: embedded(paragraph.heading, paragraph.text)
                    for digest, paragraph in zip(job.digests, job.paragraphs, strict=True)
                    if digest.hex() not in self._index
                }
                self._keep_vectors(list(lost), [self._embedded(list(lost.values()))] if lost else [])
            self._store.put(job.row, job.paragraphs)
        if job.new:
            self._synced.added += 1
        else:
            self._synced.changed += 1

    # --- vectors ---

    def _open(self) -> None:
        """Opens the index, or begins a new one where there is none that fits; makes what lacks in it."""
        if self._embed is None:
            return
        store = self._store
        probe = np.asarray(self._embed([_PROBE])[0], np.float32)
        before = np.frombuffer(store.meta("probe", b""), np.float32)
        same = before.shape == probe.shape and float(before @ probe) > _SAME
        with suppress(DocumentsError):
            self._index = open_index(self._folder, store, make=True) if same else None
        if self._index is None:
            with store.changing():
                store.set_meta("dimension", len(probe))
                store.set_meta("probe", probe.tobytes())
                store.set_meta("vectors", store.meta("vectors") + 1)
                store.count("generation", 1)
            for old in self._folder.glob("vectors-*"):
                shutil.rmtree(old, ignore_errors=True)
            self._index = open_index(self._folder, store, make=True)
        assert self._index is not None
        if store.meta("texts") != len(self._index):
            names = set(self._index.names())
            for digest in sorted(store.digests()):
                if digest.hex() not in names and (text := store.text_of(digest)) is not None:
                    self._batch[digest] = text
                    if len(self._batch) >= _BATCH:
                        self._submit()
            self._submit()
            self._settle()
            with store.changing():
                store.count("generation", 1)

    def _submit(self) -> None:
        """Begins to embed a batch, once the one before is settled."""
        self._settle()
        self._begun, self._batch = self._batch, {}
        texts = list(self._begun.values())
        slices = [texts[start : start + _SLICE] for start in range(0, len(texts), _SLICE)]
        self._futures = [self._pool.submit(self._embedded, part) for part in slices]

    def _settle(self) -> None:
        """Waits for the batch that was begun, and keeps every file of which all vectors are there."""
        if self._begun:
            self._keep_vectors(list(self._begun), [future.result() for future in self._futures])
            self._begun, self._futures = {}, []
            self._settled += 1
        ready = [job for job in self._jobs if job.batch <= self._settled]
        self._jobs = [job for job in self._jobs if job.batch > self._settled]
        for job in ready:
            self._put(job)

    def _keep_vectors(self, digests: Sequence[bytes], parts: "Sequence[Vectors]") -> None:
        if digests and self._index is not None:
            rows = np.concatenate(parts)
            self._index.add_all((digest.hex(), rows[i : i + 1], 0) for i, digest in enumerate(digests))

    def _embedded(self, texts: Sequence[str]) -> "Vectors":
        assert self._embed is not None
        return self._embed(texts)

    # --- at the end ---

    def _tidy(self, removed: bool) -> None:
        """Removes what no file needs any more; what was removed, or changed, is gone from the disk."""
        store, index = self._store, self._index
        scrubs = removed or bool(store.meta("scrub"))
        if index is not None and store.meta("texts") != len(index):
            with store.changing():
                index.refresh()
                digests = {digest.hex() for digest in store.digests()}
                index.remove_all(name for name in index.names() if name not in digests)
        if index is not None and (scrubs or index.pending > _PENDING):
            index.snapshot()
        if scrubs:
            store.scrub()
        else:
            store.settle()


def _changed(entry: Entry, row: Row) -> bool:
    """Whether a file must be looked into."""
    same = (row.size, row.mtime_ns, row.readers) == (entry.size, entry.mtime_ns, READERS)
    return row.again or not same
