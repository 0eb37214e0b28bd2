import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.errors import (
    CutError,
    DeadlineError,
    ExpertError,
    GarbageError,
    RefusedError,
    RejectedError,
    SlowError,
    UnavailableError,
)
from manyminds.experts.guarded import Guarded
from manyminds.experts.scripted import Script, Scripted
from manyminds.types import (
    Card,
    Chunk,
    Completer,
    Message,
    Query,
    Scorer,
    Scores,
)
from tests.clock import run

CARD = Card("a", "scripted", source="s")
QUERY = Query((Message("user", "Why?"),))
OK = Script("yes indeed")
DOWN = Script(fail_before=UnavailableError("a cannot be reached."))
CUT = Script("yes indeed", cut_after=1)
GARBAGE = Script(garbage=True)
REFUSES = Script(refuse=True)
REJECTS = Script(fail_before=RejectedError("a wants another key."))
HANGS = Script("yes indeed", stall_after=0)
STALLS = Script("yes indeed", stall_after=1)


def busy(retry_after_s: float) -> Script:
    return Script(fail_before=UnavailableError("a is busy.", retry_after_s=retry_after_s))


class Actor:
    """Plays one script after another; the last one for ever. Notes when it was asked."""

    card = CARD

    def __init__(self, scripts: Iterable[Script]) -> None:
        self.scripts = list(scripts)
        self.asked_at: list[float] = []
        self.running = 0

    def _next(self) -> Scripted:
        self.asked_at.append(now())
        return Scripted(CARD, self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0])

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        self.running += 1
        try:
            async with aclosing(self._next().stream(query)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self.running -= 1

    async def score(self, query: Query, options: Sequence[str]) -> Scores:
        return await self._next().score(query, options)


class Whole(Actor):
    """Answers in one piece too."""

    async def complete(self, query: Query) -> Sequence[Chunk]:
        return [chunk async for chunk in self.stream(query)]


def now() -> float:
    return asyncio.get_running_loop().time()


def guarded(*scripts: Script, kind: type[Actor] = Whole, **settings: Any) -> tuple[Guarded, Actor]:
    actor = kind(scripts)
    return Guarded(actor, lambda: 0.5, **settings), actor


async def streamed(expert: Guarded) -> list[Chunk]:
    async with aclosing(expert.stream(QUERY)) as chunks:
        return [chunk async for chunk in chunks]


async def completed(expert: Guarded) -> list[Chunk]:
    return list(await expert.complete(QUERY))


Ask = Callable[[Guarded], Coroutine[Any, Any, list[Chunk]]]
both = pytest.mark.parametrize("ask", [streamed, completed])


async def failure(ask: Ask, expert: Guarded) -> ExpertError:
    with pytest.raises(ExpertError) as caught:
        await ask(expert)
    return caught.value


async def cancelled(ask: Ask, expert: Guarded, after_s: float = 1.0) -> None:
    task = asyncio.create_task(ask(expert))
    await asyncio.sleep(after_s)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def open_up(expert: Guarded) -> None:
    """Fails it until its circuit opens. Takes no time."""
    while expert.open_until is None:
        await failure(streamed, expert)


# --- what it offers --------------------------------------------------------------------------------


def test_offers_what_the_other_one_does() -> None:
    class Plain:
        card = CARD

        def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
            raise AssertionError("nobody asks")

    plain = Guarded(Plain(), lambda: 0.5)
    assert not isinstance(plain, Completer | Scorer)
    assert getattr(plain, "complete", None) is None
    assert isinstance(guarded(OK, kind=Actor)[0], Scorer)
    assert not isinstance(guarded(OK, kind=Actor)[0], Completer)
    assert isinstance(guarded(OK)[0], Completer)
    assert plain.card is CARD


def test_scores_pass_through_and_failures_of_scoring_count() -> None:
    async def main() -> None:
        expert, _ = guarded(DOWN, Script(scores=(-0.5, -0.7)))
        assert (await expert.score(QUERY, ("no", "yes"))).log_likelihoods == (-0.5, -0.7)
        expert, actor = guarded(DOWN, failures=2)
        with pytest.raises(UnavailableError, match="cannot be reached"):
            await expert.score(QUERY, ("no", "yes"))
        with pytest.raises(UnavailableError, match="not asked"):
            await expert.score(QUERY, ("no", "yes"))
        assert len(actor.asked_at) == 2

    run(main())


# --- another try -----------------------------------------------------------------------------------


@both
def test_what_was_down_is_asked_once_more(ask: Ask) -> None:
    async def main() -> None:
        expert, actor = guarded(DOWN, OK)
        assert "".join(chunk.text for chunk in await ask(expert)) == "yes indeed"
        assert actor.asked_at == pytest.approx([0.0, 0.2])
        expert, actor = guarded(DOWN)
        assert "cannot be reached" in (await failure(ask, expert)).message
        assert len(actor.asked_at) == 2

    run(main())


@given(
    st.floats(0.0, 1.0, exclude_max=True), st.floats(0.0, 1.0, exclude_max=True), st.sampled_from([1, 2, 3])
)
def test_the_backoff_grows_and_is_spread(first: float, later: float, retries: int) -> None:
    spread = iter([first, later, later])
    actor = Actor([DOWN])
    expert = Guarded(actor, lambda: next(spread), retries=retries, failures=99)
    run(failure(streamed, expert))
    waits = [b - a for a, b in zip(actor.asked_at, actor.asked_at[1:], strict=False)]
    assert len(waits) == retries
    assert waits[0] == pytest.approx(0.2 * (0.5 + first))
    assert waits[1:] == pytest.approx([0.4 * (0.5 + later), 0.8 * (0.5 + later)][: retries - 1])


@both
def test_retry_after_is_obeyed_where_it_is_short(ask: Ask) -> None:
    async def main() -> None:
        for asked_s in (0.0, 0.7, 2.0):
            expert, actor = guarded(busy(asked_s), OK)
            assert await ask(expert)
            assert actor.asked_at[1] - actor.asked_at[0] == pytest.approx(asked_s)
        expert, actor = guarded(busy(2.1), OK)
        assert (await failure(ask, expert)).retry_after_s == 2.1
        assert len(actor.asked_at) == 1

    run(main())


@both
@pytest.mark.parametrize("script", [REFUSES, REJECTS, GARBAGE, Script("a", cut_after=0), CUT])
def test_other_failures_are_not_tried_again(ask: Ask, script: Script) -> None:
    async def main() -> None:
        expert, actor = guarded(script, OK)
        await failure(ask, expert)
        assert len(actor.asked_at) == 1

    run(main())


def test_nothing_is_tried_again_after_a_chunk() -> None:
    class Leaves(Actor):
        async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
            async for chunk in super().stream(query):
                yield chunk
                raise UnavailableError("a has left.")

    async def main() -> None:
        expert, actor = guarded(OK, kind=Leaves)
        chunks = []
        with pytest.raises(UnavailableError, match="has left"):
            async for chunk in expert.stream(QUERY):
                chunks.append(chunk.text)
        assert (chunks, len(actor.asked_at)) == (["yes"], 1)

    run(main())


@both
def test_being_cancelled_while_it_waits_for_another_try(ask: Ask) -> None:
    async def main() -> None:
        expert, actor = guarded(busy(2.0), OK)
        await cancelled(ask, expert)
        await asyncio.sleep(5)
        assert len(actor.asked_at) == 1
        assert await ask(expert)

    run(main())


# --- the circuit -----------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("script", [DOWN, GARBAGE, CUT, Script(fail_before=SlowError("a was slow."))])
def test_five_failures_in_a_row_open_it(ask: Ask, script: Script) -> None:
    async def main() -> None:
        expert, actor = guarded(script, retries=0)
        for _ in range(5):
            assert expert.open_until is None
            await failure(ask, expert)
        assert expert.open_until == now() + 10.0
        await asyncio.sleep(2.5)
        for _ in range(3):
            spared = await failure(ask, expert)
            assert isinstance(spared, UnavailableError)
            assert spared.retry_after_s == pytest.approx(7.5)
            assert "is not asked for another 7.5 s: it failed 5 times in a row; the last: " in spared.message
        assert len(actor.asked_at) == 5

    run(main())


@both
def test_whatever_breaks_the_contract_counts(ask: Ask) -> None:
    class Wrong(Whole):
        async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
            async for chunk in super().stream(query):
                if len(self.asked_at) % 2:
                    raise KeyError
                if chunk.text:  # never finishes
                    yield chunk

    async def main() -> None:
        expert, _ = guarded(OK, kind=Wrong)
        for kind in (KeyError, CutError, KeyError, CutError, KeyError):
            assert expert.open_until is None
            with pytest.raises(kind):
                await ask(expert)
        assert "the last: KeyError" in (await failure(ask, expert)).message

    run(main())


@both
def test_a_rejection_opens_it_at_once(ask: Ask) -> None:
    async def main() -> None:
        expert, _ = guarded(REJECTS)
        await failure(ask, expert)
        assert expert.open_until == 10.0
        assert "it failed once; the last: a wants another key." in (await failure(ask, expert)).message

    run(main())


@both
def test_a_success_forgives(ask: Ask) -> None:
    async def main() -> None:
        expert, _ = guarded(*(4 * [DOWN] + [OK]) * 9, retries=0)
        for i in range(45):
            if i % 5 < 4:
                await failure(ask, expert)
            else:
                assert await ask(expert)
            assert expert.open_until is None

    run(main())


@both
def test_refusals_and_leaving_count_neither_way(ask: Ask) -> None:
    async def main() -> None:
        late = Script(fail_before=DeadlineError("a deadline of its own"))  # type: ignore[arg-type]
        expert, actor = guarded(OK, retries=0)
        nothing = [REFUSES, late, HANGS]
        for script in (*nothing * 7, *[DOWN] * 4, *nothing, DOWN):
            assert expert.open_until is None
            actor.scripts = [script]
            if script is HANGS:
                await cancelled(ask, expert)
            else:
                with pytest.raises((ExpertError, DeadlineError)):
                    await ask(expert)
        assert expert.open_until == now() + 10.0

    run(main())


def test_closing_the_stream_counts_neither_way() -> None:
    async def main() -> None:
        expert, actor = guarded(*[DOWN] * 4, OK, OK, DOWN, retries=0)
        for _ in range(4):
            await failure(streamed, expert)
        for after in (0, 1):
            async with aclosing(expert.stream(QUERY)) as chunks:
                for _ in range(after):
                    await anext(chunks)
        assert actor.running == 0
        async with aclosing(expert.stream(QUERY)) as chunks:
            assert not (await anext(chunks)).finish_reason
        await failure(streamed, expert)
        assert expert.open_until is not None

    run(main())


def test_an_answer_counts_from_its_finish_on_whoever_reads_further() -> None:
    async def main() -> None:
        expert, _ = guarded(*[DOWN] * 5, OK, retries=0)
        await open_up(expert)
        await asyncio.sleep(10)
        async with aclosing(expert.stream(QUERY)) as chunks:
            while not (await anext(chunks)).finish_reason:
                assert expert.open_until == math.inf
        assert expert.open_until is None

    run(main())


@both
def test_one_probe_closes_it(ask: Ask) -> None:
    async def main() -> None:
        slow = Script("yes indeed", first_token_s=3.0)
        expert, actor = guarded(*[DOWN] * 5, slow, OK, retries=0)
        await open_up(expert)
        await asyncio.sleep(10)
        assert expert.open_until == now()  # it is due
        probe = asyncio.create_task(ask(expert))
        await asyncio.sleep(1)
        assert expert.open_until == math.inf
        for _ in range(3):
            spared = await failure(ask, expert)
            assert spared.retry_after_s == 1.0
            assert "is not asked until another call has gone well: it failed 5 times" in spared.message
        assert len(actor.asked_at) == 6
        assert await probe
        assert await ask(expert)
        assert len(actor.asked_at) == 7

    run(main())


@both
def test_probes_that_fail_double_the_rest_up_to_five_minutes(ask: Ask) -> None:
    async def main() -> None:
        expert, actor = guarded(*[DOWN] * 13, OK, DOWN)  # a probe is not tried again
        await open_up(expert)
        rests = []
        for _ in range(8):
            assert expert.open_until is not None
            rests.append(expert.open_until - now())
            await asyncio.sleep(rests[-1])
            await failure(ask, expert)
        assert rests == pytest.approx([10, 20, 40, 80, 160, 300, 300, 300])
        assert len(actor.asked_at) == 13
        await asyncio.sleep(300)
        assert await ask(expert)
        await open_up(expert)
        assert expert.open_until == pytest.approx(now() + 10)

    run(main())


def test_retry_after_makes_the_rest_longer_but_never_shorter() -> None:
    async def main() -> None:
        for asked_s, rest_s in ((3.0, 10.0), (600.0, 600.0)):
            expert, _ = guarded(busy(asked_s))
            await open_up(expert)
            assert expert.open_until == now() + rest_s

    run(main())


@both
@pytest.mark.parametrize("script", [REFUSES, HANGS])
def test_a_probe_that_tells_nothing_lets_another_one_through(ask: Ask, script: Script) -> None:
    async def main() -> None:
        expert, _ = guarded(*[DOWN] * 5, script, OK, retries=0)
        await open_up(expert)
        await asyncio.sleep(11)
        if script is REFUSES:
            assert isinstance(await failure(ask, expert), RefusedError)
        else:
            await cancelled(ask, expert)
        assert expert.open_until is not None
        assert expert.open_until < now()
        assert await ask(expert)
        assert expert.open_until is None

    run(main())


def test_what_began_before_it_opened_does_not_count() -> None:
    async def main() -> None:
        slow, fails = Script("yes indeed", first_token_s=5.0), Script(first_token_s=5.0, garbage=True)
        expert, _ = guarded(slow, fails, DOWN, retries=0)
        early = [asyncio.create_task(streamed(expert)) for _ in range(2)]
        await asyncio.sleep(1)
        await open_up(expert)
        opened = expert.open_until
        await asyncio.wait(early)
        assert isinstance(early[1].exception(), GarbageError)
        assert early[0].result()
        assert expert.open_until == opened == 11.0

    run(main())


def test_a_rejection_is_never_tried_again() -> None:
    async def main() -> None:
        late = Script(first_token_s=20.0, fail_before=RejectedError("a wants another key."))
        expert, actor = guarded(late, *[DOWN] * 5, OK)
        early = asyncio.create_task(streamed(expert))  # by its end the circuit has opened and closed again
        await asyncio.sleep(1)
        await open_up(expert)
        await asyncio.sleep(12)
        assert await streamed(expert)
        await asyncio.wait([early])
        assert isinstance(early.exception(), RejectedError)
        assert (len(actor.asked_at), expert.open_until) == (7, None)

    run(main())


def test_opening_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        expert, _ = guarded(DOWN)
        await open_up(expert)
        await failure(streamed, expert)

    with caplog.at_level(logging.WARNING):
        run(main())
    assert caplog.messages == [
        "a is not asked for 10 s: it failed 5 times in a row; the last: a cannot be reached."
    ]


# --- whatever happens --------------------------------------------------------------------------------

outcomes = st.lists(
    st.tuples(
        st.sampled_from([OK, DOWN, CUT, GARBAGE, REFUSES, REJECTS, busy(0.3), busy(30.3), HANGS]),
        st.sampled_from([0.0, 0.3, 9.9, 10.1, 333.3]),
    ),
    max_size=25,
)


@given(outcomes, st.sampled_from([streamed, completed]), st.integers(0, 2))
def test_whatever_an_expert_does_it_recovers(
    plan: list[tuple[Script, float]], ask: Ask, retries: int
) -> None:
    async def main() -> None:
        expert, actor = guarded(OK, retries=retries)
        failed = False
        for script, wait_s in plan:
            actor.scripts = [script]
            was_open, before = expert.open_until, len(actor.asked_at)
            spared, said = was_open is not None and now() < was_open, ""
            try:
                async with asyncio.timeout(5):
                    await ask(expert)
                failed = False
            except (ExpertError, TimeoutError) as error:
                failed = failed or (script not in (REFUSES, HANGS) and not spared)
                said = str(error)
            assert ("is not asked" in said) is spared
            assert (len(actor.asked_at) == before) is spared
            assert actor.running == 0
            assert expert.open_until is None or failed
            assert expert.open_until != math.inf
            await asyncio.sleep(wait_s)
        actor.scripts = [OK]
        await asyncio.sleep(max((expert.open_until or 0.0) - now(), 0.0) + 0.1)
        assert await ask(expert)
        assert expert.open_until is None

    run(main())
