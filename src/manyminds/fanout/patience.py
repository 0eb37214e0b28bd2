"""How long to wait for an expert. Starts no task."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Sequence

import msgspec

from manyminds.alarm import Alarm, Watch
from manyminds.errors import CutError, GarbageError, SlowError
from manyminds.types import Chunk, Expert

__all__ = ["Patience", "check", "hear", "note_slow", "paced"]

_LIMIT_BYTES = 8_000_000  # of one answer with its JSON; what an expert sends is untrusted


class Patience(msgspec.Struct, frozen=True):
    """How long to wait: for a call's first token, between two tokens, and for everything.

    A local model has until the deadline to begin: it is late where this machine is busy, and to ask somebody
    else instead would make it busier. Whether it still lives is seen otherwise.
    """

    first_token_s: float = 30.0
    idle_s: float = 20.0
    deadline_s: float = 60.0


async def paced(
    expert: Expert, stream: AsyncGenerator[Chunk, None], patience: Patience, deadline: float, alarm: Alarm
) -> AsyncGenerator[Chunk, None]:
    """The chunks of one call as long as they come in time, are not too large, and end with a finish.

    `stream` is the expert's, `deadline` a time of the loop's clock. An expert that passes a limit of
    `patience` is told so; that a caller allows less time is not its fault.
    Closing the generator closes `stream`. Raises: SlowError, CutError, GarbageError, and what `stream` does.
    """
    pace = _Pace(expert, patience, deadline)
    watch = Watch(alarm, pace.due_s)
    try:
        while True:
            try:
                with watch:
                    chunk = await anext(stream)
            except StopAsyncIteration:
                break
            except TimeoutError:
                if not watch.rang:  # it is the expert's own
                    raise
                raise pace.slow() from None
            pace.count(chunk)
            yield chunk
            pace.go_on()
            watch.due_s = pace.due_s
    finally:
        await stream.aclose()
    pace.end()


async def hear(
    expert: Expert,
    stream: AsyncGenerator[Chunk, None],
    patience: Patience,
    deadline: float,
    alarm: Alarm,
    take: Callable[[Chunk], bool],
) -> bool:
    """As `paced`, at less cost, in a task of its own: `take` has each chunk at once, and may want no more.

    Whether it was heard to its end. Raises: as `paced`.
    """
    pace = _Pace(expert, patience, deadline)
    bell = _Bell(alarm, pace, min(patience.first_token_s, patience.idle_s))
    try:
        async for chunk in stream:
            if bell.rang:  # and the expert took no notice
                bell.silence()
                bell.set()
            pace.count(chunk)
            if not take(chunk):
                return False
            pace.go_on()
    except asyncio.CancelledError:
        if bell.rang and bell.silence():
            raise pace.slow() from None
        raise
    finally:
        bell.end()
        await stream.aclose()
    pace.end()
    return True


class _Pace:
    """What a call owes: its next chunk in time, no more than there is room for, and a finish in the end."""

    __slots__ = ("_clock", "_deadline", "_expert", "_idle_s", "_last", "_limit_s", "_owed_at", "_size")

    def __init__(self, expert: Expert, patience: Patience, deadline: float) -> None:
        self._clock = asyncio.get_running_loop().time
        self._expert = expert
        self._deadline = deadline
        self._idle_s = patience.idle_s
        self._limit_s = math.inf if expert.card.kind == "local" else patience.first_token_s
        self._owed_at = self._clock() + self._limit_s
        self._size = 0
        self._last: Chunk | None = None

    @property
    def due_s(self) -> float:
        """When the next chunk must have come."""
        return min(self._owed_at, self._deadline)

    @property
    def now(self) -> float:
        return self._clock()

    def count(self, chunk: Chunk) -> None:
        """Raises: GarbageError where it is too much."""
        self._size += len(chunk.text) + len(chunk.raw)
        if self._size > _LIMIT_BYTES:
            raise _too_much(self._expert.card.name)
        self._last = chunk

    def go_on(self) -> None:
        """Waits for the next chunk from now on."""
        self._limit_s = self._idle_s
        self._owed_at = self._clock() + self._idle_s

    def slow(self) -> SlowError:
        """What its being late is, of which it is told where that is its own fault."""
        name, late = self._expert.card.name, self._clock() >= self._deadline
        if self._owed_at <= self._deadline:
            note_slow(self._expert)
        return _slow(name, self._limit_s, self._last is not None, late)

    def end(self) -> None:
        """Raises: CutError where it has no finish."""
        if self._last is None or self._last.finish_reason is None:
            raise _unfinished(self._expert.card.name)


class _Bell:
    """Interrupts the task that made it when a chunk is due.

    A `Watch` is set for each wait. This one is set for the earliest that any chunk can be due, and puts
    itself off when it rings too soon. So whoever has one must wait for nothing else.
    """

    __slots__ = ("_alarm", "_cancelling", "_pace", "_spared_s", "_task", "rang")

    def __init__(self, alarm: Alarm, pace: _Pace, spared_s: float) -> None:
        """`spared_s`: no wait is shorter, also not one that has yet to begin."""
        task = asyncio.current_task()
        assert task is not None
        self.rang = False
        self._alarm, self._pace = alarm, pace
        self._task, self._cancelling = task, task.cancelling()
        self._spared_s = spared_s
        self.set()

    def set(self) -> None:
        self._alarm.note(self, min(self._pace.due_s, self._pace.now + self._spared_s), self._ring)

    def _ring(self) -> None:
        if self._pace.due_s <= self._pace.now:
            self.rang = True
            self._task.cancel()
        else:
            self.set()

    def silence(self) -> bool:
        """Takes the interruption back; whether it was the only one."""
        self.rang = False
        return self._task.uncancel() <= self._cancelling

    def end(self) -> None:
        self._alarm.drop(self)
        if self.rang:
            self.silence()


def check(name: str, chunks: Sequence[Chunk]) -> None:
    """An answer that came all at once, as `paced` checks what comes bit by bit.

    How large one in a single piece may be, says who reads it: thousands of vectors are larger than any text.

    Raises: GarbageError where it is too large; CutError where it has no finish.
    """
    if sum(len(chunk.text) + (0 if chunk.whole else len(chunk.raw)) for chunk in chunks) > _LIMIT_BYTES:
        raise _too_much(name)
    if not chunks or chunks[-1].finish_reason is None:
        raise _unfinished(name)


def note_slow(expert: Expert) -> None:
    """Tells an expert that keeps count of its failures that a call of it was given up for slowness.

    To itself it was cancelled, as any call that is no longer needed.
    """
    note = getattr(expert, "note_slow", None)
    if note is not None:
        note()


def _too_much(name: str) -> GarbageError:
    return GarbageError(f"{name} sent more than {_LIMIT_BYTES} bytes.")


def _unfinished(name: str) -> CutError:
    return CutError(f"{name} ended without finishing its answer.")


def _slow(name: str, limit_s: float, begun: bool, late: bool) -> SlowError:
    if late:
        return SlowError(f"{name} had not finished at the deadline.")
    return SlowError(f"{name} sent {'nothing more' if begun else 'no first token'} within {limit_s:g} s.")
