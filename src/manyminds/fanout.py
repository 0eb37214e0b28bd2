"""Asks the experts of a route at once, and hands over what comes, as it comes.

The only module that starts tasks for a request; none outlives `Fanout.__aexit__`. Knows no wire format
and no combiner: when to stop is a callable.

Each call has a time to first token and an idle limit, all have one deadline. A stage starts when it is
asked for and the one before is drained. A call that fails leaves an answer that says how.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from manyminds.errors import (
    CutError,
    ExpertError,
    GarbageError,
    InvalidRequestError,
    ManymindsError,
    RefusedError,
    SlowError,
    UnavailableError,
)
from manyminds.types import Answer, Arrival, Call, Chunk, Expert, Query, Route, Scorer, Status, Usage

__all__ = ["Fanout", "Patience"]

_LIMIT_BYTES = 8_000_000  # of one answer with its JSON; what an expert sends is untrusted


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait: for a call's first token, between two tokens, and for everything."""

    first_token_s: float = 30.0
    idle_s: float = 20.0
    deadline_s: float = 60.0


class Fanout:
    """The calls of one request; keeps the contract of `types.Arrivals`. Use with `async with`.

    Args:
        query: what every expert is asked.
        route: whom to ask, in which stages.
        experts: by name; one that is missing fails its call, nothing else.
        patience: the limits, counted from `__aenter__`.
        enough: told what is in, and true stops the rest: after every answer where all are asked at once,
            after every stage where there are several. Whoever is asked in stages was chosen by what whole
            stages say; the first to answer alone is not what was chosen.
    """

    def __init__(
        self,
        query: Query,
        route: Route,
        experts: Mapping[str, Expert],
        patience: Patience,
        enough: Callable[[Sequence[Answer]], Awaitable[bool]] | None = None,
    ) -> None:
        self._query = query
        self._experts = experts
        self._patience = patience
        self._enough = enough
        self._quorum = route.quorum
        self._waiting = _stages(route.calls)
        self._staged = len(self._waiting) > 1
        self._reserve = list(route.reserve)
        self._arrivals: list[_Arrival] = []
        self._closed = False
        self._changed = asyncio.Event()
        self.deadline = 0.0

    async def __aenter__(self) -> "Fanout":
        self.deadline = asyncio.get_running_loop().time() + self._patience.deadline_s
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cancel()

    @property
    def answers(self) -> list[Answer]:
        """What came of every call so far, in the order of asking; running calls are left out."""
        return [a.answer for a in self._arrivals if a.answer is not None]

    async def started(self) -> AsyncGenerator[Arrival, None]:
        """See `types.Arrivals`."""
        seen: set[int] = set()
        while True:
            fresh = [a for a in self._arrivals if a.received and id(a) not in seen]
            for arrival in sorted(fresh, key=lambda a: a.first_at):
                seen.add(id(arrival))
                yield arrival
            if not fresh and not await self._advance():
                return

    async def finished(self) -> AsyncGenerator[Answer, None]:
        """See `types.Arrivals`."""
        seen: set[int] = set()
        while True:
            fresh = [a for a in self._arrivals if a.answer is not None and id(a) not in seen]
            for arrival in sorted(fresh, key=lambda a: a.ended_at):
                seen.add(id(arrival))
                assert arrival.answer is not None
                yield arrival.answer
            if fresh and not self._closed and await self._satisfied():
                await self.cancel()
            elif not fresh and not await self._advance():
                return

    def open(self, expert: str, query: Query) -> Arrival:
        """See `types.Arrivals`."""
        if expert not in self._experts:
            raise UnavailableError(f"{expert} is not in this network.")
        card = self._experts[expert].card
        stage = max((a.call.stage for a in self._arrivals), default=0) + 1
        return self._start(Call(expert, card.source, 1.0, stage, method="fuse"), query)

    async def cancel(self, keep: Arrival | None = None) -> None:
        """See `types.Arrivals`."""
        self._closed = True
        self._waiting.clear()
        self._reserve.clear()
        others = [a for a in self._arrivals if a is not keep]
        for arrival in others:
            arrival.cancel()
        interrupted: asyncio.CancelledError | None = None
        for arrival in others:
            while arrival.answer is None:  # no task is left behind, also when we are cancelled again
                try:
                    await arrival.whole()
                except asyncio.CancelledError as error:
                    interrupted = error
        if interrupted is not None:
            raise interrupted

    async def _satisfied(self) -> bool:
        answers = [a for a in self.answers if a.status == "ok"]
        if self._quorum is not None and len(answers) >= self._quorum:
            return True
        if self._staged and any(a.answer is None for a in self._arrivals):
            return False
        return bool(answers) and self._enough is not None and await self._enough(answers)

    async def _advance(self) -> bool:
        """Waits until something happens, or starts the next stage when all is quiet. False: nothing will."""
        if any(a.answer is None for a in self._arrivals):
            self._changed.clear()
            await self._changed.wait()
            return True
        if not self._waiting and self._reserve and not any(a.status == "ok" for a in self.answers):
            self._waiting.append([self._reserve.pop(0)])
        if self._closed or not self._waiting or asyncio.get_running_loop().time() >= self.deadline:
            return False
        for call in self._waiting.pop(0):
            for _ in range(call.samples):
                self._start(call, self._query)
        return True

    def _start(self, call: Call, query: Query) -> "_Arrival":
        arrival = _Arrival(call, self._experts.get(call.expert), query, self._changed)
        work = arrival.run(self._patience, self.deadline)
        arrival.task = asyncio.create_task(work, name=f"call {call.expert}")
        arrival.task.add_done_callback(arrival.settle)
        self._arrivals.append(arrival)
        return arrival


class _Arrival:
    """One call under way; keeps the contract of `types.Arrival`."""

    def __init__(self, call: Call, expert: Expert | None, query: Query, changed: asyncio.Event) -> None:
        self.call = call
        self._expert = expert
        self._query = query
        self.answer: Answer | None = None
        self.task: asyncio.Task[None] | None = None
        self.received: list[Chunk] = []
        self.began: float | None = None
        self.first_at = 0.0
        self.ended_at = 0.0
        self._status: Status = "cancelled"
        self._error: ExpertError | None = None
        self._changed = changed
        self._news = asyncio.Event()

    def cancel(self) -> None:
        """Stops the call; its answer then says "cancelled". Does nothing to one that has ended."""
        if self.task is not None and self.answer is None:
            self.task.cancel()

    async def whole(self) -> Answer:
        """See `types.Arrival`."""
        while self.answer is None:
            await self._wait()
        return self.answer

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """See `types.Arrival`."""
        position = 0
        while True:
            while position < len(self.received):
                yield self.received[position]
                position += 1
            if self.answer is not None:
                break
            await self._wait()
        if self.answer.error is not None:
            raise self.answer.error

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()

    def _tell(self) -> None:
        self._news.set()
        self._changed.set()

    async def run(self, patience: Patience, deadline: float) -> None:
        """Makes the call. `settle` reads how it ended from what is left here."""
        self.began = asyncio.get_running_loop().time()
        try:
            if self._expert is None:
                raise UnavailableError(f"{self.call.expert} has left this network.")
            await self._pump(_stream(self._expert, self._query, self.call), patience, deadline)
            self._status = "ok"
        except (Exception, asyncio.CancelledError) as failure:
            if self.task is not None and self.task.cancelling():
                return  # we cancelled it, whatever the expert made of that
            self._status = self._failed(deadline)
            self._error = failure if isinstance(failure, ExpertError) else self._unexpected(failure)

    def settle(self, task: asyncio.Task[None]) -> None:
        """Writes the answer, also for a task that was cancelled before its first step."""
        self.ended_at = task.get_loop().time()
        began = self.ended_at if self.began is None else self.began
        last = self.received[-1] if self.received else Chunk()
        self.answer = Answer(
            expert=self.call.expert,
            source=self.call.source,
            status=self._status,
            text="".join(c.text for c in self.received),
            chunks=tuple(self.received),
            stage=self.call.stage,
            method=self.call.method,
            confidence=last.confidence,
            ttft_s=self.first_at - began if self.received else None,
            seconds=self.ended_at - began,
            usage=last.usage or self._spent(self.ended_at - began),
            error=self._error,
        )
        self._tell()

    def _spent(self, seconds: float) -> Usage:
        """What a call took that ended before its expert could say so: an estimate, rather high than low.

        A call that failed before its first word is taken to have cost nothing, and one that was stopped
        before it to have computed nothing: it may have waited its turn.
        """
        if self._expert is None or self.began is None or self._status in ("ok", "failed"):
            return Usage()
        card = self._expert.card
        prompt, completion = self._query.estimated_tokens, sum(1 for chunk in self.received if chunk.text)
        cpu_s = seconds if card.price_cpu_usd_per_hour and self.received else 0.0
        tokens_usd = prompt * card.price_in_usd_per_m + completion * card.price_out_usd_per_m
        return Usage(prompt, completion, cpu_s, tokens_usd / 1e6 + cpu_s * card.price_cpu_usd_per_hour / 3600)

    def _unexpected(self, failure: BaseException) -> ExpertError:
        """A nested network refused, or an expert broke its contract: its call fails, the request does not."""
        if isinstance(failure, InvalidRequestError):
            return RefusedError(failure.message)
        if isinstance(failure, ManymindsError):
            return UnavailableError(failure.message)
        return GarbageError(f"{self.call.expert} failed unexpectedly: {failure!r:.300}")

    def _failed(self, deadline: float) -> Status:
        if asyncio.get_running_loop().time() >= deadline:
            return "late"
        return "cut" if self.received else "failed"

    async def _pump(self, stream: AsyncGenerator[Chunk, None], patience: Patience, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        limit_s, size = patience.first_token_s, 0
        try:
            while True:
                limit = asyncio.timeout_at(min(loop.time() + limit_s, deadline))
                try:
                    async with limit:
                        chunk = await anext(stream)
                except StopAsyncIteration:
                    break
                except TimeoutError:
                    if not limit.expired():  # it is the expert's own
                        raise
                    raise self._slow(limit_s, loop.time() >= deadline) from None
                if not self.received:
                    self.first_at = loop.time()
                    limit_s = patience.idle_s
                size += len(chunk.text) + len(chunk.raw)
                if size > _LIMIT_BYTES:
                    raise GarbageError(f"{self.call.expert} sent more than {_LIMIT_BYTES} bytes.")
                self.received.append(chunk)
                self._tell()
        finally:
            await stream.aclose()
        if not self.received or self.received[-1].finish_reason is None:
            raise CutError(f"{self.call.expert} ended without finishing its answer.")

    def _slow(self, limit_s: float, late: bool) -> SlowError:
        if late:
            return SlowError(f"{self.call.expert} had not finished at the deadline.")
        what = "nothing more" if self.received else "no first token"
        return SlowError(f"{self.call.expert} sent {what} within {limit_s:g} s.")


def _stages(calls: Sequence[Call]) -> list[list[Call]]:
    """The calls by stage, in order; numbers without a call are passed over."""
    numbers = sorted({call.stage for call in calls})
    return [[call for call in calls if call.stage == number] for number in numbers]


def _stream(expert: Expert, query: Query, call: Call) -> AsyncGenerator[Chunk, None]:
    if call.method == "score" and isinstance(expert, Scorer):
        return _scored(expert, query)
    return expert.stream(query)


async def _scored(expert: Scorer, query: Query) -> AsyncGenerator[Chunk, None]:
    """The likeliest option as an answer; its confidence is its share of exp(mean log-likelihood)."""
    options = query.task.options
    scores = await expert.score(query, options)
    found = scores.log_likelihoods
    if not options or len(found) != len(options) or not all(map(math.isfinite, found)):
        raise GarbageError(f"{len(options)} options have scores that do not fit: {found!r:.200}.")
    best = found.index(max(found))
    share = 1.0 / math.fsum(math.exp(x - found[best]) for x in found)
    text = f"{chr(ord('A') + best)}) {options[best]}"
    yield Chunk(text, "stop", scores.usage, confidence=share)
