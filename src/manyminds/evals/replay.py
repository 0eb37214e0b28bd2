"""Asks recorded experts what a gateway would have asked them, and keeps what came of it.

The router, the fan-out and the vote are the ones that serve; nothing is recorded and nobody learns. Knows no
baseline and no figure.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from manyminds.combine.release import Chooser
from manyminds.errors import AnswerError
from manyminds.experts.recorded import Question, Recorded
from manyminds.fanout import Fanout, Patience
from manyminds.learn.examples import Examples
from manyminds.types import Answer, Card, Limits, Query, Route, Router

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Replayed", "replay"]

_TOLD = 64  # questions between two reports of progress


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """What came of n questions under one policy.

    Attributes:
        correct: (n,) bool, of the answer released; false where there was none.
        probability: (n,) that the network gave the released answer.
        cost_usd: (n,) of all that was asked; seconds: (n,) of the slowest expert of every stage asked,
            summed. NaN where one of them is not recorded.
        calls: (n,) experts asked.
        route_s: (n,) what the router took, without the encoder.
    """

    correct: "NDArray[np.bool_]"
    probability: "NDArray[np.float64]"
    cost_usd: "NDArray[np.float64]"
    seconds: "NDArray[np.float64]"
    calls: "NDArray[np.int64]"
    route_s: "NDArray[np.float64]"


def replay(
    router: Router,
    vote: Chooser,
    experts: Sequence[Recorded],
    questions: Sequence[Question],
    examples: Examples,
    policies: Sequence[str],
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, Replayed]:
    """What each policy makes of these questions; `examples` says what was recorded of them, in their order.

    An expert that was not asked a question refuses it. `progress` is told the share done.
    """
    stage = _Stage(router, vote, experts, examples)
    return asyncio.run(stage.play(questions, policies, progress))


@dataclass(frozen=True, slots=True)
class _Played:
    """What came of one question."""

    correct: bool = False
    probability: float = 0.0
    cost_usd: float = 0.0
    seconds: float = 0.0
    calls: int = 0


class _Stage:
    """Everything that stays the same from question to question."""

    def __init__(
        self, router: Router, vote: Chooser, experts: Sequence[Recorded], examples: Examples
    ) -> None:
        self._router = router
        self._vote = vote
        self._experts = {expert.card.name: expert for expert in experts}
        self._cards: list[Card] = [self._experts[name].card for name in sorted(self._experts)]
        self._examples = examples
        self._nothing_usd = 0.0 if np.isfinite(examples.cost_usd).any() else math.nan
        self._nothing_s = 0.0 if np.isfinite(examples.seconds).any() else math.nan
        self._column = {name: j for j, name in enumerate(examples.experts)}

    async def play(
        self, questions: Sequence[Question], policies: Sequence[str], progress: Callable[[float], None]
    ) -> dict[str, Replayed]:
        played: dict[str, list[_Played]] = {policy: [] for policy in policies}
        route_s: dict[str, list[float]] = {policy: [] for policy in policies}
        for i, question in enumerate(questions):
            vectors = self._examples.vectors
            query = question.query(self._examples.kinds[i], None if vectors is None else vectors[i])
            known: dict[object, _Played] = {}  # policies often ask the same
            for policy in policies:
                began = time.perf_counter()
                route = self._router.route(query, self._cards, Limits(policy=policy))
                route_s[policy].append(time.perf_counter() - began)
                key = (route.strategy, route.calls, route.reserve, route.threshold, route.quorum)
                if key not in known:
                    known[key] = await self._ask(i, query, route)
                played[policy].append(known[key])
            if i % _TOLD == 0:
                progress(i / len(questions))
        progress(1.0)
        return {policy: _stack(played[policy], route_s[policy]) for policy in policies}

    async def _ask(self, i: int, query: Query, route: Route) -> _Played:
        """One question, asked as `Gateway` asks and released as `Vote` releases."""

        async def enough(answers: Sequence[Answer]) -> bool:
            posterior = self._vote.posterior(query, route, answers)
            return route.threshold < 1 and posterior.best >= route.threshold

        staged = len({call.stage for call in route.calls}) > 1  # else nothing is left to be stopped
        async with Fanout(query, route, self._experts, Patience(), enough if staged else None) as calls:
            answers = [answer async for answer in calls.finished()]
        cost_usd, seconds = self._spent(i, answers)
        try:
            released = self._vote.choose(query, route, answers)
        except AnswerError:
            return _Played(cost_usd=cost_usd, seconds=seconds, calls=len(answers))
        return _Played(
            correct=bool(self._examples.correct[i, self._column[released.expert]]),
            probability=self._probability(query, route, answers, released),
            cost_usd=cost_usd,
            seconds=seconds,
            calls=len(answers),
        )

    def _probability(self, query: Query, route: Route, answers: Sequence[Answer], released: Answer) -> float:
        """That of the candidate; where answers cannot be compared, that of the expert released."""
        if query.task.kind == "text":
            call = route.call_of(released.expert)
            return call.probability if call else 0.0
        return self._vote.posterior(query, route, answers).best

    def _spent(self, i: int, answers: Sequence[Answer]) -> tuple[float, float]:
        """US dollars and seconds. A refusal took neither, where a set records them at all."""
        cost_usd, slowest = self._nothing_usd, {0: self._nothing_s}
        for answer in answers:
            if answer.status != "ok":
                continue
            column = self._column[answer.expert]
            cost_usd += float(self._examples.cost_usd[i, column])
            took_s = float(self._examples.seconds[i, column])
            so_far_s = slowest.get(answer.stage, 0.0)
            slowest[answer.stage] = so_far_s if so_far_s > took_s or math.isnan(so_far_s) else took_s
        return cost_usd, sum(slowest.values())


def _stack(played: Sequence[_Played], route_s: Sequence[float]) -> Replayed:
    return Replayed(
        correct=np.array([one.correct for one in played], np.bool_),
        probability=np.array([one.probability for one in played], np.float64),
        cost_usd=np.array([one.cost_usd for one in played], np.float64),
        seconds=np.array([one.seconds for one in played], np.float64),
        calls=np.array([one.calls for one in played], np.int64),
        route_s=np.array(route_s, np.float64),
    )
