"""The panel at work on a terminal: what is said of each call, and that nothing of it stays in the way."""

import io
import os
import sys
from pathlib import Path

import pytest
from rich.console import Console

from manyminds.cli.lanes import Lanes
from manyminds.types import Asked, Began, Ended, Event, Routed, Wrote
from tests.e2e.node import borrowed, need


def plan(*names: str, reserve: tuple[str, ...] = ()) -> Routed:
    calls = tuple(Asked(name, name, stage, 0.7, 0.5, "generate", 1) for stage, name in enumerate(names))
    return Routed("auto", "vote", "history", names[0], 0.8, 0.000123, 1.5, calls, reserve)


def began(call: int, expert: str, hedges: str | None = None) -> Began:
    return Began(call, expert, expert, 0, "generate", hedges, 0.0)


def ended(
    call: int, status: str = "ok", *, lost: bool = False, declined: bool = False, error: str = ""
) -> Ended:
    return Ended(call, status, declined, error or None, 0.1, 2.5, 0.0, 3, lost)


def shown(*events: Event, width: int = 110, now_s: float = 4.0) -> list[str]:
    """What stands there, line by line, as a terminal without colours has it."""
    times = iter([0.0] * sum(isinstance(event, Began) for event in events))
    lanes = Lanes(lambda: next(times, now_s))
    for event in events:
        lanes.watch(event)
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False)
    console.print(lanes)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_nothing_is_shown_before_anything_is_planned() -> None:
    assert shown() == []


def test_each_call_says_in_words_how_far_it_is() -> None:
    events: list[Event] = [
        plan("a", "b", "c", "d", "e", "f"),
        *(began(i, name) for i, name in enumerate("abcde")),
        Wrote(1, "It is "),
        Wrote(1, "43."),
        ended(2),
        ended(3, "failed", error="d is down."),
        ended(4, declined=True),
    ]
    title, heads, *rows = shown(*events)
    assert title == "auto: vote about history, expecting 80% right for $0.000123 in 1.5 s"
    assert heads.split() == ["expert", "p(right)", "state", "seconds", "draft"]
    assert [row.split() for row in rows] == [
        ["a", "0.70", "asked", "4.0"],
        ["b", "0.70", "writes", "4.0", "It", "is", "43."],
        ["c", "0.70", "done", "2.5"],
        ["d", "0.70", "failed", "2.5", "d", "is", "down."],
        ["e", "0.70", "declines", "2.5"],
        ["f", "0.70", "asked", "next,", "if", "need", "be"],
    ]


@pytest.mark.parametrize(
    ("status", "words"),
    [("late", "too late"), ("cut", "broke off"), ("cancelled", "no longer needed"), ("new", "new")],
)
def test_how_a_call_ended_is_in_words(status: str, words: str) -> None:
    assert words in shown(plan("a"), began(0, "a"), ended(0, status))[2]


def test_who_is_asked_beside_whom_and_who_was_slower() -> None:
    rows = shown(plan("a", reserve=("b",)), began(0, "a"), began(1, "b", "a"))[2:]
    assert [row.split() for row in rows] == [
        ["a", "0.70", "asked", "4.0"],
        ["b", "–", "asked", "beside", "a", "4.0"],
    ]
    rows = shown(plan("a"), began(0, "a"), began(1, "b", "a"), ended(0, "cancelled", lost=True))[2:]
    assert "slower than another" in rows[0]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_it_fits_and_shows_how_a_draft_goes_on(width: int) -> None:
    name, words = "an-expert-of-a-very-long-name" * 3, " ".join(f"word{i}" for i in range(500))
    lines = shown(plan(name), began(0, name), Wrote(0, words), width=width)
    assert all(len(line) <= width for line in lines)
    assert len(lines) == 3
    assert ("word499" in lines[2]) == (width >= 80)


def test_what_experts_write_is_not_obeyed() -> None:
    lines = shown(plan("a"), began(0, "a"), Wrote(0, "\x1b[31mred\x1b[2J [bold]no[/bold] :smile:\r\n"))
    assert "\x1b" not in "".join(lines)
    assert "[bold]no[/bold] :smile:" in lines[2]


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no pseudo-terminals")
def test_it_is_gone_when_the_answer_is_there(tmp_path: Path) -> None:
    import pty

    need()
    home = borrowed(tmp_path)
    words = ["ask", "--include", "smollm2-135m", "--max-tokens", "8", "Say hello."]
    pid, screen = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        environ = os.environ | {"MANYMINDS_HOME": str(home), "TERM": "xterm", "COLUMNS": "100"}
        os.execve(sys.executable, [sys.executable, "-m", "manyminds", *words], environ)
    written = bytearray()
    while piece := _read(screen):
        written += piece
    assert os.waitpid(pid, 0)[1] == 0, written.decode(errors="replace")
    text = written.decode(errors="replace")
    before, _, after = text.rpartition("\x1b[2K")  # the last line of the lanes is erased
    assert "expecting" in before
    assert "smollm2-135m" in before
    assert "expecting" not in after
    assert "smollm2-135m" in after  # the panel as a table
    assert after.count("\x1b[?25l") <= after.count("\x1b[?25h")  # the cursor is back


def _read(screen: int) -> bytes:
    try:
        return os.read(screen, 65_536)
    except OSError:  # what Linux says when the other side has closed it
        return b""
