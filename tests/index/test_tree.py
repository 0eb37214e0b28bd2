import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from manyminds.index import Index, Region, Section, Shelves, label, tree

TOPICS = {
    "How many apples did the farmer sell at the market?": (0, 0),
    "What did the farmer pay for seeds at the market?": (0, 1),
    "Which acid dissolves copper in the flask?": (1, 0),
    "What acid forms when copper salts react in a flask?": (1, 1),
}
CENTRES = np.random.default_rng(0).standard_normal((4, 24)) * 0.25


def asked() -> tuple[list[str], NDArray[np.float32]]:
    """Twenty questions to each topic, of two fields with two topics each."""
    draw, questions, vectors = np.random.default_rng(1), [], []
    for i, (question, (field, _)) in enumerate(TOPICS.items()):
        for number in range(20):
            vector = CENTRES[i] + 0.05 * draw.standard_normal(24)
            vector[20 + field] += 3
            questions.append(f"{question} ({number})")
            vectors.append(vector / np.linalg.norm(vector))
    return questions, np.array(vectors, np.float32)


def filled(vectors: NDArray[np.float32], **sizes: int) -> Index:
    index = Index(24, **sizes)
    index.add("farmer", vectors[[0, 1, 25]])
    index.add("chemist", vectors[[45, 65]])
    index.add("both", vectors[[3, 70]])
    return index


def held(found: tuple[Section, ...]) -> dict[str, int]:
    """How many chapters of each book are in the tree."""
    books = [book for section in found for shelf in section.shelves for book in shelf.books]
    return {name: sum(len(b.chapters) for b in books if b.name == name) for name in {b.name for b in books}}


def test_fields_and_topics_are_named_by_their_questions() -> None:
    questions, vectors = asked()
    found = tree(filled(vectors), questions, vectors)
    assert held(found) == {"farmer": 3, "chemist": 2, "both": 2}
    for section in found:
        assert re.search("acid|copper|flask|farmer|market|apples|seeds", section.label)
        names = [shelf.label for shelf in section.shelves]
        assert len(set(names)) == len(names)
        for shelf in section.shelves:
            assert 2 <= len(shelf.label.split()) <= 4
            of = {book.name for book in shelf.books}
            assert ("farmer" in of) <= bool(re.search("farmer|market|apples|seeds|pay|sell", shelf.label))
    assert len({section.label for section in found}) == len(found)


def test_an_index_on_shelves_shows_its_own() -> None:
    questions, vectors = asked()
    index = filled(vectors, flat=5)
    own = Shelves(vectors[[0, 45]], vectors[[0, 25, 45, 65]], np.array([0, 2, 4]), 7)
    index.shelve(own)
    assert index.shelves is own
    found = tree(index, questions, vectors)
    books = [[[book.name for book in shelf.books] for shelf in section.shelves] for section in found]
    assert books == [[["both", "farmer"], ["farmer"]], [["chemist"], ["both", "chemist"]]]


def test_it_hangs_on_nothing_but_what_is_there() -> None:
    questions, vectors = asked()
    other = Index(24)
    other.add("gone", vectors[:1])
    for name in ("both", "chemist", "farmer"):
        other.add(name, filled(vectors).vectors_of(name))
    other.remove("gone")
    assert tree(other, questions, vectors) == tree(filled(vectors), questions, vectors)
    assert tree(Index(24), questions, vectors) == ()


def test_sections_are_named_by_the_fields_of_their_questions() -> None:
    questions, vectors = asked()
    fields = ["farm_work"] * 38 + ["odd"] * 2 + ["chemistry"] * 40
    found = tree(filled(vectors), questions, vectors, fields)
    names = [section.label for section in found]
    assert len(set(names)) == len(names)
    assert {name.partition(":")[0] for name in names} == {"farm work", "chemistry"}
    words = [shelf.label for section in found for shelf in section.shelves]
    assert not any("odd" in label for label in words)


def test_outcomes_are_paragraphs_of_the_nearest_chapter() -> None:
    questions, vectors = asked()
    told = [Region(vectors[1], 20, 0.75, 0.5, 0.1), Region(vectors[26], 9, 0.5, 0.25, 0.1)]
    found = tree(filled(vectors), questions, vectors, (), {"farmer": told, "nobody": told})
    books = [book for section in found for shelf in section.shelves for book in shelf.books]
    every = [p for book in books for c in book.chapters for p in c.paragraphs]
    assert sorted((p.asked, p.right, p.peers) for p in every) == [(9, 0.5, 0.25), (20, 0.75, 0.5)]
    assert all(re.search("farmer|market|apples|seeds", p.label) for p in every)


def test_vectors_must_be_as_many_as_questions() -> None:
    questions, vectors = asked()
    with pytest.raises(ValueError, match="have 3 fields"):
        tree(Index(24), questions, vectors, ["a", "b", "c"])
    with pytest.raises(ValueError, match="80 questions have vectors"):
        tree(Index(24), questions, vectors[:7])
    with pytest.raises(ValueError, match="0 questions"):
        tree(Index(24), [], vectors[:0])


SOME = ["acid", "copper", "flask", "apples", "farmer", "the", "what", "17", "of"]
words = st.lists(st.sampled_from(SOME), max_size=9)
places = st.lists(st.lists(st.builds(" ".join, words), max_size=5), min_size=1, max_size=6)


@given(places=places, data=st.data())
def test_names_differ_and_say_nothing_of_stop_words(places: list[list[str]], data: st.DataObject) -> None:
    names = label(places)
    assert len(set(names)) == len(places)
    assert not {"the", "what", "of", "17"} & {word for name in names for word in name.split()}
    shuffled = [data.draw(st.permutations(questions)) for questions in places]
    assert label(shuffled) == names


def test_words_that_all_places_share_come_last() -> None:
    acids = ["copper dissolves in acid", "acid burns copper"]
    farms = ["apples grow on a farm", "a farm sells apples"]
    both = [[f"{text} says Bob" for text in place] for place in (acids, farms)]
    assert [name.split()[:2] for name in label(both)] == [["acid", "copper"], ["apples", "farm"]]
