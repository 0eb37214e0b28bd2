"""The best of several whole texts: texts that mean the same vote together, and their centre speaks.

Knows no encoder: how texts become vectors is a constructor argument.
"""

import math
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from hashlib import sha256
from statistics import median
from typing import TYPE_CHECKING

from manyminds.combine.ballot import ENOUGH, Voice, by_name, likeliest, log_odds, poll, score, unnamed
from manyminds.combine.release import release, standby
from manyminds.types import Answer, Arrivals, Chunk, Count, Embed, Posterior, Query, Route

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
        return self.counting(query, route, answers)(range(len(answers)))[0]

    def posterior(self, query: Query, route: Route, answers: Sequence[Answer]) -> Posterior:
        """See `types.Combiner`. O(n²) in the distinct texts."""
        return self.counting(query, route, answers)(range(len(answers)))[1]

    def counting(self, query: Query, route: Route, answers: Sequence[Answer]) -> Count:
        """What `candidates` and `posterior` are of some of these answers: texts are compared once."""
        weights, calls = log_odds(route, answers, _CLASSES), by_name(route)
        heard = [w is not None and bool(a.text.strip()) for a, w in zip(answers, weights, strict=True)]
        meanings = _Meanings({a.text for a, h in zip(answers, heard, strict=True) if h}, self._near)

        def count(kept: Sequence[int]) -> tuple[list[str | None], Posterior]:
            name = meanings.names({answers[i].text for i in kept if heard[i]})
            candidates = [name.get(answers[i].text) if weights[i] is not None else None for i in kept]
            cast = [
                Voice(answers[i].expert, candidate, weight, call.source, call.weight)
                for i, candidate in zip(kept, candidates, strict=True)
                if candidate and (weight := weights[i]) is not None
                for call in [calls[answers[i].expert]]
            ]
            return candidates, poll(cast, unnamed(cast, _CLASSES))

        return count

    def choose(self, query: Query, route: Route, answers: Sequence[Answer]) -> Answer:
        """The weighted medoid of the winning cluster: the text that is closest to all of its voters.

        In one of more than `ENOUGH` sources nobody weighs more than the middle one: all say the same there,
        and who speaks for them is not for the one to say that is believed most.
        """
        candidates, posterior = self.counting(query, route, answers)(range(len(answers)))
        winner = likeliest(posterior)
        if winner is None:
            return standby(route, answers)
        members = [a for a, c in zip(answers, candidates, strict=True) if c == winner]
        if len(members) == 1:
            return members[0]
        calls = by_name(route)
        weights = [max(score(calls[a.expert], _CLASSES), 0.0) for a in members]
        if len({a.source for a in members}) > ENOUGH:
            middle = median(weights)
            weights = [min(weight, middle) for weight in weights]
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

    def _near(self, texts: Sequence[str]) -> list[set[int]]:
        """For each text the others that mean the same, by position. O(n²)."""
        near: list[set[int]] = [set() for _ in texts]
        vectors = list(self._embed(texts))
        for i, vector in enumerate(vectors):
            for j in range(i):
                if _cosine(vector, vectors[j]) >= self._threshold:
                    near[i].add(j)
                    near[j].add(i)
        return near


class _Meanings:
    """How some texts, or some of them, fall into clusters.

    Args:
        texts: distinct.
        near: for each text of a list the others that mean the same; asked once, where there are two.
    """

    def __init__(self, texts: Collection[str], near: Callable[[Sequence[str]], list[set[int]]]) -> None:
        self._texts = sorted(texts)
        self._place = {text: i for i, text in enumerate(self._texts)}
        self._compare = near
        self._near: list[set[int]] = []
        self._names: dict[int, str] = {}

    def names(self, texts: Collection[str]) -> dict[str, str]:
        """The cluster of each of these, the others left out: connected components, which know no order."""
        if len(texts) > 1 and not self._near:
            self._near = self._compare(self._texts)
        places = sorted(self._place[text] for text in texts)
        left, found = set(places), dict[str, str]()
        for least in places:
            if least not in left:
                continue
            left.remove(least)
            fresh = [least]
            while fresh:
                i = fresh.pop()
                found[self._texts[i]] = self._name(least)
                if left:
                    more = self._near[i] & left
                    left -= more
                    fresh += more
        return found

    def _name(self, least: int) -> str:
        if least not in self._names:
            text = self._texts[least].encode("utf-8", "surrogatepass")
            self._names[least] = sha256(text).hexdigest()[:12]
        return self._names[least]


def _cosine(a: "Vectors", b: "Vectors") -> float:
    """Of unit vectors (d,); the same bits either way round."""
    return float(a @ b)
