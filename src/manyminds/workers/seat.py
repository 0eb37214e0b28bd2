"""A worker's place among the others: what it shares with them, and its line to the supervisor."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from manyminds.board import Board
from manyminds.errors import UnavailableError
from manyminds.experts.child import Model, Process
from manyminds.node import Shared
from manyminds.workers.channel import Channel

__all__ = ["Seat"]


class Seat:
    """`open` begins to listen to the supervisor; whoever runs the worker sets the callables before.

    Attributes:
        number: which worker it is, from 0 on; a replaced one's is taken over.
        column: where it counts on the board.
        owner: as whom it holds something there; nobody else's ever.
        ending: set when it shall end, also where the supervisor has died.
        hurrying: set when what it still answers shall be broken off.
        snapshot: its figures.
        release: gives back what is unspent of a key's budget.
        reload: reads the configuration anew.
    """

    def __init__(self, number: int, column: int, owner: int, board: int, channel: int, listener: int) -> None:
        self.number = number
        self.column = column
        self.owner = owner
        self.board = Board(board)
        self.listener = socket.socket(fileno=listener)
        self.ending = asyncio.Event()
        self.hurrying = asyncio.Event()
        self.snapshot: Callable[[], bytes] = bytes
        self.release: Callable[[str], Awaitable[None]] = _nothing
        self.reload: Callable[[], None] = lambda: None
        self._lent: dict[int, _Lent] = {}  # by process id
        self._asking: dict[asyncio.Future[Any], str] = {}  # for the models of these names
        os.set_inheritable(board, False)
        self._channel = Channel(socket.socket(fileno=channel), self._handlers())
        self._hearing: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, fields: Mapping[str, int]) -> "Seat":
        """Of what the supervisor wrote on the command line. In a running loop."""
        return cls(**fields)

    @property
    def shared(self) -> Shared:
        """What its node shares with theirs."""
        return Shared(self.board, self.column, self.owner, self.start, self.recall, tidies=self.number == 0)

    async def open(self) -> None:
        self._hearing = await self._channel.open()
        self._hearing.add_done_callback(lambda _: self.ending.set())

    async def close(self) -> None:
        """Leaves its figures to the supervisor."""
        with suppress(UnavailableError):  # it is dead
            await self._channel.ask("last", self.snapshot())
        if self._hearing is not None:
            self._hearing.cancel()
            await asyncio.gather(self._hearing, return_exceptions=True)

    # --- to the supervisor ---

    def listens(self) -> None:
        self._channel.tell("listening")

    def is_ready(self, names: list[str], ready: bool) -> None:
        """All is loaded: whom it can ask, and whether it should be asked."""
        self._channel.tell("ready", names, ready)

    def leaves(self) -> None:
        """It takes no more requests, and ends: another one may take its place."""
        self._channel.tell("leaving")

    async def fail(self, message: str) -> None:
        """Says why it cannot start."""
        await self._channel.ask("failed", message)

    async def figures(self) -> list[bytes]:
        """Everybody's snapshots, those that have ended included."""
        own = self.snapshot()
        try:
            return [own, *await self._channel.ask("figures", own)]
        except UnavailableError:
            return [own]

    async def recall(self, key_id: str) -> None:
        """See `admission.Recall`."""
        with suppress(UnavailableError):
            await self._channel.ask("recall", key_id)

    async def start(self, name: str, model: Model) -> Process:
        """The child that all workers share; see `Child.start`."""
        fields = asdict(model) | {"path": str(model.path)}
        asking = asyncio.ensure_future(self._channel.ask("lend", name, fields))
        self._asking[asking] = name
        asking.add_done_callback(self._asking.pop)
        try:
            url, key, pid = await asyncio.shield(asking)
        except asyncio.CancelledError:  # it is lent all the same
            asking.add_done_callback(lambda _: self._give_back(name, asking))
            raise
        lent = self._lent.get(pid)
        if lent is None:
            lent = self._lent[pid] = _Lent(url, key, pid, self._channel)
        return lent

    def _give_back(self, name: str, asked: "asyncio.Future[Any]") -> None:
        """What nobody waits for any longer, unless it has been asked for once more."""
        if not asked.cancelled() and asked.exception() is None and name not in self._asking.values():
            self._channel.tell("give_back", asked.result()[2])

    # --- from the supervisor ---

    def _handlers(self) -> dict[str, Any]:
        async def end() -> None:
            self.ending.set()

        async def hurry() -> None:
            self.hurrying.set()

        async def reload() -> None:
            self.reload()

        async def gone(pid: int) -> None:
            if (lent := self._lent.pop(pid, None)) is not None:
                lent.alive = False

        async def snapshot() -> bytes:
            return self.snapshot()

        async def release(key_id: str) -> None:
            await self.release(key_id)

        return {word.__name__: word for word in (end, hurry, reload, gone, snapshot, release)}


class _Lent:
    """See `experts.child.Process`."""

    def __init__(self, url: str, key: str, pid: int, channel: Channel) -> None:
        self.url = url
        self.key = key
        self.pid = pid
        self.alive = True  # as far as the supervisor has said
        self._channel = channel

    async def died(self) -> bool:
        with suppress(UnavailableError):
            if await self._channel.ask("died", self.pid):
                self.alive = False
        return not self.alive

    async def kill(self) -> None:
        self.alive = False
        await self._channel.ask("kill", self.pid)

    async def stop(self) -> None:
        """It is the supervisor's, who ends it when no worker needs it."""
        with suppress(UnavailableError):
            await self._channel.ask("give_back", self.pid)


async def _nothing(key_id: str) -> None:
    pass
