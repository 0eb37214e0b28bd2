"""A vote in which no source moves the answer further than its terms, and what was granted of them, allow.

Wraps a combiner that releases one of the answers as it is. Pure; knows neither budgets nor who grants them.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from manyminds.attribution import ALPHA, divergences, shares
from manyminds.combine.release import Chooser, release
from manyminds.errors import AnswerError
from manyminds.types import Answer, Arrivals, Bound, Chunk, Count, Posterior, Query, Route, Weighed

__all__ = ["Bounded", "bounds_of"]

_ROUNDS: Final = 3  # in which each source is looked at; who then still goes too far is not heard
_STEPS: Final = 8  # of a bisection: a multiplier is as large as it may be, to 1/256
_LEAST: Final = 2.0**-_STEPS
_ANY: Final = Bound()


class Bounded:
    """Keeps the contract of `types.Combiner`, and of `release.Chooser`. Without a bound it is what it wraps.

    The votes of a source that would go too far are multiplied by the largest number in [0, 1] that a
    bisection finds with which they do not: its divergence, as `attribution` measures it of the same answers,
    is at most its nats, and its share at most its largest share. That a weight is small is no proof: who else
    is counted dilutes what was learnt, and who agrees decides what is safe by numbers. So each number is
    measured, source after source by name; where that does not end, because what one may do hangs on the
    others, whoever goes furthest too far is not heard, until all keep to their bounds. 0 is always among the
    numbers that do: it is "no effect", by a law of every combiner.

    Where nobody says anything that compares, those who have a bound speak only where nobody else can.

    Args:
        chooser: whose votes they are.
        alpha: order of the divergence.
    """

    def __init__(self, chooser: Chooser, alpha: float = ALPHA) -> None:
        self._chooser = chooser
        self._alpha = alpha

    def candidates(self, query: Query, route: Route, answers: Sequence[Answer]) -> list[str | None]:
        """Those of what it wraps; None also for who is not heard."""
        return self.weighed(query, route, answers).count(range(len(answers)))[0]

    def posterior(self, query: Query, route: Route, answers: Sequence[Answer]) -> Posterior:
        """See `types.Combiner`."""
        return self.weighed(query, route, answers).count(range(len(answers)))[1]

    def counting(self, query: Query, route: Route, answers: Sequence[Answer]) -> Count:
        """What `candidates` and `posterior` are of some of these answers, with multipliers of their own."""
        if not bounds_of(route, answers):
            return self._chooser.counting(query, route, answers)

        def count(kept: Sequence[int]) -> tuple[list[str | None], Posterior]:
            some = [answers[i] for i in kept]
            return self.weighed(query, route, some).count(range(len(some)))

        return count

    def weighed(self, query: Query, route: Route, answers: Sequence[Answer]) -> Weighed:
        """The route with these answers' multipliers in its weights; who counts some of them keeps those."""
        bounds = bounds_of(route, answers)
        if not bounds:
            return Weighed(route, {}, self._chooser.counting(query, route, answers))
        search = _Search(self._chooser, self._alpha, query, route, answers, bounds)
        return search.weighed(search.multipliers())

    def choose(self, query: Query, route: Route, answers: Sequence[Answer]) -> Answer:
        """See `release.Chooser`."""
        bounds = bounds_of(route, answers)
        if not bounds:
            return self._chooser.choose(query, route, answers)
        weighed = self.weighed(query, route, answers)
        if not weighed.count(range(len(answers)))[1].candidates:
            try:
                return self._chooser.choose(query, _times(route, dict.fromkeys(bounds, 0.0)), answers)
            except AnswerError:
                pass  # nobody else can
        return self._chooser.choose(query, weighed.route, answers)

    async def combine(self, query: Query, route: Route, arrivals: Arrivals) -> AsyncGenerator[Chunk, None]:
        """See `types.Combiner`."""
        answers = [answer async for answer in arrivals.finished()]
        for chunk in release(self.choose(query, route, answers)):
            yield chunk


def bounds_of(route: Route, answers: Sequence[Answer]) -> dict[str, Bound]:
    """By source, sorted: the tightest of all that holds for it, also by what came with its answer."""
    found: dict[str, Bound] = {}
    for source, bound in (
        *((call.source, call.bound) for call in route.everyone if call.bound is not None),
        *((answer.source, Bound(answer.nats)) for answer in answers if answer.nats is not None),
    ):
        known = found.get(source, _ANY)
        nats = bound.nats if known.nats is None else known.nats
        if bound.nats is not None and nats is not None:
            nats = min(nats, bound.nats)
        found[source] = Bound(nats, min(known.max_share, bound.max_share))
    return dict(sorted(found.items()))


def _times(route: Route, multipliers: Mapping[str, float]) -> Route:
    def weigh(source: str, weight: float) -> float:
        return weight * multipliers.get(source, 1.0)

    return replace(
        route,
        calls=tuple(replace(c, weight=weigh(c.source, c.weight)) for c in route.calls),
        reserve=tuple(replace(c, weight=weigh(c.source, c.weight)) for c in route.reserve),
    )


class _Search:
    """For the multipliers of some answers."""

    def __init__(
        self,
        chooser: Chooser,
        alpha: float,
        query: Query,
        route: Route,
        answers: Sequence[Answer],
        bounds: Mapping[str, Bound],
    ) -> None:
        self._chooser = chooser
        self._alpha = alpha
        self._query = query
        self._route = route
        self._answers = answers
        spoke = {a.source for a in answers if a.status == "ok" and a.method != "fuse" and not a.declined}
        self._bounds = {source: bound for source, bound in bounds.items() if source in spoke}
        self._shared = any(bound.max_share < 1.0 for bound in self._bounds.values())

    def multipliers(self) -> dict[str, float]:
        """By source; O(bounded sources) bisections, of O(sources) posteriors a step where shares are."""
        none = {
            source for source, bound in self._bounds.items() if bound.nats == 0.0 or bound.max_share == 0.0
        }
        found = {source: float(source not in none) for source in self._bounds}  # also below the floor
        for _ in range(_ROUNDS):
            if not (far := self._too_far(found)):
                return found
            for source in sorted(far):
                found[source] = self._largest(found, source)
        while far := self._too_far(found):
            found[max(sorted(far), key=far.__getitem__)] = 0.0
        return found

    def weighed(self, multipliers: Mapping[str, float]) -> Weighed:
        moved = any(multiplier != 1.0 for multiplier in multipliers.values())
        route = _times(self._route, multipliers) if moved else self._route
        mute = {source for source, multiplier in multipliers.items() if not multiplier}
        count = self._chooser.counting(self._query, route, self._answers)
        owners = [answer.source for answer in self._answers]

        def heard(kept: Sequence[int]) -> tuple[list[str | None], Posterior]:
            candidates, posterior = count(kept)
            said = zip(kept, candidates, strict=True)
            return [None if owners[i] in mute else candidate for i, candidate in said], posterior

        return Weighed(route, dict(multipliers), heard if mute else count)

    def _too_far(self, multipliers: Mapping[str, float], only: str = "") -> dict[str, float]:
        """Those who go too far, of all or one alone, and how many times as far as they may."""
        weighed, of = self.weighed(multipliers), [only] if only else list(self._bounds)
        whole = weighed.count(range(len(self._answers)))
        looked_at = None if self._shared else of
        moved = divergences(self._answers, whole, weighed.count, self._alpha, looked_at)
        owed = shares(weighed.route, self._answers, moved) if self._shared else {}
        found = {}
        for source in of:
            bound = self._bounds[source]
            if bound.nats is not None and moved[source] > bound.nats:
                found[source] = moved[source] / bound.nats if bound.nats else float("inf")
            if owed.get(source, 0.0) > bound.max_share:
                times = owed[source] / bound.max_share if bound.max_share else float("inf")
                found[source] = max(found.get(source, 0.0), times)
        return found

    def _largest(self, multipliers: Mapping[str, float], source: str) -> float:
        """With the others' as they are; 0 where nothing above 1/256 is found to do."""

        def holds(multiplier: float) -> bool:
            return not self._too_far({**multipliers, source: multiplier}, source)

        low, high = 0.0, multipliers[source]
        if holds(high):
            return high
        if not holds(high * _LEAST):
            return 0.0
        for _ in range(_STEPS):
            middle = (low + high) / 2
            if holds(middle):
                low = middle
            else:
                high = middle
        return low
