"""Memory that a node's processes share: who is inside, and small states that one at a time changes.

Knows none of what the states mean. Times in them are comparable: all processes of a machine read one
monotonic clock. No process can leave it torn or locked, however it ends: a state is written beside the one
that counts and then named by one aligned word, and the kernel takes back the locks of the dead.
"""

import hashlib
import mmap
import os
import struct
import tempfile
from collections.abc import Iterator
from functools import partial
from types import TracebackType
from typing import Any, Final

__all__ = ["STATE_BYTES", "Board", "Cell", "Column"]

STATE_BYTES: Final = 256
"""What a cell's state takes at most."""

_WORD: Final = 8
_CELLS: Final = 65_536
_HEAD_BYTES: Final = 4096  # how many columns there are, and the columns; byte 0 locks who makes a cell
_COLUMNS: Final = _HEAD_BYTES // _WORD - 1  # at most
_FIRST: Final = 64  # where a cell's states are, and ...
_SECOND: Final = _FIRST + STATE_BYTES
_CELL_BYTES: Final = _SECOND + STATE_BYTES
_TAG: Final = struct.Struct("<qq")
_TAG_LOW, _TAG_HIGH, _TURN, _HINT, _HOLDER = range(5)  # words at the beginning of a cell


class Board:
    """One for all processes, each of which opens it by the descriptor that it inherits.

    A cell is named. Its first user finds it empty, and it is never given to another name: 65,536 names fit.
    """

    def __init__(self, fd: int) -> None:
        """Opens what `make` has made. The descriptor is the board's from now on."""
        import fcntl  # which not every system has, and only several processes need

        self.fd = fd
        self.lock = partial(fcntl.lockf, fd, fcntl.LOCK_EX, 1)
        self.unlock = partial(fcntl.lockf, fd, fcntl.LOCK_UN, 1)
        self.memory = mmap.mmap(fd, os.fstat(fd).st_size)
        self.words = memoryview(self.memory).cast("q")

    @classmethod
    def make(cls, columns: int) -> "Board":
        """An empty one for so many columns. Its pages take memory once something is on them."""
        assert 0 < columns <= _COLUMNS
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("manyminds-board")
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, _HEAD_BYTES + _CELLS * _CELL_BYTES)
        board = cls(fd)
        board.words[0] = columns
        return board

    def close(self) -> None:
        """Lets go. Whoever still uses a cell or a column fails."""
        self.words.release()
        self.memory.close()
        os.close(self.fd)

    def cell(self, name: str, owner: int = 0, *, make: bool = True) -> "Cell | None":
        """The cell of that name, made where there is none; None where there is no room.

        `owner`, above 0, is who holds what this process holds. With `make=False`, None where there is none.
        """
        low, high = _TAG.unpack(
            hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        )
        low = low or 1  # 0 is nobody's
        start = low % _CELLS
        found = self._find(start, low, high)
        if found is None and make:
            self.lock(0)
            try:
                found = self._find(start, low, high) or self._claim(start, low, high)
            finally:
                self.unlock(0)
        return None if found is None else Cell(self, found, owner)

    @property
    def columns(self) -> int:
        """How many there are."""
        return self.words[0]

    def column(self, number: int) -> "Column":
        """Where process `number`, from 0 on, counts."""
        assert 0 <= number < self.columns
        return Column(self.words, number)

    def bury(self, column: int, owner: int) -> None:
        """Takes back what a process that is dead counted and held."""
        self.words[1 + column] = 0
        for offset in self._used():
            if self.words[offset // _WORD + _HOLDER] == owner:
                with Cell(self, offset, owner):  # nobody changes the holder meanwhile
                    if self.words[offset // _WORD + _HOLDER] == owner:
                        self.words[offset // _WORD + _HOLDER] = 0

    def _used(self) -> Iterator[int]:
        for offset in range(_HEAD_BYTES, len(self.memory), _CELL_BYTES):
            if self.words[offset // _WORD + _TAG_LOW]:
                yield offset

    def _find(self, start: int, low: int, high: int) -> int | None:
        for offset in _probed(start):
            word = offset // _WORD
            if self.words[word + _TAG_LOW] == 0:
                return None
            if self.words[word + _TAG_LOW] == low and self.words[word + _TAG_HIGH] == high:
                return offset
        return None

    def _claim(self, start: int, low: int, high: int) -> int | None:
        for offset in _probed(start):
            word = offset // _WORD
            if self.words[word + _TAG_LOW] == 0:
                self.words[word + _TAG_HIGH] = high
                self.words[word + _TAG_LOW] = low  # from here on it can be found
                return offset
        return None


def _probed(start: int) -> Iterator[int]:
    """Where a name may be, in order."""
    for step in range(_CELLS):
        yield _HEAD_BYTES + (start + step) % _CELLS * _CELL_BYTES


class Cell:
    """`with cell:` around `load` and `store`; nobody else is inside meanwhile.

    One thread of a process only. `hint` and `holder` may be read outside: each is one word.
    """

    __slots__ = ("_lock", "_memory", "_offset", "_owner", "_turn", "_unlock", "_words")

    def __init__(self, board: Board, offset: int, owner: int) -> None:
        self._lock = board.lock
        self._unlock = board.unlock
        self._memory = board.memory
        self._words = board.words
        self._offset = offset
        self._owner = owner
        self._turn = offset // _WORD + _TURN

    def __enter__(self) -> None:
        self._lock(self._offset)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unlock(self._offset)

    @property
    def turn(self) -> int:
        """How often it was stored; 0 is an empty cell."""
        return self._words[self._turn]

    @property
    def hint(self) -> int:
        """What was last suggested; 0 at first."""
        return self._words[self._turn + _HINT - _TURN]

    @property
    def held(self) -> bool:
        """Whether a process that lives holds what the state says to be held."""
        return self._words[self._turn + _HOLDER - _TURN] != 0

    def hold(self) -> None:
        """Names this process as the holder."""
        self._words[self._turn + _HOLDER - _TURN] = self._owner

    def load(self, form: struct.Struct) -> tuple[Any, ...]:
        """The state, of a cell that is not empty."""
        return form.unpack_from(self._memory, self._offset + (_FIRST, _SECOND)[self._words[self._turn] & 1])

    def store(self, form: struct.Struct, *state: Any) -> int:
        """Another state. Returns the turn, which it is known by."""
        turn: int = self._words[self._turn] + 1
        form.pack_into(self._memory, self._offset + (_FIRST, _SECOND)[turn & 1], *state)
        self._words[self._turn] = turn
        return turn

    def suggest(self, hint: int) -> None:
        """What those outside may go by."""
        self._words[self._turn + _HINT - _TURN] = hint


class Column:
    """What one process counts, for all to see."""

    __slots__ = ("_end", "_own", "_words")

    def __init__(self, words: "memoryview[int]", number: int) -> None:
        self._words = words
        self._own = 1 + number
        self._end = 1 + words[0]

    def put(self, count: int) -> int:
        """Says how many there are here, and returns how many there are everywhere.

        Without a lock: of those who count at the same moment, the last sees all the others.
        """
        self._words[self._own] = count
        return sum(self._words[1 : self._end])
