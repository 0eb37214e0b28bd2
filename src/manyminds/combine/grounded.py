"""A vote in which answers that documents support count as much as these do, and whom they contradict, less.

Wraps a combiner that releases one of the answers as it is. Pure; knows no document.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from manyminds.combine.ballot import by_name, is_heard
from manyminds.combine.release import Chooser, release
from manyminds.combine.support import TRUST, Trust, chance, contradicts, worth
from manyminds.types import Answer, Arrivals, Call, Chunk, Count, Posterior, Query, Route

__all__ = ["Grounded"]


class Grounded:
    """Keeps the contract of `types.Combiner`, and of `release.Chooser`.

    An answer with grounds has the probability that its support makes, in the place of the router's; one
    without any that it contradicts has a smaller `Call.heed`, by the best supported of those that do. Who
    is wrong by its documents is not put on a list: each posterior, also that without a source, is reckoned
    from the answers that are in it. Where nobody has grounds it is what it wraps, to the last bit. Where the
    request is for answers with grounds alone, the others have no say.

    Args:
        chooser: whose votes they are.
        trust: how far documents count.
    """

    def __init__(self, chooser: Chooser, trust: Trust = TRUST) -> None:
        self._chooser = chooser
        self._trust = trust

    def candidates(self, query: Query, route: Route, answers: Sequence[Answer]) -> list[str | None]:
        """Those of what it wraps; None also for who has no say."""
        return self.counting(query, route, answers)(range(len(answers)))[0]

    def posterior(self, query: Query, route: Route, answers: Sequence[Answer]) -> Posterior:
        """See `types.Combiner`."""
        return self.counting(query, route, answers)(range(len(answers)))[1]

    def counting(self, query: Query, route: Route, answers: Sequence[Answer]) -> Count:
        """What `candidates` and `posterior` are of some of these answers; each is compared once.

        O(answers with grounds x others) comparisons of texts, and one `counting` of what it wraps for each
        way in which the calls then count.
        """
        if not _concerns(query, answers):
            return self._chooser.counting(query, route, answers)
        evidence = _Evidence(query, route, answers, self._trust)
        counts: dict[_Changes, Count] = {}

        def count(kept: Sequence[int]) -> tuple[list[str | None], Posterior]:
            changes = evidence.changes(kept)
            if changes not in counts:
                counts[changes] = self._chooser.counting(query, _changed(route, changes), answers)
            candidates, posterior = counts[changes](kept)
            if query.limits.grounded:
                said = zip(kept, candidates, strict=True)
                candidates = [None if answers[i].grounds is None else candidate for i, candidate in said]
            return candidates, posterior

        return count

    def choose(self, query: Query, route: Route, answers: Sequence[Answer]) -> Answer:
        """See `release.Chooser`."""
        if not _concerns(query, answers):
            return self._chooser.choose(query, route, answers)
        changes = _Evidence(query, route, answers, self._trust).changes(range(len(answers)))
        return self._chooser.choose(query, _changed(route, changes), answers)

    async def combine(self, query: Query, route: Route, arrivals: Arrivals) -> AsyncGenerator[Chunk, None]:
        """See `types.Combiner`."""
        answers = [answer async for answer in arrivals.finished()]
        for chunk in release(self.choose(query, route, answers)):
            yield chunk


class _Change(NamedTuple):
    """How the answers of one expert count: see `Call`."""

    expert: str
    probability: float
    heed: float
    weight: float


_Changes = tuple[_Change, ...]


class _Evidence:
    """Which of some answers have grounds, and which of the others these contradict."""

    def __init__(self, query: Query, route: Route, answers: Sequence[Answer], trust: Trust) -> None:
        self._alone = query.limits.grounded
        self._trust = trust
        self._answers = answers
        self._calls = by_name(route)
        heard = [i for i, answer in enumerate(answers) if is_heard(self._calls.get(answer.expert), answer)]
        grounded = [i for i in heard if answers[i].grounds is not None]
        others = () if self._alone else [i for i in heard if answers[i].grounds is None]
        self._against = {
            i: [j for j in grounded if contradicts(query, answers[j].text, answers[i].text)] for i in others
        }
        self._grounded = frozenset(grounded)

    def changes(self, kept: Sequence[int]) -> _Changes:
        """What some of the answers change, by expert."""
        there = set(kept)
        supported, heeds = dict[str, float](), dict[str, float]()
        told, untold = set[str](), set[str]()  # experts with grounds for an answer, or for none; and without
        for i in kept:
            answer = self._answers[i]
            if (call := self._calls.get(answer.expert)) is None:
                continue
            if i in self._grounded:
                probability = chance(call.probability, answer.grounds, self._trust)
                supported[call.expert] = max(probability, supported.get(call.expert, 0.0))
            if against := [j for j in self._against.get(i, ()) if j in there]:
                heed = min(self._heed(j) for j in against)
                heeds[call.expert] = min(heed, heeds.get(call.expert, 1.0))
            if self._alone and answer.text.strip():
                (untold if answer.grounds is None else told).add(call.expert)
        mute = untold - told
        return tuple(
            _Change(
                name,
                supported.get(name, call.probability),
                call.heed * heeds.get(name, 1.0),
                0.0 if name in mute else call.weight,
            )
            for name in sorted({*supported, *heeds, *mute})
            for call in [self._calls[name]]
        )

    def _heed(self, j: int) -> float:
        """What is left of a vote against this answer; it doubts no more than its own vote counts."""
        answer = self._answers[j]
        call, grounds = self._calls[answer.expert], answer.grounds
        support = 0.0 if grounds is None else worth(grounds.support)
        return max(0.0, 1.0 - self._trust.doubt * support * min(call.weight * call.heed, 1.0))


def _concerns(query: Query, answers: Sequence[Answer]) -> bool:
    return query.limits.grounded or any(answer.grounds is not None for answer in answers)


def _changed(route: Route, changes: Sequence[_Change]) -> Route:
    if not changes:
        return route
    by_expert: Mapping[str, _Change] = {change.expert: change for change in changes}

    def change(call: Call) -> Call:
        new = by_expert.get(call.expert)
        if new is None:
            return call
        return replace(call, probability=new.probability, heed=new.heed, weight=new.weight)

    return replace(route, calls=tuple(map(change, route.calls)), reserve=tuple(map(change, route.reserve)))
