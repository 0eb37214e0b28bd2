"""The best of several whole texts: texts that mean the same vote together, and their centre speaks.

Knows no encoder: how texts become vectors is a constructor argument.
"""

import math
from collections.abc import AsyncGenerator, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

from manyminds.combine.ballot import by_log_odds, has_say, likeliest, poll, score
from manyminds.combine.release import release, standby
from manyminds.types import Answer, Arrivals, Chunk, Embed, Posterior, Query, Route

if TYPE_CHECKING:
    from manyminds.types import Vectors

__all__ = ["Select"]

_CLASSES = 10  # answers in meaning that an open question may have, as for short spans


class Select:
    """Keeps the contract of `types.Combiner`, and of `release.Chooser`.

    A candidate is a cluster: texts connected by cosines of at least `threshold`. Its name is a hash of
    its least member, so that it depends on neither order nor weights.

    Args:
        embed: the vector of a text must not depend on its neighbours; it is asked for one text more
            than once, so it had better remember.
        threshold: cosine from which two texts mean the same. Strict, because sentence encoders hear the
            topic better than the claim: answers that contradict each other often reach 0.85. Joining
            those would report agreement where there is none; keeping paraphrases apart only leaves the
            word to the likeliest expert.
    """

    def __init__(self, embed: Embed, threshold: float = 0.9) -> None:
        self._embed = embed
        self._threshold = threshold

    def candidates(self, query: Query, route: Route, answers: Sequence[Answer]) -> list[str | None]:
        """Clusters' names, aligned with `answers`; None for an empty text or who has no say."""
        texts = _texts(route, answers)
        name = {text: _name(cluster) for cluster in self._clusters(texts) for text in cluster}
        return [name.get(a.text) if has_say(route, a) else None for a in answers]

    def posterior(self, query: Query, route: Route, answers: Sequence[Answer]) -> Posterior:
        """See `types.Combiner`. O(n²) in the distinct texts."""
        return poll(*by_log_odds(route, answers, self.candidates(query, route, answers), _CLASSES))

    def choose(self, query: Query, route: Route, answers: Sequence[Answer]) -> Answer:
        """The weighted medoid of the winning cluster: the text that is closest to all of its voters."""
        candidates = self.candidates(query, route, answers)
        winner = likeliest(poll(*by_log_odds(route, answers, candidates, _CLASSES)))
        if winner is None:
            return standby(route, answers)
        members = [a for a, c in zip(answers, candidates, strict=True) if c == winner]
        calls = {call.expert: score(call, _CLASSES) for call in reversed(route.everyone)}
        weights = [max(calls[a.expert], 0.0) for a in members]
        vectors = self._embed([a.text for a in members])
        closeness = [
            math.fsum(w * _cosine(vector, v) for w, v in zip(weights, vectors, strict=True))
            for vector in vectors
        ]
        ranked = zip(closeness, members, strict=True)
        return min(ranked, key=lambda pair: (-pair[0], pair[1].expert, pair[1].text))[1]

    async def combine(self, query: Query, route: Route, arrivals: Arrivals) -> AsyncGenerator[Chunk, None]:
        """See `types.Combiner`."""
        answers = [answer async for answer in arrivals.finished()]
        for chunk in release(self.choose(query, route, answers)):
            yield chunk

    def _clusters(self, texts: Sequence[str]) -> list[list[str]]:
        """Connected components: unlike a greedy clustering they know no order."""
        vectors = dict(zip(texts, self._embed(texts), strict=True)) if len(texts) > 1 else {}
        clusters: list[list[str]] = []
        for text in texts:
            near = [c for c in clusters if any(self._same(vectors[text], vectors[t]) for t in c)]
            clusters = [c for c in clusters if c not in near] + [[text, *(t for c in near for t in c)]]
        return clusters

    def _same(self, a: "Vectors", b: "Vectors") -> bool:
        return _cosine(a, b) >= self._threshold


def _texts(route: Route, answers: Sequence[Answer]) -> list[str]:
    return sorted({a.text for a in answers if has_say(route, a) and a.text.strip()})


def _name(cluster: Sequence[str]) -> str:
    return sha256(min(cluster).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _cosine(a: "Vectors", b: "Vectors") -> float:
    """Of unit vectors (d,); the same bits either way round."""
    return float(a @ b)
