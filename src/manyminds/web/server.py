"""Listens, and ends in good order. Knows no endpoint."""

import asyncio
import socket
import ssl
from typing import Final, cast

from manyminds.alarm import Alarm
from manyminds.web.connection import Connection, Serve

__all__ = ["Server", "room"]

_LATE_S: Final = 0.25  # that limits of time may be, so that thousands of connections cost little
_LAST_WORDS_S: Final = 2.0  # for what is told to those whose answers are broken off
_TLS_S: Final = 10.0  # to agree on encryption, and to end it
_FILES: Final = 65_536  # more than anybody needs: systems allow a billion, or less than they say
_OTHER_FILES: Final = 128  # ledger, log, models; half of the rest is for connections to experts
_MOST_OPEN: Final = 1024  # where nobody knows better


class Server:
    """Serves connections that come in on a socket, each by `serve`.

    At most `most_open` at a time. For a further one, the one is closed that has waited longest for a request;
    where none waits, the new one is.
    """

    def __init__(self, serve: Serve, most_open: int = _MOST_OPEN) -> None:
        self._serve = serve
        self._most_open = most_open
        self._alarm = Alarm(late_s=_LATE_S)
        self._open: set[Connection] = set()
        self._listening: list[asyncio.Server] = []

    async def listen(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Begins to take connections; returns at once. The socket is closed by `close`."""
        limit_s = None if tls is None else _TLS_S
        made = await asyncio.get_running_loop().create_server(
            self._connection,
            sock=listener,
            ssl=tls,
            backlog=2048,
            ssl_handshake_timeout=limit_s,
            ssl_shutdown_timeout=limit_s,
        )
        self._listening.append(made)

    async def close(self, drain_s: float) -> None:
        """Takes no more connections or requests, and lets answers under way come to their end.

        Those that have not after `drain_s` are cancelled, and told so; returns when all have ended.
        """
        for listening in self._listening:
            listening.close()
        for connection in list(self._open):
            connection.close()
        await self._emptied(drain_s)
        for connection in list(self._open):
            connection.break_off()
        await self._emptied(_LAST_WORDS_S)
        for connection in list(self._open):
            connection.abort()
        await self._emptied(_LAST_WORDS_S)

    async def _emptied(self, most_s: float) -> None:
        """Returns when no connection is open, or after `most_s`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + most_s
        while self._open and loop.time() < until:  # noqa: ASYNC110 - nobody waits but at the end
            await asyncio.sleep(0.02)

    def _connection(self) -> asyncio.Protocol:
        if len(self._open) < self._most_open or self._closed_one():
            return Connection(self._serve, self._alarm, self._open)
        return _Refused()

    def _closed_one(self) -> bool:
        for waiting in self._alarm.keys:
            if isinstance(waiting, Connection):
                waiting.close()
                return True
        return False


class _Refused(asyncio.Protocol):
    """A connection that there is no room for."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()


def room() -> int:
    """Has the system allow this process more open files; how many connections go well with that."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return _MOST_OPEN
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except (OSError, ValueError):  # macOS has another limit besides
            most = soft
    return max(16, (most - _OTHER_FILES) // 2)
