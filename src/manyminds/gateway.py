"""The life of a request: receive, route, call, combine, stream, record.

A gateway is itself an `Expert`: networks nest. Knows no HTTP, no file and no kind of expert.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from msgspec.structs import replace

from manyminds import canonical, purse
from manyminds.alarm import Alarm
from manyminds.cache import Cache, Lookup
from manyminds.combine.ballot import ENOUGH, likeliest
from manyminds.errors import (
    BudgetError,
    CutError,
    InvalidRequestError,
    ManymindsError,
    ModelNotFoundError,
    NoExpertError,
    UnavailableError,
)
from manyminds.fanout import Fanout, Patience, Single
from manyminds.index import Index
from manyminds.private import PRIVATE, Asking, Bank
from manyminds.report import of_one, of_panel
from manyminds.router.order import in_order
from manyminds.router.policy import DIRECT, POLICIES, suits
from manyminds.types import (
    Answer,
    Card,
    Chunk,
    Combiner,
    Embed,
    Expert,
    Hold,
    Journey,
    Key,
    Limits,
    Outcome,
    Query,
    Report,
    Route,
    Router,
    Search,
    Strategy,
    Usage,
)

__all__ = ["HOPS", "Explore", "Gateway", "Parts", "Record", "Reserve", "is_spared"]

Record = Callable[[Report, Query, Sequence[Answer], str, str, float], None]
"""Keeps a request: report, query, answers, released text, status, seconds. It must not wait for a disk."""


Explore = Callable[[Query, Route, Sequence[Card]], Route]
"""A route, or the same with one more of these experts asked, of which little is known."""

Reserve = Callable[[Key, float], Awaitable[Hold]]
"""Puts aside what a request of a key may cost at most, in US dollars. Raises: BudgetError."""

_CANDIDATES = 64  # experts that the router looks at; the index narrows to as many
_MORE = 4  # times as many are asked of the index where too few of the nearest can do it
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


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Whom the router looks at; vectors that were compared and experts considered, to find them."""

    names: Sequence[str]
    compared: int
    considered: int


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

    def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """See `types.Expert`. The last chunk carries the report. Raises: ManymindsError.

        Closing the generator cancels every call; what was asked is recorded all the same.
        """
        if self._is_direct(query):
            return self._pass(query)
        return (
            self._ask_privately(query) if PRIVATE in (query.model, query.limits.policy) else self._ask(query)
        )

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
        route = self._route(query)
        route = purse.apportioned(query, route, self._parts.experts, self._deadline_s(query))
        if route.section:
            query = replace(query, section=route.section)
        hold = await self._reserve(query, route)
        combiner = self._parts.combiners[route.strategy]
        text, last, status = "", None, "cancelled"
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
                        yield chunk
                status = "ok" if last else "cut"
            except ManymindsError:
                status = "cut" if text else "failed"
                raise
            finally:
                await calls.cancel()
                report = of_panel(query, route, combiner, calls.answers)
                if kept is not None:
                    report = replace(report, cache="miss")
                if query.limits.explain:
                    report = replace(report, search=self._searched(route, report))
                if hold is not None:
                    hold.settle(report.cost_usd)
                self._record(report, query, calls.answers, text, status, self._alarm.clock() - began_s)
        if last is None:
            raise CutError("The answer ended before it was finished.")
        used = last.usage or Usage()
        usage = Usage(used.prompt_tokens, used.completion_tokens, used.cpu_s, report.cost_usd)  # of all of it
        last = Chunk(last.text, last.finish_reason, usage, last.raw, last.whole, last.confidence, report)
        self._keep(kept, last)
        yield last

    def _ask_privately(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """A noised vote, see docs/privacy.md: it is never kept, and nothing is learnt of it."""
        limits = self._limits(query, PRIVATE)
        if query.fallbacks:
            raise InvalidRequestError("A private answer has no fallbacks: name one model.", param="models")
        journey = query.journey or Journey(
            asyncio.get_running_loop().time() + self._deadline_s(query), self._hops
        )
        return self._private.stream(replace(query, limits=limits, journey=journey))

    async def complete(self, query: Query) -> Sequence[Chunk]:
        """See `types.Completer`. What `stream` gives, sooner where one expert is asked by name."""
        if not self._is_direct(query):
            async with aclosing(self.stream(query)) as stream:
                return [chunk async for chunk in stream]
        kept = self._look_up(query, DIRECT)
        if kept is not None and (hit := kept.exact()) is not None:
            self._record(hit.report, query, (), hit.text, "ok", 0.0)
            return hit.chunks
        route = self._direct(query)
        hold = await self._reserve(query, route)
        call = self._single(query, route)
        try:
            found = await call.whole()
        finally:
            report = self._record_single(query, route, call, hold, kept)
        *chunks, last = found
        last = _reporting(last, report)
        if kept is not None:
            for chunk in chunks:
                kept.take(chunk)
        self._keep(kept, last)
        return [*chunks, last]

    async def _pass(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """The answer of one expert, asked by name: its chunks as they come, untouched."""
        kept = self._look_up(query, DIRECT)
        if kept is not None and (hit := kept.exact()) is not None:
            self._record(hit.report, query, (), hit.text, "ok", 0.0)
            for chunk in hit.chunks:
                yield chunk
            return
        route = self._direct(query)
        hold = await self._reserve(query, route)
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
            report = self._record_single(query, route, call, hold, kept)
        last = _reporting(last, report)
        self._keep(kept, last)
        yield last

    def _is_direct(self, query: Query) -> bool:
        """Whether it asks one expert by name, and nobody where that fails."""
        return not query.fallbacks and query.model in self._parts.experts

    def _direct(self, query: Query) -> Route:
        expert, limits = self._parts.experts[query.model], query.limits
        if limits.budget_usd is None and self._defaults.budget_usd is not None:
            limits = replace(limits, budget_usd=self._defaults.budget_usd)
        return self._parts.router.route(query, [expert.card], limits)

    def _single(self, query: Query, route: Route) -> Single:
        expert = self._parts.experts[query.model]
        return Single(route.calls[0], expert, query, self._patience, self._deadline_s(query), self._alarm)

    def _record_single(
        self, query: Query, route: Route, call: Single, hold: Hold | None, kept: Lookup | None
    ) -> Report:
        answer = call.answer
        report = of_one(query, route, answer)
        if kept is not None:
            report = replace(report, cache="miss")
        if hold is not None:
            hold.settle(report.cost_usd)
        ended = answer.status in ("ok", "cancelled")
        status = answer.status if ended else "cut" if answer.text else "failed"
        self._record(report, query, [answer], answer.text, status, answer.seconds)
        return report

    # --- receive ---

    def _receive(self, query: Query) -> Query:
        """Fills in what the request left open. Of several models, those that nobody knows are left out."""
        for i, named in enumerate(names := (query.model, *query.fallbacks)):
            if named in self._parts.experts:
                rest = names[i + 1 :]
                return replace(query, model=named, fallbacks=rest, limits=self._limits(query, None))
            if named in POLICIES or named == self._card.name:
                chosen = named if named in POLICIES and named != "auto" else self._defaults.policy
                return replace(query, model=named, fallbacks=(), limits=self._limits(query, chosen))
        known = ", ".join([*POLICIES, PRIVATE, *sorted(self._parts.experts)])
        raise ModelNotFoundError(f"No model is named {query.model!r:.80}. There are: {known}.", param="model")

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

    def _keep(self, kept: Lookup | None, last: Chunk) -> None:
        """An answer that has come to its end; not while anybody is spared, who might give a better one."""
        if kept is not None and not any(map(is_spared, self._parts.experts.values())):
            kept.take(last)
            kept.keep()

    # --- route ---

    def _route(self, query: Query) -> Route:
        """The index narrows all experts to a few candidates; the router chooses among them."""
        experts = self._parts.experts
        if query.model in experts:
            return self._in_order(query)
        if not experts:
            message = "This network has no expert: set `local.tier` or add an `[[expert]]` to manyminds.toml."
            raise UnavailableError(message)
        if (well := self._candidates(query, spared=False)).names:
            try:
                return self._route_among(query, well)
            except NoExpertError:
                pass  # whoever could do it may fail just now: asked all the same, it says until when
        if not (every := self._candidates(query, spared=True)).names:
            raise BudgetError("What is paid for this question is not enough for anybody here.")
        return self._route_among(query, every)

    def _in_order(self, query: Query) -> Route:
        """The experts that were named, each where those before it fail; then those that a policy would ask.

        Raises: NoExpertError, where none of them can do what is asked.
        """
        experts, routes, problem = self._parts.experts, [], None
        for name in (query.model, *query.fallbacks):
            alone = replace(query, model=name, fallbacks=())
            try:
                if name in experts:
                    routes.append(self._parts.router.route(alone, [experts[name].card], query.limits))
                elif name in POLICIES or name == self._card.name:
                    chosen = name if name in POLICIES and name != "auto" else self._defaults.policy
                    routes.append(self._route(replace(alone, limits=self._limits(query, chosen))))
                    break
            except NoExpertError as error:
                problem = problem or error
        if not routes:
            raise problem or NoExpertError("None of the models that were named can be asked.")
        return in_order(routes)

    def _route_among(self, query: Query, near: "_Candidates") -> Route:
        cards = [self._parts.experts[name].card for name in near.names]
        route = self._parts.router.route(query, cards, query.limits)
        if query.limits.explain:
            route = replace(route, compared=near.compared, considered=near.considered)
        return route if self._parts.explore is None else self._parts.explore(query, route, cards)

    def _candidates(self, query: Query, *, spared: bool) -> "_Candidates":
        """Everybody, where that is few, else the nearest by skill; with those that are spared, or without."""
        experts = self._parts.experts
        if len(experts) > _CANDIDATES:
            return self._narrowed(query, spared=spared)
        names = [name for name in sorted(experts) if spared or not is_spared(experts[name])]
        names = [name for name in names if purse.payable(experts[name].card, query)]
        return _Candidates(names, 0, len(names))

    def _narrowed(self, query: Query, *, spared: bool) -> "_Candidates":
        """The nearest by skill of those that could be asked; who states no skill counts where there is room.

        Costs what the index does: only where it knows too few are all experts gone through.
        """
        experts, index = self._parts.experts, self._parts.index

        def fits(name: str) -> bool:
            expert = experts.get(name)
            return expert is not None and (spared or not is_spared(expert)) and _meets(expert.card, query)

        near: list[str] = []
        compared, considered, limit = 0, 0, _CANDIDATES
        while query.vector is not None and len(near) < _CANDIDATES:
            found = index.search(query.vector, limit)
            near = [name for name, _ in found.hits if fits(name)]
            compared, considered = compared + found.compared, found.considered
            if len(found.hits) < limit:  # it has no more
                break
            limit *= _MORE
        if len(near) < _CANDIDATES:
            others = sorted(name for name in experts if (name not in index or not near) and fits(name))
            near += others[: _CANDIDATES - len(near)]
            considered += len(others)
        if not near and spared:
            near = sorted(experts)[:_CANDIDATES]  # of whom the router says what they lack
        return _Candidates(near[:_CANDIDATES], compared, considered)

    async def _reserve(self, query: Query, route: Route) -> Hold | None:
        """What this may cost at most is put aside from the budget of the caller's key, if it has one."""
        if query.key is None or query.key.budget_usd is None or self._parts.reserve is None:
            return None
        most_usd = purse.most_usd(query, route, self._parts.experts, self._deadline_s(query))
        return await self._parts.reserve(query.key, most_usd)

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

    # --- record ---

    def _searched(self, route: Route, report: Report) -> Search:
        """What it took to find whom to ask, and whose parameters that touched: those of who was asked."""
        experts = self._parts.experts
        asked = {entry.expert for entry in report.panel} & experts.keys()
        touched, total = _parameters(experts[name].card for name in asked), self._parts.index.parameters
        if len(experts) <= _CANDIDATES:
            total = _parameters(expert.card for expert in experts.values())
        return Search(route.compared, route.considered, min(1.0, touched / total) if total else 0.0)

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


def _reporting(last: Chunk, report: Report) -> Chunk:
    return Chunk(last.text, last.finish_reason, last.usage, last.raw, last.whole, last.confidence, report)


def is_spared(expert: Expert) -> bool:
    """Whether it fails every call at once for a while: see `experts.guarded`. In a running loop."""
    until: float | None = getattr(expert, "open_until", None)
    return until is not None and asyncio.get_running_loop().time() < until


def _meets(card: Card, query: Query) -> bool:
    """Whether the router could choose it at all, by what needs no prediction."""
    include, exclude = query.limits.include, query.limits.exclude
    if include or exclude:
        names = {card.name, card.source or card.name, card.variant_of or card.name}
        if not names.isdisjoint(exclude) or (include and names.isdisjoint(include)):
            return False
    return suits(card, query) and purse.payable(card, query)


def _parameters(cards: Iterable[Card]) -> int:
    """Of all these together; ways of asking one model are one model."""
    return sum({card.variant_of or card.name: card.parameters for card in cards}.values())


def _outcome(query: Query, answer: Answer) -> Outcome:
    usage = answer.usage
    return Outcome(
        *(query.request_id, answer.expert, answer.status, answer.ttft_s, answer.seconds),
        completion_tokens=usage.completion_tokens,
        cost_usd=usage.cost_usd,
        claimed_usd=answer.claimed_usd,
    )
