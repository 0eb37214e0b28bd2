"""What goes wrong with a local model stays with it: a clear error, and nothing is left behind."""

import asyncio
import gc
import os
import signal
import sys
import threading
from contextlib import aclosing
from pathlib import Path

import pytest

from manyminds.errors import CutError, RefusedError, UnavailableError
from manyminds.experts.child import Model, Process
from manyminds.experts.local import Local
from manyminds.experts.openai import OpenAI
from manyminds.types import Query, Task
from manyminds.upstream import Client
from tests.experts.models import CARD, CHOICE, OPTIONS, ask, local, need, pid_of, read, text_of
from tests.experts.test_local_samples import endless
from tests.experts.upstream import delta, plain, sse, upstream

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

LONG = "word " * 600


def test_a_prompt_past_the_context_is_refused_and_costs_nothing_more() -> None:
    async def main() -> None:
        async with local() as expert:
            await expert.start()
            pid = pid_of(expert)
            for refused in (
                read(expert, ask(LONG)),
                expert.sample(ask(LONG), 3),
                expert.score(Query((), task=Task("option", (), LONG)), OPTIONS),
            ):
                with pytest.raises(RefusedError, match="context") as caught:
                    await refused
                assert "512" in caught.value.message
            assert await text_of(expert, ask())
            assert pid_of(expert) == pid

    asyncio.run(main())


def test_an_answer_that_never_ends_is_cut_at_its_limit() -> None:
    async def main() -> tuple[int, int, int]:
        async with local(max_tokens=24, context_tokens=256) as expert:
            unlimited = await expert.sample(ask(max_tokens=None, temperature=1.0), 2)  # type: ignore[arg-type]
            limited = (await read(expert, endless("Sing!", 9)))[-1].usage
            beyond = (await read(expert, endless("Sing!", 10**6)))[-1].usage
            assert limited is not None
            assert beyond is not None
            total = beyond.prompt_tokens + beyond.completion_tokens
            return unlimited.usage.completion_tokens, limited.completion_tokens, total

    unlimited, limited, total = asyncio.run(main())
    assert unlimited <= 48
    assert limited == 9
    assert total <= 256


def test_a_deadline_sets_the_child_free() -> None:
    async def main() -> str:
        async with local() as expert:
            await expert.start()
            for work in (
                lambda: read(expert, endless("Sing!", 10**6)),
                lambda: expert.sample(endless("Sing!", 10**6), 8),
                lambda: expert.score(CHOICE, ["la " * 400] * 3),
            ):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await work()
            return await text_of(expert, ask())

    assert asyncio.run(main())


def left_behind() -> tuple[int, int, set[str]]:
    """Open files, threads and child processes of this process."""
    gc.collect()
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return len(os.listdir("/proc/self/fd")), threading.active_count(), set(children)


def test_children_that_are_killed_leave_nothing_behind() -> None:
    """In the middle of an answer, in between, and while they load."""

    async def killed(expert: Local) -> None:
        async with aclosing(expert.stream(endless("Sing!", 400))) as stream:
            await anext(stream)
            os.kill(pid_of(expert), signal.SIGKILL)
            with pytest.raises(CutError, match="broke off"):
                async for _ in stream:
                    pass
        assert await text_of(expert, ask("Hi", max_tokens=1))

    async def main() -> None:
        async with local() as expert:
            await killed(expert)
            before = left_behind()
            for _ in range(4):
                await killed(expert)
            files, threads, children = left_behind()
            assert (files, threads, len(children)) <= (before[0], before[1], len(before[2]))

    asyncio.run(main())


def test_a_model_that_is_missing_or_damaged_leaves_nothing_behind(tmp_path: Path) -> None:
    need()
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(5000))

    async def main() -> None:
        before = left_behind()
        for name in ("bad.gguf", "none.gguf"):
            async with local(tmp_path / name) as expert:
                for _ in range(3):
                    with pytest.raises(UnavailableError):
                        await read(expert, ask())
                assert expert.failed
        files, threads, children = left_behind()
        assert (files, len(children)) <= (before[0], len(before[2]))
        assert threads <= before[1] + 1

    asyncio.run(main())


class Fake:
    """A child whose process is this one, behind a server that plays it."""

    key = "k"
    alive = True

    def __init__(self, url: str) -> None:
        self.url = url
        self.pid = os.getpid()

    async def died(self) -> bool:
        return False

    async def kill(self) -> None: ...

    async def stop(self) -> None: ...


def test_thousands_of_requests_leave_no_objects_behind() -> None:
    usage = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1},"timings":{"prompt_ms":1}}'
    answer = sse(delta("a"), delta(finish="stop"), usage)

    async def main() -> tuple[int, int]:
        async with upstream(answer) as server, Client(keep=False) as client:

            async def start(name: str, model: Model) -> Process:
                return Fake(server.url.removesuffix("/v1"))

            expert = Local(
                CARD, Model(Path("x")), lambda url, key: OpenAI(CARD, url, client, key), client, start
            )

            async def objects_after(requests: int) -> int:
                for _ in range(requests):
                    assert await text_of(expert, ask()) == "a"
                server.bodies.clear()
                server.heads.clear()
                gc.collect()
                return len(gc.get_objects())

            await objects_after(100)
            return await objects_after(100), await objects_after(1000)

    before, after = asyncio.run(main())
    assert after - before < 500  # half an object a request would be more


def test_thousands_of_samples_leave_no_objects_behind() -> None:
    usage = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1},"timings":{"prompt_ms":1}}'
    answer = sse(delta("a", finish="stop"), delta("b", finish="stop", index=1), usage, usage)

    async def main() -> tuple[int, int]:
        async with upstream([plain(b'{"input_tokens":9}')], answer) as server, Client(keep=False) as client:

            async def start(name: str, model: Model) -> Process:
                return Fake(server.url.removesuffix("/v1"))

            expert = Local(
                CARD, Model(Path("x")), lambda url, key: OpenAI(CARD, url, client, key), client, start
            )

            async def objects_after(requests: int) -> int:
                for _ in range(requests):
                    server.replies[:] = [[plain(b'{"input_tokens":9}')], answer]
                    assert (await expert.sample(ask(), 2)).texts == ("a", "b")
                server.bodies.clear()
                server.heads.clear()
                gc.collect()
                return len(gc.get_objects())

            await objects_after(100)
            return await objects_after(100), await objects_after(1000)

    before, after = asyncio.run(main())
    assert after - before < 500
