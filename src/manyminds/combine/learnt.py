"""What each vote weighs by what was learnt: who says it, about what, how certain and at what length.

Pure. Knows the ballot of an artefact's part, no text and no candidate's meaning.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from manyminds.artefact import Ballot, Part, is_wide
from manyminds.combine.ballot import Voice, Votes, by_name, is_heard, score
from manyminds.types import Answer, Call, Query, Route

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Weigher"]

_SPREAD = 3.0  # standard deviations of an answer's length that count
_MAX_SCORE = 1e6  # keeps any multiplier of a caller finite

_Cast: TypeAlias = tuple[int, Answer, str, Call]  # position, and what has a vote there


class _Weighed(NamedTuple):
    """The votes by position, as they would weigh alone; how much each expert's dilutes the others'."""

    voices: dict[int, Voice]
    dilution: dict[str, float]
    other: float

    def some(self, kept: Sequence[int]) -> tuple[list[Voice], float]:
        """Every vote is divided by 1 + the dilutions of the other experts that have voted."""
        voices = [voice for i in kept if (voice := self.voices.get(i)) is not None]
        dilution = {voice.expert: self.dilution[voice.expert] for voice in voices}
        whole = math.fsum(dilution.values())  # exact, so that order does not matter
        return [
            voice._replace(weight=voice.weight / (1.0 + max(whole - dilution[voice.expert], 0.0)))
            for voice in voices
        ], self.other


class Weigher:
    """Reads the ballots of one part; the same numbers as `learn.ballots.cast`, vote by vote."""

    def __init__(self, part: Part, ballot: Ballot) -> None:
        self._base, self._skills = part.base, part.skills
        self._ballot, self._wide = ballot, part.wide or ballot
        self._kinds = part.kinds
        self._place = {name: i for i, name in enumerate(part.skills.experts)}
        self._label = {name: i for i, name in enumerate(ballot.labels)}

    def votes(
        self,
        query: Query,
        route: Route,
        answers: Sequence[Answer],
        candidates: Sequence[str | None],
        otherwise: Callable[[], Votes],
    ) -> Votes:
        """Every vote with its weight in nats, and the score of "none of these".

        An expert that was not learnt from is weighed by its log-odds, on the scale of those that were. Each
        answer is weighed once, then only diluted by whoever is counted with it. `otherwise` is for questions
        of a kind that was not learnt from, and for where nobody is counted of whom anything is known.
        """
        calls = by_name(route)
        cast = [
            (i, answer, candidate, call)
            for i, (answer, candidate) in enumerate(zip(answers, candidates, strict=True))
            if candidate and (call := calls.get(answer.expert)) is not None and is_heard(call, answer)
        ]
        known = {i: answer.expert for i, answer, _, _ in cast if answer.expert in self._place}
        if query.task.kind not in self._kinds or not known:
            return otherwise()
        topics = len(self._base.topics)
        x = np.concatenate([[1.0], self._base.features(query.vector, query.limits.topic)[:topics]])
        weighed: dict[bool, _Weighed] = {}

        def votes(kept: Sequence[int]) -> tuple[list[Voice], float]:
            voters = {known[i] for i in kept if i in known}
            if not voters:
                return otherwise()(kept)
            wide = bool(is_wide(len(voters), len(self._place)))
            if wide not in weighed:
                weighed[wide] = self._weighed(self._wide if wide else self._ballot, x, cast)
            return weighed[wide].some(kept)

        return votes

    def _weighed(self, ballot: Ballot, x: "Floats", cast: Sequence[_Cast]) -> "_Weighed":
        places = [self._place.get(answer.expert, -1) for _, answer, _, _ in cast]
        # Not `@`, whose last bits depend on which rows are beside a row.
        constants = (ballot.weights[places] * x).sum(axis=1).tolist()
        voices: dict[int, Voice] = {}
        dilution: dict[str, float] = {}
        for (i, answer, candidate, call), place, constant in zip(cast, places, constants, strict=True):
            known = place >= 0
            own = self._weight(ballot, place, constant, answer, candidate) if known else _guess(ballot, call)
            weight = min(max(own * call.weight * call.heed, -_MAX_SCORE), _MAX_SCORE)
            voices[i] = Voice(answer.expert, candidate, weight, call.source, call.weight)
            dilution[answer.expert] = float(ballot.dilution[place] if known else ballot.prior[2])
        return _Weighed(voices, dilution, float(ballot.other @ x))

    def _weight(self, ballot: Ballot, place: int, constant: float, answer: Answer, candidate: str) -> float:
        skills = self._skills
        weight = constant
        tokens = answer.usage.completion_tokens
        if tokens > 0:
            mean, deviation = skills.ln_tokens[place]
            length = min(max((math.log(tokens) - mean) / deviation, -_SPREAD), _SPREAD)
            weight += float(ballot.length[place]) * length
        if answer.confidence is not None and np.isfinite(skills.confidence[place]).all():
            raw, odds = skills.confidence[place]
            weight += float(ballot.confidence[place]) * float(np.interp(answer.confidence, raw, odds))
        label = self._label.get(candidate)
        if label is not None:
            weight += float(ballot.label[place, label])
        return weight


def _guess(ballot: Ballot, call: Call) -> float:
    scale, constant, _ = ballot.prior
    odds = score(Call(call.expert, call.source, call.probability), max(round(ballot.classes), 2))
    return float(scale) * odds + float(constant)
