"""Who has a say, with what weight, and what the votes add up to. Pure.

Knows no text: what makes two answers one candidate is for others to say.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from manyminds.types import Answer, Call, Posterior, Route

__all__ = ["Voice", "by_log_odds", "has_say", "likeliest", "poll", "score"]

_CLIP = 0.02  # of a probability: nobody is always right, nor always wrong
_MAX_SCORE = 1e6  # keeps any multiplier of a caller finite
_LEFT = 1e-3  # of a class: "none of these" when every class is named, since the question may be at fault


@dataclass(frozen=True, slots=True)
class Voice:
    """One answer's vote: who gave it, what for, with which weight in nats."""

    expert: str
    candidate: str
    weight: float


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


def by_log_odds(
    route: Route, answers: Sequence[Answer], candidates: Sequence[str | None], classes: int
) -> tuple[list[Voice], float]:
    """Every vote with its log-odds weight, and the score of "none of these": each class unnamed has 0.

    So a lone voter's candidate has exactly the voter's probability.
    """
    voices = [
        Voice(answer.expert, candidate, score(call, classes))
        for answer, candidate in zip(answers, candidates, strict=True)
        if candidate and has_say(route, answer) and (call := route.call_of(answer.expert)) is not None
    ]
    named = len({voice.candidate for voice in voices})
    return voices, math.log(max(classes - named, _LEFT))


def poll(voices: Sequence[Voice], other: float) -> Posterior:
    """P(c) ∝ exp of the summed weights of its voters; `other` is the score of "none of these". Sorted.

    The answers of an expert that was asked m times and voted are 1/m vote each: asking again must not
    make it heavier.
    """
    times = Counter(voice.expert for voice in voices)
    votes: dict[str, list[float]] = {candidate: [] for candidate in sorted({v.candidate for v in voices})}
    for voice in voices:
        votes[voice.candidate].append(voice.weight / times[voice.expert])
    scores = [math.fsum(cast) for cast in votes.values()]  # exact, so that order does not matter
    top = max([*scores, other])
    masses = [math.exp(s - top) for s in scores]
    left = math.exp(other - top)
    total = math.fsum([*masses, left])
    return Posterior(tuple(votes), tuple(mass / total for mass in masses), left / total)


def likeliest(posterior: Posterior) -> str | None:
    """The candidate of highest probability, of equal ones the first; None without any."""
    if not posterior.candidates:
        return None
    return posterior.candidates[posterior.probabilities.index(posterior.best)]
