"""Takes newcomers into a network that was learnt before, from a few dozen outcomes each (the hydra).

Nothing that was learnt is learnt anew: base, other experts' skills and what their votes weigh stay as they
are, bit by bit. A newcomer gets a row of its own, and of four networks the one is taken that is surely not
worse than the one before: as it was; the newcomer first, and the others where it abstains; all votes with
the newcomer's; all votes with those of earlier newcomers too that had not proved useful yet. The outcomes
of whoever is not taken in are kept by the caller: with more of them it may be, next time.

Newcomers are taken in one after another, so the result is a function of the base and of the newcomers'
outcomes in their order; without one of them it is what it would be had that one never come.
"""

from collections.abc import Collection, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from manyminds.artefact import Ballot, Part, left_of
from manyminds.learn import base, newcomers
from manyminds.learn.ballots import Scores, cast, judged
from manyminds.learn.enlarge import Member, Panel, enlarge
from manyminds.learn.examples import Examples
from manyminds.learn.newcomers import Fixed, Terms
from manyminds.learn.plans import HEARD, Explorer, Stages, costs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Rows = NDArray[np.intp]

__all__ = ["Assimilator", "Newcomer", "Verdict", "assimilate"]

# Standard errors by which a network must be better than the one before. Who is asked first is much better or
# not at all, which few probes tell; what one more vote is worth takes many.
_SURE_FIRST, _SURE_VOTES = 0.5, 1.0
_FOLDS = 4
_DOUBT = 0.5  # questions assumed that were changed, and neither won nor lost
_SHARED = 64  # questions that most newcomers were asked, on which all of them are judged together
_CLIP = 0.02  # of an accuracy whose log-odds count
_NOTHING = Terms(np.zeros(0), np.zeros(0), 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Newcomer:
    """Who is to be taken in: `rows` (k,) of the questions it was asked as probes, in the order of the
    examples, and `shares` (k,) of all questions that each stands for; they sum to 1.
    """

    name: str
    rows: "Rows"
    shares: "Floats"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a newcomer, or of all that were waiting.

    Attributes:
        name: the newcomer.
        what: keep (the network is as it was), lead (asked first), join (votes), all (votes, with others
            that had been waiting).
        gain: expected gain of accuracy; low: less its standard error.
        accuracy: share of all questions that the newcomer gets right, estimated.
    """

    name: str
    what: Literal["keep", "lead", "join", "all"]
    gain: float
    low: float
    accuracy: float


def assimilate(part: Part, examples: Examples, come: Sequence[Newcomer]) -> tuple[Part, list[Verdict]]:
    """The part with these newcomers, and what became of each. Deterministic.

    `examples` are those that the part was learnt from, with the newcomers' outcomes beside them: `UNASKED`
    where nothing is known. Raises: ValueError where an expert of the part is not among them.
    """
    network = Assimilator(part, examples)
    verdicts = [network.admit(newcomer) for newcomer in come]
    return network.part(), verdicts


@dataclass(frozen=True, slots=True, eq=False)
class _Heads:
    """A network: in which order it asks, who of the newcomers is in it, and what their votes weigh."""

    stages: Stages
    threshold: float
    taken: tuple[int, ...]  # positions of newcomers, in the order they were taken in
    terms: Terms  # of those in `taken`; empty where answers cannot be compared


_Option: TypeAlias = tuple[tuple[float, float], Literal["lead", "join", "all"], tuple[int, ...]]
# what a network gains at least and on average, what it does, and which newcomers are in it


class Assimilator:
    """A network that newcomers are taken into. Reads the examples anew each time: they may grow.

    Args:
        part: what was learnt of the experts that were there first.
        examples: outcomes of them and of newcomers, on the questions that the part was learnt from.
        have: who of those that were there first can be asked now; without it everybody.
    """

    def __init__(self, part: Part, examples: Examples, have: Collection[str] | None = None) -> None:
        if missing := set(part.skills.experts) - set(examples.experts):
            raise ValueError(f"there are no outcomes of {', '.join(sorted(missing))}")
        have = part.skills.experts if have is None else [n for n in part.skills.experts if n in have]
        ranked = [part.plans[i] for i in part.ranking["max"]]
        plan = next((left for one in ranked if (left := left_of(one, have)) is not None), None)
        if plan is None:
            raise ValueError("no plan of those that were there first is left")
        self._part, self._examples = part, examples
        place = {name: j for j, name in enumerate(examples.experts)}
        self._first = np.array([place[name] for name in part.skills.experts])
        self._place = place
        self._x = base.features(part.base, examples)
        self._fixed = self._cast(part.ballot) if part.ballot is not None else None
        self._wide = self._cast(part.wide) if part.wide is not None else None
        self._present = np.array([place[name] for name in have])
        stages = tuple(tuple(sorted(place[name] for name in stage)) for stage in plan.stages)
        self._heads = _Heads(stages, plan.threshold, (), _NOTHING)
        share = dict(zip(part.skills.experts, part.skills.accuracy, strict=True))
        best = part.best_single if part.best_single in have else max(have, key=lambda n: (share[n], n))
        self._best = place[best]
        self._gain = 0.0
        self._seen: list[Newcomer] = []
        self._right: dict[int, float] = {}  # what `_accuracy` found, by these examples

    def copy(self) -> "Assimilator":
        """Another one that goes on from here by itself."""
        other = copy(self)
        other._seen, other._right = [*self._seen], dict(self._right)
        return other

    def update(self, examples: Examples) -> None:
        """Takes over outcomes that have come since: of the same questions and experts."""
        self._examples, self._right = examples, {}

    # --- what the network does ---

    def answers(self, rows: "Rows | None" = None) -> "tuple[Bools, Floats]":
        """(n,) whether the network as it is answers each question rightly, and how likely it says that is.

        Whoever is not known to have been asked counts as silent. See also `known`.
        """
        where = np.arange(len(self._examples)) if rows is None else rows
        return self._answers(self._heads, where)

    @property
    def known(self) -> "Rows":
        """Questions on which it is known best what it answers: which all newcomers in the network were asked,
        or if there are none, as many of them as any question was put to.
        """
        told = self._examples.asked[:, list(self._heads.taken)].sum(axis=1)
        return np.flatnonzero(told == told.max(initial=0))

    def admit(self, newcomer: Newcomer) -> Verdict:
        """Takes it in, if that is surely no loss; says what became of it.

        Raises: ValueError where nothing was asked of it, or it has come before.
        """
        if not len(newcomer.rows) or newcomer.name in (one.name for one in self._seen):
            raise ValueError(f"{newcomer.name} was asked nothing, or came before")
        j = self._place[newcomer.name]
        self._seen.append(newcomer)
        before, _ = self._answers(self._heads, newcomer.rows)
        lead = self._led(j)
        after, _ = self._answers(lead, newcomer.rows)
        first = _bound(after, before, newcomer.shares, _SURE_FIRST)
        options: list[_Option] = [(first, "lead", lead.taken)]
        if self._fixed is not None:
            taken = (*self._heads.taken, j)
            options.append((self._tried(taken, newcomer.rows, newcomer.shares), "join", taken))
            options += self._together(taken)
        better = [option for option in options if option[0][0] > 0.0]
        taken_in = max(better, key=lambda option: option[0][1], default=None)
        low, gain = max(option[0] for option in options) if taken_in is None else taken_in[0]
        what: Literal["keep", "lead", "join", "all"] = "keep"
        if taken_in is not None:
            _, what, taken = taken_in
            self._heads = lead if what == "lead" else self._joined(taken)
            self._gain += gain
        self._crown(newcomer)
        return Verdict(newcomer.name, what, gain, low, self._accuracy(j))

    def part(self) -> Part:
        """What was learnt, with everybody who was taken in; the very part it was where nobody was."""
        heads, examples = self._heads, self._examples
        taken = list(heads.taken)
        voting = len(taken)
        if self._best not in (*taken, *self._first):
            taken.append(self._best)
        if not taken:
            return self._part
        terms = newcomers.prior(self._odds(taken), np.zeros(len(taken)))
        if self._fixed is not None:
            terms.weights[:voting], terms.dilution[:voting] = heads.terms.weights, heads.terms.dilution
        rows = self.known
        panel = None
        if voting:
            replayed = self._explorer(heads, rows).replay(heads.stages, heads.threshold)
            panel = Panel(heads.stages, heads.threshold, rows, replayed, self._gain)
        members = [
            Member(examples.experts[j], *self._counts(j), float(weight), float(dilution))
            for j, weight, dilution in zip(taken, terms.weights, terms.dilution, strict=True)
        ]
        best = examples.experts[self._best] if self._best in taken else self._part.best_single
        return enlarge(self._part, examples, self._x, members, panel, best, heads.terms.shift)

    def _crown(self, newcomer: Newcomer) -> None:
        """It is the best single expert where it is surely more often right than the one so far."""
        j, examples = self._place[newcomer.name], self._examples
        both = examples.asked[newcomer.rows, self._best]
        rows, shares = newcomer.rows[both], newcomer.shares[both]
        if len(rows):
            ours, theirs = examples.correct[rows, j], examples.correct[rows, self._best]
            low, _ = _bound(ours, theirs, shares / shares.sum(), _SURE_FIRST)
            self._best = j if low > 0.0 else self._best

    def _together(self, taken: tuple[int, ...]) -> "list[_Option]":
        """The network with everybody who has come so far, where enough questions are known of most."""
        everyone = tuple(self._place[one.name] for one in self._seen)
        if set(everyone) == set(taken):
            return []
        shared = np.flatnonzero(self._examples.asked[:, everyone].mean(axis=1) >= 0.5)
        if len(shared) < _SHARED:
            return []
        even = np.full(len(shared), 1.0 / len(shared))
        return [(self._tried(everyone, shared, even), "all", everyone)]

    def _tried(self, taken: tuple[int, ...], rows: "Rows", shares: "Floats") -> tuple[float, float]:
        """`_bound` of the network in which these vote, on questions that its terms were not fitted to."""
        before, _ = self._answers(self._heads, rows)
        after = np.zeros(len(rows), np.bool_)
        fold = np.random.default_rng(1).permutation(len(rows)) % _FOLDS
        for held in range(_FOLDS):
            heads = self._joined(taken, without=rows[fold == held])
            after[fold == held], _ = self._answers(heads, rows[fold == held])
        return _bound(after, before, shares, _SURE_VOTES)

    def _led(self, j: int) -> _Heads:
        """The newcomer first, then what there was; a panel that abstains is no reason to stay silent."""
        heads, taken = self._heads, (*self._heads.taken, j)
        if self._fixed is None:
            return _Heads(((j,),), 1.0, taken, _NOTHING)
        own, terms = newcomers.prior(self._odds([j]), np.zeros(1)), heads.terms
        weights, dilution = np.append(terms.weights, own.weights), np.append(terms.dilution, own.dilution)
        return _Heads(((j,), *heads.stages), HEARD, taken, Terms(weights, dilution, terms.shift))

    def _joined(self, taken: tuple[int, ...], without: "Rows | None" = None) -> _Heads:
        """Everybody's votes, those of newcomers weighed by all questions but some that any was asked."""
        examples, m = self._examples, len(self._examples.experts)
        rows = np.flatnonzero(examples.asked[:, taken].any(axis=1))
        if without is not None:
            rows = np.setdiff1d(rows, without)
        members = np.union1d(self._present, taken)
        votes = np.where(np.isin(np.arange(m), members), examples.votes, -1)[rows]
        odds = self._odds(range(m))
        right = judged(votes, examples.correct[rows], odds, _width(examples))
        assert self._fixed is not None
        fixed = Fixed(self._fixed.weights[rows], self._fixed.dilution[0], self._fixed.other[rows])
        new = np.array(taken, np.intp)
        terms = newcomers.fit(votes, right, fixed, new, odds[new], self._lead(new, members, odds))
        panel = sorted({*taken, *(j for stage in self._heads.stages for j in stage)})
        return _Heads((tuple(panel),), 1.0, taken, terms)

    def _answers(self, heads: _Heads, rows: "Rows") -> "tuple[Bools, Floats]":
        explorer = self._explorer(heads, rows)
        right = explorer.replay(heads.stages, heads.threshold).right
        if self._fixed is None:
            return right, np.full(len(rows), 0.5)
        chance, _, _ = explorer.panel([j for stage in heads.stages for j in stage])
        return right, chance

    def _explorer(self, heads: _Heads, rows: "Rows") -> Explorer:
        examples = self._examples.rows(rows)
        if self._fixed is None:
            return Explorer(examples, None, costs(examples))
        scores = _with(self._fixed[rows, :], heads)
        wide = self._wide[rows, :] if self._wide is not None and not heads.taken else None
        return Explorer(examples, scores, costs(examples), wide)

    # --- what is known of each ---

    def _odds(self, experts: "Sequence[int] | range") -> "Floats":
        """Log-odds of being right of some experts, as the ballot has them."""
        come = {self._place[one.name] for one in self._seen}
        skill = {int(j): float(p) for j, p in zip(self._first, self._part.skills.accuracy, strict=True)}
        found = [self._accuracy(j) if j in come else skill.get(j, 0.5) for j in experts]
        p = np.clip(found, _CLIP, 1.0 - _CLIP)
        odds: Floats = np.log((self._examples.classes - 1.0) * p / (1.0 - p))
        return odds

    def _counts(self, j: int) -> "tuple[Rows, Floats]":
        """(k,) questions that a newcomer was asked, and as how many each counts: a probe for what it stands
        for, and whatever it was asked since for one.
        """
        one = next(one for one in self._seen if self._place[one.name] == j)
        later = np.setdiff1d(np.flatnonzero(self._examples.asked[:, j]), one.rows)
        counts = np.concatenate([len(one.rows) * one.shares, np.ones(len(later))])
        return np.concatenate([one.rows, later]), counts

    def _accuracy(self, j: int) -> float:
        """Of a newcomer, by all that it was asked."""
        if j not in self._right:
            rows, counts = self._counts(j)
            won = float(counts @ self._examples.correct[rows, j])
            self._right[j] = (won + 1.0) / (float(counts.sum()) + 2.0)
        return self._right[j]

    def _lead(self, new: "Rows", members: "Rows", odds: "Floats") -> "Floats":
        """(k,) by how much each is above everybody else, one standard error granted; within [0, 1]."""
        found = []
        counts = self._examples.asked.sum(axis=0)
        for j in new:
            p = 1.0 / (1.0 + (self._examples.classes - 1.0) * np.exp(-odds[j]))
            error = 1.0 / np.sqrt(max(counts[j] * p * (1.0 - p), 1.0))
            others = max((odds[i] for i in members if i != j), default=-np.inf)
            found.append(odds[j] - error - others)
        lead: Floats = np.clip(np.array(found), 0.0, 1.0)
        return lead

    def _cast(self, ballot: Ballot) -> Scores:
        """What the votes of those who were there first weigh; of newcomers nothing."""
        part, examples = self._part, self._examples
        own = cast(ballot, part.skills, self._x[:, : len(part.base.topics)], examples.of(part.skills.experts))
        weights = np.zeros(examples.votes.shape)
        weights[:, self._first] = own.weights
        dilution = np.zeros(examples.votes.shape)
        dilution[:, self._first] = own.dilution
        return Scores(weights, own.other, dilution)


def _with(scores: Scores, heads: _Heads) -> Scores:
    """The same with the votes of newcomers."""
    weights, dilution = scores.weights.copy(), scores.dilution.copy()
    weights[:, list(heads.taken)] = heads.terms.weights
    dilution[:, list(heads.taken)] = heads.terms.dilution
    return Scores(weights, scores.other + heads.terms.shift, dilution)


def _bound(after: "Bools", before: "Bools", shares: "Floats", sure: float) -> tuple[float, float]:
    """The gain less `sure` standard errors, and the gain: of questions that stand for so much each.

    The error is no less than that of half a question more that came out otherwise: without any change
    there is no gain, and one of few changes is not sure.
    """
    gained = after.astype(np.float64) - before
    mean = float(shares @ gained)
    n = 1.0 / float(shares @ shares)
    variance = (n * float(shares @ (gained - mean) ** 2) + _DOUBT) / (n + _DOUBT)
    return mean - sure * float(np.sqrt(variance / n)), mean


def _width(examples: Examples) -> int:
    return max(1, *map(len, examples.candidates))
