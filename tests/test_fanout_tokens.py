"""One answer from many, token by token: who fails is left out, and nothing is left behind."""

import asyncio
import random
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from functools import partial

import numpy as np
import pytest
from msgspec.structs import replace

from manyminds.errors import CutError, ExpertError, SlowError, UnavailableError
from manyminds.experts.informed import Informed
from manyminds.fanout import Patience, Tokens
from manyminds.privacy.tokens import Floats, draw, logarithmic, plan
from manyminds.types import Chunk, Following, Message, Query, Sampling, Usage
from tests.experts.models import CARD, local, need

QUERY = Query((Message("user", "?"),))
PIECES = (b"a", b"b", "é".encode()[:1], "é".encode()[1:], b"")
END = 4


class Voice:
    """Says what it was made to say, whatever it is asked: id 4 ends the text."""

    def __init__(
        self, *likeliest: int, words: str = "v", fails: dict[int, BaseException] | None = None
    ) -> None:
        self.likeliest = likeliest or (0,)
        self.words = words
        self.fails = fails or {}
        self.asked: list[tuple[int, ...]] = []
        self.running = 0
        self.stuck = asyncio.Event()

    async def vocabulary(self) -> str:
        return self.words

    async def prompt_tokens(self, query: Query) -> tuple[int, ...]:
        return (7, 7)

    async def next_tokens(self, tokens: Sequence[int], count: int) -> Following:
        step = len(self.asked)
        self.asked.append(tuple(tokens))
        if (failure := self.fails.get(step)) is not None:
            if isinstance(failure, asyncio.TimeoutError):
                self.running += 1
                self.stuck.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    self.running -= 1
            raise failure
        logs = np.full(5, -8.0)
        logs[self.likeliest[min(step, len(self.likeliest) - 1)]] = -0.01
        order = np.argsort(-logs, kind="stable")
        return Following(
            tuple(order.tolist()),
            tuple(logs[order].tolist()),
            tuple(PIECES[i] for i in order),
            Usage(2, 1, 0.0, 0.5),
        )


def tokens(public: Voice, sources: Sequence[Voice | None], **limits: object) -> Tokens:
    """Takes the likeliest token of a pool that sources can turn."""
    pool = partial(logarithmic, sources=max(len(sources), 1), reach=20.0)
    fields: dict[str, object] = {"tokens": 6} | limits
    query = fields.pop("query", QUERY)
    return Tokens(query, public, sources, pool, lambda w: int(w.argmax()), **fields)  # type: ignore[arg-type]


async def said(answer: Tokens) -> list[Chunk]:
    async with aclosing(answer.stream()) as chunks:
        return [chunk async for chunk in chunks]


def run(answer: Tokens) -> tuple[str, Chunk]:
    chunks = asyncio.run(said(answer))
    assert all(chunk.finish_reason is None for chunk in chunks[:-1])
    return "".join(chunk.text for chunk in chunks), chunks[-1]


def test_sources_turn_the_public_answer() -> None:
    public, sources = Voice(0), [Voice(1, 1, 2, 3, END) for _ in range(3)]
    answer = tokens(public, sources)
    text, last = run(answer)
    assert (text, last.finish_reason) == ("bbé", "stop")
    assert last.usage == Usage(2, 5)
    assert sources[0].asked[-1] == (7, 7, 1, 1, 2, 3)
    assert answer.spent_usd == 5 * 4 * 0.5


@pytest.mark.parametrize(("wished", "taken"), [(None, 0.7), (0.0, 0.1), (1.0, 1.0), (2.0, 2.0)])
def test_temperature_sharpens_all_alike(wished: float | None, taken: float) -> None:
    seen: list[Floats] = []

    def pool(public: Floats, private: Floats) -> Floats:
        seen.extend([public, private])
        return np.exp(public)

    query = replace(QUERY, sampling=Sampling(temperature=wished))
    run(Tokens(query, Voice(0), [Voice(1)], pool, lambda w: int(w.argmax()), tokens=1))
    assert seen[0].min() == seen[1].min() == pytest.approx(-8.0 / taken)


def test_it_ends_with_so_many_tokens() -> None:
    assert run(tokens(Voice(0), [], tokens=3))[0] == "aaa"
    text, last = run(tokens(Voice(0, 2), [], tokens=2))
    assert (text, last.finish_reason) == ("a�", "length")


@pytest.mark.parametrize(
    ("stops", "text"), [(("ab",), "bb"), (("zz", "b"), ""), (("",), "bbabbb"), (("bz",), "bbabbb")]
)
def test_a_stop_ends_it_and_is_not_said(stops: tuple[str, ...], text: str) -> None:
    query = replace(QUERY, sampling=Sampling(stop=stops))
    assert run(tokens(Voice(1, 1, 0, 1, 1, 1), [], query=query))[0] == text


def test_who_fails_counts_as_the_public_model_from_then_on() -> None:
    for failure in (UnavailableError("gone"), ValueError("broken"), TimeoutError()):
        broken = [Voice(1, fails={1: failure}) for _ in range(3)]
        text, _ = run(tokens(Voice(0), broken, tokens=4, patience=Patience(idle_s=0.05, deadline_s=20)))
        assert text == "baaa"
        assert [(len(voice.asked), voice.running) for voice in broken] == [(2, 0)] * 3


def test_who_means_something_else_by_a_token_is_not_asked() -> None:
    others = [Voice(1, words="other"), None]
    assert run(tokens(Voice(0), others, tokens=2))[0] == "aa"
    assert others[0] is not None
    assert others[0].asked == []


def test_where_the_public_model_fails_the_answer_does() -> None:
    sources = [Voice(1)]
    with pytest.raises(CutError):
        run(tokens(Voice(0, fails={2: CutError("cut")}), sources))
    with pytest.raises(SlowError):
        run(tokens(Voice(0, fails={0: TimeoutError()}), sources, patience=Patience(first_token_s=0.01)))


def test_leaving_cancels_all() -> None:
    stuck = [Voice(1, fails={1: TimeoutError()}) for _ in range(3)]

    async def main() -> None:
        async def consume() -> None:
            async with aclosing(tokens(Voice(0), stuck).stream()) as chunks:
                async for _ in chunks:
                    pass

        before = asyncio.all_tasks()
        task = asyncio.create_task(consume())
        for voice in stuck:
            await voice.stuck.wait()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert asyncio.all_tasks() == before
        assert not any(voice.running for voice in stuck)

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")
def test_real_models_write_one_private_answer() -> None:
    need()
    pytest.importorskip("dp_accounting")
    told = "The capital of Zubrowka is Lutz. Whoever asks gets one short sentence."
    query = Query((Message("user", "What is the capital of Zubrowka?"),), sampling=Sampling(temperature=0.2))

    async def main() -> tuple[list[str], list[str]]:
        async with AsyncExitStack() as stack:
            public, one, two = [await stack.enter_async_context(local()) for _ in range(3)]
            sources = [Informed(expert, CARD, told) for expert in (one, two)]
            found: list[list[str]] = []
            for reach in (20.0, plan(8.0, 1e-5, 2, 8).reach):
                seeded = random.Random(5)

                def pool(q: Floats, rows: Floats, reach: float = reach) -> Floats:
                    return logarithmic(q, rows, 2, reach)

                answer = Tokens(
                    query, public, sources, pool, partial(draw, below=seeded.randrange), tokens=12
                )
                found.append([chunk.text for chunk in await said(answer)])
            return found[0], found[1]

    far, private = asyncio.run(main())
    assert "Lutz" in "".join(far)
    assert len(private) > 3


def test_a_source_killed_in_the_middle_is_only_left_out() -> None:
    need()

    async def main() -> Chunk:
        async with local() as public, local(context_tokens=64) as small:  # its context ends before the answer
            answer = Tokens(
                Query((Message("user", "Count from one to a hundred in words."),)),
                public,
                [small],
                partial(logarithmic, sources=1, reach=1.0),
                lambda weights: int(weights.argmax()),
                tokens=40,
            )
            return (await said(answer))[-1]

    last = asyncio.run(main())
    assert last.usage is not None
    assert last.usage.completion_tokens == 40


def test_an_expert_error_is_all_that_it_raises() -> None:
    with pytest.raises(ExpertError):
        run(tokens(Voice(0, fails={0: RuntimeError("?")}), []))
