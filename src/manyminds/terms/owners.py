"""What those who stand behind experts allow: whom they answer, for what, and how far they move the answer.

Pure; knows no budget, only how much of one is asked for.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final, Literal, NamedTuple

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from manyminds.attribution import most_nats
from manyminds.errors import ForbiddenError
from manyminds.types import FREE, Bound, Call, Card, Expert, Granted, Limits, Query, Route, Terms

__all__ = [
    "LEAST_NATS",
    "Demand",
    "allows",
    "bind",
    "demands",
    "forbidden",
    "granted",
    "refusal",
]

LEAST_NATS: Final = 0.01
"""With less than that left for it, it is not asked."""

_ALONE: Final = ("race", "pass", "fuse")
"""Strategies in which no weight bounds what somebody does to the answer."""

_SHOWN: Final = 8

_Experts = Mapping[str, Expert]


# --- who may ask -----------------------------------------------------------------------------------


def allows(card: Card, query: Query) -> bool:
    """Whether its owner has it answer this caller, and this purpose."""
    return card.terms is FREE or not refusal(card, query)


def refusal(card: Card, query: Query) -> str:
    """What its owner has against it; "" where nothing."""
    terms, purpose = card.terms, _purpose(query)
    if terms.purposes and purpose not in terms.purposes:
        said = f"this is for {purpose!r}" if purpose else "this request does not say what it is for"
        return f"{_owner(card)} allows {_listed(terms.purposes)} only, and {said}: set manyminds.purpose"
    if terms.callers:
        names = _names(query)
        if not any(fnmatchcase(name, glob) for name in names for glob in terms.callers):
            who = f"this is asked by {names[0]!r}" if names[0] else "this request has no key"
            return f"{_owner(card)} answers {_listed(terms.callers)} only, and {who}: ask its owner"
    return ""


def forbidden(cards: Iterable[Card], query: Query, param: str | None = None) -> ForbiddenError:
    """Why none of these experts may be asked."""
    said = sorted({refusal(card, query) for card in cards} - {""})
    more = f"; and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
    return ForbiddenError(f"Nobody here may answer this: {'; '.join(said[:_SHOWN])}{more}.", param=param)


def _purpose(query: Query) -> str:
    return query.limits.purpose or (query.journey.purpose if query.journey else "")


def _names(query: Query) -> tuple[str, ...]:
    """By which an owner may mean who asks: a key, else the node that asked last, else nobody at all."""
    if query.key is not None:
        return query.key.name, query.key.id
    return query.journey.visited[-1:] or ("",) if query.journey is not None else ("",)


def _owner(card: Card) -> str:
    source = card.source or card.name
    return source if source == card.name else f"{source}, whose {card.name} is,"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(filter(None, names))


# --- how far they may move the answer --------------------------------------------------------------


class Demand(NamedTuple):
    """What is to be agreed with one source before it is asked.

    `most_nats` is all that it can do to the answer, `least_nats` what it must be granted of that to be asked;
    0 where it has no budget.
    """

    source: str
    terms: Terms
    most_nats: float
    least_nats: float
    refused: str  # why it cannot be asked in this way at all
    spare: bool  # only in reserve: it can be left out, and nothing else changes


def demands(route: Route, experts: _Experts) -> list[Demand]:
    """Of each source on the route that limits more than who may ask; sorted by source.

    Who moves an answer that is put together from several is weighed so that it keeps to what was granted, be
    that little. Where no weight does that, all is needed (see `attribution.most_nats`): in a race and of an
    expert alone, which are the answer; of drafts and of whoever writes one answer from them; and of those in
    reserve, who are asked where all others have failed.
    """
    limiting = _limiting(route, experts)
    if not limiting:
        return []
    panel = {call.source for call in route.calls}
    alone = route.strategy in _ALONE or len(panel) == 1
    whole = most_nats(sum(call.samples for call in route.everyone))
    fuser = experts.get(route.fuser or "")
    asked = panel if fuser is None else panel | {_source(fuser.card)}
    silent = _least_share(route, limiting)
    found = []
    for source, terms in sorted(limiting.items()):
        all_of_it = alone or source not in panel or (fuser is not None and _source(fuser.card) == source)
        refused = ""
        if terms.max_share < 1.0 and (route.strategy in _ALONE or source not in asked or source == silent):
            refused = (
                f"{source} may have {terms.max_share:.0%} of an answer at most, and would have all of it"
            )
        elif source not in asked and terms.requests_per_min is not None and route.strategy != "race":
            refused = f"{source} counts its questions, and may not be asked at all"
        most, least = 0.0, 0.0
        if terms.budget_nats is not None:
            most, least = whole, whole if all_of_it else LEAST_NATS
        found.append(Demand(source, terms, most, least, refused, source not in asked))
    return found


def _limiting(route: Route, experts: _Experts) -> dict[str, Terms]:
    """The terms of those sources on it that have any such: the tightest, where its experts differ."""
    names = [call.expert for call in route.everyone]
    found: dict[str, Terms] = {}
    for name in [*names, route.fuser] if route.fuser else names:
        expert = experts.get(name)
        if expert is None or expert.card.terms is FREE:
            continue
        terms, source = expert.card.terms, _source(expert.card)
        if terms.binds or terms.requests_per_min is not None:
            found[source] = _tighter(found[source], terms) if source in found else terms
    return found


def _tighter(one: Terms, other: Terms) -> Terms:
    def least(a: float | None, b: float | None) -> float | None:
        return b if a is None else a if b is None else min(a, b)

    rate = least(one.requests_per_min, other.requests_per_min)
    return replace(
        one,
        max_share=min(one.max_share, other.max_share),
        budget_nats=least(one.budget_nats, other.budget_nats),
        period=other.period if one.budget_nats is None else one.period,
        requests_per_min=None if rate is None else int(rate),
    )


def _least_share(route: Route, limiting: Mapping[str, Terms]) -> str:
    """Who may have least, where all of a panel together may not have a whole answer; else ""."""
    panel = sorted({call.source for call in route.calls})
    most = {source: limiting[source].max_share if source in limiting else 1.0 for source in panel}
    return min(panel, key=lambda source: most[source]) if math.fsum(most.values()) < 1.0 else ""


def bind(
    route: Route,
    terms: Mapping[str, Terms],
    nats: Mapping[str, float],
    least: Mapping[str, float],
    left: Collection[str],
) -> Route:
    """The route with what each source was granted, and without those in reserve that are to be `left` out.

    Who is asked for sure, and counted, does not stand in reserve beside.
    """
    bounds = {
        source: Bound(nats.get(source), its.max_share, least.get(source, 0.0))
        for source, its in terms.items()
        if its.binds
    }
    panel = {call.source for call in route.calls}

    def bound(call: Call) -> Call:
        return replace(call, bound=bounds[call.source]) if call.source in bounds else call

    stays = [
        c for c in route.reserve if c.source not in left and not (c.source in terms and c.source in panel)
    ]
    return replace(route, calls=tuple(map(bound, route.calls)), reserve=tuple(map(bound, stays)))


# --- what was granted ------------------------------------------------------------------------------


def granted(
    query: Query,
    route: Route,
    terms: Mapping[str, Terms],
    refused: Mapping[str, str],
    multipliers: Mapping[str, float],
) -> tuple[Granted, ...] | UnsetType:
    """A line for each source that limits its part, that was refused, or that the request names; sorted."""
    bounds = {call.source: call.bound for call in route.everyone if call.bound is not None}
    wishes = _wishes(query.limits, route)
    rows = []
    for source in sorted({*terms, *refused, *wishes}):
        bound = bounds.get(source, Bound())
        rows.append(
            Granted(
                source,
                wishes.get(source, ""),
                _purpose(query),
                None if source in refused else bound.nats,
                bound.max_share,
                multipliers.get(source, 1.0),
                refused.get(source, ""),
            )
        )
    return tuple(rows) or UNSET


def _wishes(limits: Limits, route: Route) -> dict[str, Literal["require", "weight"]]:
    found: dict[str, Literal["require", "weight"]] = {}
    if limits.require or limits.weights:
        for call in route.calls:
            names = {call.expert, call.source, call.expert.rpartition(":")[0]}
            if not names.isdisjoint(limits.weights):
                found.setdefault(call.source, "weight")
            if not names.isdisjoint(limits.require):
                found[call.source] = "require"
    return found


def _source(card: Card) -> str:
    return card.source or card.name
