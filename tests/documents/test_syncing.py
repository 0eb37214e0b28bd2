"""A folder into a library: what is hostile does no harm, and what is killed goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from manyminds.documents import Library, readers, reading, store, syncing
from manyminds.errors import DocumentsError
from tests.documents.made import content, embed, shown, write
from tests.documents.papers import pdf, word

if TYPE_CHECKING:
    from manyminds.types import Embed, Vectors

GOOD = {"good.txt": "The only good document in this folder, and it is found.\n"}


def start(code: str, *arguments: object) -> "subprocess.Popen[str]":
    """A process of its own, in which `Library`, `embed` and `Path` are known."""
    head = "import sys, time\nfrom pathlib import Path\nfrom manyminds.documents import Library\n"
    head += "from tests.documents.made import embed\n"
    root = Path(__file__).resolve().parents[2]
    paths = os.pathsep.join([str(root / "src"), str(root)])
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": paths},
    )


def found(library: Library, question: str) -> list[str]:
    return [passage.document for passage in library.search(question, embed([question])[0]).passages]


# --- hostile files ---------------------------------------------------------------------------------


def test_what_is_hostile_is_named_and_does_no_harm(tmp_path: Path) -> None:
    root = write(tmp_path / "docs", {**GOOD, "empty.txt": ""})
    with (root / "big.txt").open("wb") as file:
        file.truncate(200_000_000)
    (root / "binary.txt").write_bytes(os.urandom(5_000))
    (root / "cut.pdf").write_bytes(pdf([["Some words."]])[:150])
    (root / "picture.png").write_bytes(b"\x89PNG")
    (root / "passwd.txt").symlink_to("/etc/passwd")
    os.mkfifo(root / "pipe.txt")
    os.truncate(root / "big.txt", 200_000_000)
    with Library(tmp_path / "library", embed) as library:
        synced = library.sync(root)
        assert synced.skipped.keys() == {
            *("big.txt", "binary.txt", "cut.pdf", "passwd.txt", "picture.png", "pipe.txt")
        }
        assert synced.skipped["big.txt"] == "it has 200 MB: no more than 50 are read"
        assert (synced.added, synced.paragraphs) == (2, 1)
        assert found(library, "good document") == ["good.txt"]
        rows = {document.path: document for document in library.documents()}
        assert {path: row.skipped for path, row in rows.items() if row.skipped} == synced.skipped
        generation = library.generation
        again = library.sync(root)
        assert (again.skipped, again.kept) == (synced.skipped, 2)
        assert library.generation == generation


def test_documents_of_all_kinds_are_found(tmp_path: Path) -> None:
    root = write(
        tmp_path / "docs", {"a.html": "<h1>Sea</h1><p>Tides rise twice a day.", "b.py": "def ebb():\n    1"}
    )
    (root / "c.pdf").write_bytes(pdf([["Neap tides are the smallest."]]))
    (root / "d.docx").write_bytes(word([("Heading 1", "Moon"), ("Normal", "Spring tides are the largest.")]))
    with Library(tmp_path / "library", embed) as library:
        assert library.sync(root).added == 4
        assert found(library, "smallest")[0] == "c.pdf"
        assert found(library, "largest")[0] == "d.docx"
        assert found(library, "ebb")[0] == "b.py"


def test_what_becomes_unreadable_is_taken_out(tmp_path: Path) -> None:
    root = write(tmp_path / "docs", {**GOOD, "turns.txt": "At first these are words that can be read.\n"})
    with Library(tmp_path / "library", embed) as library:
        library.sync(root)
        (root / "turns.txt").write_bytes(b"\0\1\2" * 100)
        synced = library.sync(root)
        assert (synced.removed, synced.renewed, synced.paragraphs) == (1, True, 1)
        assert synced.skipped == {"turns.txt": "it is no text: it has zero bytes"}
        assert library.search("words", None).unknown == ("words",)
        (root / "turns.txt").write_text("Words again, as they were before.\n")
        assert library.sync(root).changed == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_tried_again(tmp_path: Path) -> None:
    root = write(tmp_path / "docs", GOOD)
    (root / "good.txt").chmod(0)
    with Library(tmp_path / "library", embed) as library:
        assert library.sync(root).skipped == {"good.txt": "it cannot be read (Permission denied)"}
        (root / "good.txt").chmod(0o600)
        assert library.sync(root).paragraphs == 1


def test_a_reader_that_dies_or_hangs_costs_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rogue = lambda: reading.Reading(wall_s=2.0, module="tests.documents.rogue")  # noqa: E731
    monkeypatch.setattr(syncing, "Reading", rogue)
    root = write(tmp_path / "docs", {"a.txt": "die", "b.txt": "hang", **GOOD})
    with Library(tmp_path / "library", embed) as library:
        synced = library.sync(root)
        assert synced.skipped["a.txt"].startswith("the process that read it ended")
        assert synced.skipped["b.txt"] == "reading it took more than 2 seconds"
        assert synced.added == 1


# --- only what changed -----------------------------------------------------------------------------


def counting(texts: list[str]) -> "Embed":
    def count(asked: Sequence[str]) -> "Vectors":
        texts.extend(asked)
        return embed(asked)

    return count


def test_only_new_paragraphs_are_embedded(tmp_path: Path) -> None:
    """A file that is renamed or copied, and paragraphs that only move, cost no computation."""
    parts = [f"## Part {i}\n\nThis is what the part of number {i} says." for i in range(5)]
    root = write(tmp_path / "docs", {"a.md": "\n\n".join(parts)})
    texts: list[str] = []
    with Library(tmp_path / "library", counting(texts)) as library:
        library.sync(root)
        assert len(texts) == 6  # and one to know the encoder by
        write(root, {"b.md": "\n\n".join(["## New\n\nThis is new.", *parts])})
        synced = library.sync(root)
        assert (synced.added, synced.removed, len(texts)) == (1, 1, 8)
        os.utime(root / "b.md")
        assert library.sync(root).kept == 1
        assert library.sync(root).kept == 1
        assert len(texts) == 10


def test_a_file_of_the_same_size_and_time_is_seen_to_change(tmp_path: Path) -> None:
    root = write(tmp_path / "docs", {"a.txt": "Words of one kind."})
    with Library(tmp_path / "library", embed) as library:
        library.sync(root)
        before = (root / "a.txt").stat()
        (root / "a.txt").write_text("Words of all sort.")
        os.utime(root / "a.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
        assert library.sync(root).changed == 1


def test_new_readers_read_all_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "docs", GOOD)
    with Library(tmp_path / "library", embed) as library:
        library.sync(root)
        monkeypatch.setattr(syncing, "READERS", readers.READERS + 1)
        monkeypatch.setattr(syncing, "Row", partial(store.Row, readers=readers.READERS + 1))
        assert library.sync(root).changed == 1
        assert library.sync(root).kept == 1


# --- crashes and other processes -------------------------------------------------------------------

SLOW = """
def slow(texts):
    time.sleep(0.02 * len(texts))
    print("embedded", flush=True)
    return embed(texts)
Library(Path(sys.argv[1]), slow).sync(Path(sys.argv[2]))
"""


@pytest.mark.parametrize("batches", [1, 3, 9])
def test_what_is_killed_goes_on_where_it_was(
    tmp_path: Path, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{i:03}.md": f"# {i}\n\nThe document of number {i} says {i * i}.\n" for i in range(300)}
    root = write(tmp_path / "docs", files)
    process = start(SLOW, tmp_path / "library", root)
    assert process.stdout is not None
    for _ in range(batches):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    texts: list[str] = []
    with Library(tmp_path / "library", counting(texts)) as library, Library(tmp_path / "new", embed) as new:
        for document in library.documents():
            assert document.paragraphs == 1
        synced = library.sync(root)
        new.sync(root)
        assert synced.added + synced.kept == 300
        assert batches < 9 or len(texts) < 300
        question = "Which document says 49?"
        vector = embed([question])[0]
        assert shown(library.search(question, vector)) == shown(new.search(question, vector))
        assert content(library) == content(new)


def test_a_second_sync_says_that_there_is_a_first(tmp_path: Path) -> None:
    root = write(tmp_path / "docs", {f"{i}.txt": f"Number {i}." for i in range(200)})
    process = start(SLOW, tmp_path / "library", root)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        with (
            Library(tmp_path / "library", embed) as library,
            pytest.raises(DocumentsError, match="Another process is indexing"),
        ):
            library.sync(root)
    finally:
        process.kill()
        process.communicate()


def test_a_reader_sees_whole_documents_while_others_write(tmp_path: Path) -> None:
    """Each version of the document has three paragraphs with one number: never are two numbers seen."""
    root = tmp_path / "docs"
    write(root, {"a.md": ""})
    code = """
root = Path(sys.argv[2])
with Library(Path(sys.argv[1]), embed) as library:
    for i in range(12):
        parts = [f"## Part {k}\\n\\nvalue v{i} of part {k} in full" for k in range(3)]
        (root / "a.md").write_text("\\n\\n".join(parts))
        library.sync(root)
        print(i, flush=True)
"""
    process = start(code, tmp_path / "library", root)
    assert process.stdout is not None
    process.stdout.readline()
    with Library(tmp_path / "library", embed) as library:
        seen, generation = set[str](), 0
        while process.poll() is None or len(seen) == 0:
            passages = library.search("value part", embed(["value part"])[0]).passages
            values = {passage.text.split()[1] for passage in passages}
            assert len(passages) == 3
            assert len(values) == 1
            assert all(passage.cosine for passage in passages)
            seen |= values
            assert library.generation >= generation
            generation = library.generation
        assert found(library, "v11") == ["a.md"] * 3
    process.communicate()


def test_what_is_withdrawn_while_a_sync_runs_stays_out(tmp_path: Path) -> None:
    root = write(tmp_path / "docs", {f"{i}.txt": f"Number {i} and more." for i in range(60)})
    with Library(tmp_path / "library", embed) as library:
        library.sync(root)
        (root / "7.txt").write_text("Number 7 has changed.")
        begun: list[bool] = []

        def slow(texts: Sequence[str]) -> "Vectors":
            begun.append(True)
            time.sleep(0.3)
            return embed(texts)

        with Library(tmp_path / "library", slow) as other:
            syncing = Thread(target=other.sync, args=(root,))
            syncing.start()
            while not begun:
                time.sleep(0.01)
            assert library.withdraw("7.txt") == 1
            syncing.join()
            assert found(other, "Number 7 has changed")[0] != "7.txt"
            assert other.search("changed", None).unknown == ("changed",)


def test_threads_may_search_at_once(tmp_path: Path) -> None:
    root = write(tmp_path / "docs", GOOD)
    with Library(tmp_path / "library", embed) as library:
        library.sync(root)
        answers: list[list[str]] = []
        threads = [Thread(target=lambda: answers.append(found(library, "good"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [["good.txt"]] * 8
