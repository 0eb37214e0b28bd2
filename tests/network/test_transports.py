"""Ways to other nodes over real sockets of the loopback: one contract for all of them."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import pytest

from manyminds.errors import ConfigError, EndpointNotFoundError, ManymindsError, UnavailableError
from manyminds.network import http as http_module
from manyminds.network.http import ASK_PATH, CARD_PATH, Http, event, fetch_card
from manyminds.network.transport import pack, unpack
from manyminds.upstream import Client, Target
from manyminds.web import network as edge_module
from manyminds.web.exchange import Exchange
from manyminds.web.network import NetworkEdge
from manyminds.web.replies import named, refusal
from manyminds.web.server import Server
from tests.contracts import transport as contract
from tests.contracts.transport import Station, Subject, expected, frames
from tests.network.sides import ANN, BOB, EVE


class Site:
    """Bob's edge: his station behind the paths of a node."""

    def __init__(self) -> None:
        self.station = Station()
        self.card = b"{}"
        self.edge = NetworkEdge(lambda: self.card, self.station.answer, self.station.tell)

    async def __call__(self, exchange: Exchange) -> None:
        try:
            if exchange.method == "POST" and exchange.path in self.edge.posts:
                await self.edge.posts[exchange.path](exchange)
                return
            if exchange.path not in self.edge.gets:
                raise EndpointNotFoundError("There is no such path.")
            exchange.reply(*await self.edge.gets[exchange.path]())
        except ManymindsError as error:
            status, head, body = refusal(error)
            exchange.reply(status, named("id") + head, body)


def listener() -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    return made


@asynccontextmanager
async def serving(site: Site) -> AsyncGenerator[tuple[str, Server], None]:
    server, taken = Server(site), listener()
    await server.listen(taken)
    try:
        yield f"http://127.0.0.1:{taken.getsockname()[1]}", server
    finally:
        await server.close(0.1)


@asynccontextmanager
async def https(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Subject, None]:
    monkeypatch.setattr(http_module, "_POLL_S", 0.02)
    site = Site()
    async with serving(site) as (url, server), Client() as client, Http(client) as way:
        way.direct({BOB.id: url})

        async def show(card: bytes) -> None:
            site.card = card

        async def vanish() -> None:
            await server.close(0.0)

        async def noise() -> None:
            for path in (ASK_PATH, http_module.TELL_PATH):
                for body in (b"", b"\xff" * 100, bytes(50_000)):
                    (await client.post(Target(url + path, {}), body)).close()
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(b"\x16\x03\x01 no http at all\r\n\r\n")
            await reader.read()
            writer.close()

        yield Subject(way, BOB.id, site.station, show, vanish, noise)


@asynccontextmanager
async def zenoh(_: pytest.MonkeyPatch) -> AsyncGenerator[Subject, None]:
    engine: Any = pytest.importorskip("zenoh", reason="Zenoh is not installed: pip install 'manyminds[net]'")
    from manyminds.network.zenoh import Zenoh, settings

    station, router = Station(), Station()
    port = free_port()
    seed = f"tcp/127.0.0.1:{port}"
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Zenoh(EVE.id, settings([], seed), router.answer, router.tell))
        bob = Zenoh(BOB.id, settings([seed], ""), station.answer, station.tell)
        bobs = await stack.enter_async_context(AsyncExitStack())
        await bobs.enter_async_context(bob)
        anns = Station()
        ann = await stack.enter_async_context(Zenoh(ANN.id, settings([seed], ""), anns.answer, anns.tell))

        async def show(card: bytes) -> None:
            bob.announce(card)

        async def noise() -> None:
            session: Any = ann._session
            for node in (ANN.id, BOB.id, "no-id", "x/y"):
                for what in ("card", "ask", "tell", "else"):
                    session.put(f"manyminds/1/{node}/{what}", b"\xff" * 9)
            token = session.liveliness().declare_token("manyminds/1/no-id")
            token.undeclare()
            session.get(f"manyminds/1/{BOB.id}/ask", engine.handlers.Callback(lambda _: None, indirect=False))

        await joined(ann, BOB.id, station)
        yield Subject(ann, BOB.id, station, show, bobs.aclose, noise)


def free_port() -> int:
    with listener() as taken:
        port: int = taken.getsockname()[1]
        return port


async def joined(way: Any, node: str, station: Station) -> None:
    """Returns when each hears the other: what is declared takes a moment to be known everywhere."""
    async with asyncio.timeout(contract.PROMPT_S):
        while not [frame async for frame in way.ask(node, b"count 1 0")]:  # noqa: ASYNC110 - nobody says when
            await asyncio.sleep(0.01)
        while station.told.empty():
            way.tell(node, contract.ASK_ID, b"joined")
            await asyncio.sleep(0.01)
        way.tell(node, contract.ASK_ID, b"last")
        while (await station.told.get())[1] != b"last":
            pass
    station.asks.clear()


KINDS = {"http": https, "zenoh": zenoh}


@pytest.mark.parametrize("check", contract.CHECKS)
@pytest.mark.parametrize("kind", KINDS)
def test_transport_keeps_contract(kind: str, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(contract.CHECKS[check](lambda: KINDS[kind](monkeypatch)))


# --- what is told ----------------------------------------------------------------------------------


def test_what_is_told_is_packed_with_the_asks_id() -> None:
    assert unpack(pack(contract.ASK_ID, b"sealed")) == (contract.ASK_ID, b"sealed")
    assert unpack(b"") == ("", b"")
    assert unpack(b"\xff" * 22 + b"x")[1] == b"x"


def test_an_event_is_a_line_of_base64_and_the_last_one_says_so() -> None:
    assert event(b"\x00\xff", last=False) == b"data: AP8=\n\n"
    assert event(b"", last=True) == b"data: \n\ndata: [DONE]\n\n"


# --- http ------------------------------------------------------------------------------------------


class Odd(Site):
    """Replies as it is told."""

    def __init__(self, status: int, head: bytes, body: bytes) -> None:
        super().__init__()
        self.odd = (status, head, body)

    async def __call__(self, exchange: Exchange) -> None:
        exchange.reply(*self.odd)


STREAM = b"content-type: text/event-stream\r\n"
ODD: dict[str, tuple[int, bytes, bytes, list[bytes] | None]] = {
    "an error": (503, STREAM, b"", None),
    "a redirect": (302, STREAM + b"location: http://127.0.0.1:9/\r\n", b"", None),
    "no stream": (200, b"content-type: text/html\r\n", b"data: AAAA\n\n", None),
    "no base64": (200, STREAM, b"data: ?\n\ndata: AP8=\n\ndata: A\n\n: ping\n\n", [b"\x00\xff"]),
    "nothing": (200, STREAM, b"", []),
    "what comes behind the end": (200, STREAM, b"data: AA==\n\ndata: [DONE]\n\ndata: AQ==\n\n", [b"\0"]),
    "an endless line": (200, STREAM, b"data: " + b"A" * 6_000_000, None),
}


@pytest.mark.parametrize("what", ODD)
def test_what_another_server_says_is_no_answer(what: str) -> None:
    *reply, found = ODD[what]

    async def story() -> None:
        async with serving(Odd(*reply)) as (url, _), Client() as client, Http(client) as way:  # type: ignore[arg-type]
            way.direct({BOB.id: url})
            subject: Any = Subject(way, BOB.id, Station(), *[None] * 3)  # type: ignore[arg-type]
            if found is None:
                with pytest.raises(ManymindsError):
                    await frames(subject, b"count 1 1")
            else:
                assert await frames(subject, b"count 1 1") == found

    asyncio.run(story())


@pytest.mark.parametrize(
    ("status", "body"), [(404, b""), (302, b""), (200, b"x" * 65_537), (500, b"\x1b[2J" * 9999)]
)
def test_a_card_that_cannot_be_had(status: int, body: bytes) -> None:
    async def story() -> None:
        head = b"content-type: application/json\r\nlocation: http://127.0.0.1:9/\r\n"
        async with serving(Odd(status, head, body)) as (url, _), Client() as client:
            with pytest.raises(UnavailableError, match=f"{url} shows no card"):
                await fetch_card(client, url)

    asyncio.run(story())


@pytest.mark.parametrize("url", ["http://", "nonsense", "http://[::1", "http://127.0.0.1:1"])
def test_a_url_where_nobody_is(url: str) -> None:
    async def story() -> None:
        async with Client() as client:
            with pytest.raises(UnavailableError):
                await fetch_card(client, url)

    asyncio.run(story())


def test_what_is_told_while_the_teller_ends_is_told_too() -> None:
    async def story() -> None:
        site = Site()
        async with serving(site) as (url, _), Client() as client, Http(client) as way:
            way.direct({BOB.id: url})
            for i in range(30):
                way.tell(BOB.id, contract.ASK_ID, b"first")
                task = way._telling[BOB.id]
                task.add_done_callback(lambda _: way.tell(BOB.id, contract.ASK_ID, b"behind"))
                async with asyncio.timeout(contract.PROMPT_S):
                    found = [(await site.station.told.get())[1] for _ in range(2)]
                assert found == [b"first", b"behind"], i

    asyncio.run(story())


def test_who_is_no_peer_any_more_is_seen_to_have_gone() -> None:
    async def story() -> None:
        site = Site()
        async with serving(site) as (url, _), Client() as client, Http(client) as way:
            way.direct({BOB.id: url})
            async with asyncio.timeout(contract.PROMPT_S), aclosing(way.watch()) as sightings:
                assert (await anext(sightings)).card == site.card
                way.direct({})
                assert (await anext(sightings)).card == b""
            with pytest.raises(UnavailableError, match="no address"):
                await anext(way.ask(BOB.id, b"count 1 1"))

    asyncio.run(story())


def test_so_many_asks_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows whose they are until they have been read, and each may take 16 MB."""
    monkeypatch.setattr(edge_module, "_COMING", 1)

    async def story() -> None:
        site = Site()
        async with serving(site) as (url, _), Client() as client, Http(client) as way:
            way.direct({BOB.id: url})
            subject: Any = Subject(way, BOB.id, site.station, *[None] * 3)  # type: ignore[arg-type]
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            body = b"count 1 0"
            head = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
            writer.write(head % (ASK_PATH.encode(), len(body)) + body[:3])
            async with asyncio.timeout(contract.PROMPT_S):
                while not site.edge.coming:  # noqa: ASYNC110 - the server says nothing before the body
                    await asyncio.sleep(0.001)
                with pytest.raises(UnavailableError, match="429"):
                    await frames(subject, body)
                writer.write(body[3:])
                assert b"200 OK" in await reader.readline()
            assert await frames(subject, body) == expected(1, 0)
            writer.close()

    asyncio.run(story())


def test_card_path_is_that_of_a2a() -> None:
    assert CARD_PATH == "/.well-known/agent-card.json"


# --- zenoh -----------------------------------------------------------------------------------------


def test_who_joins_before_the_seed_is_there_joins_once_it_is() -> None:
    pytest.importorskip("zenoh", reason="Zenoh is not installed: pip install 'manyminds[net]'")
    from manyminds.network.zenoh import Zenoh, settings

    async def story() -> None:
        seed, early, router = f"tcp/127.0.0.1:{free_port()}", Station(), Station()
        async with Zenoh(ANN.id, settings([seed], ""), early.answer, early.tell) as ann:
            ann.announce(b"early card")
            with pytest.raises(UnavailableError, match="has not joined yet"):
                await anext(ann.ask(EVE.id, b"count 1 0"))
            ann.tell(EVE.id, contract.ASK_ID, b"lost")
            async with Zenoh(EVE.id, settings([], seed), router.answer, router.tell) as eve:
                async with asyncio.timeout(contract.PROMPT_S), aclosing(eve.watch()) as sightings:
                    async for sighting in sightings:
                        if sighting.node == ANN.id and sighting.card == b"early card":
                            break
                await joined(ann, EVE.id, router)
                subject: Any = Subject(ann, EVE.id, router, *[None] * 3)  # type: ignore[arg-type]
                assert await frames(subject, b"count 3 3") == expected(3, 3)

    asyncio.run(story())


def test_an_address_that_is_none_is_an_error_that_says_so() -> None:
    pytest.importorskip("zenoh", reason="Zenoh is not installed: pip install 'manyminds[net]'")
    from manyminds.network.zenoh import Zenoh, settings

    async def story() -> None:
        station = Station()
        async with Zenoh(ANN.id, settings([], "nonsense"), station.answer, station.tell):
            raise AssertionError("it has joined")

    with pytest.raises(ConfigError, match="Cannot join other nodes"):
        asyncio.run(story())


def test_how_a_node_joins() -> None:
    from manyminds.network.zenoh import LAN, settings

    modes = {
        name: settings(seeds, listen)["mode"]
        for name, (seeds, listen) in {
            "seed": (["tcp/a:1"], ""),
            "first": ([], "tcp/0.0.0.0:1"),
            "between": (["tcp/a:1"], "tcp/0.0.0.0:1"),
            "lan": ([LAN], ""),
            "both": ([LAN, "tcp/a:1"], ""),
        }.items()
    }
    assert modes == {"seed": "client", "first": "router", "between": "router", "lan": "peer", "both": "peer"}
    assert settings(["tcp/a:1"], "")["listen/endpoints"] == []
    assert not settings(["tcp/a:1"], "tcp/b:1")["scouting/multicast/enabled"]
    assert settings([LAN, "tcp/a:1"], "")["connect/endpoints"] == ["tcp/a:1"]
