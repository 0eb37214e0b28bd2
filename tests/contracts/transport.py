"""What a way to other nodes owes to both ends of it, as checks that every kind goes through.

A maker is an async context manager that yields a fresh `Subject`. A check raises AssertionError.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from manyminds.errors import AskError, ExpertError
from manyminds.network.transport import Send, Transport

__all__ = ["CHECKS", "Maker", "Station", "Subject"]

PROMPT_S = 20.0  # far beyond what anything here takes, so that only what hangs passes it
ASK_ID = "A" * 22  # as long as an ask's id is


@dataclass
class Station:
    """Answers as the ask says: `count N SIZE` sends so many frames, `hang` sends one, `refuse` none."""

    asks: list[bytes] = field(default_factory=list)
    told: "asyncio.Queue[tuple[str, bytes]]" = field(default_factory=asyncio.Queue)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, sealed: bytes, send: Send) -> None:
        self.asks.append(sealed)
        what, *numbers = sealed.split()[:3]
        if what == b"refuse":
            raise AskError("It is not sealed to this node.")
        if what == b"hang":
            send(b"begun", False)
            self.begun.set()
            try:
                await asyncio.sleep(1000)
            finally:
                self.stopped.set()
        count, size = map(int, numbers)
        for i in range(count):
            send(b"%d:" % i + b"x" * size, i == count - 1)
            if i % 10 == 9:
                await asyncio.sleep(0)

    def tell(self, ask_id: str, sealed: bytes) -> None:
        self.told.put_nowait((ask_id, sealed))


@dataclass(frozen=True)
class Subject:
    """A way under test.

    Attributes:
        transport: of who asks; node: who answers, with its `station`.
        show: has that node show a card.
        vanish: ends that node.
        noise: puts on the wire what is of no protocol.
    """

    transport: Transport
    node: str
    station: Station
    show: Callable[[bytes], Awaitable[None]]
    vanish: Callable[[], Awaitable[None]]
    noise: Callable[[], Awaitable[None]]


Maker: TypeAlias = Callable[[], AbstractAsyncContextManager[Subject]]


async def frames(subject: Subject, ask: bytes) -> list[bytes]:
    async with asyncio.timeout(PROMPT_S), aclosing(subject.transport.ask(subject.node, ask)) as stream:
        return [frame async for frame in stream]


def expected(count: int, size: int) -> list[bytes]:
    return [b"%d:" % i + b"x" * size for i in range(count)]


async def seen(subject: Subject, card: bytes) -> None:
    """Returns when the node was seen with that card; or, without one, as having gone."""
    async with asyncio.timeout(PROMPT_S), aclosing(subject.transport.watch()) as sightings:
        async for sighting in sightings:
            if sighting.node == subject.node and sighting.card == card:
                return


# --- asks ------------------------------------------------------------------------------------------


async def check_frames_come_in_order(make: Maker) -> None:
    async with make() as subject:
        for count, size in ((1, 0), (100, 10), (3, 500_000)):
            assert await frames(subject, b"count %d %d" % (count, size)) == expected(count, size)


async def check_asks_come_as_they_were_sent(make: Maker) -> None:
    async with make() as subject:
        asks = [b"count 1 1 " + bytes(range(256)), b"count 1 1 " + b"x" * 2_000_000]
        for ask in asks:
            assert await frames(subject, ask) == expected(1, 1)
        assert subject.station.asks == asks


async def check_asks_at_once_do_not_mix(make: Maker) -> None:
    async with make() as subject:
        found = await asyncio.gather(*(frames(subject, b"count %d %d" % (i + 1, i)) for i in range(20)))
        assert found == [expected(i + 1, i) for i in range(20)]


async def check_an_ask_that_is_refused_ends(make: Maker) -> None:
    async with make() as subject:
        with suppress(ExpertError):
            assert await frames(subject, b"refuse") == []
        assert subject.station.asks == [b"refuse"]
        assert await frames(subject, b"count 1 0") == expected(1, 0)


async def check_a_node_that_is_not_there_does_not_answer(make: Maker) -> None:
    async with make() as subject:
        found: list[bytes] = []
        with suppress(ExpertError):
            async with asyncio.timeout(PROMPT_S), aclosing(subject.transport.ask("a" * 32, b"x")) as stream:
                found = [frame async for frame in stream]
        assert found == []
        assert subject.station.asks == []


async def check_what_is_told_arrives(make: Maker) -> None:
    async with make() as subject:
        said = [bytes([i]) * i for i in range(10)]
        for what in said:
            subject.transport.tell(subject.node, ASK_ID, what)
        async with asyncio.timeout(PROMPT_S):
            assert [await subject.station.told.get() for _ in said] == [(ASK_ID, what) for what in said]


async def check_who_stops_is_noticed_or_can_tell(make: Maker) -> None:
    async with make() as subject:
        stream = subject.transport.ask(subject.node, b"hang")
        async with asyncio.timeout(PROMPT_S):
            assert await anext(stream) == b"begun"
            await stream.aclose()
            if subject.transport.notices:
                await subject.station.stopped.wait()
            else:
                subject.transport.tell(subject.node, ASK_ID, b"stop")
                assert await subject.station.told.get() == (ASK_ID, b"stop")


async def check_a_cancelled_reader_ends(make: Maker) -> None:
    async with make() as subject:
        task = asyncio.create_task(frames(subject, b"hang"))
        async with asyncio.timeout(PROMPT_S):
            await subject.station.begun.wait()
            task.cancel()
            await asyncio.wait({task})
        assert task.cancelled()
        assert await frames(subject, b"count 2 0") == expected(2, 0)


async def check_noise_on_the_wire_changes_nothing(make: Maker) -> None:
    async with make() as subject:
        await subject.noise()
        assert await frames(subject, b"count 5 5") == expected(5, 5)
        subject.transport.tell(subject.node, ASK_ID, b"told")
        async with asyncio.timeout(PROMPT_S):
            while await subject.station.told.get() != (ASK_ID, b"told"):
                pass
        assert b"count 5 5" in subject.station.asks


# --- sightings -------------------------------------------------------------------------------------


async def check_a_card_is_seen_and_its_change(make: Maker) -> None:
    async with make() as subject:
        for card in (b"first card", b"second card"):
            await subject.show(card)
            await seen(subject, card)
        assert subject.station.asks == []


async def check_a_node_that_vanishes_is_seen_to_have_gone(make: Maker) -> None:
    async with make() as subject:
        await subject.show(b"card")
        await seen(subject, b"card")
        await subject.vanish()
        await seen(subject, b"")
        found: list[bytes] = []
        with suppress(ExpertError):
            found = await frames(subject, b"count 1 0")
        assert found == []


CHECKS: dict[str, Callable[[Maker], Coroutine[Any, Any, None]]] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}
