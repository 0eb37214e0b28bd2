"""What training makes of worlds of which the truth is known, and that it makes the same again."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from manyminds.artefact import Artefact, load, save
from manyminds.errors import DataError
from manyminds.experts.recorded import open_set
from manyminds.learn.examples import Examples, gather
from manyminds.learn.train import train
from manyminds.types import Kind
from tests.experts.test_recorded import Row, answer, model, question, write_set
from tests.learn.worlds import Mind, Played, play, singles, world

POLICIES = ("auto", "cheap", "fast", "max")
FREE = float("nan")
NOISE = 0.03  # two standard deviations of a difference on the questions held out


@dataclass(frozen=True)
class World:
    minds: tuple[Mind, ...]
    kind: Kind = "option"
    topics: tuple[str, ...] = ("",)

    def examples(self, n: int, seed: int) -> Examples:
        return world(self.minds, n, seed, self.kind, self.topics)


WORLDS = {
    "one_dominates": World(
        (Mind("boss", 0.9, 0.1), Mind("echo", 0.9, 0.12, like="boss"), Mind("x", 0.3), Mind("y", 0.3, 0.02))
    ),
    "independent_equals": World(tuple(Mind(name, 0.65) for name in "abcde")),
    "two_cheap_as_good_as_a_dear_one": World(
        (Mind("dear", 0.8, 1.0), Mind("p", 0.8, 0.02), Mind("q", 0.8, 0.03))
    ),
    "right_or_wrong_only": World(
        (Mind("a", 0.8, 0.1), Mind("b", 0.7, 0.01), Mind("c", 0.6, 0.02)), kind="text"
    ),
    "no_costs": World(tuple(Mind(name, 0.7, FREE) for name in "abc")),
    "asked_few_questions": World((Mind("a", 0.7), Mind("b", 0.7), Mind("rare", 0.95, asked=0.01))),
    "always_wrong_and_always_silent": World(
        (Mind("a", 0.75), Mind("b", 0.7), Mind("bad", 0.0), Mind("mute", 0.0, silent=1.0))
    ),
    "only_two": World((Mind("a", 0.75), Mind("b", 0.7, 0.002))),
    "the_best_is_often_silent": World((Mind("a", 0.95, 0.1, silent=0.2), Mind("b", 0.6, 0.1))),
    "specialists": World(
        (Mind("law", 0.6, by_topic={"law": 0.9}), Mind("tax", 0.6, by_topic={"tax": 0.9})),
        topics=("law", "tax"),
    ),
}


@cache
def learnt(name: str) -> Artefact:
    return train(WORLDS[name].examples(300, seed=1), seed=0)


@cache
def held_out(name: str) -> Examples:
    return WORLDS[name].examples(1200, seed=2)


@cache
def played(name: str, policy: str) -> Played:
    return play(learnt(name), held_out(name), policy)


def best_single(name: str) -> float:
    """Accuracy of the expert that looked best, on questions that nothing was learnt from."""
    return singles(held_out(name))[learnt(name).best_single]


def cost_of(name: str, expert: str) -> float:
    return next(mind.cost_usd for mind in WORLDS[name].minds if mind.name == expert)


# --- what policies come to on questions held out -----------------------------------------------------


@pytest.mark.parametrize("policy", ["auto", "cheap", "max"])
@pytest.mark.parametrize("name", WORLDS)
def test_no_policy_does_worse_than_the_best_single_expert(name: str, policy: str) -> None:
    assert played(name, policy).accuracy >= best_single(name) - NOISE


@pytest.mark.parametrize("name", WORLDS)
def test_auto_and_cheap_cost_no_more_than_the_best_single_expert(name: str) -> None:
    cost = np.nan_to_num(cost_of(name, learnt(name).best_single))
    for policy in ("auto", "cheap"):
        assert played(name, policy).cost_usd <= 1.1 * cost


@pytest.mark.parametrize("name", WORLDS)
def test_fast_is_nearly_as_accurate(name: str) -> None:
    assert played(name, "fast").accuracy >= best_single(name) - 0.05 - NOISE


@pytest.mark.parametrize("name", WORLDS)
def test_every_policy_has_a_plan_and_its_figures_hold(name: str) -> None:
    artefact = learnt(name)
    assert set(artefact.ranking) == set(POLICIES)
    for policy in set(POLICIES) - set(artefact.prices):
        plan = artefact.plans[artefact.ranking[policy][0]]
        assert plan.accuracy == pytest.approx(played(name, policy).accuracy, abs=0.06)


def test_what_adds_nothing_costs_nothing() -> None:
    for policy in ("auto", "cheap"):
        assert played("one_dominates", policy).cost_usd <= cost_of("one_dominates", "boss")


def test_independent_equals_are_better_together() -> None:
    assert played("independent_equals", "max").accuracy >= best_single("independent_equals") + 0.08


def test_two_that_agree_save_the_dear_one() -> None:
    found = played("two_cheap_as_good_as_a_dear_one", "cheap")
    assert found.cost_usd <= 0.5 * cost_of("two_cheap_as_good_as_a_dear_one", "dear")


def test_answers_that_cannot_be_compared_are_not_voted_on() -> None:
    artefact = learnt("right_or_wrong_only")
    assert artefact.ballot is None
    assert all(len(plan.experts) == 1 for plan in artefact.plans)
    assert artefact.kinds == ("text",)
    assert played("right_or_wrong_only", "max").calls == 1.0


def test_without_costs_nothing_is_priced() -> None:
    artefact = learnt("no_costs")
    assert artefact.about["priced"] is False
    assert not artefact.skills.cost_usd.any()
    assert played("no_costs", "max").accuracy >= best_single("no_costs") + 0.05


def test_who_is_always_wrong_or_silent_takes_nothing_away() -> None:
    assert played("always_wrong_and_always_silent", "max").accuracy >= 0.75
    cheap = played("always_wrong_and_always_silent", "cheap")
    assert cheap.accuracy >= 0.7


def test_somebody_else_answers_where_the_best_is_silent() -> None:
    """.95 of .8, and .6 of the .2 where it says nothing: .88 where the best alone comes to .76."""
    assert (
        played("the_best_is_often_silent", "max").accuracy >= best_single("the_best_is_often_silent") + 0.06
    )


def test_every_stage_can_be_reached() -> None:
    """At a threshold of 0 no further stage is ever asked, not even where nobody has said anything."""
    for plan in learnt("the_best_is_often_silent").plans:
        assert 0.0 < plan.threshold <= 1.0


def test_specialists_are_asked_about_what_they_know() -> None:
    assert played("specialists", "max").accuracy >= best_single("specialists") + 0.08
    weights = learnt("specialists").skills.weights
    law, tax = learnt("specialists").base.topics.index("law"), learnt("specialists").base.topics.index("tax")
    assert weights[0, 1 + law] > weights[0, 1 + tax]
    assert weights[1, 1 + law] < weights[1, 1 + tax]


# --- the same again ----------------------------------------------------------------------------------


def saved(artefact: Artefact, folder: Path) -> bytes:
    save(artefact, folder / "made.npz")
    return (folder / "made.npz").read_bytes()


SMALL = World((Mind("a", 0.7), Mind("b", 0.65, 0.02), Mind("c", 0.6)), topics=("law", "tax"))


def test_same_seed_same_bytes_and_they_load(tmp_path: Path) -> None:
    first, again = (train(SMALL.examples(60, seed=3), 5, {"set": "small"}) for _ in range(2))
    content = saved(first, tmp_path)
    assert saved(again, tmp_path) == content
    loaded = load(tmp_path / "made.npz")
    assert saved(loaded, tmp_path) == content
    assert loaded.about["set"] == "small"
    assert loaded.about["seed"] == 5


def test_the_order_of_questions_costs_little() -> None:
    examples = SMALL.examples(150, seed=3)
    shuffled = examples.rows(np.random.default_rng(1).permutation(150))
    one, other = (play(train(e), SMALL.examples(600, seed=4), "max") for e in (examples, shuffled))
    assert one.accuracy == pytest.approx(other.accuracy, abs=NOISE)


def test_progress_ascends_to_the_whole() -> None:
    told: list[tuple[str, float]] = []
    train(SMALL.examples(60, seed=3), progress=lambda what, share: told.append((what, share)))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert (shares[0] >= 0.0, shares[-1]) == (True, 1.0)
    assert len(set(shares)) > 3
    assert all(what for what, _ in told)


def recorded(folder: Path, names: str) -> Examples:
    """From a set on disk in which these models are recorded."""
    folder.mkdir()
    draw = np.random.default_rng(7)
    questions, answers = [], []
    for i in range(60):
        truth = "ABCD"[draw.integers(4)]
        fields: Row = {"category": f"c{i % 2}", "choices": ["w", "x", "y", "z"], "split": "calibration"}
        questions.append(question(f"q{i}", **fields))
        for name, said in zip("abcd", draw.integers(5, size=4), strict=True):  # drawn for all, whoever is in
            if name in names and (name, i % 3) != ("d", 0):
                text = truth if said > 1 else "ABCD"[said] if said else None
                right = {"answer": text, "correct": float(text == truth), "cost_usd": 0.01 * (1 + i % 7)}
                answers.append(answer(f"q{i}", name, **right))
    found = open_set(write_set(folder, questions, answers, [model(name) for name in names]))
    return gather(found.experts(), found.questions(), found)


def test_without_a_source_is_as_if_it_had_never_been(tmp_path: Path) -> None:
    """To the byte, in whatever order the experts are recorded; and nobody's own numbers are others'."""
    never = train(recorded(tmp_path / "never", "acd"))
    with_it = recorded(tmp_path / "had", "dcba")
    had = open_set(tmp_path / "had")
    without = gather(had.experts(exclude=("b",)), had.questions(), had)
    assert saved(train(without), tmp_path) == saved(never, tmp_path)
    crowded = train(with_it).skills
    for row, name in enumerate("acd"):
        place = crowded.experts.index(name)
        for numbers in ("answered", "accuracy", "cost_usd", "ln_tokens"):
            assert (getattr(never.skills, numbers)[row] == getattr(crowded, numbers)[place]).all()


def test_a_cost_that_was_not_always_recorded_is_taken_as_its_mean() -> None:
    examples = SMALL.examples(60, seed=3)
    examples.cost_usd[::2] = np.nan
    artefact = train(examples)
    assert artefact.skills.cost_usd[:, 0] == pytest.approx([0.01, 0.02, 0.01], rel=0.02)


# --- what cannot be learnt from ----------------------------------------------------------------------


def test_too_few_questions_are_refused() -> None:
    with pytest.raises(DataError, match="9 questions are too few"):
        train(SMALL.examples(9, seed=3))
    with pytest.raises(DataError, match="0 questions are too few"):
        train(SMALL.examples(0, seed=3))


@pytest.mark.parametrize("minds", [(), (Mind("a", 0.7),)])
def test_one_expert_is_no_network(minds: tuple[Mind, ...]) -> None:
    with pytest.raises(DataError, match="at least two"):
        train(World(minds).examples(100, seed=3))


@pytest.mark.parametrize("skill", [0.0, 1.0])
def test_who_is_all_right_or_all_wrong_can_be_learnt_from(skill: float) -> None:
    artefact = train(World((Mind("a", skill), Mind("b", skill))).examples(20, seed=3))
    assert set(artefact.ranking) == set(POLICIES)
    assert np.isfinite(artefact.skills.weights).all()
