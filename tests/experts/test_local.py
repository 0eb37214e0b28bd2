"""Real model processes, killed with real signals."""

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import pytest

from manyminds.errors import CutError, ExpertError, GarbageError, RefusedError, UnavailableError
from manyminds.experts.local import QUESTION_TEMPLATE, Local
from manyminds.experts.openai import OpenAI
from manyminds.types import Chunk, Message, Query
from manyminds.upstream import Client, Target
from manyminds.wire import parse_request
from tests.experts.models import (
    CARD,
    CHOICE,
    NAME,
    OPTIONS,
    PATH,
    ask,
    cpu_s,
    has_ended,
    local,
    need,
    pid_of,
    read,
    shown_of,
    text_of,
)
from tests.experts.upstream import Act, Reply, plain, upstream

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

# --- one model for all that does it no harm --------------------------------------------------------

T = TypeVar("T")
Run = Callable[[Callable[[Local], Coroutine[Any, Any, T]]], T]


@pytest.fixture(scope="module")
def with_model() -> Iterator[Run[Any]]:
    """Runs a coroutine function on an expert whose child lives on."""
    need()
    with asyncio.Runner() as runner:
        made = local()
        expert = runner.run(made.__aenter__())
        yield lambda work: runner.run(work(expert))
        runner.run(made.__aexit__(None, None, None))


def test_an_answer_comes_in_pieces(with_model: Run[list[Chunk]]) -> None:
    *pieces, last = with_model(lambda expert: read(expert, ask(max_tokens=12)))
    assert len([chunk for chunk in pieces if chunk.text]) > 5
    assert (last.finish_reason, {chunk.finish_reason for chunk in pieces}) == ("length", {None})
    assert last.usage is not None
    assert last.usage.completion_tokens == 12
    assert last.usage.prompt_tokens > 10
    assert last.usage.cpu_s > 0
    assert last.usage.cost_usd == pytest.approx(last.usage.cpu_s * 0.3 / 3600)


def test_a_seed_repeats_an_answer(with_model: Run[list[str]]) -> None:
    async def three(expert: Local) -> list[str]:
        wishes = [ask("Tell me a story.", seed=seed, temperature=1.5) for seed in (7, 7, 8)]
        return [await text_of(expert, wish) for wish in wishes]

    first, again, other = with_model(three)
    assert first == again != other


def test_a_stop_sequence_ends_an_answer(with_model: Run[Any]) -> None:
    whole = with_model(lambda expert: text_of(expert, ask(max_tokens=24)))
    stop = whole.split()[2]
    chunks = with_model(lambda expert: read(expert, ask(max_tokens=24, stop=(stop,))))
    assert "".join(chunk.text for chunk in chunks) == whole.partition(stop)[0]
    assert chunks[-1].finish_reason == "stop"


def test_log_probabilities_are_in_the_events(with_model: Run[list[Chunk]]) -> None:
    body = {"model": NAME, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "logprobs": True}
    query = parse_request(json.dumps(body | {"top_logprobs": 3, "stream": True}).encode())
    chunks = with_model(lambda expert: read(expert, query))
    found = [
        choice["logprobs"]["content"] for c in chunks for choice in _choices(c) if choice.get("logprobs")
    ]
    assert len(found) == 2
    assert all(
        len(token["top_logprobs"]) == 3 and token["logprob"] <= 0 for tokens in found for token in tokens
    )


def _choices(chunk: Chunk) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(chunk.raw)["choices"]
    return found


def test_more_than_the_context_is_refused(with_model: Run[None]) -> None:
    async def overflow(expert: Local) -> None:
        with pytest.raises(RefusedError, match="512"):
            await read(expert, ask("word " * 600))
        with pytest.raises(RefusedError):
            await expert.score(Query((Message("user", "word " * 600),)), OPTIONS)

    with_model(overflow)


def test_requests_wait_for_each_other(with_model: Run[Any]) -> None:
    questions = ("Count from one to ten in words.", "Name all colours of the rainbow.")

    async def all_of_them(expert: Local) -> tuple[list[str], list[str], Any]:
        alone = [await text_of(expert, ask(question)) for question in questions]
        first, second = (text_of(expert, ask(question)) for question in questions)
        *together, scores = await asyncio.gather(first, second, expert.score(CHOICE, OPTIONS))
        return alone, together, scores

    alone, together, scores = with_model(all_of_them)
    assert alone == together
    assert len(scores.log_likelihoods) == len(OPTIONS)


async def _closed(expert: Local) -> None:
    async with aclosing(expert.stream(ask("Tell me a very long story.", max_tokens=400))) as stream:
        for _ in range(4):
            await anext(stream)


async def _cancelled(expert: Local) -> None:
    begun = asyncio.Event()

    async def consume() -> None:
        async with aclosing(expert.stream(ask("Tell me a very long story.", max_tokens=400))) as stream:
            async for _ in stream:
                begun.set()

    task = asyncio.create_task(consume())
    await begun.wait()
    task.cancel()
    await asyncio.wait({task})


@pytest.mark.parametrize("leave", [_closed, _cancelled])
def test_leaving_stops_the_generation(
    with_model: Run[float], leave: Callable[[Local], Coroutine[Any, Any, None]]
) -> None:
    """400 tokens take seconds of CPU. What follows waits for the one slot, so it tells when that is free."""

    async def spent(expert: Local) -> float:
        before_s = cpu_s(pid_of(expert))
        await leave(expert)
        assert await text_of(expert, ask("Hi", max_tokens=2))
        return cpu_s(pid_of(expert)) - before_s

    assert with_model(spent) < 1.5


def test_nothing_leaks(with_model: Run[Any]) -> None:
    async def requests(expert: Local) -> tuple[int, int]:
        for _ in range(20):
            await text_of(expert, ask("Hi", max_tokens=1))
        await expert.score(CHOICE, OPTIONS)
        return len(os.listdir("/proc/self/fd")), len(os.listdir(f"/proc/{pid_of(expert)}/fd"))

    mine, childs = with_model(requests)
    mine_later, childs_later = with_model(requests)
    assert mine_later <= mine
    assert childs_later <= childs


def test_the_key_is_a_secret_that_counts(with_model: Run[None]) -> None:
    async def look(expert: Local) -> None:
        await expert.start()
        assert expert._child is not None
        pid, key = pid_of(expert), expert._child.key
        assert not any(key.encode() in shown for shown in shown_of(pid))
        async with Client() as client:
            for wrong in (None, "", key[:-1], key + "x"):
                with pytest.raises(UnavailableError, match="401") as caught:
                    await anext(OpenAI(CARD, expert._child.url + "/v1", client, wrong).stream(ask()))
                assert key not in caught.value.message
            response = await client.post(Target(expert._child.url + "/tokenize", {}), b'{"content": "x"}')
            assert response.status == 401

    with_model(look)


# --- scores ----------------------------------------------------------------------------------------


def test_scores_prefer_what_makes_sense(with_model: Run[Any]) -> None:
    first, again = (with_model(lambda expert: expert.score(CHOICE, OPTIONS)) for _ in range(2))
    assert max(zip(first.log_likelihoods, OPTIONS, strict=True))[1] == "Paris"
    assert again.log_likelihoods == first.log_likelihoods
    assert all(math.isfinite(x) and x <= 0 for x in first.log_likelihoods)
    assert first.usage.cost_usd == pytest.approx(first.usage.cpu_s * 0.3 / 3600)


def test_the_order_of_options_changes_no_score(with_model: Run[Any]) -> None:
    there = with_model(lambda expert: expert.score(CHOICE, OPTIONS))
    back = with_model(lambda expert: expert.score(CHOICE, OPTIONS[::-1]))
    assert back.log_likelihoods[::-1] == there.log_likelihoods


def test_an_empty_option_is_as_good_as_its_space_or_refused(with_model: Run[Any]) -> None:
    async def empty(expert: Local) -> Any:
        try:
            return (await expert.score(CHOICE, ("", "Paris"))).log_likelihoods[0]
        except RefusedError:
            return 0.0

    assert with_model(empty) <= 0


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ([plain(b'{"error":{"message":"no"}}', "400 Bad Request")], RefusedError),
        ([plain(b"oops")], GarbageError),
        ([plain(b'{"tokens":["a"]}')], GarbageError),
        ([plain(b'{"tokens":[1]}')], GarbageError),  # and no probabilities
        ([plain(b'{"tokens":[1],"completion_probabilities":[{"top_logprobs":[{"id":1}]}]}')], GarbageError),
        ([Act.CLOSE], CutError),
    ],
)
def test_scores_from_a_child_gone_mad(with_model: Run[None], reply: Reply, kind: type[ExpertError]) -> None:
    async def score(expert: Local) -> None:
        await expert.start()
        assert expert._child is not None
        async with upstream(reply) as server:
            url, expert._child.url = expert._child.url, server.url
            expert._doubted = False  # or the child would be asked how it is, and killed for what it says
            try:
                with pytest.raises(kind):
                    await expert.score(CHOICE, OPTIONS)
            finally:
                expert._child.url = url

    with_model(score)


# --- life and death --------------------------------------------------------------------------------


@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGSEGV])
def test_a_death_in_the_middle_fails_that_call_alone(deadly: signal.Signals) -> None:
    async def main() -> None:
        async with local() as expert:
            async with aclosing(expert.stream(ask(max_tokens=300))) as stream:
                assert not (await anext(stream)).finish_reason
                first = pid_of(expert)
                os.kill(first, deadly)
                with pytest.raises(CutError, match=NAME):
                    async for _ in stream:
                        pass
            assert await text_of(expert, ask())
            assert pid_of(expert) != first

    asyncio.run(main())


def test_a_death_in_between_goes_unnoticed() -> None:
    async def main() -> None:
        async with local() as expert:
            await expert.start()
            os.kill(pid_of(expert), signal.SIGKILL)
            assert await text_of(expert, ask())
            os.kill(pid_of(expert), signal.SIGKILL)
            assert (await expert.score(CHOICE, OPTIONS)).log_likelihoods
            os.kill(pid_of(expert), signal.SIGKILL)
            texts = await asyncio.gather(*(text_of(expert, ask("Hi", max_tokens=2)) for _ in range(3)))
            assert all(texts)

    asyncio.run(main())


def test_closing_ends_the_process_and_what_waits_for_it() -> None:
    async def main() -> tuple[int, int | None]:
        async with local() as expert:
            await expert.start()
            pid = pid_of(expert)
            os.kill(pid, signal.SIGSTOP)  # it will not answer
            waiting = asyncio.create_task(read(expert, ask()))
            await asyncio.sleep(0)
            await expert.aclose()
            with pytest.raises(ExpertError):
                await waiting
            return pid, expert.pid

    pid, after = asyncio.run(main())
    assert has_ended(pid)
    assert after is None


def test_a_closed_expert_starts_again_when_asked() -> None:
    async def main() -> int:
        async with local() as expert:
            assert await text_of(expert, ask())
            await expert.aclose()
            await expert.aclose()
            assert await text_of(expert, ask())
            return pid_of(expert)

    assert has_ended(asyncio.run(main()))


def test_a_closing_node_is_unavailable() -> None:
    async def main() -> None:
        async with local() as expert:
            await expert.start()
            await expert._llama._client.aclose()
            with pytest.raises(UnavailableError, match="closing"):
                await read(expert, ask())
            with pytest.raises(UnavailableError, match="closing"):
                await expert.score(CHOICE, OPTIONS)

    asyncio.run(main())


ORPHAN = """
import asyncio, sys
from pathlib import Path
from manyminds.experts.child import Child, Model

async def main():
    child = await Child.start("orphan", Model(Path(sys.argv[1]), context_tokens=512))
    print(child.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_the_child_dies_with_its_parent() -> None:
    need()
    with subprocess.Popen([sys.executable, "-c", ORPHAN, str(PATH)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        parent.kill()
    assert has_ended(child)


def test_a_load_goes_on_when_its_caller_gives_up_and_ends_with_its_expert() -> None:
    def children() -> set[str]:
        return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())

    async def main() -> None:
        before = children()
        async with local() as expert:
            loading = asyncio.create_task(expert.start())
            while children() == before and not loading.done():  # noqa: ASYNC110 - a process is no event
                await asyncio.sleep(0)
            begun = children()
            loading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await loading
            assert await text_of(expert, ask("Hi", max_tokens=1))
            assert children() == begun
        assert children() == before
        async with local() as left:
            loading = asyncio.create_task(left.start())
            while children() == before and not loading.done():  # noqa: ASYNC110 - a process is no event
                await asyncio.sleep(0)
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
        assert children() == before

    asyncio.run(main())


# --- what cannot be loaded -------------------------------------------------------------------------


def failing(path: Path, **limits: Any) -> str:
    """What a model that cannot be loaded says when it is asked."""

    async def main() -> str:
        async with local(path, **limits) as expert:
            with pytest.raises(UnavailableError) as caught:
                await read(expert, ask())
            assert expert.pid is None
            return caught.value.message

    return asyncio.run(main())


@pytest.mark.parametrize("damage", ["cut short", "not a model", "empty"])
def test_a_damaged_file_says_what_to_do(tmp_path: Path, damage: str) -> None:
    need()
    path = tmp_path / "model.gguf"
    with PATH.open("rb") as whole:
        path.write_bytes({"cut short": whole.read(3_000_000), "not a model": b"<html>", "empty": b""}[damage])
    message = failing(path, remedy="run `this`")
    assert "cannot be loaded" in message
    assert "The file may be damaged: run `this`." in message
    assert len(message) < 800


def test_a_missing_file_says_what_to_do_and_is_not_tried_for_ever(tmp_path: Path) -> None:
    async def main() -> list[str]:
        said = []
        async with local(tmp_path / "none.gguf") as expert:
            for _ in range(4):
                with pytest.raises(UnavailableError) as caught:
                    await expert.start()
                said.append(caught.value.message)
        return said

    *tried, rests = asyncio.run(main())
    assert all(f"not on this machine ({tmp_path}/none.gguf): look after the file." in said for said in tried)
    assert rests == f"{tried[0]} It failed 3 times and rests now."


@pytest.mark.parametrize("memory_mb", [64, 160])
def test_too_little_memory_says_what_to_do(memory_mb: int) -> None:
    message = failing(PATH, memory_bytes=memory_mb * 1_000_000)
    assert f"{memory_mb} MB" in message
    assert "`context_tokens`" in message


def test_the_memory_that_a_node_gives_is_enough() -> None:
    need()

    async def main() -> tuple[str, Any]:
        async with local(memory_bytes=512_000_000 + 2 * PATH.stat().st_size) as expert:
            return await text_of(expert, ask()), await expert.score(CHOICE, OPTIONS)

    text, scores = asyncio.run(main())
    assert text
    assert len(scores.log_likelihoods) == len(OPTIONS)


def test_a_base_model_gets_a_template() -> None:
    async def main() -> list[Chunk]:
        async with local(chat_template=QUESTION_TEMPLATE) as expert:
            return await read(expert, ask("Who wrote Hamlet?", max_tokens=8))

    chunks = asyncio.run(main())
    assert "William" in "".join(chunk.text for chunk in chunks)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 9  # of "Question: Who wrote Hamlet?\nAnswer:"


def test_a_model_may_have_a_stop_of_its_own() -> None:
    async def main() -> tuple[str, str, str]:
        async with local() as expert:
            plain = await text_of(expert, ask())
        stop = plain[8:12]
        async with local(stop=(stop,)) as expert:
            return plain, stop, await text_of(expert, ask())

    plain, stop, stopped = asyncio.run(main())
    assert stop
    assert stopped == plain[: plain.index(stop)]


def test_a_stopped_child_is_found_out_and_replaced() -> None:
    need()

    async def main() -> tuple[int, int, str]:
        async with local() as expert:
            await expert.start()
            stopped = pid_of(expert)
            os.kill(stopped, signal.SIGSTOP)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await read(expert, ask())
            text = await text_of(expert, ask())  # asks how the child is, kills and replaces it
            return stopped, pid_of(expert), text

    stopped, replaced, text = asyncio.run(main())
    assert stopped != replaced
    assert text
    assert not Path(f"/proc/{stopped}").exists()


def test_a_busy_child_is_not_taken_for_a_deaf_one() -> None:
    need()

    async def main() -> tuple[int, int]:
        async with local() as expert:
            await expert.start()
            before = pid_of(expert)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await read(expert, ask("word " * 400))  # still reads the prompt when it is left
            await read(expert, ask(max_tokens=2))
            return before, pid_of(expert)

    before, after = asyncio.run(main())
    assert before == after


def test_a_crowd_is_served_by_one_child() -> None:
    """Whoever waits holds no thread of the child, so that it stays able to say how it is."""
    need()

    async def main() -> tuple[int, int, list[str]]:
        async with local() as expert:
            await expert.start()
            before = pid_of(expert)
            asked = [ask("Write a long story about the sea.", max_tokens=250), *[ask(max_tokens=2)] * 15]
            texts = await asyncio.gather(*(text_of(expert, query) for query in asked))
            return before, pid_of(expert), texts

    before, after, texts = asyncio.run(main())
    assert before == after
    assert len(texts[0]) > 500
    assert len(set(texts[1:])) == 1
