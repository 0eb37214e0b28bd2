"""The process that reads: it is killed when it hangs, replaced when it dies, and believed in nothing."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from manyminds.documents.reading import MOST_BYTES, Reading, read_file
from manyminds.documents.split import Paragraph

ROGUE = "tests.documents.rogue"


@pytest.fixture
def reading() -> Iterator[Reading]:
    with Reading(module=ROGUE) as reading:
        yield reading


def good(reading: Reading) -> bool:
    return reading.read("a.txt", b"Good words.").paragraphs == [Paragraph("", "Good words.")]


def test_one_process_reads_many_files() -> None:
    with Reading() as reading:
        first = reading.read("a.md", b"# A\n\nWords.")
        assert (first.paragraphs, first.why) == ([Paragraph("A", "Words.")], "")
        assert reading.read("a.txt", b"\0").why == "it is no text: it has zero bytes"
        assert reading.read("a.pdf", b"%PDF-1.4 garbage").why.startswith(
            "it is damaged, or not what its name"
        )
        assert reading.read("a.docx", b"PK").why == "it is damaged: no Word document"
        assert reading.read("a.html", b"<p>" * 200_000 + b"x").why in ("", "it is nested too deeply")
        assert reading.read("a.txt", b"x " * 3_000_000).paragraphs


@pytest.mark.parametrize("word", ["die", "eat", "lie"])
def test_a_process_that_fails_is_replaced(reading: Reading, word: str) -> None:
    assert good(reading)
    assert reading.read("b.txt", word.encode()).why.startswith("the process that read it ended")
    assert good(reading)


def test_a_process_that_hangs_is_killed() -> None:
    with Reading(module=ROGUE, wall_s=1.0) as reading:
        assert reading.read("b.txt", b"hang").why == "reading it took more than 1 seconds"
    with Reading(module=ROGUE) as reading:
        assert good(reading)


def test_what_it_says_is_limited(reading: Reading) -> None:
    assert reading.read("b.txt", b"flood").why == "it holds more text than is read of one file"
    assert good(reading)


def test_it_sees_nothing_of_the_environment(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    (said,) = reading.read("b.txt", b"look").paragraphs
    assert "OPENAI_API_KEY" not in said.text
    assert "PYTHONPATH" in said.text


def test_a_package_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pypdf.py").write_text("raise ModuleNotFoundError(name='pypdf')")
    monkeypatch.syspath_prepend(tmp_path)
    with Reading() as reading:
        reply = reading.read("a.pdf", b"%PDF-1.4")
    assert reply.why == "to read it needs pypdf: pip install 'manyminds[documents]'"
    assert reply.again


def test_what_grows_while_it_is_read_is_not_read_by_halves(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"x" * 20_000_000)
    done = threading.Event()

    def grow() -> None:
        with path.open("ab") as file:
            while not done.is_set():
                file.write(b"y" * 1000)
                file.flush()

    growing = threading.Thread(target=grow)
    growing.start()
    try:
        content, size, _ = read_file(str(path))
        assert len(content) == size
    except OSError as error:
        assert str(error) == "it changed while it was read"  # noqa: PT017
    finally:
        done.set()
        growing.join()


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "link").symlink_to("a.txt")
    with pytest.raises(OSError, match="symbolic links"):
        read_file(str(tmp_path / "link"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        read_file(str(tmp_path / "pipe"))
    with (tmp_path / "big").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(OSError, match="changed"):
        read_file(str(tmp_path / "big"))


def test_a_folder_that_became_a_link_since_it_was_listed_is_not_followed(tmp_path: Path) -> None:
    for name in ("docs/sub", "secret"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.txt").write_text(name)
    file = tmp_path / "docs/sub/a.txt"
    assert read_file(str(file))[0] == b"docs/sub"
    (tmp_path / "docs/sub").rename(tmp_path / "docs/before")
    (tmp_path / "docs/sub").symlink_to(tmp_path / "secret")
    assert file.read_text() == "secret"
    with pytest.raises(OSError, match=r"ot a directory|symbolic links"):
        read_file(str(file))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_above_need_not_be_listable(tmp_path: Path) -> None:
    (tmp_path / "home/docs").mkdir(parents=True)
    (tmp_path / "home/docs/a.txt").write_text("x")
    (tmp_path / "home").chmod(0o100)
    try:
        assert read_file(str(tmp_path / "home/docs/a.txt"))[0] == b"x"
    finally:
        (tmp_path / "home").chmod(0o700)
