import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.errors import CutError, GarbageError, RefusedError, SlowError, UnavailableError
from manyminds.experts.scripted import Script, Scripted
from manyminds.fanout import Fanout, Patience
from manyminds.types import Answer, Call, Card, Chunk, Expert, Message, Query, Route, Scores, Task, Usage
from tests.changed import replace
from tests.clock import run

QUERY = Query((Message("user", "Why?"),), task=Task("option", ("no", "yes"), "Why?"))


def expert(name: str, text: str = "ok", **script: Any) -> Scripted:
    return Scripted(Card(name, "scripted", source=f"{name}'s"), Script(text, **script))


def calls(*experts: Expert, **fields: Any) -> tuple[Call, ...]:
    return tuple(Call(e.card.name, e.card.source, 0.7, **fields) for e in experts)


def fan(
    panel: Sequence[Call],
    *experts: Expert,
    enough: Callable[[Sequence[Answer]], bool] = lambda _: False,
    quorum: int | None = None,
    **patience: float,
) -> Fanout:
    route = Route("auto", "vote", tuple(panel), quorum=quorum)

    async def told(answers: Sequence[Answer]) -> bool:
        return enough(answers)

    return Fanout(QUERY, route, {e.card.name: e for e in experts}, Patience(**patience), told)


async def ended(fanout: Fanout) -> list[Answer]:
    async with fanout:
        return [answer async for answer in fanout.finished()]


def now() -> float:
    return asyncio.get_running_loop().time()


# --- order -----------------------------------------------------------------------------------------


def test_answers_come_in_order_of_completion() -> None:
    slow = expert("slow", "a b", first_token_s=0.1, per_chunk_s=3.0)
    fast = expert("fast", "c d", first_token_s=0.2, per_chunk_s=0.3)
    answers = run(ended(fan(calls(slow, fast), slow, fast)))
    assert [(a.expert, a.source, a.text, a.status) for a in answers] == [
        ("fast", "fast's", "c d", "ok"),
        ("slow", "slow's", "a b", "ok"),
    ]
    assert [a.ttft_s for a in answers] == pytest.approx([0.2, 0.1])
    assert [a.seconds for a in answers] == pytest.approx([0.5, 3.1])
    assert answers[0].usage == Usage(1, 2)
    assert [c.text for c in answers[0].chunks] == ["c", " d", ""]


def test_calls_start_in_order_of_their_first_chunk() -> None:
    slow = expert("slow", "a b", first_token_s=0.1, per_chunk_s=3.0)
    fast = expert("fast", first_token_s=0.2)
    broken = expert("broken", refuse=True)

    async def main() -> list[tuple[str, float, str]]:
        async with fan(calls(fast, slow, broken), fast, slow, broken) as fanout:
            return [(a.call.expert, now(), (await a.whole()).text) async for a in fanout.started()]

    started = run(main())
    assert [(name, text) for name, _, text in started] == [("slow", "a b"), ("fast", "ok")]
    assert started[0][1] == pytest.approx(0.1)


seconds = st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.7, 1.1])
plans = st.lists(st.tuples(st.integers(0, 2), seconds, seconds, st.booleans()), max_size=6)


class Timed(Scripted):
    """Notes when it was asked and when that ended."""

    def __init__(self, name: str, **script: Any) -> None:
        super().__init__(Card(name, "scripted"), Script("a b", **script))
        self.began_s = self.ended_s = -1.0

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        self.began_s = now()
        try:
            async for chunk in super().stream(query):
                yield chunk
        finally:
            self.ended_s = now()


@given(plans)
def test_a_stage_starts_when_the_one_before_has_ended(plan: list[tuple[int, float, float, bool]]) -> None:
    experts = [
        Timed(str(i), first_token_s=first, per_chunk_s=rest, refuse=refuse)
        for i, (_, first, rest, refuse) in enumerate(plan)
    ]
    stages = {e.card.name: stage for e, (stage, *_) in zip(experts, plan, strict=True)}
    panel = [replace(call, stage=stages[call.expert]) for call in calls(*experts)]
    answers = run(ended(fan(panel, *experts)))
    assert sorted(a.expert for a in answers) == sorted(stages)
    by_name = {e.card.name: e for e in experts}
    ends = [by_name[a.expert].ended_s for a in answers]
    assert ends == sorted(ends)
    for stage in set(stages.values()):
        began = {e.began_s for e in experts if stages[e.card.name] == stage}
        before = [e.ended_s for e in experts if stages[e.card.name] < stage]
        assert began == {max(before, default=0.0)}


@given(plans, st.randoms(use_true_random=False))
def test_the_order_of_the_calls_changes_no_answer(
    plan: list[tuple[int, float, float, bool]], random: Any
) -> None:
    def answers(order: list[int]) -> list[Answer]:
        experts = [
            expert(str(i), f"text {i}", first_token_s=first, per_chunk_s=rest, cut_after=1 if cut else None)
            for i, (_, first, rest, cut) in enumerate(plan)
        ]
        panel = [replace(calls(experts[i])[0], stage=plan[i][0]) for i in order]
        return sorted(run(ended(fan(panel, *experts))), key=lambda a: a.expert)

    order = list(range(len(plan)))
    random.shuffle(order)
    plain = [replace(a, error=None) for a in answers(list(range(len(plan))))]
    assert [replace(a, error=None) for a in answers(order)] == plain


def test_a_stage_starts_only_when_it_is_asked_for() -> None:
    first, second = expert("first"), expert("second")

    async def main() -> list[int]:
        asked = []
        async with fan((*calls(first), *calls(second, stage=7)), first, second) as fanout:
            answers = fanout.finished()
            assert (await anext(answers)).expert == "first"
            await asyncio.sleep(5)
            asked.append(second.asked)
            assert (await anext(answers)).stage == 7
            asked.append(second.asked)
            assert [a async for a in answers] == []
        return asked

    assert run(main()) == [0, 1]


def test_nothing_to_ask_ends_at_once() -> None:
    assert run(ended(fan(()))) == []


def test_samples_are_calls_of_their_own() -> None:
    twice, never = expert("twice", "a"), expert("never")
    panel = (*calls(never, samples=0), *calls(twice, samples=2, stage=1))
    answers = run(ended(fan(panel, twice, never)))
    assert [(a.expert, a.text) for a in answers] == [("twice", "a"), ("twice", "a")]
    assert (twice.asked, never.asked) == (2, 0)


# --- limits of time and size -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status", "seconds", "message"),
    [
        ({"first_token_s": 31.0}, "failed", 30.0, "no first token within 30 s"),
        ({"stall_after": 1}, "cut", 21.0, "nothing more within 20 s"),
        ({"text": "a " * 99, "per_chunk_s": 19.0}, "late", 60.0, "not finished at the deadline"),
        ({"text": "a b", "per_chunk_s": 18.0}, "ok", 19.0, None),
    ],
)
def test_limits_of_time(script: dict[str, Any], status: str, seconds: float, message: str | None) -> None:
    words: dict[str, Any] = {"text": "a b", "first_token_s": 1.0}
    slow = expert("slow", **words | script)
    (answer,) = run(ended(fan(calls(slow), slow, first_token_s=30.0, idle_s=20.0, deadline_s=60.0)))
    assert answer.status == status
    assert answer.seconds == pytest.approx(seconds)
    assert slow.running == 0
    if message is None:
        assert answer.error is None
    else:
        assert isinstance(answer.error, SlowError)
        assert message in answer.error.message


def test_one_deadline_holds_for_all_stages() -> None:
    first, second, third = (expert(name, first_token_s=4.0) for name in ("first", "second", "third"))
    panel = [call for i, e in enumerate((first, second, third)) for call in calls(e, stage=i)]
    answers = run(ended(fan(panel, first, second, third, deadline_s=7.0)))
    assert [(a.expert, a.status) for a in answers] == [("first", "ok"), ("second", "late")]
    assert third.asked == 0


def test_an_answer_is_limited_in_size() -> None:
    class Endless(Scripted):
        async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
            while True:
                yield Chunk("a" * 1_000_000, raw=b"b" * 500_000)

    endless = Endless(Card("endless", "scripted"), Script())
    (answer,) = run(ended(fan(calls(endless), endless)))
    assert answer.status == "cut"
    assert isinstance(answer.error, GarbageError)
    assert "8000000 bytes" in answer.error.message
    assert len(answer.text) == 5_000_000


# --- failures --------------------------------------------------------------------------------------


def test_a_missing_expert_fails_its_call_alone() -> None:
    there = expert("there", first_token_s=1.0)
    gone = expert("gone")
    failed, fine = run(ended(fan(calls(gone, there), there)))
    assert (failed.expert, failed.status) == ("gone", "failed")
    assert isinstance(failed.error, UnavailableError)
    assert fine.status == "ok"


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    "wrong",
    [
        RuntimeError("boom"),
        KeyError("x"),
        TimeoutError(),
        OSError(),
        asyncio.CancelledError(),
        StopIteration(),
    ],
)
def test_any_exception_fails_its_call_alone(wrong: BaseException, begun: bool) -> None:
    class Wrong(Scripted):
        async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
            if begun:
                yield Chunk("so")
            raise wrong

    bad, good = Wrong(Card("bad", "scripted"), Script()), expert("good", first_token_s=1.0)
    failed, fine = run(ended(fan(calls(bad, good), bad, good)))
    assert failed.status == ("cut" if begun else "failed")
    assert isinstance(failed.error, GarbageError)
    assert "unexpectedly" in failed.error.message
    assert fine.status == "ok"


def test_an_expert_that_is_no_generator_fails_its_call() -> None:
    class Plain(Scripted):
        def stream(self, query: Query) -> Any:
            return iter(["text"])

    plain = Plain(Card("plain", "scripted"), Script())
    (answer,) = run(ended(fan(calls(plain), plain)))
    assert (answer.status, type(answer.error)) == ("failed", GarbageError)


@pytest.mark.parametrize(("text", "status"), [("", "failed"), ("so it", "cut")])
def test_an_answer_without_an_end_is_cut(text: str, status: str) -> None:
    class Unfinished(Scripted):
        async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
            async for chunk in super().stream(query):
                if chunk.text:
                    yield chunk

    unfinished = Unfinished(Card("u", "scripted"), Script(text))
    (answer,) = run(ended(fan(calls(unfinished), unfinished)))
    assert (answer.status, answer.text, type(answer.error)) == (status, text, CutError)


def test_chunks_are_for_everybody_and_end_as_the_call_did() -> None:
    cut = expert("cut", "a b c", per_chunk_s=1.0, cut_after=2)

    async def main() -> list[str]:
        async with fan(calls(cut), cut) as fanout:
            (arrival,) = [a async for a in fanout.started()]
            assert (await arrival.whole()).status == "cut"
            assert arrival.answer is not None
            texts = []
            for _ in range(2):
                with pytest.raises(CutError):
                    async for chunk in arrival.chunks():
                        texts.append(chunk.text)
            return texts

    assert run(main()) == ["a", " b", "a", " b"]


# --- enough ----------------------------------------------------------------------------------------


def test_a_quorum_stops_the_rest() -> None:
    experts = [expert(str(i), first_token_s=float(i), refuse=i == 0) for i in range(4)]
    late = expert("late")
    panel = (*calls(*experts), *calls(late, stage=1))

    async def main() -> tuple[list[Answer], float]:
        return await ended(fan(panel, *experts, late, quorum=2)), now()

    answers, took_s = run(main())
    assert [(a.expert, a.status) for a in answers] == [
        ("0", "failed"),
        ("1", "ok"),
        ("2", "ok"),
        ("3", "cancelled"),
    ]
    assert took_s == 2.0
    assert (experts[3].cancelled, experts[3].running, late.asked) == (1, 0, 0)


def test_enough_is_told_what_is_in() -> None:
    experts = [expert(str(i), "yes" if i else "no", first_token_s=float(i)) for i in range(5)]
    told = []

    def enough(answers: Sequence[Answer]) -> bool:
        told.append([a.text for a in answers])
        return told[-1].count("yes") == 2

    answers = run(ended(fan(calls(*experts), *experts, enough=enough)))
    assert told == [["no"], ["no", "yes"], ["no", "yes", "yes"]]
    assert [a.status for a in answers] == ["ok", "ok", "ok", "cancelled", "cancelled"]


def test_a_stage_is_judged_as_a_whole() -> None:
    first = [expert(str(i), "yes", first_token_s=float(i)) for i in range(3)]
    late = expert("late", "no", first_token_s=5.0)
    panel = (*calls(*first), *calls(late, stage=1))
    told: list[list[str]] = []

    def enough(answers: Sequence[Answer], sure: int) -> bool:
        told.append([a.expert for a in answers])
        return len(answers) >= sure

    answers = run(ended(fan(panel, *first, late, enough=lambda a: enough(a, 1))))
    assert told == [["0", "1", "2"]]
    assert [(a.expert, a.status) for a in answers] == [("0", "ok"), ("1", "ok"), ("2", "ok")]
    assert late.asked == 0
    told.clear()
    answers = run(ended(fan(panel, *first, late, enough=lambda a: enough(a, 9))))
    assert told == [["0", "1", "2"], ["0", "1", "2", "late"]]
    assert [a.status for a in answers] == ["ok"] * 4


def test_failures_alone_are_never_enough() -> None:
    refusing, fine = expert("refusing", refuse=True), expert("fine", first_token_s=1.0)
    answers = run(ended(fan(calls(refusing, fine), refusing, fine, enough=lambda _: True)))
    assert [a.status for a in answers] == ["failed", "ok"]


def test_the_kept_call_goes_on() -> None:
    fast, slow = expert("fast", "a b c", per_chunk_s=1.0), expert("slow", "x y", per_chunk_s=1.5)
    third = expert("third")

    async def main() -> tuple[str, list[Answer]]:
        async with fan((*calls(slow, fast), *calls(third, stage=1)), fast, slow, third) as fanout:
            arrival = await anext(aiter(fanout.started()))
            await fanout.cancel(keep=arrival)
            assert slow.running + fast.running == 1
            text = "".join([chunk.text async for chunk in arrival.chunks()])
            rest = [a async for a in fanout.finished()]
            return text, rest

    text, answers = run(main())
    assert text == "x y"
    assert [(a.expert, a.status) for a in answers] == [("fast", "cancelled"), ("slow", "ok")]
    assert third.asked == 0


def test_a_call_may_be_cancelled_before_its_first_step() -> None:
    first = expert("first")

    async def main() -> Answer:
        async with fan((), first) as fanout:
            arrival = fanout.open("first", QUERY)
            await fanout.cancel()
            return await arrival.whole()

    answer = run(main())
    assert (answer.status, answer.seconds, answer.ttft_s, answer.error) == ("cancelled", 0.0, None, None)
    assert first.asked == 0


def test_what_an_expert_makes_of_its_cancellation_does_not_matter() -> None:
    class Stubborn(Scripted):
        async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
            yield Chunk("a")
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                await asyncio.sleep(2)
                raise CutError("I was interrupted.") from None

    stubborn, fast = Stubborn(Card("s", "scripted"), Script()), expert("fast")
    answers = run(ended(fan(calls(stubborn, fast), stubborn, fast, quorum=1)))
    assert [(a.expert, a.status, a.error) for a in answers] == [
        ("fast", "ok", None),
        ("s", "cancelled", None),
    ]


# --- one more call ---------------------------------------------------------------------------------


def test_a_fuser_is_asked_after_enough_is_in() -> None:
    drafter, other, fuser = expert("drafter"), expert("other", first_token_s=9.0), expert("fuser", "so b it")

    async def main() -> list[Answer]:
        async with fan(calls(drafter, other), drafter, other, fuser, quorum=1) as fanout:
            drafts = [a async for a in fanout.finished()]
            assert [a.status for a in drafts] == ["ok", "cancelled"]
            arrival = fanout.open("fuser", replace(QUERY, messages=(Message("user", "fuse these two"),)))
            assert "".join([chunk.text async for chunk in arrival.chunks()]) == "so b it"
            return fanout.answers

    *_, fused = run(main())
    assert (fused.expert, fused.source, fused.method, fused.stage) == ("fuser", "fuser's", "fuse", 1)
    assert fused.usage.prompt_tokens == 3  # it was asked its own query


def test_a_fuser_is_under_the_same_deadline() -> None:
    drafter, fuser = expert("drafter", first_token_s=6.0), expert("fuser", first_token_s=6.0)

    async def main() -> Answer:
        async with fan(calls(drafter), drafter, fuser, deadline_s=10.0) as fanout:
            assert [a.status async for a in fanout.finished()] == ["ok"]
            return await fanout.open("fuser", QUERY).whole()

    answer = run(main())
    assert answer.status == "late"
    assert answer.seconds == pytest.approx(4.0)


def test_only_known_experts_can_be_opened() -> None:
    async def main() -> None:
        async with fan(()) as fanout:
            fanout.open("nobody", QUERY)

    with pytest.raises(UnavailableError, match="nobody"):
        run(main())


# --- whoever asked goes away -----------------------------------------------------------------------


@pytest.mark.parametrize("after_s", [0.0, 0.5, 1.5])
@pytest.mark.parametrize("times", [1, 2, 5])
def test_cancelling_the_request_ends_every_call(after_s: float, times: int) -> None:
    experts = [expert(str(i), "a b c", first_token_s=1.0, per_chunk_s=1.0) for i in range(3)]

    async def main() -> None:
        request = asyncio.create_task(ended(fan(calls(*experts), *experts)))
        await asyncio.sleep(after_s)
        for _ in range(times):  # impatience leaves nothing behind either
            request.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await request

    run(main())  # fails when a task is left behind
    assert [e.running for e in experts] == [0, 0, 0]
    assert [e.cancelled for e in experts] == [e.asked for e in experts]


def test_cancelled_again_while_experts_take_their_leave() -> None:
    class Slow(Scripted):
        async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
            try:
                async for chunk in super().stream(query):
                    yield chunk
            finally:
                await asyncio.sleep(5)

    slow = Slow(Card("slow", "scripted"), Script(first_token_s=50.0))

    async def main() -> float:
        request = asyncio.create_task(ended(fan(calls(slow), slow)))
        for _ in range(3):
            await asyncio.sleep(1)
            request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        return now()

    assert run(main()) == 6.0
    assert slow.running == 0


def test_leaving_early_ends_every_call() -> None:
    experts = [expert(str(i), "a b c", per_chunk_s=1.0) for i in range(3)]

    async def main() -> None:
        async with fan(calls(*experts), *experts) as fanout:
            async for _ in fanout.started():
                raise RefusedError("The combiner has a reason.")

    with pytest.raises(RefusedError):
        run(main())
    assert [e.running for e in experts] == [0, 0, 0]


# --- scores ----------------------------------------------------------------------------------------


def test_a_scored_call_answers_with_the_likeliest_option() -> None:
    scorer = expert("scorer", scores=(-1.2, -0.3))
    (answer,) = run(ended(fan(calls(scorer, method="score"), scorer)))
    assert (answer.text, answer.status, answer.method) == ("B) yes", "ok", "score")
    assert answer.confidence == pytest.approx(1 / (1 + 2.718281828459045**-0.9))


@given(st.lists(st.floats(-1000, 0), min_size=2, max_size=2))
def test_confidence_is_a_share(scores: list[float]) -> None:
    scorer = expert("scorer", scores=tuple(scores))
    (answer,) = run(ended(fan(calls(scorer, method="score"), scorer)))
    assert answer.confidence is not None
    assert 0.5 <= answer.confidence <= 1.0
    assert answer.text == ("B) yes" if scores[1] > scores[0] else "A) no")


@pytest.mark.parametrize("scores", [(), (-0.1,), (float("nan"), -0.1), (float("-inf"),) * 2])
def test_scores_that_are_none_fail_the_call(scores: tuple[float, ...]) -> None:
    class Liar(Scripted):
        async def score(self, query: Query, options: Sequence[str]) -> Scores:
            return Scores(scores, Usage())

    liar = Liar(Card("liar", "scripted"), Script())
    (answer,) = run(ended(fan(calls(liar, method="score"), liar)))
    assert (answer.status, type(answer.error)) == ("failed", GarbageError)


def test_who_cannot_score_is_asked_to_write() -> None:
    class Writer:
        card = Card("writer", "scripted")

        async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
            yield Chunk("written", "stop", Usage())

    (answer,) = run(ended(fan(calls(Writer(), method="score"), Writer())))
    assert answer.text == "written"


# --- what a call took ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["cancelled", "cut", "late"])
def test_a_call_that_cannot_say_what_it_took_is_estimated(status: str) -> None:
    scripts = {
        "cancelled": Script(text="one two three", per_chunk_s=4.0),
        "cut": Script(text="one two three", per_chunk_s=4.0, cut_after=2),
        "late": Script(text="one two three", per_chunk_s=9.0),
    }
    prices = {"price_in_usd_per_m": 3.0, "price_out_usd_per_m": 7.0, "price_cpu_usd_per_hour": 36.0}
    dear = Scripted(Card("a", "scripted", **prices), scripts[status])  # type: ignore[arg-type]

    async def play() -> Answer:
        async with fan(calls(dear), dear, deadline_s=12.0) as fanout:
            if status == "cancelled":
                arrival = await anext(aiter(fanout.started()))
                await asyncio.sleep(5.0)
                await fanout.cancel()
                return await arrival.whole()
            (ended,) = [answer async for answer in fanout.finished()]
            return ended

    answer = run(play())
    assert answer.status == status
    usage = answer.usage
    assert usage.prompt_tokens == QUERY.estimated_tokens
    assert 0 < usage.completion_tokens <= 3
    assert usage.cpu_s == answer.seconds
    tokens_usd = (3.0 * usage.prompt_tokens + 7.0 * usage.completion_tokens) / 1e6
    assert usage.cost_usd == pytest.approx(tokens_usd + answer.seconds * 36.0 / 3600)


def test_a_call_that_failed_before_its_first_word_cost_nothing() -> None:
    refusing = Scripted(Card("a", "scripted", price_in_usd_per_m=3.0), Script(refuse=True))
    (answer,) = run(ended(fan(calls(refusing), refusing)))
    assert answer.usage == Usage()
