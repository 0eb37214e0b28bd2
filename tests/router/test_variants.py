"""Ways of asking one expert: named by plans that were learnt, and by nobody else."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.artefact import Artefact
from manyminds.errors import NoExpertError
from manyminds.index import Index
from manyminds.router import SkillRouter
from manyminds.router.policy import POLICIES
from manyminds.types import Card, Kind, Limits, Route
from tests.changed import replace
from tests.learn.worlds import ask, hand_made

BASES = ("a", "b", "c")
WAYS = ("a:cot", "a:direct", "b:cot", "b:direct")
ACCURACY = {"a:cot": 0.9, "a:direct": 0.6, "b:cot": 0.7, "b:direct": 0.65}


def card(name: str, **fields: Any) -> Card:
    base = name.partition(":")[0]
    given: dict[str, Any] = {"source": f"of {base}", "accuracy": 0.95 if ":" in name else 0.5}
    return Card(name, "scripted", variant_of=base if ":" in name else "", **given | fields)


def route(
    policy: str,
    artefact: Artefact | None = None,
    names: Sequence[str] = (*BASES, *WAYS),
    kind: Kind = "option",
    model: str = "auto",
    **limits: Any,
) -> Route:
    demanded = Limits(policy=policy, **limits)
    query = replace(ask(kind=kind), model=model, limits=demanded)
    return SkillRouter(Index(8), None, artefact).route(query, [card(name) for name in names], demanded)


def panel() -> Artefact:
    return hand_made(ACCURACY, [([["a:cot", "b:cot"]], 1.0)], dict.fromkeys(POLICIES, 4))


def alone(name: str) -> Artefact:
    return hand_made(ACCURACY, (), dict.fromkeys(POLICIES, sorted(ACCURACY).index(name)))


def asked(found: Route) -> set[str]:
    return {call.expert for call in found.calls}


# --- who is a candidate ------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", ["option", "text"])
@pytest.mark.parametrize("strategy", [None, "vote", "select", "fuse", "race"])
def test_the_rules_choose_no_way_of_asking(policy: str, kind: Kind, strategy: Any) -> None:
    found = route(policy, kind=kind, strategy=strategy)
    assert {call.expert for call in found.everyone} <= set(BASES)
    assert found.fuser in (None, *BASES)
    assert found == route(policy, names=BASES, kind=kind, strategy=strategy)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_plan_that_was_learnt_names_them(policy: str) -> None:
    assert asked(route(policy, panel())) == {"a:cot", "b:cot"}
    assert asked(route(policy, panel(), kind="number")) <= set(BASES)  # of another kind than was learnt


@pytest.mark.parametrize("policy", POLICIES)
def test_where_nobody_else_is_they_are_experts(policy: str) -> None:
    assert asked(route(policy, names=WAYS)) <= set(WAYS)
    assert asked(route(policy, include=("a:cot",))) == {"a:cot"}


def test_one_is_asked_by_its_name() -> None:
    found = route("auto", panel(), model="a:direct")
    assert (found.strategy, asked(found), found.reserve) == ("pass", {"a:direct"}, ())


# --- what callers say of an expert holds for all its ways -------------------------------------------


@pytest.mark.parametrize("name", ["a", "of a"])
def test_who_is_excluded_is_excluded_in_every_way(name: str) -> None:
    found = route("max", panel(), exclude=(name,))
    assert {call.expert for call in found.everyone} <= {"b", "c", "b:cot", "b:direct"}
    with pytest.raises(NoExpertError, match="a:cot is excluded"):
        route("max", panel(), ("a", "a:cot"), exclude=("a",))


@pytest.mark.parametrize("name", ["a", "of a"])
def test_who_is_included_is_included_in_every_way(name: str) -> None:
    found = route("max", alone("a:cot"), include=(name,))
    assert asked(found) == {"a:cot"}
    assert {call.expert for call in found.everyone} <= {"a", "a:cot", "a:direct"}


def test_one_way_alone_may_be_excluded() -> None:
    assert asked(route("max", alone("a:cot"), exclude=("a:cot",))) == {"b:cot"}


def test_a_weight_is_every_ways_and_once() -> None:
    for weights, of_a in (
        ({"a": 0.5}, 0.5),
        ({"a": 0.5, "of a": 0.5}, 0.25),
        ({"a": 0.5, "a:cot": 4.0}, 2.0),
    ):
        found = route("max", panel(), weights=weights)
        assert {call.expert: call.weight for call in found.calls} == {"a:cot": of_a, "b:cot": 1.0}
    assert "a:cot" not in asked(route("max", panel(), weights={"a": 0.0}))


# --- the reserve -------------------------------------------------------------------------------------


def test_the_reserve_is_others_first_and_never_another_way_of_who_is_asked() -> None:
    found = route("max", alone("a:cot"))
    assert [call.expert for call in found.reserve] == ["b", "c", "a"]
    assert [call.expert for call in route("max", panel()).reserve] == ["c", "a", "b"]


def test_without_others_the_reserve_is_one_way_of_each() -> None:
    assert [call.expert for call in route("max", alone("a:cot"), WAYS).reserve] == ["b:cot"]
    assert route("max", panel(), WAYS).reserve == ()


@given(st.sets(st.sampled_from((*BASES, *WAYS)), min_size=1), st.sampled_from(POLICIES))
def test_nobody_is_asked_in_two_ways_by_the_reserve(names: set[str], policy: str) -> None:
    found = route(policy, panel(), sorted(names))
    bases = [call.expert.partition(":")[0] for call in found.calls]
    for call in found.reserve:
        assert ":" not in call.expert or call.expert.partition(":")[0] not in bases
        bases.append(call.expert.partition(":")[0])


# --- parts -------------------------------------------------------------------------------------------


def test_each_kind_of_question_goes_by_its_own_part() -> None:
    """Where answers cannot be compared, one is asked; where they can, a panel."""
    texts = hand_made({"a:direct": 0.4, "b:cot": 0.5}, (), dict.fromkeys(POLICIES, 1), kinds=("text",))
    both = Artefact((*panel().parts, *texts.parts))
    for policy in POLICIES:
        assert asked(route(policy, both)) == {"a:cot", "b:cot"}
        found = route(policy, both, kind="text")
        assert (found.strategy, asked(found)) == ("select", {"b:cot"})
        assert found.calls[0].probability == pytest.approx(0.5)
        assert route(policy, both, kind="number") == route(policy, kind="number")
