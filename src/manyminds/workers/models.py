"""The processes of the local models: each is started once, and lent to all workers. Knows no worker."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from manyminds.errors import UnavailableError
from manyminds.experts.child import Child, Model

__all__ = ["Models"]

_REST_S = 2.0  # after a model could not be loaded, for all who ask

log = logging.getLogger(__name__)


class Models:
    """Children by name. One that died is started anew for the first that asks.

    Args:
        gone: told of every child that has ended, by name and process id.
    """

    def __init__(self, gone: Callable[[str, int], None]) -> None:
        self._gone = gone
        self._children: dict[str, Child] = {}
        self._starting: dict[str, asyncio.Task[Child]] = {}
        self._failed: dict[str, tuple[float, str]] = {}  # until when, and what it said
        self._watching: set[asyncio.Task[None]] = set()

    async def lend(self, name: str, model: Model) -> Child:
        """The child of that name. Raises: UnavailableError with what to do.

        The load goes on when who asked for it leaves: others wait for it, too.
        """
        child = self._children.get(name)
        if child is not None and child.alive:
            return child
        until_s, said = self._failed.get(name, (0.0, ""))
        if time.monotonic() < until_s:
            raise UnavailableError(said)
        starting = self._starting.get(name)
        if starting is None:
            starting = self._starting[name] = asyncio.create_task(self._start(name, model))
            starting.add_done_callback(lambda _: self._starting.pop(name, None))
        return await asyncio.shield(starting)

    async def died(self, name: str, pid: int) -> bool:
        """Whether that process has ended, or does within a second."""
        child = self._children.get(name)
        return child is None or child.pid != pid or await child.died()

    async def kill(self, name: str, pid: int) -> None:
        """Ends that process, which does not listen; not another one that took its place."""
        child = self._children.get(name)
        if child is not None and child.pid == pid:
            await child.kill()

    async def close(self) -> None:
        """Ends all of them."""
        for starting in list(self._starting.values()):
            starting.cancel()
            with suppress(asyncio.CancelledError, UnavailableError):
                await starting
        await asyncio.gather(*(child.stop() for child in self._children.values()))
        for watching in list(self._watching):
            await watching

    async def _start(self, name: str, model: Model) -> Child:
        try:
            child = await Child.start(name, model)
        except UnavailableError as error:
            self._failed[name] = (time.monotonic() + _REST_S, error.message)
            raise
        self._children[name] = child
        watching = asyncio.create_task(self._watch(name, child))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)
        return child

    async def _watch(self, name: str, child: Child) -> None:
        await child.ended()
        self._gone(name, child.pid)
