"""The weighted vote: equal canonical answers add up, and the winner's best voter speaks.

Knows no expert, only calls, their probabilities and what came back.
"""

from collections.abc import AsyncGenerator, Sequence

from manyminds.canonical import answer_of, classes
from manyminds.combine.ballot import has_say, likeliest, score, tally
from manyminds.combine.release import release, standby
from manyminds.types import Answer, Arrivals, Chunk, Posterior, Query, Route

__all__ = ["Vote"]


class Vote:
    """Keeps the contract of `types.Combiner`, and of `release.Chooser`. Its `posterior` is `ballot.tally`."""

    def candidates(self, query: Query, route: Route, answers: Sequence[Answer]) -> list[str | None]:
        """The canonical answers, aligned with `answers`; None abstains.

        So does an answer that ran into its length limit, unless it chose an option: what is last in it is
        not what it would have said last.
        """
        return [answer_of(query.task, a.text) if _is_whole(query, a) else None for a in answers]

    def posterior(self, query: Query, route: Route, answers: Sequence[Answer]) -> Posterior:
        """See `types.Combiner`."""
        return tally(route, answers, self.candidates(query, route, answers), classes(query.task))

    def choose(self, query: Query, route: Route, answers: Sequence[Answer]) -> Answer:
        """The winning candidate's heaviest voter; where all abstain, the likeliest expert's answer."""
        candidates = self.candidates(query, route, answers)
        count = classes(query.task)
        winner = likeliest(tally(route, answers, candidates, count))
        if winner is None:
            return standby(route, answers)
        weight = {call.expert: score(call, count) for call in reversed(route.everyone)}
        voters = [a for a, c in zip(answers, candidates, strict=True) if c == winner and has_say(route, a)]
        return min(voters, key=lambda a: (-weight[a.expert], a.expert, a.text))

    async def combine(self, query: Query, route: Route, arrivals: Arrivals) -> AsyncGenerator[Chunk, None]:
        """See `types.Combiner`."""
        answers = [answer async for answer in arrivals.finished()]
        for chunk in release(self.choose(query, route, answers)):
            yield chunk


def _is_whole(query: Query, answer: Answer) -> bool:
    reason = answer.chunks[-1].finish_reason if answer.chunks else None
    cut = reason in ("length", "content_filter") and query.task.kind != "option"
    return answer.status == "ok" and not cut
