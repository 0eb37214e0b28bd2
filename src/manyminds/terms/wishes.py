"""A route that has everybody on its panel whom the request requires. Pure; knows no expert but by card."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from manyminds.canonical import classes
from manyminds.errors import InvalidRequestError, ManymindsError, NoExpertError
from manyminds.router.order import in_order
from manyminds.router.predictor import log_odds
from manyminds.terms.owners import allows, forbidden
from manyminds.types import Call, Card, Limits, Query, Route

__all__ = ["PARAM", "check_named", "requiring"]

PARAM = "manyminds.require"

_Find: TypeAlias = Callable[[Sequence[Card], Limits], Route]
"""What a router makes of these candidates. Raises: NoExpertError."""


def check_named(card: Card, query: Query) -> None:
    """Raises: InvalidRequestError where an expert that is asked by name is not all that is required."""
    if strange := [name for name in query.limits.require if name not in _names(card)]:
        raise InvalidRequestError(
            f"The model {card.name!r} alone is asked, and {strange[0]!r:.80} is required: name a policy as "
            "the model, or leave out manyminds.require.",
            param=PARAM,
        )


def requiring(
    query: Query,
    near: Sequence[Card],
    every: Sequence[Card],
    refused: Mapping[str, ManymindsError],
    find: _Find,
) -> Route:
    """The route with somebody of each name that is required in its first stage, who is waited for.

    Those whom the router does not choose by itself come to those it does: of a panel that is limited, or of a
    budget, they have their part first. A race is run by one alone, so nobody races whom another is required
    beside; unless asked to, nobody races at all.

    Args:
        query: what is asked.
        near: candidates that may be asked.
        every: all experts.
        refused: sources that have nothing left, and why.
        find: see `_Find`.

    Raises: ForbiddenError, RateLimitError, BudgetError, NoExpertError, InvalidRequestError; its `param` is
        manyminds.require.
    """
    limits, names = query.limits, tuple(dict.fromkeys(query.limits.require))
    wanted = {name: _those(name, every, query, refused) for name in names}
    if limits.strategy in ("race", "pass") or "tools" in query.demands or query.sampling.n > 1:
        if len(names) > 1:
            raise InvalidRequestError(
                f"One expert answers alone here, and {len(names)} are required: set another "
                "manyminds.strategy, or require one.",
                param=PARAM,
            )
        return in_order([_alone(names[0], wanted[names[0]], limits, find)])
    if limits.panel is not None and len(names) > limits.panel:
        raise InvalidRequestError(
            f"{len(names)} are required, and the panel may have {limits.panel}: raise manyminds.panel.",
            param=PARAM,
        )
    if limits.strategy is None:
        limits = replace(limits, strategy="select" if query.task.kind == "text" else "vote")
    whole = find(near, limits) if near else None
    if whole is not None and all(_covered(name, whole.calls, wanted) for name in names):
        return _marked(whole, [_covered(name, whole.calls, wanted) for name in names])
    return _joined(query, names, wanted, near, limits, find)


def _names(card: Card) -> set[str]:
    return {card.name, card.source or card.name, card.variant_of or card.name}


def _those(
    name: str, every: Sequence[Card], query: Query, refused: Mapping[str, ManymindsError]
) -> list[Card]:
    """The experts that are meant, and may be asked."""
    meant = [card for card in every if name in _names(card)]
    if not meant:
        raise NoExpertError(f"No expert or source here is named {name!r:.80}.", param=PARAM)
    allowed = [card for card in meant if allows(card, query)]
    if not allowed:
        raise forbidden(meant, query, PARAM)
    left = [card for card in allowed if (card.source or card.name) not in refused]
    if not left:
        error = refused[allowed[0].source or allowed[0].name]
        raise type(error)(error.message, param=PARAM, retry_after_s=error.retry_after_s)
    return left


def _alone(name: str, cards: Sequence[Card], limits: Limits, find: _Find) -> Route:
    """That of the likeliest of them."""
    try:
        return find(cards, replace(limits, panel=1, quorum=None))
    except NoExpertError as error:
        raise NoExpertError(f"{name!r:.80} is required. {error.message}", param=PARAM) from error


def _covered(name: str, calls: Sequence[Call], wanted: Mapping[str, Sequence[Card]]) -> str:
    """The likeliest expert of that name on the panel; "" where there is none."""
    meant = {card.name for card in wanted[name]}
    there = [call for call in calls if call.expert in meant]
    return min(there, key=lambda c: (-c.probability, c.expert)).expert if there else ""


def _marked(route: Route, required: Sequence[str]) -> Route:
    """With these in its first stage, and waited for."""
    first = min(call.stage for call in route.calls)
    calls = (
        replace(call, stage=first, required=True, hedge_s=None) if call.expert in required else call
        for call in route.calls
    )
    return replace(route, calls=tuple(calls))


def _joined(
    query: Query,
    names: Sequence[str],
    wanted: Mapping[str, Sequence[Card]],
    near: Sequence[Card],
    limits: Limits,
    find: _Find,
) -> Route:
    """Those who are required first, each as if alone; then whomever the router chooses with what is left."""
    single = {name: _alone(name, wanted[name], limits, find) for name in names}
    calls = {route.calls[0].expert: route.calls[0] for route in single.values()}
    cost = {route.calls[0].expert: route.expected_cost_usd for route in single.values()}
    cost_usd = math.fsum(cost.values())
    if limits.budget_usd is not None and cost_usd > limits.budget_usd:
        raise NoExpertError(
            f"Those who are required would cost about ${cost_usd:.2g} of ${limits.budget_usd:.2g}: raise "
            "manyminds.budget_usd.",
            param=PARAM,
        )
    route = next(iter(single.values()))
    left = limits.panel - len(calls) if limits.panel is not None else None
    others = [card for card in near if card.name not in calls and card.variant_of not in calls]
    reserve: Sequence[Call] = ()
    more: Sequence[Call] = ()
    if others and left != 0:
        budget_usd = None if limits.budget_usd is None else limits.budget_usd - cost_usd
        try:
            route = find(others, replace(limits, panel=left, budget_usd=budget_usd))
            more, reserve = route.calls, route.reserve
            cost_usd += route.expected_cost_usd
        except NoExpertError:
            pass  # nobody else fits beside them
    first = min((call.stage for call in more), default=0)
    required = [replace(call, stage=first) for call in calls.values()]
    best = max((route, *single.values()), key=lambda found: found.expected_accuracy)
    return _marked(
        replace(
            route,
            strategy=limits.strategy or route.strategy,
            calls=_shared((*required, *more), query),
            reserve=tuple(call for call in reserve if call.expert not in calls),
            fuser=route.fuser if more else None,
            expected_accuracy=best.expected_accuracy,
            expected_cost_usd=cost_usd,
            best_single=best.best_single,
            best_single_cost_usd=best.best_single_cost_usd,
        ),
        list(calls),
    )


def _shared(calls: Sequence[Call], query: Query) -> tuple[Call, ...]:
    """With shares as of one panel."""
    count = classes(query.task)
    votes = [call.weight * max(log_odds(call.probability, count), 0.0) for call in calls]
    if not any(votes):
        votes = [1.0] * len(calls)
    total = math.fsum(votes)
    return tuple(replace(call, share=vote / total) for call, vote in zip(calls, votes, strict=True))
