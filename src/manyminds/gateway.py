"""The life of a request: receive, route, call, combine, stream, record.

A gateway is itself an `Expert`: networks nest. Knows no HTTP, no file and no kind of expert.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from dataclasses import replace as with_fields
from functools import partial

from msgspec import UnsetType
from msgspec.structs import replace

from manyminds import canonical, pauses, purse, terms
from manyminds.admission import Sources
from manyminds.alarm import Alarm
from manyminds.attribution import ALPHA
from manyminds.cache import Cache, Lookup
from manyminds.candidates import Candidates, candidates, is_spared, searched
from manyminds.combine.ballot import ENOUGH, likeliest
from manyminds.combine.fuse import Fuse
from manyminds.errors import (
    BudgetError,
    CutError,
    ForbiddenError,
    ManymindsError,
    NoExpertError,
    PrivacyError,
)
from manyminds.fanout import Fanout, Patience, Single
from manyminds.index import Index
from manyminds.private import PRIVATE, Asking, Bank
from manyminds.report import fused_anew, grounds_of, of_one, of_panel, weighed
from manyminds.router.order import in_order
from manyminds.router.policy import DIRECT, POLICIES
from manyminds.terms import Pact, agree
from manyminds.types import (
    FREE,
    Answer,
    Card,
    Chunk,
    Combiner,
    Embed,
    Expert,
    Granted,
    Hold,
    Journey,
    Key,
    Limits,
    Outcome,
    Query,
    Report,
    Route,
    Router,
    Strategy,
    Usage,
)

__all__ = ["HOPS", "Explore", "Gateway", "Parts", "Record", "Reserve"]

Record = Callable[[Report, Query, Sequence[Answer], str, str, float], None]
"""Keeps a request: report, query, answers, released text, status, seconds. It must not wait for a disk."""


Explore = Callable[[Query, Route, Sequence[Card]], Route]
"""A route, or the same with one more of these experts asked, of which little is known."""

Reserve = Callable[[Key, float], Awaitable[Hold]]
"""Puts aside what a request of a key may cost at most, in US dollars. Raises: BudgetError."""

HOPS = 4
"""How often a question may be passed on from node to node, unless its gateway says otherwise."""

_ENCODED = ("select", "fuse")
"""Strategies that compare what texts mean. Even where nothing could be enough they are asked, in a thread:
that fills the encoder's memory away from the event loop."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a gateway is made of. `experts` may change while it serves."""

    experts: Mapping[str, Expert]
    index: Index
    router: Router
    combiners: Mapping[Strategy, Combiner]
    record: Record
    embed: Embed | None = None
    reserve: Reserve | None = None
    cache: Cache | None = None
    explore: Explore | None = None
    bank: Bank | None = None  # without it there are no private answers
    sources: Sources | None = None  # without them nobody counts what sources allow
    alpha: float = ALPHA  # order of the divergence by which answers are owed
    every: Mapping[str, Expert] = field(default_factory=dict)  # who is asked, and who is paused


class Gateway:
    """A network of experts that answers as one; keeps the contract of `types.Expert`.

    Args:
        card: what this network says of itself.
        parts: what it is made of.
        patience: limits of time where a request sets none.
        defaults: limits where a request sets none; `policy` must be set.
        clock: what durations are measured by, in seconds; the loop's, without.
        hops: how often a question that is asked here may be passed on from node to node.
    """

    def __init__(
        self,
        card: Card,
        parts: Parts,
        patience: Patience,
        defaults: Limits,
        clock: Callable[[], float] | None = None,
        hops: int = HOPS,
    ) -> None:
        self._hops = hops
        self._card = card
        self._parts = parts
        self._patience = patience
        self._defaults = defaults
        self._alarm = Alarm(clock)
        self._private = Asking(
            parts.experts, parts.bank, patience, self._reserve, self._write_down, self._alarm
        )

    @property
    def card(self) -> Card:
        return self._card

    def asking(self, experts: Mapping[str, Expert], every: Mapping[str, Expert]) -> "Gateway":
        """The same with these of its experts, and without the others of `every`, who are paused."""
        parts = with_fields(self._parts, experts=experts, every=every)
        return Gateway(self._card, parts, self._patience, self._defaults, self._alarm.clock, self._hops)

    def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """See `types.Expert`. The last chunk carries the report. Raises: ManymindsError.

        Closing the generator cancels every call; what was asked is recorded all the same.
        """
        if self._is_direct(query):
            return self._pass(query)
        if PRIVATE in (query.model, query.limits.policy):
            return self._ask_privately(query)
        return self._ask(query)

    async def _ask(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """A panel's answer, or one that was given before."""
        began_s = self._alarm.clock()
        query = self._receive(query)
        if query.journey is None:
            due_s = asyncio.get_running_loop().time() + self._deadline_s(query)
            query = replace(query, journey=Journey(due_s, self._hops))
        kept = self._look_up(query, query.limits.policy or DIRECT)
        hit = kept.exact() if kept else None
        if hit is None:
            query = await self._understand(query)
            hit = kept.near(query) if kept else None
        if hit is not None:
            self._record(hit.report, query, (), hit.text, "ok", self._alarm.clock() - began_s)
            for chunk in hit.chunks:
                yield chunk
            return
        route, pact = await agree(partial(self._payable, query), self._parts.experts, self._parts.sources)
        if route.section:
            query = replace(query, section=route.section)
        hold = await self._reserve(query, route, pact)
        combiner = self._parts.combiners[route.strategy]
        text, last, status, begun, anew = "", None, "cancelled", False, None
        async with self._call(query, route, combiner) as calls:
            try:
                async with aclosing(combiner.combine(query, route, calls)) as chunks:
                    async for chunk in chunks:
                        text += chunk.text
                        if chunk.finish_reason is not None:
                            last = chunk
                            continue
                        if kept is not None:
                            kept.take(chunk)
                        begun = True
                        yield chunk
                status = "ok" if last else "cut"
                anew = await self._fuse_anew(query, route, combiner, calls, text)
            except ManymindsError:
                status = "cut" if text else "failed"
                raise
            finally:
                await calls.cancel()
                report = self._report(query, route, combiner, calls.answers, pact, last)
                if anew is not None:
                    report = fused_anew(report, anew, self._source(route.fuser), self._parts.alpha)
                if kept is not None:
                    report = replace(report, cache="miss")
                if pact is not None:
                    pact.settle(report, calls.answers, status, begun=begun)
                if hold is not None:
                    hold.settle(report.cost_usd)
                self._record(report, query, calls.answers, text, status, self._alarm.clock() - began_s)
        if last is None:
            raise CutError("The answer ended before it was finished.")
        used = last.usage or Usage()
        usage = Usage(used.prompt_tokens, used.completion_tokens, used.cpu_s, report.cost_usd)  # of all of it
        last = _reporting(last, report, usage)
        counted = pact is not None or any(answer.nats is not None for answer in calls.answers)
        self._keep(kept, last, counted=counted)
        yield last

    async def _ask_privately(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """A noised vote, see docs/privacy.md: it is never kept, and nothing is learnt of it."""
        if query.fallbacks or query.model in self._parts.experts or query.model in self._parts.every:
            raise PrivacyError(
                "A private answer polls many: name `private` as the model, alone, and whom to ask in "
                "manyminds.include.",
                param="model",
            )
        due_s = asyncio.get_running_loop().time() + self._deadline_s(query)
        limits, journey = self._limits(query, PRIVATE), query.journey or Journey(due_s, self._hops)
        async with aclosing(
            self._private.stream(replace(query, limits=limits, journey=journey, watch=None))
        ) as chunks:
            async for chunk in chunks:
                yield chunk

    async def complete(self, query: Query) -> Sequence[Chunk]:
        """See `types.Completer`. What `stream` gives, sooner where one expert is asked by name."""
        if not self._is_direct(query):
            async with aclosing(self.stream(query)) as stream:
                return [chunk async for chunk in stream]
        kept = self._look_up(query, DIRECT)
        if kept is not None and (hit := kept.exact()) is not None:
            self._record(hit.report, query, (), hit.text, "ok", 0.0)
            return hit.chunks
        route, pact = self._direct(query), None
        if self._parts.experts[query.model].card.terms is not FREE:
            route, pact = await self._agree_alone(query, route)
        hold = await self._reserve(query, route, pact)
        call = self._single(query, route)
        try:
            found = await call.whole()
        finally:
            report = self._record_single(query, route, call, hold, pact, kept)
        *chunks, last = found
        last = _reporting(last, report, last.usage)
        if kept is not None:
            for chunk in chunks:
                kept.take(chunk)
        self._keep(kept, last, counted=pact is not None)
        return [*chunks, last]

    async def _pass(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """The answer of one expert, asked by name: its chunks as they come, untouched."""
        kept = self._look_up(query, DIRECT)
        if kept is not None and (hit := kept.exact()) is not None:
            self._record(hit.report, query, (), hit.text, "ok", 0.0)
            for chunk in hit.chunks:
                yield chunk
            return
        route, pact = self._direct(query), None
        if self._parts.experts[query.model].card.terms is not FREE:
            route, pact = await self._agree_alone(query, route)
        hold = await self._reserve(query, route, pact)
        call, last = self._single(query, route), Chunk()
        try:
            async with aclosing(call.chunks()) as chunks:
                async for chunk in chunks:
                    if chunk.finish_reason is not None:
                        last = chunk
                        continue
                    if kept is not None:
                        kept.take(chunk)
                    yield chunk
        finally:
            report = self._record_single(query, route, call, hold, pact, kept)
        last = _reporting(last, report, last.usage)
        self._keep(kept, last, counted=pact is not None)
        yield last

    def _is_direct(self, query: Query) -> bool:
        """Whether it asks one expert by name, and nobody where that fails, and takes whatever that says."""
        named = not query.fallbacks and query.model in self._parts.experts
        return named and query.limits.policy != PRIVATE and not query.limits.grounded

    def _direct(self, query: Query) -> Route:
        card, limits = self._parts.experts[query.model].card, query.limits
        if limits.budget_usd is None and self._defaults.budget_usd is not None:
            limits = replace(limits, budget_usd=self._defaults.budget_usd)
        if limits.require:
            terms.check_named(card, query)
        if not terms.allows(card, query):
            raise terms.forbidden([card], query)
        return self._parts.router.route(query, [card], limits)

    async def _agree_alone(self, query: Query, route: Route) -> tuple[Route, Pact | None]:
        """What an expert that was asked for by name, and nobody else, wants to have agreed."""

        def find(refused: Mapping[str, ManymindsError]) -> Route:
            if refused:
                raise NoExpertError("Nobody else was asked for.")
            return route

        return await agree(find, self._parts.experts, self._parts.sources)

    def _single(self, query: Query, route: Route) -> Single:
        expert = self._parts.experts[query.model]
        return Single(route.calls[0], expert, query, self._patience, self._deadline_s(query), self._alarm)

    def _record_single(
        self,
        query: Query,
        route: Route,
        call: Single,
        hold: Hold | None,
        pact: Pact | None,
        kept: Lookup | None,
    ) -> Report:
        answer = call.answer
        report = of_one(query, route, answer, self._parts.alpha)
        if kept is not None:
            report = replace(report, cache="miss")
        if hold is not None:
            hold.settle(report.cost_usd)
        if pact is not None or query.limits.require or query.limits.weights:
            report = replace(report, granted=_granted(query, route, pact, {}))
        if pact is not None:
            pact.settle(report, [answer], answer.status, begun=bool(answer.chunks))
        ended = answer.status in ("ok", "cancelled")
        status = answer.status if ended else "cut" if answer.text else "failed"
        self._record(report, query, [answer], answer.text, status, answer.seconds)
        return report

    # --- receive ---

    def _receive(self, query: Query) -> Query:
        """Fills in what the request left open. Of several models, those that nobody knows are left out."""
        pauses.need_wanted(query, self._parts.experts, self._parts.every)
        for i, named in enumerate(names := (query.model, *query.fallbacks)):
            if named in self._parts.experts:
                rest = names[i + 1 :]
                return replace(query, model=named, fallbacks=rest, limits=self._limits(query, None))
            if named in POLICIES or named == self._card.name:
                chosen = named if named in POLICIES and named != "auto" else self._defaults.policy
                return replace(query, model=named, fallbacks=(), limits=self._limits(query, chosen))
        raise pauses.unknown(query, self._parts.experts, self._parts.every, (*POLICIES, PRIVATE))

    async def _understand(self, query: Query) -> Query:
        """What the question is: its kind, and its vector, which takes milliseconds, in a thread."""
        vector = None
        if self._parts.embed is not None:
            (vector,) = await asyncio.to_thread(self._parts.embed, [query.question])
        return replace(query, task=canonical.task(query), vector=vector)

    def _limits(self, query: Query, policy: str | None) -> Limits:
        """The request's limits, and where it sets none, this network's."""
        limits, default = query.limits, self._defaults
        return replace(
            limits,
            policy=limits.policy or policy,
            deadline_s=self._deadline_s(query),
            budget_usd=default.budget_usd if limits.budget_usd is None else limits.budget_usd,
        )

    # --- what was answered before ---

    def _look_up(self, query: Query, policy: str) -> Lookup | None:
        """Its way past the cache; None where there is none, or it may not use it."""
        cache, wish = self._parts.cache, query.limits.cache
        if cache is None or wish == "off":
            return None
        return cache.lookup(query, policy, read=wish != "refresh")

    def _keep(self, kept: Lookup | None, last: Chunk, *, counted: bool) -> None:
        """An answer that has come to its end; not while anybody is spared, who might give a better one.

        Nor where it is `counted`: by a source that limits how often it is asked, or how far it moves answers.
        """
        if kept is not None and not counted and not any(map(is_spared, self._parts.experts.values())):
            kept.take(last)
            kept.keep()

    # --- route ---

    def _payable(self, query: Query, refused: Mapping[str, ManymindsError]) -> Route:
        """The route without those sources that have nothing left, and what each call on it may cost."""
        route = self._route(query, refused)
        return purse.apportioned(query, route, self._parts.experts, self._deadline_s(query))

    def _route(self, query: Query, refused: Mapping[str, ManymindsError]) -> Route:
        """The index narrows all experts to a few candidates; the router chooses among them."""
        experts = self._parts.experts
        if query.model in experts:
            return self._in_order(query, refused)
        pauses.need_anybody(experts, self._parts.every)
        if (well := self._candidates(query, refused, spared=False)).names:
            try:
                return self._route_among(query, well, refused)
            except NoExpertError:
                pass  # whoever could do it may fail just now: asked all the same, it says until when
        if not (every := self._candidates(query, refused, spared=True)).names and not query.limits.require:
            if every.refused:
                raise terms.forbidden(every.refused, query)
            raise BudgetError("What is paid for this question is not enough for anybody here.")
        try:
            return self._route_among(query, every, refused)
        except NoExpertError as error:
            if not every.refused:
                raise
            others = terms.forbidden(every.refused, query).message
            raise NoExpertError(f"{error.message} {others}", param=error.param) from error

    def _in_order(self, query: Query, refused: Mapping[str, ManymindsError]) -> Route:
        """The experts that were named, each where those before it fail; then those that a policy would ask.

        Raises: NoExpertError, where none of them can do what is asked; ForbiddenError, where none may.
        """
        experts, routes = self._parts.experts, []
        problem: ManymindsError | None = None
        for name in (query.model, *query.fallbacks):
            alone = replace(query, model=name, fallbacks=())
            try:
                if name in experts:
                    card = experts[name].card
                    terms.check_named(card, query)
                    if not terms.allows(card, query):
                        raise terms.forbidden([card], query)
                    if (card.source or name) not in refused:
                        routes.append(self._parts.router.route(alone, [card], query.limits))
                elif name in POLICIES or name == self._card.name:
                    chosen = name if name in POLICIES and name != "auto" else self._defaults.policy
                    routes.append(self._route(replace(alone, limits=self._limits(query, chosen)), refused))
                    break
            except (NoExpertError, ForbiddenError) as error:
                problem = problem or error
        if not routes:
            raise problem or NoExpertError("None of the models that were named can be asked.")
        return in_order(routes)

    def _route_among(self, query: Query, near: Candidates, refused: Mapping[str, ManymindsError]) -> Route:
        parts = self._parts
        cards = [parts.experts[name].card for name in near.names]
        if query.limits.require:
            every = [expert.card for expert in parts.experts.values()]
            route = terms.requiring(query, cards, every, refused, partial(parts.router.route, query))
        else:
            route = parts.router.route(query, cards, query.limits)
        if query.limits.explain:
            route = replace(route, compared=near.compared, considered=near.considered)
        return route if parts.explore is None else parts.explore(query, route, cards)

    def _candidates(self, query: Query, refused: Mapping[str, ManymindsError], *, spared: bool) -> Candidates:
        return candidates(query, self._parts.experts, self._parts.index, refused, spared=spared)

    async def _reserve(self, query: Query, route: Route, pact: Pact | None = None) -> Hold | None:
        """What this may cost at most is put aside from the budget of the caller's key, if it has one."""
        if query.key is None or query.key.budget_usd is None or self._parts.reserve is None:
            return None
        most_usd = purse.most_usd(query, route, self._parts.experts, self._deadline_s(query))
        try:
            return await self._parts.reserve(query.key, most_usd)
        except BaseException:
            if pact is not None:
                pact.release()
            raise

    # --- call ---

    def _call(self, query: Query, route: Route, combiner: Combiner) -> Fanout:
        """All calls at once under one deadline; they stop when there is enough posterior mass."""
        encoded = route.strategy in _ENCODED

        async def enough(answers: Sequence[Answer]) -> bool:
            if encoded:
                return await asyncio.to_thread(_is_sure, query, route, combiner, answers)
            return _is_sure(query, route, combiner, answers)

        limits, asked = self._patience, encoded or route.threshold < 1
        patience = Patience(limits.first_token_s, limits.idle_s, self._deadline_s(query))
        return Fanout(query, route, self._parts.experts, patience, enough if asked else None, self._alarm)

    def _deadline_s(self, query: Query) -> float:
        return query.limits.deadline_s or self._defaults.deadline_s or self._patience.deadline_s

    async def _fuse_anew(
        self, query: Query, route: Route, combiner: Combiner, calls: Fanout, text: str
    ) -> dict[str, bool | None] | None:
        """Of the source of each draft, whether a fused answer would say something else without it.

        Where the caller wants to know, as far as there is money and time left; None where nobody does.
        """
        if query.limits.explain != "full" or not isinstance(combiner, Fuse):
            return None
        await calls.cancel()  # what was under way has ended, or is no longer needed
        fused = [a for a in calls.answers if a.method == "fuse" and a.status == "ok"]
        if not fused:
            return None
        answers, budget_usd = calls.answers, query.limits.budget_usd
        each = len({answer.source for answer in answers if answer.method != "fuse"})
        spent = [answer.usage.cost_usd for answer in answers]
        if budget_usd is not None and sum(spent) + each * fused[0].usage.cost_usd > budget_usd:
            return None
        found = await combiner.without_each(query, route, calls, answers)
        known = {source: said for source, said in found.items() if said is not None}
        alike = await asyncio.to_thread(combiner.alike, query, [text, *known.values()])
        same = dict(zip(known, alike[1:], strict=True))
        return {source: not same[source] if source in same else None for source in found}

    def _source(self, expert: str | None) -> str:
        """Who stands behind an expert."""
        found = self._parts.experts.get(expert or "")
        return (found.card.source or found.card.name) if found is not None else ""

    # --- record ---

    def _report(
        self,
        query: Query,
        route: Route,
        combiner: Combiner,
        answers: Sequence[Answer],
        pact: Pact | None,
        last: Chunk | None,
    ) -> Report:
        """How the answer came about that ended with this chunk, and what was agreed for it."""
        found = weighed(query, route, combiner, answers)
        report = of_panel(query, route, combiner, answers, found, self._parts.alpha, last)
        if query.limits.explain:
            report = replace(report, search=searched(route, report, self._parts.experts, self._parts.index))
        if pact is not None or query.limits.require or query.limits.weights:
            report = replace(report, granted=_granted(query, route, pact, found.multipliers))
        return report

    def _record(
        self, report: Report, query: Query, answers: Sequence[Answer], text: str, status: str, seconds: float
    ) -> None:
        """Writes down who said what and what it cost; what was learnt goes to the router.

        A ledger that fails is logged: the answer has been given.
        """
        for answer in answers:
            if answer.ttft_s is not None or report.policy != DIRECT:
                self._parts.router.observe(_outcome(query, answer))
        self._write_down(report, query, answers, text, status, seconds)

    def _write_down(
        self, report: Report, query: Query, answers: Sequence[Answer], text: str, status: str, seconds: float
    ) -> None:
        try:
            self._parts.record(report, query, answers, text, status, seconds)
        except ManymindsError as error:
            log.error("request %s was not recorded: %s", query.request_id, error)


def _is_sure(query: Query, route: Route, combiner: Combiner, answers: Sequence[Answer]) -> bool:
    """Whether there is enough posterior mass to stop asking.

    Where all are asked at once, and more than `ENOUGH` sources, somebody else must have said the same:
    whoever is quick and thought to be right would else be heard alone, whatever the others agree on.
    """
    posterior = combiner.posterior(query, route, answers)
    if route.threshold >= 1 or posterior.best < route.threshold:
        return False
    at_once = len({call.stage for call in route.calls}) == 1
    if not at_once or len({call.source for call in route.calls}) <= ENOUGH:
        return True
    said, best = combiner.candidates(query, route, answers), likeliest(posterior)
    return len({a.source for a, c in zip(answers, said, strict=True) if c == best}) > 1


def _reporting(last: Chunk, report: Report, usage: Usage | None) -> Chunk:
    fields = (last.text, last.finish_reason, usage, last.raw, last.whole, last.confidence, report)
    return Chunk(*fields, grounds=grounds_of(last, report))


def _granted(
    query: Query, route: Route, pact: Pact | None, multipliers: Mapping[str, float]
) -> tuple[Granted, ...] | UnsetType:
    limits, refused = (pact.terms, pact.refused) if pact is not None else ({}, {})
    return terms.granted(query, route, limits, refused, multipliers)


def _outcome(query: Query, answer: Answer) -> Outcome:
    usage = answer.usage
    return Outcome(
        *(query.request_id, answer.expert, answer.status, answer.ttft_s, answer.seconds),
        completion_tokens=usage.completion_tokens,
        cost_usd=usage.cost_usd,
        claimed_usd=answer.claimed_usd,
    )
