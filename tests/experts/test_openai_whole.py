"""Answers in one piece, and when to come back."""

import asyncio
import json
from collections.abc import Sequence
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.errors import CutError, ExpertError, GarbageError, UnavailableError
from manyminds.types import Chunk, Usage
from manyminds.wire import parse_completion
from tests.experts.test_openai import ERROR, GOOD, QUERY, USAGE, got, read, served
from tests.experts.upstream import Act, Reply, delta, plain, sse


def completed(*replies: Reply) -> tuple[Sequence[Chunk], ExpertError | None]:
    """What came of one request for a whole answer, and how it failed."""

    async def main() -> tuple[Sequence[Chunk], ExpertError | None]:
        async with served(*replies) as (expert, _):
            try:
                return await expert.complete(QUERY), None
            except ExpertError as error:
                return (), error

    return asyncio.run(main())


def choice(content: str | None = "so it", finish: str | None = "stop", **fields: Any) -> dict[str, Any]:
    return {"index": 0, "message": {"content": content}, "finish_reason": finish} | fields


def reply(*choices: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps(
        {"choices": choices, "usage": {"prompt_tokens": 3, "completion_tokens": 7}} | fields
    ).encode()


def test_a_whole_answer_is_one_chunk() -> None:
    body = reply(choice(), x=[1.5], timings={"prompt_ms": 10, "predicted_ms": 20}).replace(b", ", b",\n ")
    (chunk,), error = completed([plain(body)])
    assert error is None
    cost: Any = pytest.approx((3 * 0.1 + 7 * 0.3) / 1e6)
    assert chunk == Chunk("so it", "stop", Usage(3, 7, 0.03, cost), body, whole=True)


def test_a_whole_answer_is_asked_for() -> None:
    async def main() -> dict[str, Any]:
        async with served([plain(reply(choice()))]) as (expert, server):
            await expert.complete(QUERY)
            return server.bodies[0]

    assert asyncio.run(main())["stream"] is False


@pytest.mark.parametrize(
    ("choices", "said", "finish"),
    [
        ([choice(None, "tool_calls")], "", "tool_calls"),
        ([choice(finish=None)], "so it", "stop"),
        ([choice("other", None, index=1), choice("so", "length")], "so", "length"),
        ([{"message": {}}], "", "stop"),
    ],
)
def test_what_a_whole_answer_lacks_is_made_up_for(choices: list[Any], said: str, finish: str) -> None:
    (chunk,), _ = completed([plain(reply(*choices))])
    assert (chunk.text, chunk.finish_reason) == (said, finish)


@pytest.mark.parametrize(("content", "tokens"), [("", 0), ("a", 1), ("é" * 20, 10)])
def test_usage_of_a_whole_answer_that_is_missing_is_estimated(content: str, tokens: int) -> None:
    (chunk,), _ = completed([plain(reply(choice(content), usage=None))])
    assert chunk.usage is not None
    assert (chunk.usage.prompt_tokens, chunk.usage.completion_tokens) == (QUERY.estimated_tokens, tokens)
    assert chunk.usage.cost_usd > 0


def test_a_stream_will_do_where_a_whole_answer_was_asked_for() -> None:
    chunks, error = completed(GOOD)
    assert error is None
    assert "".join(chunk.text for chunk in chunks) == "so it"
    assert not any(chunk.whole for chunk in chunks)


def test_a_whole_answer_will_not_do_where_a_stream_was_asked_for() -> None:
    chunks, error = got([plain(reply(choice()))])
    assert (chunks, type(error)) == ([], GarbageError)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (ERROR, "no room"),
        (b"", "no chat completion"),
        (b"{oops", "no chat completion"),
        (b"[]", "no chat completion"),
        (reply(), "no chat completion"),
        (reply({"text": "so"}), "no chat completion"),
        (reply(choice(), usage={"prompt_tokens": -1}), "no chat completion"),
        (reply(choice("x" * 8_000_000)), "8000000 bytes"),
        (b'{"choices":[{"message":{}}],"x":"\xff"}', "no chat completion"),
    ],
)
def test_what_is_no_whole_answer_is_garbage(body: bytes, message: str) -> None:
    chunks, error = completed([plain(body)])
    assert (chunks, type(error)) == ((), GarbageError)
    assert error is not None
    assert error.message.startswith("gpt ")
    assert message in error.message


def test_a_whole_answer_that_is_cut_is_no_answer() -> None:
    chunks, error = completed([plain(reply(choice()))[:-1], Act.CLOSE])
    assert (chunks, type(error)) == ((), CutError)


@given(
    st.binary(max_size=60) | st.text().map(lambda s: reply(choice(s))),
    st.integers(0, 200),
    st.binary(max_size=3),
)
def test_any_bytes_are_a_completion_or_garbage(body: bytes, place: int, noise: bytes) -> None:
    body = body[:place] + noise + body[place + len(noise) :]
    try:
        chunk = parse_completion(body)
    except GarbageError:
        return
    assert chunk.raw == body
    assert chunk.finish_reason
    assert json.loads(body)["choices"]


# --- when to come back -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ("", None),
        ("retry-after: 7\r\n", 7.0),
        ("Retry-After: 0.5\r\n", 0.5),
        ("retry-after: 7\r\nretry-after-ms: 250\r\n", 0.25),
        ("retry-after: 7\r\nretry-after-ms: soon\r\n", 7.0),
        ("retry-after: -7\r\n", 0.0),
        ("retry-after: 1000000\r\n", 86_400.0),
        (f"retry-after: {formatdate(0, usegmt=True)}\r\n", 0.0),
        (f"retry-after: {formatdate(4e9, usegmt=True)}\r\n", 86_400.0),
        ("retry-after: inf\r\n", None),
        ("retry-after: nan\r\n", None),
        ("retry-after: \r\n", None),
        ("retry-after: tomorrow, 99 Foo\r\n", None),
        ("retry-after: Wed, 21 Oct 99999 07:28:00 GMT\r\n", None),
    ],
)
@pytest.mark.parametrize("status", ["429 Too Many", "503 Unavailable", "529 Overloaded"])
def test_when_to_come_back_is_passed_on(headers: str, wait_s: float | None, status: str) -> None:
    _, error = got([plain(ERROR, status, headers=headers)])
    assert type(error) is UnavailableError
    assert error.retry_after_s == wait_s


def test_what_will_not_pass_says_no_time() -> None:
    _, error = got([plain(ERROR, "401 Unauthorized", headers="retry-after: 7\r\n")])
    assert error is not None
    assert error.retry_after_s is None


# --- connections -----------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True])
def test_connections_are_kept_after_any_reply_that_ends(whole: bool) -> None:
    stream = [*sse(delta("so"), delta(finish="stop"), USAGE, end=False), b"0\r\n\r\n"]
    replies = [stream, [plain(reply(choice()))] if whole else stream, [plain(ERROR, "500 Oops")], stream]

    async def main() -> tuple[int, int]:
        async with served(*replies) as (expert, server):
            for _ in replies:
                try:
                    await (expert.complete(QUERY) if whole else read(expert))
                except UnavailableError:
                    continue
                for _ in range(100):  # the end may come just after what says that it will
                    await asyncio.sleep(0)
            return server.connections, len(server.bodies)

    assert asyncio.run(main()) == (1, 4)
