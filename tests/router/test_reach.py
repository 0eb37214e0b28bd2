import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.index import Index
from manyminds.router import SkillRouter
from manyminds.router.reach import reach
from manyminds.types import Card, Limits, Message, Query

if TYPE_CHECKING:
    from manyminds.types import Vectors

cosines = st.floats(-1, 1)
lengths = st.floats(0.01, 1)
counts = st.integers(1, 10**9)


def pair(cosine: float, length: float = 1.0) -> "tuple[Vectors, Vectors]":
    question = np.array([1.0, 0.0, 0.0], np.float32)
    summary = length * np.array([cosine, math.sqrt(1 - cosine**2), 0.0], np.float32)
    return question, summary[None]


@given(cosines)
def test_one_paragraph_is_where_it_is(cosine: float) -> None:
    assert reach(*pair(cosine), 1) == pytest.approx(cosine, abs=1e-5)


@given(cosines, lengths, counts)
def test_nothing_is_foretold_to_be_much_nearer_than_its_summary(
    cosine: float, length: float, count: int
) -> None:
    assert reach(*pair(cosine, length), count) <= cosine + 0.2 + 1e-5


@given(cosines, st.floats(1, 1e6), counts)
def test_who_claims_more_than_can_be_is_taken_to_be_a_point(cosine: float, length: float, count: int) -> None:
    assert reach(*pair(cosine, length), count) == pytest.approx(cosine, abs=2e-3)


@given(cosines, lengths, st.integers(1, 1000), st.integers(1, 1000))
def test_of_more_paragraphs_one_is_nearer(cosine: float, length: float, one: int, other: int) -> None:
    few, many = sorted((one, other))
    assert reach(*pair(cosine, length), few) <= reach(*pair(cosine, length), many) + 1e-6


def test_the_nearest_of_many_is_about_as_near_as_foretold() -> None:
    rng = np.random.default_rng(0)
    dimensions, tight, cosine, count = 33, 0.9, 0.5, 30
    question, summary = np.zeros((2, dimensions + 2), np.float32)
    question[:2] = cosine, math.sqrt(1 - cosine**2)
    summary[0] = tight
    nearest = []
    for _ in range(300):
        apart = rng.normal(size=(count, dimensions + 1))
        apart /= np.linalg.norm(apart, axis=1, keepdims=True)
        paragraphs = np.hstack([np.full((count, 1), tight), math.sqrt(1 - tight**2) * apart])
        nearest.append((paragraphs @ question).max())
    foretold = reach(question, summary[None], count, dimensions)
    assert foretold == pytest.approx(float(np.mean(nearest)), abs=0.05)
    assert foretold > cosine


def test_a_large_library_is_not_behind_a_small_one_that_is_about_one_thing() -> None:
    """Each summary of many paragraphs is farther from any question than a single paragraph may be."""
    router = SkillRouter(Index(3))
    offers = frozenset({"citations"})
    question, large = pair(0.5, 0.75)
    _, small = pair(0.52)
    cards = [
        Card("large", "documents", accuracy=0.0, paragraphs=400, offers=offers),
        Card("small", "documents", accuracy=0.0, paragraphs=1, offers=offers),
    ]
    router.admit(cards[0], vectors=large)
    router.admit(cards[1], vectors=small)
    query = Query((Message("user", "?"),), vector=question)
    known = {p.card.name: p.probability for p in router.predicted(query, cards, Limits())}
    assert known["large"] > known["small"]
    router.forget("large")
    again = {p.card.name: p.probability for p in router.predicted(query, cards, Limits())}
    assert again["small"] == known["small"]
