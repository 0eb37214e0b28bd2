"""Documents as a person publishes them: read, shown, read again, taken out one by one, and all together."""

import json
import tomllib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from manyminds.documents import Library
from manyminds.ledger import Ledger
from manyminds.node import revocation
from manyminds.node.following import folder_of
from tests.cli.test_cli import manyminds
from tests.pulled import ENCODER, lend, need

TRAVEL = "# Travel\n\nReceipts for business trips are kept for seven years in the finance archive.\n"
GARDEN = "# Garden\n\nTomato seedlings are moved outside in the third week of May, after the last frost.\n"


@pytest.fixture
def papers(home: Path) -> Path:
    """A folder with two documents and something else, in a working directory whose home has the encoder."""
    need(ENCODER)
    lend(home / "home", ENCODER)
    folder = home / "papers"
    folder.mkdir()
    (folder / "travel.md").write_text(TRAVEL)
    (folder / "garden.md").write_text(GARDEN)
    (folder / "noise.txt").write_bytes(bytes(range(256)) * 20)
    return folder


def added(papers: Path, *more: str) -> Any:
    result = manyminds("experts", "add", "--documents", str(papers), "--name", "handbook", *more, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def complaint(*words: str, code: int = 1) -> str:
    result = manyminds("experts", *words)
    assert result.exit_code == code, result.output
    return result.stderr.strip().splitlines()[-1]


def entries(papers: Path) -> list[dict[str, Any]]:
    file = papers.parent / "home" / "experts.toml"
    return list(tomllib.loads(file.read_text()).get("expert", [])) if file.exists() else []


def withdrawals(papers: Path) -> list[tuple[str, str]]:
    with closing(Ledger(f"sqlite:///{papers.parent / 'home' / 'ledger.db'}")) as ledger:
        return [(row["event"], row["expert"]) for row in ledger.withdrawals()]


def paragraphs(papers: Path) -> int:
    with Library(folder_of(papers.parent / "home", "handbook"), None) as library:
        return library.paragraphs


# --- adding ----------------------------------------------------------------------------------------


def test_a_folder_becomes_an_expert(papers: Path) -> None:
    said = added(papers, "--source", "ann", "--cites", "quote", "--watch", "--purpose", "research")
    assert said["kind"] == "documents"
    assert said["path"] == str(papers)
    assert said["probed"] == []
    assert said["indexed"]["added"] == said["indexed"]["paragraphs"] == 2
    assert list(said["indexed"]["skipped"]) == ["noise.txt"]
    assert entries(papers) == [
        {
            "name": "handbook",
            "kind": "documents",
            "path": str(papers),
            "source": "ann",
            "cites": "quote",
            "watch": True,
            "purposes": ["research"],
        }
    ]
    listed = manyminds("experts", "list")
    assert "documents: handbook: 2 paragraphs of 2 documents, 1 left out" in listed.stderr
    shown = json.loads(manyminds("experts", "list", "--json").stdout)
    assert shown["experts"][0]["paragraphs"] == 2
    assert list(shown["documents"][0]["skipped"]) == ["noise.txt"]
    checks = {c["check"]: c for c in json.loads(manyminds("doctor", "--json").stdout)}
    assert checks["handbook"]["ok"], checks["handbook"]


def test_what_is_left_out_is_talk_and_counts_are_data(papers: Path) -> None:
    result = manyminds("experts", "add", "--documents", str(papers), "--name", "handbook")
    assert result.stdout == "handbook: 2 paragraphs; files: 2 added.\n"
    assert "left out: noise.txt: " in result.stderr
    assert "It is not probed" in result.stderr


def test_the_same_again_reads_what_has_changed_and_keeps_what_was_said(papers: Path) -> None:
    added(papers, "--source", "ann")
    (papers / "boats.md").write_text("The ferry Margarethe leaves the north pier at a quarter to eight.\n")
    said = added(papers, "--cites", "none")
    assert (said["indexed"]["added"], said["indexed"]["kept"]) == (1, 2)
    assert [(e["source"], e["cites"]) for e in entries(papers)] == [("ann", "none")]
    assert withdrawals(papers) == []


def test_a_name_is_looked_at_before_anything_is_read(papers: Path) -> None:
    (papers.parent / "manyminds.toml").write_text('[[expert]]\nname = "far"\nurl = "http://h/v1"\n')
    told = complaint("add", "--documents", str(papers), "--name", "far")
    assert "'far' is taken" in told
    assert not folder_of(papers.parent / "home", "far").exists()
    added(papers)
    other = papers.parent / "other"
    other.mkdir()
    assert "'handbook' is taken" in complaint("add", "--documents", str(other), "--name", "handbook")


@pytest.mark.parametrize(
    ("words", "told", "code"),
    [
        (("--documents", "nowhere"), "nowhere is not there", 1),
        (("--documents", "papers", "--writer", "nobody"), "'nobody', which is no expert here", 1),
        (("--documents", "papers", "--name", "papers", "--writer", "papers"), "is itself", 1),
        (("--documents", "papers", "--model", "m"), "--model is for a model", 2),
        (("--documents", "papers", "--offer", "tools"), "--offer is for a model", 2),
        (("--documents", "papers", "http://h/v1"), "nothing else is added", 2),
        (("http://h/v1", "--cites", "none"), "--cites goes with --documents", 2),
        (("--discover", "--watch"), "only models are named", 2),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    papers: Path, words: tuple[str, ...], told: str, code: int
) -> None:
    assert told in complaint("add", *words, code=code)
    assert entries(papers) == []


# --- reading again ---------------------------------------------------------------------------------


def test_what_is_gone_makes_void_what_was_known(papers: Path) -> None:
    added(papers)
    (papers / "garden.md").unlink()
    [said] = json.loads(manyminds("experts", "index", "--json").stdout)
    assert (said["removed"], said["paragraphs"], said["renewed"]) == (1, 1, True)
    assert withdrawals(papers) == [("withdrawn", "handbook"), ("returned", "handbook")]
    word = revocation.read(papers.parent / "home")
    assert word is not None
    assert (word.whole, word.sources) == (False, ())
    assert manyminds("experts", "index", "handbook").exit_code == 0
    assert len(withdrawals(papers)) == 2


def test_a_folder_that_is_away_is_not_gone(papers: Path) -> None:
    added(papers)
    papers.rename(papers.parent / "away")
    assert "is not there" in complaint("index", "handbook")
    assert paragraphs(papers) == 2
    checks = {c["check"]: c for c in json.loads(manyminds("doctor", "--json").stdout)}
    assert not checks["handbook"]["ok"]
    assert "put it back" in checks["handbook"]["found"]
    assert "No expert of documents is named 'x'" in complaint("index", "x")


def test_what_the_program_keeps_is_no_document(papers: Path) -> None:
    home = papers.parent / "home"
    (home / "node.key").write_text("-----BEGIN PRIVATE KEY-----")
    (home / "notes.txt").write_text("The gate opens with the word swordfish.")
    assert added(papers)["indexed"]["added"] == 2
    words = ("experts", "add", "--documents", str(papers.parent), "--name", "all", "--json")
    assert json.loads(manyminds(*words).stdout)["indexed"]["added"] == 2
    with Library(folder_of(home, "all"), None) as library:
        assert {d.path for d in library.documents()} == {f"papers/{p.name}" for p in papers.iterdir()}
    assert "own folder" in complaint("add", "--documents", str(home), "--name", "own")
    assert len(entries(papers)) == 2


def test_what_it_is_configured_by_and_records_in_is_no_document(papers: Path) -> None:
    (papers / "manyminds.toml").write_text(f'[ledger]\nurl = "sqlite:///{papers}/book"\n')
    words = ("--config", str(papers / "manyminds.toml"), "experts")
    said = json.loads(manyminds(*words, "add", "--documents", str(papers), "--name", "all", "--json").stdout)
    assert said["indexed"]["added"] == 2
    result = manyminds(*words, "index", "all", "--json")
    assert (papers / "book").exists()
    own = {name: why for name, why in json.loads(result.stdout)[0]["skipped"].items() if name != "noise.txt"}
    assert set(own) >= {"book", "manyminds.toml"}
    assert set(own.values()) == {"it is the program's own"}


# --- taking out ------------------------------------------------------------------------------------


def test_one_document_is_taken_out_and_taken_back(papers: Path) -> None:
    added(papers)
    words = ("experts", "remove", "handbook", "--document", "garden.md")
    said = json.loads(manyminds(*words, "--json").stdout)
    assert said == {"name": "handbook", "withdrawn": ["garden.md"], "paragraphs": 1}
    assert withdrawals(papers) == [("withdrawn", "handbook"), ("returned", "handbook")]
    assert (papers / "garden.md").read_text() == GARDEN
    assert manyminds("experts", "index").stdout.startswith("handbook: 1 paragraph;")
    assert "handbook: 1 paragraph of 1 document, 1 left out, 1 withdrawn" in (
        manyminds("experts", "list").stderr
    )
    assert "mean travel.md" in complaint("remove", "handbook", "--document", "travl.md")
    said = json.loads(manyminds(*words, "--undo", "--json").stdout)
    assert said == {"name": "handbook", "returned": ["garden.md"], "paragraphs": 1}
    assert paragraphs(papers) == 2
    assert "was not withdrawn" in complaint("remove", "handbook", "--document", "garden.md", "--undo")
    assert "the NAME of one expert" in complaint("remove", "--document", "garden.md", code=2)


def test_documents_are_taken_out_all_or_none(papers: Path) -> None:
    added(papers)
    words = ("remove", "handbook", "--document", "garden.md", "--document", "nosuch.md")
    assert "no document 'nosuch.md'" in complaint(*words)
    assert paragraphs(papers) == 2
    assert manyminds("experts", "remove", "handbook", "--document", "garden.md").exit_code == 0
    assert "'nosuch.md' was not withdrawn" in complaint(*words, "--undo")
    papers.rename(papers.parent / "away")
    assert "is not there" in complaint("remove", "handbook", "--document", "garden.md", "--undo")
    (papers.parent / "away").rename(papers)
    assert json.loads(manyminds("experts", "index", "--json").stdout)[0]["paragraphs"] == 1


def test_what_was_read_for_nobody_is_deleted_too(papers: Path) -> None:
    added(papers)
    (papers.parent / "home" / "experts.toml").unlink()
    result = manyminds("experts", "remove", "handbook")
    assert result.exit_code == 0
    assert "What was read of documents is deleted: handbook" in result.stderr
    assert not folder_of(papers.parent / "home", "handbook").exists()


def test_a_library_that_is_damaged_hides_no_others(papers: Path) -> None:
    added(papers)
    (folder_of(papers.parent / "home", "handbook") / "library.sqlite").write_bytes(b"no library" * 900)
    assert "is damaged" in complaint("index", "handbook")
    result = manyminds("experts", "list", "--json")
    assert result.exit_code == 0
    [told] = json.loads(result.stdout)["documents"]
    assert "is damaged" in told["problem"]
    assert "documents: handbook: " in manyminds("experts", "list").stderr


def test_all_is_deleted_but_the_documents(papers: Path) -> None:
    added(papers, "--source", "ann")
    home = papers.parent / "home"
    assert folder_of(home, "handbook").exists()
    result = manyminds("experts", "remove", "--source", "ann")
    assert result.exit_code == 0
    assert "What was read of documents is deleted: handbook" in result.stderr
    assert not folder_of(home, "handbook").exists()
    assert sorted(p.name for p in papers.iterdir()) == ["garden.md", "noise.txt", "travel.md"]
    assert entries(papers) == []
    assert revocation.read(home) is not None


def test_it_is_not_probed(papers: Path) -> None:
    added(papers)
    assert "answers from documents" in complaint("probe", "handbook")
