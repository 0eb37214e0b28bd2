"""The noise has the distribution that the proof is about."""

import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.privacy.noise import discrete_gaussian

DRAWS = 20_000


def probabilities(variance: int) -> dict[int, float]:
    """Of each whole number, by its formula."""
    far = 12 * math.isqrt(variance) + 12
    masses = {x: math.exp(-x * x / (2 * variance)) for x in range(-far, far + 1)}
    total = math.fsum(masses.values())
    return {x: mass / total for x, mass in masses.items()}


@pytest.mark.parametrize("variance", [1, 2, 7, 100])
def test_each_number_comes_as_often_as_it_should(variance: int) -> None:
    below, expected = Random(variance).randrange, probabilities(variance)
    seen = Counter(discrete_gaussian(variance, below) for _ in range(DRAWS))
    cells = {x: p for x, p in expected.items() if p * DRAWS >= 10}
    squared = math.fsum((seen[x] - p * DRAWS) ** 2 / (p * DRAWS) for x, p in cells.items())
    assert squared < len(cells) + 5 * math.sqrt(2 * len(cells))  # chi-square, five deviations


def test_large_noise_is_as_wide_as_it_should_be() -> None:
    below, variance = Random(5).randrange, 3 << 40
    draws = [discrete_gaussian(variance, below) / math.sqrt(variance) for _ in range(DRAWS)]
    assert math.fsum(draws) / DRAWS == pytest.approx(0.0, abs=5 / math.sqrt(DRAWS))
    assert math.fsum(x * x for x in draws) / DRAWS == pytest.approx(1.0, abs=5 * math.sqrt(2 / DRAWS))
    within = sum(abs(x) < 1 for x in draws) / DRAWS
    assert within == pytest.approx(0.6827, abs=5 * math.sqrt(0.22 / DRAWS))


def test_it_draws_whole_numbers_only() -> None:
    """Whatever its source gives: nothing is ever rounded."""
    asked = []

    def below(limit: int) -> int:
        asked.append(limit)
        return random.randrange(limit)

    random = Random(1)
    assert isinstance(discrete_gaussian((1 << 60) + 1, below), int)
    assert all(type(limit) is int and limit > 0 for limit in asked)


@given(st.integers(1, 1 << 80), st.integers(0, 1 << 32))
def test_it_ends_for_any_variance(variance: int, seed: int) -> None:
    noise = discrete_gaussian(variance, Random(seed).randrange)
    assert abs(noise) <= 40 * (math.isqrt(variance) + 1)
