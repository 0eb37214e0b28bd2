from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from manyminds.calibrate import isotonic

Outcomes = tuple[NDArray[np.float64], NDArray[np.bool_]]
hundredths = st.integers(0, 100).map(lambda i: i / 100)


@st.composite
def outcomes(draw: st.DrawFn, values: Any = hundredths) -> Outcomes:
    pairs = draw(st.lists(st.tuples(values, st.booleans()), min_size=1, max_size=60))
    return np.array([raw for raw, _ in pairs]), np.array([right for _, right in pairs])


@given(outcomes(st.floats(-1e6, 1e6)), st.integers(1, 20))
def test_more_certain_is_never_less_often_right(made: Outcomes, points: int) -> None:
    xs, ys = isotonic(*made, points)
    assert xs.shape == ys.shape == (points,)
    assert (np.diff(xs) >= 0).all()
    assert (np.diff(ys) >= 0).all()
    assert ((ys > 0) & (ys < 1)).all()
    anywhere = np.interp(np.linspace(-2e6, 2e6, 101), xs, ys)
    assert (np.diff(anywhere) >= -1e-12).all()
    assert ((anywhere > 0) & (anywhere < 1)).all()


@given(st.integers(1, 40), st.integers(1, 20), st.booleans())
def test_always_or_never_right_is_nearly_certain_and_never_quite(n: int, points: int, right: bool) -> None:
    _, ys = isotonic(np.linspace(0, 1, n), np.full(n, right), points)
    assert ys == pytest.approx(0.999 if right else 0.001)


def test_values_fewer_than_points_end_in_the_last_of_them() -> None:
    xs, ys = isotonic(np.array([0.9, 0.1]), np.array([True, False]), 5)
    assert xs.tolist() == [0.1, 0.9, 0.9, 0.9, 0.9]
    assert ys == pytest.approx([1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3])  # each with one right and one wrong


def test_a_confidence_that_says_nothing_gives_the_share_right() -> None:
    right = np.random.default_rng(0).random(4000) < 0.3
    xs, ys = isotonic(np.random.default_rng(1).random(4000), right, 4)
    assert np.interp(np.array([0.0, 0.5, 1.0]), xs, ys) == pytest.approx(0.3, abs=0.03)


def test_the_curve_finds_how_often_each_confidence_is_right() -> None:
    rng = np.random.default_rng(0)
    raw = rng.random(20_000)
    xs, ys = isotonic(raw, rng.random(20_000) < raw**2, 12)
    at = np.linspace(0.1, 0.9, 9)
    assert np.interp(at, xs, ys) == pytest.approx(at**2, abs=0.04)


def test_violators_are_pooled() -> None:
    right = np.array([False, True, True, False, True, True])
    _, ys = isotonic(np.arange(6.0), right, 6)
    wrong, correct = (2 * right.mean()) / 3, (1 + 2 * right.mean()) / 3
    assert ys == pytest.approx([wrong, *[(2 * correct + wrong) / 3] * 3, correct, correct])


@given(outcomes(st.sampled_from([0.1, 0.5, 1.0])), st.integers(1, 12), st.randoms(use_true_random=False))
def test_the_order_of_the_outcomes_does_not_matter(made: Outcomes, points: int, random: Any) -> None:
    raw, right = made
    order = random.sample(range(len(raw)), len(raw))
    for one, two in zip(
        isotonic(raw, right, points), isotonic(raw[order], right[order], points), strict=True
    ):
        assert one == pytest.approx(two, abs=1e-12)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_one_confidence_throughout_gives_the_share_right(share: float) -> None:
    right = np.arange(100) >= 100 * (1 - share)  # the right ones last, as in a set sorted by category
    curve = isotonic(np.full(100, 1.0), right, 12)
    assert np.interp(np.array([1.0]), *curve) == pytest.approx(share, abs=0.02)
