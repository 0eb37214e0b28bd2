"""Beside a call that is slow to start, another expert is asked."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.alarm import Alarm
from manyminds.combine.race import Race
from manyminds.experts.scripted import Script, Scripted
from manyminds.fanout import Fanout, Patience
from manyminds.types import Answer, Card, Chunk, Expert, Grounds, Limits, Query, Route, Strategy
from tests.changed import replace
from tests.clock import run
from tests.test_fanout import QUERY, calls, ended, expert, now


def fan(
    panel: Sequence[Expert],
    reserve: Sequence[Expert],
    *,
    hedge_s: float | None = 1.0,
    query: Query = QUERY,
    stages: Sequence[int] = (),
    missing: Sequence[Expert] = (),
    strategy: Strategy = "vote",
    quorum: int | None = None,
    samples: int = 1,
    deadline_s: float = 60.0,
    alarm: Alarm | None = None,
) -> Fanout:
    asked = calls(*panel, hedge_s=hedge_s, samples=samples)
    asked = tuple(replace(c, stage=s) for c, s in zip(asked, stages or [0] * len(asked), strict=True))
    spare = tuple(replace(c, stage=9 + i) for i, c in enumerate(calls(*reserve, hedge_s=hedge_s)))
    route = Route("auto", strategy, asked, quorum=quorum, reserve=spare)
    experts = {e.card.name: e for e in (*panel, *reserve) if e not in missing}
    return Fanout(query, route, experts, Patience(deadline_s=deadline_s), alarm=alarm)


def told(answers: Sequence[Answer]) -> list[tuple[str, str, int]]:
    return [(a.expert, a.status, a.stage) for a in answers]


# --- whether, when and whom --------------------------------------------------------------------------


def test_a_call_that_starts_in_time_is_not_hedged() -> None:
    quick, spare = expert("quick", "a b c", first_token_s=0.9, per_chunk_s=5.0), expert("spare")
    assert told(run(ended(fan([quick], [spare])))) == [("quick", "ok", 0)]
    assert spare.asked == 0


@pytest.mark.parametrize("hedge_s", [0.0, 0.3, 2.7])
def test_one_of_the_reserve_is_asked_beside_a_slow_call(hedge_s: float) -> None:
    slow, spare, other = (
        expert("slow", first_token_s=9.0),
        expert("spare", first_token_s=0.2),
        expert("other"),
    )

    async def main() -> tuple[list[Answer], float]:
        return await ended(fan([slow], [spare, other], hedge_s=hedge_s)), now()

    answers, took_s = run(main())
    assert sorted(told(answers)) == [("slow", "cancelled", 0), ("spare", "ok", 0)]
    assert took_s == pytest.approx(hedge_s + 0.2)
    assert (slow.cancelled, slow.running, other.asked) == (1, 0, 0)
    ok = next(a for a in answers if a.status == "ok")
    assert ok.ttft_s == pytest.approx(0.2)  # its own, from when it was asked


def test_whoever_starts_first_counts() -> None:
    slow, spare = (
        expert("slow", "a b", first_token_s=1.5, per_chunk_s=3.0),
        expert("spare", first_token_s=0.7),
    )
    answers = run(ended(fan([slow], [spare])))
    assert sorted(told(answers)) == [("slow", "ok", 0), ("spare", "cancelled", 0)]
    assert (spare.asked, spare.cancelled, spare.running) == (1, 1, 0)


def test_of_two_that_start_at_once_one_counts() -> None:
    slow, spare = expert("slow", first_token_s=1.5), expert("spare", first_token_s=0.5)
    answers = run(ended(fan([slow], [spare])))
    assert sorted(a.status for a in answers) == ["cancelled", "ok"]
    assert slow.running + spare.running == 0


def test_a_loser_that_does_not_listen_is_not_heard() -> None:
    class Deaf(Scripted):
        async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
            try:
                await asyncio.sleep(9)
            except asyncio.CancelledError:
                yield Chunk("a")
            yield Chunk("b", "stop")

    deaf, spare = Deaf(Card("deaf", "scripted"), Script()), expert("spare", "x y", per_chunk_s=1.0)
    answers = {a.expert: a for a in run(ended(fan([deaf], [spare])))}
    assert (answers["deaf"].status, answers["deaf"].text) == ("cancelled", "")
    assert (answers["spare"].status, answers["spare"].text) == ("ok", "x y")


def test_each_slow_call_has_one_hedge_while_there_are_others() -> None:
    slow = [expert(f"slow{i}", first_token_s=9.0) for i in range(3)]
    spare = [expert(f"spare{i}", first_token_s=20.0) for i in range(4)]
    answers = run(ended(fan(slow, spare, stages=[0, 0, 0])))
    assert [a.expert for a in answers if a.status == "ok"] == ["slow0", "slow1", "slow2"]
    assert [e.cancelled for e in spare] == [e.asked for e in spare] == [1, 1, 1, 0]
    answers = run(ended(fan(slow, spare[:2], stages=[0, 0, 0])))
    assert [e.asked for e in spare] == [2, 2, 1, 0]


def test_samples_are_hedged_each_by_another_one() -> None:
    slow, spare = expert("slow", first_token_s=9.0), [expert(f"spare{i}", f"{i}") for i in range(3)]
    answers = run(ended(fan([slow], spare, samples=2)))
    assert [a.text for a in answers if a.status == "ok"] == ["0", "1"]
    assert [e.asked for e in (slow, *spare)] == [2, 1, 1, 0]


def test_a_hedge_is_of_its_slots_stage_and_the_next_stage_waits_for_it() -> None:
    slow, late = expert("slow", first_token_s=9.0), expert("late", first_token_s=0.5)
    spare = expert("spare", first_token_s=3.0)
    answers = run(ended(fan([slow, late], [spare], stages=[4, 7])))
    assert told(answers)[-1] == ("late", "ok", 7)
    assert sorted(told(answers)[:-1]) == [("slow", "cancelled", 4), ("spare", "ok", 4)]
    assert run_time(fan([slow, late], [spare], stages=[4, 7])) == pytest.approx(1.0 + 3.0 + 0.5)


def run_time(fanout: Fanout) -> float:
    async def main() -> float:
        await ended(fanout)
        return now()

    return run(main())


@pytest.mark.parametrize("fails", [{"refuse": True}, {"cut_after": 0}])
def test_a_hedge_that_fails_leaves_the_slow_call_alone(fails: dict[str, Any]) -> None:
    slow, spare, other = expert("slow", first_token_s=9.0), expert("spare", **fails), expert("other")
    answers = run(ended(fan([slow], [spare, other])))
    assert told(answers) == [("spare", "failed", 0), ("slow", "ok", 0)]
    assert other.asked == 0


def test_a_slow_call_that_fails_leaves_its_hedge() -> None:
    slow, spare = expert("slow", first_token_s=2.0, refuse=True), expert("spare", first_token_s=5.0)
    assert told(run(ended(fan([slow], [spare])))) == [("slow", "failed", 0), ("spare", "ok", 0)]


def test_a_call_that_has_failed_is_not_hedged_but_replaced() -> None:
    bad, spare = expert("bad", refuse=True), expert("spare", first_token_s=5.0)
    assert told(run(ended(fan([bad], [spare])))) == [("bad", "failed", 0), ("spare", "ok", 9)]


def test_who_stands_in_is_hedged_by_the_next() -> None:
    bad, slow, last = expert("bad", refuse=True), expert("slow", first_token_s=9.0), expert("last")
    answers = run(ended(fan([bad], [slow, last])))
    assert sorted(told(answers)) == [("bad", "failed", 0), ("last", "ok", 9), ("slow", "cancelled", 9)]


def test_a_missing_hedge_fails_alone() -> None:
    slow, gone = expert("slow", first_token_s=2.0), expert("gone")
    assert told(run(ended(fan([slow], [gone], missing=[gone])))) == [("gone", "failed", 0), ("slow", "ok", 0)]


@pytest.mark.parametrize("reserve", [0, 2])
def test_without_a_time_nobody_is_hedged(reserve: int) -> None:
    slow, spare = expert("slow", first_token_s=9.0), [expert(f"spare{i}") for i in range(reserve)]
    assert told(run(ended(fan([slow], spare, hedge_s=None)))) == [("slow", "ok", 0)]
    assert told(run(ended(fan([slow], [], hedge_s=1.0)))) == [("slow", "ok", 0)]
    assert [e.asked for e in spare] == [0] * reserve


def test_a_budget_has_room_for_one_hedge() -> None:
    slow = [expert(f"slow{i}", first_token_s=9.0) for i in range(3)]
    spare = [expert(f"spare{i}") for i in range(3)]
    frugal = replace(QUERY, limits=Limits(budget_usd=0.07))
    answers = run(ended(fan(slow, spare, query=frugal)))
    assert [e.asked for e in spare] == [1, 0, 0]
    assert [a.status for a in answers].count("ok") == 3


# --- how it ends -------------------------------------------------------------------------------------


def test_nothing_is_hedged_once_enough_is_in() -> None:
    fast, slow, spare = expert("fast", first_token_s=0.5), expert("slow", first_token_s=9.0), expert("spare")

    async def main() -> None:
        fanout = fan([fast, slow], [spare], quorum=1)
        assert sorted(told(await ended(fanout))) == [("fast", "ok", 0), ("slow", "cancelled", 0)]
        await asyncio.sleep(9)

    run(main())
    assert spare.asked == 0


def test_nothing_is_hedged_after_the_deadline() -> None:
    slow, spare = expert("slow", first_token_s=9.0), expert("spare")
    assert told(run(ended(fan([slow], [spare], hedge_s=5.0, deadline_s=5.0)))) == [("slow", "late", 0)]
    assert spare.asked == 0


@pytest.mark.parametrize("after_s", [0.5, 1.5])
def test_leaving_ends_both(after_s: float) -> None:
    slow, spare = expert("slow", first_token_s=9.0), expert("spare", first_token_s=9.0)

    async def main() -> None:
        request = asyncio.create_task(ended(fan([slow], [spare])))
        await asyncio.sleep(after_s)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await asyncio.sleep(9)

    run(main())
    assert slow.running + spare.running == 0
    assert [slow.cancelled, spare.cancelled] == [slow.asked, spare.asked]
    assert spare.asked == (after_s > 1.0)


def test_a_shared_alarm_forgets_calls_that_need_no_hedge() -> None:
    alarm = Alarm()

    async def main() -> None:
        for first_token_s in (0.1, 0.5):
            quick, spare = expert("quick", first_token_s=first_token_s), expert("spare")
            await ended(fan([quick], [spare], alarm=alarm))
            assert not alarm._noted
        bad, spare = expert("bad", refuse=True), expert("spare")
        await ended(fan([bad], [spare], alarm=alarm))
        assert not alarm._noted

    run(main())


@pytest.mark.parametrize("strategy", ["race", "pass"])
def test_a_race_hears_the_hedge(strategy: Strategy) -> None:
    slow = expert("slow", "never", first_token_s=9.0)
    spare = expert("spare", "a b c", first_token_s=0.5, per_chunk_s=2.0)

    async def main() -> tuple[list[tuple[float, str]], list[Answer]]:
        fanout = fan([slow], [spare], strategy=strategy)
        route = Route("auto", strategy, calls(slow), reserve=calls(spare))
        async with fanout:
            heard = [(now(), chunk.text) async for chunk in Race().combine(QUERY, route, fanout)]
        return heard, fanout.answers

    heard, answers = run(main())
    assert "".join(text for _, text in heard) == "a b c"
    assert heard[0][0] == pytest.approx(1.5)
    assert sorted(told(answers)) == [("slow", "cancelled", 0), ("spare", "ok", 0)]


# --- whatever happens --------------------------------------------------------------------------------

seconds = st.sampled_from([0.0, 0.3, 0.9, 1.1, 1.3, 2.7])
scripts = st.fixed_dictionaries(
    {"first_token_s": seconds, "per_chunk_s": seconds},
    optional={"refuse": st.just(True), "cut_after": st.integers(0, 2), "stall_after": st.integers(0, 2)},
)


@given(
    st.lists(st.tuples(scripts, st.integers(0, 1)), min_size=1, max_size=4),
    st.lists(scripts, max_size=3),
    st.sampled_from([None, 0.0, 0.7, 1.0]),
    st.booleans(),
)
def test_a_slot_has_one_answer_at_most_and_one_hedge_at_most(
    plan: list[tuple[dict[str, Any], int]], spares: list[dict[str, Any]], hedge_s: float | None, frugal: bool
) -> None:
    panel = [expert(f"p{i}", "a b c", **script) for i, (script, _) in enumerate(plan)]
    reserve = [expert(f"r{i}", "x y z", **script) for i, script in enumerate(spares)]
    query = replace(QUERY, limits=Limits(budget_usd=0.07)) if frugal else QUERY
    stages = [stage for _, stage in plan]
    answers = run(ended(fan(panel, reserve, hedge_s=hedge_s, query=query, stages=stages, deadline_s=20.0)))
    assert all(e.running == 0 for e in (*panel, *reserve))
    hedges = [a for a in answers if a.expert.startswith("r") and a.stage < 9]
    assert all(e.asked <= 1 for e in reserve)
    assert len(hedges) <= (0 if hedge_s is None else 1 if frugal else len(panel))
    heard = [a for a in answers if a.status != "failed"]
    for stage in (0, 1):
        slots = stages.count(stage)
        begun = [a for a in heard if a.stage == stage and a.chunks]
        assert len(begun) <= slots
        cancelled = [a for a in heard if a.stage == stage and a.status == "cancelled"]
        assert len(cancelled) <= sum(a.stage == stage for a in hedges)
        assert not any(a.chunks for a in cancelled)
    for answer in answers:  # what is whole is of one expert alone
        if answer.status == "ok":
            assert answer.text == ("x y z" if answer.expert.startswith("r") else "a b c")


def test_who_declines_stops_nobody() -> None:
    declines: Any = {"text": "They do not say.", "grounds": Grounds(0.1, declined=True)}
    late, spare = expert("late", first_token_s=2.0, **declines), expert("spare", first_token_s=5.0)
    assert told(run(ended(fan([late], [spare])))) == [("late", "ok", 0), ("spare", "ok", 0)]
    slow, no = expert("slow", first_token_s=5.0), expert("no", first_token_s=0.5, **declines)
    assert told(run(ended(fan([slow], [no])))) == [("no", "ok", 0), ("slow", "ok", 0)]
    prompt = expert("prompt", **declines)
    assert told(run(ended(fan([prompt], [spare])))) == [("prompt", "ok", 0), ("spare", "ok", 9)]


def test_who_declines_when_another_has_begun_is_not_waited_for() -> None:
    declines: Any = {"text": "They do not say.", "grounds": Grounds(0.1, declined=True)}
    slow, spare = expert("slow", first_token_s=9.0, **declines), expert("spare", first_token_s=0.5)
    assert told(run(ended(fan([slow], [spare])))) == [("slow", "cancelled", 0), ("spare", "ok", 0)]
