"""What votes add up to, and who cannot win however much he weighs."""

import math
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from manyminds.combine.ballot import AHEAD, ENOUGH, Voice, agreed, likeliest, poll
from manyminds.types import Posterior

CANDIDATES = "abcd"

weights = st.floats(-1e6, 1e6) | st.floats(-5.0, 5.0) | st.sampled_from((0.1, 0.2, 0.3, 0.4, -0.7))
others = st.floats(-50.0, 50.0)
voices = st.builds(
    Voice,
    st.integers(0, 9).map(lambda i: f"e{i}"),
    st.sampled_from(CANDIDATES),
    weights,
    st.integers(0, 5).map(lambda i: f"s{i}"),
)


def by_hand(said: Sequence[tuple[str, str]]) -> set[str]:
    """Straight from the definition: what all sources but at most one name alone, and enough of them."""
    named = {source: {c for s, c in said if s == source} for source, _ in said}
    return {
        candidate
        for candidate in CANDIDATES
        if sum(names == {candidate} for names in named.values()) >= max(ENOUGH, len(named) - 1)
    }


def softmax(cast: Sequence[Voice], other: float) -> dict[str, float]:
    """Without any cap, and of experts that voted once."""
    scores = {c: math.fsum(v.weight for v in cast if v.candidate == c) for c in {v.candidate for v in cast}}
    top = max([*scores.values(), other])
    total = math.fsum([math.exp(s - top) for s in [*scores.values(), other]])
    return {c: math.exp(s - top) / total for c, s in scores.items()}


@given(st.lists(st.tuples(st.integers(0, 6).map(str), st.sampled_from(CANDIDATES)), max_size=12), st.data())
def test_what_is_agreed_is_one_at_most_and_knows_no_order(
    said: list[tuple[str, str]], data: st.DataObject
) -> None:
    found = by_hand(said)
    assert len(found) <= 1
    assert agreed(said) == next(iter(found), None)
    assert agreed(data.draw(st.permutations(said))) == agreed(said)


@settings(max_examples=500)
@given(
    st.integers(ENOUGH, 9),
    st.lists(weights, min_size=9, max_size=9),
    st.lists(weights, min_size=3, max_size=3),
    others,
    st.data(),
)
def test_who_is_alone_never_wins_against_enough_who_agree(
    many: int, theirs: list[float], own: list[float], other: float, data: st.DataObject
) -> None:
    """For all weights, also huge ones and those of experts that are worse than chance."""
    safe, *lies = data.draw(st.permutations(CANDIDATES))
    honest = [Voice(f"e{i}", safe, theirs[i], f"s{i}") for i in range(many)]
    experts = data.draw(st.lists(st.sampled_from("xyz"), min_size=1, max_size=3))
    said = [
        Voice(name, data.draw(st.sampled_from([*lies, safe])), own[i], "x") for i, name in enumerate(experts)
    ]
    found = poll(data.draw(st.permutations([*honest, *said])), other)
    assert likeliest(found) == safe == likeliest(poll(honest, other))
    for candidate, p in zip(found.candidates, found.probabilities, strict=True):
        assert candidate == safe or p < found.best


@settings(max_examples=300)
@given(st.lists(voices, max_size=12), others, st.integers(0, 1000))
def test_no_bit_hangs_on_the_order(cast: list[Voice], other: float, seed: int) -> None:
    assert poll(Random(seed).sample(cast, len(cast)), other) == poll(cast, other)


@given(st.lists(voices, max_size=8, unique_by=lambda voice: voice.expert), st.floats(-50.0, 50.0))
def test_nothing_is_capped_where_nobody_is_alone(cast: list[Voice], other: float) -> None:
    cast = [voice._replace(weight=max(min(voice.weight, 50.0), -50.0)) for voice in cast]
    assume(agreed((v.source, v.candidate) for v in cast) is None)
    found = poll(cast, other)
    assert dict(zip(found.candidates, found.probabilities, strict=True)) == pytest.approx(
        softmax(cast, other)
    )


@given(st.lists(voices, min_size=1, max_size=12), others)
def test_all_probability_is_shared_and_some_is_left_to_tell_candidates_apart(
    cast: list[Voice], other: float
) -> None:
    found = poll(cast, other)
    assert math.isclose(math.fsum([*found.probabilities, found.other]), 1.0, abs_tol=1e-12)
    assert found.best > 0.0


def four_against(weight: float, sources: Sequence[str] = "abcd", favour: float = 1.0) -> Posterior:
    honest = [Voice(f"e{i}", "right", 1.0, source) for i, source in enumerate(sources)]
    return poll([*honest, Voice("liar", "wrong", weight, "z", favour)], 0.0)


def test_it_is_capped_just_below_and_not_lower() -> None:
    found = dict(
        zip(*[getattr(four_against(9.0), name) for name in ("candidates", "probabilities")], strict=True)
    )
    assert math.log(found["right"] / found["wrong"]) == pytest.approx(AHEAD, abs=1e-9)
    less = four_against(3.0)
    assert less.probabilities == pytest.approx([softmax_of([4.0, 3.0], i) for i in range(2)])


def softmax_of(scores: Sequence[float], i: int) -> float:
    return math.exp(scores[i]) / (sum(map(math.exp, scores)) + 1.0)


def test_three_are_not_enough_nor_are_four_names_of_three_sources() -> None:
    assert likeliest(four_against(9.0)) == "right"
    assert likeliest(four_against(9.0, "abc")) == "wrong"
    assert likeliest(four_against(9.0, "abcc")) == "wrong"


def test_a_caller_may_favour_one_over_all_others() -> None:
    assert likeliest(four_against(9.0, favour=2.0)) == "wrong"
    assert likeliest(four_against(9.0, favour=1.0)) == "right"


def test_an_expert_without_a_source_is_its_own() -> None:
    cast = [Voice(f"e{i}", "right", 0.1) for i in range(4)]
    assert likeliest(poll([*cast, Voice("liar", "wrong", 9.0)], 0.0)) == "right"
