"""Zenoh as a way to the nodes of one network: on a LAN, or through one address that all can reach.

Nodes announce themselves by liveliness tokens; cards, asks and answers go by queries. Knows no card's meaning
and believes nobody: what it carries is signed and sealed.

Zenoh calls back in threads of its own; all that comes is handed to the event loop.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from manyminds.errors import ConfigError, ManymindsError, UnavailableError
from manyminds.network.ask import ASK_BYTES
from manyminds.network.card import CARD_BYTES
from manyminds.network.frames import FRAME_BYTES
from manyminds.network.identity import is_id
from manyminds.network.linger import keep_unlingering
from manyminds.network.transport import Answer, Sighting, Tell, pack, unpack

if TYPE_CHECKING:
    import zenoh

__all__ = ["LAN", "Zenoh", "settings"]

LAN: Final = "lan"
"""In the place of a seed: whoever is found on the local network."""

_ROOT: Final = "manyminds/1"
_CARD_S: Final = 3.0  # until another node's card must have come
_LOOK_S: Final = 1.0  # between two looks at one node's card
_LOOKS_PER_S: Final = 200.0  # at all of them
_BURST: Final = 1_000.0
_MOST_HERE: Final = 100_000
_SEEDS: Final = "connect/endpoints"
_OPEN_MS: Final = 1_000  # for one try to reach a seed
_AGAIN_S: Final = 0.5  # before another
_OPENED_MS: Final = 3_000  # for a connection: a first packet that is lost is sent again after 1, 3, 7 s
_WAITING: Final = 10_000  # sightings, asks or frames that wait to be looked at; more get lost
_BLOCKING_BYTES: Final = 30_000  # of an ask, from which on a thread sends it: that may wait
_LEASE_MS: Final = 2_000  # after which a node that says nothing is gone
_HELD_BYTES: Final = 1_000_000  # of what a line does not take just now, before others wait for it
_HELD: Final = 16  # the same in messages; Zenoh's most

log = logging.getLogger(__name__)


def settings(seeds: Sequence[str], listen: str) -> dict[str, Any]:
    """Zenoh's configuration: who is looked for where, and how soon it is noticed that somebody has gone.

    A node at whose address others join is a router, so that they need not reach one another; whoever joins
    through seeds is a client of theirs, and needs no port of its own; on a LAN all are peers.

    Args:
        seeds: addresses such as tcp/10.0.0.1:7447 or tls/HOST:PORT, or LAN.
        listen: an address at which others may join; "" is none.
    """
    addresses, lan = [seed for seed in seeds if seed != LAN], LAN in seeds
    mode = "router" if listen else "client" if addresses and not lan else "peer"
    return {
        "mode": mode,
        _SEEDS: addresses,
        "connect/timeout_ms": _OPEN_MS if mode == "client" else -1,
        "connect/exit_on_failure": False,
        "connect/retry": {"period_init_ms": 200, "period_max_ms": 500, "period_increase_factor": 2},
        "listen/endpoints": [listen] if listen else ["tcp/0.0.0.0:0"] if lan else [],
        "scouting/multicast/enabled": lan,
        "scouting/gossip/enabled": lan or bool(listen),
        "transport/unicast/open_timeout": _OPENED_MS,
        "transport/link/tx/lease": _LEASE_MS,
        "transport/link/tx/queue/congestion_control/block/wait_before_close": _LEASE_MS * 1000,  # in us
        "transport/link/tx/queue/size/data": _HELD,
        "transport/link/tcp/so_sndbuf": _HELD_BYTES,
    }


def _opened(made: dict[str, Any], file: Path | None) -> "zenoh.Session":
    """Blocks for a moment. Raises: ConfigError; UnavailableError where no seed can be reached just now."""
    try:
        import zenoh
    except ImportError:
        raise ConfigError("Joining other nodes needs Zenoh: pip install 'manyminds[net]'.") from None
    try:
        config = zenoh.Config() if file is None else zenoh.Config.from_file(str(file))
        for name, value in made.items():
            config.insert_json5(name, json.dumps(value))
        return zenoh.open(config)
    except zenoh.ZError as error:
        said = str(error).partition(" at /")[0][:300]
        if "Unable to connect" in said:
            raise UnavailableError(f"{', '.join(made[_SEEDS])} cannot be reached.") from None
        raise ConfigError(f"Cannot join other nodes: {said}") from None


class Zenoh:
    """Keeps the contract of `transport.Transport`. Use with `async with`.

    Args:
        node: this node's id.
        made: see `settings`.
        file: further settings in Zenoh's own format: certificates, access control.
        answer: answers asks; tell: is told what is said besides.
    """

    notices = False

    def __init__(
        self, node: str, made: dict[str, Any], answer: Answer, tell: Tell, file: Path | None = None
    ) -> None:
        self._node = node
        self._made = made
        self._file = file
        self._answer = answer
        self._tell = tell
        self._card = b""
        self._session: zenoh.Session | None = None  # None until a seed has been reached
        self._token: Any = None
        self._opening: asyncio.Task[None] | None = None
        self._unlingering: asyncio.Task[None] | None = None
        self._sightings: asyncio.Queue[Sighting] = asyncio.Queue(_WAITING)
        self._answering: set[asyncio.Task[None]] = set()
        self._here: dict[str, float] = {}  # nodes that are, and when their cards may be looked at again
        self._due: dict[str, asyncio.TimerHandle] = {}  # nodes that will be looked at
        self._next_s = 0.0  # when another may be, one after the other
        self._telling = ThreadPoolExecutor(1, "tell")
        self._untold = 0

    async def __aenter__(self) -> "Zenoh":
        """Raises: ConfigError. Where no seed can be reached, it goes on trying."""
        self._loop = asyncio.get_running_loop()
        self._unlingering = asyncio.create_task(keep_unlingering())
        try:
            await self._open()
        except UnavailableError as error:
            log.warning("%s This node tries again until it is.", error.message)
            self._opening = asyncio.create_task(self._open_later())
        return self

    async def _open_later(self) -> None:
        while self._session is None:
            await asyncio.sleep(_AGAIN_S)
            try:
                await self._open()
            except UnavailableError:
                continue
            except ConfigError as error:
                log.error("%s", error.message)
                return
            log.info("%s can be reached now.", ", ".join(self._made[_SEEDS]))
            self.announce(self._card)

    async def _open(self) -> None:
        self._session = session = await asyncio.to_thread(_opened, self._made, self._file)
        self._declared = await asyncio.to_thread(self._declare, session)  # others are sighted from here on

    def _declare(self, session: "zenoh.Session") -> list[Any]:
        """Says what is asked for and offered here; what is declared stands while it is referred to."""
        import zenoh

        own = f"{_ROOT}/{self._node}"

        def heard(take: Callable[[Any], None]) -> Any:
            return zenoh.handlers.Callback(lambda found: self._hand(take, found), indirect=False)

        def hint(sample: "zenoh.Sample") -> None:  # in Zenoh's thread: what is no news costs the loop nothing
            node = str(sample.key_expr).removeprefix(f"{_ROOT}/").removesuffix("/card")
            if node in self._here and node not in self._due:
                self._hand(self._look_soon, node)

        changed: Any = zenoh.handlers.Callback(hint, indirect=False)
        return [
            session.declare_queryable(f"{own}/card", heard(self._show)),
            session.declare_queryable(f"{own}/ask", heard(self._asked)),
            session.declare_subscriber(f"{own}/tell", heard(self._told)),
            session.declare_subscriber(f"{_ROOT}/*/card", changed),
            session.liveliness().declare_subscriber(f"{_ROOT}/*", heard(self._sighted), history=True),
        ]

    async def __aexit__(self, *_: object) -> None:
        self._card = b""  # nobody finds it here any more
        for due in self._due.values():
            due.cancel()
        tasks = [*self._answering, *filter(None, (self._opening, self._unlingering))]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        session, self._session = self._session, None  # whoever still asks or tells is told so
        await asyncio.to_thread(self._telling.shutdown, cancel_futures=True)
        if session is not None:
            await asyncio.to_thread(self._close, session)

    def _close(self, session: "zenoh.Session") -> None:
        if self._token is not None:
            self._token.undeclare()
        session.close()  # type: ignore[no-untyped-call]

    # --- other nodes ---

    def announce(self, card: bytes) -> None:
        """See `transport.Transport`."""
        self._card = card
        session = self._session
        if session is None or not card:
            return
        session.put(f"{_ROOT}/{self._node}/card", b"")  # whoever wants to see it asks for it
        if self._token is None:
            self._token = session.liveliness().declare_token(f"{_ROOT}/{self._node}")

    async def watch(self) -> AsyncGenerator[Sighting, None]:
        """See `transport.Transport`."""
        while True:
            yield await self._sightings.get()

    def _look_soon(self, node: str) -> None:
        """Looks at a node's card: once in so many seconds, and at so many a second, whoever says what.

        Nobody's word shows a card: it is asked for. So a flood of cards costs as little as one.
        """
        if node in self._due or len(self._due) >= _WAITING:
            return
        now = self._loop.time()
        self._next_s = max(self._next_s + 1.0 / _LOOKS_PER_S, now - _BURST / _LOOKS_PER_S)
        due_s = max(now, self._next_s, self._here.get(node, 0.0))
        self._due[node] = self._loop.call_at(due_s, self._look, node)

    def _look(self, node: str) -> None:
        """Asks for a node's card; it is among the sightings then."""
        import zenoh

        del self._due[node]
        if node in self._here:
            self._here[node] = self._loop.time() + _LOOK_S

        def found(reply: "zenoh.Reply") -> None:
            if (sample := reply.ok) is not None:
                self._hand(self._shown, sample)

        handler: Any = zenoh.handlers.Callback(found, indirect=False)
        target = zenoh.QueryTarget.ALL  # else an impostor may be the only one that is asked
        selector = f"{_ROOT}/{node}/card"
        none = zenoh.ConsolidationMode.NONE
        if self._session is not None:
            self._session.get(selector, handler, target=target, consolidation=none, timeout=_CARD_S)

    def _sighted(self, sample: "zenoh.Sample") -> None:
        """A node has come, or gone."""
        import zenoh

        node = str(sample.key_expr).removeprefix(f"{_ROOT}/")
        if not is_id(node) or node == self._node:
            return
        if sample.kind == zenoh.SampleKind.DELETE:
            self._here.pop(node, None)
            self._see(Sighting(node))
        elif len(self._here) < _MOST_HERE:
            self._here.setdefault(node, 0.0)
        self._look_soon(node)  # also at who is said to have gone: an impostor may have said it

    def _shown(self, sample: "zenoh.Sample") -> None:
        """A node's card, as somebody says."""
        node = str(sample.key_expr).removeprefix(f"{_ROOT}/").removesuffix("/card")
        if node != self._node and len(sample.payload) <= CARD_BYTES:
            if len(self._here) < _MOST_HERE:
                self._here.setdefault(node, self._loop.time() + _LOOK_S)
            self._see(Sighting(node, sample.payload.to_bytes()))

    def _see(self, sighting: Sighting) -> None:
        if not self._sightings.full():
            self._sightings.put_nowait(sighting)

    def _show(self, query: "zenoh.Query") -> None:
        with query:
            if self._card:
                query.reply(query.key_expr, self._card)

    # --- asks ---

    async def ask(self, node: str, sealed: bytes) -> AsyncGenerator[bytes, None]:
        """See `transport.Transport`."""
        import zenoh

        session = self._session
        if session is None:
            raise UnavailableError(f"{node} cannot be reached: this node has not joined yet.")
        frames: asyncio.Queue[bytes | None] = asyncio.Queue()

        def put(frame: bytes | None) -> None:
            if frames.qsize() < _WAITING:
                frames.put_nowait(frame)

        def heard(reply: "zenoh.Reply") -> None:
            if (sample := reply.ok) is not None and len(sample.payload) <= FRAME_BYTES:
                self._hand(put, sample.payload.to_bytes())

        token = zenoh.CancellationToken()
        handler: Any = zenoh.handlers.Callback(
            heard, lambda: self._hand(frames.put_nowait, None), indirect=False
        )

        def get() -> None:
            session.get(
                f"{_ROOT}/{node}/ask",
                handler,
                target=zenoh.QueryTarget.ALL,
                consolidation=zenoh.ConsolidationMode.NONE,
                timeout=86_400.0,
                payload=sealed,
                express=True,
                cancellation_token=token,
            )

        try:
            if len(sealed) < _BLOCKING_BYTES:
                get()
            else:
                await asyncio.to_thread(get)
            while (frame := await frames.get()) is not None:
                yield frame
        except zenoh.ZError as error:
            raise UnavailableError(f"{node} cannot be reached: {error!s:.200}") from None
        finally:
            self._loop.call_soon(token.cancel)  # soon, and not now: the answer is waited for

    def tell(self, node: str, ask_id: str, sealed: bytes) -> None:
        """See `transport.Transport`. Waits for a busy link, in a thread of its own: others are dropped."""
        session = self._session
        if session is None or self._untold >= _WAITING:
            return
        import zenoh

        def put() -> None:
            key, block = f"{_ROOT}/{node}/tell", zenoh.CongestionControl.BLOCK
            try:
                session.put(key, pack(ask_id, sealed), express=True, congestion_control=block)
            except zenoh.ZError as error:
                log.info("%s was not told: %s", node, error)
            finally:
                self._hand(self._count_told, None)

        self._untold += 1
        self._telling.submit(put)

    def _count_told(self, _: None) -> None:
        self._untold -= 1

    def _told(self, sample: "zenoh.Sample") -> None:
        self._tell(*unpack(sample.payload.to_bytes()))

    def _asked(self, query: "zenoh.Query") -> None:
        if len(self._answering) >= _WAITING or query.payload is None or len(query.payload) > ASK_BYTES:
            query.drop()  # type: ignore[no-untyped-call]
            return
        task = asyncio.create_task(self._answered(query, query.payload.to_bytes()), name="answer a node")
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answered(self, query: "zenoh.Query", sealed: bytes) -> None:
        import zenoh

        def send(frame: bytes, last: bool) -> None:
            try:
                query.reply(query.key_expr, frame, express=True)
            except zenoh.ZError as error:
                log.info("a frame was not sent: %s", error)

        with query:
            try:
                await self._answer(sealed, send)
            except ManymindsError as error:  # nothing was sent: who asks finds nobody here
                log.info("an ask was not answered: %s", error.message)

    def _hand(self, take: Callable[[Any], None], found: Any) -> None:
        """To the event loop, from any thread."""
        try:
            self._loop.call_soon_threadsafe(take, found)
        except RuntimeError:  # it has ended
            return
