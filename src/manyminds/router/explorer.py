"""Now and then one more expert is asked, of which little is known: else nothing ever would be.

Its vote counts as any other: as much as what is believed of it, which is little. The combiner needs no
rule for it, and the posterior stays as right as what it is made of.
"""

import math
from collections.abc import Sequence
from random import Random
from typing import Final

from msgspec.structs import replace

from manyminds.canonical import classes
from manyminds.router import SkillRouter
from manyminds.router.policy import rates
from manyminds.router.predictor import Prediction, log_odds
from manyminds.types import Call, Card, Query, Route

__all__ = ["Explorer"]

_KNOWN: Final = 50.0  # grades of an expert that is not explored any more
_CLAIMED: Final = 8.0  # grades that its claim counts for, as in `predictor`


class Explorer:
    """Adds a call to the routes of a share of all requests.

    Args:
        router: knows what to expect of each expert, and by how many grades.
        rate: that share, in [0, 1].
        draw: whom to ask, and when; seeded in tests.
    """

    def __init__(self, router: SkillRouter, rate: float, draw: Random) -> None:
        self._router = router
        self._rate = rate
        self._draw = draw

    def explored(self, query: Query, route: Route, cards: Sequence[Card]) -> Route:
        """The route, or the same with one more call in its first stage.

        Only where answers are compared, within the budget and the caller's panel, and for no more than the
        best single expert takes.
        """
        limits = query.limits
        if self._draw.random() >= self._rate or route.strategy != "vote" or query.demands:
            return route
        asked = {call.expert for call in route.calls}
        if query.sampling.n > 1 or (limits.panel is not None and len(asked) >= limits.panel):
            return route
        others = [card for card in cards if card.name not in asked and not card.variant_of]
        most_usd = route.best_single_cost_usd
        if limits.budget_usd is not None:
            most_usd = min(most_usd, limits.budget_usd - route.expected_cost_usd)
        unknown = [p for p in self._router.predicted(query, others, limits) if self._is_unknown(p, most_usd)]
        if not unknown:
            return route
        chosen = max(unknown, key=lambda p: (self._guessed(p), p.card.name))
        call = Call(
            expert=chosen.card.name,
            source=chosen.source,
            probability=chosen.probability,
            method="score" if _is_rated(query) and rates(chosen.card, query.task) else "generate",
            prior=chosen.prior,
        )
        return replace(
            route,
            calls=_shared((call, *route.calls), query),
            reserve=tuple(c for c in route.reserve if c.expert != call.expert),
            expected_cost_usd=route.expected_cost_usd + chosen.cost_usd,
        )

    def _is_unknown(self, p: Prediction, most_usd: float) -> bool:
        return p.cost_usd <= most_usd and self._router.standing(p.card.name).grades < _KNOWN

    def _guessed(self, p: Prediction) -> float:
        """How right it might be, drawn from what is believed of that (Thompson 1933)."""
        grades = _CLAIMED + self._router.standing(p.card.name).grades
        return self._draw.betavariate(0.5 + grades * p.probability, 0.5 + grades * (1.0 - p.probability))


def _shared(calls: Sequence[Call], query: Query) -> tuple[Call, ...]:
    """The calls with shares as of one panel: the first has come to the others."""
    count = classes(query.task)
    votes = [call.weight * max(log_odds(call.probability, count), 0.0) for call in calls]
    share = votes[0] / math.fsum(votes) if any(votes) else 0.0
    first, *others = calls
    return (
        replace(first, share=share),
        *(replace(call, share=(1.0 - share) * call.share) for call in others),
    )


def _is_rated(query: Query) -> bool:
    return len(query.messages) == 1
