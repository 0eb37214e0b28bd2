"""The process that looks after the workers: starts them, replaces those that die, and ends with the last.

It owns what must be there once: the address, the board, and the local models. Knows no request.
"""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from manyminds.board import Board
from manyminds.errors import ManymindsError
from manyminds.experts.child import Model
from manyminds.web.metrics import retired
from manyminds.workers.channel import Channel
from manyminds.workers.listeners import Listeners
from manyminds.workers.models import Models

__all__ = ["Supervisor"]

_GATHER_S: Final = 0.2  # for the figures of the others
_RECALL_S: Final = 4.0  # for what others give back of a budget: a disk may take its time
_END_S: Final = 5.0  # for a worker to end, after its answers have had their time
_LONG_S: Final = 10.0  # a worker that lived for as long did not die of its start
_WAIT_S: Final = (0.5, 10.0)  # before another try, from, doubled up to
_TRIES: Final = 5  # in a row, by one number while nobody listens

log = logging.getLogger(__name__)


class _Worker:
    """One process, and what it said of itself."""

    def __init__(self, number: int, column: int, owner: int, process: asyncio.subprocess.Process) -> None:
        self.number = number
        self.column = column
        self.owner = owner
        self.process = process
        self.channel: Channel
        self.began_s = time.monotonic()
        self.listening = False
        self.loaded = False
        self.failed = ""  # why it could not start
        self.figures = b""
        self.over = asyncio.Event()  # it takes no more requests


class Supervisor:
    """Keeps so many workers.

    Args:
        count: of workers, from 1 on.
        command: makes a worker's command line of what `Seat.of` takes.
        listeners: where they listen; closed with the first signal.
        drain_s: which a worker gives its answers under way when it is told to end.
        listening: called once, when all workers listen.
        ready: called once, when all have loaded, with the names of whom they can ask, and whether they should
            be asked.
    """

    def __init__(
        self,
        count: int,
        command: Callable[[Mapping[str, int]], Sequence[str]],
        listeners: Listeners,
        drain_s: float,
        listening: Callable[[], None],
        ready: Callable[[list[str], bool], None],
    ) -> None:
        self._count = count
        self._command = command
        self._listeners = listeners
        self._drain_s = drain_s
        self._listening: Callable[[], None] | None = listening
        self._ready: Callable[[list[str], bool], None] | None = ready
        self._board = Board.make(2 * count + 1)  # one that ends may still have answers under way
        self._columns = list(range(2 * count + 1))
        self._owners = 0
        self._workers: dict[int, _Worker] = {}  # by owner: all that live
        self._retired = b""  # figures of those that ended
        self._models = Models(self._gone)
        self._ending = asyncio.Event()
        self._problem: ManymindsError | None = None
        self._reaping: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Returns when it was told to end and all have ended.

        Raises: ManymindsError: the workers cannot be started.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.end)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        keeping = [asyncio.create_task(self._keep(number)) for number in range(self._count)]
        try:
            await self._ending.wait()
            await self._emptied(self._drain_s + _END_S)
        finally:
            for task in keeping:
                task.cancel()
            for worker in self._workers.values():
                log.warning("Worker %d (process %d) does not end: killed.", worker.number, worker.process.pid)
                worker.process.kill()
            await asyncio.gather(*keeping, *self._reaping, return_exceptions=True)
            await self._models.close()
            self._board.close()
        if self._problem is not None:
            raise self._problem

    def end(self) -> None:
        """Has all workers end once they have answered whom they are answering."""
        self._ending.set()
        self._listeners.close()
        self._tell("end")

    def reload(self) -> None:
        """Has all workers read the configuration anew."""
        self._tell("reload")

    def _interrupt(self) -> None:
        if self._ending.is_set():
            self._tell("hurry")
        self.end()

    def _tell(self, word: str, *what: Any) -> None:
        for worker in self._workers.values():
            worker.channel.tell(word, *what)

    async def _emptied(self, most_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                while self._reaping:
                    await asyncio.wait(self._reaping)

    # --- one place ---

    async def _keep(self, number: int) -> None:
        """Has a worker at this number, whatever becomes of those before."""
        failures = 0
        while not self._ending.is_set():
            worker = await self._start(number, sure=failures == 0)
            await worker.over.wait()
            if self._ending.is_set():
                return
            lived_s = time.monotonic() - worker.began_s
            failures = 0 if worker.listening and lived_s > _LONG_S else failures + 1
            if not worker.listening and (self._listening or (failures >= _TRIES and not self._serving())):
                self._give_up(worker)
                return
            if failures > 1 or not worker.listening:
                self._listeners.drop(number)  # else callers would wait for nobody
                wait_s = min(_WAIT_S[0] * 2 ** (failures - 1), _WAIT_S[1])
                why = worker.failed or "it ends soon after its start."
                log.error("Worker %d cannot be replaced: %s The next try is in %.1f s.", number, why, wait_s)
                await asyncio.sleep(wait_s)

    def _serving(self) -> bool:
        return any(worker.listening and not worker.over.is_set() for worker in self._workers.values())

    def _give_up(self, worker: _Worker) -> None:
        status = worker.process.returncode
        said = worker.failed or f"A worker ended with status {status} before it listened: see the log above."
        self._problem = self._problem or ManymindsError(said)
        self.end()

    async def _start(self, number: int, *, sure: bool) -> _Worker:
        """Where it is not sure to come up, callers go to others until it has."""
        ours, theirs = socket.socketpair()
        with theirs:
            listener, column = self._listeners.take(number, listening=sure), self._columns.pop(0)
            self._owners = owner = self._owners + 1
            seat = {
                "number": number,
                "column": column,
                "owner": owner,
                "board": self._board.fd,
                "channel": theirs.fileno(),
                "listener": listener.fileno(),
            }
            process = await asyncio.create_subprocess_exec(
                *self._command(seat),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=(seat["board"], seat["channel"], seat["listener"]),
                start_new_session=True,  # Ctrl-C is for the supervisor, which then ends its workers
            )
        worker = _Worker(number, column, owner, process)
        worker.channel = Channel(ours, self._handlers(worker))
        await worker.channel.open()
        self._workers[worker.owner] = worker
        reaping = asyncio.create_task(self._reap(worker))
        self._reaping.add(reaping)
        reaping.add_done_callback(self._reaping.discard)
        if self._ending.is_set():
            worker.channel.tell("end")
        return worker

    async def _reap(self, worker: _Worker) -> None:
        """Waits for its end, and takes back what it had."""
        status = await worker.process.wait()
        del self._workers[worker.owner]
        worker.channel.close()
        self._board.bury(worker.column, worker.owner)
        self._models.bury(worker.owner)
        self._columns.insert(0, worker.column)  # the next one there finds what it left
        if worker.figures:
            self._retired = retired([*filter(None, [self._retired]), worker.figures])
        if not self._ending.is_set():
            log.warning(
                "Worker %d (process %d) ended with status %d.", worker.number, worker.process.pid, status
            )
        worker.over.set()

    # --- what workers say ---

    def _handlers(self, worker: _Worker) -> dict[str, Any]:
        """By word; see `Seat`, which says them."""

        async def listening() -> None:
            worker.listening = True
            if (say := self._listening) is not None and self._all(lambda w: w.listening):
                self._listening = None
                say()

        async def ready(names: list[str], is_ready: bool) -> None:
            worker.loaded = True
            if (say := self._ready) is not None and self._all(lambda w: w.loaded):
                self._ready = None
                say(names, is_ready)

        async def leaving() -> None:
            worker.over.set()

        async def failed(message: str) -> None:
            worker.failed = message

        async def figures(own: bytes) -> list[bytes]:
            worker.figures = own
            return await self._gather(worker)

        async def last(own: bytes) -> None:
            worker.figures = own

        async def recall(key_id: str) -> None:
            await self._ask_others(worker, _RECALL_S, "release", key_id)

        async def lend(name: str, fields: dict[str, Any]) -> tuple[str, str, int]:
            model = Model(**fields | {"path": Path(fields["path"]), "stop": tuple(fields["stop"])})
            child = await self._models.lend(worker.owner, name, model)
            return child.url, child.key, child.pid

        async def give_back(pid: int) -> None:
            await self._models.give_back(worker.owner, pid)

        words = (listening, ready, leaving, failed, figures, last, recall, lend, give_back)
        return {word.__name__: word for word in words} | {
            "died": self._models.died,
            "kill": self._models.kill,
        }

    def _all(self, are: Callable[[_Worker], bool]) -> bool:
        return len(self._workers) >= self._count and all(map(are, self._workers.values()))

    async def _gather(self, worker: _Worker) -> list[bytes]:
        """Figures of all others. Of one that does not say them in time, those that it said before."""
        for other, own in await self._ask_others(worker, _GATHER_S, "snapshot"):
            other.figures = own
        others = [other.figures for other in self._workers.values() if other is not worker]
        return [found for found in (self._retired, *others) if found]

    async def _ask_others(
        self, worker: _Worker, budget_s: float, word: str, *what: Any
    ) -> list[tuple[_Worker, Any]]:
        """What all workers but this one answer in time."""
        others = [other for other in self._workers.values() if other is not worker and other.listening]
        asked = {asyncio.create_task(other.channel.ask(word, *what)): other for other in others}
        if not asked:
            return []
        try:
            done, _ = await asyncio.wait(asked, timeout=budget_s)
        finally:
            for task in asked:
                task.cancel()
        return [(asked[task], task.result()) for task in done if task.exception() is None]

    def _gone(self, pid: int) -> None:
        self._tell("gone", pid)
