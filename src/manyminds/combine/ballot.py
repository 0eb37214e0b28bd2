"""Who has a say, with what weight, and what the votes add up to. Pure.

Knows no text: what makes two answers one candidate is for others to say.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

from manyminds.types import Answer, Call, Posterior, Route

__all__ = [
    "AHEAD",
    "ENOUGH",
    "Voice",
    "Votes",
    "agreed",
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

ENOUGH: Final = 4
"""Sources that agree, from which on nobody who is alone against them can win: see `poll`."""

AHEAD: Final = 1e-6
"""By how many nats, at least, what they say is then ahead: it is released, and no more than that is claimed.

Far above what the largest sums of weights are rounded by.
"""

_CLIP = 0.02  # of a probability: nobody is always right, nor always wrong
_MAX_SCORE = 1e6  # keeps any multiplier of a caller finite
_LEFT = 1e-3  # of a class: "none of these" when every class is named, since the question may be at fault
_DEEP = 600.0  # nats that "none of these" may be above every candidate: more would leave all of them nothing


class Voice(NamedTuple):
    """One answer's vote: who gave it, what for, with which weight in nats.

    `source` is who stands behind the expert, "" for the expert itself. `favour` is the caller's multiplier,
    which is in the weight already.
    """

    expert: str
    candidate: str
    weight: float
    source: str = ""
    favour: float = 1.0


Votes: TypeAlias = Callable[[Sequence[int]], tuple[list[Voice], float]]
"""The votes of some of the answers, by position, and the score of "none of these"."""


def by_name(route: Route) -> dict[str, Call]:
    """The call of each expert, as `Route.call_of` finds it."""
    return {call.expert: call for call in reversed(route.everyone)}


def has_say(route: Route, answer: Answer) -> bool:
    """A panel member's own whole answer, unless its weight is 0, or it declines: see `Answer.declined`.

    All else counts as if it had not come.
    """
    return is_heard(route.call_of(answer.expert), answer)


def is_heard(call: Call | None, answer: Answer) -> bool:
    """`has_say` of the answer to this call."""
    if answer.status != "ok" or answer.method == "fuse" or answer.declined:
        return False
    return call is not None and call.weight != 0


def score(call: Call, classes: int) -> float:
    """The log-odds weight ln((C-1)p/(1-p)) times the caller's multiplier and `Call.heed`, in nats.

    Optimal where experts err independently and errors fall evenly on C-1 wrong answers (Nitzan & Paroush
    1982 for C = 2). Negative for an expert that does worse than chance: its vote is a warning.
    """
    p = min(max(call.probability, _CLIP), 1 - _CLIP)
    nats = math.log((classes - 1) * p / (1 - p)) * call.weight * call.heed
    return min(max(nats, -_MAX_SCORE), _MAX_SCORE)


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
    calls = by_name(route)
    voices = [
        Voice(answer.expert, candidate, score(call, classes), call.source, call.weight)
        if candidate and (call := calls.get(answer.expert)) is not None and is_heard(call, answer)
        else None
        for answer, candidate in zip(answers, candidates, strict=True)
    ]

    def votes(kept: Sequence[int]) -> tuple[list[Voice], float]:
        cast = [voice for i in kept if (voice := voices[i]) is not None]
        return cast, unnamed(cast, classes)

    return votes


def unnamed(voices: Sequence[Voice], classes: int) -> float:
    """The score of "none of these" beside log-odds: each class that nobody named has 0."""
    named = len({voice.candidate for voice in voices})
    return math.log(max(classes - named, _LEFT))


def agreed(said: Iterable[tuple[str, str]]) -> str | None:
    """The candidate that all sources but at most one name, and name alone; `said`: (source, candidate).

    None where fewer than `ENOUGH` sources do. There is never more than one: of two, each would be named by
    all sources but one, and so by `ENOUGH` that do not name the other.
    """
    alone: dict[str, str | None] = {}
    for source, candidate in said:
        alone[source] = candidate if alone.get(source, candidate) == candidate else None
    if len(alone) < ENOUGH:
        return None
    most, times = Counter(alone.values()).most_common(1)[0]
    return most if times >= max(ENOUGH, len(alone) - 1) else None


def poll(voices: Sequence[Voice], other: float) -> Posterior:
    """P(c) ∝ exp of the summed weights of its voters; `other` is the score of "none of these". Sorted.

    The answers of an expert that was asked m times and voted are 1/m vote each: asking again must not
    make it heavier.

    Safe by numbers: where all sources but one agree, and they are at least `ENOUGH`, the one alone does not
    win, whatever its votes weigh, be they learnt, claimed or confident. What it names is capped `AHEAD` nats
    below what the others agree on, so that this has the largest probability, and is released. A weight is
    earned on questions of the past, and whoever has one may have been taken over since; that so many who do
    not answer to one another err in the same way, and one alone is right, is seldom. Sources count, not
    experts: else three names of one source would outvote whoever is better than it. It does not hold where
    fewer agree (of two or three, the better one may well be right against the rest), and not against a caller
    who gave the one alone a larger multiplier than each of the others.
    """
    if len({voice.expert for voice in voices}) < len(voices):
        times = Counter(voice.expert for voice in voices)
        voices = [voice._replace(weight=voice.weight / times[voice.expert]) for voice in voices]
    votes: dict[str, list[float]] = {}
    for voice in voices:
        if voice.candidate in votes:
            votes[voice.candidate].append(voice.weight)
        else:
            votes[voice.candidate] = [voice.weight]
    candidates = sorted(votes)
    scores = [math.fsum(votes[candidate]) for candidate in candidates]  # exact, so that order does not matter
    if len(candidates) > 1 and (safe := _safe(voices)) is not None:
        most = scores[candidates.index(safe)] - AHEAD
        scores = [s if c == safe else min(s, most) for c, s in zip(candidates, scores, strict=True)]
    other = min(other, max(scores, default=other) + _DEEP)
    top = max([*scores, other])
    masses = [math.exp(s - top) for s in scores]
    left = math.exp(other - top)
    total = math.fsum([*masses, left])
    return Posterior(tuple(candidates), tuple([mass / total for mass in masses]), left / total)


def _safe(voices: Sequence[Voice]) -> str | None:
    """What all sources but one agree on, unless the caller favours that one over each of the others."""
    if len(voices) <= ENOUGH:  # as a rule: soon told
        return None
    said = [(voice.source or voice.expert, voice) for voice in voices]
    safe = agreed((source, voice.candidate) for source, voice in said)
    if safe is None:
        return None
    against = {source for source, voice in said if voice.candidate != safe}
    favour = max(voice.favour for source, voice in said if source in against)
    return safe if favour <= max(voice.favour for source, voice in said if source not in against) else None


def likeliest(posterior: Posterior) -> str | None:
    """The candidate of highest probability, of equal ones the first; None without any."""
    if not posterior.candidates:
        return None
    return posterior.candidates[posterior.probabilities.index(posterior.best)]
