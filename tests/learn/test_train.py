"""What training makes of worlds of which the truth is known, and that it makes the same again."""

import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from manyminds.artefact import Artefact, Part, load, save
from manyminds.errors import DataError
from manyminds.experts.recorded import open_set
from manyminds.learn.examples import Examples, gather
from manyminds.learn.train import train
from manyminds.types import Kind
from tests.changed import replace
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


def part(name: str) -> Part:
    """All that is learnt of a world whose questions are of one sort."""
    (part,) = learnt(name).parts
    return part


@cache
def held_out(name: str) -> Examples:
    return WORLDS[name].examples(1200, seed=2)


@cache
def played(name: str, policy: str) -> Played:
    return play(learnt(name), held_out(name), policy)


def best_single(name: str) -> float:
    """Accuracy of the expert that looked best, on questions that nothing was learnt from."""
    return singles(held_out(name))[part(name).best_single]


def cost_of(name: str, expert: str) -> float:
    return next(mind.cost_usd for mind in WORLDS[name].minds if mind.name == expert)


# --- what policies come to on questions held out -----------------------------------------------------


@pytest.mark.parametrize("policy", ["auto", "cheap", "max"])
@pytest.mark.parametrize("name", WORLDS)
def test_no_policy_does_worse_than_the_best_single_expert(name: str, policy: str) -> None:
    assert played(name, policy).accuracy >= best_single(name) - NOISE


@pytest.mark.parametrize("name", WORLDS)
def test_auto_and_cheap_cost_no_more_than_the_best_single_expert(name: str) -> None:
    cost = np.nan_to_num(cost_of(name, part(name).best_single))
    for policy in ("auto", "cheap"):
        assert played(name, policy).cost_usd <= 1.1 * cost


@pytest.mark.parametrize("name", WORLDS)
def test_fast_is_nearly_as_accurate(name: str) -> None:
    assert played(name, "fast").accuracy >= best_single(name) - 0.05 - NOISE


@pytest.mark.parametrize("name", WORLDS)
def test_every_policy_has_a_plan_and_its_figures_hold(name: str) -> None:
    made = part(name)
    assert set(made.ranking) == set(POLICIES)
    for policy in set(POLICIES) - set(made.prices):
        plan = made.plans[made.ranking[policy][0]]
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
    made = part("right_or_wrong_only")
    assert made.ballot is None
    assert all(len(plan.experts) == 1 for plan in made.plans)
    assert made.kinds == ("text",)
    assert played("right_or_wrong_only", "max").calls == 1.0


def test_without_costs_nothing_is_priced() -> None:
    made = part("no_costs")
    assert made.about["priced"] is False
    assert not made.skills.cost_usd.any()
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
    for plan in part("the_best_is_often_silent").plans:
        assert 0.0 < plan.threshold <= 1.0


def test_specialists_are_asked_about_what_they_know() -> None:
    assert played("specialists", "max").accuracy >= best_single("specialists") + 0.08
    weights = part("specialists").skills.weights
    law, tax = part("specialists").base.topics.index("law"), part("specialists").base.topics.index("tax")
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


@pytest.mark.usefixtures("weighed_quickly")
def test_without_a_source_is_as_if_it_had_never_been(tmp_path: Path) -> None:
    """To the byte, in whatever order the experts are recorded; and nobody's own numbers are others'."""
    never = train(recorded(tmp_path / "never", "acd"))
    with_it = recorded(tmp_path / "had", "dcba")
    had = open_set(tmp_path / "had")
    without = gather(had.experts(exclude=("b",)), had.questions(), had)
    assert saved(train(without), tmp_path) == saved(never, tmp_path)
    crowded, alone = train(with_it).parts[0].skills, never.parts[0].skills
    for row, name in enumerate("acd"):
        place = crowded.experts.index(name)
        for numbers in ("answered", "accuracy", "cost_usd", "ln_tokens"):
            assert (getattr(alone, numbers)[row] == getattr(crowded, numbers)[place]).all()


@pytest.mark.usefixtures("weighed_quickly")
def test_a_cost_that_was_not_always_recorded_is_taken_as_its_mean() -> None:
    examples = SMALL.examples(60, seed=3)
    examples.cost_usd[::2] = np.nan
    (made,) = train(examples).parts
    assert made.skills.cost_usd[:, 0] == pytest.approx([0.01, 0.02, 0.01], rel=0.02)


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
    (made,) = train(World((Mind("a", skill), Mind("b", skill))).examples(20, seed=3)).parts
    assert set(made.ranking) == set(POLICIES)
    assert np.isfinite(made.skills.weights).all()


# --- kinds that are mixed ----------------------------------------------------------------------------


def joined(told: Examples, verdicts: Examples) -> Examples:
    """Of the same experts."""
    two = (told, verdicts)
    arrays = ("spread", "votes", "correct", "cost_usd", "seconds", "tokens", "confidence")
    return replace(
        told,
        kinds=told.kinds + verdicts.kinds,
        read_as=told.read_as + verdicts.read_as,
        candidates=told.candidates + verdicts.candidates,
        topics=told.topics + verdicts.topics,
        **{name: np.concatenate([getattr(part, name) for part in two]) for name in arrays},
    )


TELLERS = World(
    (Mind("a", 0.7, 0.1), Mind("b", 0.65, 0.02), Mind("c", 0.6, 0.01), Mind("mute", 0.9, asked=0.0)),
    topics=("law", "tax"),
)
WRITERS = World(
    (
        Mind("a", 0.5, 0.1, by_topic={"verse": 0.8, "code": 0.3}),
        Mind("b", 0.5, 0.1, by_topic={"verse": 0.3, "code": 0.8}),
        Mind("c", 0.1, 0.01),
        Mind("mute", 0.55, 0.2),
    ),
    kind="text",
    topics=("code", "verse"),
)


@cache
def both() -> Artefact:
    return train(joined(TELLERS.examples(300, seed=1), WRITERS.examples(200, seed=1)), about={"set": "both"})


def test_mixed_questions_are_learnt_apart() -> None:
    told, verdicts = both().parts
    assert (told.kinds, verdicts.kinds) == (("option",), ("text",))
    assert (told.skills.experts, verdicts.skills.experts) == (("a", "b", "c"), ("a", "b", "c", "mute"))
    assert (told.about["questions"], verdicts.about["questions"]) == (300, 200)
    assert {told.about["set"], verdicts.about["set"]} == {"both"}
    assert told.ballot is not None
    assert verdicts.ballot is None
    assert all(len(plan.experts) == 1 for plan in verdicts.plans)


def test_who_is_likeliest_is_asked_for_a_text_and_nobody_else() -> None:
    fresh = WRITERS.examples(1200, seed=2)
    assert both().parts[1].prices["max"] > 0.0
    found = play(both(), fresh, "max")
    assert found.calls == 1.0
    assert found.accuracy == pytest.approx(0.8, abs=0.03)
    assert max(singles(fresh).values()) < 0.6


def test_mixed_questions_are_answered_each_in_its_way() -> None:
    fresh = joined(TELLERS.examples(600, seed=2), WRITERS.examples(400, seed=2))
    one = play(both(), fresh, "max")
    assert one.accuracy >= (600 * 0.7 + 400 * 0.8) / 1000 + 0.02
    told = play(both(), fresh.rows(np.arange(600)), "max")
    assert told.calls > 1.0
    for policy in POLICIES:
        assert play(both(), fresh.rows(np.arange(600, 1000)), policy).calls == 1.0


def test_the_best_for_all_texts_is_kept_where_choosing_is_no_better() -> None:
    flat = World((Mind("a", 0.8, 0.1), Mind("b", 0.4, 0.1)), kind="text", topics=("code", "verse"))
    artefact = train(flat.examples(200, seed=1))
    assert "max" not in artefact.parts[0].prices
    assert play(artefact, flat.examples(100, seed=2), "max").accuracy >= 0.7


@pytest.mark.usefixtures("weighed_quickly")
def test_of_a_part_with_too_few_questions_nothing_is_learnt() -> None:
    told, verdicts = TELLERS.examples(60, seed=1), WRITERS.examples(9, seed=1)
    (part,) = train(joined(told, verdicts)).parts
    assert part.kinds == ("option",)
    with pytest.raises(DataError, match="9 questions are too few"):
        train(joined(told.rows(np.arange(9)), verdicts))


@pytest.mark.usefixtures("weighed_quickly")
def test_what_one_expert_alone_writes_is_left_to_it() -> None:
    lone = World(tuple(Mind(name, 0.6, asked=float(name == "b")) for name in ("a", "b", "c", "mute")), "text")
    _, verdicts = train(joined(TELLERS.examples(60, seed=1), lone.examples(40, seed=1))).parts
    assert verdicts.skills.experts == ("b",)
    assert {plan.experts for plan in verdicts.plans} == {("b",)}


@pytest.mark.usefixtures("weighed_quickly")
@pytest.mark.parametrize(
    ("share", "mixed", "known"), [(0.06, True, True), (0.04, True, False), (0.3, False, False)]
)
def test_a_kind_that_the_gateway_reads_is_learnt_where_it_is_read_often(
    share: float, mixed: bool, known: bool
) -> None:
    """Of mixed questions from a twentieth on, of others from a half."""
    told = SMALL.examples(100, seed=3)
    read: list[Kind] = ["number" if i < 100 * share else "span" for i in range(100)]
    if mixed:
        told = joined(told, SMALL.examples(60, seed=4))
        read += ["option"] * 60
    kinds: list[Kind] = ["exact" if i < 100 else "option" for i in range(len(told))]
    part, *options = train(replace(told, read_as=tuple(read), kinds=tuple(kinds))).parts
    assert ("number" in part.kinds) == known
    assert {"exact", "span"} <= set(part.kinds)
    assert [other.kinds for other in options] == [("option",)] * mixed


@pytest.mark.usefixtures("weighed_quickly")
def test_a_kind_that_is_read_off_questions_of_two_parts_is_for_that_with_more_of_them() -> None:
    told = joined(SMALL.examples(60, seed=3), SMALL.examples(100, seed=4))
    kinds: tuple[Kind, ...] = ("exact",) * 60 + ("option",) * 100
    read: tuple[Kind, ...] = ("number",) * 30 + ("option",) * 30 + ("number",) * 50 + ("span",) * 50
    exact, options = train(replace(told, kinds=kinds, read_as=read)).parts
    assert exact.kinds == ("exact",)
    assert options.kinds == ("number", "option", "span")


@pytest.mark.usefixtures("weighed_quickly")
def test_ways_of_asking_that_are_one_call_there_are_one_expert_there() -> None:
    """The way that is the cheapest in all stands for them."""
    told = joined(TELLERS.examples(60, seed=1), TELLERS.examples(60, seed=2))
    tables = ("votes", "correct", "cost_usd", "seconds", "tokens", "confidence")
    told = replace(
        told,
        kinds=("option",) * 60 + ("exact",) * 60,
        sources=("m", "m", "c", "mute"),
        **{name: twin(getattr(told, name)) for name in tables},
    )
    exact, options = train(told).parts
    assert exact.skills.experts == ("a", "b", "c")
    assert options.skills.experts == ("b", "c")
    (alone,) = told.rows(np.arange(60)).parts()
    assert alone.experts == ("a", "c", "mute")


def twin(table: NDArray[Any]) -> NDArray[Any]:
    """On the first sixty questions, the first expert does as the second."""
    changed = table.copy()
    changed[:60, 0] = changed[:60, 1]
    return changed


def test_linear_algebra_takes_one_thread_even_where_scipy_was_not_loaded_before() -> None:
    """It brings its own, which a limit set before it is loaded does not hold."""
    script = (
        "from threadpoolctl import threadpool_info\n"
        "from manyminds.learn.train import one_thread\n"
        "with one_thread():\n"
        "    import scipy.linalg\n"
        "    print({one['num_threads'] for one in threadpool_info() if one['user_api'] == 'blas'})\n"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout == "{1}\n"
