"""The mixture of next tokens: its weights are Bayes' rule, with switches a hidden Markov model's."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from manyminds.combine.mixture import Floats, along, followed, normal, pooled

experts = st.integers(1, 5)
chances = st.sampled_from([0.0, 0.001, 0.05, 0.3, 1.0])


@st.composite
def texts(draw: st.DrawFn, tokens: int = 6) -> tuple[Floats, Floats]:
    """(n, k) log-probabilities of a text's tokens by each expert, and prior weights (k,)."""
    count, length = draw(experts), draw(st.integers(0, tokens))
    seen = draw(arrays(np.float64, (length, count), elements=st.floats(-40.0, 0.0, allow_subnormal=False)))
    prior = draw(arrays(np.float64, count, elements=st.floats(0.01, 3.0)))
    return seen, prior


@given(texts(), chances)
def test_weights_sum_to_one_and_are_none_below_zero(text: tuple[Floats, Floats], switch: float) -> None:
    found = along(*text, switch).weights
    assert np.allclose(found.sum(axis=1), 1.0, atol=1e-12)
    assert (found >= 0).all()


@given(texts())
def test_without_switches_it_is_bayes_rule_on_the_whole_text(text: tuple[Floats, Floats]) -> None:
    seen, prior = text
    joint = normal(prior) * np.exp(seen.sum(axis=0))
    found = along(seen, prior)
    assert math.isclose(found.log_likelihoods.sum(), math.log(joint.sum()), rel_tol=1e-9, abs_tol=1e-9)
    assert np.allclose(found.weights[-1], joint / joint.sum(), atol=1e-9)


@given(texts(tokens=4), chances)
def test_with_switches_it_is_the_sum_over_all_ways_to_switch(
    text: tuple[Floats, Floats], switch: float
) -> None:
    seen, prior = text
    first = normal(prior)
    count = len(first)
    total = 0.0
    for path in itertools.product(range(count), repeat=len(seen)):
        chance = 1.0
        for i, expert in enumerate(path):
            stays = (1 - switch) * (expert == path[i - 1]) if i else 0.0
            chance *= (stays + switch * first[expert] if i else first[expert]) * math.exp(seen[i, expert])
        total += chance
    found = along(seen, prior, switch).log_likelihoods.sum()
    assert math.isclose(found, math.log(total), rel_tol=1e-9, abs_tol=1e-9)


@given(texts())
def test_it_is_never_much_worse_than_its_best_expert(text: tuple[Floats, Floats]) -> None:
    seen, prior = text
    bound = (seen.sum(axis=0) + np.log(normal(prior))).max()
    assert along(seen, prior).log_likelihoods.sum() >= bound - 1e-9


@given(texts(), chances, st.data())
def test_an_expert_of_no_weight_is_none(
    text: tuple[Floats, Floats], switch: float, data: st.DataObject
) -> None:
    seen, prior = text
    place = data.draw(st.integers(0, len(prior)))
    other = data.draw(arrays(np.float64, len(seen), elements=st.floats(-40.0, 0.0)))
    more = along(np.insert(seen, place, other, axis=1), np.insert(prior, place, 0.0), switch)
    without = along(seen, prior, switch)
    assert np.allclose(more.log_likelihoods, without.log_likelihoods, rtol=1e-12, atol=1e-12)
    assert np.allclose(np.delete(more.weights, place, axis=1), without.weights, atol=1e-12)


@given(texts(), chances, st.integers(0, 2**31))
def test_the_order_of_experts_does_not_matter(text: tuple[Floats, Floats], switch: float, seed: int) -> None:
    seen, prior = text
    order = np.random.default_rng(seed).permutation(len(prior))
    here, there = along(seen, prior, switch), along(seen[:, order], prior[order], switch)
    assert np.allclose(here.log_likelihoods, there.log_likelihoods, atol=1e-9)
    assert np.allclose(here.weights[:, order], there.weights, atol=1e-9)


@given(st.integers(1, 4), st.integers(2, 9), st.integers(0, 2**31))
def test_what_is_pooled_is_a_distribution_between_the_experts(k: int, v: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    shares = draw.dirichlet(np.full(v, 0.3), size=k)
    weights = draw.dirichlet(np.ones(k))
    with np.errstate(divide="ignore"):
        found = np.exp(pooled(weights, np.log(shares)))
    assert math.isclose(found.sum(), 1.0, rel_tol=1e-9)
    assert np.allclose(found, weights @ shares, atol=1e-12)


def test_who_says_nothing_keeps_its_weight_and_the_others_speak_for_it() -> None:
    weights = np.array([0.5, 0.3, 0.2])
    logs = np.log([[0.9, 0.1], [np.nan, 0.5], [0.3, 0.7]])
    assert np.allclose(np.exp(pooled(weights, logs)), [0.51 / 0.7, 0.19 / 0.7])
    after = followed(weights, logs[:, 0], weights)
    assert after[1] == 0.3
    assert np.allclose(after[[0, 2]], 0.7 * np.array([0.45, 0.06]) / 0.51)


def test_a_token_that_nobody_thought_possible_tells_nothing() -> None:
    weights = np.array([0.25, 0.75])
    assert np.array_equal(followed(weights, np.array([-np.inf, -np.inf]), weights), weights)
    assert pooled(weights, np.array([[-np.inf], [-np.inf]])) == -np.inf


def test_who_was_wrong_comes_back_by_switches_alone() -> None:
    prior = np.array([0.5, 0.5])
    ruled_out = np.array([[-np.inf, -1.0], [-0.1, -9.0]])
    assert along(ruled_out, prior).weights[-1, 0] == 0.0
    assert along(ruled_out, prior, 0.05).weights[-1, 0] > 0.9


@pytest.mark.parametrize(
    "weights", [[0.0, 0.0], [0.5, -0.1], [math.nan, 1.0], [math.inf], []], ids=lambda w: str(w)
)
def test_what_is_no_weight_is_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="no weights"):
        normal(np.array(weights))


def test_what_cannot_be_mixed_is_refused() -> None:
    with pytest.raises(ValueError, match="no chance"):
        along(np.zeros((1, 2)), np.ones(2), 1.5)
    with pytest.raises(ValueError, match="log-probabilities of 2 experts"):
        pooled(np.array([0.5, 0.5]), np.zeros((3, 4)))
    with pytest.raises(ValueError, match="nobody who has a weight"):
        pooled(np.array([1.0, 0.0]), np.array([[np.nan], [0.0]]))


@given(st.integers(1, 3), st.integers(0, 2**31), chances)
def test_texts_beside_each_other_do_not_touch(count: int, seed: int, switch: float) -> None:
    seen = np.log(np.random.default_rng(seed).uniform(1e-6, 1.0, (count, 5, 3)))
    prior = np.array([0.2, 0.5, 0.3])
    found = along(seen, prior, switch)
    for one, logs, weights in zip(seen, found.log_likelihoods, found.weights, strict=True):
        alone = along(one, prior, switch)
        assert np.array_equal(alone.log_likelihoods, logs)
        assert np.array_equal(alone.weights, weights)
