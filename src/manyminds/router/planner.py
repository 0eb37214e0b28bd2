"""What was learnt, as a router uses it: who is likely to be right, and which plan a policy takes.

Knows a part of an artefact and predictions; no text and no transport. Pure.
"""

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from manyminds.artefact import Part, Plan, familiar, left_of
from manyminds.router.grades import Standing
from manyminds.router.predictor import Prediction
from manyminds.types import Prior, Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Planner"]

_CLIP = 30.0  # of log-odds
_FELL = -1.0  # log-odds by which the grades put an expert below what was learnt: no plan relies on it


class Planner:
    """Reads one part of an artefact."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._place = {name: i for i, name in enumerate(part.skills.experts)}
        self._priced = bool(part.about.get("priced"))
        rows = zip(part.skills.experts, part.skills.weights, strict=True)
        self._basis = {name: f"{zlib.crc32(row.tobytes()):08x}" for name, row in rows}

    def section(self, query: Query) -> str:
        """What the question is about, as its caller says, else as its text tells; "" where neither does."""
        return query.limits.topic or self._part.base.guess(query.vector)

    def informed(
        self, query: Query, predictions: Sequence[Prediction], standings: Mapping[str, Standing]
    ) -> list[Prediction]:
        """The predictions, with chance and cost as learnt for those experts of which something is.

        Grades since then shift the log-odds, of each expert alone and as far as they are of answers that
        were predicted from the same. A kind of question that was not learnt from is left alone. A prompt
        costs at least its own tokens.
        """
        if query.task.kind not in self._part.kinds:
            return list(predictions)
        tokens = query.estimated_tokens
        skills, x = self._part.skills, self._features(query)
        places = [self._place.get(p.card.name) for p in predictions]
        known = [place for place in places if place is not None]
        prior = _chance(skills.weights[known], x)
        shifts = [self._shift(p.card.name, standings) for p in predictions if p.card.name in self._place]
        chance = _chance(skills.weights[known], x, np.array(shifts))
        cost = np.maximum(skills.cost_usd[known] @ x, 0.0)
        seconds_of = skills.seconds[known].tolist()
        learnt = zip(prior.tolist(), shifts, chance.tolist(), cost.tolist(), seconds_of, strict=True)
        made = []
        for p, place in zip(predictions, places, strict=True):
            if place is None:
                made.append(p)
                continue
            before, shift, probability, cost_usd, seconds = next(learnt)
            read_usd = tokens * p.card.price_in_usd_per_m / 1e6
            cost_usd = max(cost_usd, read_usd) if self._priced else p.cost_usd
            latency_s = seconds if math.isfinite(seconds) else p.latency_s
            made.append(
                Prediction(
                    *(p.card, p.source, probability, cost_usd, p.ttft_s, latency_s, p.hedge_s),
                    prior=Prior(before, self._basis[p.card.name]),
                    shift=shift,
                )
            )
        return made

    def _shift(self, name: str, standings: Mapping[str, Standing]) -> float:
        """What its grades add to the log-odds that were learnt of an expert; 0 of one that is unknown."""
        known = standings.get(name)
        return known.shifts.get(self._basis.get(name, ""), 0.0) if known is not None else 0.0

    def knows(self, names: Iterable[str]) -> bool:
        """Whether something was learnt of each of these experts."""
        return all(name in self._place for name in names)

    def plan(
        self,
        policy: str,
        query: Query,
        costs: Mapping[str, float],
        panel: int | None,
        budget_usd: float | None = None,
        shifts: Mapping[str, float] | None = None,
    ) -> Plan | None:
        """The plan of a policy that can be asked: of experts with a cost, at most `panel`, within the budget.

        The policy's own plan where it can be had; a panel asked at once may lack up to half its members.
        Else the next in the policy's ranking. None where none can be had. `costs` in US dollars per answer.
        `shifts` are what the grades since add to an expert's log-odds: one that is far below what was learnt
        of it is as one that cannot be asked.
        """
        learnt, shifts = self._part, shifts or {}
        costs = {name: cost for name, cost in costs.items() if shifts.get(name, 0.0) > _FELL}
        if query.task.kind not in learnt.kinds or policy not in learnt.ranking:
            return None

        def can_be_had(plan: Plan) -> bool:
            if (panel is not None and len(plan.experts) > panel) or not costs.keys() >= set(plan.experts):
                return False
            return budget_usd is None or math.fsum(costs[name] for name in plan.experts) <= budget_usd

        ranked = [learnt.plans[i] for i in learnt.ranking[policy]]
        left = [plan for plan in ranked if can_be_had(plan)]
        if policy in learnt.prices and left:
            return self._anew(learnt.prices[policy], query, left, shifts)
        first = left_of(ranked[0], costs)
        if first is not None and can_be_had(first):
            return first
        return left[0] if left else None

    def stages(self, plan: Plan, query: Query) -> tuple[tuple[str, ...], ...]:
        """Whom of a plan to ask: those that were asked such questions, for nothing is known of the others.

        So what a plan asks is what it was judged by. All of it where that leaves nobody.
        """
        x = self._features(query)[None, 1:]
        (known,) = familiar(self._part.base, self._part.skills, x).tolist()
        left = (tuple(name for name in stage if known[self._place[name]]) for stage in plan.stages)
        return tuple(stage for stage in left if stage) or plan.stages

    def expect(self, plan: Plan, query: Query) -> tuple[float, float] | None:
        """Its chance of being right on this question, and its cost in US dollars.

        None where costs are not known, or where it is what is left of a plan.
        """
        if not self._priced or plan not in self._part.plans:
            return None
        x = self._features(query)
        return float(_chance(plan.weights[None], x)[0]), max(float(plan.spend_usd @ x), 0.0)

    def _anew(self, price: float, query: Query, plans: Sequence[Plan], shifts: Mapping[str, float]) -> Plan:
        """Where votes can be weighed, no expert but the best is relied on without another behind it.

        A plan's log-odds are shifted as those of its experts are, on average.
        """
        best = self._part.best_single
        if self._part.ballot is not None:
            plans = [plan for plan in plans if len(plan.experts) > 1 or plan.experts == (best,)] or plans
        x = self._features(query)
        means = [math.fsum(shifts.get(n, 0.0) for n in plan.experts) / len(plan.experts) for plan in plans]
        chance = _chance(np.stack([plan.weights for plan in plans]), x, np.array(means))
        cost = np.maximum(np.stack([plan.spend_usd for plan in plans]) @ x, 0.0)
        return plans[int((price * chance - cost).argmax())]

    def _features(self, query: Query) -> "Floats":
        """(p + 1,), constant first."""
        return np.concatenate([[1.0], self._part.base.features(query.vector, query.limits.topic)])


def _chance(weights: "Floats", x: "Floats", shifts: "Floats | float" = 0.0) -> "Floats":
    chance: Floats = 1.0 / (1.0 + np.exp(-np.clip(weights @ x + shifts, -_CLIP, _CLIP)))
    return chance
