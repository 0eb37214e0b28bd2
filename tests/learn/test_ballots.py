from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from manyminds.artefact import Ballot, Part
from manyminds.learn import ballots, base, skills
from manyminds.learn.ballots import COMPLEXITIES, Complexity, cast, panels, score
from manyminds.learn.examples import Examples
from tests.changed import replace
from tests.learn.made import (
    FOUR,
    MIDDLE,
    Floats,
    answers_to,
    asked,
    learnt,
    outcomes,
    panel_of,
    same,
    topic_features,
    voting,
    without,
)

SEVEN = {"a": 0.8, "b": 0.75, "c": 0.7, "d": 0.65, "e": 0.6, "f": 0.55, "g": 0.5}


def ballot_of(part: Part) -> Ballot:
    assert part.ballot is not None
    return part.ballot


def judged(
    part: Part, fresh: Examples, votes: NDArray[np.int32] | None = None
) -> tuple[Floats, NDArray[np.bool_]]:
    """(n,) the probability of what would be released, and whether it is right."""
    scores = cast(ballot_of(part), part.skills, topic_features(part.base, fresh), fresh)
    chance, voter = score(fresh.votes if votes is None else votes, scores)
    return chance, np.where(voter >= 0, fresh.correct[np.arange(len(fresh)), voter], False)


def calibration_error(chance: Floats, right: NDArray[np.bool_]) -> float:
    """Expected calibration error in ten groups of equal size."""
    groups = np.array_split(np.argsort(chance, kind="stable"), 10)
    return float(np.mean([abs(chance[g].mean() - right[g].mean()) for g in groups]))


# --- the vote that serves and the vote that learns -------------------------------------------------


@cache
def world(told: bool, topics: bool, labels: bool) -> tuple[Examples, Part]:
    examples = outcomes(
        SEVEN, n=150, unasked=0.1, abstained=0.15, together=0.2, told=told, topics=topics, labels=labels
    )
    return examples, learnt(examples, COMPLEXITIES[-1])


def shaken(ballot: Ballot, told: bool, seed: int) -> Ballot:
    """Every number moved, so that none is too small to be seen."""
    rng = np.random.default_rng(seed)

    def move(numbers: Floats) -> Floats:
        return numbers + rng.normal(0.0, 0.5, numbers.shape)

    return replace(
        ballot,
        weights=move(ballot.weights),
        length=move(ballot.length) if told else ballot.length,
        confidence=move(ballot.confidence),
        label=move(ballot.label),
        other=move(ballot.other),
        dilution=rng.uniform(0.0, rng.choice([0.0, 0.07, 2.0]), len(ballot.dilution)),
    )


@settings(max_examples=40)
@given(st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 10**6))
def test_it_votes_live_as_it_learnt(told: bool, topics: bool, labels: bool, said: bool, seed: int) -> None:
    """The same posterior and the same released voter, for random panels, wide ones too, and abstentions."""
    examples, part = world(told, topics, labels)
    if seed % 3:  # two or three of them are one source
        shared = (("one",) * (1 + seed % 3), examples.sources[1 + seed % 3 :])
        examples = replace(examples, sources=(*shared[0], *shared[1]))
    if not said:
        examples = replace(examples, topics=("",) * len(examples))
    ballot, wide = (shaken(ballot_of(part), told, seed + i) for i in range(2))
    vote, route = voting(replace(part, ballot=ballot, wide=wide)), panel_of(examples)
    x = topic_features(part.base, examples)
    votes, sources = panels(examples, np.random.default_rng(seed)), examples.sources
    chance, voter = score(votes, cast(ballot, part.skills, x, examples), sources)
    broad = np.flatnonzero((votes >= 0).sum(axis=1) >= 0.8 * len(examples.experts))
    assert len(broad)
    chance[broad], voter[broad] = score(votes[broad], cast(wide, part.skills, x, examples)[broad, :], sources)
    for i in range(seed % 5, len(examples), 5):
        answers = answers_to(examples, i, votes[i])
        posterior = vote.posterior(asked(examples, i), route, answers)
        assert posterior.best == pytest.approx(chance[i], abs=1e-9)
        if voter[i] >= 0:
            assert vote.choose(asked(examples, i), route, answers).expert == examples.experts[voter[i]]
        else:
            assert posterior.candidates == ()


def test_who_is_alone_against_enough_does_not_win_whatever_was_learnt() -> None:
    """The same as in the vote that serves; without the others' agreement he does."""
    rng = np.random.default_rng(5)
    votes = np.array([[0, 1, 1, 1, 1], [0, 1, 1, 1, -1], [0, 1, 1, 1, 2], [0, 1, 1, 1, 1]], np.int32)
    weights = np.column_stack([np.full(4, 50.0), rng.normal(0.0, 1.0, (4, 4))])
    scores = ballots.Scores(weights, np.zeros(4), np.zeros((4, 5)))
    _, alone = score(votes, scores)
    assert [voter == 0 for voter in alone] == [False, True, True, False]
    _, shared = score(votes, scores, ["a", "b", "b", "c", "d"])
    assert (shared == 0).all()
    same = np.array([[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]], np.int32)  # a source that is torn is alone, too
    heavy = ballots.Scores(np.tile([50.0, 50.0, 1.0, 1.0, 1.0, 1.0], (2, 1)), np.zeros(2), np.zeros((2, 6)))
    _, torn = score(same, heavy, ["a", "a", "b", "c", "d", "e"])
    assert (torn > 0).all()


def test_one_whose_tokens_are_not_recorded_votes_live_as_it_learnt() -> None:
    examples = outcomes(n=200)
    tokens = examples.tokens.copy()
    tokens[:, 1] = np.nan
    examples = replace(examples, tokens=tokens)
    part, route = replace(learnt(examples), wide=None), panel_of(examples)
    scores = cast(ballot_of(part), part.skills, topic_features(part.base, examples), examples)
    chance, _ = score(examples.votes, scores)
    vote = voting(part)
    for i in range(20):
        posterior = vote.posterior(asked(examples, i), route, answers_to(examples, i, examples.votes[i]))
        assert posterior.best == pytest.approx(chance[i], abs=1e-9)


def test_a_panel_of_nobody_has_no_chance() -> None:
    examples, part = world(True, True, True)
    nobody = np.full_like(examples.votes, -1)
    scores = cast(ballot_of(part), part.skills, topic_features(part.base, examples), examples)
    chance, voter = score(nobody, scores)
    assert (chance == 0.0).all()
    assert (voter == -1).all()


def test_random_panels_are_parts_of_the_full_one() -> None:
    examples, _ = world(True, True, True)
    drawn = panels(examples, np.random.default_rng(0))
    kept = drawn >= 0
    assert (drawn[kept] == examples.votes[kept]).all()
    assert (drawn[~kept] < 0).all()
    sizes = kept.sum(axis=1)
    assert sizes.min() <= 1
    assert sizes.max() >= 5
    assert same(panels(examples, np.random.default_rng(0)), drawn)


# --- fitting ---------------------------------------------------------------------------------------


def problem_of(examples: Examples, complexity: Complexity, wide: bool = False) -> ballots._Problem:
    """What `fit` minimises, from the full panels and one copy with random ones."""
    made = base.make(examples)
    own = skills.fit(made, base.features(made, examples), examples, skills.Shrinkage(30.0, 30.0))
    names = ballots._common_labels(examples)
    terms = ballots._terms(own, topic_features(made, examples), examples, names)
    curve = ballots._curve(own, examples.classes, complexity.steep)
    copies = [(examples.votes, 1.0), (panels(examples, np.random.default_rng(0), wide), 0.25)]
    return ballots._Problem(examples, terms, curve, copies, complexity, len(names))


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("topics", [True, False])
@pytest.mark.parametrize("complexity", [COMPLEXITIES[0], COMPLEXITIES[-1]])
def test_the_gradient_is_that_of_the_loss(labels: bool, topics: bool, complexity: Complexity) -> None:
    problem = problem_of(outcomes(n=40, unasked=0.1, abstained=0.1, labels=labels, topics=topics), complexity)
    flat = np.random.default_rng(1).normal(0.0, 0.3, problem.size)
    _, gradient = problem(flat)
    steps = 1e-6 * np.eye(problem.size)
    differences = [(problem(flat + step)[0] - problem(flat - step)[0]) / 2e-6 for step in steps]
    assert gradient == pytest.approx(np.array(differences), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("wide", [True, False])
def test_many_votes_are_weighed_alike_on_whatever_scale_they_are_fitted(wide: bool) -> None:
    """Rounds end when there is nothing left to gain, not before."""
    many = {f"{i:02}": 0.2 + 0.01 * i for i in range(60)}
    examples = outcomes(many, n=150, together=0.8, same_errors=0.8, labels=False)
    problem = problem_of(examples, COMPLEXITIES[5], wide)
    losses = [problem(ballots._least(problem, np.random.default_rng(seed)))[0] for seed in range(3)]
    assert max(losses) - min(losses) < 5e-5


def test_refitting_without_an_expert_is_as_if_it_had_never_been() -> None:
    shape: dict[str, Any] = {"n": 120, "unasked": 0.1, "abstained": 0.1, "together": 0.3}
    others = {name: accuracy for name, accuracy in FOUR.items() if name != "ann"}
    removed, never = without(outcomes(FOUR, **shape), "ann"), outcomes(others, **shape)
    assert same(learnt(removed), learnt(never))
    votes = panels(never, np.random.default_rng(0))
    for one, two in zip(
        judged(learnt(removed), removed, votes), judged(learnt(never), never, votes), strict=True
    ):
        assert same(one, two)


def test_the_same_seed_gives_the_same_bits() -> None:
    examples = outcomes(n=120)
    assert same(learnt(examples), learnt(examples))
    assert not same(learnt(examples).ballot, learnt(examples, seed=1).ballot)


@pytest.mark.parametrize("complexity", COMPLEXITIES)
def test_who_is_more_often_right_weighs_more(complexity: Complexity) -> None:
    examples = outcomes({"good": 0.9, "fair": 0.7, "poor": 0.5}, n=800, told=False, topics=False)
    ballot = ballot_of(learnt(examples, complexity))
    weight = dict(zip(examples.experts, ballot.weights[:, 0], strict=True))
    assert weight["good"] > weight["fair"] > weight["poor"] > 0.0


@pytest.mark.parametrize("together", [0.0, 0.5])
@pytest.mark.parametrize("abstained", [0.0, 0.2])
def test_it_is_as_often_right_as_it_says(together: float, abstained: float) -> None:
    """On fresh questions, for everybody together, random panels and lone voters."""
    examples, fresh = (
        outcomes(SEVEN, n=n, seed=seed, together=together, same_errors=together, abstained=abstained)
        for n, seed in ((1200, 0), (4000, 1))
    )
    part = learnt(examples)
    alone = np.where(np.arange(7) == np.arange(4000)[:, None] % 7, fresh.votes, -1).astype(np.int32)
    for votes in (fresh.votes, panels(fresh, np.random.default_rng(0)), alone):
        chance, right = judged(part, fresh, votes)
        assert calibration_error(chance, right) < 0.05
    chance, right = judged(part, fresh)
    assert right.mean() > fresh.correct.mean(axis=0).max() + 0.02


def test_copies_of_one_expert_are_no_more_certain_than_it_is() -> None:
    names = ["one", "two", "three", "four", "five"]
    shape: dict[str, Any] = {"topics": False, "told": False, "copies": dict.fromkeys(names, "one")}
    part = learnt(outcomes(dict.fromkeys(names, 0.7), n=800, **shape))
    fresh = outcomes(dict.fromkeys(names, 0.7), n=800, seed=1, **shape)
    for size in (1, 2, 5):
        votes = np.where(np.arange(5) < size, fresh.votes, -1).astype(np.int32)
        chance, _ = judged(part, fresh, votes)
        assert chance.mean() == pytest.approx(0.7, abs=0.06)


def test_experts_that_err_apart_are_surer_together() -> None:
    shape: dict[str, Any] = {"topics": False, "told": False, "same_errors": 0.0}
    part = learnt(outcomes(dict.fromkeys("abcde", 0.7), n=800, **shape))
    fresh = outcomes(dict.fromkeys("abcde", 0.7), n=800, seed=1, **shape)
    chance, _ = judged(part, fresh)
    assert chance.mean() > 0.88


def test_a_topic_that_one_expert_alone_knows_raises_its_weight_there() -> None:
    examples = outcomes({"art": 0.7, "law": 0.7, "sea": 0.7}, n=1500, told=False)
    knows = np.array([[topic == name for name in examples.experts] for topic in examples.topics])
    luck = np.random.default_rng(0).random(examples.correct.shape)
    right = luck < np.where(knows, 0.95, 0.5)
    answer = np.where(right, 0, 1 + np.arange(3))  # whoever is wrong is wrong in its own way
    examples = replace(
        examples, votes=answer.astype(np.int32), correct=right, candidates=(("w", "x", "y", "z"),) * 1500
    )
    part = learnt(examples, COMPLEXITIES[-1])
    x = topic_features(part.base, examples)
    weights = cast(ballot_of(part), part.skills, x, examples).weights
    assert weights[knows].mean() > weights[~knows].mean() + 0.5


@pytest.mark.parametrize("experts", [{"ann": 0.7}, FOUR])
def test_lone_experts_and_constant_outcomes_can_be_learnt_from(experts: dict[str, float]) -> None:
    for accuracy in (None, 0.0, 1.0):
        given = {n: a if accuracy is None else min(max(accuracy, 1e-9), 1 - 1e-9) for n, a in experts.items()}
        examples = outcomes(given, n=60)
        chance, _ = judged(learnt(examples, MIDDLE), examples)
        assert np.isfinite(chance).all()
        if accuracy is not None:
            assert chance.mean() == pytest.approx(accuracy, abs=0.1)
