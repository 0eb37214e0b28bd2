"""What an expert owes to whoever asks it, as checks that every kind goes through.

A maker is an async context manager that yields a fresh `Subject`. A check raises AssertionError.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest

import manyminds
from manyminds.errors import ExpertError
from manyminds.types import Card, Chunk, Completer, Expert, Message, Query, Sampling, Scorer

__all__ = ["CHECKS", "QUESTIONS", "Maker", "Subject", "ask", "nothing_runs", "read"]

QUESTIONS = ("Count from one to twenty in words.", "Name all colours of the rainbow.")
"""Each has an answer of several words, unlike the other's."""

PROMPT_S = 10.0  # far beyond what ending takes, so that only an expert that hangs passes it
PACKAGE = str(Path(manyminds.__file__).parent)


async def nothing_runs() -> None:
    """For an expert that has nothing upstream."""


@dataclass(frozen=True)
class Subject:
    """An expert under test.

    Attributes:
        generates: whether it writes its answers and so obeys `max_tokens`.
        repeatable: whether a question has the same answer each time, also beside other questions.
        idle: returns once nothing runs upstream any more; fails, or never returns, while something does.
    """

    expert: Expert
    generates: bool = True
    repeatable: bool = True
    idle: Callable[[], Awaitable[None]] = nothing_runs


Maker: TypeAlias = Callable[[], AbstractAsyncContextManager[Subject]]


def ask(text: str, max_tokens: int = 48) -> Query:
    return Query((Message("user", text),), sampling=Sampling(max_tokens=max_tokens, temperature=0.0, seed=7))


async def read(expert: Expert, query: Query) -> list[Chunk]:
    async with aclosing(expert.stream(query)) as stream:
        return [chunk async for chunk in stream]


async def text_of(expert: Expert, query: Query) -> str:
    return "".join(chunk.text for chunk in await read(expert, query))


@asynccontextmanager
async def under_test(make: Maker) -> AsyncGenerator[Subject, None]:
    """A subject that must leave nothing running: neither upstream, nor a task of the package here."""
    async with make() as subject:
        before = asyncio.all_tasks()
        yield subject
        async with asyncio.timeout(PROMPT_S):
            await subject.idle()
        left = [task for task in asyncio.all_tasks() - before if is_ours(task)]
        assert not left, f"tasks left behind: {left}"


def is_ours(task: "asyncio.Task[Any]") -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename.startswith(PACKAGE)


# --- what a stream is ------------------------------------------------------------------------------


async def check_last_chunk_alone_is_final(make: Maker) -> None:
    async with under_test(make) as subject:
        for question in QUESTIONS:
            *others, last = await read(subject.expert, ask(question))
            assert last.finish_reason
            assert last.usage is not None
            assert all(chunk.finish_reason is None and chunk.usage is None for chunk in others)


async def check_stream_has_text(make: Maker) -> None:
    async with under_test(make) as subject:
        for question in QUESTIONS:
            assert (await text_of(subject.expert, ask(question))).strip()


async def check_usage_is_finite(make: Maker) -> None:
    async with under_test(make) as subject:
        usage = (await read(subject.expert, ask(QUESTIONS[0])))[-1].usage
        assert usage is not None
        figures = msgspec.structs.astuple(usage)
        assert all(math.isfinite(figure) and figure >= 0 for figure in figures), usage


async def check_answers_again(make: Maker) -> None:
    async with under_test(make) as subject:
        first = await text_of(subject.expert, ask(QUESTIONS[0]))
        second = await text_of(subject.expert, ask(QUESTIONS[0]))
        assert second == first if subject.repeatable else second


async def check_streams_do_not_mix(make: Maker) -> None:
    async with under_test(make) as subject:
        alone = [await text_of(subject.expert, ask(question)) for question in QUESTIONS]
        assert alone[0] != alone[1]
        together = await asyncio.gather(*(read(subject.expert, ask(question)) for question in QUESTIONS))
        assert all(chunks[-1].finish_reason for chunks in together)
        texts = ["".join(chunk.text for chunk in chunks) for chunks in together]
        assert texts == alone if subject.repeatable else all(texts)


async def check_max_tokens_is_obeyed(make: Maker) -> None:
    async with under_test(make) as subject:
        if not subject.generates:
            pytest.skip("does not generate")
        last = (await read(subject.expert, ask(QUESTIONS[0], max_tokens=1)))[-1]
        assert last.finish_reason == "length"
        assert last.usage is not None
        assert last.usage.completion_tokens <= 1


async def check_whole_only_where_it_may_be(make: Maker) -> None:
    async with under_test(make) as subject:
        query = ask(QUESTIONS[0])
        streamed = await read(subject.expert, query)
        assert not any(chunk.whole for chunk in streamed)
        if not isinstance(subject.expert, Completer):
            return
        chunks = await subject.expert.complete(query)
        assert len(chunks) == 1 or not any(chunk.whole for chunk in chunks)
        assert chunks[-1].finish_reason
        assert chunks[-1].usage is not None
        texts = ["".join(chunk.text for chunk in found) for found in (streamed, chunks)]
        assert texts[0] == texts[1] if subject.repeatable else texts[1]


# --- how a stream ends early -----------------------------------------------------------------------


async def check_unread_stream_closes(make: Maker) -> None:
    async with under_test(make) as subject:
        await subject.expert.stream(ask(QUESTIONS[0])).aclose()


async def check_closing_stops_the_work(make: Maker) -> None:
    async with under_test(make) as subject:
        stream = subject.expert.stream(ask(QUESTIONS[0]))
        await anext(stream)
        await stream.aclose()
        async with asyncio.timeout(PROMPT_S):
            await subject.idle()
        assert [chunk async for chunk in stream] == []
        assert await text_of(subject.expert, ask(QUESTIONS[1]))


async def check_cancel_is_prompt(make: Maker) -> None:
    async with under_test(make) as subject:
        begun = asyncio.Event()

        async def consume() -> None:
            try:
                async with aclosing(subject.expert.stream(ask(QUESTIONS[0]))) as stream:
                    async for _ in stream:
                        begun.set()
            finally:
                begun.set()

        await cancelled(consume(), begun)
        async with asyncio.timeout(PROMPT_S):
            await subject.idle()
        assert await text_of(subject.expert, ask(QUESTIONS[1]))


async def check_cancel_before_first_chunk_is_prompt(make: Maker) -> None:
    async with under_test(make) as subject:
        begun = asyncio.Event()

        async def consume() -> None:
            begun.set()
            await read(subject.expert, ask(QUESTIONS[0]))

        await cancelled(consume(), begun)
        async with asyncio.timeout(PROMPT_S):
            await subject.idle()
        assert await text_of(subject.expert, ask(QUESTIONS[1]))


async def cancelled(consume: Coroutine[Any, Any, None], begun: asyncio.Event) -> None:
    """Cancels a reader once it has begun. It must end at once, with nothing but the cancellation."""
    task = asyncio.create_task(consume)
    await begun.wait()
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=PROMPT_S)
    assert done, "cancelled, yet still at work"
    assert task.cancelled() or task.exception() is None


# --- what else -------------------------------------------------------------------------------------


async def check_only_expert_errors_escape(make: Maker) -> None:
    odd = [ask(text) for text in ("", " \n", "\x00", "\u202eabc\ufffd", "word " * 50_000)]
    async with under_test(make) as subject:
        for query in (*odd, Query(()), Query((Message("nobody", "?"),))):
            try:
                chunks = await read(subject.expert, query)
            except ExpertError as error:
                chunks = []
                assert error.message  # noqa: PT017 - either way is right
            assert not chunks or chunks[-1].finish_reason
        assert await text_of(subject.expert, ask(QUESTIONS[0]))


async def check_card_is_a_value(make: Maker) -> None:
    async with under_test(make) as subject:
        card = subject.expert.card
        assert isinstance(subject.expert, Expert)
        assert isinstance(card, Card)
        assert card.name
        assert card.source
        assert hash(card) == hash(subject.expert.card)
        with pytest.raises(AttributeError):
            card.name = "other"  # type: ignore[misc]


async def check_scores_rate_every_option(make: Maker) -> None:
    async with under_test(make) as subject:
        if "score" not in subject.expert.card.offers:
            pytest.skip("does not score")
        assert isinstance(subject.expert, Scorer)
        options = ("seven", "a colour", "twenty")
        scores = await subject.expert.score(ask(QUESTIONS[0]), options)
        assert len(scores.log_likelihoods) == len(options)
        assert all(math.isfinite(x) and x <= 0 for x in scores.log_likelihoods)


CHECKS: dict[str, Callable[[Maker], Coroutine[Any, Any, None]]] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}
