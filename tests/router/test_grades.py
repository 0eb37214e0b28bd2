"""Where an expert stands: laws of F, the function from its graded outcomes."""

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.index import Index
from manyminds.router import SkillRouter
from manyminds.router.grades import GRADES, Standing, last_change, standing
from manyminds.types import Card, Outcome, Prior
from tests.changed import replace


def graded(place: int, correct: float, expert: str = "a", **more: Any) -> Outcome:
    named = Outcome(f"r{place}", expert, "ok", None, 0.0, 0, correct, place=place, at_utc=f"t{place:06}")
    return Outcome(**{name: getattr(named, name) for name in named.__struct_fields__} | more)


def stream(shares: list[float], seed: int = 0, **more: Any) -> list[Outcome]:
    """One outcome for each chance of being right."""
    draw = random.Random(seed)
    return [graded(i, float(draw.random() < p), **more) for i, p in enumerate(shares, 1)]


def router(*names: str) -> SkillRouter:
    made = SkillRouter(Index(3))
    for name in names:
        made.admit(Card(name, "scripted"))
    return made


def shift(outcomes: list[Outcome]) -> float:
    return standing(outcomes).shifts["b"]


# --- the same log, the same state ------------------------------------------------------------------

logs = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.sampled_from([0.0, 0.1, 0.3, 1.0]), st.sampled_from([0.2, 0.7, None])
    ),
    max_size=60,
)


@given(logs, st.randoms(use_true_random=False), st.integers(1, 9))
def test_neither_order_nor_batches_nor_repeats_matter(
    log: list[tuple[str, float, float | None]], draw: random.Random, size: int
) -> None:
    outcomes = [
        graded(i, correct, name, prior=None if prior is None else Prior(prior, "b"))
        for i, (name, correct, prior) in enumerate(log, 1)
    ]
    at_once, piecemeal = router("a", "b", "c"), router("a", "b", "c")
    at_once.learn(outcomes)
    mixed = draw.sample(outcomes, len(outcomes)) + outcomes[: len(outcomes) // 2]
    for i in range(0, len(mixed), size):
        piecemeal.learn(mixed[i : i + size])
    for name in "abc":
        assert piecemeal.standing(name) == at_once.standing(name)
        assert at_once.standing(name) == standing([o for o in outcomes if o.expert == name])


def test_a_router_that_was_there_all_the_time_knows_what_a_new_one_reads() -> None:
    log = stream([0.8] * (GRADES + 300))
    old, new = router("a"), router("a")
    for begin in range(0, len(log), 7):
        old.learn(log[begin : begin + 7])
    new.learn(log[-GRADES:])
    assert old.standing("a") == new.standing("a")
    assert new.standing("a").grades == GRADES


def test_votes_die_with_any_of_their_voters() -> None:
    votes = stream([1.0] * 30, weight=0.1, voters=("a", "b", "c"))
    made = router("a", "b", "c")
    made.learn(votes)
    assert made.standing("a").grades == pytest.approx(3.0)
    made.forget("b")
    assert made.standing("a") == Standing()
    made.admit(Card("b", "scripted"))
    assert made.standing("a").grades == pytest.approx(3.0)


def test_who_knows_is_heard_before_the_votes() -> None:
    vote = graded(1, 1.0, weight=0.1, voters=("a", "b"))
    word = graded(2, 0.0, request_id="r1")
    assert standing([vote, word]) == standing([word])


# --- how much grades count -------------------------------------------------------------------------


def test_a_handful_of_grades_changes_little_and_fifty_dominate() -> None:
    prior = Prior(0.8, "b")
    few, many = ([graded(i, 0.0, prior=prior) for i in range(1, n + 1)] for n in (3, 50))
    chance = [1 / (1 + math.exp(-(math.log(4) + shift(some)))) for some in (few, many)]
    assert chance[0] == pytest.approx(0.8 * 16 / 19, abs=1e-6)
    assert chance[1] == pytest.approx(0.8 * 16 / 66, abs=1e-6)


def test_grades_as_expected_change_nothing() -> None:
    draw = random.Random(3)
    priors = [draw.uniform(0.1, 0.9) for _ in range(200)]
    found = [graded(i, p, prior=Prior(p, "b")) for i, p in enumerate(priors, 1)]
    assert shift(found) == pytest.approx(0.0, abs=1e-9)


@given(st.floats(-2.0, 2.0), st.integers(0, 9))
def test_the_shift_is_found_whatever_the_questions(truth: float, seed: int) -> None:
    draw = random.Random(seed)
    log = []
    for i in range(1, 401):
        odds = draw.gauss(0.0, 1.5)
        right = 1 / (1 + math.exp(-odds - truth))
        log.append(graded(i, right, prior=Prior(1 / (1 + math.exp(-odds)), "b")))
    assert shift(log) == pytest.approx(truth, abs=0.15)


def test_each_basis_has_its_own_correction() -> None:
    log = [graded(i, float(i % 4 == 0), prior=Prior(0.5, "bc"[i % 2])) for i in range(1, 81)]
    found = standing(log).shifts
    assert found["b"] == pytest.approx(0.0, abs=1e-9)
    assert found["c"] < -1.0
    assert set(found) == {"b", "c"}


def test_what_votes_say_never_counts_for_more_than_a_claim() -> None:
    votes = [graded(i, 1.0, weight=0.1, voters=("a", "b", "c")) for i in range(1, 401)]
    assert standing(votes[:10]).grades == pytest.approx(1.0)
    assert standing(votes).grades == pytest.approx(8.0)
    assert standing([*votes, graded(500, 0.0)]).grades == pytest.approx(9.0)


# --- who has changed -------------------------------------------------------------------------------


def alarms(shares: list[float], seed: int, *, after: int | None = None) -> list[int]:
    """How many answers had been graded when a change was noticed; no further than the first one `after`."""
    correct = np.array([outcome.correct for outcome in stream(shares, seed)])
    weight, offset, group = np.ones(len(correct)), np.zeros(len(correct)), np.full(len(correct), "")
    begin, found = 0, []
    for end in range(1, len(correct) + 1):
        here = slice(max(begin, end - GRADES), end)
        change = last_change(weight[here], correct[here], group[here], offset[here])
        if change is not None:
            begin = here.start + change
            found.append(end)
            if after is not None and end > after:
                break
    return found


def test_steady_experts_raise_no_alarm() -> None:
    """One in 10,000 calls at most, whatever the card claimed: they are compared with themselves."""
    found = {share: len(alarms([share] * 10_000, seed)) for seed, share in enumerate((0.6, 0.9))}
    print(f"false alarms in 10,000 graded answers, by accuracy: {found}")
    assert all(count <= 1 for count in found.values())


def test_a_drop_of_thirty_points_is_noticed() -> None:
    delays = []
    for seed in range(90):
        before = (0.9, 0.8, 0.7)[seed % 3]
        found = alarms([before] * 200 + [before - 0.3] * 200, seed, after=200)
        delays.append(next((at - 200 for at in found if at > 200), 999))
    delays.sort()
    soon = sum(delay <= 60 for delay in delays)
    print(f"noticed after {delays[45]} graded answers (median), {delays[81]} (90%); within 60: {soon} of 90")
    assert delays[45] <= 60
    assert delays[81] <= 120


def test_after_a_change_only_what_came_since_counts() -> None:
    log = stream([0.9] * 150 + [0.2] * 60, seed=2)
    found = standing(log)
    assert found.drifted_utc is not None
    assert 140 <= int(found.drifted_utc[1:]) <= 160
    assert found.grades <= 70
    assert found.correct / found.grades < 0.35


def test_who_was_never_as_good_as_its_card_says_has_not_changed() -> None:
    assert standing(stream([0.3] * 300, prior=Prior(0.95, "b"))).drifted_utc is None


def test_harder_questions_are_no_change_where_they_were_expected_to_be() -> None:
    easy, hard = stream([0.95] * 150), stream([0.4] * 100, seed=1)
    expected = [replace(one, prior=Prior(0.95, "b")) for one in easy]
    expected += [replace(one, prior=Prior(0.4, "b"), place=150 + one.place) for one in hard]
    assert standing([*easy, *(replace(one, place=150 + one.place) for one in hard)]).drifted_utc is not None
    assert standing(expected).drifted_utc is None


def test_votes_alone_show_a_change_too_only_later() -> None:
    log = stream([0.97] * 300 + [0.3] * 200, weight=0.1, voters=("a", "b", "c"))
    made = router("a", "b", "c")
    assert made.learn(log[:300]) == []
    assert made.learn(log[300:]) == ["a"]
