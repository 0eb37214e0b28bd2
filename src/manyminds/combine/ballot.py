"""Who has a say, with what weight, and what the votes add up to. Pure.

Knows no text: what makes two answers one candidate is for others to say.
"""

import math
from collections import Counter
from collections.abc import Sequence

from manyminds.types import Answer, Call, Posterior, Route

__all__ = ["has_say", "likeliest", "score", "tally"]

_CLIP = 0.02  # of a probability: nobody is always right, nor always wrong
_MAX_SCORE = 1e6  # keeps any multiplier of a caller finite
_LEFT = 1e-3  # of a class: "none of these" when every class is named, since the question may be at fault


def has_say(route: Route, answer: Answer) -> bool:
    """A panel member's own whole answer, unless its weight is 0. All else counts as if it had not come."""
    call = route.call_of(answer.expert)
    return answer.status == "ok" and answer.method != "fuse" and call is not None and call.weight != 0


def score(call: Call, classes: int) -> float:
    """The log-odds weight ln((C-1)p/(1-p)) times the caller's multiplier, in nats.

    Optimal where experts err independently and errors fall evenly on C-1 wrong answers (Nitzan & Paroush
    1982 for C = 2). Negative for an expert that does worse than chance: its vote is a warning.
    """
    p = min(max(call.probability, _CLIP), 1 - _CLIP)
    return min(max(math.log((classes - 1) * p / (1 - p)) * call.weight, -_MAX_SCORE), _MAX_SCORE)


def tally(
    route: Route, answers: Sequence[Answer], candidates: Sequence[str | None], classes: int
) -> Posterior:
    """P(c) ∝ exp Σ score of its voters; each class that nobody names has score 0. Sorted by candidate.

    So a lone voter's candidate has exactly the voter's probability. The answers of an expert that was
    asked m times and voted are 1/m vote each: asking again must not make it heavier.
    """
    voters = [(a.expert, c) for a, c in zip(answers, candidates, strict=True) if c and has_say(route, a)]
    times = Counter(expert for expert, _ in voters)
    votes: dict[str, list[float]] = {candidate: [] for candidate in sorted({c for _, c in voters})}
    for expert, candidate in voters:
        call = route.call_of(expert)
        assert call is not None
        votes[candidate].append(score(call, classes) / times[expert])
    scores = [math.fsum(cast) for cast in votes.values()]  # exact, so that order does not matter
    top = max([*scores, 0.0])
    masses = [math.exp(s - top) for s in scores]
    other = max(classes - len(votes), _LEFT) * math.exp(-top)
    total = math.fsum([*masses, other])
    return Posterior(tuple(votes), tuple(mass / total for mass in masses), other / total)


def likeliest(posterior: Posterior) -> str | None:
    """The candidate of highest probability, of equal ones the first; None without any."""
    if not posterior.candidates:
        return None
    return posterior.candidates[posterior.probabilities.index(posterior.best)]
