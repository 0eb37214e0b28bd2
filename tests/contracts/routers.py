"""What every router keeps. Each check takes a maker of empty routers.

Vectors, where a maker's router wants them, are `embed`'s: `DIMENSION` numbers that depend on the text alone.
"""

import itertools
import math
import random
from collections.abc import Callable, Sequence
from hashlib import sha256

import numpy as np
import pytest
from numpy.typing import NDArray

from manyminds.errors import NoExpertError
from manyminds.types import Card, Limits, Message, Outcome, Query, Route, Router, Task
from tests.changed import replace

__all__ = ["CARDS", "CHECKS", "DIMENSION", "QUERIES", "ask", "embed"]

Make = Callable[[], Router]
DIMENSION = 8


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    seeds = [int.from_bytes(sha256(text.encode()).digest()[:8], "big") for text in texts]
    rows = np.stack([np.random.default_rng(seed).standard_normal(DIMENSION) for seed in seeds])
    unit: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def ask(text: str, task: Task) -> Query:
    return Query((Message("system", "Be brief."), Message("user", text)), task=task, vector=embed([text])[0])


CARDS = (
    Card(
        "ant", "scripted", "alice", skills=("law",), accuracy=0.3, ttft_s=0.1, tokens_per_s=90.1, parameters=1
    ),
    Card("bee", "scripted", "alice", skills=("maths", "code"), accuracy=0.7, price_out_usd_per_m=0.1),
    Card("cat", "scripted", "bob", accuracy=0.7, price_in_usd_per_m=0.3, price_out_usd_per_m=0.7),
    Card(
        "dog", "scripted", description="Knows medicine.", accuracy=0.9, price_out_usd_per_m=30.1, ttft_s=0.7
    ),
    Card("elk", "scripted", "carol", skills=("code",), accuracy=0.6, price_cpu_usd_per_hour=0.01, ttft_s=2.3),
    Card(
        "fox",
        "scripted",
        "bob",
        skills=("law", "tax"),
        accuracy=0.7,
        price_out_usd_per_m=0.2,
        tokens_per_s=7.7,
    ),
)
QUERIES = (
    ask("Which is a metal? A) iron B) wood C) glass", Task("option", ("iron", "wood", "glass"))),
    ask("What is 17 + 26?", Task("number")),
    ask("Tell me a story.", Task()),
)
NO_LIMITS = Limits()
POLICIES = ("auto", "max", "cheap", "fast")
OUTCOMES = tuple(
    Outcome(f"r{i}", CARDS[i % 6].name, ("ok", "ok", "failed", "cut", "late", "cancelled", "ok")[i % 7],
            None if i % 3 == 0 else 0.1 * i, 0.3 * i, 7 * i, (None, 1.0, 0.0, 0.3)[i % 4])
    for i in range(40)
)  # fmt: skip


def admitted(make: Make, cards: Sequence[Card] = CARDS, outcomes: Sequence[Outcome] = OUTCOMES) -> Router:
    router = make()
    for card in cards:
        router.admit(card)
    for outcome in outcomes:
        router.observe(outcome)
    return router


def routes(router: Router, cards: Sequence[Card] = CARDS, limits: Limits = NO_LIMITS) -> list[Route]:
    """One route per policy and query."""
    pairs = itertools.product(POLICIES, QUERIES)
    return [router.route(query, cards, replace(limits, policy=policy)) for policy, query in pairs]


def asked(route: Route) -> set[str]:
    return {call.expert for call in route.calls}


def check_order_free(make: Make) -> None:
    """Neither the order of the candidates nor that of admission changes a bit."""
    rng = random.Random(5)
    expected = routes(admitted(make))
    for _ in range(6):
        shuffled = rng.sample(CARDS, len(CARDS))
        assert routes(admitted(make, shuffled), rng.sample(CARDS, len(CARDS))) == expected


def check_pure(make: Make) -> None:
    """Routing teaches nothing: the same question gives the same route."""
    router = admitted(make)
    assert routes(router) == routes(router)


def check_makes_sense(make: Make) -> None:
    """Every call is to a candidate, stages count from 0, and numbers are what they claim to be."""
    for route in routes(admitted(make)):
        assert route.calls
        assert asked(route) <= {card.name for card in CARDS}
        assert len(asked(route)) == len(route.calls)
        stages = [call.stage for call in route.calls]
        assert stages == sorted(stages)
        assert set(stages) == set(range(max(stages) + 1))
        assert all(
            0.0 < call.probability < 1.0 and call.weight > 0.0 and call.samples >= 1 for call in route.calls
        )
        assert 0.0 < route.threshold <= 1.0
        assert 0.0 < route.expected_accuracy <= 1.0
        assert route.expected_cost_usd >= 0.0 < route.expected_latency_s
        assert route.best_single in {card.name for card in CARDS}
        assert (route.strategy == "fuse") == (route.fuser is not None)


def check_sources(make: Make) -> None:
    """A call credits the card's source, or the expert itself where the card names none."""
    of = {card.name: card.source or card.name for card in CARDS}
    for route in routes(admitted(make)):
        assert all(call.source == of[call.expert] for call in route.calls)


def check_shares_sum_to_one(make: Make) -> None:
    for weights in ({}, {"bee": 0.1, "bob": 0.3, "dog": 700.7}):
        for route in routes(admitted(make), limits=Limits(weights=weights)):
            assert math.isclose(math.fsum(call.share for call in route.calls), 1.0, abs_tol=1e-12)
            assert all(call.share >= 0.0 for call in route.calls)


def check_weight_zero_is_absence(make: Make) -> None:
    """An expert or a source of weight 0 is never asked; the rest is as if it were no candidate."""
    router = admitted(make)
    for name, gone in (("dog", {"dog"}), ("bob", {"cat", "fox"}), ("nobody", set())):
        rest = [card for card in CARDS if card.name not in gone]
        assert routes(router, limits=Limits(weights={name: 0.0})) == routes(router, rest)
    with pytest.raises(NoExpertError):
        router.route(QUERIES[0], CARDS, Limits(policy="auto", weights={card.name: 0.0 for card in CARDS}))


def check_weights_multiply(make: Make) -> None:
    """An expert's weight times its source's; a name that is both counts once."""
    weights = {"cat": 0.3, "bob": 0.7, "dog": 3.0, "nobody": 9.0}
    route = admitted(make).route(QUERIES[1], CARDS, Limits(policy="max", weights=weights))
    found = {call.expert: call.weight for call in route.calls}
    assert found == {"ant": 1.0, "bee": 1.0, "cat": pytest.approx(0.21), "dog": 3.0, "elk": 1.0, "fox": 0.7}


def check_exclude_is_absence(make: Make) -> None:
    """Whom the caller excludes, by expert or by source, has no influence; unknown names neither."""
    router = admitted(make)
    for name, gone in (("dog", {"dog"}), ("alice", {"ant", "bee"}), ("nobody", set())):
        rest = [card for card in CARDS if card.name not in gone]
        assert routes(router, limits=Limits(exclude=(name,))) == routes(router, rest)


def check_include(make: Make) -> None:
    router = admitted(make)
    for name, kept in (("dog", {"dog"}), ("alice", {"ant", "bee"})):
        chosen = [card for card in CARDS if card.name in kept]
        assert routes(router, limits=Limits(include=(name, "nobody"))) == routes(router, chosen)
    with pytest.raises(NoExpertError):
        router.route(QUERIES[0], CARDS, Limits(policy="auto", include=("nobody",)))


def check_forgotten_is_never_admitted(make: Make) -> None:
    """Withdrawal is exact: every later route has the bits of a router that never had the source."""
    for source, names in (("bob", {"cat", "fox"}), ("dog", {"dog"}), ("nobody", set())):
        rest = [card for card in CARDS if card.name not in names]
        left = [outcome for outcome in OUTCOMES if outcome.expert not in names]
        router = admitted(make)
        router.forget(source)
        never = admitted(make, rest, left)
        assert routes(router, rest) == routes(never, rest)
        assert routes(router) == routes(never)  # also where its card still comes along
        for outcome in OUTCOMES:
            if outcome.expert in names:
                router.observe(outcome)  # a call that was under way
        assert routes(router) == routes(never)


def check_each_expert_learns_alone(make: Make) -> None:
    """Outcomes of different experts commute."""
    mixed = sorted(OUTCOMES, key=lambda outcome: outcome.expert)
    assert routes(admitted(make, CARDS, mixed)) == routes(admitted(make))


def check_admitted_with_outcomes_is_observed(make: Make) -> None:
    """Outcomes given at admission count as those observed later; another expert's do not."""
    router = make()
    for card in CARDS:
        router.admit(card, OUTCOMES)
    assert routes(router) == routes(admitted(make))


def check_tolerates_strangers(make: Make) -> None:
    """An expert nobody admitted can be asked; outcomes and sources nobody knows change nothing."""
    router = admitted(make)
    expected = routes(router)
    router.observe(Outcome("r", "nobody", "ok", 0.1, 0.2, 3, 1.0))
    router.forget("nobody")
    assert routes(router) == expected
    stranger = Card("zoe", "scripted", skills=("anything",), accuracy=0.9)
    assert asked(router.route(QUERIES[0], [stranger], Limits(policy="auto"))) == {"zoe"}
    assert asked(make().route(QUERIES[0], CARDS, Limits(policy="max"))) == {card.name for card in CARDS}


def check_budget_is_kept(make: Make) -> None:
    """All calls of a route together, with its fuser, stay within the budget."""
    router = admitted(make)
    alone = {card.name: router.route(QUERIES[1], [card], Limits(policy="auto")) for card in CARDS}
    prices = {name: route.expected_cost_usd for name, route in alone.items()}
    for budget in (0.00003, 0.0001, 0.0003, 0.003, 0.03):
        for policy in POLICIES:
            route = router.route(QUERIES[1], CARDS, Limits(policy=policy, budget_usd=budget))
            assert math.fsum(prices[call.expert] for call in route.calls) <= budget
            assert route.expected_cost_usd <= budget
            route = router.route(QUERIES[2], CARDS, Limits(policy=policy, budget_usd=budget, strategy="fuse"))
            assert route.expected_cost_usd <= budget
    dear = [card for card in CARDS if card.name == "dog"]
    with pytest.raises(NoExpertError):
        router.route(QUERIES[1], dear, Limits(policy="auto", budget_usd=1e-9))


def check_panel_is_kept(make: Make) -> None:
    router = admitted(make)
    for panel in (1, 2, 5):
        assert all(len(route.calls) <= panel for route in routes(router, limits=Limits(panel=panel)))


CHECKS = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}
