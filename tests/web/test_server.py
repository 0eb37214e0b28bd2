"""A server with real sockets, in both event loops that may run it."""

import asyncio
import http.client
import json
import logging
import socket
import ssl
import struct
import subprocess
import sys
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from manyminds.web import server as server_module
from manyminds.web.exchange import Exchange
from manyminds.web.server import Server
from manyminds.web.tls import context
from tests.web.line import Site, replies, request
from tests.web.test_tls import made

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
GET = request()
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Serving = Callable[..., None]


class Gated(Site):
    """`/wait` and `/begin` wait until the gate opens; `/flood` sends so many MB in pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()
        self.written = 0

    async def _wait(self, exchange: Exchange, size: str) -> None:
        self.entered.set()
        await self.gate.wait()
        exchange.reply(200, b"", b"waited")

    async def _begin(self, exchange: Exchange, size: str) -> None:
        exchange.begin(200, b"")
        exchange.write(b"so")
        self.entered.set()
        await self.gate.wait()
        exchange.write(b", well", last=True)

    async def _flood(self, exchange: Exchange, size: str) -> None:
        exchange.begin(200, b"")
        for _ in range(int(size) * 100):
            exchange.write(b"x" * 10_000)
            self.written += 10_000
            if exchange.full:
                self.entered.set()
                await exchange.drained()
        exchange.write(b"", last=True)


class Place:
    """A server that listens, and how to get there."""

    def __init__(self, server: Server, site: Gated, port: int) -> None:
        self.server = server
        self.site = site
        self.port = port

    async def connect(self, *, takes: int | None = None) -> Streams:
        """`takes` is how many bytes the client's system takes before it reads them."""
        client = socket.socket()
        if takes is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, takes)
        client.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", self.port))
        except OSError:
            client.close()
            raise
        return await asyncio.open_connection(sock=client, limit=2**16)

    async def ask(self, data: bytes) -> bytes:
        reader, writer = await self.connect()
        writer.write(data)
        try:
            return await reader.read()
        except ConnectionError:  # as good as nothing
            return b""
        finally:
            writer.close()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - whatever it is
            await asyncio.sleep(0.001)

    async def emptied(self) -> None:
        await self.until(lambda: not self.server._open and not self.site.under_way)


@pytest.fixture(params=LOOPS)
def serving(request: pytest.FixtureRequest) -> Serving:
    """Runs what it is given beside a server, and looks whether that leaves anything behind."""

    def run(
        talk: Callable[[Place], Awaitable[None]], *, most_open: int = 100, tls: ssl.SSLContext | None = None
    ) -> None:
        async def whole() -> None:
            site = Gated()
            server = Server(site, most_open)
            listener = socket.create_server(("127.0.0.1", 0))
            await server.listen(listener, tls)
            try:
                async with asyncio.timeout(60):
                    await talk(Place(server, site, listener.getsockname()[1]))
            finally:
                await server.close(0)
            assert server._open == set()
            await Place(server, site, 0).until(lambda: not site.under_way)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(whole())

    return run


# --- replies --------------------------------------------------------------------------------------------


def test_replies_come_whole_and_as_streams(serving: Serving) -> None:
    async def talk(place: Place) -> None:
        data = request("POST", "/echo", b"x" * 300_000) + request("GET", "/flood/1")
        found = replies(await place.ask(data + request("GET", "/a", None, "connection: close")))
        assert [len(got.body) for got in found] == [300_000, 1_000_000, 6]

    serving(talk)


@pytest.mark.parametrize("path", ["/echo", "/ignores"])
def test_a_refusal_reaches_who_is_still_sending(serving: Serving, path: str) -> None:
    async def talk(place: Place) -> None:
        reader, writer = await place.connect()
        writer.write(request("POST", path, b"x" * 20_000_000))
        await writer.drain()
        (got,) = replies(await reader.read())
        assert (got.status, got.ends) == (413 if path == "/echo" else 200, True)
        writer.close()
        await place.emptied()

    serving(talk)


def test_a_refusal_reaches_who_sends_nonsense(serving: Serving) -> None:
    async def talk(place: Place) -> None:
        reader, writer = await place.connect()
        writer.write(b"\x16\x03\x01" * 1_000_000)
        await writer.drain()
        (got,) = replies(await reader.read())
        assert (got.status, got.ends) == (400, True)
        writer.close()
        await place.emptied()

    serving(talk)


def test_a_stream_waits_for_who_takes_it_slowly(serving: Serving) -> None:
    async def talk(place: Place) -> None:
        reader, writer = await place.connect(takes=10_000)
        writer.write(request("GET", "/flood/60", None, "connection: close"))
        await place.site.entered.wait()
        assert place.site.written < 30_000_000, "all of it lies in this process"
        received = 0
        while piece := await reader.read(2**16):
            received += len(piece)
        assert 60_000_000 < received < 61_000_000
        writer.close()

    serving(talk)


# --- who leaves -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/wait", "/begin", "/flood/1000"])
@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_who_leaves_is_answered_no_more(serving: Serving, path: str, how: str) -> None:
    async def talk(place: Place) -> None:
        reader, writer = await place.connect(takes=10_000)
        writer.write(request("GET", path))
        await place.site.entered.wait()
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if how == "half":
            writer.write_eof()
            while await reader.read(2**16):
                pass
        writer.close()
        await place.emptied()
        (exchange,) = place.site.asked
        assert (exchange.gone, exchange.ended) == (True, False)
        assert isinstance(place.site.faults[0], asyncio.CancelledError)

    serving(talk)


def test_a_reply_that_is_there_reaches_who_sends_no_more(serving: Serving) -> None:
    async def talk(place: Place) -> None:
        reader, writer = await place.connect()
        writer.write(GET)
        writer.write_eof()
        (got,) = replies(await reader.read())
        assert got.body == b"GET /"
        writer.close()

    serving(talk)


def test_who_leaves_behind_the_reply_leaves_nothing(serving: Serving) -> None:
    async def talk(place: Place) -> None:
        for _ in range(50):
            reader, writer = await place.connect()
            writer.write(GET)
            await reader.readuntil(b"GET /")
            writer.close()
        await place.emptied()
        assert all(exchange.ended and not exchange.gone for exchange in place.site.asked)

    serving(talk)


# --- ends -----------------------------------------------------------------------------------------------


async def closed(place: Place) -> bool:
    try:
        _, writer = await place.connect()
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


def test_an_end_waits_for_answers_and_for_nothing_else(serving: Serving) -> None:
    async def talk(place: Place) -> None:
        idle, fresh, begun, busy, streaming = [await place.connect() for _ in range(5)]
        idle[1].write(GET)
        assert (await idle[0].readuntil(b"GET /")).startswith(b"HTTP/1.1 200")
        begun[1].write(GET[:-2])
        streaming[1].write(request("GET", "/begin"))
        await streaming[0].readuntil(b"so\r\n")
        busy[1].write(request("GET", "/wait"))
        await place.until(lambda: place.site.under_way == 2)
        ending = asyncio.ensure_future(place.server.close(50))
        for reader, writer in (idle, fresh, begun):
            assert await reader.read() == b""
            writer.close()
        assert await closed(place)
        assert not ending.done()
        place.site.gate.set()
        (got,) = replies(await busy[0].read())
        assert (got.body, got.ends) == (b"waited", True)
        assert (await streaming[0].read()).endswith(b"6\r\n, well\r\n0\r\n\r\n")
        await ending
        for _, writer in (busy, streaming):
            writer.close()

    serving(talk)


def test_an_end_tells_those_who_waited_too_long(serving: Serving) -> None:
    async def talk(place: Place) -> None:
        busy, streaming = await place.connect(), await place.connect()
        streaming[1].write(request("GET", "/begin"))
        busy[1].write(request("GET", "/wait"))
        await place.until(lambda: place.site.under_way == 2)
        await place.server.close(0)
        (told,) = replies(await busy[0].read())
        assert (told.status, told.ends) == (503, True)
        assert json.loads(told.body)["error"]["message"] == "This node is ending: ask again soon."
        (cut,) = replies(await streaming[0].read())
        assert (cut.status, cut.body, cut.whole) == (200, b"so", False)
        for _, writer in (busy, streaming):
            writer.close()

    serving(talk)


def test_an_end_does_not_wait_for_who_takes_nothing(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_LAST_WORDS_S", 0.1)

    async def talk(place: Place) -> None:
        _, writer = await place.connect(takes=10_000)
        writer.write(request("GET", "/large/30000000"))
        _, other = await place.connect(takes=10_000)
        other.write(request("GET", "/flood/1000"))
        await place.site.entered.wait()
        await place.server.close(0)
        assert place.server._open == set()
        writer.close()
        other.close()

    serving(talk)


# --- how many -------------------------------------------------------------------------------------------


def test_for_one_too_many_the_longest_idle_is_closed(serving: Serving) -> None:
    async def talk(place: Place) -> None:
        first, second, third = [await place.connect() for _ in range(3)]
        for reader, writer in (second, first, third):
            writer.write(GET)
            await reader.readuntil(b"GET /")
        third[1].write(request("GET", "/wait"))
        await place.site.entered.wait()
        later = []
        for expected in (second, first):
            reader, writer = await place.connect()
            later.append(writer)
            writer.write(request("GET", "/begin"))
            await reader.readuntil(b"so\r\n")
            assert await expected[0].read() == b""
        assert len(place.server._open) == 3
        assert await place.ask(GET) == b"", "a fourth was let in beside three that are being answered"
        place.site.gate.set()
        assert (await third[0].readuntil(b"waited")).startswith(b"HTTP/1.1 200")
        for writer in (first[1], second[1], third[1], *later):
            writer.close()

    serving(talk, most_open=3)


CROWD = """
import asyncio, resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))
from manyminds.web.server import Server, room

async def serve(exchange):
    exchange.reply(200, b"", b"here")

async def whole():
    server, listener = Server(serve, room()), socket.create_server(("127.0.0.1", 0), backlog=512)
    await server.listen(listener)
    print(listener.getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.close(0)

if sys.argv[1] == "uvloop":
    import uvloop
    asyncio.Runner(loop_factory=uvloop.new_event_loop).run(whole())
else:
    asyncio.run(whole())
"""


@pytest.mark.parametrize("loop", LOOPS)
def test_a_crowd_leaves_files_for_others(loop: str) -> None:
    """With nearly as many connections as files, whoever asks is answered, and nothing is logged."""
    command = [sys.executable, "-c", CROWD, loop]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        port = int(process.stdout.readline())
        crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(300)]
        for client in crowd[-8:]:
            client.sendall(GET)
            assert client.recv(1000).endswith(b"here")
        for client in crowd:
            client.close()
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


ROOM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, tuple(map(int, sys.argv[1:])))
from manyminds.web.server import room
print(room(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("soft", "hard", "expected"), [(300, 1128, "500 1128 1128"), (40, 40, "16 40 40")])
def test_as_many_files_are_allowed_as_may_be(soft: int, hard: int, expected: str) -> None:
    command = [sys.executable, "-c", ROOM, str(soft), str(hard)]
    assert subprocess.check_output(command, text=True).strip() == expected


# --- TLS ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return made(tmp_path_factory.mktemp("tls"), "a")


def https(place: Place, trust: Path) -> http.client.HTTPSConnection:
    known = ssl.create_default_context(cafile=str(trust))
    return http.client.HTTPSConnection("localhost", place.port, timeout=30, context=known)


def test_replies_come_over_tls(serving: Serving, files: tuple[Path, Path]) -> None:
    async def talk(place: Place) -> None:
        def ask() -> list[bytes]:
            connection, found = https(place, files[0]), []
            for method, path, body in (
                ("POST", "/echo", b"x" * 300_000),
                ("GET", "/flood/3", None),
                ("GET", "/large/3000000", None),
                ("POST", "/echo", b"y" * 3_000_000),
            ):
                connection.request(method, path, body)
                found.append(connection.getresponse().read())
            connection.close()
            return found

        found = await asyncio.to_thread(ask)
        assert [len(body) for body in found[:3]] == [300_000, 3_000_000, 3_000_000]
        assert found[3].startswith(b"The body is larger than")

    serving(talk, tls=context(*files))


def test_a_wrong_handshake_does_no_harm(
    serving: Serving, files: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    async def talk(place: Place) -> None:
        for said in (GET, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600), b"", b"\x00"):
            if len(said) > 1:
                assert b"HTTP" not in await place.ask(said)
            else:
                _, writer = await place.connect()
                writer.write(said)
                writer.close()

        def distrust() -> str:
            try:
                https(place, made(files[0].parent, "other")[0]).request("GET", "/")
            except ssl.SSLError as error:
                return error.reason
            return "trusted"

        def old() -> str:
            known = ssl.create_default_context(cafile=str(files[0]))
            known.set_ciphers("DEFAULT:@SECLEVEL=0")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it is old
                known.minimum_version = known.maximum_version = ssl.TLSVersion.TLSv1_1
            try:
                http.client.HTTPSConnection("localhost", place.port, context=known).request("GET", "/")
            except ssl.SSLError as error:
                return error.reason
            except OSError as error:
                return str(error)
            return "agreed"

        def ask() -> bytes:
            connection = https(place, files[0])
            connection.request("GET", "/")
            body = connection.getresponse().read()
            connection.close()
            return body

        assert await asyncio.to_thread(distrust) == "CERTIFICATE_VERIFY_FAILED"
        assert await asyncio.to_thread(old) != "agreed"
        assert await asyncio.to_thread(ask) == b"GET /"

    caplog.set_level(logging.INFO)
    serving(talk, tls=context(*files))
    assert caplog.text == ""


def test_a_slow_handshake_has_its_limit(
    serving: Serving, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_TLS_S", 0.2)

    async def talk(place: Place) -> None:
        reader, writer = await place.connect()
        assert await reader.read() == b""
        writer.close()

    serving(talk, tls=context(*files))


def test_an_end_over_tls_is_an_end(serving: Serving, files: tuple[Path, Path]) -> None:
    async def talk(place: Place) -> None:
        known = ssl.create_default_context(cafile=str(files[0]))
        idle, busy = [
            await asyncio.open_connection("127.0.0.1", place.port, ssl=known, server_hostname="localhost")
            for _ in range(2)
        ]
        idle[1].write(GET)
        await idle[0].readuntil(b"GET /")
        busy[1].write(request("GET", "/wait"))
        await place.site.entered.wait()
        ending = asyncio.ensure_future(place.server.close(50))
        assert await idle[0].read() == b""
        place.site.gate.set()
        (got,) = replies(await busy[0].read())
        assert (got.body, got.ends) == (b"waited", True)
        await ending

    serving(talk, tls=context(*files))


def test_a_refusal_over_tls_reaches_who_is_still_sending(serving: Serving, files: tuple[Path, Path]) -> None:
    async def talk(place: Place) -> None:
        def ask() -> tuple[int, bytes]:
            connection = https(place, files[0])
            connection.putrequest("POST", "/echo")
            connection.putheader("content-length", "20000000")
            connection.endheaders()
            try:
                for _ in range(20):
                    connection.send(b"x" * 1_000_000)
            except ConnectionError:
                pass
            reply = connection.getresponse()
            found = reply.status, reply.read()
            connection.close()
            return found

        status, body = await asyncio.to_thread(ask)
        assert status == 413
        assert body.startswith(b"The body is larger")

    serving(talk, tls=context(*files))
