"""Local models that several ask for: real processes."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from manyminds.errors import UnavailableError
from manyminds.experts.child import Model
from manyminds.workers.models import Models
from tests.experts.test_local import NAME, PATH, has_ended, need

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


def test_one_process_for_all_and_another_when_it_died() -> None:
    need()
    gone: list[tuple[str, int]] = []

    async def main() -> None:
        models, model = Models(lambda name, pid: gone.append((name, pid))), Model(PATH, context_tokens=512)
        leaving = asyncio.create_task(models.lend(NAME, model))
        await asyncio.sleep(0)
        leaving.cancel()  # the load goes on
        first, second = await asyncio.gather(models.lend(NAME, model), models.lend(NAME, model))
        assert first is second
        os.kill(first.pid, signal.SIGKILL)
        assert await models.died(NAME, first.pid)
        third = await models.lend(NAME, model)
        assert third.pid != first.pid
        await models.kill(NAME, first.pid)  # of which nothing is left
        assert third.alive
        os.kill(third.pid, signal.SIGSTOP)
        await models.kill(NAME, third.pid)
        fourth = await models.lend(NAME, model)
        await models.close()
        assert has_ended(fourth.pid)
        assert gone == [(NAME, child.pid) for child in (first, third, fourth)]

    asyncio.run(main())


def test_a_model_that_cannot_be_loaded_is_not_tried_for_each_who_asks(tmp_path: Path) -> None:
    async def main() -> None:
        models, file = Models(lambda name, pid: None), tmp_path / "m.gguf"
        for _ in range(2):
            asked = [models.lend("m", Model(file)) for _ in range(4)]
            for error in await asyncio.gather(*asked, return_exceptions=True):
                assert isinstance(error, UnavailableError)
                assert "m is not on this machine" in error.message
            file.write_bytes(b"GGUF")  # what is wrong with it is not looked at yet
        await models.close()

    asyncio.run(main())
