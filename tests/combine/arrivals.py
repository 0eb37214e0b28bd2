"""Answers made in advance, arriving as calls under way: an `Arrivals` in memory."""

from collections.abc import AsyncGenerator, Mapping, Sequence

from manyminds.errors import CutError, SlowError, UnavailableError
from manyminds.types import (
    Answer,
    Arrival,
    Call,
    Chunk,
    Grounds,
    Message,
    Query,
    Route,
    Status,
    Strategy,
    Task,
    Usage,
)
from tests.changed import replace


def question(text: str = "Which one?", task: Task | None = None) -> Query:
    return Query((Message("user", text),), request_id="r1", task=task or Task())


def panel(*calls: Call, strategy: Strategy = "vote", fuser: str | None = None) -> Route:
    return Route("auto", strategy, calls, fuser=fuser)


def answered(
    expert: str,
    text: str = "",
    status: Status = "ok",
    *,
    source: str = "",
    ttft_s: float | None = None,
    reason: str = "connection refused",
    grounds: Grounds | None = None,
) -> Answer:
    """An answer in chunks of one word; one that is not ok has the fitting error instead of a last chunk.

    One that declines comes in one.
    """
    words = [word + " " for word in text.split(" ")]
    words[-1] = words[-1][:-1]
    spoke = text and status not in ("failed", "cancelled")
    chunks = [Chunk(word) for word in words] if spoke else []
    if status == "ok":
        last = Chunk(finish_reason="stop", usage=Usage(completion_tokens=len(chunks)), grounds=grounds)
        chunks = [replace(last, text=text)] if last.declines else [*chunks, last]
    error = {"failed": UnavailableError, "cut": CutError, "late": SlowError}.get(status)
    return Answer(
        expert,
        source or expert,
        status,
        text if spoke else "",
        tuple(chunks),
        ttft_s=ttft_s,
        error=error(reason) if error else None,
        grounds=grounds,
    )


class Prepared:
    """Calls whose ends are known. `started` follows `ttft_s`, `finished` the order given."""

    def __init__(self, route: Route, answers: Sequence[Answer], others: Mapping[str, Answer] | None = None):
        self._calls = [_Call(route.call_of(a.expert) or Call(a.expert, a.source, 0.5), a) for a in answers]
        self._others = others or {}
        self.asked: list[Query] = []  # of those opened
        self.kept: Arrival | None = None
        self.cancelled = False

    async def started(self) -> AsyncGenerator[Arrival, None]:
        for call in sorted(self._calls, key=lambda c: c.end.ttft_s or 0.0):
            if call.end.chunks:
                yield call

    async def finished(self) -> AsyncGenerator[Answer, None]:
        for call in self._calls:
            yield await call.whole()

    def open(self, expert: str, query: Query) -> Arrival:
        if expert not in self._others:
            raise UnavailableError(f"{expert} is not in this network.")
        self.asked.append(query)
        return _Call(Call(expert, expert, 1.0), self._others[expert])

    async def cancel(self, keep: Arrival | None = None) -> None:
        self.kept, self.cancelled = keep, True
        for call in self._calls:
            if call is not keep:
                call.end = replace(call.end, status="cancelled")


class _Call:
    def __init__(self, call: Call, end: Answer) -> None:
        self.call = call
        self.end = end

    @property
    def answer(self) -> Answer | None:
        return self.end

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        for chunk in self.end.chunks:
            yield chunk
        if self.end.error is not None:
            raise self.end.error

    async def whole(self) -> Answer:
        return self.end
