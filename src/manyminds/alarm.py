"""Limits of time for many waits at next to no cost: one timer, set anew only where it rings too early."""

import asyncio
import math
from collections.abc import Callable, Iterable
from types import TracebackType

__all__ = ["Alarm", "Watch"]


class Alarm:
    """Calls back at times of the loop's clock. In another loop it begins anew.

    Most waits end long before their time, so nothing is done for each of them but to note it: the timer is
    set for the earliest and left alone when that one is dropped.
    """

    def __init__(self, clock: Callable[[], float] | None = None, *, late_s: float = 0.0) -> None:
        """`clock` is what others measure durations by, in seconds. The loop's, without: uvloop's stands
        still for a millisecond at a time. Two rings are `late_s` apart: each looks at all that is noted.
        """
        self.clock = clock or _loop_time
        self._late_s = late_s
        self._noted: dict[object, tuple[float, Callable[[], None]]] = {}
        self._rings_s = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def note(self, key: object, due_s: float, ring: Callable[[], None]) -> None:
        """Has `ring` called at `due_s`, once, unless `key` is noted anew or dropped before."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._rings_s, self._timer = loop, math.inf, None
            self._noted.clear()
        self._noted[key] = (due_s, ring)
        if due_s < self._rings_s:
            self._set(due_s)

    def drop(self, key: object) -> None:
        """Forgets it. One that is not there does no harm."""
        self._noted.pop(key, None)

    @property
    def keys(self) -> Iterable[object]:
        """All that are noted, in the order in which they first were."""
        return self._noted

    def _set(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_s = due_s
        assert self._loop is not None
        self._timer = self._loop.call_at(due_s, self._ring)

    def _ring(self) -> None:
        now = asyncio.get_running_loop().time()
        self._rings_s, self._timer = math.inf, None
        due = [(key, ring) for key, (due_s, ring) in self._noted.items() if due_s <= now]
        for key, _ in due:
            del self._noted[key]
        for _, ring in due:
            ring()
        if self._noted:
            earliest = min(due_s for due_s, _ in self._noted.values())
            if earliest < self._rings_s:
                self._set(max(earliest, now + self._late_s))


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


class Watch:
    """Interrupts whoever waits inside `with watch:` at `due_s`, which may be put off between two waits.

    Entered by one task at a time. A wait that is interrupted raises TimeoutError out of the `with` block, as
    `asyncio.timeout` does.
    """

    __slots__ = ("_alarm", "_cancelling", "_task", "due_s", "rang")

    def __init__(self, alarm: Alarm, due_s: float) -> None:
        self.due_s = due_s
        self.rang = False  # whether it interrupted the last wait
        self._alarm = alarm
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling, self.rang = task, task.cancelling(), False
        self._alarm.note(self, self.due_s, self._ring)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._alarm.drop(self)
        task, self._task = self._task, None
        if self.rang and task is not None:
            ours = task.uncancel() <= self._cancelling
            if ours and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise TimeoutError from error

    def _ring(self) -> None:
        if self._task is not None:
            self.rang = True
            self._task.cancel()
