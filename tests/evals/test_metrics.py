"""Laws of the measures: what a gain and its interval are, and what calibration error is not fooled by."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from manyminds.errors import DataError
from manyminds.evals.metrics import Gain, accuracy_gain, calibration_error, mean_interval

Pairs = list[tuple[bool, bool]]
Stated = list[tuple[float, bool]]

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200)
STATED = st.lists(st.tuples(st.floats(0, 1) | st.sampled_from([0.1, 0.3, 0.7]), st.booleans()), min_size=1)


def columns(pairs: Pairs) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    ours, theirs = np.array(pairs).T
    return ours, theirs


def error_of(stated: Stated, bins: int = 15) -> float:
    probabilities, correct = zip(*stated, strict=True)
    return calibration_error(np.array(probabilities), np.array(correct), bins)


# --- gain ------------------------------------------------------------------------------------------


@given(PAIRS, st.integers(0, 2**32))
def test_gain_is_the_difference_and_its_interval_holds_it(pairs: Pairs, seed: int) -> None:
    ours, theirs = columns(pairs)
    found = accuracy_gain(ours, theirs, seed)
    assert found.gain == pytest.approx(ours.mean() - theirs.mean())
    assert -1 <= found.low <= found.gain <= found.high <= 1


@given(PAIRS)
def test_gain_is_antisymmetric(pairs: Pairs) -> None:
    ours, theirs = columns(pairs)
    assert accuracy_gain(ours, theirs, 0).gain == -accuracy_gain(theirs, ours, 0).gain


@given(PAIRS, st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_interval(pairs: Pairs, seed: int) -> None:
    assert accuracy_gain(*columns(pairs), seed) == accuracy_gain(*columns(pairs), seed)


@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_the_questions_does_not_matter(pairs: Pairs, random: Random) -> None:
    mixed = random.sample(pairs, len(pairs))
    assert accuracy_gain(*columns(mixed), 0) == accuracy_gain(*columns(pairs), 0)


@pytest.mark.parametrize(("n", "won", "lost"), [(40, 9, 4), (500, 60, 30), (500, 3, 0), (3000, 400, 410)])
def test_the_interval_is_that_of_drawing_questions(n: int, won: int, lost: int) -> None:
    """Against the bootstrap as it is written in a textbook: questions drawn one by one."""
    resamples = 10_000
    difference = np.array([1] * won + [-1] * lost + [0] * (n - won - lost))
    drawn = np.random.default_rng(1).integers(0, n, (resamples, n))
    low, high = np.quantile(difference[drawn].mean(1), [0.025, 0.975])
    found = accuracy_gain(difference == 1, difference == -1, seed=2, resamples=resamples)
    # A 2.5% quantile of so many draws strays by 0.027 standard deviations (both do), and falls on a k / n.
    tolerance = 4 * np.sqrt(2) * 0.027 * difference.std() / np.sqrt(n) + 1 / n
    assert found.low == pytest.approx(low, abs=tolerance)
    assert found.high == pytest.approx(high, abs=tolerance)


def test_who_never_differs_gains_nothing_for_sure() -> None:
    same = np.array([True, False, True])
    assert accuracy_gain(same, same, 0) == Gain(0.0, 0.0, 0.0)
    assert accuracy_gain(np.ones(5, bool), np.zeros(5, bool), 0) == Gain(1.0, 1.0, 1.0)


@pytest.mark.parametrize(("n", "m"), [(0, 0), (3, 0), (3, 4)])
def test_what_cannot_be_compared_is_refused(n: int, m: int) -> None:
    with pytest.raises(DataError, match=f"{n} with {m} questions"):
        accuracy_gain(np.ones(n, bool), np.ones(m, bool), 0)
    with pytest.raises(DataError, match=f"{n} with {m} questions"):
        calibration_error(np.ones(n), np.ones(m, bool))


def test_the_interval_of_a_mean_is_that_of_drawing_questions_again() -> None:
    values = np.random.default_rng(1).choice([0.0, 0.25, 0.5, 1.0], 300)
    mean, low, high = mean_interval(values, seed=3)
    drawn = np.random.default_rng(9).choice(values, (4000, 300)).mean(axis=1)
    assert mean == values.mean()
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.006)
    assert mean_interval(values, seed=3) == (mean, low, high)
    assert mean_interval(values[::-1], seed=3) == pytest.approx((mean, low, high))
    assert mean_interval(np.ones(4), seed=0) == (1.0, 1.0, 1.0)
    with pytest.raises(DataError):
        mean_interval(np.zeros(0), seed=0)


# --- calibration -----------------------------------------------------------------------------------


@given(STATED, st.integers(1, 30))
def test_calibration_error_is_a_share(stated: Stated, bins: int) -> None:
    assert 0 <= error_of(stated, bins) <= 1


@given(STATED, st.integers(1, 30), st.randoms(use_true_random=False))
def test_calibration_error_does_not_depend_on_order(stated: Stated, bins: int, random: Random) -> None:
    mixed = random.sample(stated, len(stated))
    assert error_of(mixed, bins) == error_of(stated, bins)


@given(
    st.lists(st.integers(1, 30).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))),
    st.integers(1, 30),
)
def test_who_is_right_as_often_as_stated_has_no_error(groups: list[tuple[int, int]], bins: int) -> None:
    shares = {k / n: (k, n) for k, n in [(1, 3), *groups]}
    stated = [(share, i < k) for share, (k, n) in shares.items() for i in range(n)]
    assert error_of(stated, bins) == 0


@given(st.lists(st.floats(0, 1), min_size=1), st.integers(1, 30))
def test_one_bin_is_the_gap_of_the_means(stated: list[float], bins: int) -> None:
    correct = [i % 3 == 0 for i in range(len(stated))]
    gap = abs(np.mean(stated) - np.mean(correct))
    pairs = list(zip(stated, correct, strict=True))
    assert error_of(pairs, 1) == pytest.approx(gap)
    assert error_of(pairs, bins) >= gap - 1e-9  # finer bins hide less


def test_calibration_error_by_hand() -> None:
    # Bins of two: (0.1, 0.2) with one right of two, and (0.8, 0.9) with both right.
    assert error_of([(0.9, True), (0.1, False), (0.8, True), (0.2, True)], 2) == pytest.approx(
        (abs(0.3 - 1) + abs(1.7 - 2)) / 4
    )
    assert error_of([(1.0, False), (0.0, True)]) == 1


@pytest.mark.parametrize("wrong", [float("nan"), -0.1, 1.1, float("inf")])
def test_what_is_no_probability_is_refused(wrong: float) -> None:
    with pytest.raises(DataError, match="not in"):
        calibration_error(np.array([0.5, wrong]), np.array([True, False]))
