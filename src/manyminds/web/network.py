"""Endpoints for other nodes: this node's card, what they ask, and what they say besides. Knows no answer."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from manyminds.errors import RateLimitError
from manyminds.network.ask import ASK_BYTES
from manyminds.network.http import ASK_PATH, CARD_PATH, TELL_PATH, event
from manyminds.network.transport import Answer, Tell, unpack
from manyminds.web.exchange import Exchange
from manyminds.web.replies import JSON, named, new_id

__all__ = ["NetworkEdge"]

_TOLD_BYTES = 40_000
_COMING = 64  # asks at once whose bodies are on their way: nobody knows yet whose they are
_STREAM = (
    b"content-type: text/event-stream\r\ncache-control: no-store\r\n"
    b"x-accel-buffering: no\r\n"  # nginx would gather events otherwise
)


@dataclass(frozen=True, slots=True)
class NetworkEdge:
    """What other nodes find here: see `network.answering.Answering`.

    `card` is this node's, signed; `answer` answers what is asked, frame by frame; `tell` hears what is said
    besides; `coming` are asks that are being read.
    """

    card: Callable[[], bytes]
    answer: Answer
    tell: Tell
    coming: set[Exchange] = field(default_factory=set)

    @property
    def gets(self) -> dict[str, Callable[[], Awaitable[tuple[int, bytes, bytes]]]]:
        """What is shown, by path."""
        return {CARD_PATH: self.shown}

    @property
    def posts(self) -> dict[str, Callable[[Exchange], Coroutine[Any, Any, None]]]:
        """What is heard, by path."""
        return {ASK_PATH: self.ask, TELL_PATH: self.told}

    async def ask(self, exchange: Exchange) -> None:
        """See `connection.Serve`. Raises: ManymindsError before anything is sent."""
        if len(self.coming) >= _COMING:
            raise RateLimitError("Too many asks are on their way in: ask again soon.", retry_after_s=1.0)
        self.coming.add(exchange)
        try:
            sealed = await exchange.body(ASK_BYTES)
        finally:
            self.coming.discard(exchange)

        def send(frame: bytes, last: bool) -> None:
            if exchange.gone or exchange.ended:
                return
            if not exchange.began:
                exchange.begin(200, named(new_id()) + _STREAM)
            exchange.write(event(frame, last=last), last=last)

        await self.answer(sealed, send)

    async def told(self, exchange: Exchange) -> None:
        """See `connection.Serve`."""
        self.tell(*unpack(await exchange.body(_TOLD_BYTES)))
        exchange.reply(204, named(new_id()), b"")

    async def shown(self) -> tuple[int, bytes, bytes]:
        """The card."""
        return 200, named(new_id()) + JSON + b"cache-control: max-age=60\r\n", self.card()
