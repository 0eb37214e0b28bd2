"""A part with newcomers in it, or without some: rows of all others stay as they are, bit by bit.

Knows who is taken in and what is asked first, not how that was decided.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from manyminds.artefact import Ballot, Base, Part, Plan, Skills, left_of
from manyminds.learn import skills
from manyminds.learn.examples import Examples
from manyminds.learn.plans import Replayed, Stages
from manyminds.learn.policies import SLACK, seconds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Rows = NDArray[np.intp]

__all__ = ["Member", "Panel", "enlarge", "without"]

_SURE_SHARE = (0.02, 0.98)  # an accuracy is taken for no less and no more
_ROWS = ("weights", "answered", "accuracy", "asked", "cost_usd", "seconds", "ln_tokens", "confidence")


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A newcomer that is taken in.

    Attributes:
        name: the expert.
        rows: (k,) of the questions it was asked; counts: (k,) as how many each of them counts.
        weight, dilution: of its vote, as in `Ballot`.
    """

    name: str
    rows: "Rows"
    counts: "Floats"
    weight: float
    dilution: float


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """What `max` asks: stages of positions in the examples, the posterior at which it stops, what it did on
    some questions, `rows` (k,) of the examples, and by how much more often than before it is right.
    """

    stages: Stages
    threshold: float
    rows: "Rows"
    replayed: Replayed
    gain: float


def enlarge(
    part: Part,
    examples: Examples,
    x: "Floats",
    members: Sequence[Member],
    panel: Panel | None,
    best: str,
    shift: float,
) -> Part:
    """The part with these newcomers.

    Args:
        part: as it was.
        examples: outcomes of everybody.
        x: (n, p) features of the questions.
        members: whoever is taken in.
        panel: what `max` asks; None where that stays as it is.
        best: the most accurate single expert, which may be a newcomer.
        shift: added to the score of "none of these".
    """
    names = [*part.skills.experts, *(member.name for member in members)]
    order = sorted(range(len(names)), key=names.__getitem__)
    rows = [_skills(part, examples, x, member) for member in members]
    grown = _stacked([part.skills, *rows], order)
    own = _alone(part.base, examples, x, rows, members)
    singles = len(part.skills.experts)
    plans = [*part.plans[:singles], *own, *part.plans[singles:]]
    moved = [i if i < singles else i + len(own) for i in range(len(part.plans))]
    ranking = {policy: [moved[i] for i in old] for policy, old in part.ranking.items()}
    if panel is not None:
        before = plans[ranking["max"][0]]
        plans.append(_widest(part, examples, x, panel, before))
        ranking["max"].insert(0, len(plans) - 1)
    prices = dict(part.prices)
    if best != part.best_single:
        prices = {policy: price for policy, price in prices.items() if policy == "fast"}
        _follow(ranking, plans, best)
    return replace(
        part,
        about={**part.about, "newcomers": [member.name for member in members]},
        skills=grown,
        ballot=None if part.ballot is None else _ballot(part.ballot, members, order, shift),
        wide=None,
        plans=tuple(plans),
        best_single=best,
        prices=prices,
        ranking={policy: tuple(dict.fromkeys(order)) for policy, order in ranking.items()},
    )


def without(part: Part, names: Collection[str]) -> Part | None:
    """The part as if these could not be asked, and nothing were known of them; None where nobody is left.

    Plans that ask any of them are gone, but a panel of which enough is left; its figures are then above
    what it reaches. Of policies that choose among plans for each question, only `fast` still does where the
    best single expert is gone.
    """
    own = part.skills
    kept = [j for j, name in enumerate(own.experts) if name not in names]
    have = [own.experts[j] for j in kept]
    moved: dict[int, int] = {}
    plans: list[Plan] = []
    for i, plan in enumerate(part.plans):
        left = left_of(plan, have)
        if left is not None and (left is plan or any(order[0] == i for order in part.ranking.values())):
            moved[i] = len(plans)
            plans.append(left)
    if not kept or not plans:
        return None
    best = part.best_single if part.best_single in have else have[int(own.accuracy[kept].argmax())]
    ranking = {policy: [moved[i] for i in order if i in moved] for policy, order in part.ranking.items()}
    prices = dict(part.prices)
    if best != part.best_single:
        prices = {policy: price for policy, price in prices.items() if policy == "fast"}
        _follow(ranking, plans, best)
    arrays: dict[str, Any] = {name: getattr(own, name)[kept] for name in _ROWS}
    sources = tuple(own.sources[j] for j in kept)
    return replace(
        part,
        skills=Skills(experts=tuple(have), sources=sources, **arrays),
        ballot=None if part.ballot is None else _rows_of(part.ballot, kept),
        wide=None if part.wide is None else _rows_of(part.wide, kept),
        plans=tuple(plans),
        best_single=best,
        prices=prices,
        ranking={policy: tuple(dict.fromkeys(order)) for policy, order in ranking.items() if order},
    )


def _rows_of(ballot: Ballot, kept: Sequence[int]) -> Ballot:
    names = ("weights", "length", "confidence", "label", "dilution")
    rows: dict[str, Any] = {name: getattr(ballot, name)[kept] for name in names}
    return replace(ballot, **rows)


def _skills(part: Part, examples: Examples, x: "Floats", member: Member) -> Skills:
    """One row, from this expert's outcomes alone; its probes stand for all topics."""
    some = examples.of([member.name]).rows(member.rows)
    shrinkage = skills.Shrinkage(*part.about["shrinkage"])
    found = skills.fit(part.base, x[member.rows], some, shrinkage)
    right = some.correct[:, 0]
    weights = skills.head(x[member.rows], right, shrinkage.penalty(part.base), counts=member.counts)
    share = (float(member.counts @ right) + 1.0) / (member.counts.sum() + 2.0)
    points = part.skills.confidence.shape[2]
    return replace(
        found,
        weights=weights[None],
        accuracy=np.array([share]),
        asked=np.ones_like(found.asked),
        confidence=np.full((1, 2, points), np.nan),
    )


def _stacked(rows: Sequence[Skills], order: Sequence[int]) -> Skills:
    def arrays(name: str) -> "Floats":
        return np.concatenate([getattr(row, name) for row in rows])[list(order)]

    def texts(name: str) -> tuple[str, ...]:
        every = [text for row in rows for text in getattr(row, name)]
        return tuple(every[i] for i in order)

    return Skills(experts=texts("experts"), sources=texts("sources"), **{n: arrays(n) for n in _ROWS})


def _ballot(ballot: Ballot, members: Sequence[Member], order: Sequence[int], shift: float) -> Ballot:
    """With rows of the newcomers, of which nothing but their constant is known."""

    def grown(old: "Floats", own: Sequence[float] | None = None) -> "Floats":
        new = np.zeros((len(members), *old.shape[1:]))
        if own is not None:
            new.reshape(len(members), -1)[:, 0] = own
        return np.concatenate([old, new])[list(order)]

    other = ballot.other.copy()
    other[0] += shift
    return replace(
        ballot,
        weights=grown(ballot.weights, [member.weight for member in members]),
        length=grown(ballot.length),
        confidence=grown(ballot.confidence),
        label=grown(ballot.label),
        dilution=grown(ballot.dilution, [member.dilution for member in members]),
        other=other,
    )


def _alone(
    base: Base, examples: Examples, x: "Floats", rows: Sequence[Skills], members: Sequence[Member]
) -> list[Plan]:
    """Each newcomer alone, as a plan."""
    made = []
    for row, member in zip(rows, members, strict=True):
        spent = examples.of([member.name]).cost_usd[member.rows, 0]
        known = np.isfinite(spent)
        cost = float(spent[known].mean()) if known.any() else 0.0
        made.append(
            Plan(
                stages=((member.name,),),
                threshold=1.0,
                accuracy=float(row.accuracy[0]),
                cost_usd=cost,
                seconds=float(row.seconds[0]),
                weights=row.weights[0],
                spend_usd=row.cost_usd[0],
            )
        )
    return made


def _widest(part: Part, examples: Examples, x: "Floats", panel: Panel, before: Plan) -> Plan:
    """What `max` asks now. How right it is follows from how right it was, question by question."""
    accuracy = float(np.clip(before.accuracy + panel.gain, *_SURE_SHARE))
    was = float(np.clip(before.accuracy, *_SURE_SHARE))
    weights = before.weights.copy()
    weights[0] += np.log(accuracy / (1.0 - accuracy)) - np.log(was / (1.0 - was))
    cost = panel.replayed.cost
    return Plan(
        stages=tuple(tuple(examples.experts[j] for j in stage) for stage in panel.stages),
        threshold=panel.threshold,
        accuracy=accuracy,
        cost_usd=float(cost.mean()),
        seconds=seconds(panel.stages, panel.replayed.asked, examples),
        weights=weights,
        spend_usd=skills.spend(part.base, x[panel.rows], cost),
    )


def _follow(ranking: Mapping[str, list[int]], plans: Sequence[Plan], best: str) -> None:
    """Another expert is the best single one now, whose accuracy policies promise to hold. In place."""
    alone = {plan.experts[0]: i for i, plan in enumerate(plans) if len(plan.experts) == 1}
    single = alone[best]
    widest = ranking["max"][0] if "max" in ranking else single
    for policy in ("cheap", "auto"):
        if policy in ranking:
            ranking[policy].insert(0, single)
    if "auto" in ranking and plans[widest].cost_usd <= plans[single].cost_usd:
        ranking["auto"].insert(0, widest)
    if "fast" in ranking:
        good = [i for i in alone.values() if plans[i].accuracy >= plans[single].accuracy - SLACK]
        timed = [i for i in good if np.isfinite(plans[i].seconds)]
        ranking["fast"][:0] = sorted(timed, key=lambda i: (plans[i].seconds, i)) or [single]
