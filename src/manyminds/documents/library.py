"""A library: what an owner's folder of documents says, found by words and by meaning. Knows no expert.

One folder of the program's own holds it:

    library.sqlite   files, paragraphs and their words
    vectors-1/       an index of what the paragraphs mean
    LOCK             held by whoever syncs

Several processes may have it open: one syncs, all search, and each sees whole documents only.
"""

import fcntl
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from manyminds.documents import find, portrait
from manyminds.documents.nouns import Document, Found, Profile, Synced
from manyminds.documents.store import Store
from manyminds.documents.syncing import Progress, Syncing, forget, open_index
from manyminds.errors import DocumentsError
from manyminds.index import KeptIndex

if TYPE_CHECKING:
    from manyminds.types import Embed, Vectors

__all__ = ["Library"]

_FILE: Final = "library.sqlite"


def _silent(done: int, total: int, document: str) -> None:
    pass


class Library:
    """An owner's documents, to be searched. Thread-safe. A context manager.

    Where a text stands in several places it is kept and embedded once. What a search or a profile says
    follows from the paragraphs that there are, whatever came and went before.
    """

    def __init__(self, folder: Path, embed: "Embed | None", own: Collection[Path] = ()) -> None:
        """Opens the library in `folder`, or makes it.

        Args:
            folder: of the program's own, not the owner's.
            embed: makes vectors when documents are synced, from several threads at once; None: found by
                words alone. One without a cache is best, such as that of `Encoder(..., cache_size=0)`.
            own: further folders and files of the program's own: they hold no document, even where they lie
                among the documents.

        Raises:
            DocumentsError: It is damaged, or of a newer version.
            OSError: It cannot be made.
        """
        self._folder, self._embed = folder, embed
        self._own = tuple(path.resolve() for path in (folder, *own))
        self._lock = Lock()
        self._store = Store(folder / _FILE)
        self._index: KeptIndex | None = None
        self._seen = (-1, -1)  # generation, and which vectors

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            self._store.close()
            self._index = None

    # --- what is there ---

    @property
    def generation(self) -> int:
        """Grows with every change, whichever process made it. Cheap. Raises: DocumentsError."""
        with self._lock:
            return int(self._store.meta("generation"))

    @property
    def renewed_ms(self) -> int:
        """When something that was there was last taken out or changed: ms since 1970, 0 for never."""
        with self._lock:
            return int(self._store.meta("renewed_ms"))

    @property
    def paragraphs(self) -> int:
        """How many there are."""
        with self._lock:
            return int(self._store.meta("paragraphs"))

    @property
    def withdrawn(self) -> tuple[str, ...]:
        """Documents that stay out although they may lie in the folder, in order."""
        with self._lock, self._store.reading():
            return self._store.withdrawn()

    def keeps(self, path: Path) -> bool:
        """Whether what is there is the program's own, so that no document has changed where that has."""
        real = path.resolve()
        return any(real.is_relative_to(one) for one in self._own)

    def documents(self) -> tuple[Document, ...]:
        """All files that are known, in order; withdrawn ones are not among them. Raises: DocumentsError."""
        with self._lock, self._store.reading():
            rows = self._store.rows().values()
        return tuple(Document(row.path, row.paragraphs, row.skipped) for row in rows)

    def search(self, question: str, vector: "Vectors | None", limit: int = 8) -> Found:
        """The best passages for a question, by its words and by its vector (d,).

        BM25 and cosine each name 50 texts; the score is 0.35 of the coverage and 0.65 of the cosine, or BM25
        where there is no vector. Of a text that stands in several places the first place has all of its
        score, the second half of it, and so on. Same paragraphs, same question: the same passages.

        Raises:
            DocumentsError: The library is damaged, or its vectors are of another encoder.
            ValueError: `limit` is below 1, or the vector has no direction.
        """
        if limit < 1:
            raise ValueError(f"limit is {limit}; it must be at least 1")
        with self._lock, self._store.reading():
            return find.search(self._store, self._vectors(vector), question, vector, limit)

    def profile(self, most: int = 64) -> Profile:
        """Where its knowledge lies, by at most `most` centroids; the same paragraphs make the same one.

        Kept until something changes. O(paragraphs) otherwise. Raises: DocumentsError, OSError.
        """
        with self._opened() as store:
            with store.reading():
                kept = portrait.kept(store, most)
                if kept is not None:
                    return kept
                generation = store.meta("generation")
                made = portrait.made(store, open_index(self._folder, store), most)
            with store.changing():
                portrait.keep(store, generation, most, made)
            return made

    # --- changes ---

    def sync(self, root: Path, progress: Progress = _silent) -> Synced:
        """Makes the library hold what the files below `root`, or the file `root`, hold now.

        Only what changed is read. Each file is kept by itself: killed at any moment, it loses a second's
        work, and the next call goes on. A file that cannot be read is named in `Synced.skipped`.

        Raises:
            DocumentsError: There is no such folder, another process syncs this library, or it is damaged.
            OSError: The library cannot be written.
        """
        with self._alone(), self._opened() as store:
            return Syncing(self._folder, store, self._embed, progress, self._own).run(root)

    def withdraw(self, document: str) -> int:
        """Takes a document out for good; how many paragraphs it had. 0 where it was withdrawn before.

        Its words and vectors are gone from the library's files when the call returns, and the next sync
        leaves it out though it may lie in the folder. O(library).

        Raises:
            DocumentsError: There is no such document; the message names what is called alike.
        """
        with self._opened() as store:
            with store.changing():
                row = store.rows().get(document)
                if row is None and document in store.withdrawn():
                    return 0
                if row is None:
                    raise DocumentsError(_unknown("document", document, store.rows()))
                store.set_meta("scrub", 1)
                gone = store.withdraw(document)
            forget(self._folder, store, gone)
            store.scrub()
            return row.paragraphs

    def restore(self, document: str) -> None:
        """Lets a withdrawn document in again, with the next sync. Raises: DocumentsError as `withdraw`."""
        with self._opened() as store, store.changing():
            if document not in store.withdrawn():
                raise DocumentsError(_unknown("withdrawn document", document, store.withdrawn()))
            store.restore(document)

    # --- inside ---

    def _vectors(self, vector: "Vectors | None") -> KeptIndex | None:
        """The index as new as what is read; only what changed is opened."""
        if vector is None:
            return None
        seen = self._store.meta("generation"), self._store.meta("vectors")
        if seen[1] != self._seen[1] or (self._index is None and seen != self._seen):
            self._index = open_index(self._folder, self._store)
        elif self._index is not None and seen != self._seen:
            self._index.refresh()
        self._seen = seen
        dimension = self._store.meta("dimension")
        if dimension and vector.size != dimension:
            raise DocumentsError(
                f"{self._folder} has vectors of {dimension} numbers, the question {vector.size}:"
                " index the documents again, with the encoder of the questions."
            )
        return self._index

    @contextmanager
    def _opened(self) -> Iterator[Store]:
        """A connection of its own, so that searches go on meanwhile."""
        store = Store(self._folder / _FILE)
        try:
            with store.explained():
                yield store
        finally:
            store.close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self._folder / "LOCK").open("a") as file:  # closing it gives the lock back, as does a crash
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DocumentsError(
                    f"Another process is indexing into {self._folder}: wait until it is done."
                ) from None
            yield


def _unknown(kind: str, document: str, known: Iterable[str]) -> str:
    near = get_close_matches(document, list(known), 3)
    named = " or ".join(name if name.isprintable() else repr(name) for name in near)
    hint = f" Did you mean {named}?" if near else ""
    return f"There is no {kind} {document!r}.{hint}"
