"""Who is paused is asked by nobody, as if it were not there; resumed, all is as it was, bit by bit."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyminds.errors import ManymindsError, ModelNotFoundError, PausedError, UnavailableError
from manyminds.experts.scripted import Script
from manyminds.node import Node
from manyminds.types import Card, Expert, Limits, Message, Query, Task
from tests.clock import run
from tests.network import network, scripted, words
from tests.test_gateway import CHOICE, answer, ask
from tests.test_gateway_many import TOPICS, topic
from tests.test_withdrawal import (
    MINDS,
    POLICIES,
    QUESTIONS,
    Step,
    concerns,
    configured,
    happen,
    steps,
    world,
)

__all__ = ["world"]


def planned(node: Node, **limits: Any) -> list[Any]:
    """Whom its gateway would ask, in what order, with every float."""
    found = []
    for text in QUESTIONS:
        query = Query((Message("user", text),), task=Task("option", ("red", "green", "blue", "white")))
        for policy in POLICIES:
            wanted = msgspec.structs.replace(query, model=policy, limits=Limits(policy=policy, **limits))
            found.append(msgspec.to_builtins(node.gateway._route(wanted, {})))
    return found


async def said(node: Node, **limits: Any) -> list[Any]:
    """What it answers, with its posterior."""
    found: list[Any] = []
    for text in QUESTIONS:
        question = Message("user", f"{text}\nA) red\nB) green\nC) blue\nD) white")
        query = Query((question,), "max", limits=Limits(cache="off", **limits))
        chunks = [chunk async for chunk in node.gateway.stream(query)]
        report = chunks[-1].report
        assert report is not None
        line = [(p.expert, p.weight, p.answer, p.correct_probability, p.status) for p in report.panel]
        found.append(["".join(c.text for c in chunks), line, report.probability, report.attribution])
    return found


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(steps, st.sampled_from(tuple(MINDS)), st.booleans())
def test_a_node_asks_as_if_who_is_paused_were_not_there(
    world: Path, told: list[Step], away: str, starts_anew: bool
) -> None:
    """As whoever excludes it is answered, and as by a node that learnt the same and does not have it."""

    async def story(folder: Path) -> None:
        others = [name for name in MINDS if name != away]
        config = configured(world, folder / "all", "", *MINDS)
        fewer = configured(world, folder / "fewer", "", *others)
        async with Node(config, {}) as node, Node(fewer, {}) as without:
            for i, step in enumerate(told):
                if not concerns(step, away):
                    happen(without, i, step)
                    happen(node, i, step)
            await node._study()
            await without._study()
            await node.pause(away)
            assert planned(node) == planned(without)
            assert await said(node) == await said(without)
            await node.pause(away, pause=False)
            for i, step in enumerate(told):
                if concerns(step, away):
                    happen(node, i, step)
            await node._study()
            before, excluded = planned(node), planned(node, exclude=(away,))
            standing = {name: node._router.standing(name) for name in MINDS}
            await node.pause(away)
            if starts_anew:
                await node.reload()
                await node._study()
            assert planned(node) == excluded != before
            assert sorted(node.experts) == node.running == others
            assert [card.name for card in node.own_cards] == others
            await node.pause(away, pause=False)
            assert planned(node) == before
            assert {name: node._router.standing(name) for name in MINDS} == standing

    with TemporaryDirectory() as folder:
        asyncio.run(story(Path(folder)))


def test_a_node_that_starts_knows_who_is_paused_and_all_gateways_hear_of_it(
    world: Path, tmp_path: Path
) -> None:
    async def story() -> None:
        config = configured(world, tmp_path / "all", "", *MINDS)
        async with Node(config, {}) as one, Node(config, {}) as other:
            renewed: list[Any] = []
            other.renewed = lambda: renewed.append(other.gateway)
            old = other.gateway
            await one.pause("a")
            await one.pause("a")
            other._heed(other._ledger.paused())
            assert renewed == [other.gateway] != [old]
            for node in (one, other):
                assert "a" not in node.experts
                assert "a" in node
                assert node.paused == {"a"}
                with pytest.raises(PausedError, match="manyminds experts resume a"):
                    await anext(node.gateway.stream(ask("Qq5", model="a")))
            assert [row["event"] for row in one._ledger.withdrawals()] == ["paused"]
            assert {card.name: card.paused for card in await one.rated()} == {
                name: name == "a" for name in MINDS
            }
        async with Node(config, {}) as again:
            assert sorted(again.experts) == ["b", "c", "d"]
            for name in ("b", "c", "d"):
                await again.pause(name)
            assert not again.ready
            with pytest.raises(PausedError, match=r"All experts .* are paused \(a, b, c and 1 more\)"):
                await anext(again.gateway.stream(ask(CHOICE, model="max")))
            with pytest.raises(ModelNotFoundError, match="name a itself"):
                await again.pause("a:direct")
            with pytest.raises(ModelNotFoundError, match="No expert is named 'zz'"):
                await again.pause("zz")

    asyncio.run(story())


def test_what_is_being_answered_ends_as_it_began_and_is_not_kept(world: Path, tmp_path: Path) -> None:
    async def story() -> None:
        config = configured(world, tmp_path / "all", "", *MINDS)
        query = Query((Message("user", f"{QUESTIONS[0]}\nA) red\nB) green\nC) blue\nD) white"),), "max")
        async with Node(config, {}) as node:
            cache = node._cache
            assert cache is not None
            late = node.gateway.stream(query)
            first = await anext(late)
            await node.pause("a")
            report = [first, *[chunk async for chunk in late]][-1].report
            assert report is not None
            asked = {line.expert: line.status for line in report.panel}
            assert "a" in asked
            assert len(cache) == 0
            after = [chunk async for chunk in node.gateway.stream(query)][-1].report
            assert after is not None
            assert "a" not in {line.expert for line in after.panel}
            assert len(cache) == 1
            await node.pause("a", pause=False)
            assert len(cache) == 0

    asyncio.run(story())


def test_who_was_withdrawn_while_it_was_paused_comes_back_as_new_and_is_asked(
    world: Path, tmp_path: Path
) -> None:
    async def story() -> None:
        config = configured(world, tmp_path / "all", "", *MINDS)
        async with Node(config, {}) as node:
            await node.pause("a")
            ledger = node._ledger
            ledger.pause("b", "b")
            ledger.welcome("b", ("b",))
            assert ledger.paused() == {"a"}
            before = ledger.gone()
            ledger.pause("c", "c")
            assert ledger.gone() == before

    asyncio.run(story())


# --- what a gateway says ---------------------------------------------------------------------------


def of_three(*asked: str) -> Any:
    """A gateway of three experts, of whom those that are not named are paused."""
    every: dict[str, Expert] = {
        name: scripted(name, Script(text=f"{letter})"), source=f"{name}'s")
        for name, letter in (("a", "A"), ("b", "B"), ("c", "B"))
    }
    return network(*every.values()).asking({name: every[name] for name in asked}, every)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        (ask(CHOICE, model="a"), "a is paused: .* `manyminds experts resume a`"),
        (ask(CHOICE, model="a", fallbacks=("zz",)), "a is paused"),
        (ask(CHOICE, model="zz", fallbacks=("a",)), "a is paused"),
        (ask(CHOICE, model="auto", limits=Limits(include=("a",))), "a is paused"),
        (ask(CHOICE, model="auto", limits=Limits(include=("a's",))), "a's is paused"),
        (ask(CHOICE, model="auto", limits=Limits(require=("a",))), "a is paused"),
    ],
)
def test_whoever_wants_only_whom_nobody_asks_is_told_how_to_resume_it(query: Query, says: str) -> None:
    with pytest.raises(PausedError, match=says) as raised:
        run(answer(of_three("b", "c"), query))
    assert raised.value.status == 503


@pytest.mark.parametrize(
    "query",
    [
        ask(CHOICE, model="a", fallbacks=("b",)),
        ask(CHOICE, model="auto", limits=Limits(include=("a", "b"))),
        ask(CHOICE, model="auto", limits=Limits(require=("b",))),
        ask(CHOICE, model="max"),
    ],
)
def test_whoever_names_others_too_is_answered_by_these(query: Query) -> None:
    _, report = run(answer(of_three("b", "c"), query))
    assert {line.expert for line in report.panel} <= {"b", "c"}


def test_where_all_are_paused_that_is_what_is_said() -> None:
    with pytest.raises(PausedError, match=r"All experts .* \(a, b, c\)"):
        run(answer(of_three(), ask(CHOICE)))
    with pytest.raises(UnavailableError, match="has no expert") as raised:
        run(answer(network(), ask(CHOICE)))
    assert not isinstance(raised.value, PausedError)


def test_a_private_answer_polls_nobody_in_place_of_a_named_expert() -> None:
    with pytest.raises(ManymindsError, match="A private answer polls many"):
        run(answer(of_three("b"), ask(CHOICE, model="a", limits=Limits(policy="private"))))


@settings(deadline=None, max_examples=20)
@given(st.sets(st.integers(0, 119), min_size=1, max_size=119), st.sampled_from(TOPICS))
def test_of_many_the_nearest_that_are_asked_are_found(away: set[int], about: str) -> None:
    """As by a network whose index never had the others."""
    every: dict[str, Expert] = {
        f"e{i}": scripted(f"e{i}", Script(text="B"), skills=(topic(i),), parameters=1_000 + i)
        for i in range(120)
    }
    here = {name: expert for i, (name, expert) in enumerate(every.items()) if i not in away}
    query = Query((Message("user", about * 4),), "max", limits=Limits(policy="max"), vector=words([about])[0])
    paused = network(*every.values(), embed=words).asking(here, every)
    never = network(*here.values(), embed=words)
    assert paused._route(query, {}) == never._route(query, {})


def test_a_way_of_asking_is_paused_with_its_expert() -> None:
    from manyminds.pauses import asked

    class Way:
        card = Card("a:direct", "local", variant_of="a")

    every: Any = {
        "a": scripted("a", Script(text="x")),
        "a:direct": Way(),
        "b": scripted("b", Script(text="x")),
    }
    assert list(asked(every, {"a"})) == ["b"]
    assert list(asked(every, set())) == list(every)
