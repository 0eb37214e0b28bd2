"""Real processes on one board, some of which are killed at the worst moment."""

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from manyminds import board as module
from manyminds.board import STATE_BYTES, Board

FORM = struct.Struct("<32q")  # as long as a state may be
PROGRAM = """
import struct, sys
from manyminds.board import Board
fd, column, rounds = map(int, sys.argv[1:])
board, form = Board(fd), struct.Struct("<32q")
cell, mine = board.cell("count", owner=column + 1), board.column(column)
print("on", flush=True)
while rounds:
    rounds -= 1
    mine.put(1)
    with cell:
        cell.hold()
        count = cell.load(form)[0] if cell.turn else 0
        cell.store(form, *[count + 1] * 32)
        cell.suggest(count + 1)
    mine.put(0)
"""


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.make(4)
    yield made
    made.close()


def start(board: Board, column: int, rounds: int) -> "subprocess.Popen[bytes]":
    words = [sys.executable, "-c", PROGRAM, str(board.fd), str(column), str(rounds)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, pass_fds=[board.fd])
    assert process.stdout is not None
    assert process.stdout.readline() == b"on\n"
    return process


def end(process: "subprocess.Popen[bytes]") -> None:
    process.wait(timeout=30)
    assert process.stdout is not None
    process.stdout.close()


def test_several_processes_count_as_one(board: Board) -> None:
    rounds = 20_000
    processes = [start(board, column, rounds) for column in range(4)]
    for process in processes:
        end(process)
        assert process.returncode == 0
    cell = board.cell("count")
    assert cell is not None
    assert cell.load(FORM) == (4 * rounds,) * 32
    assert (cell.hint, cell.turn) == (4 * rounds, 4 * rounds)


def test_who_is_killed_leaves_nothing_torn_locked_or_counted(board: Board) -> None:
    cell, mine = board.cell("count", owner=9), board.column(3)
    assert cell is not None
    last = 0
    for _ in range(10):
        process = start(board, 0, -1)
        until = time.monotonic() + 10
        while cell.turn < last + 500:
            assert time.monotonic() < until
        process.send_signal(signal.SIGKILL)
        end(process)
        with cell:
            (last, *others) = cell.load(FORM)
        assert others == [last] * 31
        assert cell.turn == last
        assert cell.hint in (last - 1, last)
        held = [cell.held]
        board.bury(0, 1)
        assert [*held, cell.held] == [True, False]
        assert mine.put(0) == 0


def test_only_what_the_dead_held_is_taken_back(board: Board) -> None:
    mine, others = board.cell("a", owner=1), board.cell("b", owner=2)
    assert mine is not None
    assert others is not None
    for cell in (mine, others):
        with cell:
            cell.hold()
    board.bury(0, 1)
    assert (mine.held, others.held) == (False, True)


def test_columns_are_summed_for_whoever_counts(board: Board) -> None:
    columns = [board.column(number) for number in range(4)]
    assert [column.put(n) for n, column in enumerate(columns, 1)] == [1, 3, 6, 10]
    board.bury(3, 1)
    assert columns[0].put(0) == 5


def test_a_name_has_one_cell_and_another_name_another(board: Board) -> None:
    again = Board(os.dup(board.fd))
    names = [f"key {n}" for n in range(500)]
    for number, name in enumerate(names):
        cell = board.cell(name)
        assert cell is not None
        assert cell.turn == 0
        with cell:
            cell.store(FORM, *[number] * 32)
    for number, name in enumerate(names):
        cell = again.cell(name)
        assert cell is not None
        assert cell.load(FORM)[0] == number
    again.close()


def test_a_full_board_says_so_and_keeps_what_is_there(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CELLS", 8)
    assert all(board.cell(str(n)) is not None for n in range(8))
    assert board.cell("one more") is None
    assert board.cell("3") is not None


def test_states_alternate_and_are_as_long_as_they_may_be(board: Board) -> None:
    cell, beside = board.cell("a"), board.cell("b")
    assert cell is not None
    assert beside is not None
    assert FORM.size == STATE_BYTES
    for number in range(1, 5):
        assert cell.store(FORM, *[-1] * 31, number) == number
        assert cell.load(FORM) == (*[-1] * 31, number)
    assert (beside.turn, beside.hint, beside.held) == (0, 0, False)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_loop_has_the_clock_that_all_processes_have(loop: str) -> None:
    made = __import__(loop).new_event_loop()
    try:
        before = time.clock_gettime(time.CLOCK_MONOTONIC)
        assert abs(made.time() - before) < 60  # another clock would be off by years
        assert abs(time.monotonic() - before) < 60
    finally:
        made.close()
