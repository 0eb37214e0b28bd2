"""Real sockets, on both event loops."""

import asyncio
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from manyminds.upstream import (
    BrokenError,
    Client,
    ConnectError,
    ProtocolError,
    Response,
    Target,
    UpstreamError,
)
from tests.experts.upstream import Act, Reply, plain, upstream

T = TypeVar("T")
HANG_S = 20.0  # far beyond what anything here takes


def new_uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
if sys.platform != "win32":
    LOOPS["uvloop"] = new_uvloop


def run(loop: str, coro: Coroutine[Any, Any, T]) -> T:
    """Runs to the end; fails when a task is left behind."""

    async def alone() -> T:
        async with asyncio.timeout(HANG_S):
            result = await coro
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left behind: {left}"
        return result

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(alone())


on_both_loops = pytest.mark.parametrize("loop", LOOPS)


async def fetch(client: Client, url: str, body: bytes = b"{}") -> bytes:
    response = await client.post(Target(url, {}), body)
    return await response.whole(10**8)


# --- exchanges -------------------------------------------------------------------------------------


@on_both_loops
def test_a_request_is_written_and_its_reply_is_read(loop: str) -> None:
    async def main() -> tuple[Response, bytes, list[str], list[Any]]:
        async with upstream([plain(b'"hi"', headers="x-a: 1\r\n")]) as server, Client() as client:
            target = Target(server.url + "/x", {"x-b": "2"})
            response = await client.post(target, b'{"a": 1}')
            body = await response.whole(100)
            await (await client.get(target)).whole(100)
            return response, body, server.heads, server.bodies

    response, body, (posted, asked), bodies = run(loop, main())
    assert (response.status, response.content_type, body) == (200, "application/json", b'"hi"')
    assert response.headers["x-a"] == "1"
    assert posted.startswith("post /v1/x http/1.1\r\nhost: 127.0.0.1:")
    assert posted.endswith("\r\naccept-encoding: identity\r\nx-b: 2\r\ncontent-length: 8\r\n\r\n")
    assert asked.startswith("get /v1/x http/1.1\r\n")
    assert "content-length" not in asked
    assert bodies == [{"a": 1}, None]


@on_both_loops
def test_connections_are_kept_unless_told_not_to(loop: str) -> None:
    async def main(keep: bool) -> tuple[int, bool]:
        async with upstream([plain(b"hi")]) as server, Client(keep=keep) as client:
            for _ in range(4):
                assert await fetch(client, server.url) == b"hi"
            return server.connections, "\r\nconnection: close\r\n" in server.heads[0]

    assert run(loop, main(True)) == (1, False)
    assert run(loop, main(False)) == (4, True)


@on_both_loops
def test_large_bodies_pass_both_ways_whoever_reads_slowly(loop: str) -> None:
    large = b'"' + b"x" * 5_000_000 + b'"'

    async def main() -> tuple[int, int, int]:
        async with upstream([plain(large)]) as server, Client() as client:
            response = await client.post(Target(server.url, {}), large)
            sizes = []
            async for piece in response:
                sizes.append(len(piece))
                for _ in range(10):
                    await asyncio.sleep(0)
            return len(server.bodies[0]), sum(sizes), max(sizes)

    taken, read, most = run(loop, main())
    assert (taken, read) == (len(large) - 2, len(large))
    assert most <= 2**19


@on_both_loops
def test_requests_side_by_side_do_not_mix(loop: str) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                writer.write(plain(await reader.readexactly(int(head.rpartition(b": ")[2]))))
        writer.close()

    async def main() -> list[bytes]:
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            async with Client() as client:
                found = []
                for _ in range(3):
                    bodies = [b"%d" % i * (i + 1) for i in range(50)]
                    found += await asyncio.gather(*(fetch(client, url, body) for body in bodies))
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)
        return found

    assert run(loop, main()) == [b"%d" % i * (i + 1) for i in range(50)] * 3


# --- connections that end --------------------------------------------------------------------------


@on_both_loops
@pytest.mark.parametrize("end", [Act.CLOSE, Act.RESET])
def test_a_kept_connection_that_ends_is_replaced_once(loop: str, end: Act) -> None:
    good = [plain(b"hi")]

    async def main(*replies: Reply) -> int:
        async with upstream(*replies) as server, Client() as client:
            await fetch(client, server.url)
            try:
                assert await fetch(client, server.url) == b"hi"
            except BrokenError:
                return -len(server.bodies)
            return len(server.bodies)

    assert run(loop, main(good, [end], good)) == 3
    assert run(loop, main([*good, end], good)) == 2
    assert run(loop, main(good, [end], [end], good)) == -3
    assert run(loop, main(good, [b"HTTP/1.1 2", end], good)) == -2


@on_both_loops
def test_what_a_new_connection_took_is_not_sent_again(loop: str) -> None:
    async def main() -> int:
        async with upstream([Act.CLOSE], [plain(b"hi")]) as server, Client() as client:
            with pytest.raises(BrokenError):
                await fetch(client, server.url)
            return len(server.bodies)

    assert run(loop, main()) == 1


@on_both_loops
def test_a_closed_client_leaves_nothing_open(loop: str) -> None:
    async def main() -> None:
        async with upstream([plain(b"hi")], [Act.HANG]) as server:
            async with Client() as client:
                await fetch(client, server.url)
                waiting = asyncio.create_task(fetch(client, server.url))
                while len(server.bodies) < 2:  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0)
            await server.left.wait()
            with pytest.raises(UpstreamError):
                await waiting
            with pytest.raises(ConnectError, match="closed"):
                await fetch(client, server.url)
            assert client.closed
            assert server.connections == 1

    run(loop, main())


# --- cancelling ------------------------------------------------------------------------------------


@dataclass
class Deaf:
    """A server that sends what it is told and then nothing, nor reads more than it must."""

    url: str = ""
    met: asyncio.Event = field(default_factory=asyncio.Event)
    read: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def deaf(sent: bytes) -> AsyncIterator[Deaf]:
    told = Deaf()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.met.set()
        writer.write(sent)
        await told.read.wait()
        with suppress(ConnectionError):
            while await reader.read(2**16):
                pass
        writer.transport.abort()
        told.left.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        told.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        yield told


HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@on_both_loops
@pytest.mark.parametrize("cuts", [1, 100])
@pytest.mark.parametrize(
    ("scheme", "body", "sent"),
    [
        pytest.param("https", b"", b"", id="connecting"),
        pytest.param("http", b"x" * 20_000_000, b"", id="sending"),
        pytest.param("http", b"", b"", id="before the head"),
        pytest.param("http", b"", HEAD[:20], id="in the head"),
        pytest.param("http", b"", HEAD + b"2\r\nhi\r\n", id="in the body"),
    ],
)
def test_cancelling_closes_the_connection(
    loop: str, scheme: str, body: bytes, sent: bytes, cuts: int
) -> None:
    async def main() -> None:
        async with deaf(sent) as server, Client() as client:
            url = server.url.replace("http", scheme)
            task = asyncio.create_task(fetch(client, url, body))
            await server.met.wait()
            for _ in range(cuts):  # at once, or when all that comes has come
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            server.read.set()
            await server.left.wait()
            assert client._pool._open == set()

    run(loop, main())


@on_both_loops
@pytest.mark.parametrize("steps", range(12))
def test_cancelling_early_leaves_nothing(loop: str, steps: int) -> None:
    async def main() -> None:
        async with upstream([plain(b"hi")]) as server, Client() as client:
            task = asyncio.create_task(fetch(client, server.url.replace("127.0.0.1", "localhost")))
            for _ in range(steps):
                await asyncio.sleep(0)
            done = task.done() or not task.cancel()
            if not done:
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert await fetch(client, server.url) == b"hi"

    run(loop, main())


# --- connections that do not come about ------------------------------------------------------------


@on_both_loops
def test_no_connection_is_a_connect_error(loop: str) -> None:
    async def main() -> None:
        async with Client(connect_s=0.01) as client, deaf(b"") as silent:
            silent.read.set()
            with pytest.raises(ConnectError, match=r"within 0\.01 s"):
                await fetch(client, silent.url.replace("http", "https"))
            await silent.left.wait()
        async with Client() as client:
            for url in ("http://no-such-host.invalid/", f"http://{'a' * 70}/", "http://..:1/", silent.url):
                with pytest.raises(ConnectError):
                    await fetch(client, url)

    run(loop, main())


@on_both_loops
def test_a_server_of_another_protocol_is_a_protocol_error(loop: str) -> None:
    async def main() -> None:
        async with upstream([b"220 smtp.example ESMTP\r\n", Act.HANG]) as server, Client() as client:
            with pytest.raises(ProtocolError):
                await fetch(client, server.url)
            await server.left.wait()

    run(loop, main())


@on_both_loops
def test_a_server_that_hangs_up_at_once_is_an_error_of_ours(loop: str) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async def main() -> None:
        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server, Client() as client:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            for _ in range(50):
                with pytest.raises((ConnectError, BrokenError)):
                    await fetch(client, url)

    run(loop, main())


# --- TLS -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of `localhost` with its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("makes a certificate with the openssl command, which is not here")
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(path), "-out", str(path) + ".crt"]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(str(path) + ".crt").read_text())
    return path


async def secured(certificate: Path, host: str) -> tuple[bytes, int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with upstream([plain(b"hi")], tls=context) as server, Client() as client:
        url = server.url.replace("http://127.0.0.1", f"https://{host}")
        await fetch(client, url)
        return await fetch(client, url), server.connections


@on_both_loops
def test_a_trusted_server_is_spoken_to_in_secret(
    loop: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert run(loop, secured(certificate, "localhost")) == (b"hi", 1)


@on_both_loops
def test_a_server_that_nobody_vouches_for_is_refused(loop: str, certificate: Path) -> None:
    with pytest.raises(ConnectError, match=r"(?i)certificate.verify.failed"):
        run(loop, secured(certificate, "localhost"))


@on_both_loops
def test_a_server_under_another_name_is_refused(
    loop: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with pytest.raises(ConnectError, match="127"):
        run(loop, secured(certificate, "127.0.0.1"))
