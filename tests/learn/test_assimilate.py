"""Newcomers make a network stronger or leave it as it was, bit by bit; without them it is what it was."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from manyminds.artefact import Artefact, Part, load, save
from manyminds.evals.hydra import played
from manyminds.learn.assimilate import Assimilator, Newcomer, assimilate
from manyminds.learn.examples import UNASKED, Examples
from manyminds.learn.train import train
from manyminds.types import Kind
from tests.changed import replace
from tests.learn.worlds import Mind, play, world

FIRST = (Mind("first-a", 0.5, 0.01), Mind("first-b", 0.45, 0.02), Mind("first-c", 0.4, 0.03))
STRONG, WEAK, LIKE = Mind("strong", 0.92, 0.005, seconds=0.1), Mind("weak", 0.3), Mind("equal", 0.55)
EVERYBODY = (*FIRST, STRONG, WEAK, LIKE)
NAMES = [mind.name for mind in FIRST]


@cache
def known(kind: Kind = "option") -> Examples:
    return world(EVERYBODY, 400, seed=1, kind=kind)


@cache
def held_out(kind: Kind = "option") -> Examples:
    return world(EVERYBODY, 1500, seed=2, kind=kind)


def first(kind: Kind = "option") -> Part:
    return _first(kind)


@cache
def _first(kind: Kind) -> Part:
    return train(known(kind).of(NAMES), seed=0).parts[0]


def probed(name: str, n: int = 64, seed: int = 7) -> Newcomer:
    rows = np.random.default_rng(seed).permutation(len(known()))[:n]
    return Newcomer(name, rows, np.full(n, 1 / n))


def outcomes(come: Sequence[Newcomer], kind: Kind = "option") -> Examples:
    """What is known where newcomers were asked their probes alone."""
    whole = known(kind)
    there = np.zeros(whole.votes.shape, np.bool_)
    there[:, [whole.experts.index(name) for name in NAMES]] = True
    for one in come:
        there[one.rows, whole.experts.index(one.name)] = True
    changes = {name: np.where(there, getattr(whole, name), np.nan) for name in ("cost_usd", "seconds")}
    votes = np.where(there, whole.votes, UNASKED).astype(np.int32)
    return replace(whole, votes=votes, correct=whole.correct & there, **changes)


def taken_in(*names: str, kind: Kind = "option") -> Part:
    come = [probed(name, seed=i) for i, name in enumerate(names)]
    return assimilate(first(kind), outcomes(come, kind), come)[0]


def test_a_much_better_newcomer_is_passed_at_once() -> None:
    grown = taken_in("strong")
    accuracy = play(Artefact((grown,)), held_out(), "max").accuracy
    assert accuracy >= held_out().of(["strong"]).correct.mean()
    assert grown.best_single == "strong"
    for policy in ("auto", "cheap", "fast"):
        assert play(Artefact((grown,)), held_out(), policy).accuracy >= accuracy - 0.02, policy


def test_a_newcomer_that_adds_nothing_changes_nothing() -> None:
    come = [probed("weak")]
    grown, (verdict,) = assimilate(first(), outcomes(come), come)
    assert verdict.what == "keep"
    assert verdict.accuracy == pytest.approx(0.3, abs=0.15)
    assert grown is first()


def test_what_was_learnt_of_others_stays_bit_by_bit() -> None:
    before, grown = first(), taken_in("strong", "equal")
    assert grown is not before
    old = [grown.skills.experts.index(name) for name in before.skills.experts]
    for name in ("weights", "accuracy", "asked", "answered", "cost_usd", "ln_tokens"):
        was, now = getattr(before.skills, name), getattr(grown.skills, name)
        assert now[old].tobytes() == was.tobytes(), name
    assert before.ballot is not None
    assert grown.ballot is not None
    for name in ("weights", "dilution", "length", "confidence", "label"):
        was, now = getattr(before.ballot, name), getattr(grown.ballot, name)
        assert now[old].tobytes() == was.tobytes(), name
    assert grown.base is before.base
    alone = {plan.experts: plan for plan in grown.plans if len(plan.experts) == 1}
    assert all(alone[plan.experts] is plan for plan in before.plans if len(plan.experts) == 1)


def test_removed_is_as_if_it_had_never_come(tmp_path: Path) -> None:
    """What the others' outcomes are does not depend on it; so the file is the same, byte by byte."""
    come = [probed("strong", seed=1), probed("equal", seed=2)]
    without, _ = assimilate(first(), outcomes(come), come[1:])
    never, _ = assimilate(first(), outcomes(come[1:]), come[1:])
    for name, part in (("without", without), ("never", never)):
        save(Artefact((part,)), tmp_path / name)
    assert (tmp_path / "without").read_bytes() == (tmp_path / "never").read_bytes()


def test_what_it_makes_is_an_artefact_like_any_other(tmp_path: Path) -> None:
    save(Artefact((taken_in("strong", "weak", "equal"),)), tmp_path / "grown.npz")
    loaded = load(tmp_path / "grown.npz").parts[0]
    assert loaded.about["newcomers"][0] == "strong"
    again = played(loaded, held_out())
    assert again.tobytes() == played(taken_in("strong", "weak", "equal"), held_out()).tobytes()


def test_the_replay_is_what_router_and_vote_would_do() -> None:
    for names in (("strong",), ("equal",), ("weak", "equal", "strong")):
        part = taken_in(*names)
        live = play(Artefact((part,)), held_out(), "max").accuracy
        assert played(part, held_out()).mean() == pytest.approx(live, abs=0.002), names


def test_one_whose_answers_cannot_be_compared_leads_or_stays_out() -> None:
    assert taken_in("weak", kind="text") is first("text")
    grown = taken_in("strong", kind="text")
    assert grown.best_single == "strong"
    assert played(grown, held_out("text")).mean() == held_out("text").of(["strong"]).correct.mean()


def test_with_more_outcomes_a_newcomer_may_prove_useful_after_all() -> None:
    """Many that are as good as the others: few probes do not show it, live outcomes of all do."""
    minds = (*FIRST, *(Mind(f"late-{i}", 0.5) for i in range(5)))
    whole, test = world(minds, 600, seed=4), world(minds, 1500, seed=5)
    part = train(whole.of(NAMES), seed=0).parts[0]
    network = Assimilator(part, whole)
    verdicts = [
        network.admit(Newcomer(f"late-{i}", np.arange(600), np.full(600, 1 / 600))).what for i in range(5)
    ]
    assert "join" in verdicts or "all" in verdicts
    assert played(network.part(), test).mean() > played(part, test).mean() + 0.05


def test_outcomes_of_everybody_who_was_learnt_from_are_needed() -> None:
    with pytest.raises(ValueError, match="first-c"):
        Assimilator(first(), known().of(["first-a", "first-b", "strong"]))


def test_nobody_comes_twice_or_unasked() -> None:
    come = [probed("strong"), probed("strong")]
    with pytest.raises(ValueError, match="strong"):
        assimilate(first(), outcomes(come), come)
    with pytest.raises(ValueError, match="asked nothing"):
        assimilate(first(), outcomes([]), [Newcomer("weak", np.zeros(0, np.intp), np.zeros(0))])


def test_a_copy_goes_its_own_way() -> None:
    come = [probed("strong")]
    network = Assimilator(first(), outcomes(come))
    other = network.copy()
    other.admit(come[0])
    assert network.part() is first()
    assert other.part() is not first()


def test_two_that_were_asked_nothing_in_common_are_taken_in() -> None:
    """What the network costs is then read off what is known best: of one of them."""
    minds = (*FIRST, Mind("good", 0.85, 0.002), Mind("better", 0.99, 0.001))
    whole = world(minds, 400, seed=1)
    part = train(whole.of(NAMES), seed=0).parts[0]
    come = [
        Newcomer(name, np.arange(64) + at, np.full(64, 1 / 64)) for name, at in (("good", 0), ("better", 64))
    ]
    asked = np.tile(np.isin(whole.experts, NAMES), (len(whole), 1))
    for one in come:
        asked[one.rows, whole.experts.index(one.name)] = True
    votes = np.where(asked, whole.votes, UNASKED).astype(np.int32)
    told = replace(whole, votes=votes, correct=whole.correct & asked)
    grown, verdicts = assimilate(part, told, come)
    assert [verdict.what == "keep" for verdict in verdicts] == [False, False]
    assert all(np.isfinite(plan.cost_usd) for plan in grown.plans)
