import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.errors import CutError, ExpertError, GarbageError, RefusedError, UnavailableError
from manyminds.experts.scripted import Replies, Script, Scripted
from manyminds.types import Card, Chunk, Message, Query, Sampling, Scores, Usage
from tests.clock import run


def scripted(**script: object) -> Scripted:
    card = Card("s", "scripted", price_in_usd_per_m=1.0, price_out_usd_per_m=2.0)
    return Scripted(card, Script(**script))  # type: ignore[arg-type]


def ask(text: str = "what is it", **sampling: Any) -> Query:
    return Query((Message("user", text),), sampling=Sampling(**sampling))


async def read(expert: Scripted, query: Query) -> tuple[list[Chunk], ExpertError | None]:
    """What came, and how it failed."""
    chunks = []
    try:
        async for chunk in expert.stream(query):
            chunks.append(chunk)
    except ExpertError as error:
        return chunks, error
    return chunks, None


def test_says_its_text_word_by_word() -> None:
    chunks, error = run(read(scripted(text="so it  is"), ask()))
    assert error is None
    assert [chunk.text for chunk in chunks] == ["so", " it", "  is", ""]
    assert chunks[-1] == Chunk(finish_reason="stop", usage=Usage(3, 3, cost_usd=(3 * 1.0 + 3 * 2.0) / 1e6))


@pytest.mark.parametrize(
    "replies", [{"2+2?": "four"}, lambda query: "four" if query.question == "2+2?" else "ok"]
)
def test_replies_go_by_question(replies: Replies) -> None:
    expert = scripted(replies=replies)
    assert run(read(expert, ask("2+2?")))[0][0].text == "four"
    assert run(read(expert, ask("3+3?")))[0][0].text == "ok"


def test_takes_the_time_it_is_told_to() -> None:
    async def times() -> list[float]:
        loop = asyncio.get_running_loop()
        expert = scripted(text="a b c", first_token_s=5.0, per_chunk_s=2.0)
        return [loop.time() async for _ in expert.stream(ask())]

    assert run(times()) == pytest.approx([5.0, 7.0, 9.0, 9.0])


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        ({"fail_before": UnavailableError("gone")}, UnavailableError, 0),
        ({"refuse": True}, RefusedError, 0),
        ({"garbage": True}, GarbageError, 0),
        ({"cut_after": 0}, CutError, 0),
        ({"cut_after": 2}, CutError, 2),
        ({"cut_after": 3}, CutError, 3),
        ({"cut_after": 99}, None, 4),
    ],
)
def test_fails_as_it_is_told_to(
    script: dict[str, object], kind: type[ExpertError] | None, words: int
) -> None:
    expert = scripted(text="a b c", **script)
    for _ in range(2):
        chunks, error = run(read(expert, ask()))
        assert len(chunks) == words
        assert (type(error) if error else None) is kind
    assert (expert.asked, expert.running) == (2, 0)


def test_failures_share_no_traceback() -> None:
    failure = UnavailableError("gone", param="p")
    first, second = (run(read(scripted(fail_before=failure), ask()))[1] for _ in range(2))
    assert first is not second
    assert first is not None
    assert (first.message, first.param, failure.__traceback__) == ("gone", "p", None)


def test_a_stall_lasts_until_the_deadline() -> None:
    async def stall() -> tuple[list[str], float]:
        texts = []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1000):
                async for chunk in expert.stream(ask()):
                    texts.append(chunk.text)
        return texts, asyncio.get_running_loop().time()

    expert = scripted(text="a b c", stall_after=1)
    assert run(stall()) == (["a"], 1000.0)
    assert (expert.asked, expert.cancelled, expert.closed, expert.running) == (1, 1, 0, 0)


def test_closing_is_counted_but_not_after_the_end() -> None:
    async def close(after: int) -> None:
        async with aclosing(expert.stream(ask())) as stream:
            for _ in range(after):
                await anext(stream)

    expert = scripted(text="a b")
    run(close(1))
    assert (expert.asked, expert.closed, expert.running) == (1, 1, 0)
    run(close(3))
    assert (expert.asked, expert.closed, expert.running) == (2, 1, 0)


def test_scores_are_as_written() -> None:
    expert = scripted(scores=(-0.1, -2.3))
    assert run(expert.score(ask(), ("yes", "no"))) == Scores((-0.1, -2.3), Usage(3, 0, cost_usd=3e-6))
    for other, options in ((expert, ("one",)), (scripted(), ("yes", "no")), (scripted(refuse=True), ())):
        with pytest.raises(RefusedError):
            run(other.score(ask(), options))
    with pytest.raises(CutError):
        run(scripted(scores=(-0.1,), cut_after=0).score(ask(), ("yes",)))


@given(
    text=st.text(st.sampled_from("ab \n\t\u2003."), max_size=30),
    max_tokens=st.none() | st.integers(1, 12),
    stop=st.lists(st.text(st.sampled_from("ab "), max_size=2), max_size=2).map(tuple),
)
def test_stop_and_max_tokens_are_obeyed(text: str, max_tokens: int | None, stop: tuple[str, ...]) -> None:
    query = ask(max_tokens=max_tokens, stop=stop)
    (*words, last), error = run(read(scripted(text=text), query))
    said = "".join(chunk.text for chunk in words)
    assert error is None
    assert text.startswith(said)
    assert not any(mark and mark in said for mark in stop)
    assert max_tokens is None or len(words) <= max_tokens
    assert last.usage is not None
    assert last.usage.completion_tokens == len(words)
    rest = text[len(said) :]
    if last.finish_reason == "stop":
        assert rest == "" or any(mark and rest.startswith(mark) for mark in stop)
    else:
        assert (last.finish_reason, len(words)) == ("length", max_tokens)
        assert rest
