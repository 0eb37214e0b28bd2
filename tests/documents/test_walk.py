"""Which files are looked at: real links, pipes and names."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from manyminds.documents.walk import walk
from manyminds.errors import DocumentsError
from tests.documents.made import write


def names(root: Path, *own: Path) -> tuple[list[str], dict[str, str]]:
    skipped: dict[str, str] = {}
    return [entry.document for entry in walk(root, skipped.__setitem__, own)], skipped


def test_hidden_files_and_noise_are_left_out_silently(tmp_path: Path) -> None:
    noise = [".git/a", ".hidden", "node_modules/a.js", "x/__pycache__/a.py", "~$word.docx", "old.txt~"]
    root = write(
        tmp_path / "docs", dict.fromkeys([*noise, "venv/pyvenv.cfg", "venv/a.py", "b.txt", "a/b.txt"], "")
    )
    assert names(root) == (["a/b.txt", "b.txt"], {})


def test_links_are_followed_inside_only(tmp_path: Path) -> None:
    root = write(tmp_path / "docs", {"a.txt": "1", "b/c.txt": "2", ".h/d.txt": "3"})
    write(tmp_path / "other", {"secret.txt": "4"})
    (root / "link.txt").symlink_to("b/c.txt")
    (root / "out.txt").symlink_to(tmp_path / "other/secret.txt")
    (root / "outside").symlink_to(tmp_path / "other")
    (root / "b/loop").symlink_to(root)
    (root / "self").symlink_to("self")
    (root / "lost.txt").symlink_to("nowhere.txt")
    (root / "shown").symlink_to(".h")
    found, skipped = names(root)
    assert found == ["a.txt", "b/c.txt", "link.txt", "shown/d.txt"]
    outside = "it is a link to what lies outside of the folder"
    assert (skipped.pop("out.txt"), skipped.pop("outside")) == (outside, outside)
    assert skipped.keys() == {"lost.txt", "self"}


def test_pipes_sockets_and_odd_names_do_no_harm(tmp_path: Path) -> None:
    root = write(tmp_path / "docs", {"a\nb.txt": "", "ü.txt": ""})
    os.mkfifo(root / "pipe.txt")
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.txt")).write_text("x")
    with socket.socket(socket.AF_UNIX) as listening, tempfile.TemporaryDirectory() as short:
        listening.bind(f"{short}/s")
        os.rename(f"{short}/s", root / "socket")
        found, skipped = names(root)
    assert found == ["a\nb.txt", "caf\\xe9.txt", "ü.txt"]
    assert skipped == dict.fromkeys(["pipe.txt", "socket"], "it is no regular file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path) -> None:
    root = write(tmp_path / "docs", {"a.txt": "", "b/c.txt": ""})
    (root / "b").chmod(0)
    assert names(root) == (["a.txt"], {"b": "it cannot be listed (Permission denied)"})


def test_the_librarys_own_folder_is_no_document(tmp_path: Path) -> None:
    root = write(tmp_path / "docs", {"a.txt": "", "library/b.txt": ""})
    assert names(root, root / "library") == (["a.txt"], {})
    with pytest.raises(DocumentsError, match="own folder"):
        names(root / "library", root / "library")


def test_no_link_leads_into_the_librarys_own_folder(tmp_path: Path) -> None:
    root = write(tmp_path / "docs", {"a.txt": "", "home/b.txt": "", "home/documents/c.txt": ""})
    (root / "link.txt").symlink_to("home/b.txt")
    (root / "deep").symlink_to("home/documents")
    found, skipped = names(root, root / "home")
    assert found == ["a.txt"]
    assert skipped == dict.fromkeys(["deep", "link.txt"], "it is the program's own")


def test_files_of_its_own_are_no_documents_whatever_leads_to_them(tmp_path: Path) -> None:
    root = write(tmp_path / "docs", {"a.txt": "", "manyminds.toml": "key", "sub/b.txt": ""})
    (root / "link.txt").symlink_to("manyminds.toml")
    (root / "sub/hard.txt").hardlink_to(root / "manyminds.toml")
    found, skipped = names(root, root / "manyminds.toml", root / "nowhere.toml")
    assert found == ["a.txt", "sub/b.txt"]
    assert skipped == dict.fromkeys(["link.txt", "manyminds.toml", "sub/hard.txt"], "it is the program's own")


def test_what_a_process_prints_into_is_no_document(tmp_path: Path) -> None:
    root = write(tmp_path / "docs", {"a.txt": ""})
    code = "from tests.documents.test_walk import Path, names, sys; print(names(Path(sys.argv[1])))"
    with (root / "node.log").open("w") as log, (root / "errors.log").open("w") as errors:
        subprocess.run([sys.executable, "-c", code, str(root)], stdout=log, stderr=errors, check=True)
    why = "this program writes into it"
    assert (root / "node.log").read_text() == f"{(['a.txt'], {'errors.log': why, 'node.log': why})}\n"


def test_a_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DocumentsError, match="No such file"):
        names(tmp_path / "nowhere")
