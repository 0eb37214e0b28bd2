"""Which plan a policy takes, of plans whose outcomes are given."""

from collections.abc import Sequence

import numpy as np
import pytest

from manyminds.artefact import Base
from manyminds.learn import base, skills
from manyminds.learn.examples import Examples
from manyminds.learn.plans import Replayed, Stages
from manyminds.learn.policies import Choice, choose, share_prices
from tests.changed import replace
from tests.learn.worlds import Mind, world

N = 400
KEPT: list[tuple[Stages, float]] = [
    (((0,),), 1.0),
    (((1,),), 1.0),
    (((2,),), 1.0),
    (((0, 1, 2),), 1.0),
    (((1, 2), (0,)), 0.9),
]
BEST, CHEAP, WEAK, ALL, CASCADE = range(5)
BLIND = Base((), np.zeros(0), np.zeros(0), np.zeros((1, 0)), np.zeros((0, 0)))
TRUSTED = skills.Shrinkage(3.0, 3.0)
MINDS = (
    Mind("a", 0.8, 1.0, seconds=3.0),
    Mind("b", 0.75, 0.1, seconds=2.0),
    Mind("c", 0.5, 0.01, seconds=1.0),
)


def outcomes(
    shares: Sequence[float], costs: Sequence[float], topics: Sequence[str] = ("",)
) -> list[Replayed]:
    """What each plan came to: right in a share of the questions, those of which it is right in common."""
    made = []
    for (stages, _), share, cost in zip(KEPT, shares, costs, strict=True):
        asked = np.zeros((N, 3), np.bool_)
        asked[:, [j for stage in stages for j in stage]] = True
        made.append(Replayed(np.arange(N) % 100 < round(100 * share), np.full(N, cost), asked))
    return made


def chosen(shares: Sequence[float], costs: Sequence[float], examples: Examples | None = None) -> Choice:
    examples = examples or world(MINDS, N, seed=5)
    folds = np.array_split(np.random.default_rng(0).permutation(N), 5)
    return choose(KEPT, outcomes(shares, costs), BLIND, examples, 0, skills.NO_FEATURES, folds)


COSTS = (1.0, 0.1, 0.01, 1.11, 0.5)


def first(found: Choice) -> dict[str, int]:
    return {policy: order[0] for policy, order in found.ranking.items()}


def test_figures_are_what_came_of_each_plan() -> None:
    found = chosen((0.8, 0.75, 0.5, 0.9, 0.85), COSTS)
    assert [f[0] for f in found.figures] == pytest.approx([0.8, 0.75, 0.5, 0.9, 0.85])
    assert [f[1] for f in found.figures] == pytest.approx(COSTS)
    assert [f[2] for f in found.figures] == pytest.approx([3.0, 2.0, 1.0, 3.0, 5.0])


def test_every_policy_takes_what_it_is_for() -> None:
    found = chosen((0.8, 0.75, 0.5, 0.9, 0.85), COSTS)
    assert first(found) == {"max": ALL, "cheap": CASCADE, "auto": CASCADE, "fast": CHEAP}
    assert found.prices == {}


def test_what_is_next_is_next_best_by_the_policys_own_rule() -> None:
    """Where nothing else keeps to the rule, by accuracy; every plan has its place; fast asks one."""
    found = chosen((0.8, 0.78, 0.5, 0.9, 0.85), COSTS)
    assert found.ranking["max"][:2] == (ALL, CASCADE)
    assert found.ranking["cheap"] == (CASCADE, BEST, ALL, CHEAP, WEAK)
    assert found.ranking["auto"] == (CASCADE, BEST, ALL, CHEAP, WEAK)
    assert found.ranking["fast"] == (CHEAP, BEST, WEAK, ALL, CASCADE)


def test_where_nothing_is_as_good_all_is_left_to_the_best() -> None:
    found = chosen((0.8, 0.6, 0.5, 0.7, 0.65), COSTS)
    assert first(found) == dict.fromkeys(("max", "cheap", "auto", "fast"), BEST)


def test_cheap_and_auto_pay_no_more_than_the_best_costs() -> None:
    found = chosen((0.8, 0.75, 0.5, 0.9, 0.85), (1.0, 0.1, 0.01, 1.11, 1.2))
    assert (first(found)["cheap"], first(found)["auto"]) == (BEST, BEST)


def test_auto_spends_what_it_may_where_cheap_saves() -> None:
    found = chosen((0.8, 0.81, 0.5, 0.9, 0.87), COSTS)
    assert (first(found)["cheap"], first(found)["auto"]) == (CHEAP, CASCADE)


def test_a_gain_that_may_be_luck_is_not_counted_on() -> None:
    """As right on the whole, but on quite other questions: it may as well be much worse."""
    judged = outcomes((0.8, 0.75, 0.5, 0.7, 0.65), COSTS)
    judged[CASCADE] = replace(judged[CASCADE], right=np.roll(judged[BEST].right, 50))
    examples = world(MINDS, N, seed=5)
    folds = np.array_split(np.arange(N), 5)
    found = choose(KEPT, judged, BLIND, examples, 0, skills.NO_FEATURES, folds)
    assert first(found)["cheap"] == BEST


def test_the_cheapest_that_holds_by_the_luck_of_some_questions_is_not_taken() -> None:
    """It holds on the whole, and not without the fold to which it owes that: there another is chosen."""
    folds = [np.arange(k, N, 5) for k in range(5)]
    judged = outcomes((0.8, 0.75, 0.5, 0.7, 0.8), COSTS)
    single = judged[BEST].right
    lucky = single | (np.arange(N) % 5 == 0)
    others = np.flatnonzero(np.arange(N) % 5)
    won, lost = others[~single[others]][:10], others[single[others]][:10]
    lucky[won], lucky[lost] = True, False
    judged[CHEAP] = replace(judged[CHEAP], right=lucky)
    examples = world(MINDS, N, seed=5)
    found = choose(KEPT, judged, BLIND, examples, 0, skills.NO_FEATURES, folds)
    assert lucky.mean() > single.mean() + 0.03
    assert first(found)["cheap"] == CASCADE
    even = replace(judged[CHEAP], right=single)  # as right as the best, everywhere
    found = choose(KEPT, [*judged[:1], even, *judged[2:]], BLIND, examples, 0, skills.NO_FEATURES, folds)
    assert first(found)["cheap"] == CHEAP


def test_a_choice_that_fails_on_every_fold_is_not_made() -> None:
    """Each of three is right everywhere but on its own fold, so it is chosen just where it fails."""
    folds = np.array_split(np.arange(N), 3)
    judged = outcomes((0.8, 0.75, 0.5, 0.7, 0.85), (1.0, 0.1, 0.01, 0.02, 0.5))
    alone = choose(KEPT, judged, BLIND, world(MINDS, N, seed=5), 0, skills.NO_FEATURES, folds)
    assert first(alone)["cheap"] == CASCADE
    for plan, held in zip((CHEAP, WEAK, ALL), folds, strict=True):
        right = np.ones(N, np.bool_)
        right[held] = False
        judged[plan] = replace(judged[plan], right=right)
    found = choose(KEPT, judged, BLIND, world(MINDS, N, seed=5), 0, skills.NO_FEATURES, folds)
    assert first(found)["cheap"] == BEST


def test_fast_goes_by_seconds_then_tokens_then_accuracy() -> None:
    examples = world(MINDS, N, seed=5)
    unknown = np.full(examples.seconds.shape, np.nan)
    counted = replace(examples, seconds=unknown, tokens=np.tile([9.0, 30.0, 1.0], (N, 1)))
    shares = (0.8, 0.78, 0.5, 0.9, 0.85)
    assert chosen(shares, COSTS).ranking["fast"][0] == CHEAP
    assert chosen(shares, COSTS, counted).ranking["fast"][0] == BEST
    assert chosen(shares, COSTS, replace(counted, tokens=unknown)).ranking["fast"][0] == BEST


def test_seconds_that_are_not_known_stay_unknown() -> None:
    examples = world(MINDS, N, seed=5)
    examples.seconds[:, 1] = np.nan
    seconds = [f[2] for f in chosen((0.8, 0.75, 0.5, 0.9, 0.85), COSTS, examples).figures]
    assert np.isnan(seconds).tolist() == [False, True, False, True, True]


def test_without_costs_nothing_is_chosen_anew() -> None:
    assert chosen((0.8, 0.75, 0.5, 0.9, 0.85), (0.0,) * 5).prices == {}


def test_specialists_are_chosen_for_each_question() -> None:
    """Each of two is right about its own topic alone; one has the other behind it, which is then dear."""
    examples = world(MINDS, N, seed=5, topics=("law", "tax"))
    law = np.array([topic == "law" for topic in examples.topics])
    judged = outcomes((0.5, 0.5, 0.1, 0.5, 0.5), (1.0, 1.0, 1.0, 3.0, 3.0))
    for i, right in {BEST: law, CHEAP: ~law, WEAK: law & ~law, ALL: law, CASCADE: law | ~law}.items():
        judged[i] = replace(judged[i], right=right)
    judged[CASCADE] = replace(judged[CASCADE], cost=np.where(law, 4.0, 1.0))
    made = base.make(examples)
    folds = np.array_split(np.random.default_rng(0).permutation(N), 5)
    found = choose(KEPT, judged, made, examples, 0, TRUSTED, folds)
    assert found.prices["auto"] > 0.0


def test_who_is_not_the_best_is_not_relied_on_alone() -> None:
    """However right it was about its topic: questions in other words may be taken for that topic."""
    examples = world(MINDS, N, seed=5, topics=("law", "tax"))
    law = np.array([topic == "law" for topic in examples.topics])
    judged = outcomes((0.5, 0.5, 0.1, 0.5, 0.5), (1.0, 0.1, 1.0, 3.0, 3.0))
    for i, right in {BEST: law | ~law, CHEAP: law, WEAK: law & ~law, ALL: law, CASCADE: law}.items():
        judged[i] = replace(judged[i], right=right)
    folds = np.array_split(np.random.default_rng(0).permutation(N), 5)
    assert choose(KEPT, judged, base.make(examples), examples, 0, TRUSTED, folds).prices == {}


def test_texts_go_to_the_likeliest_where_that_is_better_than_to_the_best() -> None:
    """Each of two is right about its own topic; where both are alike the best is kept."""
    examples = world(MINDS, N, seed=5, kind="text", topics=("law", "tax"))
    law = np.array([topic == "law" for topic in examples.topics])
    made = base.make(examples)
    folds = np.array_split(np.random.default_rng(0).permutation(N), 5)
    alone = outcomes((0.5, 0.5, 0.1, 0.5, 0.5), COSTS)[:3]
    apart = [replace(one, right=right) for one, right in zip(alone, (law, ~law, law & ~law), strict=True)]
    found = choose(KEPT[:3], apart, made, examples, 0, TRUSTED, folds)
    assert found.prices["max"] > 1e5
    told = choose(KEPT[:3], apart, made, replace(examples, kinds=("option",) * N), 0, TRUSTED, folds)
    assert "max" not in told.prices
    best = np.arange(N) % 10 < 8
    same = [
        replace(one, right=best & (np.arange(N) % k > 0)) for k, one in zip((N, 2, 3), alone, strict=True)
    ]
    assert "max" not in choose(KEPT[:3], same, made, examples, 0, TRUSTED, folds).prices


def test_free_experts_are_chosen_by_their_chance() -> None:
    examples = world(MINDS, N, seed=5, kind="text", topics=("law", "tax"))
    law = np.array([topic == "law" for topic in examples.topics])
    made = base.make(examples)
    alone = outcomes((0.5,) * 5, COSTS)[:2]
    free = [
        replace(one, right=right, cost=np.zeros(N)) for one, right in zip(alone, (law, ~law), strict=True)
    ]
    folds = np.array_split(np.random.default_rng(0).permutation(N), 5)
    assert choose(KEPT[:2], free, made, examples, 0, TRUSTED, folds).prices == {"max": 1.0}


def test_parts_with_one_price_hold_together_what_one_of_few_questions_cannot_show() -> None:
    """In the second part, one question of forty is lost by what costs a tenth."""

    def part(n: int, lost: int) -> Choice:
        examples = world(MINDS, N, seed=5, topics=("law", "tax")).rows(np.arange(n))
        right = np.arange(n) % 2 == 0
        less = right & (np.arange(n) >= 2 * lost)
        plans = [(right, 1.0), (less, 0.1), (right & ~right, 0.01)]
        asked = np.eye(3, dtype=np.bool_)
        judged = [Replayed(r, np.full(n, c), np.tile(asked[i], (n, 1))) for i, (r, c) in enumerate(plans)]
        folds = np.array_split(np.random.default_rng(0).permutation(n), 5)
        kept: list[tuple[Stages, float]] = [KEPT[BEST], (((1,), (0,)), 0.9), KEPT[WEAK]]
        return choose(kept, judged, base.make(examples), examples, BEST, TRUSTED, folds)

    many, few = part(400, 0), part(40, 1)
    assert many.ranking["cheap"][0] == CHEAP
    assert few.ranking["cheap"][0] == BEST
    assert "cheap" not in few.prices
    shared = share_prices([many, few])
    assert shared[0].prices["cheap"] == shared[1].prices["cheap"] > 0.0
    alone = share_prices([few, few])
    assert "cheap" not in alone[0].prices
