import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from manyminds.index import chapters, regions

TOPICS, EACH, D = 10, 40, 24
"""Tight topics of as many questions, as far apart as can be."""

Floats = NDArray[np.float64]


def questions(topics: int = TOPICS) -> NDArray[np.float32]:
    draw = np.random.default_rng(0)
    rows = np.eye(D)[np.arange(topics * EACH) // EACH] + 0.02 * draw.standard_normal((topics * EACH, D))
    unit: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


VECTORS = questions()
TOPIC = np.arange(len(VECTORS)) // EACH
PEERS = np.full(len(VECTORS), 0.5)


def good_at(*topics: int, rate: float = 0.9, elsewhere: float = 0.5, seed: int = 0) -> Floats:
    rates = np.where(np.isin(TOPIC, topics), rate, elsewhere)
    return (np.random.default_rng(seed).random(len(VECTORS)) < rates).astype(np.float64)


def topics_of(rows: NDArray[np.float32]) -> set[int]:
    return set(np.argmax(rows, axis=1).tolist())


@given(seed=st.integers(0, 200))
def test_it_finds_what_an_expert_is_good_at(seed: int) -> None:
    rows = chapters(VECTORS, good_at(2, 7, elsewhere=0.2, seed=seed), PEERS)
    assert topics_of(rows) == {2, 7}
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1)


def test_better_is_the_mean_after_ten_questions_of_no_difference() -> None:
    right = np.where(TOPIC == 3, 1.0, 0.0)
    found = regions(VECTORS, right, PEERS)
    assert sum(region.asked for region in found) == EACH
    for region in found:
        assert (region.right, region.peers) == (1.0, 0.5)
        assert region.better == pytest.approx(0.5 * region.asked / (region.asked + 10))


def test_luck_with_a_few_questions_is_no_chapter() -> None:
    right = np.full(len(VECTORS), np.nan)
    right[:: EACH // 2] = 0.0
    right[0] = 1.0
    assert chapters(VECTORS, right, PEERS).shape == (0, D)


@given(data=st.data())
def test_what_it_was_not_asked_counts_for_nothing(data: st.DataObject) -> None:
    right, peers = good_at(1, 4), PEERS.copy()
    unasked = data.draw(st.lists(st.integers(0, len(right) - 1), max_size=50))
    right[unasked] = np.nan
    before = chapters(VECTORS, right, peers)
    peers[unasked] = data.draw(st.sampled_from([0.0, 0.97, np.nan]))
    assert chapters(VECTORS, right, peers).tobytes() == before.tobytes()


def test_there_are_no_more_than_eight() -> None:
    vectors = questions(20)
    rows = chapters(vectors, np.ones(len(vectors)), np.full(len(vectors), 0.3))
    assert 1 < len(rows) <= 8
    assert len(regions(vectors, np.ones(len(vectors)), np.full(len(vectors), 0.3))) > 8


def test_better_nowhere_is_no_row() -> None:
    assert chapters(VECTORS, np.zeros(len(VECTORS)), PEERS).shape == (0, D)
    assert chapters(VECTORS, np.full(len(VECTORS), np.nan), PEERS).shape == (0, D)
    assert regions(VECTORS, good_at(0), np.full(len(VECTORS), np.nan)) == ()


def test_outcomes_must_be_as_many_as_questions() -> None:
    with pytest.raises(ValueError, match="400 of peers"):
        regions(VECTORS, good_at(0)[:7], PEERS)
