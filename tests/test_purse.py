"""What is paid for a question that comes from another node: never more than it brings, over all hops."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyminds import purse
from manyminds.config import Network, PeerEntry
from manyminds.errors import BudgetError, ManymindsError, UnavailableError
from manyminds.experts.peer import Line, Peer
from manyminds.experts.scripted import Script, Scripted
from manyminds.gateway import Gateway
from manyminds.network.answering import Answering
from manyminds.network.identity import Identity
from manyminds.node.guests import Guests, keys_of
from manyminds.types import (
    Call,
    Card,
    Chunk,
    Expert,
    Journey,
    Limits,
    Message,
    Query,
    Route,
    Sampling,
    Strategy,
)
from manyminds.web.door import everybody
from tests.changed import replace
from tests.clock import run
from tests.network import network, scripted
from tests.network.sides import ANN, Memory

TEXT = "one two three four five " * 60
CHOICE = "Which is even?\nA) 1\nB) 2"


class Metered(Scripted):
    """Counts what it would charge, also for what nobody waits for: a token for each byte that it reads."""

    spent_usd = 0.0

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        self.spent_usd += self.card.price_usd(query.most_tokens, 0, 0.0)
        async for chunk in super().stream(query):
            self.spent_usd += self.card.price_usd(0, bool(chunk.text), 0.0)
            yield chunk


@dataclass
class Plan:
    """A node: what it charges, whom it asks, and how it makes one answer of theirs."""

    prices: tuple[float, float]
    experts: Sequence[Metered]
    behind: "Sequence[Plan]" = ()
    strategy: Strategy | None = None
    listed: bool = True
    treats: bool = False
    budget_usd: float | None = None
    heard_usd: list[float] = field(default_factory=list)  # the budgets of what it was asked
    told_usd: list[float] = field(default_factory=list)  # of what it asked, each
    charged_usd: list[float] = field(default_factory=list)
    gateway: Gateway | None = None

    @property
    def every(self) -> "list[Plan]":
        return [self, *(plan for child in self.behind for plan in child.every)]

    @property
    def spent_usd(self) -> float:
        return sum(expert.spent_usd for expert in self.experts)


class Tree:
    """Nodes that ask one another in one process, the first of them asked by Ann."""

    def __init__(self, root: Plan) -> None:
        self.ways = Memory({})
        self._count = 0
        self.root = root
        self.peer = self._peer(root, ANN, [])

    def _peer(self, plan: Plan, asker: Identity, told_usd: list[float]) -> Peer:
        """The node of a plan, as an expert of who asks it."""
        self._count += 1
        identity = Identity.of_seed(bytes([100 + self._count]) * 32)
        experts: list[Expert] = [*plan.experts]
        experts += [self._peer(child, identity, plan.told_usd) for child in plan.behind]
        plan.gateway = gateway = network(*experts)
        terms = Network(
            answers="network", price_in_usd_per_m=plan.prices[0], price_out_usd_per_m=plan.prices[1]
        )

        def answer(query: Query) -> AsyncGenerator[Chunk, None]:
            limits = replace(query.limits, strategy=plan.strategy, budget_usd=plan.budget_usd)
            return gateway.stream(replace(query, limits=limits))

        entry = PeerEntry(name="asker", id=asker.id, treats=plan.treats)
        admission = everybody()
        admission.replace({}, keys_of(terms, [entry]))
        guests = Guests(
            *(identity.id, terms, admission, answer),
            lambda: [expert.card for expert in experts],
            lambda *_: [],
        )
        guests.listed = {asker.id: entry} if plan.listed else {}

        def keep(receipt: Any, *_: Any) -> None:
            plan.charged_usd.append(receipt.price_usd)

        def admit(heard: Any, query: Query, by_https: bool) -> Any:
            plan.heard_usd.append(heard.ask.budget_usd)
            return guests.admit(heard, query, by_https)

        self.ways.answering[identity.id] = Answering(identity, admit, keep, lambda: "r")

        async def reserve(usd: float) -> None:
            told_usd.append(usd)

        name = f"node{self._count}"
        card = Card(
            *(name, "peer"),
            source=name,
            accuracy=0.5 + self._count % 5 / 10,
            price_in_usd_per_m=plan.prices[0],
            price_out_usd_per_m=plan.prices[1],
            context_tokens=300,
        )
        line = Line(
            *(identity.id, identity.public, identity.exchange, self.ways, asker, reserve),
            *(lambda *_: None, lambda _: None, lambda: None),
        )
        return Peer(card, line)

    def ask(self, query: Query) -> str:
        """The answer, "" where there is none; when nobody answers any more."""

        async def story() -> str:
            text = ""
            try:
                async for chunk in self.peer.stream(query):
                    text += chunk.text
            except ManymindsError:
                text = ""
            await self.ways.idle()
            return text

        return run(story())


def question(text: str = "why?", max_tokens: int | None = None, budget_usd: float | None = None) -> Query:
    limits = Limits(budget_usd=budget_usd)
    sampling = Sampling(max_tokens=max_tokens)
    return Query((Message("user", text),), sampling=sampling, limits=limits, request_id="q")


def metered(name: str, price_in: float = 0.0, price_out: float = 0.0, **script: Any) -> Metered:
    prices: dict[str, Any] = {"price_in_usd_per_m": price_in, "price_out_usd_per_m": price_out}
    card = Card(name, "scripted", source=name, context_tokens=300, accuracy=0.7, **prices)
    return Metered(card, Script(**({"text": TEXT} | script)))


# --- over all hops -----------------------------------------------------------------------------------

_CHARGED = st.sampled_from([0.0, 9.9, 9.9, 40.0])
_PRICES = st.sampled_from([0.0, 0.0, 1.1, 9.9])
_SCRIPTS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {"text": "B) 2"},
        {"first_token_s": 3.0, "per_chunk_s": 0.7},
        {"cut_after": 7},
        {"stall_after": 3},
        {"fail_before": UnavailableError("down")},
        {"refuse": True},
    ]
)


@st.composite
def plans(draw: st.DrawFn, levels: int = 3) -> Plan:
    experts = [
        metered(f"e{i}", draw(_PRICES), draw(_PRICES), **draw(_SCRIPTS))
        for i in range(draw(st.integers(0, 3)))
    ]
    behind = draw(st.lists(plans(levels - 1), max_size=2)) if levels > 1 else []
    return Plan(
        (draw(_CHARGED), draw(_CHARGED)),
        experts,
        behind,
        strategy=draw(st.sampled_from([None, None, "vote", "select", "fuse", "race"])),
        listed=draw(st.sampled_from([True, True, False])),
        budget_usd=draw(st.sampled_from([None, None, 2e-4])),
    )


@settings(deadline=None, max_examples=120)
@given(
    plans(),
    st.sampled_from([None, 0.0, 3.3e-6, 1e-4, 7e-3, 0.1]),
    st.sampled_from([None, 1, 60]),
    st.sampled_from(["why?", CHOICE]),
    st.sampled_from(["auto", "max", "cheap", "fast"]),
)
def test_over_all_hops_no_more_is_spent_than_was_offered(
    root: Plan, budget_usd: float | None, max_tokens: int | None, text: str, policy: str
) -> None:
    tree = Tree(root)
    asked = question(text, max_tokens, budget_usd)
    tree.ask(replace(asked, limits=replace(asked.limits, policy=policy)))
    offered_usd = sum(root.heard_usd)
    assert len(root.heard_usd) <= 1
    assert budget_usd is None or offered_usd <= budget_usd
    assert sum(plan.spent_usd for plan in root.every) <= offered_usd * (1 + 1e-9)
    for plan in root.every:
        paid_usd = plan.spent_usd + sum(plan.told_usd)
        assert paid_usd <= sum(plan.heard_usd) * (1 + 1e-9)
        assert all(usd <= max(plan.heard_usd) * (1 + 1e-9) for usd in plan.charged_usd)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.7, 1.0, 3.0]), st.sampled_from([0.0, 1.0, 1.3, 3.0]), _SCRIPTS),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([0.0, 1e-4, 2.9e-4, 5e-4, 1.1e-3, 3e-3]),
    st.sampled_from([None, 9, 60, 290]),
    st.sampled_from(["auto", "max", "cheap", "fast"]),
    st.sampled_from([None, "vote", "select", "fuse", "race"]),
    st.sampled_from(["why?", CHOICE]),
    st.randoms(use_true_random=False),
)
def test_whatever_is_tried_at_a_node_costs_no_more_than_its_budget(
    drawn: list[tuple[float, float, dict[str, Any]]],
    budget_usd: float,
    max_tokens: int | None,
    policy: str,
    strategy: Strategy | None,
    text: str,
    chance: Random,
) -> None:
    """Panels, cascades, hedges, who stands in, who fuses and who is explored."""
    every = [metered(f"e{i}", *prices, **script) for i, (*prices, script) in enumerate(drawn)]
    asked = question(text, max_tokens)
    limits = Limits(policy=policy, strategy=strategy)
    asked = replace(asked, limits=limits, journey=Journey(60.0, 3, budget_usd=budget_usd))

    async def story() -> None:
        net = network(*every, explore=chance)
        for _ in range(2):
            before = sum(expert.spent_usd for expert in every)
            with suppress(ManymindsError):
                async for _ in net.stream(asked):
                    pass
            assert sum(expert.spent_usd for expert in every) - before <= budget_usd * (1 + 1e-9)

    run(story())


# --- one hop -----------------------------------------------------------------------------------------


def test_a_free_question_is_answered_by_who_is_free() -> None:
    free, dear = metered("free", text="free"), metered("dear", 1.0, 1.0, text="dear")
    assert Tree(Plan((0.0, 0.0), [free, dear])).ask(question()) == "free"
    assert dear.asked == 0


def test_what_this_machine_computes_is_paid_to_nobody() -> None:
    card = Card("own", "local", source="own", price_cpu_usd_per_hour=100.0, context_tokens=300)
    assert Tree(Plan((0.0, 0.0), [Metered(card, Script("own"))])).ask(question()) == "own"


def test_a_node_spends_no_more_than_it_may_charge_whatever_it_is_offered() -> None:
    dear = metered("dear", 0.0, 10.0)
    tree = Tree(Plan((0.0, 1.0), [dear]))
    assert len(tree.ask(question(max_tokens=40)).split()) == 4
    assert dear.spent_usd == pytest.approx(40e-6)


def test_who_treats_pays_more_than_it_brings_because_its_owner_said_so() -> None:
    plan = Plan((0.0, 0.0), [metered("dear", 1.0, 1.0, text="dear")], treats=True)
    assert Tree(plan).ask(question()) == "dear"
    assert plan.spent_usd > 0.0


def test_who_treats_also_pays_others() -> None:
    behind = Plan((0.0, 2.0), [metered("dear", 0.0, 1.0, text="dear")])
    assert Tree(Plan((0.0, 0.0), [], [behind], treats=True)).ask(question()) == "dear"
    assert behind.charged_usd[-1] == pytest.approx(2e-6)


def test_who_is_not_listed_is_not_treated() -> None:
    plan = Plan((0.0, 0.0), [metered("dear", 1.0, 1.0)], treats=True, listed=False)
    assert not Tree(plan).ask(question())
    assert plan.spent_usd == 0.0


def test_a_peer_that_may_have_spent_it_is_not_paid_twice() -> None:
    """Retries are of `UnavailableError`: another ask would have another budget."""

    async def story(journey: Journey) -> ManymindsError:
        tree = Tree(Plan((0.0, 1.0), []))
        tree.ways.answering.clear()
        with pytest.raises(ManymindsError) as caught:
            await anext(tree.peer.stream(replace(question(), journey=journey)))
        return caught.value

    assert isinstance(run(story(Journey(60.0, 3))), UnavailableError)
    assert not isinstance(run(story(Journey(60.0, 3, budget_usd=1.0))), UnavailableError)
    assert isinstance(run(story(Journey(60.0, 3, budget_usd=0.0))), UnavailableError)


# --- who gets how much -------------------------------------------------------------------------------


def route(*calls: Call, reserve: Sequence[Call] = (), **more: Any) -> Route:
    return Route("auto", more.pop("strategy", "select"), calls, reserve=tuple(reserve), **more)


def call(name: str, probability: float = 0.5, **more: Any) -> Call:
    return Call(name, name, probability, share=0.25, **more)


def experts(*prices: float) -> Mapping[str, Expert]:
    """a, b, c...: each reads for nothing and writes for so much."""
    names = "abcdef"[: len(prices)]
    return {
        name: scripted(name, Script(), price_out_usd_per_m=usd)
        for name, usd in zip(names, prices, strict=True)
    }


def paid(budget_usd: float, max_tokens: int = 1000) -> Query:
    return replace(question("?", max_tokens), journey=Journey(60.0, 3, budget_usd=budget_usd))


def test_the_likeliest_come_first_and_in_full() -> None:
    given_route = route(call("a", 0.5), call("b", 0.9), reserve=[call("c", 0.4), call("d", 0.3)])
    found = purse.apportioned(paid(0.0025), given_route, experts(1.0, 1.0, 1.0, 0.0), 60.0)
    assert [(c.expert, c.budget_usd) for c in found.calls] == [("b", 0.001), ("a", 0.001)]
    assert [c.expert for c in found.reserve] == ["c", "d"]
    assert found.reserve[0].budget_usd == pytest.approx(0.0005)  # enough for a usual answer
    assert sum(c.share for c in found.calls) == pytest.approx(1.0)


def test_who_stands_in_speaks_where_nobody_else_can_be_paid() -> None:
    found = purse.apportioned(
        paid(0.0005), route(call("a"), reserve=[call("b"), call("c")]), experts(9.0, 0.2, 0.0), 60.0
    )
    assert ([c.expert for c in found.calls], [c.expert for c in found.reserve]) == (["b"], ["c"])


def test_a_short_answer_is_better_than_none() -> None:
    found = purse.apportioned(paid(0.00002), route(call("a", 0.4), call("b")), experts(1.0, 1.0), 60.0)
    assert [(c.expert, c.budget_usd) for c in found.calls] == [("b", 0.00002)]
    with pytest.raises(BudgetError, match="do not pay for anybody"):
        purse.apportioned(paid(0.0), route(call("a")), experts(1.0), 60.0)


def test_the_fuser_is_paid_beside_the_drafts_or_there_is_none() -> None:
    given_route = route(call("a"), call("b"), call("c"), strategy="fuse", fuser="a")
    found = purse.apportioned(paid(0.0031), given_route, experts(1.0, 1.0, 1.0), 60.0)
    assert (found.strategy, len(found.calls), found.fuser_usd) == ("fuse", 2, 0.001)
    poor = purse.apportioned(paid(0.0015), given_route, experts(1.0, 1.0, 1.0), 60.0)
    assert (poor.strategy, poor.fuser, poor.fuser_usd) == ("select", None, None)


def test_samples_share_what_their_call_may_cost() -> None:
    found = purse.apportioned(paid(0.003), route(call("a", samples=4)), experts(1.0), 60.0)
    assert found.calls[0].budget_usd == pytest.approx(0.00075)


def test_own_questions_are_as_they_were() -> None:
    given_route = route(call("a"), call("b"))
    alone = question(budget_usd=1e-9)
    assert purse.apportioned(alone, given_route, experts(1.0, 1.0), 60.0) == given_route
    assert purse.payable(Card("a", "openai", price_out_usd_per_m=1.0), alone)


def test_a_fuser_that_is_another_network_has_its_part_of_a_budget() -> None:
    with_peer = dict(experts(1.0, 1.0)) | {
        "p": Scripted(Card("p", "peer", price_out_usd_per_m=1.0, context_tokens=100), Script())
    }
    given_route = route(call("a"), call("p"), strategy="fuse", fuser="p")
    found = purse.apportioned(question("?", 1000, budget_usd=0.0015), given_route, with_peer, 60.0)
    assert [c.budget_usd for c in found.calls] == [None, pytest.approx(0.0005)]
    assert found.fuser_usd == pytest.approx(0.0005)


def test_nobody_is_asked_in_a_way_that_may_cost_more() -> None:
    dear = Card("a:cot", "openai", variant_of="a", price_out_usd_per_m=1.0)
    assert not purse.payable(dear, paid(1.0))
    assert purse.payable(replace(dear, price_out_usd_per_m=0.0), paid(0.0))
