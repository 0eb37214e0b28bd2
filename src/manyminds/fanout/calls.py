"""Asks the experts of a route at once, and hands over what comes, as it comes.

The only module that starts tasks for a request; none outlives `Fanout.__aexit__`. Knows no wire format
and no combiner: when to stop is a callable.

Each call has a time to first token and an idle limit, all have one deadline. A stage starts when it is
asked for and the one before is drained. A call that fails leaves an answer that says how. Beside a call
that is slow to start, one of the reserve is asked, once; whoever starts first counts.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import TracebackType

from msgspec.structs import replace

from manyminds.alarm import Alarm
from manyminds.errors import GarbageError, RequiredError, UnavailableError
from manyminds.fanout.patience import Patience, hear, note_slow
from manyminds.fanout.tally import Tally
from manyminds.fanout.watched import Watched, routed
from manyminds.types import Answer, Arrival, Call, Card, Chunk, Expert, Query, Route, Scorer
from manyminds.wire import capped

__all__ = ["Fanout"]


_ENDED = {"failed": "failed", "cut": "broke off", "late": "was late", "cancelled": "was stopped"}


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
        alarm: what keeps the limits, shared between requests.
    """

    def __init__(
        self,
        query: Query,
        route: Route,
        experts: Mapping[str, Expert],
        patience: Patience,
        enough: Callable[[Sequence[Answer]], Awaitable[bool]] | None = None,
        alarm: Alarm | None = None,
    ) -> None:
        self._alarm = alarm or Alarm()
        self._query = query
        self._experts = experts
        self._patience = patience
        self._enough = enough
        self._route = route
        self._quorum = route.quorum
        self._fuser_usd = route.fuser_usd
        self._waiting = _stages(route.calls)
        self._staged = len(self._waiting) > 1
        self._reserve = list(route.reserve)
        # Each of the reserve fits a budget beside the panel, but not with another of the reserve.
        self._hedges = len(self._reserve) if query.limits.budget_usd is None else 1
        self._arrivals: list[_Arrival] = []
        self._closed = False
        self._begun, self._ended = asyncio.Event(), asyncio.Event()  # since somebody last looked
        self._began_s = self.deadline = 0.0

    async def __aenter__(self) -> "Fanout":
        self._began_s = asyncio.get_running_loop().time()
        self.deadline = self._began_s + self._patience.deadline_s
        if self._query.watch is not None:
            self._query.watch(routed(self._route))
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
            fresh = [a for a in self._arrivals if a.tally.chunks and id(a) not in seen]
            for arrival in sorted(fresh, key=lambda a: a.tally.first_at or 0.0):
                seen.add(id(arrival))
                yield arrival
            if not fresh and not await self._advance(self._begun):
                return

    async def finished(self) -> AsyncGenerator[Answer, None]:
        """See `types.Arrivals`."""
        seen: set[int] = set()
        while True:
            fresh = [a for a in self._arrivals if a.answer is not None and id(a) not in seen]
            for arrival in sorted(fresh, key=lambda a: a.ended_at):
                seen.add(id(arrival))
                assert arrival.answer is not None
                self._check(arrival.call, arrival.answer)
                yield arrival.answer
            if fresh and not self._closed and await self._satisfied():
                await self.cancel()
            elif not fresh and not await self._advance(self._ended):
                return

    def open(self, expert: str, query: Query) -> Arrival:
        """See `types.Arrivals`."""
        if expert not in self._experts:
            raise UnavailableError(f"{expert} is not in this network.")
        card = self._experts[expert].card
        stage = max((a.call.stage for a in self._arrivals), default=0) + 1
        call = Call(expert, card.source, 1.0, stage, method="fuse", budget_usd=self._fuser_usd)
        return self._start(call, query)

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

    def _check(self, call: Call, answer: Answer) -> None:
        """Raises: RequiredError where this was all that was needed."""
        if call.required and answer.status != "ok" and not self._closed:
            why = f": {answer.error.message.rstrip('. ')}" if answer.error else ""
            raise RequiredError(
                f"{answer.expert}, without whose answer this request wants none, "
                f"{_ENDED[answer.status]}{why}. Try again, or do not require it."
            )

    async def _satisfied(self) -> bool:
        if any(a.call.required and a.answer is None for a in self._arrivals):
            return False
        answers = [a for a in self.answers if self._counts(a)]
        if self._quorum is not None and len(answers) >= self._quorum:
            return True
        if self._staged and any(a.answer is None for a in self._arrivals):
            return False
        return bool(answers) and self._enough is not None and await self._enough(answers)

    def _counts(self, answer: Answer) -> bool:
        """Whether somebody has answered. One who declines has not: others are asked as if it had failed.

        Nor has one without grounds, where these are wanted.
        """
        lacks = self._query.limits.grounded and answer.grounds is None
        return answer.status == "ok" and not answer.declined and not lacks

    async def _advance(self, news: asyncio.Event) -> bool:
        """Waits for news, or starts the next stage when all is quiet. False: there will be none."""
        if any(a.answer is None for a in self._arrivals):
            news.clear()
            await news.wait()
            return True
        if not self._waiting and self._reserve and not any(map(self._counts, self.answers)):
            self._waiting.append([self._reserve.pop(0)])
        if self._closed or not self._waiting or asyncio.get_running_loop().time() >= self.deadline:
            return False
        for call in self._waiting.pop(0):
            for _ in range(call.samples):
                arrival = self._start(call, self._query)
                if call.hedge_s is not None and self._reserve:
                    due_s = asyncio.get_running_loop().time() + call.hedge_s
                    self._alarm.note(arrival, due_s, partial(self._hedge, arrival))
        return True

    def _hedge(self, slow: "_Arrival") -> None:
        """Asks the next of the reserve beside a call that is slow to start."""
        late = asyncio.get_running_loop().time() >= self.deadline
        if late or not self._reserve or not self._hedges:  # nobody is left in reserve once it is cancelled
            return
        self._hedges -= 1
        call = replace(self._reserve.pop(0), stage=slow.call.stage)
        slow.overdue = True
        slow.rival = hedge = self._start(call, self._query, beside=slow.call.expert)
        hedge.rival = slow

    def _start(self, call: Call, query: Query, beside: str | None = None) -> "_Arrival":
        expert = self._experts.get(call.expert)
        if call.budget_usd is not None:
            query = _paying(query, call.budget_usd, expert.card if expert else None)
        if query.bound is not call.bound:
            query = replace(query, bound=call.bound)
        watched = None
        if query.watch is not None:
            watched = Watched(query.watch, len(self._arrivals))
            watched.began(call, beside, asyncio.get_running_loop().time() - self._began_s)
            query = replace(query, watch=None)
        news = (self._begun, self._ended)
        arrival = _Arrival(call, expert, query, news, self._alarm, watched)
        work = arrival.run(self._patience, self.deadline)
        arrival.task = asyncio.get_running_loop().create_task(work, name=f"call {call.expert}")
        arrival.task.add_done_callback(arrival.settle)
        self._arrivals.append(arrival)
        return arrival


class _Arrival:
    """One call under way; keeps the contract of `types.Arrival`.

    A hedge and the call beside which it was started are each other's rival.
    """

    def __init__(
        self,
        call: Call,
        expert: Expert | None,
        query: Query,
        news: tuple[asyncio.Event, asyncio.Event],
        alarm: Alarm,
        watched: Watched | None,
    ) -> None:
        self.rival: _Arrival | None = None
        self.overdue = False  # a hedge was started beside it
        self.lost = False  # its rival was first
        self.tally = Tally(call, expert.card if expert else None, query)
        self.answer: Answer | None = None
        self.task: asyncio.Task[None] | None = None
        self.ended_at = 0.0
        self._expert = expert
        self._query = query
        self._begun, self._ended = news  # of all calls; whoever waits for ends is not woken by beginnings
        self._news: asyncio.Event | None = None  # of this one, where somebody reads it
        self._alarm = alarm  # where its hedge is noted, if it may have one
        self._watched = watched  # None where nobody watches

    @property
    def call(self) -> Call:
        return self.tally.call

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
            while position < len(self.tally.chunks):
                yield self.tally.chunks[position]
                position += 1
            if self.answer is not None:
                break
            await self._wait()
        if self.answer.error is not None:
            raise self.answer.error

    async def _wait(self) -> None:
        if self._news is None:
            self._news = asyncio.Event()
        self._news.clear()
        await self._news.wait()

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()

    async def run(self, patience: Patience, deadline: float) -> None:
        """Makes the call; the tally then says how it ended."""
        tally, alarm = self.tally, self._alarm
        tally.began = alarm.clock()
        try:
            if self._expert is None:
                raise UnavailableError(f"{self.call.expert} has left this network.")
            stream = _stream(self._expert, self._query, self.call)
            if await hear(self._expert, stream, patience, deadline, alarm, self._take):
                tally.status = "ok"
        except (Exception, asyncio.CancelledError) as failure:
            if self.task is not None and self.task.cancelling():
                return  # we cancelled it, whatever the expert made of that
            tally.fail(failure, late=asyncio.get_running_loop().time() >= deadline)

    def _take(self, chunk: Chunk) -> bool:
        """False: it has lost, and nobody wants it."""
        tally = self.tally
        if tally.first_at is None:
            if not (self._pass() if chunk.declines else self._win()):
                return False
            self._begun.set()
        tally.take(chunk, self._alarm.clock())
        if self._watched is not None:
            self._watched.wrote(chunk)
        self._tell()
        return True

    def _win(self) -> bool:
        """At its first chunk: stops its rival, and sees that it gets none. False: it has lost itself."""
        self._alarm.drop(self)
        if self.rival is not None and not self.lost:
            self.rival.lost = True
            self.rival.cancel()
        return not self.lost

    def _pass(self) -> bool:
        """At its first chunk, which declines: nobody is stopped for that. False: it has lost."""
        self._alarm.drop(self)
        return not self.lost

    def settle(self, task: asyncio.Task[None]) -> None:
        """Writes the answer, also for a task that was cancelled before its first step."""
        self._alarm.drop(self)
        self.ended_at = self._alarm.clock()
        self.answer = self.tally.answer(self.ended_at)
        if self.overdue and self.lost and self.answer.status == "cancelled" and self._expert is not None:
            note_slow(self._expert)
        if self._watched is not None:
            self._watched.ended(self.answer, lost=self.lost)
        self._tell()
        self._begun.set()
        self._ended.set()


def _stages(calls: Sequence[Call]) -> list[list[Call]]:
    """The calls by stage, in order; numbers without a call are passed over."""
    numbers = sorted({call.stage for call in calls})
    return [[call for call in calls if call.stage == number] for number in numbers]


def _paying(query: Query, budget_usd: float, card: Card | None) -> Query:
    """The query for one call that may cost so much.

    Another network keeps to it; of this one's own experts no longer an answer is asked for than it pays for.
    """
    limits, journey = replace(query.limits, budget_usd=budget_usd), query.journey
    if journey is not None and journey.budget_usd is not None:
        journey = replace(journey, budget_usd=min(budget_usd, journey.budget_usd))
    query = replace(query, limits=limits, journey=journey)
    if card is None or card.kind == "peer" or card.price_out_usd_per_m <= 0:
        return query
    left_usd = budget_usd - card.price_usd(query.most_tokens, 0, 0.0)
    return capped(query, int(left_usd * 1e6 / card.price_out_usd_per_m))


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
