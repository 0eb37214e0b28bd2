"""The library: what it finds, what it forgets, and that both follow from what lies in the folder."""

import math
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyminds.documents import Document, Library
from manyminds.documents.portrait import keep
from manyminds.documents.store import Store
from manyminds.documents.words import terms
from manyminds.errors import DocumentsError
from tests.documents.made import D, content, embed, paths_holding, shown, write
from tests.pulled import MINILM, needs_encoder

FILES = {
    "moon.md": "# Moon\n\nThe moon is a rock that circles the earth once in 27 days.\n\n"
    "## Tides\n\nTides rise twice a day because the moon pulls the water of the sea.\n",
    "tea/green.txt": "Green tea is brewed at 70 degrees, for two minutes, and is never boiled.\n",
    "tea/black.txt": "Black tea is brewed with boiling water, for three to five minutes.\n",
}


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library(tmp_path / "library", embed) as library:
        library.sync(write(tmp_path / "docs", FILES))
        yield library


def ask(library: Library, question: str, limit: int = 8) -> list[str]:
    return [passage.document for passage in library.search(question, embed([question])[0], limit).passages]


# --- finding ---------------------------------------------------------------------------------------


def test_a_passage_says_where_it_stands(library: Library) -> None:
    found = library.search("why do tides rise?", embed(["why do tides rise?"])[0])
    best = found.passages[0]
    assert (best.document, best.heading, best.paragraph) == ("moon.md", "Moon > Tides", 2)
    assert best.text.startswith("Tides rise twice a day")
    assert found.paragraphs == 4
    assert found.unknown == ()
    assert best.coverage == 1.0
    assert best.bm25 > 0
    assert len({passage.id for passage in found.passages}) == len(found.passages) == 4
    scores = [passage.score for passage in found.passages]
    assert scores == sorted(scores, reverse=True)


def test_every_number_is_there_whoever_found_it(library: Library) -> None:
    question = "tides"
    found = library.search(question, embed([question])[0])
    for passage in found.passages:
        text = f"{passage.heading}\n{passage.text}" if passage.heading else passage.text
        cosine = float(embed([text])[0] @ embed([question])[0])
        assert passage.cosine == pytest.approx(cosine, abs=1e-6)
        assert (passage.bm25 > 0) == (passage.coverage > 0) == ("tides" in text.lower())


def test_words_that_are_nowhere_are_named_and_lower_the_coverage(library: Library) -> None:
    found = library.search("Do Zeppelins cause tides, zeppelin?", None)
    assert found.unknown == ("zeppelins", "cause")
    assert 0 < found.passages[0].coverage < 0.5


def test_bm25_is_okapis(library: Library) -> None:
    """Held against the database's own, whose inverse document frequency may be negative where ours is not."""
    moon, tides = FILES["moon.md"].split("## ")
    parts = [moon.replace("#", ""), f"Moon {tides}", FILES["tea/green.txt"], FILES["tea/black.txt"]]
    texts = [" ".join(terms(part)) for part in parts]
    with sqlite3.connect(":memory:") as sql:
        sql.execute("CREATE VIRTUAL TABLE t USING fts5 (words)")
        sql.executemany("INSERT INTO t VALUES (?)", ((text,) for text in texts))
        (expected,) = sql.execute("SELECT -bm25(t) FROM t WHERE t MATCH 'degre'").fetchone()
    (passage,) = library.search("degrees", None).passages
    odds = (4 - 1 + 0.5) / (1 + 0.5)
    assert passage.bm25 == pytest.approx(expected / math.log(odds) * math.log1p(odds))


@pytest.mark.parametrize(
    "question",
    [
        '"',
        "NEAR(a b)",
        "tea AND",
        "* OR -",
        "tea^2",
        "{words}: tea",
        "'; DROP TABLE files; --",
        "\0tea",
        "(",
        "",
    ],
)
def test_a_question_is_no_query_language(library: Library, question: str) -> None:
    assert library.search(question, embed([question])[0]).paragraphs == 4
    assert len(library.documents()) == 3


def test_without_an_encoder_words_find(tmp_path: Path) -> None:
    root = write(tmp_path / "docs", FILES)
    with Library(tmp_path / "library", None) as library:
        library.sync(root)
        assert library.search("green tea", None).passages[0].document == "tea/green.txt"
        assert library.search("green tea", embed(["green tea"])[0]).passages[0].cosine == 0
        assert library.profile().counts == ()
    with Library(tmp_path / "library", embed) as library:  # an encoder that comes later makes all vectors
        assert library.sync(root).kept == 3
        assert ask(library, "moon")[0] == "moon.md"
        assert sum(library.profile().counts) == 4


def test_another_encoder_makes_all_vectors_anew(library: Library, tmp_path: Path) -> None:
    with Library(tmp_path / "library", lambda texts: -embed(texts)) as other:
        other.sync(tmp_path / "docs")
        assert other.search("moon", -embed(["moon"])[0]).passages[0].cosine > 0
        assert library.search("moon", -embed(["moon"])[0]).passages[0].cosine > 0
    with pytest.raises(DocumentsError, match=f"vectors of {D} numbers, the question 3"):
        library.search("moon", np.ones(3, np.float32))


def test_a_limit_of_none_is_refused(library: Library) -> None:
    with pytest.raises(ValueError, match="limit is 0"):
        library.search("moon", None, 0)


def test_a_copy_of_a_text_comes_below_the_first(tmp_path: Path) -> None:
    files = {**FILES, "tea/copy.txt": FILES["tea/black.txt"]}
    with Library(tmp_path / "library", embed) as library:
        library.sync(write(tmp_path / "docs", files))
        found = library.search("boiling water", embed(["boiling water"])[0])
        first, copy = (p for p in found.passages if "boiling" in p.text)
        assert (first.document, copy.document) == ("tea/black.txt", "tea/copy.txt")
        assert copy.score == first.score / 2
        library.withdraw("tea/black.txt")
        assert ask(library, "boiling water")[0] == "tea/copy.txt"


@needs_encoder
def test_meaning_finds_what_words_do_not(tmp_path: Path) -> None:
    from manyminds.encoder import Encoder

    encode = Encoder(MINILM, cache_size=0).encode
    with Library(tmp_path / "library", encode) as library:
        library.sync(write(tmp_path / "docs", FILES))
        question = "How hot should a mild infusion of leaves be?"
        assert library.search(question, None).passages == ()
        best = library.search(question, encode([question])[0]).passages[0]
        assert best.document == "tea/green.txt"
        text = FILES["tea/green.txt"].strip()
        assert best.cosine == pytest.approx(float(encode([text])[0] @ encode([question])[0]), abs=1e-6)


# --- what lies in the folder -----------------------------------------------------------------------


def test_only_what_changed_is_read(library: Library, tmp_path: Path) -> None:
    root, generation = tmp_path / "docs", library.generation
    again = library.sync(root)
    assert (again.kept, again.added, again.changed, again.removed, again.renewed) == (3, 0, 0, 0, False)
    assert (library.generation, library.renewed_ms) == (generation, 0)
    files = {**FILES, "tea/white.txt": "White tea is the mildest of all teas, say those who sell it.\n"}
    files["moon.md"] += "\nThe moon has no tides of its own, for it has no water.\n"
    del files["tea/black.txt"]
    synced = library.sync(write(root, files))
    assert (synced.kept, synced.added, synced.changed, synced.removed) == (1, 1, 1, 1)
    assert synced.renewed
    assert synced.paragraphs == library.paragraphs == sum(d.paragraphs for d in library.documents())
    assert library.generation > generation
    assert library.renewed_ms > 0
    assert [d.path for d in library.documents()] == ["moon.md", "tea/green.txt", "tea/white.txt"]
    assert not paths_holding(tmp_path / "library", b"boiling")


def test_what_is_only_added_renews_nothing(library: Library, tmp_path: Path) -> None:
    files = {**FILES, "more.txt": "There is more to be said than was said before.\n"}
    assert not library.sync(write(tmp_path / "docs", files)).renewed
    assert library.renewed_ms == 0


def test_a_single_file_is_a_root_too(tmp_path: Path) -> None:
    root = write(tmp_path / "docs", FILES)
    with Library(tmp_path / "library", embed) as library:
        assert library.sync(root / "moon.md").added == 1
        assert library.documents() == (Document("moon.md", 2),)


def test_a_folder_that_is_not_there_takes_nothing_away(library: Library, tmp_path: Path) -> None:
    with pytest.raises(DocumentsError, match="nowhere cannot be read"):
        library.sync(tmp_path / "nowhere")
    assert library.paragraphs == 4


texts = st.lists(
    st.sampled_from(
        [
            "The moon circles the earth once in 27 days, as a rock does.",
            "Tea is brewed with boiling water and is drunk while it is hot.",
            "Tea is brewed with boiling water, and the moon is not.",
            "A sentence without any of those other things, to be found by none.",
        ]
    ),
    min_size=1,
    max_size=3,
).map("\n\n# Heading\n\n".join)
folders = st.dictionaries(st.sampled_from(["a.md", "b.md", "c/d.md", "c/e.md"]), texts, max_size=4)


@settings(max_examples=12)
@given(history=st.lists(folders, min_size=1, max_size=4), out=st.sets(st.sampled_from(["a.md", "c/d.md"])))
def test_what_is_found_hangs_on_no_history(
    history: list[dict[str, str]], out: set[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp_path = tmp_path_factory.mktemp("history")
    question = "Is the moon brewed with boiling tea?"
    with Library(tmp_path / "old", embed) as old, Library(tmp_path / "new", embed) as new:
        for files in history:
            old.sync(write(tmp_path / "docs", files))
        for document in out & files.keys():
            old.withdraw(document)
        kept = {name: text for name, text in files.items() if name not in out}
        old.sync(tmp_path / "docs")
        new.sync(write(tmp_path / "fresh", kept))
        for vector in (None, embed([question])[0]):
            assert shown(old.search(question, vector, 5)) == shown(new.search(question, vector, 5))
        assert content(old) == content(new)
        for document in out & files.keys():
            old.restore(document)
        old.sync(tmp_path / "docs")
        new.sync(write(tmp_path / "fresh", files))
        assert shown(old.search(question, None, 5)) == shown(new.search(question, None, 5))
        assert content(old) == content(new)


# --- taking out ------------------------------------------------------------------------------------


def test_what_is_withdrawn_is_gone_from_the_disk(tmp_path: Path) -> None:
    secret = {f"s{i}.txt": f"zyzzyva{i} quokkabird lives in the xylothek of number {i}.\n" for i in range(30)}
    with Library(tmp_path / "library", embed) as library, Library(tmp_path / "library", embed) as reader:
        library.sync(write(tmp_path / "docs", {**FILES, **secret}))
        reader.search("quokkabird", embed(["quokkabird"])[0])
        assert paths_holding(tmp_path / "library", b"quokkabird")
        made = embed([secret["s7.txt"].strip()])[0].astype(np.float64)
        row = (made / np.linalg.norm(made)).astype(np.float32).tobytes()
        assert paths_holding(tmp_path / "library", row)
        assert library.withdraw("s7.txt") == 1
        assert not paths_holding(tmp_path / "library", b"zyzzyva7 ")
        assert not paths_holding(tmp_path / "library", row)
        for name in sorted(secret.keys() - {"s7.txt"}):
            library.withdraw(name)
        for word in (b"zyzz", b"quokka", b"xylothek", b"kabird"):
            assert paths_holding(tmp_path / "library", word) == []
        assert library.search("quokkabird", None).unknown == ("quokkabird",)
        assert set(library.withdrawn) == secret.keys()
        assert library.withdraw("s7.txt") == 0


def test_what_is_gone_or_changed_is_gone_from_the_disk(tmp_path: Path) -> None:
    old = {
        "a.txt": "The quokkabird lives here.\n",
        "b.txt": "The xylothek is closed.\n",
        "c.txt": "Tea is hot.\n",
    }
    docs = write(tmp_path / "docs", old)
    with Library(tmp_path / "library", embed) as library, Library(tmp_path / "library", embed) as reader:
        library.sync(docs)
        reader.profile()
        assert paths_holding(tmp_path / "library", b"quokkabird")
        (docs / "a.txt").unlink()
        (docs / "b.txt").write_text("The library is open.\n")
        library.sync(docs)
        for word in (b"quokka", b"xylothek"):
            assert paths_holding(tmp_path / "library", word) == []
        reader.profile()
        library.withdraw("b.txt")
        assert paths_holding(tmp_path / "library", b"library") == []
        assert library.profile().labels == ("hot tea",)


def test_a_profile_of_what_is_gone_is_not_kept(library: Library, tmp_path: Path) -> None:
    old = library.profile()
    generation = library.generation
    library.withdraw("moon.md")
    with closing(Store(tmp_path / "library" / "library.sqlite")) as store, store.changing():
        keep(store, generation, 64, old)
        assert store.sql.execute("SELECT count(*) FROM profiles").fetchone() == (0,)


def test_a_withdrawn_document_stays_out_until_it_is_restored(library: Library, tmp_path: Path) -> None:
    before = library.renewed_ms
    assert library.withdraw("moon.md") == 2
    assert library.renewed_ms > before
    synced = library.sync(tmp_path / "docs")
    assert (synced.added, synced.kept, synced.paragraphs) == (0, 2, 2)
    assert "moon.md" not in ask(library, "moon")
    library.restore("moon.md")
    assert library.withdrawn == ()
    assert library.sync(tmp_path / "docs").added == 1
    assert ask(library, "moon")[0] == "moon.md"


def test_an_unknown_document_is_named_with_its_neighbours(library: Library) -> None:
    with pytest.raises(DocumentsError, match=r"no document 'mon\.md'\. Did you mean moon\.md\?"):
        library.withdraw("mon.md")
    with pytest.raises(DocumentsError, match=r"no withdrawn document 'moon\.md'\.$"):
        library.restore("moon.md")


# --- profiles --------------------------------------------------------------------------------------


def test_a_profile_says_where_the_knowledge_lies(library: Library) -> None:
    profile = library.profile()
    assert profile.vectors.shape == (len(profile.counts), D)
    assert profile.vectors.dtype == np.float32
    lengths = np.linalg.norm(profile.vectors, axis=1)
    assert (lengths > 0).all()
    assert (lengths < 1 + 1e-5).all()
    assert (lengths < 0.999).any()
    assert sum(profile.counts) == library.paragraphs
    assert all(profile.labels)
    assert len(library.profile(1).counts) == 1
    assert content(library) == content(library)


# --- files of the library --------------------------------------------------------------------------


def test_a_newer_library_is_refused(library: Library, tmp_path: Path) -> None:
    library.close()
    with sqlite3.connect(tmp_path / "library/library.sqlite") as sql:
        sql.execute("PRAGMA user_version = 2")
    with pytest.raises(DocumentsError, match=r"version 2, and this is version 1: update manyminds"):
        Library(tmp_path / "library", None)


def test_a_damaged_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library/library.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(DocumentsError, match="damaged, or no library"):
        Library(tmp_path / "library", None)


def test_the_advice_for_a_damaged_library_does_not_bring_back_what_was_withdrawn(tmp_path: Path) -> None:
    root, folder = write(tmp_path / "docs", {"a.txt": "Alpha.", "b.txt": "Beta."}), tmp_path / "library"
    with Library(folder, embed) as library:
        library.sync(root)
        library.withdraw("b.txt")
    (folder / "library.sqlite").write_bytes(b"no library" * 900)
    with pytest.raises(DocumentsError) as caught:
        Library(folder, embed)
    assert f"a copy of {folder}, or remove that" in caught.value.message
    assert caught.value.message.endswith("before you index, take them out of the folder that is read.")
    shutil.rmtree(folder)
    (root / "b.txt").unlink()
    with Library(folder, embed) as library:
        library.sync(root)
        assert [document.path for document in library.documents()] == ["a.txt"]


def test_a_page_that_is_damaged_is_told_in_words(library: Library, tmp_path: Path) -> None:
    library.close()
    with (tmp_path / "library" / "library.sqlite").open("r+b") as file:
        file.seek(4096 * 2)
        file.write(b"\xff" * 4096 * 12)
    with pytest.raises(DocumentsError, match="is damaged"), Library(tmp_path / "library", embed) as damaged:
        damaged.sync(tmp_path / "docs")


def test_damaged_vectors_are_made_anew_by_the_next_sync(library: Library, tmp_path: Path) -> None:
    library.close()
    for path in (tmp_path / "library").glob("vectors-*/CURRENT"):
        path.write_text("{")
    with Library(tmp_path / "library", embed) as again:
        with pytest.raises(DocumentsError, match="To index the documents again mends it"):
            again.search("moon", embed(["moon"])[0])
        again.sync(tmp_path / "docs")
        assert ask(again, "moon")[0] == "moon.md"
