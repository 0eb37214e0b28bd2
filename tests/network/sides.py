"""Two sides of a conversation between nodes in one process, and what can go wrong between them."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from manyminds.errors import ManymindsError, UnavailableError
from manyminds.experts.peer import Line, Peer
from manyminds.experts.scripted import Script, Scripted
from manyminds.network import jws
from manyminds.network.answering import Answering, Grant, Guest, Price
from manyminds.network.ask import Ask, Heard, Once, new_ask, open_ask
from manyminds.network.frames import Frame, Sealer
from manyminds.network.identity import Identity
from manyminds.network.transport import Sighting
from manyminds.types import Card, Chunk, Expert, Hold, Journey, Message, Query, Sampling

__all__ = ["ANN", "BOB", "EVE", "Asker", "Cut", "Memory", "Side", "heard_of", "own", "query", "speaks"]

ANN, BOB, EVE = (Identity.of_seed(bytes([i]) * 32) for i in range(3))

Bend = Callable[[int, bytes], Sequence[bytes]]
"""What arrives in the place of the i-th frame."""


class Cut(Exception):  # noqa: N818 - an end, not an error
    """Raised by a `Bend`: nothing arrives any more."""


class Memory:
    """Keeps the contract of `network.transport.Transport`, in order and at once but for what is bent.

    Args:
        answering: who answers, by node id.
        notices: whether who answers notices that nobody listens.
    """

    def __init__(self, answering: dict[str, Answering], *, notices: bool = False) -> None:
        self.notices = notices
        self.answering = answering
        self.bend: Bend = lambda _, frame: [frame]
        self.deaf = False  # nothing that is told arrives
        self.asked: list[bytes] = []
        self.told: list[tuple[str, str, bytes]] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def ask(self, node: str, sealed: bytes) -> AsyncGenerator[bytes, None]:
        self.asked.append(sealed)
        if node not in self.answering:
            raise UnavailableError(f"{node} cannot be reached.")
        frames: asyncio.Queue[bytes | None] = asyncio.Queue()
        task = asyncio.create_task(self._answered(node, sealed, frames))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        count = 0
        try:
            while (frame := await frames.get()) is not None:
                try:
                    arrives = self.bend(count, frame)
                except Cut:
                    return
                count += 1
                for one in arrives:
                    yield one
        finally:
            if self.notices:
                task.cancel()
                await asyncio.wait({task})

    async def _answered(self, node: str, sealed: bytes, frames: "asyncio.Queue[bytes | None]") -> None:
        def send(frame: bytes, last: bool) -> None:
            frames.put_nowait(frame)
            if last:
                frames.put_nowait(None)

        try:
            await self.answering[node].answer(sealed, send)
        except ManymindsError:
            frames.put_nowait(None)

    def tell(self, node: str, ask_id: str, sealed: bytes) -> None:
        self.told.append((node, ask_id, sealed))
        if not self.deaf and node in self.answering:
            self.answering[node].tell(ask_id, sealed)

    def announce(self, card: bytes) -> None:
        raise AssertionError("nobody is shown anything here")

    def watch(self) -> AsyncGenerator[Sighting, None]:
        raise AssertionError("nobody is seen here")

    async def idle(self) -> None:
        """Nobody answers any more."""
        while self.tasks:
            await asyncio.wait(self.tasks)


@dataclass
class Side:
    """A node that answers, by an expert."""

    identity: Identity = BOB
    expert: Expert = field(default_factory=lambda: Scripted(Card("bob", "scripted"), Script("one two three")))
    price: Price = field(default_factory=Price)
    kept: list[tuple[Any, ...]] = field(default_factory=list)  # receipt, signed, request; settled nats
    charged: list[float] = field(default_factory=list)
    admitted: list[tuple[Heard, Query, bool]] = field(default_factory=list)
    refuses: ManymindsError | None = None
    grant: Grant = field(default_factory=Grant)

    def __post_init__(self) -> None:
        def keep(*kept: Any) -> None:
            self.kept.append(kept)

        self.answering = Answering(self.identity, self._admit, keep, lambda: f"r{len(self.admitted)}")

    @asynccontextmanager
    async def _admit(self, heard: Heard, query: Query, by_https: bool) -> AsyncGenerator[Guest, None]:
        self.admitted.append((heard, query, by_https))
        if self.refuses is not None:
            raise self.refuses
        yield Guest(query, self.expert.stream, self.price, self.charged.append, self.grant)


class Purse:
    """Money that was put aside."""

    def __init__(self) -> None:
        self.spent_usd: float | None = None

    def settle(self, spent_usd: float) -> None:
        assert self.spent_usd is None
        self.spent_usd = spent_usd


class Asker:
    """Ann, who asks Bob: an expert, and what it noted."""

    def __init__(
        self,
        transport: Memory,
        identity: Identity = ANN,
        to: Identity = BOB,
        exchange: bytes | None = None,
        **card: Any,
    ) -> None:
        self.deeds: Counter[str] = Counter()
        self.strange = 0
        self.kept: list[tuple[Any, ...]] = []
        self.reserved: list[tuple[float, Purse]] = []
        self.broke: ManymindsError | None = None
        self.owing: list[tuple[str, float, Callable[[float], None]]] = []
        self.transport = transport
        self.card = Card("bob", "peer", source="bob", **card)
        line = Line(
            to.id,
            to.public,
            to.exchange if exchange is None else exchange,
            transport,
            identity,
            self._reserve,
            lambda *kept: self.kept.append(kept),
            lambda deed: self.deeds.update([deed]),
            self._strange,
            owing=lambda *owed: self.owing.append(owed),
        )
        self.peer = Peer(self.card, line)

    async def _reserve(self, usd: float) -> Hold | None:
        if self.broke is not None:
            raise self.broke
        self.reserved.append((usd, Purse()))
        return self.reserved[-1][1]

    def _strange(self) -> None:
        self.strange += 1

    async def chunks(self, one: Query | None = None) -> list[Chunk]:
        chunks = [chunk async for chunk in self.peer.stream(one or query())]
        await asyncio.sleep(0)  # what is done soon after the end
        return chunks

    async def text(self, one: Query | None = None) -> str:
        return "".join(chunk.text for chunk in await self.chunks(one))


def query(
    text: str = "2+2?", *, max_tokens: int | None = 48, journey: Journey | None = None, **more: Any
) -> Query:
    return Query(
        (Message("user", text),),
        sampling=Sampling(max_tokens=max_tokens),
        journey=journey,
        request_id="q",
        **more,
    )


def own(request: bytes = b'{"model":"auto","messages":[{"role":"user","content":"?"}]}', **more: Any) -> Ask:
    """An ask of Ann's that no `Peer` would make."""
    fields: dict[str, Any] = {"deadline_s": 9.0, "budget_usd": 1.0, "hops": 1, "visited": (ANN.id,)}
    return new_ask(ANN, BOB.id, request, **(fields | more))


def heard_of(by: Identity, to: Identity, visited: tuple[str, ...] = ()) -> Heard:
    """An ask that was opened."""
    made = new_ask(by, to.id, b"{}", deadline_s=9.0, budget_usd=0.0, hops=1, visited=(*visited, by.id))
    return Heard(made, by.id, by.public, jws.from_base64url(made.reply_key))


def speaks(frames: Callable[[Heard, Sealer], Sequence[bytes | Frame]]) -> Memory:
    """A way to a node that answers Bob's asks as it likes, having opened them; then it says no more."""

    class Liar(Answering):
        async def answer(
            self, sealed: bytes, send: Callable[[bytes, bool], None], *, by_https: bool = False
        ) -> None:
            heard = open_ask(BOB, sealed, Once())
            sealer = Sealer(jws.from_base64url(heard.ask.reply_key), answers=True)
            for frame in frames(heard, sealer):
                send(frame if isinstance(frame, bytes) else sealer.seal(frame), False)
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(100)

        def tell(self, ask_id: str, sealed: bytes) -> None:
            assert msgspec.json.encode(ask_id)

    return Memory({BOB.id: Liar.__new__(Liar)}, notices=True)
