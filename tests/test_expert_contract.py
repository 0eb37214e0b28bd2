import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from manyminds.experts.guarded import Guarded
from manyminds.experts.scripted import Script, Scripted
from manyminds.types import Card, Chunk, Expert, Query, Scores, Usage
from tests import clock
from tests.changed import replace
from tests.contracts import experts
from tests.contracts.experts import QUESTIONS, Maker, Subject

NUMBERS = "one two three four five six seven eight nine ten eleven twelve"
COLOURS = "red, orange, yellow, green, blue, indigo and violet"
REPLIES = dict(zip(QUESTIONS, (NUMBERS, COLOURS), strict=True))


@asynccontextmanager
async def scripted() -> AsyncGenerator[Subject, None]:
    script = Script(replies=REPLIES, scores=(-0.5, -1.25, -2.0), first_token_s=0.5, per_chunk_s=0.1)
    expert = Scripted(Card("actor", "scripted", source="stage", offers=frozenset({"score"})), script)

    async def idle() -> None:
        assert expert.running == 0

    yield Subject(expert, idle=idle)


@asynccontextmanager
async def recorded() -> AsyncGenerator[Subject, None]:
    from manyminds.experts.recorded import open_set
    from tests.experts.test_recorded import answer, question, write_set

    with TemporaryDirectory() as folder:
        write_set(
            Path(folder),
            questions=[question(str(i), prompt=prompt) for i, prompt in enumerate(QUESTIONS)],
            answers=[answer("0", answer=NUMBERS), answer("1", answer=COLOURS)],
        )
        yield Subject(open_set(Path(folder)).experts()[0], generates=False)


@asynccontextmanager
async def guarded() -> AsyncGenerator[Subject, None]:
    async with scripted() as subject:
        yield replace(subject, expert=Guarded(subject.expert, lambda: 0.5))


@asynccontextmanager
async def openai() -> AsyncGenerator[Subject, None]:
    from tests.experts.upstream import speaking

    behind = Scripted(Card("behind", "scripted"), Script(replies=REPLIES, per_chunk_s=0.001))

    async def idle() -> None:
        while behind.running:  # noqa: ASYNC110 - the server learns of a disconnect in its own time
            await asyncio.sleep(0.001)

    async with speaking(behind) as expert:
        yield Subject(expert, idle=idle)


@asynccontextmanager
async def local() -> AsyncGenerator[Subject, None]:
    from tests.experts import models

    async with models.local(max_tokens=48) as expert:  # that leaving stops the work is tested there
        yield Subject(expert)


@asynccontextmanager
async def documents() -> AsyncGenerator[Subject, None]:
    from manyminds.documents import Library
    from manyminds.documents.evidence import Coefficients, Reader
    from manyminds.experts.documents import Documents
    from tests.documents.made import embed, write

    told = {"numbers.md": f"Count to twenty in words: {NUMBERS}.", "rainbow.md": f"Its colours: {COLOURS}."}
    with TemporaryDirectory() as folder, Library(Path(folder) / "library", embed) as library:
        library.sync(write(Path(folder) / "docs", told))
        believing = Reader(Coefficients((1.0, *[0.0] * 7), (1.0, *[0.0] * 12), 0.5))  # the best by its words
        card = Card("reader", "documents", source="stage", offers=frozenset({"citations"}))
        yield Subject(Documents(card, library, embed, cites="quote", reader=believing))


@asynccontextmanager
async def peer() -> AsyncGenerator[Subject, None]:
    from tests.network.sides import BOB, Asker, Memory, Side

    async with scripted() as behind:
        asker = Asker(Memory({BOB.id: Side(expert=behind.expert).answering}))

        async def idle() -> None:
            await asker.transport.idle()
            await behind.idle()

        yield Subject(asker.peer, idle=idle)


Run = Callable[[Coroutine[Any, Any, None]], None]

KINDS: dict[str, tuple[Maker, Run]] = {  # how to make one, and the loop it runs in: real peers need real time
    "scripted": (scripted, clock.run),
    "guarded": (guarded, clock.run),
    "recorded": (recorded, clock.run),
    "documents": (documents, clock.run),
    "peer": (peer, clock.run),
    "openai": (openai, asyncio.run),
    "local": (local, asyncio.run),
}


@pytest.mark.parametrize("check", experts.CHECKS)
@pytest.mark.parametrize("kind", KINDS)
def test_expert_keeps_contract(kind: str, check: str) -> None:
    make, run = KINDS[kind]
    run(experts.CHECKS[check](make))


# --- the checks catch who breaks the contract ------------------------------------------------------


class Honest:
    """Keeps the contract, in a few lines for each of the liars below to break one."""

    def __init__(self) -> None:
        self.card = Card("honest", "scripted", source="stage")
        self.running = 0

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        self.running += 1
        try:
            words = [f"{word} " for word in query.question.split()]
            limit = query.sampling.max_tokens or 10**9
            for word in words[:limit]:
                await asyncio.sleep(1)
                yield Chunk(word)
            await asyncio.sleep(1)
        finally:
            self.running -= 1
        reason = "length" if len(words) > limit else "stop"
        yield Chunk(finish_reason=reason, usage=Usage(1, min(len(words), limit)))


class NeverFinal(Honest):
    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        async for chunk in super().stream(query):
            yield Chunk(chunk.text)


class GoesOn(Honest):
    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        async for chunk in super().stream(query):
            yield chunk
        yield Chunk("and another thing")


class Silent(Honest):
    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        yield Chunk(finish_reason="stop", usage=Usage())


class Overcharges(Honest):
    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        yield Chunk("ok", finish_reason="stop", usage=Usage(cost_usd=float("nan")))


class Forgets(Honest):
    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        self.running += 1
        yield Chunk(f"call {self.running}")
        self.running -= 1
        self.card = Card("honest", "scripted", source=self.card.source + "!")
        yield Chunk(self.card.source, finish_reason="stop", usage=Usage())


class Mixes(Honest):
    query: Query

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        self.query = query
        await asyncio.sleep(1)
        async for chunk in super().stream(self.query):
            yield chunk


class Rambles(Honest):
    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        async for chunk in super().stream(Query(query.messages)):
            yield chunk


class WorksOn(Honest):
    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        self.running += 1
        async for chunk in super().stream(query):
            yield chunk
        self.running -= 1


class Stubborn(Honest):
    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        try:
            async for chunk in super().stream(query):
                yield chunk
        except asyncio.CancelledError:
            await asyncio.sleep(1e6)


class Crashes(Honest):
    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        async for chunk in super().stream(query):
            yield Chunk(chunk.text.split()[0]) if chunk.text else chunk
        _ = query.messages[0].text.split()[0]


class Eager(Honest):
    def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        self.running += 1
        return super().stream(query)


class Miscounts(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.card = Card("miscounts", "scripted", source="stage", offers=frozenset({"score"}))

    async def score(self, query: Query, options: Sequence[str]) -> Scores:
        return Scores(tuple(-1.0 for _ in options[1:]), Usage())


class AllAtOnce(Honest):
    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        yield Chunk(query.question, "stop", Usage(), raw=b"{}", whole=True)


class Nameless(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.card = Card("nameless", "scripted")


LIARS: dict[str, tuple[type[Honest], ...]] = {
    "last_chunk_alone_is_final": (NeverFinal, GoesOn),
    "stream_has_text": (Silent,),
    "usage_is_finite": (Overcharges,),
    "answers_again": (Forgets,),
    "streams_do_not_mix": (Mixes,),
    "max_tokens_is_obeyed": (Rambles,),
    "whole_only_where_it_may_be": (AllAtOnce,),
    "unread_stream_closes": (Eager,),
    "closing_stops_the_work": (WorksOn,),
    "cancel_is_prompt": (WorksOn, Stubborn),
    "cancel_before_first_chunk_is_prompt": (WorksOn, Stubborn),
    "only_expert_errors_escape": (Crashes,),
    "card_is_a_value": (Nameless,),
    "scores_rate_every_option": (Miscounts,),
}


def making(kind: type[Honest]) -> Maker:
    @asynccontextmanager
    async def make() -> AsyncGenerator[Subject, None]:
        expert = kind()

        async def idle() -> None:
            assert expert.running == 0

        yield Subject(expert, idle=idle)

    return make


@pytest.mark.parametrize("check", LIARS)
def test_check_catches_liars(check: str) -> None:
    for liar in LIARS[check]:
        with pytest.raises((AssertionError, IndexError)):
            clock.run(experts.CHECKS[check](making(liar)))


@pytest.mark.parametrize("check", experts.CHECKS)
def test_check_lets_the_honest_pass(check: str) -> None:
    clock.run(experts.CHECKS[check](making(Honest)))


def test_every_check_has_its_liar() -> None:
    assert LIARS.keys() == experts.CHECKS.keys()


def test_an_expert_is_told_by_its_shape() -> None:
    assert isinstance(Honest(), Expert)
    assert not isinstance(object(), Expert)
