"""An embedding model behind a URL: what it is sent, what is made of its replies, and how it fails."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from manyminds.errors import (
    CutError,
    ExpertError,
    GarbageError,
    RefusedError,
    RejectedError,
    UnavailableError,
)
from manyminds.experts.guarded import Guarded
from manyminds.experts.openai import Embedder
from manyminds.types import Card, Chunk, Usage
from manyminds.upstream import Client
from manyminds.wire import EMBEDDINGS
from tests.experts.upstream import Act, Reply, Upstream, delta, plain, sse, upstream

KEY = "sk-very-secret/0+1="
CARD = Card("vec", "openai", model="up", price_in_usd_per_m=0.1, price_out_usd_per_m=9.0)
BODY = b'{"model":"ada","input":["ab", "c\\u00e9"],"x":[1.50],"manyminds":{"deadline_s":9}}'
QUERY = EMBEDDINGS.parse(BODY, "r1")
ROW = {"object": "embedding", "index": 0, "embedding": "AACAPw=="}


def said(*rows: Any, **fields: Any) -> bytes:
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return json.dumps({"object": "list", "data": rows, "usage": usage} | fields, indent=1).encode()


def asked(*replies: Reply) -> tuple[Sequence[Chunk], ExpertError | None, Upstream]:
    """What came of one request, and how it failed."""

    async def main() -> tuple[Sequence[Chunk], ExpertError | None, Upstream]:
        async with upstream(*replies) as server, Client() as client, asyncio.timeout(20):
            expert = Embedder(CARD, server.url + "/", client, KEY)
            try:
                return await expert.complete(QUERY), None, server
            except ExpertError as error:
                return (), error, server

    return asyncio.run(main())


def test_the_request_is_the_callers_own() -> None:
    *_, server = asked([plain(said(ROW))])
    assert server.bodies == [{"model": "up", "input": ["ab", "c\u00e9"], "x": [1.5]}]
    (head,) = server.heads
    assert head.startswith("post /v1/embeddings ")
    assert f"authorization: bearer {KEY}" in head


@pytest.mark.parametrize("row", [ROW, {"embedding": [0.1, -2e-9]}, {"embedding": {"int8": [1]}}])
def test_the_reply_is_relayed_and_priced(row: Any) -> None:
    body = said(row, model="up")
    (chunk,), error, _ = asked([plain(body)])
    assert error is None
    cost: Any = pytest.approx(3 * 0.1 / 1e6)
    assert chunk == Chunk("", "stop", Usage(3, 0, 0.0, cost), body, whole=True)


def test_usage_that_is_missing_is_estimated() -> None:
    (chunk,), *_ = asked([plain(said(ROW, usage=None))])
    assert chunk.usage is not None
    assert (chunk.usage.prompt_tokens, chunk.usage.completion_tokens) == (QUERY.estimated_tokens, 0)


def test_as_a_stream_it_is_the_same() -> None:
    async def main() -> list[Chunk]:
        async with upstream([plain(said(ROW))]) as server, Client() as client:
            return [chunk async for chunk in Embedder(CARD, server.url, client).stream(QUERY)]

    assert [chunk.raw for chunk in asyncio.run(main())] == [said(ROW)]


def test_large_batches_pass() -> None:
    rows = [{"index": i, "embedding": "A" * 8192} for i in range(1200)]  # 10 MB
    (chunk,), error, _ = asked([plain(said(*rows))])
    assert error is None
    assert chunk.raw == said(*rows)


@pytest.mark.parametrize(
    ("reply", "kind", "why"),
    [
        ([plain(said())], GarbageError, "no embeddings"),
        ([plain(b'{"choices": []}')], GarbageError, "no embeddings"),
        ([plain(b'{"data": 7}')], GarbageError, "data"),
        ([plain(b'{"error": {"message": "tired"}}')], GarbageError, "tired"),
        ([plain(b'{"data": [')], GarbageError, "no embeddings"),
        ([plain(b"Hello", kind="text/plain")], GarbageError, "Hello"),
        (sse(delta("Hi"), delta(finish="stop")), GarbageError, "sent a stream"),
        ([plain(b'{"error": {"message": "too long"}}', "400 Bad Request")], RefusedError, "too long"),
        ([plain(f"bad key {KEY}".encode(), "401 Unauthorized")], RejectedError, r"bad key \*\*\*"),
        ([plain(b"", "503 Service Unavailable", headers="retry-after: 7\r\n")], UnavailableError, "503"),
        ([plain(said(ROW))[:-9], Act.CLOSE], CutError, "broke off"),
    ],
)
def test_what_is_no_answer_says_so(reply: Reply, kind: type[ExpertError], why: str) -> None:
    _, error, _ = asked(reply)
    assert type(error) is kind
    with pytest.raises(kind, match=why) as caught:
        raise error
    assert KEY not in str(caught.value)


def test_it_is_asked_again_where_it_was_not_available() -> None:
    async def main() -> tuple[Sequence[Chunk], int]:
        busy = [plain(b"", "503 Service Unavailable", headers="retry-after: 0\r\n")]
        async with upstream(busy, [plain(said(ROW))]) as server, Client() as client:
            guarded = Guarded(Embedder(CARD, server.url, client), lambda: 0.0)
            return await guarded.complete(QUERY), len(server.bodies)

    (chunk,), times = asyncio.run(main())
    assert (chunk.raw, times) == (said(ROW), 2)
