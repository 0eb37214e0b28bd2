"""Whom the router looks at: all experts where they are few, else those that the index finds nearest.

Knows no router, and calls nobody.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from manyminds import purse, terms
from manyminds.index import Index
from manyminds.router.limits import suits
from manyminds.types import Card, Expert, Query, Report, Route, Search

__all__ = ["Candidates", "candidates", "is_spared", "searched"]

_MOST: Final = 64  # experts that the router looks at; the index narrows to as many
_MORE: Final = 4  # times as many are asked of the index where too few of the nearest can do it

_Experts = Mapping[str, Expert]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Names; vectors that were compared and experts considered, to find them; who would do, but may not."""

    names: Sequence[str]
    compared: int
    considered: int
    refused: Sequence[Card] = ()


def candidates(
    query: Query, experts: _Experts, index: Index, barred: Iterable[str] = (), *, spared: bool
) -> Candidates:
    """Everybody, where that is few, else the nearest by skill; with those that are spared, or without.

    Nobody of a source that is `barred`, and nobody whose owner does not allow it.
    """
    if len(experts) > _MOST:
        return _narrowed(query, experts, index, frozenset(barred), spared=spared)
    out, names, refused = frozenset(barred), [], []
    for name in sorted(experts):
        card = experts[name].card
        if (not spared and is_spared(experts[name])) or (out and (card.source or name) in out):
            continue
        if not terms.allows(card, query):
            refused.append(card)
        elif purse.payable(card, query):
            names.append(name)
    return Candidates(names, 0, len(names), refused)


def _narrowed(
    query: Query, experts: _Experts, index: Index, barred: frozenset[str], *, spared: bool
) -> Candidates:
    """The nearest by skill of those that could be asked; who states no skill counts where there is room.

    Costs what the index does: only where it knows too few are all experts gone through.
    """
    refused: dict[str, Card] = {}

    def fits(name: str) -> bool:
        expert = experts.get(name)
        if expert is None or (not spared and is_spared(expert)) or not _meets(expert.card, query):
            return False
        if (expert.card.source or name) in barred:
            return False
        if terms.allows(expert.card, query):
            return True
        refused[name] = expert.card
        return False

    near: list[str] = []
    compared, considered, limit = 0, 0, _MOST
    while query.vector is not None and len(near) < _MOST:
        found = index.search(query.vector, limit)
        near = [name for name, _ in found.hits if fits(name)]
        compared, considered = compared + found.compared, found.considered
        if len(found.hits) < limit:  # it has no more
            break
        limit *= _MORE
    if len(near) < _MOST:
        others = sorted(name for name in experts if (name not in index or not near) and fits(name))
        near += others[: _MOST - len(near)]
        considered += len(others)
    if not near and spared and not barred and not refused:
        near = sorted(experts)[:_MOST]  # of whom the router says what they lack
    return Candidates(near[:_MOST], compared, considered, list(refused.values()))


def _meets(card: Card, query: Query) -> bool:
    """Whether the router could choose it at all, by what needs no prediction."""
    include, exclude = query.limits.include, query.limits.exclude
    if include or exclude:
        names = {card.name, card.source or card.name, card.variant_of or card.name}
        if not names.isdisjoint(exclude) or (include and names.isdisjoint(include)):
            return False
    return suits(card, query) and purse.payable(card, query)


def is_spared(expert: Expert) -> bool:
    """Whether it fails every call at once for a while: see `experts.guarded`. In a running loop."""
    until: float | None = getattr(expert, "open_until", None)
    return until is not None and asyncio.get_running_loop().time() < until


def searched(route: Route, report: Report, experts: _Experts, index: Index) -> Search:
    """What it took to find whom to ask, and whose parameters that touched: those of who was asked."""
    asked = {entry.expert for entry in report.panel} & experts.keys()
    touched, total = _parameters(experts[name].card for name in asked), index.parameters
    if len(experts) <= _MOST:
        total = _parameters(expert.card for expert in experts.values())
    return Search(route.compared, route.considered, min(1.0, touched / total) if total else 0.0)


def _parameters(cards: Iterable[Card]) -> int:
    """Of all these together; ways of asking one model are one model."""
    return sum({card.variant_of or card.name: card.parameters for card in cards}.values())
