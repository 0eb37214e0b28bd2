"""Listens, and ends in good order. Knows no endpoint."""

import asyncio
import socket
import ssl

from manyminds.alarm import Alarm
from manyminds.web.connection import Connection, Serve

__all__ = ["Server"]

_LAST_WORDS_S = 2.0  # for what is told to those whose answers are broken off


class Server:
    """Serves connections that come in on a socket, each by `serve`."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._alarm = Alarm()
        self._open: set[Connection] = set()
        self._listening: list[asyncio.Server] = []

    async def listen(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Begins to take connections; returns at once. The socket is closed by `close`."""
        loop = asyncio.get_running_loop()
        made = await loop.create_server(
            lambda: Connection(self._serve, self._alarm, self._open), sock=listener, ssl=tls, backlog=2048
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
            for task in connection.tasks:
                task.cancel()
        await self._emptied(_LAST_WORDS_S)
        for connection in list(self._open):
            connection.abort()
        await self._emptied(_LAST_WORDS_S)

    async def _emptied(self, most_s: float) -> None:
        """Returns when no connection is open, or after `most_s`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + most_s
        while self._open and loop.time() < until:
            await asyncio.sleep(0.02)
