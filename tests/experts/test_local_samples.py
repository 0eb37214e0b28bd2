"""Several answers at once of a real model process."""

import asyncio
import json
import os
import signal
import sys
from typing import Any

import pytest

from manyminds.errors import CutError, ExpertError, GarbageError, RefusedError
from manyminds.experts.child import cpu_s
from manyminds.experts.local import Local
from manyminds.types import Query, Samples
from manyminds.wire import parse_request
from tests.experts.models import ask, local, pid_of, read, text_of
from tests.experts.test_local import Run, with_model
from tests.experts.upstream import Act, Reply, delta, plain, sse, upstream

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

__all__ = ["with_model"]  # a fixture

STORY = ask("Tell me a story.", max_tokens=12, temperature=1.0)


def test_answers_are_drawn_independently_and_paid_for_together(with_model: Run[Any]) -> None:
    async def sampled(expert: Local) -> tuple[Samples, Samples, float]:
        await expert.start()
        before_s = cpu_s(pid_of(expert)) or 0.0
        samples = await expert.sample(STORY, 4)
        spent_s = (cpu_s(pid_of(expert)) or 0.0) - before_s
        return samples, await expert.sample(STORY, 4), spent_s

    samples, again, spent_s = with_model(sampled)
    assert len(set(samples.texts)) == 4
    assert again.texts == samples.texts
    assert samples.finish_reasons == ("length",) * 4
    assert samples.usage.completion_tokens == 48
    assert 10 < samples.usage.prompt_tokens < 48
    assert 0 < samples.usage.cpu_s <= spent_s
    assert samples.usage.cost_usd == pytest.approx(samples.usage.cpu_s * 0.3 / 3600)


def test_one_answer_is_what_a_stream_gives(with_model: Run[Any]) -> None:
    async def both(expert: Local) -> tuple[str, Samples]:
        return await text_of(expert, ask()), await expert.sample(ask(), 1)

    text, samples = with_model(both)
    assert samples.texts == (text,)


def test_each_answer_says_how_likely_it_is(with_model: Run[Any]) -> None:
    async def sampled(expert: Local) -> tuple[Samples, Samples]:
        forced = ask(max_tokens=8, grammar='root ::= "xylophone quilt"')
        return await expert.sample(ask(max_tokens=8, temperature=0.0), 2), await expert.sample(forced, 1)

    usual, forced = with_model(sampled)
    assert usual.texts[0] == usual.texts[1]
    assert usual.log_likelihoods[0] == pytest.approx(usual.log_likelihoods[1], abs=1e-3)
    assert -20.0 < usual.log_likelihoods[0] < 0.0  # the likeliest of eight tokens each time
    assert -500.0 < forced.log_likelihoods[0] < usual.log_likelihoods[0]  # without the grammar, unlikely


@pytest.mark.parametrize("count", [-1, 0, 9])
def test_a_count_that_it_cannot_give_is_refused(with_model: Run[Any], count: int) -> None:
    with pytest.raises(RefusedError, match=f"1 to 8 answers at once, not {count}"):
        with_model(lambda expert: expert.sample(STORY, count))


def test_a_callers_own_fields_hold_but_for_how_many(with_model: Run[Samples]) -> None:
    raw = b"""{"model": "x", "messages": [{"role": "user", "content": "Who?"}], "max_completion_tokens": 5,
        "n": 2, "stream": false, "temperature": 1.5, "stop": ["zzz"]}"""
    samples = with_model(lambda expert: expert.sample(parse_request(raw), 3))
    assert len(samples.texts) == 3
    assert samples.usage.completion_tokens <= 15


def test_a_grammar_is_followed(with_model: Run[Samples]) -> None:
    query = ask("Pick one.", max_tokens=5, temperature=1.5, grammar='root ::= "A" | "B"')
    assert set(with_model(lambda expert: expert.sample(query, 8)).texts) <= {"A", "B"}


def endless(text: str, max_tokens: int) -> Query:
    """A question whose answer would go on for ever."""
    fields = {"ignore_eos": True, "max_tokens": max_tokens, "messages": [{"role": "user", "content": text}]}
    return parse_request(json.dumps(fields | {"model": "x"}).encode())


def test_answers_share_the_context_and_a_single_one_has_all_of_it() -> None:
    async def both() -> tuple[Samples, Any, Any]:
        async with local(context_tokens=256) as expert:
            await text_of(expert, ask("Something else, which stays in a cache.", max_tokens=8))
            samples = await expert.sample(endless("Sing!", 100_000), 8)
            first = await read(expert, endless("Sing!", 100_000))
            return samples, first[-1], (await read(expert, endless("word " * 200, 100_000)))[-1]

    samples, first, long = asyncio.run(both())
    room = (256 - samples.usage.prompt_tokens) // 8
    assert samples.usage.completion_tokens == 8 * room
    assert set(samples.finish_reasons) == {"length"}
    for last in (first, long):
        assert last.finish_reason == "length"
        assert last.usage.prompt_tokens + last.usage.completion_tokens in (255, 256)


def test_a_prompt_that_leaves_no_room_is_refused_with_the_numbers(with_model: Run[Any]) -> None:
    async def refused(expert: Local) -> str:
        with pytest.raises(RefusedError) as caught:
            await expert.sample(ask("word " * 480), 8)
        assert await expert.sample(STORY, 2)
        return caught.value.message

    said = with_model(refused)
    assert "a context of 512 tokens" in said
    assert "`context_tokens`" in said


def test_leaving_ends_the_work(with_model: Run[float]) -> None:
    """8 answers of 50 tokens take seconds of CPU; what follows tells what was spent."""

    async def spent(expert: Local) -> float:
        await expert.start()
        before_s = cpu_s(pid_of(expert)) or 0.0
        task = asyncio.create_task(expert.sample(endless("Sing!", 50), 8))
        while (cpu_s(pid_of(expert)) or 0.0) - before_s < 0.3:  # noqa: ASYNC110 - a process is no event
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await text_of(expert, ask("Hi", max_tokens=2))
        return (cpu_s(pid_of(expert)) or 0.0) - before_s

    assert with_model(spent) < 1.5


USAGE = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}'


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ([plain(b'{"error":{"message":"no"}}', "400 Bad Request")], RefusedError),
        ([plain(b'{"error":{"message":"no"}}', "500 Internal Server Error")], GarbageError),
        (sse(delta("a", finish="stop"), USAGE), CutError),  # only one of two
        (sse(b'{"choices":[{"index":2,"delta":{"content":"a"}}]}'), GarbageError),
        (sse(b'{"choices":[{"index":-1,"delta":{"content":"a"}}]}'), GarbageError),
        (sse(b'{"error":{"message":"Context size has been exceeded."}}'), GarbageError),
        (sse(b'{"choices":5}'), GarbageError),
        (sse(b"oops"), GarbageError),
        ([Act.CLOSE], CutError),
        ([Act.RESET], CutError),
    ],
)
def test_samples_from_a_child_gone_mad(with_model: Run[None], reply: Reply, kind: type[ExpertError]) -> None:
    async def sample(expert: Local) -> None:
        await expert.start()
        assert expert._child is not None
        async with upstream([plain(b'{"input_tokens":9}')], reply) as server:
            url, expert._child.url = expert._child.url, server.url
            expert._doubted = False  # or the child would be asked how it is, and killed for what it says
            try:
                with pytest.raises(kind):
                    await expert.sample(STORY, 2)
            finally:
                expert._child.url = url

    with_model(sample)


def test_a_death_in_the_middle_is_made_good_once() -> None:
    async def main() -> Samples:
        async with local() as expert:
            await expert.start()
            first = pid_of(expert)
            before_s = cpu_s(first) or 0.0
            sampling = asyncio.create_task(expert.sample(endless("Sing!", 40), 8))
            while (cpu_s(first) or 0.0) - before_s < 0.2:  # noqa: ASYNC110 - a process is no event
                await asyncio.sleep(0)
            os.kill(first, signal.SIGKILL)
            samples = await sampling
            assert pid_of(expert) != first
            return samples

    assert asyncio.run(main()).usage.completion_tokens == 320
