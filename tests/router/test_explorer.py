"""Exploring: whom, when, and never beyond what the caller allows."""

from random import Random
from typing import Any

import pytest

from manyminds.experts.scripted import Script
from manyminds.index import Index
from manyminds.router import SkillRouter
from manyminds.router.explorer import Explorer
from manyminds.types import Card, Limits, Message, Outcome, Query, Route, Sampling, Task
from tests.changed import replace
from tests.clock import run
from tests.network import Records, network, scripted

CARDS = tuple(
    Card(name, "scripted", accuracy=accuracy, price_out_usd_per_m=price, offers=frozenset({"tools", "n"}))
    for name, accuracy, price in (
        *(("best", 0.9, 10.0), ("good", 0.8, 5.0), ("fair", 0.75, 1.0)),
        *(("new", 0.5, 1.0), ("other", 0.5, 1.0), ("dear", 0.5, 11.0)),
    )
)


def explored(
    rate: float = 1.0, seed: int = 0, graded: tuple[str, ...] = (), query: Query | None = None, **limits: Any
) -> tuple[Route, Route]:
    """A route as it was, and after exploring."""
    router = SkillRouter(Index(3))
    for card in CARDS:
        router.admit(card)
    router.learn([Outcome(f"r{i}", name, "ok", None, 0.0, 0, 0.5) for name in graded for i in range(50)])
    query = query or Query((Message("user", "17 + 26?"),), task=Task("number"))
    query = replace(query, limits=Limits(**{"policy": "auto"} | limits))
    route = router.route(query, CARDS, query.limits)
    return route, Explorer(router, rate, Random(seed)).explored(query, route, CARDS)


def added(*told: Any, **more: Any) -> set[str]:
    before, after = explored(*told, **more)
    asked = after.calls[len(after.calls) - len(before.calls) :]
    assert [replace(call, share=0.0) for call in asked] == [replace(call, share=0.0) for call in before.calls]
    assert sum(call.share for call in after.calls) == pytest.approx(1.0)
    assert all(call.share >= 0.0 for call in after.calls)
    names = {call.expert for call in after.calls} - {call.expert for call in before.calls}
    assert (after == before) == (not names)
    return names


def test_one_cheap_expert_more_is_asked_and_each_has_its_turn() -> None:
    found = [added(seed=seed) for seed in range(40)]
    assert {len(names) for names in found} == {1}
    assert set.union(*found) == {"new", "other"}
    assert added(seed=7) == added(seed=7)


def test_so_often_as_was_said() -> None:
    assert added(rate=0.0) == set()
    times = sum(bool(added(rate=0.1, seed=seed)) for seed in range(500))
    assert 30 < times < 70


def test_whoever_is_known_is_left_alone() -> None:
    assert added(graded=("new",)) == {"other"}
    assert added(graded=("new", "other")) == set()


@pytest.mark.parametrize(
    "limits",
    [
        {"panel": 3},
        {"exclude": ("new", "other")},
        {"include": ("best", "good", "fair")},
        {"strategy": "select"},
    ],
)
def test_limits_are_kept(limits: dict[str, Any]) -> None:
    assert added(**limits) == set()


def test_a_budget_is_kept() -> None:
    before, after = explored()
    cost_usd = after.expected_cost_usd - before.expected_cost_usd
    assert cost_usd > 0.0
    assert added(budget_usd=before.expected_cost_usd + 0.99 * cost_usd) == set()
    assert added(budget_usd=before.expected_cost_usd + 1.01 * cost_usd) != set()


def test_neither_tools_nor_several_answers_nor_named_experts_nor_texts() -> None:
    plain = Query((Message("user", "17 + 26?"),), task=Task("number"))
    for query in (
        replace(plain, demands=frozenset({"tools"})),
        replace(plain, sampling=Sampling(n=2)),
        replace(plain, model="best"),
        replace(plain, task=Task()),
    ):
        assert added(query=query) == set()


def test_a_gateway_asks_it_too() -> None:
    experts = [
        scripted(
            card.name,
            Script("It is 43."),
            accuracy=card.accuracy,
            price_out_usd_per_m=card.price_out_usd_per_m,
        )
        for card in CARDS
    ]
    for seed, panel in ((None, {"best", "good", "fair"}), (3, {"best", "good", "fair", "new", "other"})):
        records = Records()
        gateway = network(*experts, records=records, explore=Random(seed) if seed is not None else None)

        async def ask(gateway: Any = gateway) -> None:
            for i in range(20):
                query = Query((Message("user", f"{i} + 43 - {i}?"),), "max", limits=Limits(policy="auto"))
                _ = [chunk async for chunk in gateway.stream(query)]

        run(ask())
        assert {answer.expert for answer in records.answers} == panel
