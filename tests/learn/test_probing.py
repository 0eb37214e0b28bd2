"""Probes stand for all questions, whatever they are chosen by, and end when enough is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from manyminds.learn.probing import MOST, Probing

NEVER = 2.0  # no probability is above it


def network(n: int, accuracy: float, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    draw = np.random.default_rng(seed)
    return draw.random(n) < accuracy, draw.random(n)


def interview(probing: Probing, correct: NDArray[np.bool_]) -> None:
    while (position := probing.next()) is not None:
        probing.tell(position, float(correct[position]))


@given(
    n=st.integers(1, 150),
    accuracy=st.floats(0, 1),
    skill=st.floats(0, 1),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_it_asks_nothing_twice_and_what_it_asked_stands_for_all(
    n: int, accuracy: float, skill: float, seed: int, data: st.DataObject
) -> None:
    right, chance = network(n, accuracy, seed)
    correct, refused = network(n, skill, seed + 100)
    most = data.draw(st.integers(1, 80))
    probing = Probing(right, chance, seed, most)
    while (position := probing.next()) is not None:
        assert position not in probing.asked
        if refused[position] > 0.9:
            probing.skip(position)
        else:
            probing.tell(position, float(correct[position]))
    assert len(probing.asked) <= min(most, n)
    if len(probing.asked):
        assert probing.shares.min() > 0.0
        assert probing.shares.sum() == pytest.approx(1.0)
    again = Probing(right, chance, seed, most)
    for position in probing.asked:
        while (first := again.next()) != position:
            assert first is not None
            again.skip(first)
        again.tell(int(position), float(correct[position]))
    assert again.asked.tolist() == probing.asked.tolist()


def test_the_gain_is_estimated_without_bias_and_closer_than_at_random() -> None:
    found, at_random, truth = [], [], []
    for seed in range(300):
        draw = np.random.default_rng(seed)
        right, chance = network(2000, 0.6, seed)
        correct = np.where(right, draw.random(2000) < 0.9, draw.random(2000) < 0.3)
        probing = Probing(right, chance, seed, MOST, NEVER)
        interview(probing, correct)
        gained = correct.astype(float) - right
        truth.append(gained.mean())
        found.append(float(probing.shares @ gained[probing.asked]))
        at_random.append(gained[draw.permutation(2000)[:MOST]].mean())
    errors, plain = np.array(found) - truth, np.array(at_random) - truth
    assert abs(errors.mean()) < 3.0 * errors.std() / np.sqrt(len(errors))
    assert errors.std() < 0.85 * plain.std()


@pytest.mark.parametrize(("skill", "better"), [(0.95, True), (0.05, False)])
def test_what_is_clear_takes_few_probes(skill: float, better: bool) -> None:
    right, chance = network(500, 0.5, seed=1)
    correct, _ = network(500, skill, seed=2)
    probing = Probing(right, chance, seed=3)
    interview(probing, correct)
    assert len(probing.asked) <= 24
    assert (probing.gain[0] > 0.0) is better


def test_what_is_not_clear_takes_them_all() -> None:
    right, chance = network(500, 0.5, seed=1)
    probing = Probing(right, chance, seed=3)
    interview(probing, right[::-1] if right.mean() != 0.5 else right)
    assert len(probing.asked) == MOST
