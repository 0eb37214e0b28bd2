"""Who has a say, with what weight, and what the votes add up to. Pure.

Knows no text: what makes two answers one candidate is for others to say.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from manyminds.types import Answer, Call, Posterior, Route

__all__ = [
    "Voice",
    "Votes",
    "by_log_odds",
    "by_name",
    "has_say",
    "is_heard",
    "likeliest",
    "log_odds",
    "poll",
    "score",
    "unnamed",
]

_CLIP = 0.02  # of a probability: nobody is always right, nor always wrong
_MAX_SCORE = 1e6  # keeps any multiplier of a caller finite
_LEFT = 1e-3  # of a class: "none of these" when every class is named, since the question may be at fault


class Voice(NamedTuple):
    """One answer's vote: who gave it, what for, with which weight in nats."""

    expert: str
    candidate: str
    weight: float


Votes: TypeAlias = Callable[[Sequence[int]], tuple[list[Voice], float]]
"""The votes of some of the answers, by position, and the score of "none of these"."""


def by_name(route: Route) -> dict[str, Call]:
    """The call of each expert, as `Route.call_of` finds it."""
    return {call.expert: call for call in reversed(route.everyone)}


def has_say(route: Route, answer: Answer) -> bool:
    """A panel member's own whole answer, unless its weight is 0. All else counts as if it had not come."""
    return is_heard(route.call_of(answer.expert), answer)


def is_heard(call: Call | None, answer: Answer) -> bool:
    """`has_say` of the answer to this call."""
    return answer.status == "ok" and answer.method != "fuse" and call is not None and call.weight != 0


def score(call: Call, classes: int) -> float:
    """The log-odds weight ln((C-1)p/(1-p)) times the caller's multiplier, in nats.

    Optimal where experts err independently and errors fall evenly on C-1 wrong answers (Nitzan & Paroush
    1982 for C = 2). Negative for an expert that does worse than chance: its vote is a warning.
    """
    p = min(max(call.probability, _CLIP), 1 - _CLIP)
    return min(max(math.log((classes - 1) * p / (1 - p)) * call.weight, -_MAX_SCORE), _MAX_SCORE)


def log_odds(route: Route, answers: Sequence[Answer], classes: int) -> list[float | None]:
    """The log-odds weight of each answer's vote; None where it has no say."""
    calls = by_name(route)
    return [
        score(call, classes)
        if (call := calls.get(answer.expert)) is not None and is_heard(call, answer)
        else None
        for answer in answers
    ]


def by_log_odds(
    route: Route, answers: Sequence[Answer], candidates: Sequence[str | None], classes: int
) -> Votes:
    """Votes with their log-odds weights: each answer is weighed once, whoever else is counted.

    So a lone voter's candidate has exactly the voter's probability.
    """
    weights = log_odds(route, answers, classes)
    voices = [
        Voice(answer.expert, candidate, weight) if candidate and weight is not None else None
        for answer, candidate, weight in zip(answers, candidates, weights, strict=True)
    ]

    def votes(kept: Sequence[int]) -> tuple[list[Voice], float]:
        cast = [voice for i in kept if (voice := voices[i]) is not None]
        return cast, unnamed(cast, classes)

    return votes


def unnamed(voices: Sequence[Voice], classes: int) -> float:
    """The score of "none of these" beside log-odds: each class that nobody named has 0."""
    named = len({voice.candidate for voice in voices})
    return math.log(max(classes - named, _LEFT))


def poll(voices: Sequence[Voice], other: float) -> Posterior:
    """P(c) ∝ exp of the summed weights of its voters; `other` is the score of "none of these". Sorted.

    The answers of an expert that was asked m times and voted are 1/m vote each: asking again must not
    make it heavier.
    """
    if len({voice.expert for voice in voices}) < len(voices):
        times = Counter(voice.expert for voice in voices)
        voices = [Voice(*voice[:2], voice.weight / times[voice.expert]) for voice in voices]
    votes: dict[str, list[float]] = {}
    for _, candidate, weight in voices:
        if candidate in votes:
            votes[candidate].append(weight)
        else:
            votes[candidate] = [weight]
    candidates = sorted(votes)
    scores = [math.fsum(votes[candidate]) for candidate in candidates]  # exact, so that order does not matter
    top = max([*scores, other])
    masses = [math.exp(s - top) for s in scores]
    left = math.exp(other - top)
    total = math.fsum([*masses, left])
    return Posterior(tuple(candidates), tuple([mass / total for mass in masses]), left / total)


def likeliest(posterior: Posterior) -> str | None:
    """The candidate of highest probability, of equal ones the first; None without any."""
    if not posterior.candidates:
        return None
    return posterior.candidates[posterior.probabilities.index(posterior.best)]
