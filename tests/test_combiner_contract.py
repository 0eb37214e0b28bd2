"""Every kind of combiner keeps every law of `contracts.combiners`."""

from collections.abc import AsyncGenerator, Sequence
from typing import ClassVar

import pytest

from manyminds.artefact import Artefact
from manyminds.combine.bounded import Bounded
from manyminds.combine.fuse import Fuse
from manyminds.combine.grounded import Grounded
from manyminds.combine.race import Race
from manyminds.combine.select import Select
from manyminds.combine.vote import Vote
from manyminds.types import Answer, Arrivals, Bound, Chunk, Count, Posterior, Query, Route
from tests.changed import replace
from tests.combine.meaning import embed
from tests.contracts.combiners import CHECKS, Make
from tests.learn.made import by_hand

LEARNT = by_hand(("e0", "e2", "e3", "e6"), "option", labels=("A", "B"))  # of e1, e4, e5 nothing is known


class Held:
    """A vote in which two of the three sources of the panels have a bound; whoever is alone has none."""

    BOUNDS: ClassVar = {"s0": Bound(0.7, 0.45), "s1": Bound(0.05)}

    def __init__(self) -> None:
        self._bounded = Bounded(Vote())

    def _held(self, route: Route) -> Route:
        calls = (replace(call, bound=self.BOUNDS.get(call.source)) for call in route.calls)
        return replace(route, calls=tuple(calls))

    def candidates(self, query: Query, route: Route, answers: Sequence[Answer]) -> list[str | None]:
        return self._bounded.candidates(query, self._held(route), answers)

    def posterior(self, query: Query, route: Route, answers: Sequence[Answer]) -> Posterior:
        return self._bounded.posterior(query, self._held(route), answers)

    def counting(self, query: Query, route: Route, answers: Sequence[Answer]) -> Count:
        return self._bounded.counting(query, self._held(route), answers)

    def combine(self, query: Query, route: Route, arrivals: Arrivals) -> AsyncGenerator[Chunk, None]:
        return self._bounded.combine(query, self._held(route), arrivals)


KINDS: dict[str, Make] = {
    "vote": Vote,
    "vote by what was learnt": lambda: Vote(Artefact((LEARNT,))),
    "select": lambda: Select(embed),
    "fuse": lambda: Fuse(Vote()),
    "race": Race,
    "bounded vote, without bounds": lambda: Bounded(Vote()),
    "bounded select, without bounds": lambda: Bounded(Select(embed)),
    "bounded vote": Held,
    "grounded vote": lambda: Grounded(Vote()),
    "grounded select": lambda: Grounded(Select(embed)),
}


@pytest.mark.parametrize("law", CHECKS)
@pytest.mark.parametrize("kind", KINDS)
def test_combiner_keeps_contract(kind: str, law: str) -> None:
    CHECKS[law](KINDS[kind])
