"""The life of a request: receive, route, call, combine, stream, record.

A gateway is itself an `Expert`: networks nest. Knows no HTTP, no file and no kind of expert.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from manyminds import canonical
from manyminds.attribution import attribute
from manyminds.errors import CutError, ManymindsError, ModelNotFoundError, UnavailableError
from manyminds.fanout import Fanout, Patience
from manyminds.index import Index
from manyminds.router.policy import POLICIES
from manyminds.types import (
    Answer,
    Card,
    Chunk,
    Combiner,
    Embed,
    Expert,
    Limits,
    Outcome,
    PanelEntry,
    Posterior,
    Query,
    Report,
    Route,
    Router,
    Strategy,
    Usage,
)

__all__ = ["Gateway", "Parts", "Record"]

Record = Callable[[Report, Query, Sequence[Answer], str, str, float, Sequence[Outcome]], None]
"""Keeps a request: report, query, answers, released text, status, seconds, outcomes."""

_CANDIDATES = 64  # experts that the router looks at; the index narrows to as many
_SHOWN = 280  # characters of a draft in the panel, unless `explain` is set

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


class Gateway:
    """A network of experts that answers as one; keeps the contract of `types.Expert`.

    Args:
        card: what this network says of itself.
        parts: what it is made of.
        patience: limits of time where a request sets none.
        defaults: limits where a request sets none; `policy` must be set.
    """

    def __init__(self, card: Card, parts: Parts, patience: Patience, defaults: Limits) -> None:
        self._card = card
        self._parts = parts
        self._patience = patience
        self._defaults = defaults

    @property
    def card(self) -> Card:
        return self._card

    async def stream(self, query: Query) -> AsyncGenerator[Chunk, None]:
        """See `types.Expert`. The last chunk carries the report. Raises: ManymindsError.

        Closing the generator cancels every call; what was asked is recorded all the same.
        """
        began_s = asyncio.get_running_loop().time()
        query = await self._receive(query)
        route = self._route(query)
        combiner = self._parts.combiners[route.strategy]
        text, last, status = "", None, "cancelled"
        async with self._call(query, route, combiner) as calls:
            try:
                async with aclosing(combiner.combine(query, route, calls)) as chunks:
                    async for chunk in chunks:
                        text += chunk.text
                        if chunk.finish_reason is None:
                            yield chunk
                        else:
                            last = chunk
                status = "ok" if last else "cut"
            except ManymindsError:
                status = "cut" if text else "failed"
                raise
            finally:
                await calls.cancel()
                seconds = asyncio.get_running_loop().time() - began_s
                report = await self._record(query, route, combiner, calls.answers, text, status, seconds)
        if last is None:
            raise CutError("The answer ended before it was finished.")
        usage = replace(last.usage or Usage(), cost_usd=report.cost_usd)  # what all of it took
        yield replace(last, usage=usage, report=report)

    # --- receive ---

    async def _receive(self, query: Query) -> Query:
        """Fills in what the request left open, and what the question is: its kind and its vector.

        The vector takes milliseconds of computation, in a thread; an expert asked by name needs none.
        """
        limits, default = query.limits, self._defaults
        named = query.model
        if named not in (*POLICIES, *self._parts.experts, self._card.name):
            known = ", ".join([*POLICIES, *sorted(self._parts.experts)])
            raise ModelNotFoundError(f"No model is named {named!r:.80}. There are: {known}.", param="model")
        chosen = named if named in POLICIES and named != "auto" else default.policy
        limits = replace(
            limits,
            policy=limits.policy or chosen,
            deadline_s=limits.deadline_s or default.deadline_s,
            budget_usd=default.budget_usd if limits.budget_usd is None else limits.budget_usd,
        )
        vector = None
        if self._parts.embed is not None and query.model not in self._parts.experts:
            (vector,) = await asyncio.to_thread(self._parts.embed, [query.question])
        return replace(query, limits=limits, task=canonical.task(query), vector=vector)

    # --- route ---

    def _route(self, query: Query) -> Route:
        """The index narrows all experts to a few candidates; the router chooses among them."""
        experts = self._parts.experts
        if not experts:
            message = "This network has no expert: set `local.tier` or add an `[[expert]]` to manyminds.toml."
            raise UnavailableError(message)
        names: Sequence[str] = sorted(experts)
        if query.model in experts:
            names = [query.model]
        elif len(names) > _CANDIDATES:
            names = self._narrowed(
                query, [name for name in names if _meets(experts[name].card, query)] or names
            )
        return self._parts.router.route(query, [experts[name].card for name in names], query.limits)

    def _narrowed(self, query: Query, names: Sequence[str]) -> list[str]:
        """The nearest of these by skill; those that state none come last, and count where there is room."""
        index, known = self._parts.index, set(names)
        hits = index.search(query.vector, len(index)).hits if query.vector is not None and len(index) else ()
        near = [name for name, _ in hits if name in known]
        return [*near, *(name for name in names if name not in index or not near)][:_CANDIDATES]

    # --- call ---

    def _call(self, query: Query, route: Route, combiner: Combiner) -> Fanout:
        """All calls at once under one deadline; they stop when there is enough posterior mass."""

        async def enough(answers: Sequence[Answer]) -> bool:
            # Also where nothing could be enough: it fills the encoder's memory away from the event loop.
            posterior = await asyncio.to_thread(combiner.posterior, query, route, answers)
            return route.threshold < 1 and posterior.best >= route.threshold

        patience = replace(self._patience, deadline_s=query.limits.deadline_s or self._patience.deadline_s)
        return Fanout(query, route, self._parts.experts, patience, enough)

    # --- record ---

    async def _record(
        self,
        query: Query,
        route: Route,
        combiner: Combiner,
        answers: Sequence[Answer],
        text: str,
        status: str,
        seconds: float,
    ) -> Report:
        """Writes down who said what and what it cost; what was learnt goes to the router.

        A ledger that fails is logged: the answer has been given.
        """
        report = _report(query, route, combiner, answers)
        outcomes = [_outcome(query, answer) for answer in answers if answer.status != "cancelled"]
        for answer in answers:
            self._parts.router.observe(_outcome(query, answer))
        try:
            await asyncio.to_thread(
                self._parts.record, report, query, answers, text, status, seconds, outcomes
            )
        except ManymindsError as error:
            log.error("request %s was not recorded: %s", query.request_id, error)
        return report


def _meets(card: Card, query: Query) -> bool:
    """Whether the router could choose it at all, by what needs no prediction."""
    include, names = set(query.limits.include), {card.name, card.source}
    return query.demands <= card.offers and (not include or bool(include & names))


def _report(query: Query, route: Route, combiner: Combiner, answers: Sequence[Answer]) -> Report:
    drafts = [answer for answer in answers if answer.method != "fuse"]
    fused = any(a.method == "fuse" and a.status == "ok" and a.text.strip() for a in answers)
    strategy: Strategy = "select" if route.strategy == "fuse" and not fused else route.strategy
    posterior = combiner.posterior(query, route, drafts)
    candidates = combiner.candidates(query, route, drafts)
    shown = dict(zip(map(id, drafts), candidates, strict=True))
    cost = sum(answer.usage.cost_usd for answer in answers)
    voters = [c for c in candidates if c is not None]
    winner = _winner(posterior)
    comparable = bool(voters) and strategy not in ("race", "pass")
    return Report(
        request_id=query.request_id,
        policy=route.policy,
        strategy=strategy,
        panel=tuple(_entry(query, route, posterior, answer, shown.get(id(answer))) for answer in answers),
        agreement=sum(c == winner for c in voters) / len(voters) if comparable else None,
        probability=posterior.best if voters and not fused else None,
        attribution=attribute(query, route, drafts, combiner.posterior, combiner.candidates, estimated=fused),
        cost_usd=cost,
        saved_usd=_best_single_cost(route, answers) - cost,
    )


def _winner(posterior: Posterior) -> str | None:
    pairs = zip(posterior.candidates, posterior.probabilities, strict=True)
    return max(pairs, key=lambda pair: pair[1], default=(None, 0.0))[0]


def _entry(
    query: Query, route: Route, posterior: Posterior, answer: Answer, candidate: str | None
) -> PanelEntry:
    call = route.call_of(answer.expert)
    probabilities = dict(zip(posterior.candidates, posterior.probabilities, strict=True))
    text = canonical.answer_of(query.task, answer.text) or answer.text
    if not query.limits.explain and len(text) > _SHOWN:
        text = text[: _SHOWN - 1] + "…"
    return PanelEntry(
        expert=answer.expert,
        source=answer.source,
        weight=call.share if call and answer.method != "fuse" else 0.0,
        answer=text,
        correct_probability=None if candidate is None else probabilities.get(candidate),
        ttft_s=answer.ttft_s,
        seconds=answer.seconds,
        cost_usd=answer.usage.cost_usd,
        status=answer.status,
        stage=answer.stage,
        method=answer.method,
        error=answer.error.message if answer.error else None,
    )


def _best_single_cost(route: Route, answers: Sequence[Answer]) -> float:
    """What the best single expert took, or would have taken as the router expects."""
    asked = [a.usage.cost_usd for a in answers if a.expert == route.best_single and a.status == "ok"]
    return asked[0] if asked else route.best_single_cost_usd


def _outcome(query: Query, answer: Answer) -> Outcome:
    tokens = answer.usage.completion_tokens
    return Outcome(query.request_id, answer.expert, answer.status, answer.ttft_s, answer.seconds, tokens)
