"""What real models say may come next."""

import asyncio
import math
import os
import signal
import sys

import pytest
from msgspec.structs import replace

from manyminds.errors import GarbageError, RefusedError
from manyminds.experts.guarded import Guarded
from manyminds.experts.informed import Informed
from manyminds.experts.local import Local
from manyminds.experts.openai import OpenAI
from manyminds.types import Distributor, Message, Query
from tests.experts.models import CARD, ask, local, need, pid_of, read, text_of
from tests.experts.upstream import plain, upstream

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

VOCABULARY = 49_152


def test_a_local_model_keeps_the_protocol() -> None:
    need()

    async def main() -> None:
        async with local() as expert:
            assert isinstance(expert, Distributor)
            assert isinstance(Informed(expert, CARD, "x"), Distributor)
            guarded = Guarded(expert, lambda: 0.5)
            assert isinstance(guarded, Distributor)
            prompt = await guarded.prompt_tokens(ask())
            assert (await guarded.next_tokens(prompt, 3)).ids == (await expert.next_tokens(prompt, 3)).ids
            assert not isinstance(Guarded(OpenAI(CARD, "", expert._llama._client), lambda: 0.5), Distributor)
            assert await expert.vocabulary() == await Informed(expert, CARD, "x").vocabulary()

    asyncio.run(main())


def test_the_whole_vocabulary_sums_to_one_and_a_part_is_its_beginning() -> None:
    async def main() -> None:
        async with local() as expert:
            prompt = await expert.prompt_tokens(ask("What is the capital of France?"))
            whole = await expert.next_tokens(prompt, VOCABULARY)
            part = await expert.next_tokens(prompt, 50)
            assert len(whole.ids) == len(set(whole.ids)) == VOCABULARY
            assert math.fsum(map(math.exp, whole.log_probabilities)) == pytest.approx(1.0, abs=1e-3)
            assert list(part.log_probabilities) == sorted(part.log_probabilities, reverse=True)
            assert part.log_probabilities == pytest.approx(whole.log_probabilities[:50], abs=1e-3)
            assert b"The" in part.pieces[:3]

    asyncio.run(main())


def test_its_own_greedy_words_are_the_likeliest_tokens_to_the_end() -> None:
    async def spelt(expert: Local, query: Query) -> tuple[str, str, int]:
        """By the likeliest tokens; where one spells nothing, that is the end."""
        tokens = list(await expert.prompt_tokens(query))
        read, said = len(tokens), b""
        for _ in range(query.sampling.max_tokens or 0):
            found = await expert.next_tokens(tokens, 5)
            assert found.usage.cost_usd > 0
            if not found.pieces[0]:
                return said.decode(), "stop", read
            tokens.append(found.ids[0])
            said += found.pieces[0]
        return said.decode(), "length", read

    async def main() -> set[str]:
        ends = set()
        async with local() as expert:
            for question in ("What is the capital of France?", "Say hello.", "Who wrote Hamlet?"):
                query = ask(question, max_tokens=40)
                chunks = await read(expert, query)
                text, end, tokens = await spelt(expert, query)
                assert text == "".join(chunk.text for chunk in chunks)
                assert end == chunks[-1].finish_reason
                assert chunks[-1].usage is not None
                assert tokens == chunks[-1].usage.prompt_tokens
                ends.add(end)
        return ends

    assert asyncio.run(main()) == {"stop", "length"}


def test_half_a_character_has_a_next_token_too() -> None:
    async def main() -> None:
        async with local() as expert:
            child = await expert._ready()
            tokens = await expert._llama.tokens(child, "Here is a cat: 🐈", special=True)
            found = await expert.next_tokens(tokens[:-1], 20)
            assert len(found.ids) == 20
            assert any(piece and piece[0] >= 0x80 for piece in found.pieces)

    asyncio.run(main())


def test_documents_change_what_is_likely() -> None:
    async def main() -> tuple[float, float]:
        async with local() as expert:
            told = Informed(expert, replace(CARD, name="told"), "The capital of Zubrowka is Lutz.")
            query = Query((Message("user", "What is the capital of Zubrowka?"),))
            found = []
            for each in (expert, told):
                tokens = await each.prompt_tokens(query)
                child = await expert._ready()
                tokens += tuple(
                    await expert._llama.tokens(child, "The capital of Zubrowka is", special=False)
                )
                [lutz] = (await expert._llama.tokens(child, " L", special=False))[:1]
                known = await each.next_tokens(tokens, VOCABULARY)
                found.append(known.log_probabilities[known.ids.index(lutz)])
            assert "Lutz" in await text_of(told, ask("What is the capital of Zubrowka?"))  # type: ignore[arg-type]
            return found[0], found[1]

    without, with_documents = asyncio.run(main())
    assert with_documents > without + 1


def test_a_dead_child_is_started_anew() -> None:
    async def main() -> None:
        async with local() as expert:
            prompt = await expert.prompt_tokens(ask())
            first = await expert.next_tokens(prompt, 5)
            os.kill(pid_of(expert), signal.SIGKILL)
            assert (await expert.next_tokens(prompt, 5)).ids == first.ids

    asyncio.run(main())


def test_more_than_the_context_is_refused() -> None:
    async def main() -> None:
        async with local() as expert:
            with pytest.raises(RefusedError, match="512"):
                await expert.next_tokens([5] * 512, 5)

    asyncio.run(main())


@pytest.mark.parametrize(
    "reply",
    [
        b"oops",
        b'{"completion_probabilities":[]}',
        b'{"completion_probabilities":[{"top_logprobs":[]}]}',
        b'{"completion_probabilities":[{"top_logprobs":[{"id":1,"logprob":-1,"bytes":[300]}]}]}',
        b'{"completion_probabilities":[{"top_logprobs":[{"id":1,"logprob":-1},{"id":1,"logprob":-2}]}]}',
    ],
)
def test_probabilities_from_a_child_gone_mad(reply: bytes) -> None:
    async def main() -> None:
        async with local() as expert, upstream([plain(reply)]) as server:
            child = await expert._ready()
            url, child.url = child.url, server.url
            try:
                with pytest.raises(GarbageError):
                    await expert.next_tokens([1, 2], 5)
            finally:
                child.url = url

    asyncio.run(main())


def test_who_cannot_say_next_tokens_says_so() -> None:
    class Plain:
        card = CARD
        stream = Local.stream

    async def main() -> None:
        with pytest.raises(RefusedError, match=CARD.name):
            await Informed(Plain(), CARD, "x").vocabulary()

    asyncio.run(main())
