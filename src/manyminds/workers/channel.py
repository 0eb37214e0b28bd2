"""What the supervisor and a worker say to each other, over a socket pair. Knows none of the words.

Frames are a length and MessagePack: [kind, number, ...]. What is asked is answered, or ends with the channel.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from manyminds.errors import ManymindsError, UnavailableError

__all__ = ["Channel", "Handler"]

Handler: TypeAlias = Callable[..., Awaitable[Any]]
"""Takes what comes with a word, and gives the answer. What it raises as ManymindsError is told."""

_TELL, _ASK, _ANSWER, _ERROR, _DROP = range(5)
_MOST_BYTES: Final = 64_000_000  # of a frame: figures of very many experts are far below

log = logging.getLogger(__name__)


class Channel:
    """One end. Both ends tell, ask and answer.

    Args:
        sock: this end of a socket pair, closed with the channel.
        handlers: by word. An answer that is no longer wanted is cancelled.
    """

    def __init__(self, sock: socket.socket, handlers: Mapping[str, Handler]) -> None:
        self._sock = sock
        self._handlers = handlers
        self._writer: asyncio.StreamWriter | None = None
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._answering: dict[int, asyncio.Task[None]] = {}
        self._told: set[asyncio.Task[None]] = set()
        self._count = 0
        self._open = False

    async def open(self) -> "asyncio.Task[None]":
        """Begins. The task ends when the other end is closed, or dies; cancelled, it closes this one."""
        reader, self._writer = await asyncio.open_unix_connection(sock=self._sock)
        self._open = True
        return asyncio.create_task(self._run(reader))

    async def _run(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4))
                if size > _MOST_BYTES:
                    raise ConnectionError(f"a frame of {size} bytes")
                self._take(msgspec.msgpack.decode(await reader.readexactly(size)))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Ends it. Who waits for an answer gets an error."""
        self._open = False
        if self._writer is not None:
            self._writer.close()
        for task in (*self._answering.values(), *self._told):
            task.cancel()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(_gone())
        self._asked.clear()

    def tell(self, word: str, *what: Any) -> None:
        """Says something that needs no answer. To nobody, once the channel has ended."""
        self._send([_TELL, 0, word, what])

    async def ask(self, word: str, *what: Any) -> Any:
        """Waits for the answer; cancelled, it is no longer wanted.

        Raises: UnavailableError: with what the other end says, or where it is gone.
        """
        if not self._open:
            raise _gone()
        self._count += 1
        number = self._count
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        self._send([_ASK, number, word, what])
        try:
            return await future
        finally:
            if self._asked.pop(number, None) is not None and future.cancelled():
                self._send([_DROP, number])

    def _send(self, frame: list[Any]) -> None:
        if self._open and self._writer is not None:
            raw = msgspec.msgpack.encode(frame)
            self._writer.write(len(raw).to_bytes(4) + raw)

    def _take(self, frame: list[Any]) -> None:
        kind, number, *rest = frame
        if kind == _TELL:
            task = asyncio.ensure_future(self._heed(*rest))
            self._told.add(task)
            task.add_done_callback(self._told.discard)
        elif kind == _ASK:
            task = asyncio.ensure_future(self._answer(number, *rest))
            self._answering[number] = task
            task.add_done_callback(lambda _: self._answering.pop(number, None))
        elif kind == _DROP:
            if (dropped := self._answering.get(number)) is not None:
                dropped.cancel()
        elif (future := self._asked.get(number)) is not None and not future.done():
            if kind == _ANSWER:
                future.set_result(rest[0])
            else:
                future.set_exception(UnavailableError(rest[0]))

    async def _heed(self, word: str, what: list[Any]) -> None:
        try:
            await self._handlers[word](*what)
        except Exception:
            log.exception("%r went wrong", word)

    async def _answer(self, number: int, word: str, what: list[Any]) -> None:
        try:
            found = await self._handlers[word](*what)
        except ManymindsError as error:
            self._send([_ERROR, number, error.message])
        except Exception as error:
            log.exception("%r went wrong", word)
            self._send([_ERROR, number, f"Something went wrong inside this node ({type(error).__name__})."])
        else:
            self._send([_ANSWER, number, found])


def _gone() -> UnavailableError:
    return UnavailableError("This node's processes have lost each other: it is ending.")
