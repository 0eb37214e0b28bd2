"""The first expert to speak is heard to its end, and the others are stopped; one who declines is passed over.

Serves the strategies `race` and `pass`, which is a race of one. Knows no weight but "no say".
"""

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from manyminds.canonical import answer_of
from manyminds.combine.ballot import has_say
from manyminds.combine.release import failure, release, standby
from manyminds.combine.support import chance
from manyminds.errors import AnswerError
from manyminds.types import Answer, Arrivals, Chunk, Posterior, Query, Route

__all__ = ["Race"]

_UNCOMPARED = "answer"  # the candidate's name where the answer has no canonical form


class Race:
    """Keeps the contract of `types.Combiner`."""

    def candidates(self, query: Query, route: Route, answers: Sequence[Answer]) -> list[str | None]:
        """The winner's canonical answer, or "answer"; None for all others, who were not heard."""
        winner = _winner(query, route, answers)
        if winner is None:
            return [None] * len(answers)
        name = answer_of(query.task, winner.text) or _UNCOMPARED
        return [name if a is winner else None for a in answers]

    def posterior(self, query: Query, route: Route, answers: Sequence[Answer]) -> Posterior:
        """One candidate, with the probability of the expert that won. See `types.Combiner`."""
        winner = _winner(query, route, answers)
        call = route.call_of(winner.expert) if winner else None
        if winner is None or call is None:
            return Posterior()
        name = answer_of(query.task, winner.text) or _UNCOMPARED
        probability = chance(call.probability, winner.grounds)
        return Posterior((name,), (probability,), 1 - probability)

    async def combine(self, query: Query, route: Route, arrivals: Arrivals) -> AsyncGenerator[Chunk, None]:
        """Streams the winner as it speaks; one from whom grounds are wanted, once they are known.

        Where all decline, the likeliest of them does. See `types.Combiner`.

        Raises: ExpertError where the winner fails after its first chunk; then nobody takes over, since
        half an answer has been released.
        """
        async with aclosing(arrivals.started()) as started:
            async for arrival in started:
                if arrival.call.weight == 0:
                    continue
                async with aclosing(arrival.chunks()) as chunks:
                    try:
                        first = await anext(chunks)
                    except (AnswerError, StopAsyncIteration):
                        continue  # it failed before it spoke: the next one may
                    if first.declines:
                        continue
                    if query.limits.grounded:
                        rest = await _heard(chunks)
                        last = rest[-1] if rest else first
                        if last.grounds is None or last.grounds.declined:
                            continue
                        for chunk in (first, *rest):
                            yield chunk
                        await arrivals.cancel(keep=arrival)
                        return
                    yield first
                    await arrivals.cancel(keep=arrival)
                    async for chunk in chunks:
                        yield chunk
                    return
        answers = [answer async for answer in arrivals.finished()]
        declined = [answer for answer in answers if answer.declined]
        if not declined:
            raise failure(route, answers)
        for chunk in release(standby(route, declined)):
            yield chunk


async def _heard(chunks: AsyncGenerator[Chunk, None]) -> list[Chunk]:
    """All of them; none that finishes it where it fails."""
    try:
        return [chunk async for chunk in chunks]
    except AnswerError:
        return [Chunk()]


def _winner(query: Query, route: Route, answers: Sequence[Answer]) -> Answer | None:
    """Of several whole answers the one that spoke first."""
    heard = [a for a in answers if has_say(route, a) and (a.grounds or not query.limits.grounded)]
    return min(heard, key=_order, default=None)


def _order(answer: Answer) -> tuple[float, str, str]:
    return (math.inf if answer.ttft_s is None else answer.ttft_s, answer.expert, answer.text)
