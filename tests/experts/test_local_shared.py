"""Model processes that share memory and cores, and that retire."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress

import pytest

from manyminds.experts.local import Local
from manyminds.experts.room import Room
from tests.experts.models import CHOICE, OPTIONS, ask, has_ended, local, pid_of, text_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

SHORT = ask("Hi", max_tokens=1)


@asynccontextmanager
async def two(room: Room) -> AsyncIterator[tuple[Local, Local]]:
    """Each takes 250 MB."""
    async with local(name="a", room=room, needs_mb=250) as a, local(name="b", room=room, needs_mb=250) as b:
        yield a, b


def test_one_that_was_not_used_for_longest_ends_when_another_is_needed() -> None:
    async def main() -> None:
        room = Room(500)
        async with AsyncExitStack() as stack:
            a, b, c = [
                await stack.enter_async_context(local(name=name, room=room, needs_mb=250)) for name in "abc"
            ]
            assert await text_of(a, SHORT)
            assert await text_of(b, SHORT)
            assert (await a.score(CHOICE, OPTIONS)).log_likelihoods
            first, gone = pid_of(a), pid_of(b)
            assert (await c.sample(SHORT, 2)).texts
            assert (a.pid, b.pid) == (first, None)
            assert has_ended(gone)
            assert room.used_mb == 500
            assert await text_of(b, SHORT)
            assert (a.pid, b.pid is None, c.pid is None) == (None, False, False)

    asyncio.run(main())


def test_a_crowd_that_does_not_fit_takes_turns() -> None:
    async def main() -> None:
        room = Room(300)
        running: list[int] = []

        async def asked(one: Local, other: Local) -> str:
            text = await text_of(one, SHORT)
            running.append(sum(local.pid is not None for local in (one, other)))
            return text

        async with (
            local(name="a", room=room, needs_mb=250) as a,
            local(name="b", room=room, needs_mb=250) as b,
        ):
            texts = await asyncio.gather(*(asked(*pair) for pair in [(a, b), (b, a), (a, b), (a, b)]))
            assert len(set(texts)) == 1
            assert max(running) == 1

    asyncio.run(main())


def test_one_in_use_is_waited_for_and_who_waits_can_leave() -> None:
    async def main() -> None:
        room = Room(300)
        async with (
            local(name="a", room=room, needs_mb=250) as a,
            local(name="b", room=room, needs_mb=250) as b,
        ):
            async with aclosing(a.stream(ask(max_tokens=8))) as stream:
                await anext(stream)
                waiting, leaving = (asyncio.create_task(text_of(b, SHORT)) for _ in range(2))
                done, _ = await asyncio.wait({waiting, leaving}, timeout=0.2)
                assert not done
                leaving.cancel()
                with suppress(asyncio.CancelledError):
                    await leaving
                assert "".join([chunk.text async for chunk in stream])
            assert await waiting

    asyncio.run(main())


def test_no_more_compute_than_there_are_cores() -> None:
    """Who waits for a core holds up nobody, and can leave."""

    async def main() -> list[str]:
        ended: list[str] = []

        async def one(expert: Local, name: str) -> None:
            await text_of(expert, SHORT)
            ended.append(name)

        cores = asyncio.Semaphore(1)
        async with local(name="a", cores=cores) as a, local(name="b", cores=cores) as b:
            await asyncio.gather(a.start(), b.start())
            async with aclosing(a.stream(ask(max_tokens=4))) as stream:
                await anext(stream)
                calls = [asyncio.create_task(one(b, "b, which leaves"))]
                calls += [asyncio.create_task(one(*call)) for call in [(b, "b"), (a, "a")]]
                done, _ = await asyncio.wait(calls, timeout=0.2)
                assert not done
                calls[0].cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        assert not cores.locked()
        return ended

    assert sorted(asyncio.run(main())) == ["a", "b"]


def assert_gone(expert: Local, room: Room) -> None:
    assert expert.pid is None
    assert room.used_mb == 0


def test_a_retired_model_answers_who_comes_late_and_leaves_nothing_behind() -> None:
    async def main() -> None:
        room = Room(300)
        async with local(room=room, needs_mb=250) as expert:
            async with aclosing(expert.stream(ask(max_tokens=4))) as stream:
                await anext(stream)
                pid = pid_of(expert)
                retiring = asyncio.create_task(expert.retire())
                await asyncio.sleep(0)
                assert "".join([chunk.text async for chunk in stream])
            await retiring
            assert has_ended(pid)
            assert_gone(expert, room)
            assert await text_of(expert, SHORT)
            assert (await expert.score(CHOICE, OPTIONS)).log_likelihoods
            assert_gone(expert, room)
            async with aclosing(expert.stream(ask(max_tokens=4))) as left:
                await anext(left)
                assert expert.pid is not None
            assert_gone(expert, room)

    asyncio.run(main())
