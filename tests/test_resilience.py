"""Guarded experts where they are asked: by a panel, alone, and through a gateway."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from manyminds.alarm import Alarm
from manyminds.errors import DeadlineError, ExpertError, SlowError
from manyminds.experts.guarded import Guarded
from manyminds.experts.scripted import Script, Scripted
from manyminds.fanout import Fanout, Patience, Single
from manyminds.types import Answer, Call, Card, Expert, Limits, Message, Query, Route
from tests.clock import run
from tests.experts.test_guarded import (
    DOWN,
    HANGS,
    OK,
    QUERY,
    STALLS,
    Whole,
    failure,
    guarded,
    now,
    open_up,
    streamed,
)
from tests.network import network

# --- slowness, which only those who ask can see ------------------------------------------------------


async def alone(expert: Guarded, *, whole: bool, deadline_s: float, patience: Patience) -> Answer:
    call = Single(Call("a", "s", 0.7), expert, QUERY, patience, deadline_s, Alarm())
    try:
        if whole:
            await call.whole()
        else:
            async with aclosing(call.chunks()) as chunks:
                async for _ in chunks:
                    pass
    except (ExpertError, DeadlineError):
        pass
    return call.answer


async def asked(
    expert: Guarded, *others: Scripted, deadline_s: float, patience: Patience, hedge_s: float | None = None
) -> list[Answer]:
    calls = (Call("a", "s", 0.7, hedge_s=hedge_s),)
    reserve = tuple(Call(other.card.name, "s", 0.7) for other in others)
    limits = Patience(patience.first_token_s, patience.idle_s, deadline_s)
    experts: dict[str, Expert] = {"a": expert, **{other.card.name: other for other in others}}
    async with Fanout(QUERY, Route("auto", "vote", calls, reserve=reserve), experts, limits) as fan:
        return [answer async for answer in fan.finished()]


PATIENCE = Patience(first_token_s=3.0, idle_s=2.0, deadline_s=8.0)


@pytest.mark.parametrize("how", ["panel", "alone"])
@pytest.mark.parametrize("script", [HANGS, STALLS])
def test_a_call_that_was_given_up_for_slowness_counts(how: str, script: Script) -> None:
    async def main() -> None:
        expert, actor = guarded(script, failures=2)
        for opened in (False, True):
            if how == "panel":
                (answer,) = await asked(expert, deadline_s=8.0, patience=PATIENCE)
            else:
                answer = await alone(expert, whole=False, deadline_s=8.0, patience=PATIENCE)
            assert isinstance(answer.error, SlowError)
            assert (expert.open_until is not None) is opened
        assert "the last: it was too slow." in (await failure(streamed, expert)).message
        assert (len(actor.asked_at), actor.running) == (2, 0)

    run(main())


@pytest.mark.parametrize("whole", [False, True])
def test_a_callers_short_deadline_is_not_the_experts_fault(whole: bool) -> None:
    async def main() -> None:
        expert, _ = guarded(HANGS, failures=1)
        assert (await alone(expert, whole=whole, deadline_s=1.0, patience=PATIENCE)).status == "late"
        assert (await asked(expert, deadline_s=1.0, patience=PATIENCE))[0].status == "late"
        assert expert.open_until is None
        await alone(expert, whole=whole, deadline_s=8.0, patience=PATIENCE)
        assert expert.open_until is not None

    run(main())


def test_a_slow_error_that_it_raised_itself_counts_once() -> None:
    async def main() -> None:
        expert, _ = guarded(Script(fail_before=SlowError("a was slow.")), failures=2)
        for opened in (False, True):
            await asked(expert, deadline_s=8.0, patience=PATIENCE)
            assert (expert.open_until is not None) is opened

    run(main())


def test_a_probe_that_is_too_slow_has_failed() -> None:
    async def main() -> None:
        expert, _ = guarded(*[DOWN] * 5, HANGS, retries=0)
        await open_up(expert)
        await asyncio.sleep(10)
        await asked(expert, deadline_s=8.0, patience=PATIENCE)
        assert expert.open_until == pytest.approx(now() + 20)

    run(main())


def test_losing_to_a_hedge_counts() -> None:
    async def main() -> None:
        expert, _ = guarded(HANGS, failures=2)
        other = Scripted(Card("other", "scripted", source="s"), Script("no"))
        for opened in (False, True):
            answers = await asked(expert, other, deadline_s=8.0, patience=PATIENCE, hedge_s=0.3)
            assert {a.expert: a.status for a in answers} == {"a": "cancelled", "other": "ok"}
            assert (expert.open_until is not None) is opened
        assert now() == pytest.approx(0.6)

    run(main())


def test_a_hedge_that_loses_has_not_failed() -> None:
    async def main() -> None:
        expert, _ = guarded(HANGS, failures=1)
        first = Scripted(Card("first", "scripted", source="s"), Script("no", first_token_s=0.5))
        route = Route("auto", "vote", (Call("first", "s", 0.7, hedge_s=0.3),), reserve=(Call("a", "s", 0.7),))
        experts: dict[str, Expert] = {"a": expert, "first": first}
        async with Fanout(QUERY, route, experts, PATIENCE) as fan:
            answers = [answer async for answer in fan.finished()]
        assert {a.expert: a.status for a in answers} == {"a": "cancelled", "first": "ok"}
        assert expert.open_until is None

    run(main())


def test_a_slow_call_that_nobody_waits_for_any_more_has_not_failed() -> None:
    async def main() -> None:
        expert, _ = guarded(HANGS, failures=1)
        other = Scripted(Card("other", "scripted", source="s"), Script(first_token_s=9.0))
        request = asyncio.create_task(
            asked(expert, other, deadline_s=8.0, patience=Patience(9, 9, 8), hedge_s=0.3)
        )
        await asyncio.sleep(2)
        request.cancel()
        await asyncio.wait([request])
        assert (other.cancelled, expert.open_until) == (1, None)

    run(main())


# --- whom a gateway asks -----------------------------------------------------------------------------


def of(name: str, script: Script, **settings: Any) -> tuple[Guarded, Scripted]:
    inner = Scripted(Card(name, "scripted", source=name, accuracy=0.7), script)
    return Guarded(inner, lambda: 0.5, **settings), inner


async def reply(net: Any, **fields: Any) -> str:
    query = Query((Message("user", "Why do cats purr?"),), **fields)
    async with aclosing(net.stream(query)) as chunks:
        return "".join([chunk.text async for chunk in chunks])


def test_a_panel_does_without_those_whose_circuit_is_open() -> None:
    async def main() -> None:
        (bad, down), (good, up) = of("bad", DOWN, failures=1), of("good", OK)
        net = network(bad, good)
        assert await reply(net) == "yes indeed"
        assert (down.asked, up.asked) == (1, 1)
        for _ in range(3):
            async with aclosing(net.stream(QUERY)) as chunks:
                report = [chunk async for chunk in chunks][-1].report
            assert report is not None
            assert [entry.expert for entry in report.panel] == ["good"]
        assert (down.asked, up.asked) == (1, 4)
        await asyncio.sleep(10)
        assert await reply(net) == "yes indeed"  # with a probe
        assert (down.asked, up.asked) == (2, 5)

    run(main())


@pytest.mark.parametrize(
    ("named", "limits"),
    [("bad", Limits()), ("auto", Limits(include=("bad",))), ("auto", Limits(exclude=("good",)))],
)
def test_who_can_be_asked_alone_fails_at_once_and_says_why(named: str, limits: Limits) -> None:
    async def main() -> None:
        (bad, down), (good, up) = of("bad", DOWN, failures=1), of("good", OK)
        net = network(bad, good)
        for said in ("cannot be reached", "is not asked for another 10.0 s"):
            with pytest.raises(Exception, match=said) as caught:
                await reply(net, model=named, limits=limits)
            assert getattr(caught.value, "status", None) == 503
        assert (down.asked, up.asked, now()) == (1, 0, 0.0)

    run(main())


def test_where_all_circuits_are_open_the_reasons_are_told() -> None:
    async def main() -> None:
        net = network(of("x", DOWN, failures=1)[0], of("y", DOWN, failures=1)[0])
        for said in ("x failed: a cannot be reached", "x failed: x is not asked for another 10.0 s"):
            with pytest.raises(Exception, match=said):
                await reply(net)

    run(main())


# --- what a gateway learns of slowness ---------------------------------------------------------------


def test_a_gateway_hedges_by_what_it_has_measured_and_learns_from_losers() -> None:
    async def main() -> None:
        actor, other = Whole([Script(first_token_s=1.0)]), Scripted(Card("b", "scripted", "b"), OK)
        actor.card = Card("a", "scripted", "s", accuracy=0.9)
        net = network(actor, other)

        async def timed() -> float:
            before = now()
            await reply(net, limits=Limits(panel=1, strategy="select"))
            return now() - before

        assert [await timed() for _ in range(20)] == pytest.approx([1.0] * 20)
        actor.scripts = [HANGS]
        for _ in range(20):  # who answers in one piece tells nothing of first tokens
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(30):
                    await net.complete(Query((Message("user", "Why?"),), model="a"))
        waits = [await timed() for _ in range(7)]
        assert other.asked == 7
        assert waits[0] == pytest.approx(1.0)
        assert waits == sorted(waits)
        assert waits[-1] > 1.5
        assert actor.running == 0

    run(main())
