"""Words as an index has them, held against SQLite's own stemmer."""

import re
import sqlite3
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from manyminds.documents.stem import stem
from manyminds.documents.words import content_words, spelled, terms

DOCS = Path(__file__).resolve().parents[2] / "docs"
SUFFIXES = [
    "",
    "s",
    "es",
    "ed",
    "ing",
    "ational",
    "ization",
    "fulness",
    "ity",
    "ement",
    "ll",
    "ly",
    "y",
    "ies",
]
made = st.builds("".join, st.tuples(st.from_regex(r"[a-z]{1,7}", fullmatch=True), st.sampled_from(SUFFIXES)))


def porter(words: list[str]) -> list[str]:
    """Their stems, by the database."""
    with sqlite3.connect(":memory:") as sql:
        sql.execute("CREATE VIRTUAL TABLE t USING fts5 (word, tokenize = 'porter ascii')")
        sql.execute("CREATE VIRTUAL TABLE v USING fts5vocab (t, 'instance')")
        sql.executemany("INSERT INTO t (rowid, word) VALUES (?, ?)", enumerate(words))
        return [term for (term,) in sql.execute("SELECT term FROM v ORDER BY doc")]


def test_stems_are_porters() -> None:
    words = sorted(
        {w for path in DOCS.glob("*.md") for w in re.findall("[a-z]{3,}", path.read_text().lower())}
    )
    assert len(words) > 2_000
    assert [stem(word) for word in words] == porter(words)


@given(st.lists(made, min_size=1, max_size=50))
def test_stems_of_odd_words_are_porters(words: list[str]) -> None:
    assert [stem(word) for word in words] == porter(words)


def test_words_lose_case_accents_and_endings() -> None:
    assert terms("Installing the naïve ÉCOLES, installed: 42_things") == [
        "instal",
        "naiv",
        "ecol",
        "instal",
        "42",
        "thing",
    ]


def test_what_has_no_spaces_comes_in_pairs() -> None:
    assert list(spelled("北京市 is A5界")) == ["北京", "京市", "is", "a5", "界"]


def test_stop_words_are_no_content() -> None:
    assert content_words("What is the Capital of Australia's capitals?") == {
        "capit": "capital",
        "australia": "australia",
    }
    assert content_words("to be or not to be") == {}


@given(st.text())
def test_every_word_is_one_term(text: str) -> None:
    """What is counted here is what the database counts: none of its terms is split or left out there."""
    found = terms(text)
    with sqlite3.connect(":memory:") as sql:
        sql.execute("CREATE VIRTUAL TABLE t USING fts5 (word, content = '', tokenize = 'ascii')")
        sql.execute("CREATE VIRTUAL TABLE v USING fts5vocab (t, 'instance')")
        sql.execute("INSERT INTO t (rowid, word) VALUES (1, ?)", (" ".join(found),))
        kept = [term for (term,) in sql.execute("SELECT term FROM v ORDER BY offset")]
    assert kept == found
