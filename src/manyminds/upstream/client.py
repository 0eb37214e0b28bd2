"""Opens connections and sends requests on them."""

import asyncio
import ssl
from types import TracebackType
from typing import Any, Self

from manyminds.upstream.connection import Connection, Pool, Response
from manyminds.upstream.errors import BrokenError, ConnectError, reason
from manyminds.upstream.target import Origin, Target

__all__ = ["Client"]

_MOST_KEPT = 256  # of one origin


class Client:
    """Sends requests. At the end of its `async with` all connections are closed.

    Args:
        connect_s: limit for opening a connection: name, TCP and TLS together.
        keep: whether connections are kept for later requests.
    """

    def __init__(self, connect_s: float = 5.0, *, keep: bool = True) -> None:
        self._connect_s = connect_s
        self._framing = b"" if keep else b"connection: close\r\n"
        self._pool = Pool(_MOST_KEPT if keep else 0)
        self._tls: ssl.SSLContext | None = None

    @property
    def closed(self) -> bool:
        return self._pool.closed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Breaks off what is under way, and returns when every connection is closed."""
        await self._pool.aclose()

    async def get(self, target: Target) -> Response:
        """Like `post`, without a body."""
        return await self._ask(target, b"".join((b"GET ", target.head, self._framing, b"\r\n")))

    async def post(self, target: Target, body: bytes) -> Response:
        """The reply, once its head has come.

        Where a kept connection breaks before a byte of it, the request is sent once more on a new one;
        never where a new one broke: what is paid for may have been done.

        Raises: ConnectError, BrokenError, ProtocolError.
        """
        framing = b"%bcontent-length: %d\r\n\r\n" % (self._framing, len(body))
        return await self._ask(target, b"".join((b"POST ", target.head, framing, body)))

    async def _ask(self, target: Target, request: bytes) -> Response:
        kept = self._pool.take(target.origin)
        if kept is not None:
            response = kept.ask(request)
            try:
                await response.begun()
            except BrokenError:
                if kept.heard:
                    raise
            else:
                return response
        response = (await self._connect(target.origin)).ask(request)
        await response.begun()
        return response

    async def _connect(self, origin: Origin) -> Connection:
        scheme, host, port = origin
        secured: dict[str, Any] = {}
        if scheme == "https":
            self._tls = self._tls or ssl.create_default_context()
            secured = {"ssl": self._tls, "server_hostname": host}
        made = Connection(self._pool, origin)
        try:
            async with asyncio.timeout(self._connect_s):
                if not self.closed:
                    loop = asyncio.get_running_loop()
                    await loop.create_connection(lambda: made, host, port, **secured)
        except TimeoutError:
            raise ConnectError(f"no connection within {self._connect_s:g} s") from None
        except (OSError, ValueError) as error:  # ValueError: a name that no host can have
            raise ConnectError(reason(error)) from None
        if self.closed or made.closing:
            made.abort()
            raise ConnectError("the client is closed" if self.closed else "the connection was closed at once")
        self._pool.opened(made)  # not before: a loop may close it without a word when this is cancelled
        return made
