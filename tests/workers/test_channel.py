import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from manyminds.errors import UnavailableError
from manyminds.workers.channel import Channel, Handler


@asynccontextmanager
async def pair(**handlers: Handler) -> AsyncIterator[tuple[Channel, Channel]]:
    """Two ends, of which the second knows the words."""
    ours, theirs = socket.socketpair()
    one, other = Channel(ours, {}), Channel(theirs, handlers)
    tasks = [await one.open(), await other.open()]
    try:
        yield one, other
    finally:
        one.close()
        await asyncio.gather(*tasks)  # each ends by itself


def test_questions_are_answered_each_its_own() -> None:
    gates: dict[int, asyncio.Event] = {}
    all_wait = asyncio.Event()

    async def wait(number: int) -> list[Any]:
        gates[number] = asyncio.Event()
        if len(gates) == 3:
            all_wait.set()
        await gates[number].wait()
        return [number, b"\xff" * 100_000]

    async def main() -> None:
        async with pair(wait=wait) as (one, _):
            asked = [asyncio.create_task(one.ask("wait", number)) for number in range(3)]
            await all_wait.wait()
            for number in (2, 0, 1):
                gates[number].set()
                assert await asked[number] == [number, b"\xff" * 100_000]

    asyncio.run(main())


def test_what_is_told_comes_in_order() -> None:
    heard: list[int] = []

    async def hear(number: int) -> None:
        heard.append(number)

    async def count() -> int:
        return len(heard)

    async def main() -> None:
        async with pair(hear=hear, count=count) as (one, _):
            for number in range(100):
                one.tell("hear", number)
            assert await one.ask("count") == 100

    asyncio.run(main())
    assert heard == list(range(100))


def test_an_error_is_told_and_the_next_question_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(known: bool) -> None:
        raise UnavailableError("no such model") if known else ZeroDivisionError

    async def echo(what: str) -> str:
        return what

    async def main() -> None:
        async with pair(fail=fail, echo=echo) as (one, _):
            with pytest.raises(UnavailableError, match="no such model"):
                await one.ask("fail", True)
            with pytest.raises(UnavailableError, match="ZeroDivisionError"):
                await one.ask("fail", False)
            one.tell("fail", False)
            assert await one.ask("echo", "é") == "é"

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert caplog.text.count("'fail' went wrong") == 2


def test_who_no_longer_waits_has_nobody_work() -> None:
    began, left = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async def main() -> None:
        async with pair(work=work) as (one, _):
            asked = asyncio.create_task(one.ask("work"))
            await began.wait()
            asked.cancel()
            await left.wait()

    asyncio.run(main())
    assert left.is_set()


def test_who_waits_learns_that_the_other_is_gone() -> None:
    began = asyncio.Event()

    async def work() -> None:
        began.set()
        await asyncio.Event().wait()

    async def main() -> None:
        async with pair(work=work) as (one, other):
            asked = asyncio.create_task(one.ask("work"))
            await began.wait()
            other.close()
            for _ in range(2):
                with pytest.raises(UnavailableError, match="lost each other"):
                    await asked
                asked = asyncio.create_task(one.ask("work"))
            asked.cancel()
            one.tell("work")  # to nobody

    asyncio.run(main())
