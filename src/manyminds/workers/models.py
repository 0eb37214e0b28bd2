"""The processes of the local models: each is started once, and lent to all workers. Knows no worker."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from manyminds.errors import UnavailableError
from manyminds.experts.child import Child, Model

__all__ = ["Models"]

_REST_S = 2.0  # after a model could not be loaded, for all who ask

_What: TypeAlias = tuple[str, Model]


class Models:
    """Children by name and model. One that died is started anew for the first that asks.

    Args:
        gone: told of every child that has ended, by process id.
    """

    def __init__(self, gone: Callable[[int], None]) -> None:
        self._gone = gone
        self._children: dict[_What, Child] = {}
        self._owners: dict[_What, set[int]] = {}  # to whom it is lent
        self._starting: dict[_What, asyncio.Task[Child]] = {}
        self._failed: dict[_What, tuple[float, str]] = {}  # until when, and what it said
        self._watching: set[asyncio.Task[None]] = set()

    async def lend(self, owner: int, name: str, model: Model) -> Child:
        """The child of that name. Raises: UnavailableError with what to do.

        The load goes on when who asked for it leaves: others wait for it, too.
        """
        what = name, model
        child = self._children.get(what)
        if child is not None and child.alive:
            self._owners[what].add(owner)
            return child
        until_s, said = self._failed.get(what, (0.0, ""))
        if time.monotonic() < until_s:
            raise UnavailableError(said)
        starting = self._starting.get(what)
        if starting is None:
            starting = self._starting[what] = asyncio.create_task(self._start(what))
            starting.add_done_callback(lambda _: self._starting.pop(what, None))
            self._owners[what] = set()  # who had the one before asks for this one, too
        self._owners[what].add(owner)
        return await asyncio.shield(starting)

    async def give_back(self, owner: int, pid: int) -> None:
        """Who had it does not need that process any longer. It ends when nobody does."""
        for what, child in list(self._children.items()):
            if child.pid == pid:
                self._owners[what].discard(owner)
                if not self._owners[what]:
                    del self._children[what], self._owners[what]
                    await child.stop()

    def bury(self, owner: int) -> None:
        """Who had some has died. They live on, for who comes in its place."""
        for owners in self._owners.values():
            owners.discard(owner)

    async def died(self, pid: int) -> bool:
        """Whether that process has ended, or does within a second."""
        child = self._by(pid)
        return child is None or await child.died()

    async def kill(self, pid: int) -> None:
        """Ends that process, which does not listen; not another one that took its place."""
        child = self._by(pid)
        if child is not None:
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

    def _by(self, pid: int) -> Child | None:
        return next((child for child in self._children.values() if child.pid == pid), None)

    async def _start(self, what: _What) -> Child:
        try:
            child = await Child.start(*what)
        except UnavailableError as error:
            self._failed[what] = (time.monotonic() + _REST_S, error.message)
            raise
        self._children[what] = child
        watching = asyncio.create_task(self._watch(child))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)
        return child

    async def _watch(self, child: Child) -> None:
        await child.ended()
        self._gone(child.pid)
