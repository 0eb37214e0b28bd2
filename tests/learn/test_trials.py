"""Rules tried on folds: what is judged is what they did on questions they had not seen."""

from functools import cache

import numpy as np
import pytest

from manyminds.learn import ballots, base
from manyminds.learn.plans import Explorer, Replayed, Stages
from manyminds.learn.trials import judge
from tests.learn.worlds import Mind, hand_made, world

MINDS = tuple(
    [Mind("best", 0.85, 0.1), Mind("dear", 0.8, 0.3)]
    + [Mind(f"cheap{i}", 0.72 + 0.01 * i, 0.002) for i in range(4)]
)


def explorer(n: int, seed: int, comparable: bool = True) -> Explorer:
    examples = world(MINDS, n, seed=seed)
    cost = np.nan_to_num(examples.cost_usd)
    if not comparable:
        return Explorer(examples, None, cost)
    (part,) = hand_made({mind.name: mind.skill for mind in MINDS}).parts
    assert part.ballot is not None
    x = base.features(part.base, examples)
    return Explorer(examples, ballots.cast(part.ballot, part.skills, x, examples), cost)


@cache
def judged(seed: int, comparable: bool = True) -> tuple[list[tuple[Stages, float]], list[Replayed]]:
    folds = np.array_split(np.random.default_rng(seed).permutation(200), 4)
    return judge(explorer(200, seed, comparable), 0, folds, seed, lambda share: None)


def test_every_expert_alone_is_judged_by_what_it_did() -> None:
    kept, done = judged(1)
    over = explorer(200, 1)
    for j in range(len(MINDS)):
        assert kept[j] == (((j,),), 1.0)
        assert (done[j].right == over.replay(*kept[j]).right).all()
    assert len(set(kept)) == len(kept) == len(done)


def test_who_is_asked_is_paid_and_every_question_has_an_outcome() -> None:
    cost = explorer(200, 1).cost
    for _, did in zip(*judged(1), strict=True):
        assert did.asked.any(axis=1).all()
        assert did.right.shape == did.cost.shape == (200,)
        assert (did.cost <= cost.sum(axis=1) + 1e-12).all()


def test_rules_find_a_plan_that_is_cheaper_than_the_best_alone_and_as_good() -> None:
    kept, done = judged(1)
    single = done[0]
    good = [
        plan
        for plan, did in zip(kept, done, strict=True)
        if did.cost.mean() < 0.5 * single.cost.mean() and did.right.mean() >= single.right.mean()
    ]
    assert good
    assert all(len(stages) > 1 or len(stages[0]) > 1 for stages, _ in good)


def test_what_is_judged_lasts_on_other_questions() -> None:
    """Over several worlds: nobody's figure is better than what the plan does elsewhere, on average."""
    gaps = []
    for seed in range(4):
        elsewhere = explorer(600, 100 + seed)
        for plan, did in list(zip(*judged(seed), strict=True))[len(MINDS) :]:
            gaps.append(did.right.mean() - elsewhere.replay(*plan).right.mean())
    assert abs(np.mean(gaps)) < 0.03


def test_answers_that_cannot_be_compared_leave_each_expert_alone() -> None:
    kept, _ = judged(1, comparable=False)
    assert kept == [(((j,),), 1.0) for j in range(len(MINDS))]


def test_the_same_seed_leads_to_the_same() -> None:
    one, two = judged(2), judged.__wrapped__(2)
    assert one[0] == two[0]
    assert all((a.right == b.right).all() for a, b in zip(one[1], two[1], strict=True))


def test_progress_is_told_to_the_end() -> None:
    told: list[float] = []
    folds = np.array_split(np.arange(100), 4)
    judge(explorer(100, 3), 0, folds, 0, told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)
