"""How much each vote weighs: a conditional logit over the answers given, with "none of these".

    S(c) = sum of W_ij / (1 + sum of rho_k) over the experts j that answered c to question i
    W_ij = prior_j + d_j + x_i.u_j + z_ij.a_j + l_j[c],   S(none) = o_i,   P = softmax

The sum of the dilutions rho_k goes over the other experts k that answered i: since experts err together,
k votes are worth fewer than k independent ones, and next to one that knows better the others count little,
until it is missing. So a pair that agrees may be sure and seventy that agree are not too sure.

The prior is a curve of the expert's log-odds, fitted with a handful of numbers; everything of one expert
beyond it is shrunk to nothing, by how much cross-validation says. Trained with expert-dropout: copies of
the questions with random panels, so that any panel yields a calibrated posterior.
Source: McFadden 1974 (conditional logit); Nitzan & Paroush 1982 (log-odds weights).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from manyminds.artefact import WIDE, Ballot, Skills
from manyminds.combine.ballot import AHEAD, ENOUGH
from manyminds.learn.examples import Examples

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["COMPLEXITIES", "FINER", "Complexity", "Scores", "cast", "fit", "judged", "panels", "score"]

_COPIES = 4  # of the questions with random panels, together as heavy as the full panels
_MAX_LABELS = 32
_ROUNDS = (80, 1000)  # at most, before the scale is told anew and after; most fits end within 50 to 400
_MEMORY = 40  # rounds that L-BFGS looks back on
_PROBES = 6  # of the curvature
_OWN_DILUTION = 0.3  # precision of a normal prior: of how far the logarithm may be from what all share
_NOWHERE = -1e9
_SILENT, _TORN = -1, -2


@dataclass(frozen=True, slots=True)
class Complexity:
    """How far an expert's votes may depart from the curve of its log-odds: precisions of normal priors."""

    own: float  # of its constant
    topic: float  # of each topic's weight
    answer: float  # of what its length, its confidence and its label add
    steep: bool = True  # whether the curve may bend


COMPLEXITIES = (
    Complexity(1e4, 1e4, 1e4, steep=False),
    Complexity(1e3, 1e3, 1e3),
    Complexity(100.0, 100.0, 100.0),
    Complexity(30.0, 30.0, 100.0),
    Complexity(10.0, 30.0, 30.0),
    Complexity(3.0, 10.0, 10.0),
    Complexity(1.0, 3.0, 3.0),
)
"""From log-odds weights alone to weights of one's own, simplest first."""

FINER = (
    Complexity(0.3, 1.0, 1.0),
    Complexity(0.3, 1.0, 0.3),
    Complexity(0.1, 0.3, 0.3),
    Complexity(0.1, 0.3, 0.1),
)
"""More of the same, where questions of several kinds are mixed: who is good at one may be bad at another."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What votes weigh on n questions: `weights` (n, m) of each expert's vote, `other` (n,) of none.

    `dilution` (n, m) of those beside it: by question, since they may have been weighed by different ballots.
    """

    weights: "Floats"
    other: "Floats"
    dilution: "Floats"

    def __getitem__(self, index: "tuple[Any, Any]") -> "Scores":
        """The same of some questions and experts, as numpy indexes them."""
        rows, columns = index
        return Scores(self.weights[rows][:, columns], self.other[rows], self.dilution[rows][:, columns])


@dataclass(frozen=True, slots=True, eq=False)
class _Terms:
    """What a weight may depend on: x (n, t), length and confidence (n, m), label (n, m) or -1."""

    x: "Floats"
    length: "Floats"
    confidence: "Floats"
    label: "NDArray[np.int64]"


def cast(ballot: Ballot, skills: Skills, x: "Floats", examples: Examples) -> Scores:
    """The weights as the vote computes them. `x`: (n, t) topic features."""
    terms = _terms(skills, x, examples, ballot.labels)
    weights = ballot.weights[:, 0] + x @ ballot.weights[:, 1:].T
    weights = weights + terms.length * ballot.length + terms.confidence * ballot.confidence
    if ballot.labels:
        extra = ballot.label[np.arange(len(skills.experts)), np.maximum(terms.label, 0)]
        weights = weights + np.where(terms.label >= 0, extra, 0.0)
    other = ballot.other[0] + x @ ballot.other[1:]
    return Scores(weights, other, np.broadcast_to(ballot.dilution, weights.shape))


def score(
    votes: "NDArray[np.int32]", scores: Scores, sources: Sequence[str] | None = None
) -> "tuple[Floats, NDArray[np.intp]]":
    """What a panel of m experts would release: (n,) its probability, (n,) the heaviest voter or -1.

    `votes` (n, m): of experts that were not asked, or abstained, a negative number. `sources` (m,): without
    them each is its own. Who is alone against enough others does not win: see `combine.ballot.poll`.
    """
    weights = _diluted(votes, scores)
    table, present = _table(votes, weights)
    rows, safe = _safe(votes, sources)
    if len(rows):
        most = table[rows, safe] - AHEAD
        capped = np.minimum(table[rows], most[:, None])
        capped[np.arange(len(rows)), safe] = table[rows, safe]
        table[rows] = capped
    best = np.where(present, table, _NOWHERE).argmax(axis=1)
    top = np.maximum(np.where(present, table, _NOWHERE).max(axis=1), scores.other)
    odds = np.where(present, np.exp(np.minimum(table - top[:, None], 0.0)), 0.0)
    total = odds.sum(axis=1) + np.exp(scores.other - top)
    heard = present.any(axis=1)
    chance = np.where(heard, odds[np.arange(len(votes)), best] / total, 0.0)
    weight = np.where(votes == best[:, None], weights, -np.inf)
    voter = np.where(heard, weight.argmax(axis=1), -1)
    return chance, voter


def panels(examples: Examples, rng: np.random.Generator, wide: bool = False) -> "NDArray[np.int32]":
    """(n, m) votes of random panels: sizes even on a logarithmic scale, members at random.

    `wide` ones have about as many members as `is_wide` asks for, or more.
    """
    n, m = examples.votes.shape
    size = np.exp(rng.uniform(np.log(WIDE * m) if wide else 0.0, np.log(m), (n, 1)))
    kept = rng.random((n, m)) < size / m
    return np.where(kept, examples.votes, -1).astype(np.int32)


def judged(
    votes: "NDArray[np.int32]", correct: "NDArray[np.bool_]", skill: "Floats", width: int
) -> "NDArray[np.bool_]":
    """(n, c + 1): which of c = `width` candidates were right; the last where none of those named was.

    Where graders judged one answer both ways, the verdict of its voter of most `skill` (m,) counts.
    """
    right = np.zeros((len(votes), width + 1), np.bool_)
    for j in np.argsort(skill, kind="stable"):
        rows = np.flatnonzero(votes[:, j] >= 0)
        right[rows, votes[rows, j]] = correct[rows, j]
    right[:, width] = ~right[:, :width].any(axis=1)
    return right


def fit(
    skills: Skills, x: "Floats", examples: Examples, complexity: Complexity, seed: int, wide: bool = False
) -> Ballot:
    """The ballot of least penalised loss on the full panels and on random ones. `x`: (n, t) topic features.

    `wide`: for panels on which nearly all vote, from such. Deterministic by seed. Some seconds for 5,000
    questions and 30 experts, half a minute at most.
    """
    labels = _common_labels(examples)
    terms = _terms(skills, x, examples, labels)
    curve = _curve(skills, examples.classes, complexity.steep)
    rng = np.random.default_rng(seed)
    copies = [(examples.votes, 1.0)]
    copies += [(panels(examples, rng, wide), 1.0 / _COPIES) for _ in range(_COPIES)]
    problem = _Problem(examples, terms, curve, copies, complexity, len(labels))
    part = problem.split(_least(problem, rng))
    constant = curve @ part["curve"] + part["own"]
    dilution = np.exp(part["dilution"][0] + part["dilution"][1:])
    odds = curve[:, 0]
    slope = np.stack([odds, np.ones_like(odds)], axis=1)
    prior = (
        np.linalg.lstsq(slope, curve @ part["curve"], rcond=None)[0]
        if len(odds) > 1
        else np.array([0.4, 0.0])
    )
    return Ballot(
        weights=np.concatenate([constant[:, None], part["topic"].T], axis=1),
        length=np.where(
            np.isfinite(examples.tokens).any(axis=0), part["length"][0] + part["length"][1:], 0.0
        ),
        confidence=part["confidence"][0] + part["confidence"][1:],
        labels=labels,
        label=part["label"],
        other=part["other"],
        dilution=dilution,
        prior=np.array([max(prior[0], 0.0), prior[1], np.median(dilution)]),
        classes=examples.classes,
    )


def _least(problem: "_Problem", rng: np.random.Generator) -> "Floats":
    """The parameters of least loss. `rng` is for the scale on which they are looked for, and decides no more.

    L-BFGS with a long memory: with many experts the loss curves far less along some sums of parameters than
    along each of them, which no scale mends. Rounds that end early would leave what is learnt to that scale.
    """
    from scipy.optimize import minimize

    at = problem.start()
    for rounds in _ROUNDS:
        scale = problem.scale(at, rng)

        def scaled(z: "Floats", scale: "Floats" = scale) -> "tuple[float, Floats]":
            value, slope = problem(z * scale)
            return value, slope * scale

        options = {"maxiter": rounds, "maxcor": _MEMORY, "ftol": 1e-7}
        found = minimize(scaled, at / scale, jac=True, method="L-BFGS-B", options=options)
        at = found.x * scale
        if found.success:
            break
    return at


class _Problem:
    """Penalised loss per question and its gradient, over one flat vector of all parameters."""

    def __init__(
        self,
        examples: Examples,
        terms: _Terms,
        curve: "Floats",
        copies: "list[tuple[NDArray[np.int32], float]]",
        complexity: Complexity,
        labels: int,
    ) -> None:
        self._terms, self._curve, self._labels = terms, curve, labels
        self._n, m = examples.votes.shape
        t = terms.x.shape[1]
        self._width = max(int(examples.votes.max(initial=-1)) + 1, 1)
        self._shapes = {
            "curve": (curve.shape[1],),
            "own": (m,),
            "topic": (t, m),
            "length": (1 + m,),
            "confidence": (1 + m,),
            "label": (m, labels),
            "other": (1 + t,),
            "dilution": (1 + m,),
        }
        shared = np.full(1 + m, complexity.answer)
        shared[0] = 1.0
        other = np.full(1 + t, min(complexity.topic, 100.0))
        other[0] = 0.01
        self._precision = {
            "curve": np.full(curve.shape[1], 0.1),
            "own": np.full(m, complexity.own),
            "topic": np.full((t, m), complexity.topic),
            "length": shared,
            "confidence": shared,
            "label": np.full((m, labels), complexity.answer),
            "other": other,
            "dilution": np.concatenate([[0.0], np.full(m, _OWN_DILUTION)]),
        }
        self._sizes = {name: int(np.prod(shape)) for name, shape in self._shapes.items()}
        self.size = sum(self._sizes.values())
        self._copies = _Copies(examples, copies, self._width)
        self._known = terms.label >= 0
        self._labelled = (np.arange(m) * labels + terms.label)[self._known]

    def split(self, flat: "Floats") -> "dict[str, Floats]":
        parts, at = {}, 0
        for name, size in self._sizes.items():
            parts[name] = flat[at : at + size].reshape(self._shapes[name])
            at += size
        return parts

    def start(self) -> "Floats":
        start = np.zeros(self.size)
        start[0] = 0.5  # of the log-odds
        start[self.size - self._shapes["dilution"][0]] = np.log(0.1)  # what all dilutions have in common
        return start

    def scale(self, at: "Floats", rng: np.random.Generator) -> "Floats":
        """In which the loss curves alike, nearly, along all parameters: of one topic, or common to all.

        The diagonal of the curvature is estimated with random signs (Bekas, Kokiopoulou & Saad 2007); what
        the priors have of it is known.
        """
        step, curved = 1e-4, np.zeros(self.size)
        for _ in range(_PROBES):
            signs = rng.choice([-1.0, 1.0], self.size)
            curved += (
                signs * (self(at + step * signs)[1] - self(at - step * signs)[1]) / (2.0 * step * _PROBES)
            )
        prior = np.concatenate([self._precision[name].ravel() for name in self._shapes])
        found: Floats = 1.0 / np.sqrt(np.maximum(np.maximum(np.abs(curved), 2.0 * prior / self._n), 1e-6))
        return found

    def __call__(self, flat: "Floats") -> "tuple[float, Floats]":
        part, terms = self.split(flat), self._terms
        experts = np.arange(len(part["own"]))
        weights = self._curve @ part["curve"] + part["own"] + terms.x @ part["topic"]
        weights = weights + terms.length * (part["length"][0] + part["length"][1:])
        weights = weights + terms.confidence * (part["confidence"][0] + part["confidence"][1:])
        if self._labels:
            weights = weights + np.where(terms.label >= 0, part["label"][experts, terms.label], 0.0)
        other = part["other"][0] + terms.x @ part["other"][1:]
        dilution = np.exp(part["dilution"][0] + part["dilution"][1:])
        value, slope, slope_other, by_dilution = self._copies.loss(weights, other, dilution)
        by_dilution *= dilution
        column = slope.sum(axis=0)
        by_length = (slope * terms.length).sum(axis=0)
        by_confidence = (slope * terms.confidence).sum(axis=0)
        by_label = np.bincount(self._labelled, slope[self._known], part["label"].size)
        gradient = {
            "curve": self._curve.T @ column,
            "own": column,
            "topic": terms.x.T @ slope,
            "length": np.concatenate([[by_length.sum()], by_length]),
            "confidence": np.concatenate([[by_confidence.sum()], by_confidence]),
            "label": by_label.reshape(part["label"].shape),
            "other": np.concatenate([[slope_other.sum()], terms.x.T @ slope_other]),
            "dilution": np.concatenate([[by_dilution.sum()], by_dilution]),
        }
        pulls = []
        for name, own in part.items():
            value += float((self._precision[name] * own**2).sum())
            pulls.append((gradient[name] + 2.0 * self._precision[name] * own).ravel())
        return value / self._n, np.concatenate(pulls) / self._n


class _Copies:
    """All copies of the questions, one below the other, so that each step is taken for all at once."""

    def __init__(
        self, examples: Examples, copies: "list[tuple[NDArray[np.int32], float]]", width: int
    ) -> None:
        self._n, self._m = examples.votes.shape
        self._width = width
        self._shares = [share for _, share in copies]
        self._heavy = np.repeat(self._shares, self._n)[:, None]
        votes = np.concatenate([votes for votes, _ in copies])
        self._rows, self._experts = np.nonzero(votes >= 0)
        named = votes[self._rows, self._experts]
        self._places = self._rows * (width + 1) + named
        self._cells = self._rows % self._n * self._m + self._experts
        self._voters = self._rows // self._n * self._m + self._experts
        self._absent = np.ones((len(votes), width + 1), np.bool_)
        self._absent[self._rows, named] = self._absent[:, width] = False
        skill = examples.correct.mean(axis=0)
        self._right = np.concatenate([judged(own, examples.correct, skill, width) for own, _ in copies])

    def loss(
        self, weights: "Floats", other: "Floats", dilution: "Floats"
    ) -> "tuple[float, Floats, Floats, Floats]":
        """And its slopes: by weights (n, m), by other (n,) and by the dilutions (m,)."""
        rows, width, count = self._rows, self._width, len(self._right)
        own = dilution[self._experts]
        shrink = 1.0 / (1.0 + (np.bincount(rows, own, count)[rows] - own))
        heavy = weights.ravel()[self._cells] * shrink
        table = np.bincount(self._places, heavy, count * (width + 1)).reshape(count, width + 1)
        np.copyto(table, _NOWHERE, where=self._absent)
        table.reshape(-1, self._n, width + 1)[:, :, width] = other
        table -= table.max(axis=1, keepdims=True)
        odds = np.exp(table)
        chance = odds / odds.sum(axis=1, keepdims=True)
        good = chance * self._right
        sums = good.sum(axis=1) + 1e-300
        pull: Floats = self._heavy * (chance - good / sums[:, None])
        pulled = pull.ravel()[self._places]
        slope = np.asarray(np.bincount(self._cells, pulled * shrink, weights.size), np.float64)
        pulled *= heavy * shrink
        others = np.bincount(rows, pulled, count)[rows] - pulled
        by_dilution = np.asarray(np.bincount(self._voters, others, len(self._shares) * self._m), np.float64)
        logs = np.log(sums).reshape(-1, self._n).sum(axis=1).tolist()
        return (
            float(sum(-share * log for share, log in zip(self._shares, logs, strict=True))),
            slope.reshape(weights.shape),
            pull[:, width].reshape(-1, self._n).sum(axis=0),
            -by_dilution.reshape(-1, self._m).sum(axis=0),
        )


def _diluted(votes: "NDArray[np.int32]", scores: Scores) -> "Floats":
    """(n, m): every vote's weight divided by 1 + the dilutions of those beside it."""
    dilution = np.where(votes >= 0, scores.dilution, 0.0)
    beside = dilution.sum(axis=1, keepdims=True) - dilution
    diluted: Floats = scores.weights / (1.0 + np.maximum(beside, 0.0))
    return diluted


def _table(votes: "NDArray[np.int32]", weights: "Floats") -> "tuple[Floats, NDArray[np.bool_]]":
    """(n, c) scores of the candidates, and which of them anybody named."""
    n, width = len(votes), max(int(votes.max(initial=-1)) + 1, 1)
    rows, experts = np.nonzero(votes >= 0)
    places = rows * width + votes[rows, experts]
    sums: Floats = np.bincount(places, weights[rows, experts], n * width).astype(np.float64)
    present = np.bincount(places, minlength=n * width).reshape(n, width) > 0
    return sums.reshape(n, width), present


def _safe(
    votes: "NDArray[np.int32]", sources: Sequence[str] | None
) -> "tuple[NDArray[np.intp], NDArray[np.intp]]":
    """(k,) questions on which all sources but one agree, and they are enough; (k,) on what.

    As `combine.ballot.agreed` has it, of all questions at once.
    """
    nothing = np.zeros(0, np.intp)
    if votes.shape[1] <= ENOUGH:
        return nothing, nothing
    alone = _by_source(votes, sources)
    n, width = len(votes), max(int(votes.max(initial=-1)) + 1, 1)
    named = alone >= 0
    places = np.nonzero(named)[0] * width + alone[named]
    times = np.bincount(places, minlength=n * width).reshape(n, width)
    safe, heard = times.argmax(axis=1), (alone != _SILENT).sum(axis=1)
    most = times[np.arange(n), safe]
    rows = np.flatnonzero((most >= ENOUGH) & (most == heard - 1))
    return rows, safe[rows]


def _by_source(votes: "NDArray[np.int32]", sources: Sequence[str] | None) -> "NDArray[np.int32]":
    """(n, s) what each source names alone; `_SILENT`, or `_TORN` where it names several."""
    votes = np.where(votes >= 0, votes, _SILENT)
    if sources is None or len(set(sources)) == len(sources):
        return votes
    owner = np.array(sources)
    columns = []
    for name in dict.fromkeys(sources):
        own = votes[:, owner == name]
        most = own.max(axis=1)
        torn = ((own != _SILENT) & (own != most[:, None])).any(axis=1)
        columns.append(np.where(torn, _TORN, most))
    return np.stack(columns, axis=1)


def _curve(skills: Skills, classes: float, steep: bool) -> "Floats":
    """(m, b): log-odds weight of each expert, then what it has above the 50%, 80% and 95% quantiles."""
    p = np.clip(skills.accuracy, 0.02, 0.98)
    odds = np.log((classes - 1.0) * p / (1.0 - p))
    if not steep:
        return odds[:, None]
    bends = [np.maximum(odds - np.quantile(odds, share), 0.0) for share in (0.5, 0.8, 0.95)]
    return np.stack([odds, *bends], axis=1)


def _common_labels(examples: Examples) -> tuple[str, ...]:
    """Candidates that come up in many questions, such as the classes of a classification; sorted."""
    counts = Counter(answer for answers in examples.candidates for answer in answers)
    enough = max(20, len(examples) // 50)
    common = sorted(counts, key=lambda answer: (-counts[answer], answer))[:_MAX_LABELS]
    return tuple(sorted(answer for answer in common if counts[answer] >= enough))


def _terms(skills: Skills, x: "Floats", examples: Examples, labels: tuple[str, ...]) -> _Terms:
    mean, deviation = skills.ln_tokens[:, 0], skills.ln_tokens[:, 1]
    length = np.log(np.maximum(np.nan_to_num(examples.tokens, nan=0.0), 1e-9))
    length = np.where(examples.tokens > 0, np.clip((length - mean) / deviation, -3.0, 3.0), 0.0)
    confidence = np.zeros_like(length)
    for j in range(len(skills.experts)):
        known = np.isfinite(examples.confidence[:, j])
        if np.isfinite(skills.confidence[j]).all() and known.any():
            confidence[known, j] = np.interp(examples.confidence[known, j], *skills.confidence[j])
    place = {label: i for i, label in enumerate(labels)}
    label = np.full(examples.votes.shape, -1, np.int64)
    if labels:
        width = max(1, *map(len, examples.candidates))
        codes = np.full((len(examples), width), -1, np.int64)
        for i, answers in enumerate(examples.candidates):
            codes[i, : len(answers)] = [place.get(answer, -1) for answer in answers]
        given = examples.votes >= 0
        label = np.where(given, np.take_along_axis(codes, np.maximum(examples.votes, 0), 1), -1)
    return _Terms(x, length, confidence, label)
