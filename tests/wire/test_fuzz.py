"""Real requests and replies, bent and broken: what reads them gives a value or an error of its own.

`pytest --hypothesis-profile=thorough` tries 5,000 of each.
"""

import json
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given

from manyminds.errors import CutError, GarbageError, InvalidRequestError, ManymindsError
from manyminds.types import Chunk, Query, Report, Usage
from manyminds.wire import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
    Dialect,
    Events,
    count_tokens,
    error_text,
    event,
    parse_chunk,
    parse_completion,
    parse_embeddings,
    request_body,
)
from tests.changed import replace
from tests.wire.bent import REQUESTS, TOKEN, WHOLE, bodies, piece, streamed, streams

DIALECTS = {"chat": CHAT, "completions": COMPLETIONS, "messages": MESSAGES, "responses": RESPONSES}
REPORT = Report("r1", "auto", "race", (), 1.0, 0.7, (), 0.0, 0.1)

# --- what must hold ----------------------------------------------------------------------------------------


def no_constant(name: str) -> None:
    raise ValueError(name)


def strict(raw: bytes) -> Any:
    """What any client can read. Numbers of 5,000 digits are JSON too, though not Python's."""
    return json.loads(raw.decode(), parse_constant=no_constant, parse_int=float)


def events_of(raw: bytes) -> list[Any]:
    """The data of server-sent events that any client can read."""
    assert b"\r" not in raw
    *found, rest = raw.split(b"\n\n")
    assert rest == b""
    data = []
    for lines in found:
        *kinds, last = lines.split(b"\n")
        assert len(kinds) <= 1
        assert all(kind.startswith(b"event: ") for kind in kinds)
        assert last.startswith(b"data: ")
        data.append("[DONE]" if last == b"data: [DONE]" else strict(last[6:]))
    return data


def refused(dialect: Dialect, error: ManymindsError) -> None:
    """Such an error can be told."""
    status, body = dialect.refuse(error, "r1")
    assert status >= 400
    assert strict(body)["error"]["message"]


def whole(dialect: Dialect, query: Query, chunks: Sequence[Chunk]) -> None:
    """Replies in one piece, if it is only to say that there is none."""
    try:
        body = dialect.reply(query).whole(chunks)
    except GarbageError as error:
        refused(dialect, error)
    else:
        assert strict(body)


def reads(dialect: Dialect, raw: bytes) -> None:
    """Whatever is read of a body can be sent on, and answered."""
    try:
        query = dialect.parse(raw, "r1")
    except InvalidRequestError as error:
        refused(dialect, error)
        return
    assert query.estimated_tokens <= query.most_tokens + 5 * len(query.messages)
    assert isinstance(query.question, str)
    for stream in (True, False):
        sent = strict(request_body(query, "m", whole=not stream))
        assert (sent["model"], sent["stream"]) == ("m", stream)
        assert "manyminds" not in sent
    chunks = [Chunk("Hi"), Chunk("", "stop", Usage(1, 2), report=REPORT)]
    assert strict(dialect.reply(query).whole(chunks))["manyminds"]
    reply = dialect.reply(query)
    assert events_of(b"".join(reply.events(chunk) for chunk in chunks))


@given(bodies(REQUESTS))
def test_a_request_is_read_or_refused(raw: bytes) -> None:
    for dialect in DIALECTS.values():
        reads(dialect, raw)
    for parse in (parse_embeddings, lambda raw: EMBEDDINGS.parse(raw, "r"), count_tokens):
        try:
            found = parse(raw)
        except InvalidRequestError as error:
            refused(CHAT, error)
        else:
            assert found


QUERIES = {
    name: replace(DIALECTS[name].parse(json.dumps(REQUESTS[at]).encode(), "r1"), include_usage=True)
    for name, at in (("chat", 0), ("completions", 2), ("messages", 4), ("responses", 3))
}


@given(bodies(WHOLE))
def test_a_completion_is_relayed_or_garbage(raw: bytes) -> None:
    assert "\n" not in error_text(raw, 200)
    assert len(error_text(raw, 200)) <= 200
    try:
        chunk = parse_completion(raw)
    except GarbageError as error:
        refused(CHAT, error)
        return
    for name, dialect in DIALECTS.items():
        whole(dialect, QUERIES[name], [chunk])
        whole(dialect, QUERIES[name], [replace(chunk, report=REPORT, usage=Usage(1, 2))])


def heard(received: Sequence[bytes]) -> tuple[list[Chunk], ManymindsError | None]:
    """The chunks of an upstream's stream, and what is wrong with it; the last ends the answer."""
    events, chunks = Events(limit_bytes=50_000), []
    try:
        for part in received:
            for data in events.feed(part):
                if data != b"[DONE]" and (chunk := parse_chunk(data)).raw:
                    chunks.append(chunk)
    except GarbageError as error:
        return chunks, error
    ends = [at for at, chunk in enumerate(chunks) if chunk.finish_reason is not None]
    if not ends:
        return chunks, CutError("no finish")
    rest = [replace(chunk, usage=None, finish_reason=None) for chunk in chunks]
    last = replace(chunks[ends[-1]], usage=Usage(1, 2), report=REPORT)
    del rest[ends[-1]]
    return [*rest, last], None


ODD = [  # what the search has found, or might
    streamed({"content": "x", "vendor": {"tool_calls": [7, "x", {"index": {}}]}}),
    streamed({"content": None, "tool_calls": None, "vendor": {"content": [1], "role": {}}}),
    streamed({"vendor": {"tool_calls": 7, "content": "y"}}, index=1000),
    streamed({"tool_calls": [{"function": {"arguments": "{}"}}, {"id": ""}]}),
    streamed({"tool_calls": []}, finish="stop", manyminds={"panel": []}),
]


@example((b"".join(event(json.dumps(one).encode()) for one in ODD), []))
@example((event(json.dumps(streamed({"content": "x"}, "stop")).encode()) * 3, [1, 2, 3]))
@given(streams())
def test_a_stream_is_relayed_or_garbage(stream: tuple[bytes, list[int]]) -> None:
    sent, cuts = stream
    parts = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    chunks, wrong = heard(parts)
    assert (chunks, str(wrong)) == ((again := heard([sent]))[0], str(again[1])), "it matters how it was cut"
    for name, dialect in DIALECTS.items():
        told(dialect, QUERIES[name], chunks, wrong)
        if wrong is None:
            whole(dialect, QUERIES[name], chunks)


def told(dialect: Dialect, query: Query, chunks: Sequence[Chunk], wrong: ManymindsError | None) -> None:
    """Relays a stream, to its end or to an error, as events that can be read."""
    reply, written = dialect.reply(query), b""
    try:
        for chunk in chunks:
            written += reply.events(chunk)
    except GarbageError as error:
        wrong = error
    if wrong is not None:
        written += reply.failed(wrong)
    found = events_of(written)
    assert (wrong is None) == ("error" not in found[-1]), "an answer that broke off looks finished"


# --- how much work it is -----------------------------------------------------------------------------------


def steps(act: Callable[[], object]) -> int:
    """How many instructions of Python an act takes: its work, on any machine."""
    taken = 0

    def trace(frame: FrameType, kind: str, _: Any) -> Any:
        nonlocal taken
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        taken += kind == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return taken


def call(i: int, **more: Any) -> dict[str, Any]:
    return {"id": f"call_{i}", "type": "function", "function": {"name": "f", "arguments": "{}"}} | more


FLOODS: dict[str, Callable[[int], list[Any]]] = {
    "text": lambda n: [streamed({"content": "x"})] * n,
    "text and refusal": lambda n: [streamed({"content": "x"}), streamed({"refusal": "x"})] * (n // 2),
    "pieces": lambda n: [streamed({"tool_calls": [call(0, index=0)]})] + [streamed(piece(" "))] * n,
    "calls": lambda n: [streamed({"tool_calls": [call(i)]}) for i in range(n)],
    "calls at once": lambda n: [streamed({"tool_calls": [call(i) for i in range(n)]})],
    "choices": lambda n: [streamed({"content": "x"}, index=i) for i in range(n)],
    "tokens": lambda n: [streamed({"content": "x"}, logprobs={"content": [TOKEN] * n})],
    "new fields": lambda n: [streamed({f"x_{i}": "x", "content": "x"}) for i in range(n)],
    "new fields of the head": lambda n: [streamed({"content": "x"}) | {f"x_{i}": "x"} for i in range(n)],
    "ends": lambda n: [streamed({"content": "x"}, "stop")] * n,
}


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("name", DIALECTS)
def test_four_times_as_much_is_four_times_the_work(name: str, flood: str) -> None:
    """In instructions and in bytes, of the stream and of the whole answer."""
    dialect, query = DIALECTS[name], QUERIES[name]

    def work(events: list[Any]) -> tuple[int, int]:
        chunks = [parse_chunk(json.dumps(one).encode()) for one in (*events, streamed({}, "stop"))]
        chunks = [replace(c, finish_reason=None, usage=None) for c in chunks[:-1]] + chunks[-1:]
        sent = 0

        def relay() -> None:
            nonlocal sent
            reply = dialect.reply(query)
            sent = sum(len(reply.events(chunk)) for chunk in chunks) + len(dialect.reply(query).whole(chunks))

        return steps(relay), sent

    few, many = work(FLOODS[flood](50)), work(FLOODS[flood](200))
    assert [b < 5 * a for a, b in zip(few, many, strict=True)] == [True, True], (few, many)
