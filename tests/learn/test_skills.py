import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyminds.artefact import Base, Skills
from manyminds.learn import base, skills
from manyminds.learn.examples import UNASKED, Examples
from tests.changed import replace
from tests.learn.made import FOUR, Floats, outcomes, same, without

SHAPE = {"n": 150, "unasked": 0.15, "abstained": 0.1, "together": 0.3}


TEN = skills.Shrinkage(10.0, 10.0)


def fitted(examples: Examples, shrinkage: skills.Shrinkage = TEN) -> tuple[Skills, Floats]:
    made = base.make(examples)
    x = base.features(made, examples)
    return skills.fit(made, x, examples, shrinkage), x


def row(own: Skills, expert: str) -> list[object]:
    j = own.experts.index(expert)
    return [getattr(own, name)[j] for name in own.__dataclass_fields__]


@settings(max_examples=25)
@given(st.integers(0, 1000), st.sets(st.sampled_from(sorted(FOUR)), min_size=1), st.booleans())
def test_a_row_is_bit_identical_whoever_else_there_is(seed: int, some: set[str], told: bool) -> None:
    everybody, _ = fitted(outcomes(FOUR, seed=seed, told=told, **SHAPE))  # type: ignore[arg-type]
    few, _ = fitted(outcomes({n: FOUR[n] for n in some}, seed=seed, told=told, **SHAPE))  # type: ignore[arg-type]
    for name in some:
        assert all(same(a, b) for a, b in zip(row(few, name), row(everybody, name), strict=True))


def test_removing_is_as_if_never_added() -> None:
    everybody = outcomes(FOUR, **SHAPE)  # type: ignore[arg-type]
    others = {name: accuracy for name, accuracy in FOUR.items() if name != "bob"}
    assert same(fitted(without(everybody, "bob"))[0], fitted(outcomes(others, **SHAPE))[0])  # type: ignore[arg-type]


def test_another_experts_change_changes_no_bit() -> None:
    examples = outcomes(FOUR, **SHAPE)  # type: ignore[arg-type]
    correct = examples.correct.copy()
    correct[:, 1] = ~correct[:, 1]
    before, after = fitted(examples)[0], fitted(replace(examples, correct=correct))[0]
    changed = {
        n for n in FOUR if not all(same(a, b) for a, b in zip(row(before, n), row(after, n), strict=True))
    }
    assert changed == {"bob"}


def test_it_finds_what_each_can_do() -> None:
    examples, fresh = outcomes(n=3000), outcomes(n=3000, seed=1)
    own, _ = fitted(examples)
    chance = skills.predict(base.features(base.make(examples), fresh), own.weights)
    assert own.accuracy == pytest.approx(examples.correct.mean(axis=0), abs=0.002)
    assert chance.mean(axis=0) == pytest.approx(fresh.correct.mean(axis=0), abs=0.03)
    for j in range(4):
        likely = chance[:, j] > np.median(chance[:, j])
        assert fresh.correct[likely, j].mean() > fresh.correct[~likely, j].mean() + 0.05
    assert own.seconds == pytest.approx(examples.seconds.mean(axis=0))
    assert own.ln_tokens[:, 0] == pytest.approx(np.log(examples.tokens).mean(axis=0))
    assert own.cost_usd[:, 0] == pytest.approx(examples.cost_usd.mean(axis=0), rel=0.02)


def test_more_certain_is_more_often_right() -> None:
    own, _ = fitted(outcomes(n=1000))
    assert np.isfinite(own.confidence).all()
    assert (np.diff(own.confidence, axis=2) >= 0).all()
    assert (own.confidence[:, 1, -1] > 0).all()
    assert (own.confidence[:, 1, 0] < 0).all()


def test_of_what_was_not_recorded_nothing_is_known() -> None:
    own, _ = fitted(outcomes(n=100, told=False))
    assert np.isnan(own.seconds).all()
    assert np.isnan(own.confidence).all()
    assert (own.ln_tokens == [0.0, 1.0]).all()
    assert (own.cost_usd == 0.0).all()


def test_one_that_was_never_asked_may_be_right_or_wrong() -> None:
    own, x = fitted(outcomes(n=60, unasked=1.1))
    assert (own.answered == 0).all()
    assert own.accuracy == pytest.approx(0.5)
    assert skills.predict(x, own.weights) == pytest.approx(0.5)


@pytest.mark.parametrize("right", [True, False])
def test_one_that_is_always_or_never_right_has_finite_weights(right: bool) -> None:
    x = np.random.default_rng(0).normal(size=(500, 5))
    weights = skills.head(x, np.full(500, right), np.array([0.5, 3, 3, 3, 3, 3]))
    assert np.isfinite(weights).all()
    assert skills.predict(x, weights[None]).mean() == pytest.approx(float(right), abs=0.01)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 80), st.integers(0, 6))
def test_a_head_is_where_the_slope_is_zero(seed: int, n: int, p: int) -> None:
    rng = np.random.default_rng(seed)
    x, right = rng.normal(size=(n, p)), rng.random(n) < 0.7
    penalty = np.array([0.5, *rng.choice([0.3, 3.0, 30.0, 1000.0], p)])
    weights = skills.head(x, right, penalty, rounds=50)
    full = np.concatenate([np.ones((n, 1)), x], axis=1)
    slope = full.T @ (1 / (1 + np.exp(-full @ weights)) - right) + penalty * weights
    assert slope == pytest.approx(0.0, abs=1e-5)


def test_each_sort_of_feature_is_trusted_as_far_as_it_tells() -> None:
    rng = np.random.default_rng(0)
    examples = outcomes(n=800)
    folds = [np.sort(part) for part in np.array_split(rng.permutation(800), 4)]
    telling, noise = rng.normal(size=(800, 4)), rng.normal(size=(800, 12))
    odds = np.repeat(2.0 * telling.sum(axis=1, keepdims=True), 4, axis=1)
    led = replace(examples, correct=rng.random((800, 4)) < 1 / (1 + np.exp(-odds)))

    def chosen(topics: Floats, directions: Floats) -> skills.Shrinkage:
        x = np.concatenate([topics, directions], axis=1)
        return skills.choose_shrinkage(blind(topics.shape[1], directions.shape[1]), x, led, folds)

    by_topic, by_text = chosen(telling, noise), chosen(noise, telling)
    assert by_topic.topics < 10.0 < by_topic.directions
    assert by_text.directions < 10.0 < by_text.topics
    assert chosen(telling, np.zeros((800, 0))).topics < 10.0
    assert chosen(np.zeros((800, 0)), np.zeros((800, 0))) == skills.NO_FEATURES


def blind(topics: int, directions: int) -> Base:
    """A base of which the number of features counts alone."""
    names = tuple(map(str, range(topics)))
    return Base(names, np.zeros(topics), np.zeros(1), np.zeros((2, topics)), np.zeros((1, directions)))


def test_what_a_topic_costs_is_learnt_from_few_questions() -> None:
    """Of two topics, one costs ten times as much."""
    x = np.repeat([[0.5, -0.5], [-0.5, 0.5]], 20, axis=0)
    weights = skills.spend(blind(2, 0), x, np.repeat([1.0, 10.0], 20))
    assert weights[0] + x[[0, -1]] @ weights[1:] == pytest.approx([1.0, 10.0], abs=0.3)


def test_it_says_who_was_asked_about_what() -> None:
    examples = outcomes(FOUR, n=90, topics=True)
    about, column = np.array(examples.topics), examples.experts.index("bob")
    votes = examples.votes.copy()
    votes[about == sorted(set(examples.topics))[1], column] = UNASKED
    own, _ = fitted(replace(examples, votes=votes))
    assert own.asked[column].tolist() == [1.0, 0.0, 1.0]
    assert np.delete(own.asked, column, axis=0).min() == 1.0
