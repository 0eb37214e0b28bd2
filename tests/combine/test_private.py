"""The private vote: what it counts, and that nothing but the noise decides between neighbours."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from manyminds.combine.private import GRAIN, counted, noised, variance_of

WEIGHTS = st.integers(0, GRAIN)
VOTES = st.lists(st.tuples(st.none() | st.integers(0, 3), WEIGHTS), min_size=1, max_size=12)


def counts(votes: list[tuple[int | None, int]]) -> list[int]:
    return counted([vote for vote, _ in votes], [weight for _, weight in votes], 4)


@given(VOTES, st.integers(0, 11), st.none() | st.integers(0, 3))
def test_one_source_moves_no_more_than_it_pays_for(
    votes: list[tuple[int | None, int]], place: int, other: int | None
) -> None:
    """Whatever it says instead, it moves two counts by its weight at most: Δ² ≤ 2γ², and it pays γ²/σ²."""
    place %= len(votes)
    weight = votes[place][1]
    changed = [*votes[:place], (other, weight), *votes[place + 1 :]]
    moved = [a - b for a, b in zip(counts(votes), counts(changed), strict=True)]
    assert sum(x * x for x in moved) <= 2 * weight * weight


@given(VOTES, st.randoms(use_true_random=False))
def test_order_does_not_matter(votes: list[tuple[int | None, int]], random: Random) -> None:
    mixed = list(votes)
    random.shuffle(mixed)
    assert counts(mixed) == counts(votes)


@given(VOTES)
def test_who_says_nothing_changes_nobodys_weight(votes: list[tuple[int | None, int]]) -> None:
    assert counts([*votes, (None, GRAIN)]) == counts(votes)


@given(st.floats(1e-9, 100.0))
def test_the_heaviest_source_pays_no_more_than_what_was_asked(rho: float) -> None:
    assert GRAIN * GRAIN / variance_of(rho) <= rho


def test_all_counts_have_noise() -> None:
    """Also those for which nobody voted: else an unlikely answer would tell that somebody gave it."""
    below = Random(3).randrange
    released = [noised([1, 0, 0, 0], GRAIN * GRAIN, below) for _ in range(2000)]
    assert all(400 < released.count(place) < 600 for place in range(4))


def test_votes_that_are_far_apart_decide() -> None:
    below, variance = Random(4).randrange, variance_of(1.0)
    assert {noised([0, 40 * GRAIN, 0], variance, below) for _ in range(100)} == {1}
