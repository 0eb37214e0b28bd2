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
from tests.experts.models import NAME, PATH, has_ended, need

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


def test_one_process_for_all_and_another_when_it_died() -> None:
    need()
    gone: list[int] = []

    async def main() -> None:
        models, model = Models(gone.append), Model(PATH, context_tokens=512)
        leaving = asyncio.create_task(models.lend(1, NAME, model))
        await asyncio.sleep(0)
        leaving.cancel()  # the load goes on
        first, second = await asyncio.gather(models.lend(1, NAME, model), models.lend(1, NAME, model))
        assert first is second
        os.kill(first.pid, signal.SIGKILL)
        assert await models.died(first.pid)
        third = await models.lend(1, NAME, model)
        assert third.pid != first.pid
        await models.kill(first.pid)  # of which nothing is left
        assert third.alive
        os.kill(third.pid, signal.SIGSTOP)
        await models.kill(third.pid)
        fourth = await models.lend(1, NAME, model)
        await models.close()
        assert has_ended(fourth.pid)
        assert gone == [child.pid for child in (first, third, fourth)]

    asyncio.run(main())


def test_it_ends_when_nobody_needs_it_any_longer() -> None:
    need()

    async def main() -> None:
        models, model = Models(lambda pid: None), Model(PATH, context_tokens=512)
        other = Model(PATH, context_tokens=256)
        first, second = await asyncio.gather(models.lend(1, NAME, model), models.lend(2, NAME, other))
        assert first.pid != second.pid, "of the same name, and yet another model"
        assert await models.lend(2, NAME, model) is first
        await models.give_back(1, first.pid)
        await models.give_back(1, second.pid)  # which it does not have
        models.bury(2)
        models.bury(3)
        assert first.alive
        assert second.alive
        assert await models.lend(4, NAME, model) is first
        await models.give_back(4, first.pid)
        assert has_ended(first.pid)
        again = await models.lend(4, NAME, model)
        assert again.pid != first.pid
        os.kill(again.pid, signal.SIGKILL)
        assert await models.died(again.pid)
        again = await models.lend(5, NAME, model)  # 4 never asked for it
        await models.give_back(5, again.pid)
        assert has_ended(again.pid)
        again = await models.lend(4, NAME, model)
        await models.close()
        assert has_ended(again.pid)
        assert has_ended(second.pid)

    asyncio.run(main())


def test_a_model_that_cannot_be_loaded_is_not_tried_for_each_who_asks(tmp_path: Path) -> None:
    async def main() -> None:
        models, file = Models(lambda pid: None), tmp_path / "m.gguf"
        for _ in range(2):
            asked = [models.lend(1, "m", Model(file)) for _ in range(4)]
            for error in await asyncio.gather(*asked, return_exceptions=True):
                assert isinstance(error, UnavailableError)
                assert "m is not on this machine" in error.message
            file.write_bytes(b"GGUF")  # what is wrong with it is not looked at yet
        await models.close()

    asyncio.run(main())
