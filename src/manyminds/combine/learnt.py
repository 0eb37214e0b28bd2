"""What each vote weighs by what was learnt: who says it, about what, how certain and at what length.

Pure. Knows an artefact's ballot, no text and no candidate's meaning.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from manyminds.artefact import Artefact, Ballot, is_wide
from manyminds.combine.ballot import Voice, has_say, score
from manyminds.types import Answer, Call, Query, Route

__all__ = ["Weigher"]

_SPREAD = 3.0  # standard deviations of an answer's length that count
_MAX_SCORE = 1e6  # keeps any multiplier of a caller finite


class Weigher:
    """Reads the ballots of one artefact; the same numbers as `learn.ballots.cast`, vote by vote."""

    def __init__(self, artefact: Artefact, ballot: Ballot) -> None:
        self._base, self._skills = artefact.base, artefact.skills
        self._ballot, self._wide = ballot, artefact.wide or ballot
        self._kinds = artefact.kinds
        self._place = {name: i for i, name in enumerate(artefact.skills.experts)}
        self._label = {name: i for i, name in enumerate(ballot.labels)}

    def knows(
        self, query: Query, route: Route, answers: Sequence[Answer], candidates: Sequence[str | None]
    ) -> bool:
        """Whether this kind of question was learnt from, and anybody who has a vote."""
        return query.task.kind in self._kinds and any(
            candidate and answer.expert in self._place and has_say(route, answer)
            for answer, candidate in zip(answers, candidates, strict=True)
        )

    def voices(
        self, query: Query, route: Route, answers: Sequence[Answer], candidates: Sequence[str | None]
    ) -> tuple[list[Voice], float]:
        """Every vote with its weight in nats, and the score of "none of these".

        An expert that was not learnt from is weighed by its log-odds, on the scale of those that were.
        """
        topics = len(self._base.topics)
        x = np.concatenate([[1.0], self._base.features(query.vector, query.limits.topic)[:topics]])
        cast = [
            (answer, candidate, call)
            for answer, candidate in zip(answers, candidates, strict=True)
            if candidate and has_say(route, answer) and (call := route.call_of(answer.expert)) is not None
        ]
        places = [self._place.get(answer.expert, -1) for answer, _, _ in cast]
        ballot = self._wide if is_wide(len({*places} - {-1}), len(self._place)) else self._ballot
        # Not `@`, whose last bits depend on which rows are beside a row.
        constants = (ballot.weights[places] * x).sum(axis=1).tolist() if self._place else []
        voices = []
        for (answer, candidate, call), place, constant in zip(cast, places, constants, strict=True):
            known = place >= 0
            own = self._weight(ballot, place, constant, answer, candidate) if known else _guess(ballot, call)
            weight = min(max(own * call.weight, -_MAX_SCORE), _MAX_SCORE)
            voices.append(Voice(answer.expert, candidate, weight))
        return self._diluted(ballot, voices), float(ballot.other @ x)

    def _diluted(self, ballot: Ballot, voices: Sequence[Voice]) -> list[Voice]:
        """Every vote divided by 1 + the dilutions of the other experts that have voted."""
        places = {voice.expert: self._place.get(voice.expert) for voice in voices}
        dilution = {
            name: float(ballot.prior[2] if place is None else ballot.dilution[place])
            for name, place in places.items()
        }
        whole = math.fsum(dilution.values())  # exact, so that order does not matter
        return [replace(v, weight=v.weight / (1.0 + max(whole - dilution[v.expert], 0.0))) for v in voices]

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
