"""An event loop whose clock jumps: a sleep of an hour returns at once, and order is as it would be."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Instead of waiting for `timeout`, moves the clock on by it when no file is ready."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            return super().select(1.0)  # only threads or files can wake us
        if not ready and timeout and timeout > 0:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time. Not for real sockets, whose peers keep real time."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """At once, in this thread: a thread's time is not virtual, and the clock would jump past it."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def run(coro: Coroutine[Any, Any, T]) -> T:
    """Runs to the end in virtual time; fails when a task is left behind."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:

        async def alone() -> T:
            result = await coro
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks left behind: {left}"
            return result

        return runner.run(alone())
