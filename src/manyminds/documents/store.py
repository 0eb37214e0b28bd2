"""What a library keeps in its database: files, paragraphs, their words. Knows no vector and no format.

A text that stands in several places is kept once: `texts` are distinct, `paragraphs` say where they stand.
Words are indexed by SQLite's FTS5, as terms of `words.terms`, so that what is counted in Python is what the
database counts. Deleted content is overwritten; `scrub` removes what segments and free pages still hold.
"""

import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from manyminds.documents.readers import READERS
from manyminds.documents.split import Paragraph
from manyminds.documents.words import terms
from manyminds.errors import DocumentsError

__all__ = ["VERSION", "Row", "Store", "digest_of", "embedded"]

VERSION: Final = 1
"""Of the database. A later one migrates what it finds; an earlier one refuses it."""

_BUSY_S: Final = 60.0
_PRAGMAS: Final = (
    *("journal_size_limit = 16000000", "mmap_size = 1073741824"),
    *("secure_delete = ON", "synchronous = NORMAL"),
)
_SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE files (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    sha256 BLOB NOT NULL, paragraphs INTEGER NOT NULL, skipped TEXT NOT NULL, again INTEGER NOT NULL,
    readers INTEGER NOT NULL
);
CREATE TABLE texts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL UNIQUE, heading TEXT NOT NULL,
    text TEXT NOT NULL, terms INTEGER NOT NULL
);
CREATE TABLE paragraphs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, file INTEGER NOT NULL, number INTEGER NOT NULL,
    text INTEGER NOT NULL
);
CREATE UNIQUE INDEX paragraphs_in_order ON paragraphs (file, number);
CREATE INDEX paragraphs_of_text ON paragraphs (text);
CREATE TABLE words (word TEXT PRIMARY KEY, texts INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE withdrawn (path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE profiles (most INTEGER PRIMARY KEY, generation INTEGER NOT NULL, content BLOB NOT NULL);
CREATE VIRTUAL TABLE found USING fts5 (words, content = '', tokenize = 'ascii');
"""
_COUNTED: Final = ("generation", "paragraphs", "terms", "texts")


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of a file. `skipped` says why it is left out; `again`, to try it at the next sync;
    `readers`, which version of them has read it.
    """

    path: str
    size: int = 0
    mtime_ns: int = 0
    sha256: bytes = b""
    paragraphs: int = 0
    skipped: str = ""
    again: bool = False
    readers: int = READERS


def digest_of(paragraph: Paragraph) -> bytes:
    """What tells a text, heading included, from every other. Pure."""
    return blake2b(f"{paragraph.heading}\0{paragraph.text}".encode(), digest_size=16).digest()


def embedded(heading: str, text: str) -> str:
    """What an encoder is given of a paragraph, and a search looks for words in. Pure."""
    return f"{heading}\n{text}" if heading else text


class Store:
    """The database, open; for one thread at a time. Readers see whole changes only and wait for nobody."""

    def __init__(self, path: Path) -> None:
        """Opens the database, or makes it.

        Raises:
            DocumentsError: It is damaged, no database, or of a newer version.
            OSError: Its folder cannot be made.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with self.explained():
            self.sql = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                self._open()
            except BaseException:
                self.sql.close()
                raise

    def close(self) -> None:
        self.sql.close()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Raises: DocumentsError where within anything is wrong with the database."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise DocumentsError(f"{self._path} cannot be used ({error}).") from error
        except sqlite3.DatabaseError as error:
            raise DocumentsError(
                f"{self._path} is damaged, or no library ({error}): put back a copy of {self._path.parent},"
                " or remove that and index again. Which documents were withdrawn is then lost: before you"
                " index, take them out of the folder that is read."
            ) from error

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What is read within is of one moment. Raises: DocumentsError."""
        with self.explained():
            self.sql.execute("BEGIN")
            try:
                yield
            finally:
                self.sql.execute("COMMIT")

    @contextmanager
    def changing(self) -> Iterator[None]:
        """What is changed within is kept whole, or not at all; waits for other writers.

        Raises: DocumentsError, having changed nothing.
        """
        with self.explained():
            self.sql.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.sql.execute("COMMIT")
            except BaseException:
                if self.sql.in_transaction:
                    self.sql.execute("ROLLBACK")
                raise

    # --- meta ---

    def meta(self, name: str, default: Any = 0) -> Any:
        """A value by its name. Raises: DocumentsError."""
        with self.explained():
            found = self.sql.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return default if found is None else found[0]

    def set_meta(self, name: str, value: Any) -> None:
        self.sql.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def count(self, name: str, more: int) -> None:
        self.sql.execute("UPDATE meta SET value = value + ? WHERE name = ?", (more, name))

    # --- what is there ---

    def rows(self) -> dict[str, Row]:
        """All files that are known, in order of their paths."""
        found = self.sql.execute(
            "SELECT path, size, mtime_ns, sha256, paragraphs, skipped, again, readers FROM files"
            " ORDER BY path"
        )
        return {row[0]: Row(*row) for row in found}

    def withdrawn(self) -> tuple[str, ...]:
        """Paths of documents that are left out for good, in order."""
        return tuple(path for (path,) in self.sql.execute("SELECT path FROM withdrawn ORDER BY path"))

    def digests(self) -> set[bytes]:
        """Of all texts."""
        return {digest for (digest,) in self.sql.execute("SELECT digest FROM texts")}

    def known(self, digests: Iterable[bytes]) -> set[bytes]:
        """Those of them that are of a text."""
        sql = "SELECT 1 FROM texts WHERE digest = ?"
        return {digest for digest in digests if self.sql.execute(sql, (digest,)).fetchone()}

    def text_of(self, digest: bytes) -> str | None:
        """What an encoder is given of a text; None where there is none any more."""
        found = self.sql.execute("SELECT heading, text FROM texts WHERE digest = ?", (digest,)).fetchone()
        return None if found is None else embedded(*found)

    # --- changes ---

    def put(self, row: Row, paragraphs: Sequence[Paragraph]) -> set[bytes]:
        """A file as it is now, in place of what was known of it; the texts that stand nowhere any more."""
        file, before = self._file(row.path)
        values = (row.size, row.mtime_ns, row.sha256, len(paragraphs), row.skipped, row.again, row.readers)
        if file is None:
            columns = "size, mtime_ns, sha256, paragraphs, skipped, again, readers, path"
            file = self.sql.execute(
                f"INSERT INTO files ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - our own words
                (*values, row.path),
            ).lastrowid
        else:
            self.sql.execute(
                "UPDATE files SET size = ?, mtime_ns = ?, sha256 = ?, paragraphs = ?, skipped = ?, again = ?,"
                " readers = ? WHERE id = ?",
                (*values, file),
            )
        texts = self._texts(paragraphs)
        self.sql.execute("DELETE FROM paragraphs WHERE file = ?", (file,))
        self.sql.executemany(
            "INSERT INTO paragraphs (file, number, text) VALUES (?, ?, ?)",
            ((file, number, text) for number, text in enumerate(texts, 1)),
        )
        self.count("paragraphs", len(texts) - len(before))
        self.count("generation", 1)
        gone = set(before) - set(texts)
        if gone:
            self._renewed()
        return self._drop_texts(gone)

    def drop(self, path: str) -> set[bytes]:
        """Forgets a file; the texts that stand nowhere any more."""
        gone = self.put(Row(path), ())
        self.sql.execute("DELETE FROM files WHERE path = ?", (path,))
        return gone

    def touch(self, row: Row) -> None:
        """A file of which only size and time are other ones."""
        self.sql.execute(
            "UPDATE files SET size = ?, mtime_ns = ? WHERE path = ?", (row.size, row.mtime_ns, row.path)
        )

    def withdraw(self, path: str) -> set[bytes]:
        """`drop`, for good."""
        self.sql.execute("INSERT OR IGNORE INTO withdrawn VALUES (?)", (path,))
        return self.drop(path)

    def restore(self, path: str) -> None:
        """Lets a withdrawn document come back with the next sync."""
        self.sql.execute("DELETE FROM withdrawn WHERE path = ?", (path,))

    def settle(self) -> None:
        """Moves what was changed into the database itself, as far as no reader needs it where it is."""
        with self.explained():
            self.sql.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def scrub(self) -> None:
        """Writes all anew, so that nothing of what was deleted is left in any file. O(all).

        Raises: DocumentsError.
        """
        with self.explained():
            self.sql.execute("INSERT INTO found (found) VALUES ('optimize')")
            self.sql.execute("VACUUM")
            self.set_meta("scrub", 0)
            self.sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # --- inside ---

    def _open(self) -> None:
        for pragma in _PRAGMAS:
            self.sql.execute(f"PRAGMA {pragma}")
        version = self.sql.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self.sql.execute("PRAGMA journal_mode = WAL")
            self.sql.execute("BEGIN IMMEDIATE")
            if self.sql.execute("PRAGMA user_version").fetchone()[0] == 0:  # nobody made it meanwhile
                for statement in _SCHEMA.strip().split(";\n"):
                    self.sql.execute(statement)
                self.sql.executemany("INSERT INTO meta VALUES (?, 0)", ((name,) for name in _COUNTED))
                self.sql.execute(f"PRAGMA user_version = {VERSION}")
            self.sql.execute("COMMIT")
        elif version != VERSION:
            raise DocumentsError(
                f"{self._path} is a library of version {version}, and this is version {VERSION}:"
                " update manyminds, or give another folder."
            )

    def _file(self, path: str) -> tuple[int | None, list[int]]:
        found = self.sql.execute("SELECT id FROM files WHERE path = ?", (path,)).fetchone()
        if found is None:
            return None, []
        texts = self.sql.execute("SELECT text FROM paragraphs WHERE file = ? ORDER BY number", found)
        return found[0], [text for (text,) in texts]

    def _texts(self, paragraphs: Iterable[Paragraph]) -> list[int]:
        """The ids of their texts; new ones are made."""
        ids = []
        counts: Counter[str] = Counter()
        for paragraph in paragraphs:
            digest = digest_of(paragraph)
            found = self.sql.execute("SELECT id FROM texts WHERE digest = ?", (digest,)).fetchone()
            if found is None:
                words = terms(embedded(paragraph.heading, paragraph.text))
                found = (self._new_text(digest, paragraph, words),)
                counts.update(set(words))
            ids.append(found[0])
        self._count_words(counts)
        return ids

    def _new_text(self, digest: bytes, paragraph: Paragraph, words: Sequence[str]) -> int:
        made = self.sql.execute(
            "INSERT INTO texts (digest, heading, text, terms) VALUES (?, ?, ?, ?)",
            (digest, paragraph.heading, paragraph.text, len(words)),
        ).lastrowid
        assert made is not None
        self.sql.execute("INSERT INTO found (rowid, words) VALUES (?, ?)", (made, " ".join(words)))
        self.count("texts", 1)
        self.count("terms", len(words))
        return made

    def _drop_texts(self, ids: Iterable[int]) -> set[bytes]:
        """Removes those texts that stand nowhere any more."""
        gone: set[bytes] = set()
        counts: Counter[str] = Counter()
        for text in sorted(ids):
            if self.sql.execute("SELECT 1 FROM paragraphs WHERE text = ? LIMIT 1", (text,)).fetchone():
                continue
            digest, heading, body = self.sql.execute(
                "SELECT digest, heading, text FROM texts WHERE id = ?", (text,)
            ).fetchone()
            words = terms(embedded(heading, body))
            self.sql.execute(
                "INSERT INTO found (found, rowid, words) VALUES ('delete', ?, ?)", (text, " ".join(words))
            )
            self.sql.execute("DELETE FROM texts WHERE id = ?", (text,))
            counts.subtract(set(words))
            self.count("texts", -1)
            self.count("terms", -len(words))
            gone.add(digest)
        self._count_words(counts)
        return gone

    def _count_words(self, counts: Counter[str]) -> None:
        self.sql.executemany(
            "INSERT INTO words VALUES (?, ?) ON CONFLICT (word) DO UPDATE SET texts = texts + excluded.texts",
            sorted(counts.items()),
        )
        if any(more < 0 for more in counts.values()):
            lost = [(word,) for word, more in counts.items() if more < 0]
            self.sql.executemany("DELETE FROM words WHERE word = ? AND texts <= 0", lost)

    def _renewed(self) -> None:
        """Notes that something is gone; nothing made of it stays, nor what is left of it in files."""
        self.sql.execute("DELETE FROM profiles")
        self.set_meta("scrub", 1)
        self.set_meta("renewed_ms", max(time.time_ns() // 1_000_000, self.meta("renewed_ms") + 1))
