"""The weighted vote: equal canonical answers add up, and the winner's best voter speaks.

Knows no expert, only calls, their probabilities and what came back.
"""

from collections.abc import AsyncGenerator, Sequence

from manyminds.artefact import Artefact
from manyminds.canonical import answer_of, classes
from manyminds.combine.ballot import Votes, by_log_odds, by_name, is_heard, likeliest, poll
from manyminds.combine.learnt import Weigher
from manyminds.combine.release import release, standby
from manyminds.types import Answer, Arrivals, Chunk, Count, Posterior, Query, Route

__all__ = ["Vote"]


class Vote:
    """Keeps the contract of `types.Combiner`, and of `release.Chooser`.

    Args:
        artefact: what votes weigh as learnt; log-odds without it, and for panels of which it knows nobody.
    """

    def __init__(self, artefact: Artefact | None = None) -> None:
        parts = artefact.parts if artefact is not None else ()
        self._weighers = {
            kind: weigher
            for part in parts
            if part.ballot is not None
            for weigher in [Weigher(part, part.ballot)]
            for kind in part.kinds
        }

    def candidates(self, query: Query, route: Route, answers: Sequence[Answer]) -> list[str | None]:
        """The canonical answers, aligned with `answers`; None abstains.

        So does one that declines, and one that ran into its length limit, unless it chose an option: what is
        last in it is not what it would have said last.
        """
        return [answer_of(query.task, a.text) if _is_whole(query, a) else None for a in answers]

    def posterior(self, query: Query, route: Route, answers: Sequence[Answer]) -> Posterior:
        """See `types.Combiner`."""
        return self.counting(query, route, answers)(range(len(answers)))[1]

    def counting(self, query: Query, route: Route, answers: Sequence[Answer]) -> Count:
        """What `candidates` and `posterior` are of some of these answers; each is read and weighed once."""
        candidates = self.candidates(query, route, answers)
        votes = self._votes(query, route, answers, candidates)

        def count(kept: Sequence[int]) -> tuple[list[str | None], Posterior]:
            return [candidates[i] for i in kept], poll(*votes(kept))

        return count

    def choose(self, query: Query, route: Route, answers: Sequence[Answer]) -> Answer:
        """The winning candidate's heaviest voter; where all abstain, the likeliest expert's answer."""
        candidates = self.candidates(query, route, answers)
        voices, other = self._votes(query, route, answers, candidates)(range(len(answers)))
        winner = likeliest(poll(voices, other))
        if winner is None:
            return standby(route, answers)
        heaviest_last = sorted(voices, key=lambda voice: voice.weight)
        weight = {v.expert: v.weight for v in heaviest_last if v.candidate == winner}
        calls, said = by_name(route), zip(answers, candidates, strict=True)
        voters = [a for a, c in said if c == winner and is_heard(calls.get(a.expert), a)]
        return min(voters, key=lambda a: (-weight[a.expert], a.expert, a.text))

    def _votes(
        self, query: Query, route: Route, answers: Sequence[Answer], candidates: Sequence[str | None]
    ) -> Votes:
        """By what was learnt of those who are counted; by log-odds where that is nothing."""

        def plain() -> Votes:
            return by_log_odds(route, answers, candidates, classes(query.task))

        weigher = self._weighers.get(query.task.kind)
        return plain() if weigher is None else weigher.votes(query, route, answers, candidates, plain)

    async def combine(self, query: Query, route: Route, arrivals: Arrivals) -> AsyncGenerator[Chunk, None]:
        """See `types.Combiner`."""
        answers = [answer async for answer in arrivals.finished()]
        for chunk in release(self.choose(query, route, answers)):
            yield chunk


def _is_whole(query: Query, answer: Answer) -> bool:
    reason = answer.chunks[-1].finish_reason if answer.chunks else None
    cut = reason in ("length", "content_filter") and query.task.kind != "option"
    return answer.status == "ok" and not answer.declined and not cut
