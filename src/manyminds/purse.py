"""What a request may cost at most, and how much of a budget goes to whom.

Goes by cards and by the longest answers that there can be. Pure; knows no prediction, and calls nobody.

Two sorts of budget come here. What a caller sets is what an answer may be expected to cost: of it, other
networks are told their part, and this network's own experts are chosen by it. What another node pays for its
question, `Journey.budget_usd`, holds whatever comes: each call has its part, and no part is used twice.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from manyminds.errors import BudgetError
from manyminds.types import Call, Card, Expert, Query, Route

__all__ = ["apportioned", "most_usd", "payable"]

_FUSE_TOKENS: Final = 4096  # of a fuser's own instructions, and of what marks the drafts
_USUAL_TOKENS: Final = 256  # of an answer: with less than it takes nobody is asked beside others

_Experts = Mapping[str, Expert]


def most_usd(query: Query, route: Route, experts: _Experts, deadline_s: float) -> float:
    """If everybody who may be asked reads and writes as much as there can be, and always computes."""
    most = math.fsum(_most_of(query, call, experts, deadline_s) for call in route.everyone)
    fused = 1 + (len({call.source for call in route.everyone}) if query.limits.explain == "full" else 0)
    return most + fused * _fuser_usd(query, route, route.everyone, experts, deadline_s)


def payable(card: Card, query: Query) -> bool:
    """Whether what another node pays for this question is enough for a word of this expert's.

    A way of asking reads more than the question, and may ask twice: who is paid for it is asked as he is.
    """
    budget_usd = _bound_usd(query)
    if budget_usd is None or not (card.price_in_usd_per_m or card.price_out_usd_per_m):
        return True
    return not card.variant_of and card.price_usd(query.most_tokens, query.sampling.n, 0.0) <= budget_usd


def apportioned(query: Query, route: Route, experts: _Experts, deadline_s: float) -> Route:
    """The route with what each call on it may cost, as far as that is limited.

    Raises: BudgetError where what another node pays for it is not enough for anybody.
    """
    bound_usd = _bound_usd(query)
    if bound_usd is not None:
        return _paid(query, route, experts, bound_usd)
    if query.limits.budget_usd is not None:
        return _shared(query, route, experts, deadline_s, query.limits.budget_usd)
    return route


def _bound_usd(query: Query) -> float | None:
    """What may be paid for it at most, whatever comes; None where nobody but this node pays."""
    if query.journey is None or query.journey.budget_usd is None:
        return None
    own = query.limits.budget_usd
    return query.journey.budget_usd if own is None else min(own, query.journey.budget_usd)


def _shared(query: Query, route: Route, experts: _Experts, deadline_s: float, budget_usd: float) -> Route:
    """With what each other network may charge: with all the others' most, no more than there is."""
    names = [call.expert for call in route.everyone] + ([route.fuser] if route.fuser else [])
    if not any(_kind(name, experts) == "peer" for name in names):
        return route
    total = most_usd(query, route, experts, deadline_s)
    share = min(1.0, budget_usd / total) if total > 0 else 1.0

    def limited(calls: Sequence[Call]) -> tuple[Call, ...]:
        return tuple(
            replace(call, budget_usd=share * _most_of(query, call, experts, deadline_s) / call.samples)
            if _kind(call.expert, experts) == "peer"
            else call
            for call in calls
        )

    fuser_usd = None
    if route.fuser is not None and _kind(route.fuser, experts) == "peer":
        fuser_usd = share * _fuser_usd(query, route, route.everyone, experts, deadline_s)
    return replace(route, calls=limited(route.calls), reserve=limited(route.reserve), fuser_usd=fuser_usd)


def _paid(query: Query, route: Route, experts: _Experts, budget_usd: float) -> Route:
    """As many of its calls as the budget pays for: the likeliest first, in full as long as it lasts.

    What they may cost, with reserve and fuser, sums to no more than the budget. What this node's own machines
    compute is not paid to anybody, and not counted.
    """
    calls = sorted(route.calls, key=lambda call: (call.stage, -call.probability, call.expert))
    if route.fuser is not None:
        for count in range(len(calls), 1, -1):
            fuser_usd = _fuser_usd(query, route, calls[:count], experts, 0.0)
            purse = _Purse(query, experts, budget_usd - fuser_usd)
            if fuser_usd <= budget_usd and len(kept := purse.pay(calls[:count])) == count:
                return _kept(replace(route, fuser_usd=fuser_usd), kept, purse.pay(route.reserve))
        route = replace(route, strategy="select", fuser=None)
    purse = _Purse(query, experts, budget_usd)
    kept, reserve = purse.pay(calls), purse.pay(route.reserve)
    if not kept and not reserve:
        kept = purse.pay((*calls, *route.reserve), query.sampling.n)[:1]
    if not kept:
        kept, reserve = reserve[:1], reserve[1:]
    if not kept:
        raise BudgetError(f"${budget_usd:g} do not pay for anybody here who could answer this question.")
    return _kept(route, kept, reserve)


class _Purse:
    """What is left of a budget. What was taken out of it for a call stays out."""

    def __init__(self, query: Query, experts: _Experts, budget_usd: float) -> None:
        self._query = query
        self._experts = experts
        self._left_usd = budget_usd

    def pay(self, calls: Sequence[Call], least_tokens: int = _USUAL_TOKENS) -> list[Call]:
        """Those of the calls, in order, for which there is enough for so many tokens, if not for all."""
        kept = []
        for call in calls:
            most = _most_of(self._query, call, self._experts, 0.0)
            least = min(most, _most_of(self._query, call, self._experts, 0.0, least_tokens))
            if least <= self._left_usd:
                usd = min(most, self._left_usd)
                self._left_usd -= usd
                kept.append(replace(call, budget_usd=usd / call.samples))
        return kept


def _kept(route: Route, calls: Sequence[Call], reserve: Sequence[Call]) -> Route:
    """The route with these calls alone; their shares sum to 1."""
    total = math.fsum(call.share for call in calls)
    shared = (replace(call, share=call.share / total if total > 0 else 1.0 / len(calls)) for call in calls)
    return replace(route, calls=tuple(shared), reserve=tuple(reserve))


def _most_of(
    query: Query, call: Call, experts: _Experts, deadline_s: float, written: int | None = None
) -> float:
    """The most that a call may cost by its expert's card, in US dollars; nothing of one that has left."""
    if (expert := experts.get(call.expert)) is None:
        return 0.0
    card, samples = expert.card, call.samples
    tokens = _written(query, card) if written is None else written
    return card.price_usd(query.most_tokens * samples, tokens * samples, samples * deadline_s)


def _fuser_usd(
    query: Query, route: Route, drafts: Sequence[Call], experts: _Experts, deadline_s: float
) -> float:
    """The most that its fuser may cost, who reads all drafts."""
    fuser = experts.get(route.fuser) if route.fuser is not None else None
    if fuser is None:
        return 0.0
    found = [(experts.get(call.expert), call.samples) for call in drafts]
    read = sum(_written(query, expert.card) * samples for expert, samples in found if expert is not None)
    tokens = query.most_tokens + _FUSE_TOKENS + read
    return fuser.card.price_usd(tokens, _written(query, fuser.card), deadline_s)


def _written(query: Query, card: Card) -> int:
    """The tokens that an answer may have at most."""
    return (query.sampling.max_tokens or card.context_tokens) * query.sampling.n


def _kind(name: str, experts: _Experts) -> str:
    expert = experts.get(name)
    return "" if expert is None else expert.card.kind
