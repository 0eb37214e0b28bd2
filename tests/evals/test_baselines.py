"""What the network is compared with, on outcomes that a reader can count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.artefact import Artefact, Part
from manyminds.evals import baselines
from manyminds.learn import base, skills
from manyminds.learn.examples import ABSTAINED, UNASKED, Examples
from manyminds.types import Kind
from tests.changed import replace


def examples(votes: object, correct: object, topics: object = None, kind: Kind = "exact") -> Examples:
    """Rows are questions, columns the experts a, b, c, ...; each answer costs 1, 2, 4, ..."""
    cast, right = np.array(votes, np.int32), np.array(correct, np.bool_)
    n, m = cast.shape
    names = tuple("abcdefgh"[:m])
    unknown = np.full((n, m), np.nan)
    return Examples(
        experts=names,
        sources=names,
        kinds=(kind,) * n,
        read_as=(kind,) * n,
        spread=np.full(n, 4.0),
        classes=4.0,
        candidates=tuple(tuple("wxyz"[: max(row.max() + 1, 0)]) for row in cast),
        votes=cast,
        correct=right,
        cost_usd=np.where(cast == UNASKED, np.nan, 2.0 ** np.arange(m)),
        seconds=unknown,
        tokens=unknown,
        confidence=unknown,
        topics=tuple(topics) if isinstance(topics, str) else ("",) * n,
        vectors=None,
    )


def learnt(train: Examples) -> Artefact:
    made = base.make(train)
    own = skills.fit(made, base.features(made, train), train, skills.Shrinkage(10.0, 10.0))
    return Artefact((Part({}, (train.kinds[0],), made, own, None, None, (), train.experts[0], {}, {}),))


TRAIN = examples([[0, 0, 1]] * 4, [[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]])


def test_experts_are_ranked_by_accuracy_then_name() -> None:
    assert baselines.ranked(TRAIN).tolist() == [0, 1, 2]
    tied = examples([[0, 0, UNASKED]] * 2, [[0, 1, 0], [1, 0, 0]])
    assert baselines.ranked(tied).tolist() == [0, 1, 2]
    assert baselines.best_single(tied) == 0


def test_a_question_that_an_expert_was_not_asked_counts_as_wrong() -> None:
    rare = examples([[0, UNASKED], [0, UNASKED], [0, 0]], [[1, 0], [1, 0], [0, 1]])
    assert baselines.best_single(rare) == 0
    lone = baselines.single(rare, 1)
    assert lone.correct.tolist() == [False, False, True]
    assert lone.cost_usd is not None
    assert lone.cost_usd.tolist() == [0, 0, 2]


def test_first_parsed_falls_back_and_pays_for_all_until_then() -> None:
    test = examples(
        [[0, 1, 1], [ABSTAINED, 0, 1], [UNASKED, ABSTAINED, 0], [ABSTAINED, ABSTAINED, UNASKED]],
        [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]],
    )
    found = baselines.first_parsed(test, np.array([0, 1, 2]))
    assert found.correct.tolist() == [True, True, True, False]
    assert found.cost_usd is not None
    assert found.cost_usd.tolist() == [1, 3, 6, 3]


def test_best_per_category_trusts_a_category_as_far_as_it_has_questions() -> None:
    train = examples([[0, 1]] * 100, [[1, 0]] * 50 + [[0, 1]] * 49 + [[0, 1]], "p" * 50 + "q" * 49 + "r")
    test = examples([[0, 1]] * 4, [[1, 0], [0, 1], [1, 0], [0, 1]], "pqzr")
    found = baselines.best_per_category(train, test)
    assert found is not None
    assert found.correct.tolist() == [True, True, True, True]  # of z nothing is known: a is the best single
    few = replace(train, topics=("p",) * 99 + ("q",))
    assert baselines.best_per_category(few, test) is not None
    assert baselines.best_per_category(replace(train, topics=("p",) * 100), test) is None


def test_the_heaviest_voter_of_the_winner_is_released() -> None:
    test = examples(
        [[0, 1, 1], [0, 1, 2], [ABSTAINED, ABSTAINED, 0], [ABSTAINED] * 3],
        [[0, 0, 1], [1, 0, 0], [0, 0, 1], [0, 1, 1]],
    )
    found = baselines.vote(test, np.arange(3), np.array([1.2, 1.1, 1.0]))
    assert found.correct.tolist() == [False, True, True, False]  # b speaks for the pair, and b's flag counts
    assert found.cost_usd is not None
    assert found.cost_usd.tolist() == [7, 7, 7, 7]
    assert baselines.vote(test, np.array([2]), np.ones(3)).correct.tolist() == [True, False, True, True]


def test_a_vote_below_chance_is_a_warning() -> None:
    test = examples([[0, 1]], [[0, 1]])
    assert baselines.vote(test, np.arange(2), np.array([-1.0, -2.0])).correct.tolist() == [False]
    assert baselines.vote(test, np.arange(2), np.array([-2.0, -1.0])).correct.tolist() == [True]


def test_log_odds_let_the_strong_outvote_the_weak() -> None:
    train = examples([[0, 1, 1]] * 20, [[1, 0, 0]] * 14 + [[1, 1, 1]] * 5 + [[0, 1, 1]])
    test = examples([[0, 1, 1]], [[1, 0, 0]])
    found = baselines.controls(train, test, learnt(train))
    assert found["majority"] is not None
    assert found["log_odds"] is not None
    assert found["majority"].correct.tolist() == [False]
    assert found["log_odds"].correct.tolist() == [True]


def test_the_router_alone_asks_who_is_likeliest_there() -> None:
    train = examples([[0, 1]] * 80, [[1, 0]] * 40 + [[0, 1]] * 40, "p" * 40 + "q" * 40)
    test = examples([[0, 1]] * 2, [[1, 0], [0, 1]], "pq")
    assert baselines.router_only(test, learnt(train)).correct.tolist() == [True, True]
    chances = baselines.probabilities(test, learnt(train))
    assert chances.shape == (2, 2)
    assert chances[0, 0] > 0.6 > 0.4 > chances[0, 1]


def test_where_answers_cannot_be_compared_nobody_votes() -> None:
    train = examples([[ABSTAINED, ABSTAINED]] * 4, [[1, 0], [1, 0], [0, 1], [1, 1]], "ppqq", kind="text")
    found = baselines.controls(train, train, learnt(train))
    assert {name for name, control in found.items() if control is None} == {
        "first_parsed",
        "majority",
        "majority_top_3",
        "log_odds",
    }


def test_costs_that_are_not_recorded_are_unknown() -> None:
    free = replace(TRAIN, cost_usd=np.full((4, 3), np.nan))
    for control in baselines.controls(free, free, learnt(free)).values():
        assert control is None or control.cost_usd is None or np.isnan(control.cost_usd).all()


@st.composite
def outcomes(draw: st.DrawFn) -> Examples:
    n, m = draw(st.integers(1, 6)), draw(st.integers(2, 7))
    cell = st.sampled_from([UNASKED, ABSTAINED, 0, 1, 2])
    votes = np.array(draw(st.lists(st.lists(cell, min_size=m, max_size=m), min_size=n, max_size=n)))
    right = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    return examples(votes, votes == np.array(right)[:, None])


@given(outcomes(), st.data())
def test_a_vote_is_the_sum_that_one_can_do_by_hand(test: Examples, data: st.DataObject) -> None:
    m = len(test.experts)
    weights = np.array(data.draw(st.permutations([0.1 * 2**i for i in range(m)])))  # no two sums are equal
    found = baselines.vote(test, np.arange(m), weights)
    for i in range(len(test)):
        sums: dict[int, float] = {}
        for j in range(m):
            if test.votes[i, j] >= 0:
                sums[test.votes[i, j]] = sums.get(test.votes[i, j], 0.0) + weights[j]
        voters = [j for j in range(m) if sums and test.votes[i, j] == max(sums, key=lambda c: sums[c])]
        speaker = max(voters or range(m), key=lambda j: weights[j])
        assert found.correct[i] == test.correct[i, speaker]


@given(outcomes())
def test_nobody_passes_the_oracle(test: Examples) -> None:
    found = baselines.controls(test, test, learnt(test))
    oracle = found["oracle"]
    assert oracle is not None
    for control in found.values():
        assert control is None or not (control.correct & ~oracle.correct).any()
    best = baselines.single(test, baselines.best_single(test)).correct.mean()
    assert best == pytest.approx(test.correct.mean(axis=0).max())


def mixed() -> Examples:
    """Two questions with answers, two with verdicts alone: there c is right, and a where it can vote."""
    votes = [[0, 1, 1], [0, 0, 1], [ABSTAINED] * 3, [ABSTAINED] * 3]
    test = examples(votes, [[1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 0, 1]], "ppqq")
    return replace(test, kinds=("exact", "exact", "text", "text"))


def test_where_answers_cannot_be_compared_votes_leave_it_to_the_best() -> None:
    test = mixed()
    found = baselines.controls(test, test, learnt(test))
    for name in ("first_parsed", "majority", "majority_top_3", "log_odds"):
        control = found[name]
        assert control is not None
        assert control.cost_usd is not None
        assert control.correct[2:].tolist() == [False, True]  # a, the best of all
        assert control.cost_usd[2:].tolist() == [1, 1]
    assert found["majority"] is not None
    assert found["majority"].correct[:2].tolist() == [False, True]
    assert found["first_parsed"] is not None
    assert found["first_parsed"].cost_usd is not None
    assert found["first_parsed"].cost_usd.tolist() == [1, 1, 1, 1]


def test_the_router_goes_by_the_part_that_knows_the_kind() -> None:
    train = examples([[0, 1]] * 80, [[1, 0]] * 40 + [[0, 1]] * 40, "p" * 40 + "q" * 40)
    (told,) = learnt(train).parts
    (turned,) = learnt(replace(train, correct=~train.correct, kinds=("text",) * 80)).parts
    test = examples([[0, 1]] * 3, [[1, 0], [0, 1], [1, 0]], "ppp")
    test = replace(test, kinds=("exact", "text", "number"))
    chances = baselines.probabilities(test, Artefact((told, turned)))
    assert chances[0, 0] > 0.6 > 0.4 > chances[1, 0]
    assert np.isnan(chances).tolist() == [[False] * 2, [False] * 2, [True] * 2]
    assert baselines.router_only(test, Artefact((told, turned))).correct.tolist() == [True, True, True]


def test_who_was_not_asked_of_a_kind_is_not_foreseen() -> None:
    train = examples([[0, 1]] * 20, [[1, 0]] * 20)
    test = examples([[0, 1, UNASKED]], [[1, 0, 0]])
    assert np.isnan(baselines.probabilities(test, learnt(train))).tolist() == [[False, False, True]]
