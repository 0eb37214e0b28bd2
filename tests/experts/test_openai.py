import asyncio
import json
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyminds.errors import (
    CutError,
    ExpertError,
    GarbageError,
    RefusedError,
    RejectedError,
    UnavailableError,
)
from manyminds.experts.openai import OpenAI
from manyminds.types import Card, Chunk, Message, Query, Usage
from manyminds.upstream import Client, UpstreamError
from manyminds.wire import parse_request
from tests.experts.upstream import Act, Reply, Upstream, delta, plain, sse, upstream

KEY = "sk-very-secret/0+1="
CARD = Card("gpt", "openai", source="lab", model="gpt-5", price_in_usd_per_m=0.1, price_out_usd_per_m=0.3)
QUERY = Query((Message("user", "Why?"),))
USAGE = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":7}}'
GOOD = sse(delta("so", role="x"), delta(" it"), delta(finish="stop"), USAGE)
HANG_S = 20.0  # far beyond what anything here takes


@asynccontextmanager
async def served(*replies: Reply, key: str = KEY) -> AsyncIterator[tuple[OpenAI, Upstream]]:
    async with upstream(*replies) as server, Client() as client, asyncio.timeout(HANG_S):
        yield OpenAI(CARD, server.url, client, key), server


async def read(expert: OpenAI, query: Query = QUERY) -> list[Chunk]:
    async with aclosing(expert.stream(query)) as stream:
        return [chunk async for chunk in stream]


def text(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def got(*replies: Reply, query: Query = QUERY) -> tuple[list[Chunk], ExpertError | None]:
    """What came of one request, and how it failed."""

    async def main() -> tuple[list[Chunk], ExpertError | None]:
        chunks: list[Chunk] = []
        async with served(*replies) as (expert, _), aclosing(expert.stream(query)) as stream:
            try:
                async for chunk in stream:
                    chunks.append(chunk)
            except ExpertError as error:
                return chunks, error
        return chunks, None

    return asyncio.run(main())


# --- what is asked, and what comes -----------------------------------------------------------------


def test_an_answer_comes_in_pieces() -> None:
    chunks, error = got(GOOD)
    assert error is None
    assert [chunk.text for chunk in chunks] == ["so", " it", ""]
    assert [chunk.finish_reason for chunk in chunks] == [None, None, "stop"]
    assert chunks[0].raw == delta("so", role="x")
    cost = (3 * 0.1 + 7 * 0.3) / 1e6
    assert [chunk.usage for chunk in chunks[:-1]] == [None, None]
    assert chunks[-1].usage == Usage(3, 7, 0.0, pytest.approx(cost))  # type: ignore[arg-type]


def test_chunks_are_handed_over_at_once() -> None:
    async def main() -> str:
        async with served([*sse(delta("first"), done=False, end=False), Act.HANG]) as (expert, server):
            async with aclosing(expert.stream(QUERY)) as stream:
                first = await anext(stream)
            await server.left.wait()
            return first.text

    assert asyncio.run(main()) == "first"


@pytest.mark.parametrize("streamed", [True, False])
def test_the_request_is_the_callers_own(streamed: bool) -> None:
    body = {
        "model": "auto",
        "messages": [{"role": "user", "content": "Why?"}],
        "x": [1.5],
        "stream": streamed,
    }
    theirs = {"manyminds": {"panel": 2}, "stream_options": {"include_usage": False}}
    query = parse_request(json.dumps(body | theirs).encode())

    async def main() -> Upstream:
        async with served(GOOD) as (expert, server):
            await (read(expert, query) if streamed else expert.complete(query))
            return server

    server = asyncio.run(main())
    options = {"stream_options": {"include_usage": True}} if streamed else {}
    assert server.bodies == [body | {"model": "gpt-5"} | options]
    (head,) = server.heads
    assert head.startswith("post /v1/chat/completions ")
    assert f"\r\nauthorization: bearer {KEY}\r\n" in head
    assert "\r\naccept-encoding: identity\r\n" in head


def test_without_a_key_none_is_sent() -> None:
    async def main() -> str:
        async with served(GOOD, key=" \n") as (expert, server):
            await read(expert)
            return server.heads[0]

    assert "authorization" not in asyncio.run(main())


def test_a_large_request_arrives() -> None:
    async def main() -> int:
        async with served(GOOD) as (expert, server):
            await read(expert, Query((Message("user", "é" * 2_500_000),)))
            return len(server.bodies[0]["messages"][0]["content"])

    assert asyncio.run(main()) == 2_500_000


@pytest.mark.parametrize(
    "spelling",
    [
        sse(delta("so it"), delta(finish="stop"), USAGE, done=False),
        [b"".join(GOOD)],
        [b"".join(GOOD)[i : i + 1] for i in range(len(b"".join(GOOD)))],
        [part.replace(b"data: ", b"data:") if b"data: " not in part[4:] else part for part in GOOD],
        sse(b"{}\n\n: PROCESSING\n\n\r\ndata:" + delta("so it"), delta(finish="stop"), USAGE),
        sse(delta("so it", finish="stop"), USAGE),
        sse(USAGE, delta("so it", finish="stop")),
        sse(delta("so it", finish="stop", usage={"prompt_tokens": 3, "completion_tokens": 7})),
        sse(delta("so it", finish="stop", error=None), USAGE, kind="text/event-stream; charset=utf-8"),
    ],
)
def test_servers_spell_the_same_in_many_ways(spelling: Reply) -> None:
    chunks, error = got(spelling)
    assert error is None
    assert text(chunks) == "so it"
    assert chunks[-1].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 7


@pytest.mark.parametrize(("pieces", "tokens"), [(["a", "b", "", "c"], 3), (["twelve bytes", "é" * 6], 6)])
def test_usage_that_never_comes_is_estimated(pieces: list[str], tokens: int) -> None:
    chunks, error = got(sse(*map(delta, pieces), delta(finish="length")))
    assert error is None
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (QUERY.estimated_tokens, tokens)
    assert usage.cost_usd == pytest.approx((QUERY.estimated_tokens * 0.1 + tokens * 0.3) / 1e6)


def test_an_opening_that_only_names_the_role_is_no_answer_yet() -> None:
    opening = delta("")
    chunks, error = got([*sse(opening, done=False, end=False), Act.CLOSE])
    assert (chunks, type(error)) == ([], CutError)
    chunks, error = got(sse(opening, delta("so"), delta(finish="stop")))
    assert [chunk.raw for chunk in chunks] == [opening, delta("so"), delta(finish="stop")]


def test_of_several_choices_the_last_to_finish_ends_the_answer() -> None:
    events = [delta("a", index=1), delta(finish="stop", index=1), delta("b"), delta(finish="length"), USAGE]
    chunks, error = got(sse(*events))
    assert error is None
    assert [chunk.finish_reason for chunk in chunks] == [None, None, None, "length"]
    assert [chunk.raw for chunk in chunks] == events[:-1]
    assert text(chunks) == "b"


# --- faults ----------------------------------------------------------------------------------------

ERROR = b'{"error":{"message":"no room","type":"x","code":null}}'
BEGUN = sse(delta("so"), done=False, end=False)

FAULTS: dict[str, tuple[Reply, type[ExpertError], str]] = {
    "cut before the first byte": ([Act.CLOSE], CutError, "broke off"),
    "reset before the first byte": ([Act.RESET], CutError, "broke off"),
    "cut in the headers": ([b"HTTP/1.1 200 OK\r\ncontent-ty", Act.CLOSE], CutError, "broke off"),
    "cut before the first event": ([BEGUN[0], Act.CLOSE], CutError, "broke off"),
    "cut in the stream": ([*BEGUN, Act.CLOSE], CutError, "broke off"),
    "reset in the stream": ([*BEGUN, Act.RESET], CutError, "broke off"),
    "cut in an event": ([*BEGUN, b"30\r\ndata: {", Act.CLOSE], CutError, "broke off"),
    "ended without an answer": (sse(done=False), CutError, "without finishing"),
    "ended without a finish": (sse(delta("so"), done=False), CutError, "without finishing"),
    "done without a finish": (sse(delta("so")), CutError, "without finishing"),
    "an error event": (sse(delta("so"), ERROR), GarbageError, "no room"),
    "an error event first": (sse(ERROR), GarbageError, "no room"),
    "garbage in an event": (sse(delta("so"), b"{oops"), GarbageError, "chunk"),
    "no chunk in an event": (sse(b"[1]"), GarbageError, "chunk"),
    "broken text in an event": (sse(b'{"choices":[],"x":"\xff"}'), GarbageError, "chunk"),
    "an event without end": (sse(b"x" * 5_000_000), GarbageError, "4000000 bytes"),
    "negative usage": (sse(b'{"choices":[],"usage":{"prompt_tokens":-9}}'), GarbageError, "chunk"),
    "an error with status 200": ([plain(ERROR)], GarbageError, "no room"),
    "a page": ([plain(b"<html>hi</html>", kind="text/html")], GarbageError, "<html>hi</html>"),
    "another content type": (
        sse(delta("so"), delta(finish="stop"), kind="text/plain"),
        GarbageError,
        "text/plain",
    ),
    "no content type": ([b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"], GarbageError, "no content type"),
    "no HTTP": ([b"SSH-2.0-OpenSSH_9.2\r\n", Act.CLOSE], GarbageError, "protocol"),
    "an unknown status": ([b"HTTP/1.1 banana\r\n\r\n", Act.CLOSE], GarbageError, "protocol"),
    "endless headers": ([b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 50_000, Act.CLOSE], GarbageError, "protocol"),
    "a broken chunk size": ([*BEGUN, b"zz\r\n", Act.HANG], GarbageError, "protocol"),
    "a compression": (
        [plain(b"\x00\x01\x02", kind="text/event-stream", headers="content-encoding: gzip\r\n")],
        GarbageError,
        "compressed",
    ),
    "a redirect": ([plain(b"", "307 Moved", headers="location: /v1/elsewhere\r\n")], RejectedError, "307"),
    "bad request": ([plain(ERROR, "400 Bad Request")], RefusedError, "400: no room"),
    "too large": ([plain(ERROR, "413 Too Large")], RefusedError, "413: no room"),
    "not this type": ([plain(ERROR, "415 Unsupported")], RefusedError, "415: no room"),
    "not processable": ([plain(ERROR, "422 Unprocessable")], RefusedError, "422: no room"),
    "wrong key": ([plain(ERROR, "401 Unauthorized")], RejectedError, "401, which this node's owner must"),
    "no right": ([plain(ERROR, "403 Forbidden")], RefusedError, "403: no room"),
    "not found": ([plain(b"no page", "404 Not Found", "text/plain")], ExpertError, "404: no page"),
    "not allowed": ([plain(ERROR, "405 Not Allowed")], RejectedError, "405, which this node's owner must"),
    "no money": ([plain(ERROR, "402 Payment")], ExpertError, "402: no room"),
    "too late": ([plain(ERROR, "408 Timeout")], UnavailableError, "408: no room"),
    "too many requests": ([plain(ERROR, "429 Too Many")], UnavailableError, "429: no room"),
    "a crash": ([plain(ERROR, "500 Oops")], UnavailableError, "500: no room"),
    "overloaded": ([plain(b"", "529 Overloaded")], UnavailableError, "529: nothing more"),
    "an error cut short": (
        [plain(ERROR, "503 No").replace(b"content-length: 5", b"content-length: 9"), Act.CLOSE],
        UnavailableError,
        "503: no room",
    ),
    "an endless error": ([plain(b"x" * 10**6, "500 Oops")], UnavailableError, "500: xxx"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_told_apart(name: str) -> None:
    reply, kind, message = FAULTS[name]
    chunks, error = got(reply)
    assert type(error) is kind
    assert error.message.startswith("gpt ")
    assert message in error.message
    assert "RawResponse" not in error.message
    assert len(error.message) < 600
    assert all(chunk.finish_reason is None for chunk in chunks)
    assert text(chunks) in ("", "so")


def test_redirects_are_not_followed() -> None:
    async def main() -> int:
        async with served([plain(b"", "302 Found", headers="location: /v1/chat/completions\r\n")], GOOD) as (
            expert,
            server,
        ):
            with pytest.raises(UnavailableError):
                await read(expert)
            return len(server.bodies)

    assert asyncio.run(main()) == 1


response = b"".join(GOOD)


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=80)
    | st.tuples(st.integers(0, len(response)), st.integers(0, len(response)), st.binary(max_size=12)).map(
        lambda cut: response[: cut[0]] + cut[2] + response[cut[1] :]
    ),
    st.sampled_from([Act.CLOSE, Act.RESET]),
)
def test_whatever_a_server_sends_is_an_answer_or_an_expert_error(sent: bytes, end: Act) -> None:
    chunks, error = got([sent, end])
    assert error is not None or chunks[-1].finish_reason == "stop"


# --- going away ------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [[], [b"HTTP/1.1 200 OK\r\n"], BEGUN[:1], BEGUN])
def test_cancelling_closes_the_connection(begun: list[bytes]) -> None:
    async def main() -> None:
        async with served([*begun, Act.HANG]) as (expert, server):
            task = asyncio.create_task(read(expert))
            await server.asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.left.wait()

    asyncio.run(main())


def test_connections_are_kept() -> None:
    async def main() -> tuple[int, int]:
        async with served(GOOD) as (expert, server):
            for _ in range(5):
                await read(expert)
            return server.connections, len(server.bodies)

    assert asyncio.run(main()) == (1, 5)


def test_a_kept_connection_that_was_closed_is_opened_anew() -> None:
    async def main() -> tuple[str, int, int]:
        async with served(GOOD, [Act.CLOSE], GOOD) as (expert, server):
            await read(expert)
            return text(await read(expert)), server.connections, len(server.bodies)

    assert asyncio.run(main()) == ("so it", 2, 3)


def test_it_is_tried_again_only_once() -> None:
    async def main() -> int:
        async with served(GOOD, [Act.CLOSE], [Act.CLOSE], GOOD) as (expert, server):
            await read(expert)
            with pytest.raises(CutError):
                await read(expert)
            return len(server.bodies)

    assert asyncio.run(main()) == 3


@pytest.mark.parametrize("end", [Act.CLOSE, Act.RESET])
def test_what_a_new_connection_took_is_not_sent_again(end: Act) -> None:
    async def main() -> int:
        async with served([end], GOOD) as (expert, server):
            with pytest.raises(CutError):
                await read(expert)
            return len(server.bodies)

    assert asyncio.run(main()) == 1


async def failing(url: str, key: str = KEY, connect_s: float = 5.0) -> ExpertError:
    """How a request to this URL fails."""
    async with Client(connect_s) as client:
        with pytest.raises(ExpertError) as caught:
            await read(OpenAI(CARD, url, client, key))
    return caught.value


def closed_port() -> int:
    async def main() -> int:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port: int = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return port

    return asyncio.run(main())


def test_a_refused_connection_is_unavailable() -> None:
    error = asyncio.run(failing(f"http://127.0.0.1:{closed_port()}/v1"))
    assert type(error) is UnavailableError
    assert "cannot be reached" in error.message


@pytest.mark.parametrize(
    "url",
    [
        "http://no-such-host.invalid/v1",
        "http://" + "a" * 70 + ".invalid/v1",
        "http://127.0.0.1:99999/v1",
        "http:///v1",
        "ftp://127.0.0.1/v1",
        "127.0.0.1/v1",
        "",
        "http://[::1/v1",
        "http://x y/v1",
        "http://..:1/v1",
    ],
)
def test_what_leads_nowhere_is_an_expert_error(url: str) -> None:
    assert asyncio.run(failing(url)).message.startswith("gpt ")


def test_a_connection_that_does_not_come_about_is_unavailable() -> None:
    async def main() -> ExpertError:
        async with upstream([Act.HANG]) as server:
            return await failing(server.url.replace("http:", "https:"), connect_s=0.01)

    error = asyncio.run(main())
    assert type(error) is UnavailableError
    assert "within 0.01 s" in error.message


@pytest.mark.parametrize("key", ["a\r\nx-other: b", "a\nb", "a\x00b", "schlüssel€"])
def test_a_key_that_no_header_can_hold_is_not_sent(key: str) -> None:
    async def main() -> tuple[ExpertError, list[str]]:
        async with upstream(GOOD) as server:
            return await failing(server.url, key), server.heads

    error, heads = asyncio.run(main())
    assert type(error) is RejectedError
    assert "authorization" in error.message
    assert key not in error.message
    assert heads == []


def test_a_closed_client_is_unavailable() -> None:
    async def main() -> None:
        async with served(GOOD) as (expert, _):
            await expert._client.aclose()
            with pytest.raises(UnavailableError, match="closing"):
                await read(expert)

    asyncio.run(main())


def test_a_server_without_tls_is_an_expert_error() -> None:
    async def shout(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(plain(b"", "400 Bad Request"))
        writer.close()

    async def main() -> ExpertError:
        async with await asyncio.start_server(shout, "127.0.0.1", 0) as server:
            return await failing(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")

    assert type(asyncio.run(main())) is UnavailableError


# --- every failure of the layer below --------------------------------------------------------------


def subclasses(kind: type[UpstreamError]) -> Iterator[type[UpstreamError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from subclasses(child)


class Failing:
    """Stands where a client and its response would, to raise what they may raise."""

    closed = False
    status = 200
    content_type = "text/event-stream"

    def __init__(self, error: UpstreamError, *, late: bool) -> None:
        self._error = error
        self._late = late

    async def post(self, *_: object) -> "Failing":
        if not self._late:
            raise self._error
        return self

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        yield b"data: " + delta("so") + b"\n\n"
        raise self._error

    def close(self) -> None:
        pass


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("kind", [*subclasses(UpstreamError)])
def test_failures_below_are_expert_errors_without_the_key(kind: type[UpstreamError], late: bool) -> None:
    below = Failing(kind(f"what is {KEY}?"), late=late)
    expert = OpenAI(CARD, "http://h/v1", cast(Client, below), KEY)
    with pytest.raises(ExpertError) as caught:
        asyncio.run(read(expert))
    error = caught.value
    assert error.message.startswith("gpt ")
    shown = [error.message, repr(error), repr(expert), "".join(traceback.format_exception(error))]
    assert not any(KEY in text or "Bearer" in text for text in shown)


@pytest.mark.parametrize("where", [f"wrong key {KEY}", "x" * 380 + KEY])
@pytest.mark.parametrize("status", ["200 OK", "401 Unauthorized", "500 Oops"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_server_that_repeats_the_key_is_not_repeated(where: str, status: str, streamed: bool) -> None:
    body = json.dumps({"error": {"message": where}}).encode()
    _, error = got(sse(body) if streamed else [plain(body, status)])
    assert error is not None
    assert KEY[:8] not in error.message
