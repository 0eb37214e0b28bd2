"""What a network has learnt, as one file of plain arrays that is safe to load.

Knows how the learnt numbers are kept and what shape they have, not how they are found or used.
An artefact is made by `learn` and read by the router and the vote; it holds no question and no answer.
It has a part for questions whose answers can be compared, one for the others, or both.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from manyminds import archive
from manyminds.types import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = [
    "GROWN_FROM",
    "WIDE",
    "Artefact",
    "Ballot",
    "Base",
    "Part",
    "Plan",
    "Skills",
    "familiar",
    "is_wide",
    "left_of",
    "load",
    "save",
]

GROWN_FROM: Final = "grown_from"
"""In `about` of an artefact with newcomers: the digest of the file that it has grown from."""

WIDE: Final = 0.8
"""Share of the experts learnt from: where so many have voted, nearly all have."""

_FAMILIAR: Final = 0.5
"""Share of the questions of a topic that an expert must have been asked, to be asked about it."""

_QUORUM: Final = 0.5  # share of a panel asked at once that must be left for it to be asked without the others
_VERSION: Final = 4
_REMEDY: Final = "make one with `manyminds train DIR`"


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """How every learnt term sees a question. Made from questions alone: no expert is in it.

    Attributes:
        topics: (t,) what callers may say that a question is about.
        shares: (t,) share of each among the questions learnt from.
        mean: (d,) of the questions' vectors; d is 0 where they had no text.
        gate: (d + 1, t) logits of the topics, constant last, for questions that name none.
        directions: (d, k) principal directions of the vectors, scaled to unit variance.
    """

    topics: tuple[str, ...]
    shares: "Floats"
    mean: "Floats"
    gate: "Floats"
    directions: "Floats"

    @property
    def width(self) -> int:
        """p, the length of `features`."""
        return len(self.topics) + int(self.directions.shape[1])

    def features(self, vector: "NDArray[Any] | None", topic: str) -> "Floats":
        """(p,): how much more than usual the question is about each topic, then where it lies.

        Zero throughout for a question of which nothing is known: then every term is its average.
        """
        x = np.zeros(self.width)
        t = len(self.topics)
        centred = None
        if vector is not None and len(vector) == len(self.mean) > 0:
            centred = np.asarray(vector, np.float64) - self.mean
            x[t:] = centred @ self.directions
        if topic in self.topics:
            x[:t] = -self.shares
            x[self.topics.index(topic)] += 1.0
        elif centred is not None and t:
            logits = self._logits(centred)
            odds = np.exp(logits - logits.max())
            x[:t] = odds / odds.sum() - self.shares
        return x

    def guess(self, vector: "NDArray[Any] | None") -> str:
        """The likeliest topic of a question; "" where nothing is known of it."""
        if vector is None or not len(vector) == len(self.mean) > 0 or not self.topics:
            return ""
        return self.topics[int(self._logits(np.asarray(vector, np.float64) - self.mean).argmax())]

    def _logits(self, centred: "Floats") -> "Floats":
        logits: Floats = centred @ self.gate[:-1] + self.gate[-1]
        return logits


@dataclass(frozen=True, slots=True, eq=False)
class Skills:
    """What each of m experts can do, every row from that expert's own outcomes alone.

    Attributes:
        experts: (m,) names, sorted; sources: (m,).
        weights: (m, p + 1) log-odds of being right over the features, constant first.
        answered: (m,) questions it was asked; accuracy: (m,) share right.
        asked: (m, t) share of each topic's questions that it was asked.
        cost_usd: (m, p + 1) cost of a question over the features, constant first.
        seconds: (m,) mean time to the last token; NaN where it was not recorded.
        ln_tokens: (m, 2) mean and deviation of the logarithm of an answer's tokens.
        confidence: (m, 2, b) raw confidence at b points, and log-odds of being right there less the
            expert's own; NaN where it has none.
    """

    experts: tuple[str, ...]
    sources: tuple[str, ...]
    weights: "Floats"
    answered: "Floats"
    accuracy: "Floats"
    asked: "Floats"
    cost_usd: "Floats"
    seconds: "Floats"
    ln_tokens: "Floats"
    confidence: "Floats"


@dataclass(frozen=True, slots=True, eq=False)
class Ballot:
    """How much each of m experts' votes weighs; rows are in the order of `Skills.experts`.

    Attributes:
        weights: (m, t + 1) over the topic features, constant first.
        length: (m,) per standard deviation of ln(tokens) of the answer.
        confidence: (m,) per unit of calibrated log-odds of its confidence.
        labels: (l,) candidates that occur in many questions; label: (m, l) extra weight of a vote for it.
        other: (t + 1,) score of "none of these" over the topic features, constant first.
        dilution: (m,) by how much a vote makes those beside it weigh less: since experts err together, each
            vote is divided by 1 + the sum of the others' dilutions.
        prior: (3,) scale and constant by which an expert without a row is weighed by its log-odds, and its
            dilution.
        classes: number of answers among which errors spread, as in that log-odds.
    """

    weights: "Floats"
    length: "Floats"
    confidence: "Floats"
    labels: tuple[str, ...]
    label: "Floats"
    other: "Floats"
    prior: "Floats"
    dilution: "Floats"
    classes: float


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Whom to ask in which order, and what came of it on questions it was not fitted to.

    Attributes:
        stages: names of experts, stage by stage.
        threshold: posterior mass at which no further stage is asked.
        accuracy: share of answers that were right.
        cost_usd: per question; seconds: mean, NaN where not recorded.
        weights: (p + 1,) log-odds of its answer being right over the features, constant first.
        spend_usd: (p + 1,) its cost over the features, constant first.
        experts: all of them, in order of asking.
    """

    stages: tuple[tuple[str, ...], ...]
    threshold: float
    accuracy: float
    cost_usd: float
    seconds: float
    weights: "Floats"
    spend_usd: "Floats"
    experts: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "experts", tuple(name for stage in self.stages for name in stage))


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Everything learnt about questions of some kinds, and from what.

    Attributes:
        about: how it was made: set, seed, numbers of questions; text and numbers for people.
        kinds: the kinds of task that its plans are for.
        ballot: None where the outcomes had no answers to compare.
        wide: what votes weigh instead where nearly all have voted; None where that is no better.
        plans: the operating points of the network, every expert alone first.
        best_single: the expert with the highest accuracy, of those learnt from.
        prices: of one unit of accuracy in US dollars by policy, where a policy chooses a plan for each
            question anew; a policy that is missing takes one plan for all.
        ranking: positions in `plans` by policy, best for it first: the next is for where one cannot be asked.
    """

    about: Mapping[str, Any]
    kinds: tuple[Kind, ...]
    base: Base
    skills: Skills
    ballot: Ballot | None
    wide: Ballot | None
    plans: tuple[Plan, ...]
    best_single: str
    prices: Mapping[str, float]
    ranking: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Artefact:
    """Everything learnt: one part, or several whose kinds differ, those with answers to compare first."""

    parts: tuple[Part, ...]

    def part(self, kind: Kind) -> Part | None:
        """What was learnt about questions of this kind."""
        return next((part for part in self.parts if kind in part.kinds), None)

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of all that were learnt from, sorted."""
        return tuple(sorted({name for part in self.parts for name in part.skills.experts}))

    @property
    def about(self) -> Mapping[str, Any]:
        """How the first part was made."""
        return self.parts[0].about


def is_wide(voters: Any, experts: int) -> Any:
    """Whether so many voters are nearly all. `voters` is a number or an array, and so is the answer."""
    return voters >= WIDE * experts


def left_of(plan: Plan, have: Collection[str]) -> Plan | None:
    """What can be asked of a plan where only these experts can: all of it, or nothing.

    Of a panel asked at once, whoever is left of it, if that is half its members and at least two.
    """
    if set(plan.experts) <= set(have):
        return plan
    left = tuple(name for name in plan.experts if name in have)
    enough = len(left) >= max(2.0, _QUORUM * len(plan.experts))
    return replace(plan, stages=(left,)) if len(plan.stages) == 1 and enough else None


def familiar(base: Base, skills: Skills, x: "Floats") -> "NDArray[np.bool_]":
    """(n, m) whether each expert was asked most questions that are about what these are about.

    x: (n, p) features. Of who was not, nothing is known there. Everybody is familiar where no topics are.
    """
    about = x[:, : len(base.topics)] + base.shares
    known: NDArray[np.bool_] = about @ skills.asked.T >= _FAMILIAR * about.sum(axis=1, keepdims=True)
    return known


def save(artefact: Artefact, path: Path) -> None:
    """Writes the file whole or not at all. The same artefact gives the same bytes."""
    arrays: dict[str, NDArray[Any]] = {}
    headers = []
    for i, part in enumerate(artefact.parts):
        header, own = _take_apart(part)
        headers.append(header)
        arrays |= {f"{i}.{name}": array for name, array in own.items()}
    archive.write(path, {"version": _VERSION, "parts": headers}, arrays)


def load(path: Path) -> Artefact:
    """Reads and checks a file. Nothing in it is executed, whoever made it.

    Raises: ArtefactError where it is missing, damaged, or of another version.
    """
    with archive.opened(path, _VERSION, "artefact", _REMEDY) as (header, arrays):
        artefact = _whole(header, arrays)
        _check(artefact)
    return artefact


def _take_apart(part: Part) -> "tuple[dict[str, Any], dict[str, NDArray[Any]]]":
    """Its texts and numbers, as JSON has them, and its arrays by name."""
    arrays: dict[str, NDArray[Any]] = {}
    header: dict[str, Any] = {"about": dict(part.about), "kinds": part.kinds}
    header |= {"best_single": part.best_single, "prices": dict(part.prices), "ranking": dict(part.ranking)}
    for name in ("base", "skills", "ballot", "wide"):
        value = getattr(part, name)
        header[name] = None if value is None else {}
        for own in fields(value) if value is not None else ():
            content = getattr(value, own.name)
            if isinstance(content, np.ndarray):
                arrays[f"{name}.{own.name}"] = content
            else:
                header[name][own.name] = content
    plans = part.plans
    header["plans"] = [[plan.stages, plan.threshold] for plan in plans]
    if plans:
        arrays["plans.figures"] = np.array([[p.accuracy, p.cost_usd, p.seconds] for p in plans])
        arrays["plans.weights"] = np.stack([p.weights for p in plans])
        arrays["plans.spend_usd"] = np.stack([p.spend_usd for p in plans])
    return header, arrays


def _whole(header: Mapping[str, Any], arrays: "Mapping[str, NDArray[Any]]") -> Artefact:
    parts = []
    for i, own in enumerate(header["parts"]):
        start = f"{i}."
        some = {name.removeprefix(start): a for name, a in arrays.items() if name.startswith(start)}
        parts.append(_assemble(own, some))
    return Artefact(tuple(parts))


def _assemble(header: Mapping[str, Any], arrays: "Mapping[str, NDArray[Any]]") -> Part:
    def piece(kind: type, name: str) -> Any:
        own = {
            key.partition(".")[2]: np.asarray(a, np.float64)
            for key, a in arrays.items()
            if key.startswith(f"{name}.")
        }
        texts = {key: tuple(v) if isinstance(v, list) else v for key, v in header[name].items()}
        return kind(**own, **texts)

    plans = []
    for i, (stages, threshold) in enumerate(header["plans"]):
        accuracy, cost_usd, seconds = (float(x) for x in arrays["plans.figures"][i])
        weights, spend_usd = arrays["plans.weights"][i], arrays["plans.spend_usd"][i]
        names = tuple(tuple(str(name) for name in stage) for stage in stages)
        plans.append(Plan(names, float(threshold), accuracy, cost_usd, seconds, weights, spend_usd))
    return Part(
        about=header["about"],
        kinds=tuple(header["kinds"]),
        base=piece(Base, "base"),
        skills=piece(Skills, "skills"),
        ballot=None if header["ballot"] is None else piece(Ballot, "ballot"),
        wide=None if header["wide"] is None else piece(Ballot, "wide"),
        plans=tuple(plans),
        best_single=header["best_single"],
        prices={str(k): float(v) for k, v in header["prices"].items()},
        ranking={str(k): tuple(int(i) for i in v) for k, v in header["ranking"].items()},
    )


def _check(artefact: Artefact) -> None:
    """Raises: ValueError where parts do not fit together, or what is in them."""
    kinds = [kind for part in artefact.parts for kind in part.kinds]
    if not artefact.parts or len(set(kinds)) < len(kinds):
        raise ValueError("there is no part, or two are for one kind of question")
    for part in artefact.parts:
        _check_shapes(part)
        _check_values(part)


def _check_shapes(part: Part) -> None:
    """Raises: ValueError where shapes do not fit together, or a number that must be finite is not."""
    base, skills = part.base, part.skills
    d, t, p, m = len(base.mean), len(base.topics), base.width + 1, len(skills.experts)
    shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
        "mean": (base.mean, (d,)),
        "shares": (base.shares, (t,)),
        "gate": (base.gate, (d + 1, t)),
        "directions": (base.directions, (d, p - 1 - t)),
        "skills.weights": (skills.weights, (m, p)),
        "skills.answered": (skills.answered, (m,)),
        "skills.accuracy": (skills.accuracy, (m,)),
        "skills.asked": (skills.asked, (m, t)),
        "skills.cost_usd": (skills.cost_usd, (m, p)),
        "skills.ln_tokens": (skills.ln_tokens, (m, 2)),
    }
    for name, ballot in _ballots(part):
        shapes |= {
            f"{name}.weights": (ballot.weights, (m, t + 1)),
            f"{name}.length": (ballot.length, (m,)),
            f"{name}.confidence": (ballot.confidence, (m,)),
            f"{name}.label": (ballot.label, (m, len(ballot.labels))),
            f"{name}.other": (ballot.other, (t + 1,)),
            f"{name}.prior": (ballot.prior, (3,)),
            f"{name}.dilution": (ballot.dilution, (m,)),
            f"{name}.classes": (np.array(ballot.classes), ()),
        }
    for i, plan in enumerate(part.plans):
        shapes |= {
            f"plan {i}.weights": (plan.weights, (p,)),
            f"plan {i}.spend_usd": (plan.spend_usd, (p,)),
            f"plan {i}.figures": (np.array([plan.threshold, plan.accuracy, plan.cost_usd]), (3,)),
        }
        if not 0.0 < plan.threshold <= 1.0:
            raise ValueError(f"plan {i} has a threshold of {plan.threshold}, not within (0, 1]")
        if not plan.experts or not set(plan.experts) <= set(skills.experts):
            raise ValueError(f"plan {i} asks an expert of which nothing is known")
    for name, (array, shape) in shapes.items():
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, not {shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds a number that is not finite")


def _check_values(part: Part) -> None:
    """Of shapes that fit. Raises: ValueError where a name or a number is none that `learn` would give."""
    base, skills, ballots = part.base, part.skills, _ballots(part)
    m = len(skills.experts)
    if skills.seconds.shape != (m,) or (skills.seconds < 0.0).any():
        raise ValueError("skills.seconds has a wrong shape, or one below 0")
    if skills.confidence.ndim != 3 or skills.confidence.shape[:2] != (m, 2) or not skills.confidence.size:
        raise ValueError("skills.confidence has a wrong shape")
    for curve in skills.confidence:
        if not np.isnan(curve).all() and not (np.isfinite(curve).all() and (np.diff(curve[0]) >= 0.0).all()):
            raise ValueError("skills.confidence holds a curve that does not rise, or has gaps")
    texts = (*skills.experts, *skills.sources, *base.topics, *(b.labels if (b := part.ballot) else ()))
    if not isinstance(part.about, dict) or not all(isinstance(text, str) for text in texts):
        raise ValueError("about is no table, or a name is no text")
    if list(skills.experts) != sorted(set(skills.experts)) or len(skills.sources) != m:
        raise ValueError("the experts are not sorted, or not each with its source")
    if not ((skills.asked >= 0.0) & (skills.asked <= 1.0)).all():
        raise ValueError("skills.asked holds a number that is no share")
    if not (skills.ln_tokens[:, 1] > 0.0).all():
        raise ValueError("skills.ln_tokens has a deviation that is not above 0")
    for name, ballot in ballots:
        if not (min(*ballot.dilution, ballot.prior[2]) >= 0.0 and ballot.classes > 1.0):
            raise ValueError(f"{name}.dilution is below 0, or {name}.classes not above 1")
    if len({ballot.labels for _, ballot in ballots}) > 1 or [name for name, _ in ballots] == ["wide"]:
        raise ValueError("the ballot of wide panels does not fit the other")
    if part.best_single not in skills.experts:
        raise ValueError("the best single expert is none of those learnt from")
    if not all(0.0 < price < np.inf for price in part.prices.values()):
        raise ValueError("a price is not a positive number")
    if not all(set(order) <= set(range(len(part.plans))) and order for order in part.ranking.values()):
        raise ValueError("a policy ranks a plan that is not there, or none")


def _ballots(part: Part) -> list[tuple[str, Ballot]]:
    named = (("ballot", part.ballot), ("wide", part.wide))
    return [(name, ballot) for name, ballot in named if ballot is not None]
