"""Plans replayed on recorded outcomes: what they release, ask and pay, and which are found."""

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.learn import ballots, base
from manyminds.learn.examples import Examples
from manyminds.learn.plans import (
    ESCALATION,
    PENALTIES,
    PRICES,
    Explorer,
    Stages,
    escalations,
    search,
    steady,
    tiers,
)
from tests.changed import replace
from tests.clock import run
from tests.learn.worlds import Mind, hand_made, play, play_live, world

MINDS = (
    Mind("a", 0.81, 0.1, silent=0.1),
    Mind("b", 0.73, 0.03),
    Mind("c", 0.69, 0.02),
    Mind("d", 0.57, 0.007, silent=0.3),
)
ACCURACY = {"a": 0.8, "b": 0.72, "c": 0.66, "d": 0.57}
EXAMPLES = world(MINDS, 300, seed=5)


@cache
def explorer(examples: Examples = EXAMPLES, *, comparable: bool = True) -> Explorer:
    """Over votes that weigh their log-odds."""
    cost = np.nan_to_num(examples.cost_usd)
    if not comparable:
        return Explorer(examples, None, cost)
    (part,) = hand_made({name: ACCURACY[name] for name in examples.experts}).parts
    assert part.ballot is not None
    x = base.features(part.base, examples)
    return Explorer(examples, ballots.cast(part.ballot, part.skills, x, examples), cost)


@st.composite
def plans(draw: Any) -> tuple[Stages, float]:
    order = draw(st.permutations(range(4)))[: draw(st.integers(1, 4))]
    cuts = sorted(draw(st.sets(st.integers(1, 3))))
    edges = [0, *(cut for cut in cuts if cut < len(order)), len(order)]
    stages = tuple(tuple(sorted(order[i:j])) for i, j in pairwise(edges))
    return stages, draw(st.sampled_from([0.4, 0.6, 0.85, 0.97]))


@given(plans())
def test_who_is_asked_is_paid_and_nobody_else(plan: tuple[Stages, float]) -> None:
    found = explorer().replay(*plan)
    cost = np.nan_to_num(EXAMPLES.cost_usd)
    assert found.cost == pytest.approx((cost * found.asked).sum(axis=1))
    members = [j for stage in plan[0] for j in stage]
    assert not np.delete(found.asked, members, axis=1).any()
    assert found.asked[:, list(plan[0][0])].all()
    for stage in plan[0]:  # a stage is asked as one
        assert (found.asked[:, list(stage)].all(axis=1) == found.asked[:, list(stage)].any(axis=1)).all()
    assert (found.right <= (found.asked & EXAMPLES.correct).any(axis=1)).all()


@given(plans())
def test_a_higher_threshold_asks_more(plan: tuple[Stages, float]) -> None:
    stages, _ = plan
    asked = [explorer().replay(stages, threshold).asked for threshold in (0.3, 0.6, 0.9, 1.0)]
    assert all((less <= more).all() for less, more in pairwise(asked))


def worth(stages: Stages, threshold: float, price: float) -> float:
    found = explorer().replay(stages, threshold)
    return float(found.right.mean() - price * found.cost.mean())


@given(plans(), st.floats(0.0, 3.0))
def test_of_all_thresholds_the_best_is_found(plan: tuple[Stages, float], price: float) -> None:
    stages, other = plan
    value, best = explorer().value(stages, price, 0.0)
    assert worth(stages, best, price) >= worth(stages, other, price) - 0.005  # it tries a few, not all
    assert worth(stages, best, price) >= value - 1e-9  # which may ask for more of those who ask many


def test_one_alone_is_as_right_as_it_was() -> None:
    for j in range(4):
        found = explorer().replay(((j,),), 1.0)
        assert (found.right == EXAMPLES.correct[:, j]).all()


@pytest.mark.parametrize(
    ("stages", "threshold"),
    [
        ([["a", "b", "c", "d"]], 1.0),
        ([["b", "c"], ["a"]], 0.9),
        ([["a"], ["b"], ["c", "d"]], 0.85),
        ([["d"], ["a"]], 0.01),
    ],
)
def test_a_replay_is_what_the_router_and_the_vote_do(stages: list[list[str]], threshold: float) -> None:
    artefact = hand_made(ACCURACY, [(stages, threshold)], {"max": 4})
    places: Stages = tuple(tuple("abcd".index(name) for name in stage) for stage in stages)
    found, live = explorer().replay(places, threshold), play(artefact, EXAMPLES, "max")
    assert live.accuracy == pytest.approx(found.right.mean())
    assert live.cost_usd == pytest.approx(found.cost.mean())
    assert live.calls == pytest.approx(found.asked.sum(axis=1).mean())


@pytest.mark.parametrize(
    ("stages", "threshold"),
    [([["a", "b", "c"]], 1.0), ([["b", "c"], ["a"]], 0.6), ([["b", "c", "d"], ["a"]], 1e-6)],
)
def test_a_replay_is_what_the_fanout_does_when_answers_come_one_by_one(
    stages: list[list[str]], threshold: float
) -> None:
    artefact = hand_made(ACCURACY, [(stages, threshold)], {"max": 4})
    places: Stages = tuple(tuple("abcd".index(name) for name in stage) for stage in stages)
    rows = np.arange(80)
    found = explorer().rows(rows).replay(places, threshold)
    live = run(play_live(artefact, EXAMPLES.rows(rows), "max", seed=3))
    assert live.accuracy == pytest.approx(found.right.mean())
    assert live.cost_usd == pytest.approx(found.cost.mean())
    assert live.calls == pytest.approx(found.asked.sum(axis=1).mean())


def test_a_stand_in_is_asked_where_the_first_is_silent_and_only_there() -> None:
    """With any threshold above 0 that a single voice passes."""
    found = explorer().replay(((0,), (1,)), 1e-6)
    silent = EXAMPLES.votes[:, 0] < 0
    assert silent.any()
    assert (found.asked[:, 1] == silent).all()
    assert (found.right == np.where(silent, EXAMPLES.correct[:, 1], EXAMPLES.correct[:, 0])).all()


def test_part_of_the_questions_is_part_of_the_outcome() -> None:
    rows = np.array([3, 5, 250])
    plan: tuple[Stages, float] = (((1, 2), (0,)), 0.9)
    whole, part = explorer().replay(*plan), explorer().rows(rows).replay(*plan)
    assert (part.right == whole.right[rows]).all()
    assert (part.asked == whole.asked[rows]).all()
    assert part.cost == pytest.approx(whole.cost[rows])


# --- search ------------------------------------------------------------------------------------------


def test_the_search_finds_at_every_price_what_is_worth_it() -> None:
    over = explorer()
    told: list[float] = []
    found = search(over, 0, 0, told.append)
    assert len(found) == len(PENALTIES) * len(PRICES)
    assert told == sorted(told)
    assert told[-1] == 1.0
    scale = float(over.cost[:, 0].mean())
    asked = [(penalty, share) for penalty in PENALTIES for share in PRICES]
    for (penalty, share), (stages, threshold) in zip(asked, found, strict=True):
        price = share / scale
        value, best = over.value(stages, price, penalty)
        assert threshold == best
        assert value >= over.value(((0,),), price, penalty)[0]
        assert value >= over.value(((1, 2), (0,)), price, penalty)[0]  # the pair of cheap ones before it
    last = found[len(PRICES) - 1]
    assert over.replay(*found[0]).right.mean() > over.replay(*last).right.mean()
    assert over.replay(*found[0]).cost.mean() > over.replay(*last).cost.mean()


def test_the_search_is_the_same_again() -> None:
    assert search(explorer(), 0, 3) == search(explorer(), 0, 3)


def test_what_cannot_be_compared_is_not_combined() -> None:
    assert set(search(explorer(comparable=False), 2, 0)) == {(((2,),), 1.0)}
    assert steady(explorer(comparable=False), 2) == {}


def test_panels_that_nothing_was_searched_for_reach_from_two_to_all() -> None:
    found = [stages for stages, _ in steady(explorer(), 0).values() if len(stages) == 1]
    assert [len(stages[0]) for stages in found] == [2, 3, 4]
    assert found[0] == ((0, 1),)


def test_tiers_ask_the_cheap_first_and_nobody_dearer_than_the_best() -> None:
    minds = [Mind(name, 0.6 + 0.01 * i, 0.001 * (i + 1)) for i, name in enumerate("efgh")]
    minds += [Mind("a", 0.9, 0.1), Mind("b", 0.85, 0.05), Mind("z", 0.8, 0.3)]
    examples = world(minds, 300, seed=6)
    names, cost = examples.experts, np.nan_to_num(examples.cost_usd)
    (part,) = hand_made({mind.name: mind.skill for mind in minds}).parts
    assert part.ballot is not None
    scores = ballots.cast(part.ballot, part.skills, base.features(part.base, examples), examples)
    found = tiers(Explorer(examples, scores, cost), names.index("a"))
    assert found
    for stages, threshold in found.values():
        assert 0.0 < threshold < 1.0
        assert len(stages) > 1
        asked = [[names[j] for j in stage] for stage in stages]
        assert set(asked[0]) <= set("efgh")
        assert "z" not in {name for stage in asked for name in stage}
        assert len({name for stage in asked for name in stage}) == sum(map(len, asked))
    assert any(stages[-1] == (names.index("a"),) for stages, _ in found.values())
    assert tiers(explorer(comparable=False), 0) == {}


def test_everybody_may_have_the_best_behind() -> None:
    found = escalations(explorer(), 0)
    assert {rule[:2] for rule in found} == {(ESCALATION, j) for j in range(4)}
    for (_, j, doubt), plan in found.items():
        assert plan == ((((0,),), 1.0) if j == 0 else (((j,), (0,)), doubt))
    assert escalations(explorer(comparable=False), 0) == {}


def test_of_many_those_come_first_who_are_right_where_the_best_is_wrong() -> None:
    """Six of them: of eight, one is always wrong and one is right only where the best is."""
    n, best = 60, np.arange(60) % 2 == 0
    right = np.stack(
        [best, best, best & ~best, *(best | (np.arange(n) % k == 1) for k in range(2, 8))], axis=1
    )
    examples = world(tuple(Mind(name, 0.5) for name in "abcdefghi"), n, seed=5)
    examples = replace(examples, correct=right, votes=np.where(right, 0, 1).astype(np.int32))
    scores = ballots.Scores(np.ones((n, 9)), np.full(n, -9.0), np.zeros((n, 9)))
    found = escalations(Explorer(examples, scores, np.ones((n, 9))), 0)
    assert {j for _, j, _ in found} == {0, 3, 4, 5, 6, 7, 8}


def test_wide_panels_are_weighed_by_their_own_scores_and_others_are_not() -> None:
    one = explorer()
    (part,) = hand_made(dict(zip("abcd", (0.3, 0.6, 0.7, 0.9), strict=True))).parts
    assert part.ballot is not None
    x = base.features(part.base, EXAMPLES)
    other = ballots.cast(part.ballot, part.skills, x, EXAMPLES)
    two = Explorer(EXAMPLES, other, one.cost)
    both = Explorer(EXAMPLES, one._scores, one.cost, other)
    voters = (EXAMPLES.votes >= 0).sum(axis=1)
    assert len(set(voters)) > 1
    chance, right, _ = both.panel(range(4))
    for over, rows in ((one, voters < 4), (two, voters == 4)):
        assert (chance[rows] == over.panel(range(4))[0][rows]).all()
        assert (right[rows] == over.panel(range(4))[1][rows]).all()
    assert (both.panel([0, 1])[0] == one.panel([0, 1])[0]).all()
    some = both.rows(np.arange(50))
    assert (some.panel(range(4))[0] == chance[:50]).all()


@pytest.mark.parametrize("names", ["ab", "cd"])
def test_two_experts_can_be_searched(names: str) -> None:
    two = world([mind for mind in MINDS if mind.name in names], 50, seed=5)
    over = explorer(two)
    for stages, threshold in [*search(over, 0, 0), *steady(over, 0).values()]:
        assert {j for stage in stages for j in stage} <= {0, 1}
        assert over.replay(stages, threshold).asked.any()
