"""What happens on a node, told to whoever looks on as it happens. Knows no page and no ledger.

Of private answers it counts how many there were, and keeps nothing else. All of it is of one process, and
gone with it.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from manyminds.ledger.tables import stamp
from manyminds.private import PRIVATE
from manyminds.router.policy import DIRECT
from manyminds.types import Answer, Query, Report

__all__ = ["Last", "Observed", "State", "answered"]

_EVERY_S: Final = 1.0
_WINDOW_S: Final = 60  # over which rates go
_WAITING: Final = 200  # requests that a slow listener is told of later; of more, the latest
_PANEL: Final = 64  # calls of one request that are told


class State(Struct, frozen=True):
    """What a node is, at one moment: `figures` are told every second, `marks` differ where it has changed."""

    figures: Mapping[str, int]
    marks: Mapping[str, object]


class Last(Struct, frozen=True, eq=False):
    """The last request for which somebody was chosen: its report, and its query without any text."""

    at_utc: str
    report: Report
    query: Query


class Observed:
    """What was asked since it began. All in one thread, that of the event loop.

    Args:
        clock: seconds that never run backwards.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._requests = 0
        self._cost_usd = 0.0
        self._seconds: deque[list[float]] = deque()  # of the last minute: second, requests, dollars
        self._listening: set[_Listener] = set()
        self.last: Last | None = None

    def record(
        self, report: Report, query: Query, answers: Sequence[Answer], text: str, status: str, seconds: float
    ) -> None:
        """See `gateway.Record`."""
        self._requests += 1
        self._cost_usd += report.cost_usd
        now_s = int(self._clock())
        if not self._seconds or self._seconds[-1][0] != now_s:
            self._forget(now_s)
            self._seconds.append([now_s, 0, 0.0])
        self._seconds[-1][1] += 1
        self._seconds[-1][2] += report.cost_usd
        if report.policy == PRIVATE:
            return
        if report.policy != DIRECT and report.panel and report.cache != "hit":
            self.last = Last(stamp(), report, replace(query, messages=(), raw=b""))
        if self._listening:
            event = _told(report, query, status, seconds)
            for listener in self._listening:
                listener.hear(event)

    async def events(self, state: Callable[[], State]) -> AsyncGenerator[dict[str, Any], None]:
        """Traffic at once and every second, each request at its end, and what has changed; for ever."""
        loop, listener = asyncio.get_running_loop(), _Listener()
        self._listening.add(listener)
        try:
            known = state()
            yield self._traffic(known)
            due_s = loop.time() + _EVERY_S
            while True:
                await listener.wait(due_s)
                for event in listener.taken():
                    yield event
                if loop.time() >= due_s:
                    before, known = known, state()
                    for what, mark in known.marks.items():
                        if mark != before.marks.get(what):
                            yield {"event": "changed", "what": what}
                    yield self._traffic(known)
                    due_s = max(due_s + _EVERY_S, loop.time())
        finally:
            self._listening.discard(listener)

    def _traffic(self, state: State) -> dict[str, Any]:
        self._forget(int(self._clock()))
        return {
            "event": "traffic",
            "at_utc": stamp(),
            "requests": self._requests,
            "requests_per_min": sum(second[1] for second in self._seconds),
            "cost_usd": self._cost_usd,
            "cost_usd_per_min": sum(second[2] for second in self._seconds),
            **state.figures,
        }

    def _forget(self, now_s: int) -> None:
        """What is older than a minute."""
        while self._seconds and self._seconds[0][0] <= now_s - _WINDOW_S:
            self._seconds.popleft()


class _Listener:
    """What one listener has not been told yet."""

    def __init__(self) -> None:
        self._waiting: deque[dict[str, Any]] = deque(maxlen=_WAITING)
        self._came = asyncio.Event()

    def hear(self, event: dict[str, Any]) -> None:
        self._waiting.append(event)
        self._came.set()

    async def wait(self, due_s: float) -> None:
        """Until there is something, or until then by the loop's clock."""
        try:
            async with asyncio.timeout_at(due_s):
                await self._came.wait()
        except TimeoutError:
            pass

    def taken(self) -> list[dict[str, Any]]:
        self._came.clear()
        found = list(self._waiting)
        self._waiting.clear()
        return found


def answered(report: Report) -> str | None:
    """Whose words were released, as far as the panel tells: of a fused answer, who fused it.

    Of several who gave the released answer, whose vote weighed most.
    """
    spoke = [entry for entry in report.panel if entry.status == "ok" and not entry.declined]
    if fused := [entry.expert for entry in spoke if entry.method == "fuse"]:
        return fused[-1] if report.strategy == "fuse" else None
    if len(spoke) == 1:
        return spoke[0].expert
    rated = [entry for entry in spoke if entry.correct_probability is not None]
    if not rated:
        return None
    return max(rated, key=lambda entry: (entry.correct_probability or 0.0, entry.weight)).expert


def _told(report: Report, query: Query, status: str, seconds: float) -> dict[str, Any]:
    return {
        "event": "request",
        "at_utc": stamp(),
        "request_id": report.request_id,
        "policy": report.policy,
        "strategy": report.strategy,
        "status": status,
        "seconds": seconds,
        "cost_usd": report.cost_usd,
        "saved_usd": report.saved_usd,
        "section": query.section or query.limits.topic,
        "panel": [
            {
                "expert": entry.expert,
                "status": entry.status,
                "seconds": entry.seconds,
                "cost_usd": entry.cost_usd,
                "weight": entry.weight,
            }
            for entry in report.panel[:_PANEL]
        ],
        "answered": answered(report),
    }
