import asyncio
import json
import re
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyminds.types import PanelEntry, Report, Usage
from manyminds.web.requestlog import RequestLog
from tests.clock import run

CHAT = "/v1/chat/completions"
NAMES = [
    "time",
    "request",
    "key",
    "endpoint",
    "model",
    "policy",
    "status",
    "seconds",
    "first_byte_s",
    "experts",
    "tokens_in",
    "tokens_out",
    "cost_usd",
]


def report(policy: str = "auto", *experts: str) -> Report:
    panel = [PanelEntry(e, "s", 1.0, "SECRET", None, 0.1, 0.2, 0.001, "ok", error="SECRET") for e in experts]
    return Report("r1", policy, "vote", tuple(panel), None, None, (), 0.00125, 0.0)


def written(*entries: dict[str, Any]) -> str:
    """What is written of these, each with plain values where it gives none."""
    pieces: list[str] = []

    async def add() -> None:
        log = RequestLog(pieces.append)
        for entry in entries:
            plain = {"request_id": "r1", "key_id": "k1", "endpoint": CHAT, "model": "auto"}
            log.add(**plain | {"status": 200, "seconds": 0.5} | entry)
        log.close()

    run(add())
    return "".join(pieces)


def fields(line: str) -> dict[str, str]:
    """The line's fields as they stand; everything in it is a field, and each comes once."""
    assert re.fullmatch(r'(?:(?:^| )\w+=(?:"(?:[^"\\]|\\.)*"|[^ "\n]+))*\n', line)
    pairs = re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|[^ "\n]+)', line)
    assert [name for name, _ in pairs] == NAMES
    return dict(pairs)


def test_a_line_says_what_came_of_a_request() -> None:
    before = time.time()
    entry = {"first_byte_s": 0.125, "report": report("max", "a", "b", "a"), "usage": Usage(12, 34)}
    found = fields(written(entry))
    at = datetime.fromisoformat(found.pop("time"))
    assert at.tzinfo == UTC
    assert before - 0.001 <= at.timestamp() <= time.time() + 0.001
    assert found == {
        "request": "r1",
        "key": "k1",
        "endpoint": CHAT,
        "model": "auto",
        "status": "200",
        "seconds": "0.500000",
        "first_byte_s": "0.125000",
        "tokens_in": "12",
        "tokens_out": "34",
        "policy": "max",
        "experts": "2",
        "cost_usd": "0.001250000",
    }


def test_what_there_is_not_is_a_dash_and_no_name_looks_like_it() -> None:
    found = fields(written({"key_id": None, "model": None, "status": "gone"}))
    assert {name for name, value in found.items() if value == "-"} == {
        "key",
        "model",
        "first_byte_s",
        "tokens_in",
        "tokens_out",
        "policy",
        "experts",
        "cost_usd",
    }
    assert found["status"] == "gone"
    found = fields(written({"key_id": "", "model": "-"}))
    assert (found["key"], found["model"]) == ('""', '"-"')


def test_no_text_of_answers_or_errors_is_written() -> None:
    assert "SECRET" not in written({"report": report("auto", "a")})


nasty = st.one_of(
    st.text(),
    st.text(alphabet='="\\\r\n\t\x00\x1b\x7f\x85\u2028\u202e\ud800 a-'),
    st.sampled_from(
        [" status=200", '"', '\\"', 'x" status=200 y="', "\r\ntime=2026", "a" * 10_000, "é" * 80]
    ),
)


@given(
    st.fixed_dictionaries(dict.fromkeys(("request_id", "key_id", "endpoint", "model", "status"), nasty)),
    nasty,
)
def test_nobody_forges_a_line(values: dict[str, str], policy: str) -> None:
    text = written(values | {"report": report(policy)}, {})
    first, second = text.splitlines(keepends=True)
    assert all(" " <= character <= "~" for character in first[:-1])
    assert fields(second)["model"] == "auto"
    found = fields(first)
    for name, sent in {**values, "policy": policy}.items():
        shown = found[name.removesuffix("_id")]
        read = json.loads(shown) if shown.startswith('"') else shown
        assert read == (sent if len(sent) <= 80 else sent[:79] + "…")


def test_lines_gather_and_are_written_together() -> None:
    pieces: list[str] = []

    async def serve() -> None:
        log = RequestLog(pieces.append, 0.1)
        for number in range(3):
            log.add(f"r{number}", None, CHAT, "auto", 200, 0.5)
            await asyncio.sleep(0.03)
        assert pieces == []
        await asyncio.sleep(0.02)
        assert [fields(line)["request"] for line in pieces[0].splitlines(keepends=True)] == ["r0", "r1", "r2"]
        await asyncio.sleep(60)
        assert len(pieces) == 1
        log.add("r3", None, CHAT, "auto", 200, 0.5)
        await asyncio.sleep(0.11)
        assert len(pieces) == 2
        log.close()
        assert len(pieces) == 2

    run(serve())


def test_many_lines_let_others_have_their_turn() -> None:
    pieces: list[str] = []

    async def serve() -> None:
        log = RequestLog(pieces.append, 0.1)
        for number in range(1000):
            log.add(f"r{number}", None, CHAT, "auto", 200, 0.5)
        await asyncio.sleep(0.1)
        turns = set()
        for _ in range(20):
            turns.add(len(pieces))
            await asyncio.sleep(0)
        assert {1, 2, 3, 4} <= turns

    run(serve())
    lines = "".join(pieces).splitlines(keepends=True)
    assert [fields(line)["request"] for line in lines] == [f"r{number}" for number in range(1000)]


def test_close_writes_the_rest_at_once_and_sets_no_timer() -> None:
    pieces: list[str] = []

    async def serve() -> None:
        log = RequestLog(pieces.append, 0.1)
        for number in range(300):
            log.add(f"r{number}", None, CHAT, "auto", 200, 0.5)
        log.close()
        assert "".join(pieces).count("\n") == 300
        before = len(pieces)
        await asyncio.sleep(1)
        assert len(pieces) == before

    run(serve())


def test_a_file_that_cannot_be_written_is_said_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    pieces: list[str] = []
    full = [True]

    def write(text: str) -> None:
        if full[0]:
            raise OSError(28, "No space left on device")
        pieces.append(text)

    async def serve() -> None:
        log = RequestLog(write, 0.1)
        for number in range(4):
            full[0] = number in (0, 1, 3)
            log.add(f"r{number}", None, CHAT, "auto", 200, 0.5)
            await asyncio.sleep(0.2)

    run(serve())
    assert [fields(piece)["request"] for piece in pieces] == ["r2"]
    assert len(caplog.records) == 2  # of r0 and of r3
    assert "No space left on device" in caplog.text
