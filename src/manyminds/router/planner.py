"""What was learnt, as a router uses it: who is likely to be right, and which plan a policy takes.

Knows an artefact and predictions; no text and no transport. Pure.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from manyminds.artefact import Artefact, Plan
from manyminds.router.predictor import Prediction
from manyminds.types import Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Planner"]

_CLIP = 30.0  # of log-odds
_QUORUM = 0.5  # share of a panel asked at once that must be left for it to be asked without the others


class Planner:
    """Reads one artefact."""

    def __init__(self, artefact: Artefact) -> None:
        self._artefact = artefact
        self._place = {name: i for i, name in enumerate(artefact.skills.experts)}
        self._priced = bool(artefact.about.get("priced"))

    def informed(self, query: Query, predictions: Sequence[Prediction]) -> list[Prediction]:
        """The predictions, with chance and cost as learnt for those experts of which something is.

        A kind of question that was not learnt from is left alone. A prompt costs at least its own tokens.
        """
        if query.task.kind not in self._artefact.kinds:
            return list(predictions)
        tokens = query.estimated_tokens
        skills, x = self._artefact.skills, self._features(query)
        places = [self._place.get(p.card.name) for p in predictions]
        known = [place for place in places if place is not None]
        chance = _chance(skills.weights[known], x)
        cost = np.maximum(skills.cost_usd[known] @ x, 0.0)
        learnt = zip(chance.tolist(), cost.tolist(), skills.seconds[known].tolist(), strict=True)
        made = []
        for p, place in zip(predictions, places, strict=True):
            if place is None:
                made.append(p)
                continue
            probability, cost_usd, seconds = next(learnt)
            read_usd = tokens * p.card.price_in_usd_per_m / 1e6
            cost_usd = max(cost_usd, read_usd) if self._priced else p.cost_usd
            latency_s = seconds if math.isfinite(seconds) else p.latency_s
            made.append(Prediction(p.card, p.source, probability, cost_usd, p.ttft_s, latency_s))
        return made

    def knows(self, names: Iterable[str]) -> bool:
        """Whether something was learnt of each of these experts."""
        return all(name in self._place for name in names)

    def plan(self, policy: str, query: Query, available: Collection[str], panel: int | None) -> Plan | None:
        """The plan of a policy whose experts can be asked, at most `panel` of them; None where none fits.

        The policy's own plan where it can be had; a panel asked at once may lack up to half its members.
        Else the rule by which the policy chose, over the plans that are left.
        """
        artefact = self._artefact
        if query.task.kind not in artefact.kinds or policy not in artefact.choice:
            return None
        names = set(available)
        most = panel or len(names)
        chosen = artefact.plans[artefact.choice[policy]]
        anew = policy in artefact.prices
        if not anew and len(chosen.experts) <= most and names.issuperset(chosen.experts):
            return chosen
        plans = [p for p in artefact.plans if len(p.experts) <= most and names.issuperset(p.experts)]
        if anew and plans:
            return self._anew(artefact.prices[policy], query, plans)
        left = tuple(name for name in chosen.experts if name in names)
        small = panel is None or len(left) <= panel
        if len(chosen.stages) == 1 and small and len(left) >= max(2.0, _QUORUM * len(chosen.experts)):
            return replace(chosen, stages=(left,))
        return _by_rule(policy, plans)

    def expect(self, plan: Plan, query: Query) -> tuple[float, float] | None:
        """Its chance of being right on this question, and its cost in US dollars.

        None where costs are not known, or where it is what is left of a plan.
        """
        if not self._priced or plan not in self._artefact.plans:
            return None
        x = self._features(query)
        return float(_chance(plan.weights[None], x)[0]), max(float(plan.spend_usd @ x), 0.0)

    def _anew(self, price: float, query: Query, plans: Sequence[Plan]) -> Plan:
        x = self._features(query)
        chance = _chance(np.stack([plan.weights for plan in plans]), x)
        cost = np.maximum(np.stack([plan.spend_usd for plan in plans]) @ x, 0.0)
        return plans[int((price * chance - cost).argmax())]

    def _features(self, query: Query) -> "Floats":
        """(p + 1,), constant first."""
        return np.concatenate([[1.0], self._artefact.base.features(query.vector, query.limits.topic)])


def _chance(weights: "Floats", x: "Floats") -> "Floats":
    chance: Floats = 1.0 / (1.0 + np.exp(-np.clip(weights @ x, -_CLIP, _CLIP)))
    return chance


def _by_rule(policy: str, plans: Sequence[Plan]) -> Plan | None:
    """See `learn.policies`. Ties end with the earlier plan: single experts come first, by name."""
    singles = [plan for plan in plans if len(plan.experts) == 1]
    if not singles:
        return None
    best = max(singles, key=lambda plan: plan.accuracy)
    match policy:
        case "cheap":
            return min((p for p in plans if p.accuracy >= best.accuracy), key=lambda plan: plan.cost_usd)
        case "auto":
            return max((p for p in plans if p.cost_usd <= best.cost_usd), key=lambda plan: plan.accuracy)
        case "fast":
            timed = [plan for plan in singles if np.isfinite(plan.seconds)]
            return min(timed, key=lambda plan: plan.seconds) if timed else best
    return max(plans, key=lambda plan: plan.accuracy)
